"""Figures and pictures of networks on fixed batches, compiled once and sharded like the training step."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqjax.nn.split import DType, cast, merge, mixing
from seqjax.train.mesh import replicate, shard_batch

Batch = Mapping[str, Any]
Predict = Callable[..., Any]
"""``predict(nets, batch) -> outputs``, pure: any pytree of arrays."""


class Evaluation(NamedTuple):
    """What is measured: predictions on every batch of a held-out set, by a metric of ``seqjax.metrics``."""

    predict: Predict
    """``predict(nets, batch) -> outputs``."""
    metric: Any
    """A ``seqjax.metrics.metric.Metric``: ``init``, ``accumulate``, ``finish``."""
    batches: Callable[[], Iterable[Batch]]
    """``batches()``: the set from its beginning, as host batches that carry ``weight``."""


class Sampling(NamedTuple):
    """What is drawn: predictions on one fixed batch, laid out as pictures."""

    predict: Predict
    """``predict(nets, batch) -> outputs``."""
    batch: Batch
    """The fixed batch, the same on every process."""
    draw: Callable[[Any, Batch], Mapping[str, np.ndarray]]
    """``draw(outputs, batch)``, on the host: by name, a uint8 image ``[H, W, C]`` or video ``[T, H, W, C]``."""


def compile_evaluation(
    evaluation: Evaluation, graphs: dict[str, Any], mesh: Mesh, *, dtype: DType | None = None
) -> Callable[[Any, Any], dict]:
    """``run(params, rest) -> figures``: the whole set measured, the accumulator kept on the devices.

    With a ``dtype`` the networks compute in it; what is measured of their outputs is always computed in float32.
    """

    # Stated, so that what goes in first and what comes out are laid out alike, and one program serves both.
    @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, PartitionSpec()))
    def add(accumulated: Any, params: Any, rest: Any, batch: Batch) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # as the step is
            outputs = _predict(evaluation.predict, graphs, params, rest, batch, dtype)
            return evaluation.metric.accumulate(accumulated, outputs, batch)

    def run(params: Any, rest: Any) -> dict:
        accumulated = replicate(evaluation.metric.init(), mesh)
        for batch in evaluation.batches():
            accumulated = add(accumulated, params, rest, shard_batch(batch, mesh))
        return evaluation.metric.finish(accumulated)

    return run


def compile_sampling(
    sampling: Sampling, graphs: dict[str, Any], *, dtype: DType | None = None
) -> Callable[[Any, Any], Mapping[str, np.ndarray]]:
    """``run(params, rest) -> pictures by name``, the networks computing in ``dtype`` if there is one."""

    @jax.jit
    def predict(params: Any, rest: Any, batch: Batch) -> Any:
        return _predict(sampling.predict, graphs, params, rest, batch, dtype)

    def run(params: Any, rest: Any) -> Mapping[str, np.ndarray]:
        return sampling.draw(jax.device_get(predict(params, rest, dict(sampling.batch))), sampling.batch)

    return run


def _predict(
    predict: Predict, graphs: dict[str, Any], params: Any, rest: Any, batch: Batch, dtype: DType | None
) -> Any:
    with mixing(dtype):
        outputs = predict(merge(graphs, params, rest, dtype=dtype), batch)
    return outputs if dtype is None else cast(outputs, jnp.float32)
