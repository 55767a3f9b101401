"""The step on one device, on four, and per device; placement of state and batches; joining other processes."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from seqjax.errors import InputError
from seqjax.nn.split import split
from seqjax.train.mesh import compile_step, make_mesh, replicate, shard_batch, start_distributed
from seqjax.train.step import Player, alternate, minimise, repeat

BATCHES = np.random.default_rng(0).normal(2, 3, size=(3, 8, 4)).astype(np.float32)


def batch_norm():
    return {"net": nnx.BatchNorm(4, momentum=0.5, epsilon=0, rngs=nnx.Rngs(0))}


def linear():
    return {"net": nnx.Linear(4, 4, rngs=nnx.Rngs(0))}


def loss(nets, batch, *, key):
    y = nets["net"](batch)
    return ((y - batch**2) ** 2).mean(), {"mean": y.mean(), "draw": jax.random.normal(key)}


def train(build, devices, parallel, inner_steps=1, learner=None):
    nets, mesh = build(), make_mesh(jax.devices()[:devices])
    learner = learner or minimise(loss, optax.sgd(0.01, momentum=0.9), ema={"net": 0.5})
    state = replicate(learner.init(nets, jax.random.key(1)), mesh)
    learner, batches = (learner, BATCHES) if inner_steps == 1 else (repeat(learner, inner_steps), BATCHES[None])
    step = compile_step(learner, split(nets).graphs, mesh, parallel, inner_steps=inner_steps)
    for batch in batches:
        state, metrics = step(state, shard_batch(batch, mesh, inner_steps=inner_steps))
    return jax.device_get((state._replace(key=0), metrics))


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), a, b)


@pytest.mark.parametrize("build", [batch_norm, linear])
def test_jit_on_four_devices_is_one_device(build):
    assert_close(train(build, 4, "jit"), train(build, 1, "jit"))


def test_per_device_steps_without_batch_statistics_are_the_same_steps():
    (state, metrics), (expected, _) = train(linear, 4, "pmap"), train(linear, 1, "jit")
    assert_close(state, expected)
    key = jax.random.fold_in(jax.random.key(1), 2)
    draws = [jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, device), 0)) for device in range(4)]
    np.testing.assert_allclose(metrics["draw"], np.mean(draws), rtol=1e-5)


def test_per_device_statistics_are_those_of_the_device_averaged():
    """Oracle: NumPy. What BatchNorm normalises by, and averages over steps, is the statistics of a device's part."""
    (state, _), (whole, _) = train(batch_norm, 4, "pmap"), train(batch_norm, 1, "jit")
    parts, mean, var = BATCHES.reshape(3, 4, 2, 4).astype(np.float64), np.zeros(4), np.ones(4)
    for batch in parts:
        mean, var = 0.5 * mean + 0.5 * batch.mean((0, 1)), 0.5 * var + 0.5 * batch.var(1).mean(0)
    np.testing.assert_allclose(state.rest["net"]["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(state.rest["net"]["var"], var, rtol=1e-4)
    np.testing.assert_allclose(state.rest["net"]["mean"], whole.rest["net"]["mean"], rtol=1e-5)
    assert (np.abs(state.rest["net"]["var"] - whole.rest["net"]["var"]) > 0.1).all()


def test_first_per_device_gradient_is_the_mean_of_the_devices():
    """Oracle: the loss of each device's part, differentiated by finite differences in NumPy, averaged."""
    normal = [(part - part.mean(0)) / part.std(0) for part in BATCHES[0].reshape(4, 2, 4).astype(np.float64)]
    targets = BATCHES[0].reshape(4, 2, 4).astype(np.float64) ** 2

    def value(scale, bias):
        return np.mean([((n * scale + bias - t) ** 2).mean() for n, t in zip(normal, targets, strict=True)])

    nets, mesh = batch_norm(), make_mesh()
    learner = minimise(loss, optax.sgd(1.0))
    step = compile_step(learner, split(nets).graphs, mesh, "pmap")
    state, metrics = step(replicate(learner.init(nets, jax.random.key(0)), mesh), shard_batch(BATCHES[0], mesh))
    one, zero, small = np.ones(4), np.zeros(4), 1e-4
    for axis in range(4):
        step_by = small * np.eye(4)[axis]
        slope = (value(one + step_by, zero) - value(one - step_by, zero)) / (2 * small)
        np.testing.assert_allclose(1 - state.params["net"]["scale"][axis], slope, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(metrics["loss"], value(one, zero), rtol=1e-4)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_steps_in_one_call_are_the_steps(parallel):
    state, metrics = train(batch_norm, 4, parallel, inner_steps=3)
    expected, last = train(batch_norm, 4, parallel)
    assert_close(state, expected)
    assert_close({name: values[-1] for name, values in metrics.items()}, last)


def test_variables_that_are_not_floating_point_pass_through_a_per_device_step():
    class Counting(nnx.Module):
        def __init__(self):
            self.scale, self.calls = nnx.Param(jnp.ones(())), nnx.Variable(jnp.zeros((), jnp.int32))
            self.key = nnx.Variable(jax.random.key(5))

        def __call__(self, x):
            self.calls[...] = self.calls[...] + 1
            return x * self.scale[...]

    players = {name: Player(loss, ("net",), optax.sgd(0.01)) for name in ("one", "two")}
    state, _ = train(lambda: {"net": Counting()}, 4, "pmap", learner=alternate(players))
    assert state.rest["net"]["calls"] == 6
    assert state.rest["net"]["calls"].dtype == np.int32


def test_the_state_is_donated_and_comes_back_replicated():
    nets, mesh = linear(), make_mesh()
    learner = minimise(loss, optax.adam(0.1))
    before = replicate(learner.init(nets, jax.random.key(0)), mesh)
    after, metrics = compile_step(learner, split(nets).graphs, mesh)(before, shard_batch(BATCHES[0], mesh))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((before.params, before.opt)))
    assert all(leaf.sharding.is_fully_replicated and leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(after))
    assert metrics["loss"].sharding.is_fully_replicated


def test_the_mesh_states_its_axis_type():
    assert make_mesh().axis_types == (AxisType.Auto,)
    assert dict(make_mesh().shape) == {"data": 4}
    assert list(make_mesh(jax.devices()[1:3]).devices) == jax.devices()[1:3]


def test_replicate_copies_everything_to_every_device():
    tree = {"key": jax.random.key(3), "array": np.arange(3, dtype=np.float32), "none": None}
    placed = replicate(tree, make_mesh())
    assert placed["none"] is None
    assert placed["array"].sharding.is_fully_replicated
    assert len(placed["array"].devices()) == len(placed["key"].devices()) == 4
    np.testing.assert_array_equal(placed["array"], tree["array"])
    assert jax.random.normal(placed["key"]) == jax.random.normal(tree["key"])


def test_each_device_gets_an_equal_part_of_the_batch():
    batch = {"video": np.arange(48, dtype=np.uint8).reshape(8, 3, 2), "label": np.arange(8)}
    placed = shard_batch(batch, make_mesh())
    np.testing.assert_array_equal(placed["video"], batch["video"])
    assert placed["video"].sharding.spec == PartitionSpec("data")
    assert [shard.data.shape for shard in placed["video"].addressable_shards] == [(2, 3, 2)] * 4
    stacked = shard_batch(BATCHES, make_mesh(), inner_steps=3)
    assert stacked.sharding.spec == PartitionSpec(None, "data")
    assert [shard.data.shape for shard in stacked.addressable_shards] == [(3, 2, 4)] * 4


def test_batches_that_do_not_fit_are_named():
    mesh = make_mesh()
    with pytest.raises(InputError, match=r"host_batch\['video'\]: a global batch of 6 cannot be divided by 4 devices"):
        shard_batch({"video": np.zeros((6, 2))}, mesh)
    with pytest.raises(InputError, match=r"a global batch of 6 cannot be divided by 4"):
        shard_batch(np.zeros((2, 6)), mesh, inner_steps=2)
    with pytest.raises(InputError, match=r"got shape \(8, 4\), expected \[3, B, ...\] for 3 steps in one call"):
        shard_batch(np.zeros((8, 4)), mesh, inner_steps=3)
    with pytest.raises(InputError, match=r"got shape \(\), expected \[B, ...\]"):
        shard_batch({"scalar": np.float32(1)}, mesh)


@pytest.fixture
def joined(monkeypatch):
    """What jax.distributed.initialize was called with, in an environment without any cluster's variables."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    for name in os.environ:
        if name.startswith(("SLURM_", "OMPI_", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_COORDINATOR", "KUBERNETES")):
            monkeypatch.delenv(name)
    return calls


SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, []),
        ({"JAX_NUM_PROCESSES": "1"}, []),
        (SRUN, [{}]),
        (SRUN | {"SLURM_NTASKS": "1"}, []),
        (SRUN | {"JAX_NUM_PROCESSES": "1"}, []),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, []),
        (
            {"JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2", "JAX_COORDINATOR_ADDRESS": "localhost:1"},
            [{"num_processes": 3, "process_id": 2}],
        ),
    ],
)
def test_other_processes_are_joined_if_there_are_any(joined, monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    start_distributed()
    assert joined == expected


def test_half_a_cluster_is_named(joined, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(InputError, match="JAX_NUM_PROCESSES: got 2 without JAX_PROCESS_ID"):
        start_distributed()
