"""The recurrent reader of the memory tasks: what its losses mean, and that it is the network that it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax import compat
from seqjax.data.memory_tasks import adding, copying
from seqjax.errors import InputError
from seqjax.models.recurrent import memory_tasks
from seqjax.models.recurrent.memory_tasks import Config, build, error, last_number, loss, memoryless, predict, recalled

KEY = jax.random.key(0)


def sequences(task, number, length=6):
    draw = {"adding": adding, "copy": copying}[task]
    inputs, targets = zip(*(draw(np.random.default_rng(seed), length) for seed in range(number)), strict=True)
    return {"inputs": jnp.asarray(np.stack(inputs)), "targets": jnp.asarray(np.stack(targets))}


@pytest.mark.parametrize("task", ["adding", "copy"])
def test_two_layers_of_tanh_against_loops_in_numpy(task):
    nets, batch = build(Config(task=task, cell="rnn", features=5, layers=2), nnx.Rngs(0)), sequences(task, 3)
    net = nets["reader"]
    xs = np.asarray(batch["inputs"]) if task == "adding" else np.eye(10)[np.asarray(batch["inputs"])]
    for params in compat.pure(net.layers):
        h, hs = np.zeros((3, 5)), []
        for t in range(xs.shape[1]):
            h = np.tanh(xs[:, t] @ np.asarray(params.input) + h @ np.asarray(params.recurrent))
            hs.append(h)
        xs = np.stack(hs, axis=1)
    outputs = (xs[:, -1] if task == "adding" else xs) @ np.asarray(compat.pure(net.readout.kernel))
    np.testing.assert_allclose(predict(nets, batch), outputs, atol=1e-5)
    value, _ = loss(nets, batch, key=KEY)
    targets = np.asarray(batch["targets"])
    if task == "adding":
        expected = np.mean((outputs - targets) ** 2)
    else:
        chances = np.exp(outputs) / np.exp(outputs).sum(axis=-1, keepdims=True)
        expected = -np.mean([np.log(chances[b, t, targets[b, t]]) for b in range(3) for t in range(xs.shape[1])])
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("length", [2, 30])
def test_without_memory_copying_costs_ten_logarithms_of_eight(length):
    batch = sequences("copy", 2000, length)
    logits = memoryless("copy", batch["inputs"])
    errors = error("copy", logits, batch["targets"])
    np.testing.assert_allclose(errors, np.full(2000, 10 * np.log(8) / (length + 20)), rtol=1e-5)
    assert float(jnp.mean(recalled(logits, batch["targets"]))) == pytest.approx(1 / 8, abs=0.01)


def test_without_memory_adding_costs_a_sixth():
    batch = sequences("adding", 2000)
    errors = error("adding", memoryless("adding", batch["inputs"]), batch["targets"])
    assert float(jnp.mean(errors)) == pytest.approx(1 / 6, rel=0.06)
    errors = error("adding", last_number(batch["inputs"]), batch["targets"])
    assert float(jnp.mean(errors)) == pytest.approx(1 / 12, rel=0.06)
    assert float(jnp.max(errors)) <= 1 / 4  # the first number alone is missing, by at most a half


def test_recalled_counts_the_symbols_to_remember_alone():
    targets = sequences("copy", 1)["targets"]
    wrong = targets.at[0, -3:].add(1).at[0, :5].set(0)
    assert recalled(jax.nn.one_hot(wrong, 9), targets) == pytest.approx([0.7])


@pytest.mark.parametrize(("task", "cell"), [("adding", "lstm"), ("copy", "rnn")])
def test_gradient_norms_at_every_lag(task, cell):
    """Oracle at lag T: the slope, forward through a loop in Python, by the state that the sequence starts from."""
    nets, batch = build(Config(task=task, cell=cell, features=3), nnx.Rngs(0)), sequences(task, 2)
    norms = memory_tasks.gradient_norms(nets, batch)
    assert norms.shape == batch["inputs"].shape[:2]
    net = nets["reader"]
    (params,), xs = compat.pure(net.layers), net.encode(batch["inputs"])
    start = net.cell.carry(params, (2,))
    leaves, tree = jax.tree.flatten(start)

    def last(flat):
        h = jax.tree.unflatten(tree, jnp.split(flat.reshape(2, -1), len(leaves), axis=-1))
        for t in range(xs.shape[1]):
            z_t = net.cell.project(params, xs[:, t], lambda b, k, x: jnp.broadcast_to(b, (2, *b.shape)) + x @ k)
            h, y = net.cell.step(params, h, z_t, lambda b, k, x: jnp.broadcast_to(b, (2, k.shape[-1])) + x @ k)
        outputs = net.readout(y)
        if task == "adding":
            return jnp.sum(error(task, outputs, batch["targets"]))
        return jnp.sum(error(task, outputs[:, None], batch["targets"][:, -1:]))

    slopes = jax.jit(jax.jacfwd(last))(jnp.zeros(6 * len(leaves)))
    expected = np.linalg.norm(slopes.reshape(2, -1), axis=-1)
    np.testing.assert_allclose(norms[:, -1], expected, rtol=1e-4, atol=1e-6)


def test_inputs_of_the_other_problem_are_refused():
    nets = build(Config.tiny(), nnx.Rngs(0))
    with pytest.raises(InputError, match="symbols came, int32"):
        predict(nets, sequences("copy", 2))
