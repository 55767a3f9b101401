"""Clips against the digits that they are made of and the ways that they go, found again by search."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from seqjax.data.digit_directions import ARROWS, DIRECTIONS, NAMED, DigitDirectionsConfig, travel
from seqjax.data.digits import SPLITS
from seqjax.data.source import open_source
from seqjax.errors import InputError

FEW = {"train": 40, "validation": 2, "test": 2}


def opened(directory, split="train", **fields):
    source = open_source(
        "digit_directions", split=split, config=DigitDirectionsConfig(**FEW | fields), data_dir=directory
    )
    return [source[i] for i in range(len(source))]


def test_a_digit_goes_around_by_hand():
    """Two pixels beside one another, one down and one left a frame, on a torus of three."""
    video = travel(np.array([[5, 7], [0, 0]], np.uint8), np.array([1, 0]), 5, 1, frames=3, size=3)
    assert video.dtype == np.uint8
    assert video[..., 0].tolist() == [
        [[0, 0, 0], [5, 7, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0], [7, 0, 5]],
        [[0, 5, 7], [0, 0, 0], [0, 0, 0]],
    ]


def test_directions_go_round_and_opposites_are_half_a_turn_away():
    compass = {"up": 0, "right": 2, "down": 4, "left": 6}
    assert [DIRECTIONS[d].tolist() for d in compass.values()] == [[-1, 0], [0, 1], [1, 0], [0, -1]]
    assert "".join(ARROWS[d] for d in compass.values()) == "↑→↓←"
    np.testing.assert_array_equal(DIRECTIONS, -np.roll(DIRECTIONS, 4, axis=0))
    np.testing.assert_array_equal(DIRECTIONS[1::2], DIRECTIONS[::2] + np.roll(DIRECTIONS[::2], -1, axis=0))


def test_a_clip_backwards_goes_the_opposite_way():
    digit = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for d in range(8):
        there = travel(digit, np.array([3, 9]), d, 2, frames=6, size=16)
        end = np.array([3, 9]) + 10 * DIRECTIONS[d]
        np.testing.assert_array_equal(there[::-1], travel(digit, end, (d + 4) % 8, 2, frames=6, size=16))


def test_records_are_scikit_learns_digits_going_their_way(tmp_path):
    """Every frame is the one before, rolled by what the record says; the first holds the digit, wherever it is."""
    raw = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    for split in SPLITS:
        for record in opened(tmp_path, split):
            video, step = record["video"][..., 0], record["speed"] * DIRECTIONS[record["label"]]
            assert record["video"].shape == (6, 16, 16, 1)
            assert record["speed"] in (1, 2)
            for before, after in pairwise(video):
                np.testing.assert_array_equal(after, np.roll(before, step, axis=(0, 1)))
            canvas = np.zeros((16, 16), np.uint8)
            canvas[:8, :8] = raw[record["index"]]
            places = [(r, c) for r in range(16) for c in range(16)]
            assert any((np.roll(canvas, place, axis=(0, 1)) == video[0]).all() for place in places)
            assert record["index"] in SPLITS[split]


def test_starts_directions_and_speeds_are_all_alike(tmp_path):
    """Counts within five standard deviations; the brightest row and column are as likely anywhere."""
    records = opened(tmp_path, train=1600)
    for key, number in (("label", 8), ("speed", 2)):
        counts = np.bincount([int(r[key]) - (key == "speed") for r in records], minlength=number)
        assert np.abs(counts - 1600 / number).max() < 5 * np.sqrt(1600 / number)
    first = np.stack([r["video"][0, ..., 0] for r in records]).astype(float)
    for axis in (1, 2):
        counts = np.bincount(first.sum(axis=3 - axis).argmax(axis=1), minlength=16)
        assert np.abs(counts - 100).max() < 50


def test_a_clip_depends_on_seed_split_and_number_alone(tmp_path):
    few, more, other = opened(tmp_path), opened(tmp_path, train=50), opened(tmp_path, seed=1)
    for a, b in zip(few, more, strict=False):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    assert not any(np.array_equal(a["video"], b["video"]) for a, b in zip(few, other, strict=True))


def test_every_field_is_in_the_name():
    own = {field.name for field in dataclasses.fields(DigitDirectionsConfig)}
    own -= {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
    other = {field: 9 if field != "top_speed" else 3 for field in own} | {"size": 17}
    names = {DigitDirectionsConfig(**{field: value}).name for field, value in other.items()}
    assert len({*names, DigitDirectionsConfig().name}) == len(own) + 1
    assert DigitDirectionsConfig(name="tiny", **NAMED["tiny"]).name == "tiny"


@pytest.mark.parametrize(
    "fields",
    [
        {"frames": 1},
        {"digit_size": 17},
        {"top_speed": 8},
        {"top_speed": 0},
        {"seed": -1},
        {"test": 0},
        {"name": "mine"},
    ],
)
def test_settings_that_make_no_sense(fields):
    (field,) = fields
    with pytest.raises(InputError, match=f"{field}=.* in a DigitDirectionsConfig"):
        DigitDirectionsConfig(**fields)
