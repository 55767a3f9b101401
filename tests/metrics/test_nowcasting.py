"""Oracles: scikit-learn's classification scores over all pixels, and loops over peaks and centres."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, jaccard_score, precision_score, recall_score

from seqjax.errors import InputError
from seqjax.metrics.nowcasting import centres, nowcasting, skill

SCORES = ("csi", "pod", "far", "gss", "hss")


def maps(number=6, frames=3, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((number, frames, 6, 7, 1))
    return (0.6 * truth + 0.4 * rng.random(truth.shape)).astype(np.float32), truth.astype(np.float32)


def run(metric, batches):
    acc = metric.init()
    for outputs, batch in batches:
        acc = jax.jit(metric.accumulate)(acc, jnp.asarray(outputs), jax.tree.map(jnp.asarray, batch))
    return metric.finish(acc)


def reference(forecast, truth):
    forecast, truth = forecast.ravel(), truth.ravel()
    hss = cohen_kappa_score(truth, forecast)
    return {
        "csi": jaccard_score(truth, forecast),
        "pod": recall_score(truth, forecast),
        "far": 1 - precision_score(truth, forecast),
        "gss": hss / (2 - hss),
        "hss": hss,
    }


def test_scores_equal_scikit_learn_at_every_threshold_and_frame():
    """The Heidke skill score is Cohen's kappa; gss = hss / (2 - hss)."""
    outputs, truth = maps()
    figures = run(nowcasting(frames=3, thresholds=(0.4, 0.7), scores=SCORES), [(outputs, {"target": truth})])
    for threshold in (0.4, 0.7):
        forecast, events = outputs > threshold, truth > threshold
        for name, expected in reference(forecast, events).items():
            np.testing.assert_allclose(figures[f"{name}_{threshold}"], expected, rtol=1e-6)
        for t in range(3):
            for name, expected in reference(forecast[:, t], events[:, t]).items():
                np.testing.assert_allclose(figures[f"{name}_{threshold}_by_frame"][t], expected, rtol=1e-6)


def test_perfect_and_disjoint_and_empty_forecasts():
    truth = np.zeros((1, 1, 4, 4, 1), np.float32)
    truth[..., :2, :] = 1

    def of(outputs):
        figures = run(nowcasting(frames=1), [(outputs, {"target": truth})])
        return [figures[f"{name}_0.5"] for name in ("csi", "pod", "far")]

    assert of(truth) == [1, 1, 0]
    assert of(1 - truth) == [0, 0, 1]
    np.testing.assert_array_equal(of(0 * truth), [0, 0, np.nan])


def test_counts_come_before_the_ratio():
    """One hit of one, and one of nine: 0.2, not the mean of 1 and 1/9."""
    outputs, truth = np.zeros((2, 2, 1, 3, 3, 1), np.float32)
    outputs[:, 0, 0, 0] = 1
    truth[0, 0, 0, 0] = truth[1] = 1
    figures = run(nowcasting(frames=1), [(outputs[:1], {"target": truth[:1]}), (outputs[1:], {"target": truth[1:]})])
    np.testing.assert_allclose(figures["csi_0.5"], 2 / 10)
    assert np.isnan(skill(*np.zeros((4, 1)))["csi"][0])


@pytest.mark.parametrize("filler", [0.0, np.nan])
def test_padding_leaves_no_trace_and_nan_that_counts_does(filler):
    outputs, truth = maps()
    whole = run(nowcasting(frames=3), [(outputs, {"target": truth})])
    padded = [np.concatenate([x[4:], np.full_like(x[:2], filler)]) for x in (outputs, truth)]
    weight = np.float32([1, 1, 0, 0])
    batches = [(outputs[:4], {"target": truth[:4]}), (padded[0], {"target": padded[1], "weight": weight})]
    assert run(nowcasting(frames=3), batches) == whole
    outputs[2, 1, 0, 0] = np.nan
    spoilt = run(nowcasting(frames=3), [(outputs, {"target": truth})])
    np.testing.assert_array_equal(np.isnan(spoilt["csi_0.5_by_frame"]), [False, True, False])


def spots(points, size=16):
    """A map with a pixel for each (row, column, value)."""
    image = np.zeros((size, size, 1), np.float32)
    for row, column, value in points:
        image[row, column] = value
    return image


def crafted():
    """Two frames: both storms found at 0.5, one of them 1 pixel aside, beside a false peak; and one missed."""
    outputs = np.stack([spots([(3, 3, 0.9), (10, 11, 0.7), (2, 13, 0.58)]), spots([(12, 4, 0.36)])])[None]
    truth = np.float32([[[[3, 3], [10, 10]], [[5, 4], [-1, -1]]]])
    return outputs, {"centres": truth, "present": np.array([[[True, True], [True, False]]])}


def test_centres_computed_by_hand():
    figures = run(centres(frames=2), [crafted()])
    # Above 0.6 there are two peaks, both right, of three centres.
    assert figures["precision"] == 1
    np.testing.assert_allclose(figures["recall"], 2 / 3)
    np.testing.assert_allclose(figures["f1"], 2 * 2 / (2 + 3))
    np.testing.assert_allclose(figures["centre_error"], (0 + 1 + 8) / 3, rtol=1e-6)
    np.testing.assert_array_equal(figures["precision_by_frame"], [1, np.nan])
    np.testing.assert_array_equal(figures["recall_by_frame"], [1, 0])
    np.testing.assert_allclose(figures["centre_error_by_frame"], [0.5, 8])
    # At 0.05 .. 0.35 four peaks, to 0.55 three, to 0.65 two, to 0.85 one.
    by_threshold = [4 / 7] * 7 + [4 / 6] * 4 + [4 / 5] * 2 + [2 / 4] * 4 + [0] * 2
    np.testing.assert_allclose(figures["f1_by_threshold"], by_threshold, rtol=1e-6)


def test_error_is_to_the_nearest_peak_up_to_the_cutoff():
    outputs, batch = crafted()
    only = centres(frames=2, thresholds=(0.3,), cutoff=7.5)
    np.testing.assert_allclose(run(only, [(outputs, batch)])["centre_error_by_frame"], [0.5, 7.0], rtol=1e-6)
    near = centres(frames=2, thresholds=(0.3,), cutoff=4.0)
    np.testing.assert_allclose(run(near, [(outputs, batch)])["centre_error_by_frame"], [0.5, 4.0], rtol=1e-6)


def test_one_peak_matches_one_centre_and_the_radius_is_inclusive():
    outputs = spots([(5, 5, 0.9), (5, 8, 0.8)])[None, None]
    batch = {"centres": np.float32([[[[5, 5], [5, 6]]]]), "present": np.ones((1, 1, 2), bool)}
    assert run(centres(frames=1, suppression=2.0), [(outputs, batch)])["recall"] == 1
    assert run(centres(frames=1, suppression=2.0, radius=1.9), [(outputs, batch)])["recall"] == 0.5
    assert run(centres(frames=1, suppression=3.0), [(outputs, batch)])["recall"] == 0.5


def test_perfect_maps_and_empty_ones():
    _, batch = crafted()
    perfect = np.stack([spots([(3, 3, 1), (10, 10, 1)]), spots([(5, 4, 1)])])[None]
    figures = run(centres(frames=2), [(perfect, batch)])
    assert [figures[name] for name in ("precision", "recall", "f1", "centre_error")] == [1, 1, 1, 0]
    empty = run(centres(frames=2), [(0 * perfect, batch)])
    assert [empty[name] for name in ("recall", "f1", "centre_error")] == [0, 0, 8]
    assert np.isnan(empty["precision"])


def test_centres_do_not_depend_on_batches_padding_or_filler():
    outputs, batch = crafted()
    outputs, batch = np.repeat(outputs, 3, 0), {key: np.repeat(value, 3, 0) for key, value in batch.items()}
    outputs[1] = outputs[1, ::-1]
    whole = run(centres(frames=2), [(outputs, batch)])
    filled = {key: value[[2, 2]] for key, value in batch.items()} | {"weight": np.float32([1, 0])}
    last = np.stack([outputs[2], np.full_like(outputs[0], np.nan)])
    parts = [(outputs[:2], {key: value[:2] for key, value in batch.items()}), (last, filled)]
    assert str(run(centres(frames=2), parts)) == str(whole)
    outputs[0, 1, 0, 0] = np.nan
    assert np.isnan(run(centres(frames=2), [(outputs, batch)])["f1_by_threshold"]).all()


def test_what_does_not_fit_is_refused():
    outputs, batch = crafted()
    with pytest.raises(InputError, match="centres\\(frames=3\\)"):
        run(centres(frames=3), [(outputs, batch)])
    with pytest.raises(InputError, match="nowcasting\\(frames=1\\)"):
        run(nowcasting(frames=1), [(outputs, {"target": outputs})])
    with pytest.raises(InputError, match="'ets'"):
        nowcasting(frames=1, scores=("csi", "ets"))
    for metric in (nowcasting(frames=1), centres(frames=1)):
        with pytest.raises(InputError, match="No example"):
            metric.finish(metric.init())
