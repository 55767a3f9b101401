"""The two domains against their definition, and against figures measured on an implementation of its own."""

import numpy as np
import pytest

from seqjax.data import digits
from seqjax.data.digit_styles import DigitStyles
from seqjax.data.source import in_memory, open_source

SPLITS = ("trainA", "trainB", "testA", "testB")


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    return {s: in_memory(open_source("digit_styles", split=s, data_dir=directory)) for s in SPLITS}


def stacked(source, key) -> np.ndarray:
    return np.stack([source[i][key] for i in range(len(source))])


def test_colours_run_straight_from_ground_to_ink(domains):
    images, labels = digits.load(16, method="bilinear")
    ends = {"A": ((0, 0, 0), (255, 255, 255)), "B": ((229.5, 204, 51), (25.5, 51, 153))}
    for split, source in domains.items():
        ground, ink = np.array(ends[split[-1]])
        index = stacked(source, "index")
        expected = ground + images[index][..., None] / 255 * (ink - ground)
        assert np.abs(stacked(source, "image") - expected).max() <= 0.501
        np.testing.assert_array_equal(stacked(source, "label"), labels[index])


def test_only_the_two_tests_share_digits(domains):
    index = {split: stacked(source, "index").tolist() for split, source in domains.items()}
    assert index["testA"] == index["testB"]
    apart = [*index["trainA"], *index["trainB"], *index["testA"]]
    assert sorted(apart) == list(range(1797))
    assert [len(index[split]) for split in SPLITS] == [648, 649, 500, 500]


def test_baselines_are_those_on_record(domains):
    """L1 from A to B on the range [-1, 1]: identity 0.885, mean image of B 0.184, matching the mean and deviation of
    each channel 0.531. Measured without this package, in floating point."""
    a, b, held, truth = (stacked(domains[split], "image") / 127.5 - 1 for split in SPLITS)
    every = (0, 1, 2)

    def error(guess):
        return np.abs(truth - guess).mean()

    assert error(held) == pytest.approx(0.885, abs=2e-3)
    assert error(b.mean(axis=0)) == pytest.approx(0.184, abs=6e-4)
    matched = (held - a.mean(every)) / a.std(every) * b.std(every) + b.mean(every)
    assert error(matched) == pytest.approx(0.531, abs=2e-3)


def test_splits_are_named_as_in_cycle_gan():
    assert list(DigitStyles.places()) == list(SPLITS)
