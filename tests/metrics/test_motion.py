"""Figures of what moves and what does not, against loops over NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.metrics.frames import PSNR_CAP
from seqjax.metrics.motion import motion_metrics

METRIC = motion_metrics()
ACCUMULATE = jax.jit(METRIC.accumulate)


def examples(number=5, channels=1, seed=0):
    """Clips whose left columns change and whose others do not; the last clip stands still altogether."""
    rng = np.random.default_rng(seed)
    clip = np.repeat(rng.random((number, 1, 6, 7, channels)), 5, axis=1)
    clip[:-1, :, :, :3] = rng.random((number - 1, 5, 6, 3, channels))
    outputs = clip[:, 2:] + 0.2 * rng.normal(size=clip[:, 2:].shape)
    return np.float32(outputs), np.float32(clip)


def figures_of(batches, accumulate=ACCUMULATE):
    acc = METRIC.init()
    for outputs, batch in batches:
        acc = accumulate(acc, jnp.asarray(outputs), jax.tree.map(jnp.asarray, batch))
    return METRIC.finish(acc)


def steepness(frames):
    out = np.zeros_like(frames)
    out[:, :, :, :-1] += np.abs(np.diff(frames, axis=3))
    out[:, :, :-1] += np.abs(np.diff(frames, axis=2))
    return out


def oracle(outputs, clip):
    outputs, clip = np.float64(outputs).clip(0, 1), np.float64(clip)
    target = clip[:, 2:]
    error = np.square(outputs - target)
    sums = {True: [0.0] * 4, False: [0.0] * 4}
    maps = (error, np.ones_like(error), steepness(outputs), steepness(target))
    for b, h, w in np.ndindex(len(clip), *clip.shape[2:4]):
        moves = bool((np.abs(clip[b, :, h, w] - clip[b, 0, h, w]) > 0.05).any())
        for k, found in enumerate(maps):
            sums[moves][k] += found[b, :, h, w].sum()
    moving, still = sums[True], sums[False]
    return {
        "moving_psnr": -10 * np.log10(moving[0] / moving[1]),
        "still_psnr": -10 * np.log10(still[0] / still[1]),
        "sharpness": (moving[2] + still[2]) / (moving[3] + still[3]),
        "moving_sharpness": moving[2] / moving[3],
    }


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_loop(channels):
    outputs, clip = examples(channels=channels)
    assert_same(figures_of([(outputs, {"clip": clip, "target": clip[:, 2:]})]), oracle(outputs, clip))


@pytest.mark.parametrize("filler", [0.0, np.nan])
def test_batches_and_padding_leave_no_trace(filler):
    outputs, clip = examples()
    batches = []
    for start in (0, 3):
        rows = [x[start : start + 3] for x in (outputs, clip)]
        missing = 3 - len(rows[0])
        rows = [np.concatenate([x, np.full((missing, *x.shape[1:]), filler, np.float32)]) for x in rows]
        weight = np.float32([1] * (3 - missing) + [0] * missing)
        batches.append((rows[0], {"clip": rows[1], "target": rows[1][:, 2:], "weight": weight}))
    assert_same(figures_of(batches), oracle(outputs, clip))


def test_known_points():
    """The truth itself is as sharp as it is; a grey frame has no edges; an even error of 0.1 has 20 dB everywhere."""
    _, clip = examples()
    batch = {"clip": clip, "target": clip[:, 2:]}
    exact = figures_of([(clip[:, 2:], batch)])
    assert exact["sharpness"] == exact["moving_sharpness"] == 1
    assert exact["moving_psnr"] == exact["still_psnr"] == PSNR_CAP
    assert figures_of([(np.full_like(clip[:, 2:], 0.5), batch)])["sharpness"] == 0
    low = {"clip": 0.8 * clip, "target": 0.8 * clip[:, 2:]}
    even = figures_of([(np.float32(0.8 * clip[:, 2:] + 0.1), low)])
    np.testing.assert_allclose([even["moving_psnr"], even["still_psnr"]], 20, rtol=1e-4)


def test_a_nan_that_counts_is_seen():
    outputs, clip = examples()
    outputs[0, 0, 0, 0] = np.nan
    assert np.isnan(figures_of([(outputs, {"clip": clip, "target": clip[:, 2:]})])["moving_psnr"])


def test_shapes_that_do_not_belong_together():
    outputs, clip = examples()
    for wrong in ({"clip": clip, "target": clip}, {"clip": clip[:, :, 1:], "target": clip[:, 2:]}):
        with pytest.raises(InputError, match="motion_metrics: outputs have the shape"):
            METRIC.accumulate(METRIC.init(), jnp.asarray(outputs), jax.tree.map(jnp.asarray, wrong))


def test_nothing_seen():
    with pytest.raises(InputError, match="motion_metrics: no example"):
        METRIC.finish(METRIC.init())
