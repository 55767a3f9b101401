"""How close predicted frames are to the true ones: MSE, MAE, PSNR and SSIM, on average and by frame."""

from collections.abc import Collection, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax.errors import InputError
from seqjax.metrics.average import Totals, add, means, zeros
from seqjax.metrics.metric import Figures, Metric
from seqjax.ops import distances

# Decibels that stand for an infinite PSNR. An 8-bit frame of 64x64 that differs in one pixel by one grey
# level has 84 dB: only an identical frame gets here.
PSNR_CAP = 100.0


def frame_metrics(*, frames: int, ssim: distances.SSIMVariant = "gauss11", data_range: float = 1.0) -> Metric:
    """Frame-wise figures of video prediction, over outputs and `batch["target"]`, both [B, T, H, W, C].

    Pixels lie in [0, data_range]; T = `frames`. Each figure is taken per frame, then averaged over
    sequences and frames; `finish` gives the average under the name and the T averages over sequences
    under the name with "_by_frame":

        mse    squared error summed over pixels and channels, outputs unclipped
        mae    absolute error likewise
        psnr   decibels, outputs clipped to [0, data_range]; a frame counts at most PSNR_CAP = 100 dB
        ssim   the variant named by `ssim`, outputs clipped likewise: see `seqjax.ops.distances.ssim`

    That is how OpenSTL computes its tables (with ssim="openstl"). The cap is for frames predicted exactly,
    whose PSNR is infinite: one of them would make the average infinite, and leaving them out would punish
    perfection. So many exact frames, as copying gives where nothing moves, dominate the average.

    Sums are compensated: the error of a figure does not grow with the number of batches. InputError if the
    shapes are not as said.
    """

    def init() -> Totals:
        return zeros(dict.fromkeys(("mse", "mae", "psnr", "ssim"), (frames,)))

    def accumulate(acc: Totals, outputs: Float[Array, "B T H W C"], batch: Mapping[str, Array]) -> Totals:
        target = batch["target"]
        if outputs.shape != target.shape or outputs.shape[1] != frames:
            raise InputError(
                f"frame_metrics(frames={frames}): outputs have the shape {outputs.shape} and batch['target'] "
                f"{target.shape}; expected [B, {frames}, H, W, C] twice: predict as many frames as the "
                f"target has and build the metric for that number."
            )
        values = frame_figures(outputs, target, ssim=ssim, data_range=data_range)
        return add(acc, values, batch.get("weight", jnp.ones(len(target))))

    return Metric(init, accumulate, lambda acc: by_frame(means(acc, "frame_metrics")))


def vector_metrics(*, steps: int) -> Metric:
    """Squared error of predicted vectors, such as features, over outputs and `batch["target"]`, both [B, T, D].

    "mse" is summed over the D numbers and averaged over sequences and the T = `steps` steps; "mse_by_frame" has the T
    averages over sequences. InputError if the shapes are not as said.
    """

    def accumulate(acc: Totals, outputs: Float[Array, "B T D"], batch: Mapping[str, Array]) -> Totals:
        target = batch["target"]
        if outputs.shape != target.shape or outputs.shape[1] != steps:
            raise InputError(
                f"vector_metrics(steps={steps}): outputs have the shape {outputs.shape} and batch['target'] "
                f"{target.shape}; expected [B, {steps}, D] twice."
            )
        values = {"mse": jnp.sum(jnp.square(outputs - target), axis=-1)}
        return add(acc, values, batch.get("weight", jnp.ones(len(target))))

    return Metric(lambda: zeros({"mse": (steps,)}), accumulate, lambda acc: by_frame(means(acc, "vector_metrics")))


def frame_figures(
    outputs: Float[Array, "B T H W C"],
    target: Float[Array, "B T H W C"],
    names: Collection[str] = ("mse", "mae", "psnr", "ssim"),
    *,
    ssim: distances.SSIMVariant = "gauss11",
    data_range: float = 1.0,
) -> dict[str, Float[Array, "B T"]]:
    """The figures of `frame_metrics` for every frame, those that are named."""
    clipped = jnp.clip(outputs, 0, data_range)

    def psnr() -> Array:
        return jnp.minimum(distances.psnr(clipped, target, data_range=data_range), PSNR_CAP)

    figures = {
        "mse": lambda: distances.squared_error(outputs, target),
        "mae": lambda: distances.absolute_error(outputs, target),
        "psnr": psnr,
        "ssim": lambda: distances.ssim(clipped, target, variant=ssim, data_range=data_range),
    }
    return {name: figures[name]() for name in names}


def by_frame(curves: Mapping[str, np.ndarray]) -> Figures:
    """Averages over frames by name, and the curves themselves under the name with "_by_frame"."""
    averages: Figures = {name: float(curve.mean()) for name, curve in curves.items()}
    return averages | {f"{name}_by_frame": curve.tolist() for name, curve in curves.items()}
