"""Skill of forecasts of events: scores of thresholded maps (CSI, POD, FAR, ..), and of the centres found in them.

Counts are taken over the whole set, by frame, and only then divided: the mean of the ratios of single frames would
weigh an event the more the emptier its frame is. What is 0/0, such as the precision of no prediction, is NaN.
"""

from collections.abc import Collection, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from seqjax.errors import InputError
from seqjax.metrics.average import Totals, add, zeros
from seqjax.metrics.metric import Figures, Metric
from seqjax.ops import heatmap

COUNTS = ("hits", "false_alarms", "misses", "correct_negatives")


def skill(
    hits: Float[np.ndarray, "..."],
    false_alarms: Float[np.ndarray, "..."],
    misses: Float[np.ndarray, "..."],
    correct_negatives: Float[np.ndarray, "..."],
) -> dict[str, Float[np.ndarray, "..."]]:
    """Scores of a contingency table, by name, of any shape.

    With a hits, b false alarms, c misses, d correct negatives, n their sum and r = (a + b)(a + c) / n, the hits that
    chance would give:

        csi  critical success index        a / (a + b + c)
        pod  probability of detection      a / (a + c)
        far  false alarm ratio             b / (a + b)
        gss  Gilbert skill score           (a - r) / (a + b + c - r)
        hss  Heidke skill score            2 (a d - b c) / ((a + c)(c + d) + (a + b)(b + d))

    All are 1 for a perfect forecast but far, which is 0; gss = hss / (2 - hss).

    Sources: Shi et al., *Convolutional LSTM Network*, 2015, section 4.2; Hogan et al., *Equitability Revisited: Why the
    "Equitable Threat Score" Is Not Equitable*, 2010 (gss and hss).
    """
    a, b, c, d = (np.asarray(count, np.float64) for count in (hits, false_alarms, misses, correct_negatives))
    total = a + b + c + d
    chance = _ratio((a + b) * (a + c), total)
    return {
        "csi": _ratio(a, a + b + c),
        "pod": _ratio(a, a + c),
        "far": _ratio(b, a + b),
        "gss": _ratio(a - chance, a + b + c - chance),
        "hss": _ratio(2 * (a * d - b * c), (a + c) * (c + d) + (a + b) * (b + d)),
    }


def nowcasting(
    *, frames: int, thresholds: tuple[float, ...] = (0.5,), scores: Collection[str] = ("csi", "pod", "far")
) -> Metric:
    """`skill` of maps, over outputs and `batch["target"]`, both [B, T, H, W, C] with T = `frames`.

    A pixel is an event where its value is above a threshold. `finish` gives "csi_0.5", of all frames together, and
    "csi_0.5_by_frame", and so on for every threshold and score.

    InputError if the shapes are not as said, or for an unknown score.
    """
    if unknown := set(scores) - set(skill(*np.ones((4, 1)))):
        raise InputError(f"scores: got {sorted(unknown)}, expected some of csi, pod, far, gss, hss.")
    levels = np.asarray(thresholds, np.float32)

    def accumulate(acc: Totals, outputs: Float[Array, "B T H W C"], batch: Mapping[str, Array]) -> Totals:
        target = batch["target"]
        if outputs.shape != target.shape or outputs.shape[1] != frames:
            raise InputError(
                f"nowcasting(frames={frames}): outputs have the shape {outputs.shape} and batch['target'] "
                f"{target.shape}; expected [B, {frames}, H, W, C] twice: predict as many frames as the target has and "
                "build the metric for that number."
            )
        forecast, truth = (_above(x, levels) for x in (outputs, target))
        cells = (forecast & truth, forecast & ~truth, ~forecast & truth, ~forecast & ~truth)
        spoilt = _spoilt(outputs)[:, None]
        values = {
            name: jnp.sum(cell, axis=(-3, -2, -1), dtype=jnp.float32) + spoilt
            for name, cell in zip(COUNTS, cells, strict=True)
        }
        return add(acc, values, batch.get("weight", jnp.ones(len(target))))

    def finish(acc: Totals) -> Figures:
        counts = [_counted(acc, name) for name in COUNTS]
        together, by_frame = skill(*(count.sum(axis=1) for count in counts)), skill(*counts)
        figures: Figures = {}
        for k, threshold in enumerate(thresholds):
            figures |= {f"{name}_{threshold:g}": float(together[name][k]) for name in scores}
            figures |= {f"{name}_{threshold:g}_by_frame": by_frame[name][k].tolist() for name in scores}
        return figures

    return Metric(lambda: zeros(dict.fromkeys(COUNTS, (len(levels), frames))), accumulate, finish)


def centres(
    *,
    frames: int,
    number: int = 8,
    suppression: float = 3.0,
    radius: float = 2.0,
    cutoff: float = 8.0,
    thresholds: tuple[float, ...] = tuple(k / 20 for k in range(1, 20)),
) -> Metric:
    """How well the peaks of maps [B, T, H, W, 1] are the true centres, `batch["centres"]` [B, T, N, 2], T = `frames`.

    Peaks of a map, `number` at the most and none within `suppression` of a higher one, that are above a threshold are
    matched with centres that are there (`batch["present"]`, bool [B, T, N]), the highest first, each with the nearest
    that is free within `radius` (`seqjax.ops.heatmap`). Of all frames together, at the threshold of the largest f1:

        precision      of the peaks, the share that is matched
        recall         of the centres, the share that is matched
        f1             2 matched / (peaks + centres), their harmonic mean
        centre_error   pixels from each centre to the nearest peak, `cutoff` where that is farther or there is none

    That the threshold is chosen on the set itself, for every predictor alike, makes maps of different units comparable.
    With "_by_frame" the curves at this threshold, with "_by_threshold" f1 at each of `thresholds`.

    InputError if the shapes are not as said.
    """
    levels = np.asarray(thresholds, np.float32)

    def accumulate(acc: Totals, outputs: Float[Array, "B T H W 1"], batch: Mapping[str, Array]) -> Totals:
        truth, present = batch["centres"], batch["present"]
        if outputs.shape[:2] != truth.shape[:2] or outputs.shape[1] != frames:
            raise InputError(
                f"centres(frames={frames}): outputs have the shape {outputs.shape} and batch['centres'] {truth.shape}; "
                f"expected [B, {frames}, H, W, 1] and [B, {frames}, N, 2]: predict as many frames as there are centres "
                "of and build the metric for that number."
            )
        found = heatmap.peaks(outputs[..., 0], number=number, radius=suppression)
        shown = _above(found.values, levels)
        matched = heatmap.match(found.centres, jnp.isfinite(found.values), truth, present, radius=radius) >= 0
        spoilt = _spoilt(outputs)
        values = {
            "matched": jnp.sum(shown & matched[:, None], axis=-1, dtype=jnp.float32) + spoilt[:, None],
            "peaks": jnp.sum(shown, axis=-1, dtype=jnp.float32) + spoilt[:, None],
            "centres": jnp.sum(present, axis=-1, dtype=jnp.float32),
            "error": _error(found.centres, shown, truth, present, cutoff) + spoilt[:, None],
        }
        return add(acc, values, batch.get("weight", jnp.ones(len(truth))))

    def finish(acc: Totals) -> Figures:
        matched, shown, error = (_counted(acc, name) for name in ("matched", "peaks", "error"))
        there = np.broadcast_to(_counted(acc, "centres"), matched.shape)
        curve = _scores(*(x.sum(axis=1) for x in (matched, shown, there, error)))
        best = int(np.argmax(np.nan_to_num(curve["f1"], nan=-1.0)))
        by_frame = _scores(*(x[best] for x in (matched, shown, there, error)))
        figures: Figures = {name: float(values[best]) for name, values in curve.items()}
        figures |= {f"{name}_by_frame": values.tolist() for name, values in by_frame.items()}
        return figures | {"f1_by_threshold": curve["f1"].tolist()}

    grid = (len(levels), frames)
    protocol = f"{number} peaks at most, {suppression} apart, matched within {radius}, at the threshold of the best f1"
    return Metric(
        lambda: zeros({"matched": grid, "peaks": grid, "centres": (frames,), "error": grid}),
        accumulate,
        finish,
        {"centres": protocol},
    )


def _scores(matched: np.ndarray, shown: np.ndarray, there: np.ndarray, error: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "precision": _ratio(matched, shown),
        "recall": _ratio(matched, there),
        "f1": _ratio(2 * matched, shown + there),
        "centre_error": _ratio(error, there),
    }


def _error(
    found: Float[Array, "B T K 2"],
    shown: Bool[Array, "B S T K"],
    truth: Float[Array, "B T N 2"],
    present: Bool[Array, "B T N"],
    cutoff: float,
) -> Float[Array, "B S T"]:
    """Pixels from every centre to the nearest peak that is shown, cut off, summed."""
    apart = jnp.linalg.norm(found[:, :, :, None] - truth[:, :, None], axis=-1)
    nearest = jnp.min(jnp.where(shown[..., None], apart[:, None], cutoff), axis=-2, initial=cutoff)
    return jnp.sum(jnp.where(present[:, None], nearest, 0.0), axis=-1)


def _above(values: Float[Array, "B ..."], levels: Float[np.ndarray, " S"]) -> Bool[Array, "B S ..."]:
    return values[:, None] > jnp.asarray(levels).reshape(1, -1, *[1] * (values.ndim - 1)).astype(values.dtype)


def _spoilt(outputs: Float[Array, "B T ..."]) -> Float[Array, "B T"]:
    """NaN for a frame with one in it, which no comparison would tell of, else 0."""
    return jnp.where(jnp.isnan(outputs).any(axis=tuple(range(2, outputs.ndim))), jnp.nan, 0.0)


def _counted(acc: Totals, name: str) -> np.ndarray:
    if not float(acc.total["weight"]):
        raise InputError(
            "No example was accumulated, so there is nothing to count; expected at least one of weight above 0: check "
            "that the evaluation split is not empty."
        )
    return np.asarray(acc.total[name], np.float64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """0/0 is NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.divide(numerator, denominator)
