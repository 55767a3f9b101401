"""Where a scene moves and where it stands still, apart: errors of predicted frames, and how sharp they are."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax.errors import InputError
from seqjax.metrics.average import Totals, add, means, zeros
from seqjax.metrics.frames import PSNR_CAP
from seqjax.metrics.metric import Figures, Metric

REGIONS = ("moving", "still")
_SUMS = ("error", "pixels", "output_steepness", "target_steepness")


def motion_metrics(*, threshold: float = 0.05) -> Metric:
    """Figures over outputs and `batch["target"]`, [B, S, H, W, C] in [0, 1], and `batch["clip"]`, [B, T, H, W, C].

    A pixel moves where any frame of the true clip, context and future, differs from the first by more than the
    threshold in some channel; the others stand still. `finish` gives

        moving_psnr      decibels of the mean squared error over the pixels that move, of all frames and clips together;
                         at most PSNR_CAP, which a region without pixels has too
        still_psnr       the same of those that do not
        sharpness        mean steepness of the predictions over that of the targets: 1 is as sharp as they are, less is
                         blurred; steepness is |∂x| + |∂y| of differences between neighbours
        moving_sharpness the same of the pixels that move

    The decibels of a mean error are lower than the mean of the frames' decibels (Jensen), and finite where a clip is
    predicted exactly. InputError if the shapes are not as said.
    """

    def init() -> Totals:
        return zeros({f"{region}_{name}": () for region in REGIONS for name in _SUMS})

    def accumulate(acc: Totals, outputs: Float[Array, "B S H W C"], batch: Mapping[str, Array]) -> Totals:
        target, clip = batch["target"], batch["clip"]
        if outputs.shape != target.shape or clip.shape[2:] != target.shape[2:]:
            raise InputError(
                f"motion_metrics: outputs have the shape {outputs.shape}, batch['target'] {target.shape} and "
                f"batch['clip'] {clip.shape}; expected [B, S, H, W, C] twice and [B, T, H, W, C]."
            )
        outputs = jnp.clip(outputs.astype(jnp.float32), 0, 1)
        maps = {
            "error": jnp.square(outputs - target),
            "pixels": jnp.ones_like(target),
            "output_steepness": _steepness(outputs),
            "target_steepness": _steepness(target),
        }
        moves = jnp.any(jnp.abs(clip - clip[:, :1]) > threshold, axis=(1, 4))[:, None, :, :, None]
        values = {
            f"{region}_{name}": jnp.sum(jnp.where(where, found, 0.0), axis=(1, 2, 3, 4))
            for region, where in zip(REGIONS, (moves, ~moves), strict=True)
            for name, found in maps.items()
        }
        return add(acc, values, batch.get("weight", jnp.ones(len(target))))

    return Metric(init, accumulate, _finish)


def _steepness(frames: Float[Array, "B S H W C"]) -> Float[Array, "B S H W C"]:
    """``|∂x| + |∂y|``, 0 past the border."""
    right, down = (jnp.abs(jnp.diff(frames, axis=axis, append=frames[_last(axis)])) for axis in (3, 2))
    return right + down


def _last(axis: int) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, slice(-1, None))


def _finish(acc: Totals) -> Figures:
    found = means(acc, "motion_metrics")
    figures: Figures = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for region in REGIONS:
            mse = found[f"{region}_error"] / found[f"{region}_pixels"] if found[f"{region}_pixels"] else 0.0
            figures[f"{region}_psnr"] = float(np.minimum(-10 * np.log10(mse), PSNR_CAP))
        output, target = (
            {region: found[f"{region}_{side}_steepness"] for region in REGIONS} for side in ("output", "target")
        )
        figures["sharpness"] = float(sum(output.values()) / sum(target.values()))
        figures["moving_sharpness"] = float(output["moving"] / target["moving"])
    return figures
