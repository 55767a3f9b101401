import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from seqjax.data import digits
from seqjax.data.moving_digits import NAMED, MovingDigits, MovingDigitsConfig, bounce, overlay, reflect, stochastic
from seqjax.errors import InputError

TINY = {"size": 32, "digit_size": 16, "digits": 1, "train": 12, "validation": 8, "test": 8}
seeds = st.integers(0, 2**32 - 1)


def clips(directory: Path, split: str, **fields) -> list[dict[str, np.ndarray]]:
    """What the builder generates, before it is written."""
    builder = MovingDigits(config=MovingDigitsConfig(**(TINY | fields)), data_dir=directory)
    numbers, examples = zip(*builder._generate_examples(split), strict=True)
    assert list(numbers) == list(range(getattr(builder.builder_config, split)))
    return list(examples)


@given(seeds)
def test_bounce_against_a_loop_over_numbers(seed):
    corners = bounce(np.random.default_rng(seed), frames=20, digits=2, slack=36)
    rng = np.random.default_rng(seed)
    places = rng.random((2, 2))
    angles = rng.random(2) * 2 * math.pi
    for n in range(2):
        y, x = (float(p) for p in places[n])
        dy, dx = 0.1 * math.sin(angles[n]), 0.1 * math.cos(angles[n])
        for t in range(20):
            y, x = y + dy, x + dx
            if y <= 0 or y >= 1:
                y, dy = min(max(y, 0.0), 1.0), -dy
            if x <= 0 or x >= 1:
                x, dx = min(max(x, 0.0), 1.0), -dx
            assert corners[t, n].tolist() == [int(36 * y), int(36 * x)]


@given(seeds)
def test_reflect_against_a_ball_between_mirrors(seed):
    corners = reflect(np.random.default_rng(seed), frames=20, digits=2, slack=36)
    rng = np.random.default_rng(seed)
    places = rng.random((2, 2))
    angles = rng.random(2) * 2 * math.pi
    for n in range(2):
        for axis, speed in enumerate((0.1 * math.sin(angles[n]), 0.1 * math.cos(angles[n]))):
            p = float(places[n, axis])
            for t in range(20):
                assert abs(corners[t, n, axis] - 36 * p) <= 0.5 + 1e-9
                p += speed
                if p < 0 or p > 1:
                    p, speed = (-p if p < 0 else 2 - p), -speed


@pytest.mark.parametrize("motion", [bounce, reflect])
@given(seed=seeds)
def test_straight_motions_stay_inside_and_go_at_most_four_pixels(motion, seed):
    corners = motion(np.random.default_rng(seed), frames=40, digits=2, slack=36)
    assert corners.min() >= 0
    assert corners.max() <= 36
    assert np.abs(np.diff(corners, axis=0)).max() <= 4


class Script(np.random.Generator):
    """A generator that answers as told and checks the ranges that it is asked for."""

    def __init__(self, *answers):
        super().__init__(np.random.PCG64())
        self.answers = list(answers)

    def integers(self, low, high, size=None):
        (expected_low, expected_high, value) = self.answers.pop(0)
        assert (low, high) == (expected_low, expected_high)
        return np.array(value) if size else value


def test_stochastic_path_computed_by_hand():
    """Start (30, 3), velocity (3, -1): to the bottom wall, the left one, the top one."""
    script = Script(
        (0, 32, [30, 3]),
        (-4, 5, [3, -1]),
        # frame 1: row 33 -> 31, row velocity -4, column velocity -2
        (1, 5, 4),
        (-4, 5, -2),
        # frame 3: column -2 -> 0, column velocity 3, row velocity -4
        (1, 5, 3),
        (-4, 5, -4),
        # frame 9: row -1 -> 0, row velocity 1, column velocity 4
        (1, 5, 1),
        (-4, 5, 4),
    )
    corners = stochastic(script, frames=11, digits=1, slack=32)
    expected = [
        (30, 3), (31, 2), (27, 0), (23, 0), (19, 3), (15, 6), (11, 9), (7, 12), (3, 15), (0, 18), (1, 22),
    ]  # fmt: skip
    assert [tuple(corner) for corner in corners[:, 0].tolist()] == expected
    assert not script.answers


@given(seeds)
def test_stochastic_velocity_changes_at_walls_only(seed):
    corners = stochastic(np.random.default_rng(seed), frames=30, digits=2, slack=32)
    assert corners.min() >= 0
    assert corners.max() <= 31
    steps = np.diff(corners, axis=0)
    assert np.abs(steps).max() <= 4
    turned = (steps[1:] != steps[:-1]).any(axis=-1)
    at_wall = ((corners[1:] == 0) | (corners[1:] == 31)).any(axis=-1)
    assert (at_wall[:-1] | at_wall[1:])[turned].all()


def test_stochastic_draws_are_uniform():
    """Frequencies over many clips against the protocol's, within five standard errors."""
    corners = stochastic(np.random.default_rng(0), frames=2, digits=4000, slack=32)
    start = corners[0].ravel()
    assert np.abs(np.bincount(start, minlength=32) / start.size - 1 / 32).max() < 5 * math.sqrt(1 / 32 / start.size)
    middle = (corners[0] >= 4) & (corners[0] < 28)
    free = np.diff(corners, axis=0)[0][middle.all(axis=-1)].ravel()
    assert np.abs(np.bincount(free + 4, minlength=9) / free.size - 1 / 9).max() < 5 * math.sqrt(1 / 9 / free.size)


def test_overlay_by_hand():
    images = np.array([[[100, 200], [50, 0]], [[90, 10], [20, 30]]], np.uint8)
    corners = np.array([[[0, 0], [1, 1]], [[0, 1], [0, 1]]])
    largest = overlay(images, corners, size=3, add=False)
    assert largest.shape == (2, 3, 3, 1)
    assert largest[..., 0].tolist() == [
        [[100, 200, 0], [50, 90, 10], [0, 20, 30]],
        [[0, 100, 200], [0, 50, 30], [0, 0, 0]],
    ]
    total = overlay(images, corners, size=3, add=True)
    assert total[1, ..., 0].tolist() == [[0, 190, 210], [0, 70, 30], [0, 0, 0]]
    images[1] = 200
    assert overlay(images, corners, size=3, add=True).max() == 255


def ink(image: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(image)
    return image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


@pytest.mark.parametrize("motion", ["bounce", "reflect", "stochastic"])
def test_a_digit_never_changes(motion, tmp_path):
    """The ink of every frame is that of scikit-learn's digit, and the label is that digit's."""
    images, labels = digits.load(16)
    for record in clips(tmp_path, "train", motion=motion):
        assert record["video"].shape == (20, 32, 32, 1)
        assert record["video"].dtype == np.uint8
        (index,) = record["index"]
        assert record["label"].tolist() == [labels[index]]
        assert len(np.unique(record["video"].reshape(20, -1), axis=0)) >= 5
        for frame in record["video"][..., 0]:
            np.testing.assert_array_equal(ink(frame), ink(images[index]))


def test_two_digits_meet_by_maximum_or_by_sum(tmp_path):
    """Against a clip drawn here from the record's own digits and the motion's corners."""
    fields = {"digits": 2, "frames": 6}
    images, _ = digits.load(16)
    for motion, function in (("bounce", bounce), ("stochastic", stochastic)):
        for i, record in enumerate(clips(tmp_path, "validation", motion=motion, **fields)):
            rng = np.random.default_rng([0, 1, i])
            assert record["index"].tolist() == rng.choice(np.arange(1287, 1545), size=2).tolist()
            corners = function(rng, frames=6, digits=2, slack=16)
            for t in range(6):
                layers = np.zeros((2, 32, 32), np.int64)
                for n, (row, column) in enumerate(corners[t]):
                    layers[n, row : row + 16, column : column + 16] = images[record["index"][n]]
                both = layers.max(axis=0) if motion == "bounce" else np.minimum(layers.sum(axis=0), 255)
                np.testing.assert_array_equal(record["video"][t, ..., 0], both)


def test_a_texture_stands_still_behind_the_same_clip(tmp_path):
    """By the equation of covering ink, in integers, from the clip on black."""
    black, textured = clips(tmp_path, "train"), clips(tmp_path, "train", background="texture")
    grounds = []
    for plain, record in zip(black, textured, strict=True):
        assert record["index"] == plain["index"]
        ink, video = plain["video"].astype(int), record["video"].astype(int)
        free = ink == 0
        ground = np.where(free, video, 0).max(axis=0)
        seen = free.any(axis=0)
        assert seen.mean() > 0.6
        covered = ground + (255 - ground) * ink / 255
        assert np.abs(video - covered)[:, seen].max() <= 0.5 + 1e-4
        assert ground.max() <= 160
        assert 10 < ground[seen].std() < 60
        neighbours = seen[:, 1:] & seen[:, :-1]
        steps = np.diff(ground, axis=1)[neighbours]
        assert steps.std() < 0.8 * ground[seen].std(), "smooth: of independent pixels it is √2 times"
        grounds.append(np.where(seen, ground, 0))
    assert len(np.unique(grounds, axis=0)) == len(grounds)


def test_splits_share_no_digit(tmp_path):
    used = {
        split: {int(i) for record in clips(tmp_path, split, train=300, frames=1) for i in record["index"]}
        for split in digits.SPLITS
    }
    for split, indices in used.items():
        assert indices <= set(digits.SPLITS[split])
    assert len(used["train"]) > 200


def test_a_clip_depends_on_seed_split_and_number_alone(tmp_path):
    few, more = clips(tmp_path, "train", train=5), clips(tmp_path, "train", train=9)
    other_seed, other_split = clips(tmp_path, "train", seed=1), clips(tmp_path, "test")
    for i in range(5):
        for key in few[i]:
            np.testing.assert_array_equal(few[i][key], more[i][key])
        assert not np.array_equal(few[i]["video"], other_seed[i]["video"])
        assert not np.array_equal(few[i]["video"], other_split[i]["video"])
    assert len({record["video"].tobytes() for record in more}) == 9


def test_preparing_again_gives_the_same_files(tmp_path):
    """And the records read are the clips generated, in their order."""
    for place in ("first", "second"):
        builder = MovingDigits(config=MovingDigitsConfig(**TINY), data_dir=tmp_path / place)
        builder.download_and_prepare(file_format="array_record")
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.array_record*"))
    assert len(files) == 3
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    for record, clip in zip(builder.as_data_source("train"), clips(tmp_path, "train"), strict=True):
        assert record.keys() == clip.keys()
        for key in clip:
            assert record[key].dtype == clip[key].dtype
            np.testing.assert_array_equal(record[key], clip[key])


def test_named_configurations():
    configs = MovingDigits.builder_configs
    assert list(configs) == list(NAMED)
    assert MovingDigits.default_builder_config.name == "two_64"
    sizes = {name: (c.motion, c.frames, c.size, c.digit_size, c.digits) for name, c in configs.items()}
    assert sizes == {
        "two_64": ("bounce", 20, 64, 28, 2),
        "one_32": ("bounce", 20, 32, 16, 1),
        "stochastic_32": ("stochastic", 20, 32, 16, 1),
        "stochastic_64": ("stochastic", 20, 64, 32, 2),
        "stochastic_64_30frames": ("stochastic", 30, 64, 32, 2),
        "textured_32": ("bounce", 10, 32, 16, 1),
        "tiny_16": ("bounce", 8, 16, 8, 1),
    }
    assert {name for name, c in configs.items() if c.background != "black"} == {"textured_32"}


def test_every_field_is_in_the_name():
    """Else two different sets would share a directory."""
    own = {field.name for field in dataclasses.fields(MovingDigitsConfig)}
    own -= {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
    other = dict.fromkeys(own, 21) | {"motion": "reflect", "size": 65, "background": "texture"}
    names = {MovingDigitsConfig(**{field: value}).name for field, value in other.items()}
    assert len({*names, MovingDigitsConfig().name}) == len(own) + 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"frames": 0}, ["frames=0", "1 or more"]),
        ({"test": 0}, ["test=0", "1 or more"]),
        ({"size": 28}, ["digit_size=28", "size=28", "below size"]),
        ({"seed": -1}, ["seed=-1", "0 or more"]),
        ({"name": "mine"}, ["name='mine'", "leave it out"]),
    ],
)
def test_settings_that_cannot_be(fields, words):
    with pytest.raises(InputError) as caught:
        MovingDigitsConfig(**fields)
    assert all(word in str(caught.value) for word in words)


def test_prepared_and_read_without_tensorflow_torch_or_jax(tmp_path):
    script = f"""
import sys
from seqjax.data.moving_digits import MovingDigitsConfig
from seqjax.data.source import in_memory, open_source
source = open_source("moving_digits", split="test", config=MovingDigitsConfig(**{TINY}), data_dir={str(tmp_path)!r})
assert in_memory(source)[7]["video"].shape == (20, 32, 32, 1)
assert not {{"jax", "tensorflow", "torch"}} & set(sys.modules)
from seqjax.data import pipeline  # Grain imports jax where it is installed
assert next(pipeline.train_batches(source, batch_size=4, seed=0))["video"].shape == (4, 20, 32, 32, 1)
assert not {{"tensorflow", "torch"}} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "%|" not in done.stderr  # progress bars are for terminals
