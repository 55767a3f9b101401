"""Where arrays live: the mesh, state replicated and batches sharded on it, the compiled step, several processes."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

# jax has no public way to ask whether there is a cluster, and its `initialize` raises where there is none.
from jax._src.clusters import ClusterEnv
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from seqjax.errors import InputError
from seqjax.nn.split import DType
from seqjax.train.state import State
from seqjax.train.step import Learner

AXIS = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the one axis "data" over all devices of all processes, or over those given."""
    devices = jax.devices() if devices is None else devices
    # The default of the axis type changed from Auto to Explicit; propagation by the compiler needs Auto.
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The whole of every array on every device; each process has to pass the same values."""
    return place(tree, jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), tree))


def place(tree: Any, shardings: Any) -> Any:
    """Every array where its sharding says; each process has to pass the same values."""

    def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.device_put(leaf, sharding)
        # device_put refuses to bring a typed key to the devices of another process.
        data = jax.device_put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))

    return jax.tree.map(put, tree, shardings)


def gather(tree: Any, mesh: Mesh) -> Any:
    """The whole of every array on every device; what is there already stays."""
    if all(leaf.is_fully_replicated for leaf in jax.tree.leaves(tree)):
        return tree
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)


def shard_batch(host_batch: Any, mesh: Mesh, *, inner_steps: int = 1) -> Any:
    """One global batch on the devices, from the part of it that each process has read.

    Args:
      host_batch: NumPy arrays with the batch axis first. With `inner_steps` above one, that many batches are
        stacked on an axis before it, as `step.repeat` takes them.
      mesh: the mesh; each device gets an equal part of the batch axis.
      inner_steps: steps in one call of the compiled step.

    Raises:
      InputError: the batch cannot be divided by the devices, or it is not `inner_steps` batches.
    """
    sharding = NamedSharding(mesh, _batch_spec(inner_steps))
    for path, leaf in jax.tree_util.tree_leaves_with_path(host_batch):
        _check(jax.tree_util.keystr(path), np.shape(leaf), mesh, inner_steps)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), host_batch)


def compile_step(
    learner: Learner,
    graphs: Mapping[str, nnx.GraphDef],
    mesh: Mesh,
    parallel: Literal["jit", "pmap"] = "jit",
    *,
    inner_steps: int = 1,
    dtype: DType | None = None,
    shardings: State | None = None,
) -> Callable[[State, Any], tuple[State, dict[str, jax.Array]]]:
    """The learner's step, compiled: state replicated (or split) and donated, batch sharded, metrics replicated.

    The state that goes in is gone afterwards: use the one that comes out.

    Args:
      learner: whose step; `step.repeat(learner, n)` for n steps in one call.
      graphs: of the networks, from `nn.split`.
      mesh: from `make_mesh`.
      parallel: "jit" computes what one device with the whole batch would compute, so that BatchNorm sees the
        global batch. "pmap" is what `jax.pmap` means: every device makes the step on its part, with statistics
        (BatchNorm) of its part and random numbers of its own, and gradients, metrics and statistics are averaged.
      inner_steps: the n of `step.repeat`, one without it.
      dtype: what the networks compute in; None for that of their parameters.
      shardings: of the state, from `sharding.state_shardings`; None for all of it on every device.

    Raises:
      InputError: `parallel` is neither; or it is "pmap" and the state is split, since each device has to update it.
    """
    replicated, spec = PartitionSpec(), _batch_spec(inner_steps)
    if parallel not in ("jit", "pmap"):
        raise InputError(f"parallel: got {parallel!r}, expected 'jit' or 'pmap'.")
    everywhere = NamedSharding(mesh, replicated)
    state_at = everywhere if shardings is None else shardings
    if parallel == "pmap" and not all(s.is_fully_replicated for s in jax.tree.leaves(state_at)):
        raise InputError("loop.shard: parameters are split by parallel='jit' alone. Leave one of the two out.")

    def step(state: State, batch: Any) -> tuple[State, dict[str, jax.Array]]:
        # In sight of the mesh, so that `ops` can lay arrays out in a way that the compiler can split.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return learner.step(graphs, state, batch, dtype=dtype)

    def part(state: State, batch: Any) -> tuple[State, dict[str, jax.Array]]:
        return learner.step(graphs, state, batch, axis_name=AXIS, dtype=dtype)

    if parallel == "pmap":
        # With the check on, gradients of replicated parameters would come out of autodiff already summed.
        step = jax.shard_map(part, mesh=mesh, in_specs=(replicated, spec), out_specs=replicated, check_vma=False)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(state_at, NamedSharding(mesh, spec)),
        out_shardings=(state_at, everywhere),
    )


class Share(TypedDict):
    """Which process of how many."""

    process_index: int
    process_count: int


def start_distributed() -> None:
    """Joins the other processes of the run, if there are any; call it before anything else touches a device.

    There are others if JAX_NUM_PROCESSES says so (then JAX_PROCESS_ID and JAX_COORDINATOR_ADDRESS are read too) or
    if jax detects a cluster of more than one process: SLURM (under srun), Open MPI, Kubernetes, TPU pods. Otherwise
    nothing happens, and JAX_NUM_PROCESSES=1 sees to it that nothing does.
    """
    count = os.environ.get("JAX_NUM_PROCESSES")
    if jax.distributed.is_initialized() or int(count or _detected_processes()) == 1:
        return
    if count is None:
        jax.distributed.initialize()
    elif "JAX_PROCESS_ID" not in os.environ or "JAX_COORDINATOR_ADDRESS" not in os.environ:
        raise InputError(
            f"JAX_NUM_PROCESSES: got {count} without JAX_PROCESS_ID and JAX_COORDINATOR_ADDRESS. Set all three, for "
            "example to 2, 0 and localhost:12345, or none of them."
        )
    else:
        jax.distributed.initialize(num_processes=int(count), process_id=int(os.environ["JAX_PROCESS_ID"]))


def this_process() -> Share:
    """Which process this is and of how many, as the batches of ``seqjax.data.pipeline`` take it."""
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}


def _detected_processes() -> int:
    # A process in a SLURM job that srun did not start is alone; older jax takes it for one of many.
    if "SLURM_JOB_ID" in os.environ and "SLURM_STEP_NODELIST" not in os.environ:
        return 1
    clusters = (cluster for cluster in ClusterEnv._cluster_types if not cluster.opt_in_only_method)
    found = next((cluster for cluster in clusters if cluster.is_env_present()), None)
    return found.get_process_count() if found else 1


def _batch_spec(inner_steps: int) -> PartitionSpec:
    return PartitionSpec(AXIS) if inner_steps == 1 else PartitionSpec(None, AXIS)


def _check(name: str, shape: tuple[int, ...], mesh: Mesh, inner_steps: int) -> None:
    leading = () if inner_steps == 1 else (inner_steps,)
    if shape[: len(leading)] != leading or len(shape) <= len(leading):
        expected = "[B, ...]" if inner_steps == 1 else f"[{inner_steps}, B, ...] for {inner_steps} steps in one call"
        raise InputError(f"host_batch{name}: got shape {shape}, expected {expected}.")
    size = shape[len(leading)] * jax.process_count()
    if size % mesh.size:
        raise InputError(
            f"host_batch{name}: a global batch of {size} cannot be divided by {mesh.size} devices. Choose a batch "
            f"size that is a multiple of {mesh.size}, or fewer devices."
        )
