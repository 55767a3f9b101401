"""How far predicted joints are from the true ones, and what a predictor of poses has to beat.

Poses are ``[*B, J, 2]``, row and column; only joints that are visible count. Figures are taken over all visible joints
of the set together, by frame, so that a frame with few of them weighs little.
"""

from collections.abc import Collection, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from seqjax.errors import InputError
from seqjax.metrics.average import Totals, add, zeros
from seqjax.metrics.frames import by_frame
from seqjax.metrics.metric import Figures, Metric


def pose_metrics(*, frames: int, thresholds: Collection[float] = (0.1, 0.2)) -> Metric:
    """Figures of poses, over outputs and `batch["target"]`, both [B, T, J, 2] with T = `frames`.

    `batch["visible"]`, bool [B, T, J], says which joints count, `batch["scale"]`, float [B, T], how large the person
    is, in the joints' unit. Of all frames together and, with "_by_frame", of each:

        joint_error  mean distance of a joint, in their unit
        pck_0.2      share of the joints that are within 0.2 of the scale, inclusive; for every threshold one

    Which length the scale is, is part of the figure's name in the literature: that of the head for PCKh (Andriluka et
    al., 2014), the larger side of the person's box (Yang and Ramanan, 2013), or of the trunk.

    InputError if the shapes are not as said.
    """
    names = {"joint_error": None} | {f"pck_{threshold:g}": threshold for threshold in thresholds}

    def accumulate(acc: Totals, outputs: Float[Array, "B T J 2"], batch: Mapping[str, Array]) -> Totals:
        target, visible, scale = batch["target"], batch["visible"], batch["scale"]
        if outputs.shape != target.shape or visible.shape != target.shape[:3] or target.shape[1] != frames:
            raise InputError(
                f"pose_metrics(frames={frames}): outputs have the shape {outputs.shape}, batch['target'] "
                f"{target.shape}, batch['visible'] {visible.shape}; expected [B, {frames}, J, 2] twice and "
                f"[B, {frames}, J]: predict as many frames as the target has and build the metric for that number."
            )
        distance = jnp.linalg.norm(outputs.astype(jnp.float32) - target.astype(jnp.float32), axis=-1)
        # What is compared with NaN is false, and would hide it among the misses.
        spoilt = jnp.where(jnp.isnan(distance), jnp.nan, 0.0)
        near = {
            name: distance if threshold is None else jnp.where(distance <= threshold * scale[..., None], 1.0, spoilt)
            for name, threshold in names.items()
        }
        sums = {name: jnp.sum(jnp.where(visible, value, 0.0), axis=-1) for name, value in near.items()}
        sums["joints"] = jnp.sum(visible, axis=-1, dtype=jnp.float32)
        return add(acc, sums, batch.get("weight", jnp.ones(len(target))))

    def finish(acc: Totals) -> Figures:
        if not float(acc.total["weight"]):
            raise InputError(
                "pose_metrics: no example was accumulated, so there is nothing to measure; expected at least one of "
                "weight above 0: check that the evaluation split is not empty."
            )
        joints, *sums = (np.asarray(acc.total[name], np.float64) for name in ("joints", *names))
        with np.errstate(invalid="ignore"):  # a frame without a visible joint has no figure
            curves = by_frame({name: total / joints for name, total in zip(names, sums, strict=True)})
            whole = {name: float(total.sum() / joints.sum()) for name, total in zip(names, sums, strict=True)}
        return curves | whole

    return Metric(lambda: zeros(dict.fromkeys(("joints", *names), (frames,))), accumulate, finish)


def box_side(joints: Float[Array, "*B J 2"], visible: Bool[Array, "*B J"]) -> Float[Array, "*B"]:
    """The larger side of the box around the visible joints; 0 where there is none.

    Source: Yang and Ramanan, *Articulated Human Detection with Flexible Mixtures of Parts*, 2013, section 7.2.
    """
    seen = visible[..., None]
    low, high = (edge(jnp.where(seen, joints, far), axis=-2) for edge, far in ((jnp.min, jnp.inf), (jnp.max, -jnp.inf)))
    return jnp.max(jnp.maximum(high - low, 0.0), axis=-1)


def copy_last(joints: Float[Array, "B P J 2"], visible: Bool[Array, "B P J"], *, steps: int) -> Float[Array, "B S J 2"]:
    """Each joint where it was last visible; where it never was, in the middle of the visible ones of the clip."""
    place, _ = _last(joints, visible)
    return jnp.repeat(place[:, None], steps, axis=1)


def constant_velocity(
    joints: Float[Array, "B P J 2"], visible: Bool[Array, "B P J"], *, steps: int
) -> Float[Array, "B S J 2"]:
    """Each joint goes on from where it was last visible as it went from where it was visible before that; one that was
    visible once or never stands still."""
    place, at = _last(joints, visible)
    frame = jnp.arange(joints.shape[1]).reshape(1, -1, 1)
    before, at_before = _last(joints, visible & (frame < at[:, None]))
    way = jnp.where((at_before >= 0)[..., None], place - before, 0.0)
    velocity = way / jnp.maximum(at - at_before, 1).astype(way.dtype)[..., None]
    passed = (joints.shape[1] - 1 - at).astype(way.dtype)[:, None, :, None]
    ahead = jnp.arange(1, steps + 1, dtype=way.dtype).reshape(1, -1, 1, 1)
    return place[:, None] + (passed + ahead) * velocity[:, None]


def mean_pose(joints: Float[Array, "B P J 2"], visible: Bool[Array, "B P J"], *, steps: int) -> Float[Array, "B S J 2"]:
    """Each joint at the mean of the places where it was visible; else as `copy_last`."""
    count = jnp.sum(visible, axis=1, dtype=joints.dtype)[..., None]
    mean = jnp.sum(jnp.where(visible[..., None], joints, 0.0), axis=1) / jnp.maximum(count, 1.0)
    place, _ = _last(joints, visible)
    return jnp.repeat(jnp.where(count > 0, mean, place)[:, None], steps, axis=1)


def _last(joints: Array, visible: Array) -> tuple[Float[Array, "B J 2"], Array]:
    """Where each joint was last visible, and when, -1 for never."""
    frame = jnp.arange(joints.shape[1]).reshape(1, -1, 1)
    at = jnp.max(jnp.where(visible, frame, -1), axis=1)
    place = jnp.take_along_axis(joints, jnp.maximum(at, 0)[:, None, :, None], axis=1)[:, 0]
    seen = visible[..., None]
    count = jnp.maximum(jnp.sum(seen, axis=(1, 2), dtype=joints.dtype), 1.0)
    middle = jnp.sum(jnp.where(seen, joints, 0.0), axis=(1, 2)) / count
    return jnp.where((at >= 0)[..., None], place, middle[:, None]), at
