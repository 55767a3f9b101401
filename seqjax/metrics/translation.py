"""How close translated images are to their targets, pair by pair, and whether they look like them as a set."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax.errors import InputError
from seqjax.metrics.average import Totals, add, means, zeros
from seqjax.metrics.frames import PSNR_CAP
from seqjax.metrics.metric import Figures, Metric
from seqjax.ops import distances
from seqjax.ops.colour import rgb_to_lab
from seqjax.ops.image import signed_to_unit

BINS = 65
"""Odd, so that a grey pixel lies in the middle of a bin of a and b and not between two."""
_LAB = ("l", "a", "b")
_RANGES = {"l": (0.0, 100.0), "a": (-110.0, 110.0), "b": (-110.0, 110.0), "grey": (0.0, 1.0)}


class _Sums(NamedTuple):
    averages: Totals
    hits: Totals
    """Of each class."""


def pair_metrics(*, channels: int = 3, palette: Float[np.ndarray, "K 3"] | None = None) -> Metric:
    """Figures over outputs and ``batch["target"]``, both ``[B, H, W, C]`` in [-1, 1], C being 1 or 3:

        l1                       absolute error per pixel and channel, on the range [-1, 1] (twice that on [0, 1])
        psnr                     decibels, outputs clipped; an image counts at most PSNR_CAP
        ssim                     "gauss11" of `seqjax.ops.distances.ssim`, on [0, 1], outputs clipped; where the
                                 images are smaller than its window of 11 pixels, "uniform7"
        gradient_energy          Σ|∇output|² / Σ|∇target|² over all images: below 1 is blurred, above 1 noisy
        histogram_l, _a, _b      intersection Σ min(p, q) of the two sets' histograms in CIE Lab, BINS = 65 each:
                                 1 if equal (histogram_grey if C is 1)
        colour_accuracy          share of images whose colour is that of their label, and its values by class in
        colour_accuracy_by_class "colour_accuracy_by_class"; with a palette only

    An image's colour is that of the palette nearest in direction to its summed RGB, so black counts for nothing: for
    things in one colour on black, such as `digit_outlines`. Labels are ``batch["label"]``, ``[B]``.

    Sources: Isola et al., *Image-to-Image Translation with Conditional Adversarial Networks*, 2017, section 4.2 and
    Figure 7 (histograms of L, a and b; its bins are not stated).

    Args:
      channels: ``C``.
      palette: the colours of the K classes, RGB in [0, 1].

    Raises:
      InputError: of `accumulate`, if the shapes are not as said, and if nothing was seen.
    """
    kinds, classes = _LAB if channels == 3 else ("grey",), 0 if palette is None else len(palette)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("l1", "psnr", "ssim", "output_energy", "target_energy"), ())
    shapes |= {f"{side}_{kind}": (BINS,) for side in ("output", "target") for kind in kinds}

    def init() -> _Sums:
        return _Sums(zeros(shapes), zeros({"right": (classes,), "seen": (classes,)}))

    def accumulate(acc: _Sums, outputs: Float[Array, "B H W C"], batch: Mapping[str, Array]) -> _Sums:
        target, weight = batch["target"], batch.get("weight", jnp.ones(len(outputs)))
        _check(outputs, target, channels)
        hits = acc.hits if palette is None else add(acc.hits, _hits(outputs, batch["label"], palette), weight)
        return _Sums(add(acc.averages, _values(outputs, target, kinds), weight), hits)

    return Metric(init, accumulate, lambda acc: _finish(acc, kinds, classes))


def _check(outputs: Array, target: Array, channels: int) -> None:
    if outputs.shape != target.shape or channels not in (1, 3) or target.shape[-1] != channels:
        raise InputError(
            f"pair_metrics(channels={channels}): outputs have the shape {outputs.shape} and batch['target'] "
            f"{target.shape}; expected [B, H, W, {channels}] twice, with one channel or three."
        )


def _values(outputs: Array, target: Array, kinds: tuple[str, ...]) -> dict[str, Array]:
    """Of each image, [B] or [B, BINS]."""
    images = {"output": jnp.clip(signed_to_unit(outputs), 0, 1), "target": signed_to_unit(target)}
    height, width, channels = target.shape[1:]
    variant: distances.SSIMVariant = "gauss11" if min(height, width) >= 11 else "uniform7"
    found = {
        "l1": distances.absolute_error(outputs, target) / (height * width * channels),
        "psnr": jnp.minimum(distances.psnr(images["output"], images["target"]), PSNR_CAP),
        "ssim": distances.ssim(images["output"], images["target"], variant=variant),
    }
    for side, unit in images.items():
        found[f"{side}_energy"] = _gradient_energy(unit)
        planes = rgb_to_lab(unit) if channels == 3 else unit
        for k, kind in enumerate(kinds):
            found[f"{side}_{kind}"] = _histogram(planes[..., k], *_RANGES[kind])
    return found


def _gradient_energy(images: Array) -> Array:
    """``Σ|∇x|²`` by differences of neighbours, of each image."""
    down, right = (jnp.square(jnp.diff(images.astype(jnp.float32), axis=axis)) for axis in (1, 2))
    return jnp.sum(down, axis=(1, 2, 3)) + jnp.sum(right, axis=(1, 2, 3))


def _histogram(planes: Float[Array, "B H W"], low: float, high: float) -> Float[Array, "B bins"]:
    """Share of each image's pixels in each of BINS bins; what lies outside counts in the outermost."""
    flat = planes.reshape(len(planes), -1).astype(jnp.float32)
    places = jnp.clip(jnp.floor((flat - low) * (BINS / (high - low))), 0, BINS - 1).astype(jnp.int32)
    shares = jax.vmap(lambda row: jnp.zeros(BINS).at[row].add(1 / flat.shape[1]))(places)
    # A pixel that is NaN has no bin; its image must not pass as a whole one.
    return jnp.where(jnp.isnan(flat).any(axis=1)[:, None], jnp.nan, shares)


def _hits(outputs: Array, labels: Array, palette: np.ndarray) -> dict[str, Array]:
    """Which class was seen, and whether its colour was hit, as [B, K]."""
    colours = jnp.asarray(palette / np.linalg.norm(palette, axis=1, keepdims=True), jnp.float32)
    total = signed_to_unit(outputs.astype(jnp.float32)).sum(axis=(1, 2))
    nearest = jnp.argmax(jnp.einsum("bc,kc->bk", total, colours, precision="highest"), axis=1)
    seen = jax.nn.one_hot(labels, len(palette))
    right = seen * (nearest.astype(labels.dtype) == labels)[:, None].astype(jnp.float32)
    return {"right": jnp.where(jnp.isnan(total).any(axis=1)[:, None], jnp.nan, right), "seen": seen}


def _finish(acc: _Sums, kinds: tuple[str, ...], classes: int) -> Figures:
    found = means(acc.averages, "pair_metrics")
    with np.errstate(divide="ignore", invalid="ignore"):
        figures: Figures = {name: float(found[name]) for name in ("l1", "psnr", "ssim")}
        figures["gradient_energy"] = float(found["output_energy"] / found["target_energy"])
        for kind in kinds:
            # Not fmin, which would hide a NaN.
            figures[f"histogram_{kind}"] = float(np.minimum(found[f"output_{kind}"], found[f"target_{kind}"]).sum())
        if classes:
            hits = means(acc.hits, "pair_metrics")
            figures["colour_accuracy"] = float(hits["right"].sum() / hits["seen"].sum())
            figures["colour_accuracy_by_class"] = (hits["right"] / hits["seen"]).tolist()
    return figures
