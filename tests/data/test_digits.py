import numpy as np
import pytest
from sklearn.datasets import load_digits

from seqjax.data import digits
from seqjax.data.digits import Digits, DigitsConfig
from seqjax.data.source import open_source
from seqjax.errors import InputError

RUNS = "0123456789" * 3
BLOCKS = dict.fromkeys([0, 130, 256, 386, 516, 646, 776, 1029, 1157, 1287, 1415, 1667], RUNS) | {
    906: RUNS[1:],
    1545: RUNS[:17] + RUNS[19:],
}


def test_blocks_start_with_three_runs_of_the_ten_digits():
    """What the module says about the order, and that the splits cut nowhere else. Oracle: scikit-learn's labels."""
    labels = "".join(map(str, load_digits().target))
    for start, run in BLOCKS.items():
        assert labels.startswith(run, start)
    assert labels.count(RUNS) == len(BLOCKS) - 2
    lengths = np.diff([*sorted(BLOCKS), 1797])
    assert (lengths.min(), lengths.max()) == (122, 130)
    assert {part.start for part in digits.SPLITS.values()} <= set(BLOCKS)


def test_splits_are_a_partition():
    assert sorted(i for part in digits.SPLITS.values() for i in part) == list(range(1797))


def bicubic(size: int) -> np.ndarray:
    """Weights [size, 8] of Catmull-Rom interpolation at pixel centres, renormalised at the border."""
    place = (np.arange(size) + 0.5) * 8 / size - 0.5
    x = np.abs(place[:, None] - np.arange(8))
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [8, 16, 28])
def test_enlarged_digits_against_a_matrix_product(size):
    images, labels = digits.load(size)
    assert images.dtype == np.uint8
    assert images.shape == (1797, size, size)
    assert (images.min(), images.max()) == (0, 255)
    data = load_digits()
    expected = (bicubic(size) @ (data.images * 255 / 16) @ bicubic(size).T).clip(0, 255)
    assert np.abs(images - expected).max() <= 0.51  # half a level of rounding
    np.testing.assert_array_equal(labels, data.target)


def bilinear(size: int) -> np.ndarray:
    """Weights [size, 8] of the straight line between pixel centres, constant beyond the outermost."""
    place = ((np.arange(size) + 0.5) * 8 / size - 0.5).clip(0, 7)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(8)), 0)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_still_digits_against_scikit_learn(size, tmp_path):
    """Each record is the digit at its place of the published permutation, enlarged by a matrix product."""
    data = load_digits()
    order = np.random.RandomState(0).permutation(1797)
    images = bilinear(size) @ (data.images[order] * 255 / 16) @ bilinear(size).T
    for split, start, stop in (("train", 0, 1297), ("test", 1297, 1797)):
        source = open_source("digits", split=split, config=f"{size}x{size}", data_dir=tmp_path)
        assert len(source) == stop - start
        for i in (0, 1, len(source) - 1):
            record, place = source[i], start + i
            assert record["image"].shape == (size, size, 1)
            assert record["image"].dtype == np.uint8
            assert np.abs(record["image"][..., 0] - images[place]).max() <= 0.51  # half a level of rounding
            assert (record["index"], record["label"]) == (order[place], data.target[order[place]])


def test_no_digit_is_for_training_and_for_testing():
    parts = digits.random_split()
    assert sorted([*parts["train"], *parts["test"]]) == list(range(1797))


def test_sizes_of_still_digits():
    assert list(Digits.builder_configs) == ["16x16", "8x8", "32x32"]
    assert DigitsConfig(size=20).name == "20x20"
    for fields in ({"size": 7}, {"name": "mine"}, {"name": "8x8", "size": 16}):
        with pytest.raises(InputError, match="in a DigitsConfig"):
            DigitsConfig(**fields)
