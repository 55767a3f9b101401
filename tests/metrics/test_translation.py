"""Oracles: the definitions in NumPy and scikit-image over all images at once, in float64."""

import colorsys
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from skimage.color import rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from seqjax.errors import InputError
from seqjax.metrics.translation import pair_metrics

PALETTE = np.array([colorsys.hsv_to_rgb(k / 5, 1, 1) for k in range(5)])
METRIC = pair_metrics(palette=PALETTE)
ADD = jax.jit(METRIC.accumulate)


def draw(n=11, channels=3):
    """Targets in [-1, 1], outputs that leave it a little, labels of four of the five classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=n)
    ink = rng.random((n, 12, 13, 1)) * (rng.random((n, 12, 13, 1)) < 0.4)
    colour = PALETTE[(labels + (rng.random(n) < 0.3)) % 5][:, None, None] if channels == 3 else np.ones((1, 1, 1, 1))
    outputs = 2 * ink * colour - 1 + rng.normal(size=(n, 12, 13, channels)) * 0.1
    target = 2 * ink * (PALETTE[labels][:, None, None] if channels == 3 else 1) - 1
    return outputs.astype(np.float32), target.astype(np.float32), labels


def oracle(outputs, target, labels):
    x, y = ((np.float64(images) + 1) / 2 for images in (outputs, target))
    clipped, gray = x.clip(0, 1), outputs.shape[-1] == 1
    options = {
        "data_range": 1,
        "channel_axis": -1,
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
    }
    pairs = list(zip(clipped, y, strict=True))
    energy = [sum((np.diff(images, axis=axis) ** 2).sum() for axis in (1, 2)) for images in (clipped, y)]
    figures = {
        "l1": np.abs(np.float64(outputs) - target).mean(),
        "psnr": np.mean([peak_signal_noise_ratio(b, a, data_range=1) for a, b in pairs]),
        "ssim": np.mean([structural_similarity(a, b, **options) for a, b in pairs]),
        "gradient_energy": energy[0] / energy[1],
    }
    planes = (clipped, y) if gray else (rgb2lab(clipped), rgb2lab(y))
    ranges = {"grey": (0, 1)} if gray else {"l": (0, 100), "a": (-110, 110), "b": (-110, 110)}
    for k, (kind, span) in enumerate(ranges.items()):
        p, q = (np.histogram(images[..., k], bins=65, range=span)[0] / images[..., k].size for images in planes)
        figures[f"histogram_{kind}"] = np.minimum(p, q).sum()
    if not gray:
        total = x.sum(axis=(1, 2))
        cosine = [[t @ c / np.linalg.norm(t) / np.linalg.norm(c) for c in PALETTE] for t in total]
        right = np.argmax(cosine, axis=1) == labels
        figures["colour_accuracy"] = right.mean()
        with np.errstate(invalid="ignore"):
            shares = [np.float64(right[labels == k].sum()) / (labels == k).sum() for k in range(5)]
        figures["colour_accuracy_by_class"] = shares
    return figures


def run(size, data, metric=METRIC, add=ADD, filler=np.nan):
    acc = metric.init()
    for k in range(0, len(data[0]), size):
        rows = [array[k : k + size] for array in data]
        missing = size - len(rows[0])
        images = [np.pad(a, [(0, missing), *[(0, 0)] * 3], constant_values=filler) for a in rows[:2]]
        batch = {"target": images[1], "label": np.pad(rows[2], (0, missing)).astype(np.int32)}
        batch["weight"] = np.pad(np.ones(size - missing, np.float32), (0, missing))
        acc = add(acc, jnp.asarray(images[0]), jax.tree.map(jnp.asarray, batch))
    return metric.finish(acc)


def assert_same(figures, expected):
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        # Where a pixel lies on the border of two bins, float32 may put it into the other.
        tolerance = {"atol": 3e-3} if name.startswith("histogram") else {"rtol": 1e-5}
        np.testing.assert_allclose(figures[name], value, err_msg=name, **tolerance)


@pytest.mark.parametrize("size", [11, 4])
def test_equals_the_definitions_with_padding_left_out(size):
    data = draw()
    expected = oracle(*data)
    assert 0.2 < expected["colour_accuracy"] < 1
    assert_same(run(size, data), expected)


def test_sharded_batches_equal_one_device():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    add = jax.jit(METRIC.accumulate, in_shardings=(everywhere, rows, rows), out_shardings=everywhere)
    data = draw()
    found = run(4, data, add=lambda acc, *batch: add(jax.device_put(acc, everywhere), *jax.device_put(batch, rows)))
    assert_same(found, oracle(*data))


def test_grey_images_without_palette():
    data = draw(channels=1)
    metric = pair_metrics(channels=1)
    figures = run(4, data, metric, jax.jit(metric.accumulate))
    assert_same(figures, oracle(*data))
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_perfect_outputs():
    _, target, labels = draw()
    figures = run(11, (target, target, labels))
    ones = ("ssim", "gradient_energy", "histogram_l", "histogram_a", "histogram_b", "colour_accuracy")
    assert {name: figures[name] for name in ones} == pytest.approx(dict.fromkeys(ones, 1), abs=1e-5)
    assert figures["l1"] == 0
    assert figures["psnr"] == 100
    assert np.isnan(figures["colour_accuracy_by_class"][4])


def test_blur_lowers_and_noise_raises_the_gradient_energy():
    _, target, labels = draw()
    blurred = (target + np.roll(target, 1, axis=1) + np.roll(target, 1, axis=2)) / 3
    noisy = target + np.random.default_rng(1).normal(size=target.shape).astype(np.float32) * 0.5
    assert run(11, (blurred, target, labels))["gradient_energy"] < 0.6
    assert run(11, (noisy, target, labels))["gradient_energy"] > 1.2


def test_nearest_colour_is_by_direction_and_not_by_brightness():
    """Red is nearer to red than to white, whose product with it is no smaller; and nearer to a dark red than to it."""
    red = 2 * np.eye(3, dtype=np.float32)[[0]].reshape(1, 1, 1, 3) * np.ones((1, 12, 12, 1), np.float32) - 1
    for palette in ([[1, 1, 1], [1, 0, 0]], [[1, 1, 1], [0.2, 0, 0]]):
        metric = pair_metrics(palette=np.array(palette, np.float64))
        batch = {"target": jnp.asarray(red), "label": jnp.ones(1, jnp.int32)}
        assert metric.finish(metric.accumulate(metric.init(), jnp.asarray(red), batch))["colour_accuracy"] == 1


def test_small_images_take_the_smaller_window():
    rng = np.random.default_rng(0)
    outputs, target = (rng.uniform(-1, 1, size=(2, 8, 8, 1)).astype(np.float32) for _ in range(2))
    found = run(2, (outputs, target, np.zeros(2)), pair_metrics(channels=1), pair_metrics(channels=1).accumulate)
    pairs = zip((np.float64(outputs) + 1) / 2, (np.float64(target) + 1) / 2, strict=True)
    expected = np.mean([structural_similarity(a[..., 0], b[..., 0], data_range=1) for a, b in pairs])
    assert found["ssim"] == pytest.approx(expected, rel=1e-5)


def test_nan_in_an_image_that_counts_reaches_every_figure():
    outputs, target, labels = draw()
    outputs[3, 2, 2, :] = np.nan
    figures = run(4, (outputs, target, labels))
    assert all(np.isnan(value).any() for value in figures.values())


def test_refusals():
    with pytest.raises(InputError, match="no example"):
        METRIC.finish(METRIC.init())
    with pytest.raises(InputError, match=r"channels=3.*outputs have the shape \(2, 12, 12, 1\)"):
        METRIC.accumulate(METRIC.init(), jnp.zeros((2, 12, 12, 1)), {"target": jnp.zeros((2, 12, 12, 1))})
    with pytest.raises(InputError, match="outputs have the shape"):
        METRIC.accumulate(METRIC.init(), jnp.zeros((2, 12, 12, 3)), {"target": jnp.zeros((2, 12, 13, 3))})
