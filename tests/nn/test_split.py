"""Networks as dictionaries of arrays and back: equal in value to the modules, pure, and safe from shared parts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.split import count, initialise, merge, rest_of, split


class Affine(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


class Network(nnx.Module):
    """All that a system's module may hold: a list of modules, statistics, a variable of its own, a pytree parameter."""

    def __init__(self, rngs: nnx.Rngs):
        self.layers = compat.List([nnx.Linear(3, 5, rngs=rngs), nnx.Linear(5, 2, rngs=rngs)])
        self.norm = nnx.BatchNorm(2, momentum=0.9, rngs=rngs)
        self.cells = nnx.Param((Affine(2 * jnp.eye(2), jnp.ones(2)), Affine(3 * jnp.eye(2), jnp.zeros(2))))
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))
        self.nothing = None

    def __call__(self, x):
        self.calls[...] = self.calls[...] + 1
        x = self.norm(self.layers[1](self.layers[0](x)))
        for cell in compat.pure(self.cells):
            x = x @ cell.kernel + cell.bias[None]
        return x


X = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def by_hand(params, x):
    """The network in NumPy, float64: output, and what goes into the BatchNorm."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for layer in (0, 1):
        x = x @ params["layers"][layer]["kernel"] + params["layers"][layer]["bias"]
    hidden = x
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * params["norm"]["scale"] + params["norm"]["bias"]
    return (x * 2 + 1) * 3, hidden


def test_networks_begin_as_they_are_built():
    built, begun = split({"net": Network(nnx.Rngs(3))}), split(initialise(lambda rngs: {"net": Network(rngs)}, 3))
    assert begun.graphs == built.graphs
    for a, b in zip(jax.tree.leaves(begun[1:]), jax.tree.leaves(built[1:]), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    other = split(initialise(lambda rngs: {"net": Network(rngs)}, 4)).params["net"]["layers"][0]["kernel"]
    assert not np.allclose(other, built.params["net"]["layers"][0]["kernel"])


def test_merged_networks_compute_what_the_formula_says_also_under_jit_and_grad():
    graphs, params, rest = split({"net": Network(nnx.Rngs(0))})
    expected, _ = by_hand(params["net"], X)

    def loss(params):
        return (merge(graphs, params, rest)["net"](X) ** 2).mean()

    np.testing.assert_allclose(merge(graphs, params, rest)["net"](X), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(jax.jit(loss)(params), (expected**2).mean(), rtol=1e-5)
    gradient = jax.jit(jax.grad(loss))(params)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    # The last cell's bias b adds to the output: d/db of the mean over 7 × 2 of (u + b)² is Σ_rows 2 (u + b) / 14.
    np.testing.assert_allclose(gradient["net"]["cells"][1].bias, expected.mean(0), rtol=1e-4, atol=1e-5)


def test_split_gives_plain_dictionaries_of_arrays():
    _, params, rest = split({"net": Network(nnx.Rngs(0))})
    assert set(params["net"]) == {"layers", "norm", "cells"}
    assert set(params["net"]["layers"]) == {0, 1}
    assert set(rest["net"]["norm"]) == {"mean", "var"}
    assert all(type(leaf).__name__ == "ArrayImpl" for leaf in jax.tree.leaves((params, rest)))


def test_a_forward_pass_leaves_what_was_merged_untouched_and_its_rest_can_be_read():
    graphs, params, rest = split({"net": Network(nnx.Rngs(0))})
    before = jax.tree.map(np.array, (params, rest))
    nets = merge(graphs, params, rest)
    nets["net"](X)
    jax.tree.map(np.testing.assert_array_equal, before, (params, rest))
    after = rest_of(nets)["net"]
    _, hidden = by_hand(params["net"], X)
    np.testing.assert_allclose(after["norm"]["mean"], 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after["norm"]["var"], 0.9 + 0.1 * hidden.var(0), rtol=1e-4)
    assert after["calls"] == 1
    assert jax.tree.structure(rest_of(nets)) == jax.tree.structure(rest)


def test_graphs_are_static_data():
    first, second = (split({"net": Network(nnx.Rngs(seed))}).graphs["net"] for seed in (0, 1))
    assert first == second
    assert hash(first) == hash(second)


def test_count_is_that_of_the_formula_also_for_abstract_networks():
    entries = (3 * 5 + 5) + (5 * 2 + 2) + (2 + 2) + 2 * (2 * 2 + 2)
    assert count({"a": Network(nnx.Rngs(0)), "b": nnx.Linear(2, 3, rngs=nnx.Rngs(0))}) == entries + 9
    assert count(nnx.eval_shape(lambda: {"a": Network(nnx.Rngs(0))})) == entries
    large = nnx.eval_shape(lambda: {"large": nnx.Linear(10**6, 10**5, rngs=nnx.Rngs(0))})
    assert count(large) == 10**11 + 10**5


def test_a_network_may_have_no_parameters():
    graphs, params, rest = split({"bare": nnx.BatchNorm(2, use_scale=False, use_bias=False, rngs=nnx.Rngs(0))})
    assert params == {"bare": {}}
    assert merge(graphs, params, rest)["bare"](jnp.ones((3, 2))).shape == (3, 2)


def test_a_variable_in_two_networks_is_refused():
    class Wrapper(nnx.Module):
        def __init__(self, inner):
            self.inner = inner

    shared = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match=r"'one' and 'two' hold the same variable \(inner\.(bias|kernel) of 'two'\)"):
        split({"one": shared, "two": Wrapper(shared)})
    with pytest.raises(InputError, match="'one' and 'two'"):
        split({"one": shared, "two": shared})
