"""Laws for every system of ``seqjax.models``."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from laws.programs import program, traced
from laws.systems import SYSTEMS

import seqjax.models
from seqjax.nn.split import count
from seqjax.train.config import from_dict, to_dict

NAMES = pytest.mark.parametrize("name", SYSTEMS)


def test_every_system_is_here():
    root = Path(seqjax.models.__file__).parent
    files = {p.relative_to(root).with_suffix("").as_posix() for p in root.glob("*/*.py") if p.stem != "__init__"}
    assert files == set(SYSTEMS)


@NAMES
def test_parameter_counts_are_the_published_ones(name):
    system = SYSTEMS[name]
    for expected, options in system.published.items():
        build = functools.partial(system.module.build, system.module.Config(**options))
        assert count(nnx.eval_shape(lambda build=build: build(nnx.Rngs(0)))) == expected


@NAMES
def test_every_parameter_gets_gradient(name):
    """Seen in Adam's mean of it, after two steps, since parameters that start at zero can hide the ones behind them."""
    begin, (batch, *_), step = program(name)
    state, _ = step(begin(), batch)
    state, _ = step(state, batch)
    for player, networks in SYSTEMS[name].losses.items():
        means = state.opt[player][0].mu
        assert set(means) == set(networks)
        for path, leaf in jax.tree_util.tree_leaves_with_path(means):
            assert 0 < np.abs(leaf).max() < np.inf, jax.tree_util.keystr(path)


@NAMES
def test_one_batch_is_overfitted(name):
    """By one player, while the others stay as they are."""
    system = SYSTEMS[name]
    alone = system.falls.split("/")[0] if len(system.losses) > 1 else ""
    begin, (batch, *_), step = program(name, alone=alone)
    state, falling = begin(), []
    for _ in range(system.by_heart):
        state, metrics = step(state, batch)
        falling.append(float(metrics[system.falls]))
    assert falling[-1] < 0.35 * falling[0]


@pytest.mark.parametrize(
    ("name", "parallel"), [(n, p) for n, s in SYSTEMS.items() for p in (["jit", "pmap"] if s.by_parts else ["jit"])]
)
def test_four_devices_train_as_one(name, parallel):
    """For three steps; for two where players make a game of it, in which the smallest difference grows."""
    curves, steps = [], 3 if len(SYSTEMS[name].losses) == 1 else 2
    for begin, given, step in (program(name), program(name, 4, parallel)):
        state, curve = begin(), []
        for batch in given[:steps]:
            state, metrics = step(state, batch)
            curve.append([float(metrics[m]) for m in sorted(metrics)])
        curves.append(np.asarray(curve))
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-5, atol=SYSTEMS[name].rounding)


@NAMES
def test_networks_that_compute_in_bfloat16_learn_the_same(name):
    """On one batch every loss begins within 1 % of the float32 one, and the gradient of every player in its direction.

    Then each loss stays within 5 % of its beginning for forty steps. Not where players make a game of it, or the
    network chooses: there the smallest difference grows. In bfloat16 compiled as for a user: as the other tests are,
    every single operation would round.
    """
    system, curves, gradients = SYSTEMS[name], {}, {}
    mixed = traced(name, dtype=jnp.bfloat16)
    quick = mixed.step.lower().compile(compiler_options={"xla_backend_optimization_level": 1})
    for dtype, (begin, (batch, *_), step) in {None: program(name), jnp.bfloat16: mixed._replace(step=quick)}.items():
        state, curve = begin(), []
        for k in range(1 if system.chosen or len(system.losses) > 1 else 40):
            state, metrics = step(state, batch)
            curve.append([metrics[f"{loss}/loss"] for loss in system.losses])
            if k == 0:  # after one step Adam's mean is a tenth of the gradient
                means = [optax.tree.get(state.opt[player], "mu") for player in system.losses]
                gradients[dtype] = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(mean)]) for mean in means]
        curves[dtype] = np.asarray(curve)
        assert {x.dtype for x in jax.tree.leaves((state.params, state.opt)) if x.ndim} == {np.dtype(np.float32)}
    assert np.isfinite(curves[jnp.bfloat16]).all()
    error = np.abs(curves[jnp.bfloat16] - curves[None]) / np.abs(curves[None][0])
    cos = [float(a @ b / np.sqrt((a @ a) * (b @ b))) for a, b in zip(*gradients.values(), strict=True)]
    assert min(cos) >= 0.98
    assert error[0].max() <= 0.01
    assert error.max() <= 0.05
    half, full = products(mixed.step.jaxpr.jaxpr)
    assert half > full


def products(jaxpr):
    """How many matrix products and convolutions there are in bfloat16, and how many in float32."""
    found = np.zeros(2, int)
    for eqn in jaxpr.eqns:
        if eqn.primitive.name.startswith(("dot_general", "conv_", "convolution_")):
            found += [eqn.invars[0].aval.dtype == dtype for dtype in (jnp.bfloat16, jnp.float32)]
        for inner in jax.core.jaxprs_in_params(eqn.params):
            found += products(inner)
    return found


@NAMES
def test_configuration_survives_json(name):
    config = SYSTEMS[name].module.Config
    for value in (config(), config.tiny()):
        assert from_dict(config, to_dict(value)) == value
        assert dataclasses.is_dataclass(value)
        hash(value)
