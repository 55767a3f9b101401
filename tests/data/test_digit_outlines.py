"""The pairs against their definition, and against figures measured on an implementation of its own."""

import colorsys
import math

import numpy as np
import pytest

from seqjax.data import digits
from seqjax.data.digit_outlines import outline
from seqjax.data.source import in_memory, open_source


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    return {s: in_memory(open_source("digit_outlines", split=s, data_dir=directory)) for s in ("train", "test")}


def stacked(source, key) -> np.ndarray:
    return np.stack([source[i][key] for i in range(len(source))])


def test_records_against_a_loop_over_pixels(pairs):
    images, _ = digits.load(16, method="bilinear")
    for i in range(0, 500, 50):
        record = pairs["test"][i]
        ink = images[record["index"]] / 255
        colour = colorsys.hsv_to_rgb(int(record["label"]) / 10, 1, 1)
        assert record["input"].shape == (16, 16, 1)
        for y in range(16):
            for x in range(16):
                above, below = max(y - 1, 0), min(y + 1, 15)
                left, right = max(x - 1, 0), min(x + 1, 15)
                steep = math.hypot(
                    (ink[below, x] - ink[above, x]) / (below - above), (ink[y, right] - ink[y, left]) / (right - left)
                )
                assert record["input"][y, x, 0] == (255 if steep > 0.18 else 0)
                np.testing.assert_allclose(record["target"][y, x], [255 * ink[y, x] * c for c in colour], atol=0.51)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_outlines_of_all_sizes_show_the_same(size):
    """The share of outline that lies on the digit's border, by eye: from a fifth to half of the picture."""
    images, _ = digits.load(size, method="bilinear")
    assert 0.2 < np.mean([outline(ink) for ink in images[:200]]) / 255 < 0.5


def test_outline_of_a_square():
    ink = np.zeros((8, 8), np.uint8)
    ink[2:6, 2:6] = 255
    inner, outer = slice(3, 5), slice(1, 7)
    expected = np.zeros((8, 8), np.uint8)
    expected[outer, outer] = 255
    expected[inner, inner] = 0
    expected[[1, 1, 6, 6], [1, 6, 1, 6]] = 0  # corners see neither neighbour
    np.testing.assert_array_equal(outline(ink), expected)


def test_baselines_are_those_on_record(pairs):
    """L1 on the range [-1, 1], which others will compare by: mean image 0.308, median image 0.279, true shape in the
    average colour 0.253, target of the nearest outline 0.072 (right class 0.968). Measured without this package, from
    the same definition in floating point: 8 bits move one outline pixel in 450, which the last two figures feel."""
    train, test = (stacked(pairs[split], "target") / 127.5 - 1 for split in ("train", "test"))
    edges, held = (stacked(pairs[split], "input").reshape(len(pairs[split]), -1) / 255 for split in ("train", "test"))
    shape = test.max(axis=-1, keepdims=True)

    def error(guess):
        return np.abs(test - guess).mean()

    assert error(train.mean(axis=0)) == pytest.approx(0.308, abs=6e-4)
    assert error(np.median(train, axis=0)) == pytest.approx(0.279, abs=6e-4)
    assert error((shape + 1) / 2 - 1) == pytest.approx(0.253, abs=6e-4)
    distance = held.sum(1)[:, None] + edges.sum(1) - 2 * held @ edges.T
    nearest = distance.argmin(axis=1)
    assert error(train[nearest]) == pytest.approx(0.072, abs=2e-3)
    labels = {split: stacked(pairs[split], "label") for split in pairs}
    assert (labels["train"][nearest] == labels["test"]).mean() == pytest.approx(0.968, abs=8e-3)


def test_no_digit_is_for_training_and_for_testing(pairs):
    train, test = (set(stacked(pairs[split], "index").tolist()) for split in ("train", "test"))
    assert (len(train), len(test), len(train | test)) == (1297, 500, 1797)
