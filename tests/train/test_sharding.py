"""Parameters in parts: what lives where, the same results as whole, saved and restored in other parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from laws.programs import divisible, program
from laws.systems import SYSTEMS

from seqjax.errors import InputError
from seqjax.nn.split import split
from seqjax.train.checkpoint import Checkpoints, read_state
from seqjax.train.config import check_resumable
from seqjax.train.mesh import compile_step, gather, make_mesh, place, shard_batch
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.sharding import state_shardings
from seqjax.train.step import minimise

BATCHES = np.random.default_rng(0).normal(size=(3, 8, 6)).astype(np.float32)


def mlp():
    rngs = nnx.Rngs(0)
    return {"a": nnx.Linear(6, 16, rngs=rngs), "b": nnx.Linear(16, 8, rngs=rngs)}


def loss(nets, batch, *, key):
    y = nets["b"](jnp.tanh(nets["a"](batch)))
    return ((y - batch.mean(axis=1, keepdims=True)) ** 2).mean(), {}


def learner(name="adam"):
    return minimise(loss, make_optimizer(Optimizer(name, learning_rate=0.05, clip_norm=0.1), 10), ema={"a": 0.9})


def train(learn, nets, batches, devices, expressions, state=None):
    mesh = make_mesh(jax.devices()[:devices])
    state = learn.init(nets, jax.random.key(0)) if state is None else state
    shardings = state_shardings(state, mesh, expressions)
    step, curve = compile_step(learn, split(nets).graphs, mesh, shardings=shardings), []
    state = place(state, shardings)
    for batch in batches:
        state, metrics = step(state, shard_batch(batch, mesh))
        curve.append([metrics[name] for name in sorted(metrics)])
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings
    return jax.device_get(state._replace(key=0)), np.asarray(curve), state


def test_parameters_lie_in_parts_with_their_averages_and_what_adam_keeps():
    _, _, state = train(learner(), mlp(), BATCHES, 4, ["kernel$"])

    def parts(leaf):
        return leaf.sharding.shard_shape(leaf.shape)

    adam = state.opt["all"][1][0]
    for tree in (state.params, adam.mu, adam.nu):
        assert parts(tree["a"]["kernel"]) == (6, 4)
        assert parts(tree["b"]["kernel"]) == (4, 8)
        assert parts(tree["a"]["bias"]) == (16,)
    assert parts(state.ema["a"]["kernel"]) == (6, 4)
    whole = gather(state.params, make_mesh())
    assert whole["a"]["kernel"].is_fully_replicated
    np.testing.assert_array_equal(whole["a"]["kernel"], state.params["a"]["kernel"])


@pytest.mark.parametrize("name", ["adam", "rmsprop", "muon"])
def test_parts_are_trained_as_the_whole(name):
    """Clipping by the global norm, and Muon's view of a kernel as a whole, included."""
    whole = train(learner(name), mlp(), BATCHES, 1, [])
    parts = train(learner(name), mlp(), BATCHES, 4, ["a/kernel", "b/"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), parts[:2], whole[:2])


# In a game of several players rounding grows too fast to be compared.
@pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if len(system.losses) == 1])
def test_systems_are_trained_in_parts_as_whole(name):
    curves = []
    for begin, given, step in (program(name, 4, in_parts=True), program(name)):
        state, curve = begin(), []
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        for batch in given:
            state, metrics = step(state, batch)
            curve.append([metrics[metric] for metric in sorted(metrics)])
        assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings
        curves.append(np.asarray(curve))
    np.testing.assert_allclose(*curves, rtol=2e-5)
    params = program(name, 4, in_parts=True).begin().params
    assert sum(not leaf.is_fully_replicated for leaf in jax.tree.leaves(params)) == len(divisible(params)) > 0


@pytest.mark.parametrize(("devices", "expressions"), [(1, []), (4, []), (2, ["a"]), (4, ["b/kernel"])])
def test_a_state_saved_in_parts_goes_on_in_others(tmp_path, devices, expressions):
    learn, nets = learner(), mlp()
    _, curve, state = train(learn, nets, BATCHES[:1], 4, ["kernel"])
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, config={}, progress={})
        mesh = make_mesh(jax.devices()[:devices])
        abstract = jax.eval_shape(lambda: state)
        restored = checkpoints.restore(abstract, mesh, state_shardings(abstract, mesh, expressions)).state
    jax.tree.map(np.testing.assert_array_equal, restored._replace(key=0), state._replace(key=0))
    jax.tree.map(np.testing.assert_array_equal, read_state(tmp_path, abstract).params, state.params)
    _, rest, _ = train(learn, nets, BATCHES[1:], devices, expressions, state=restored)
    unbroken = train(learn, nets, BATCHES, 1, [])[1]
    np.testing.assert_allclose([*curve, *rest], unbroken, rtol=1e-5)


def test_a_run_may_go_on_in_other_parts():
    stored = {"loop": {"shard": ["kernel"], "steps": 3}}
    check_resumable(stored, {"loop": {"shard": [], "steps": 3}})


def test_what_cannot_be_split_is_named():
    state, mesh = jax.eval_shape(lambda: learner().init(mlp(), jax.random.key(0))), make_mesh()
    with pytest.raises(InputError, match=r"loop.shard: 'kernels' matches none of the parameters, which are a/bias, a"):
        state_shardings(state, mesh, ["a/kernel", "kernels"])
    with pytest.raises(InputError, match=r"loop.shard: 'kernel\(' is no regular expression"):
        state_shardings(state, mesh, ["kernel("])
    with pytest.raises(InputError, match=r"parameter b/bias of shape \(8,\) has no axis that 3 devices divide"):
        state_shardings(state, make_mesh(jax.devices()[:3]), ["b/bias"])
    shardings = state_shardings(state, mesh, ["kernel"])
    with pytest.raises(InputError, match=r"split by parallel='jit' alone"):
        compile_step(learner(), split(mlp()).graphs, mesh, "pmap", shardings=shardings)
