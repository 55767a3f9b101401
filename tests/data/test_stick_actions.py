"""The set as prepared: its records, who plays where, what joints and labels tell, and what a bad setting is told."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from seqjax.data import stick_actions
from seqjax.data.source import open_source
from seqjax.data.stick_actions import StickActionsConfig, cast, film, paint, scenery
from seqjax.data.stick_figures import ANKLES, HEAD, HIPS
from seqjax.data.stick_motions import ACTIONS, BLEND, actor, perform
from seqjax.errors import InputError

SMALL = {"frames": 8, "size": 24, "actors": 10, "train": 6, "validation": 2, "test": 3}


def clips(config, number, split="train", seed=0):
    return [film(np.random.default_rng([seed, i]), config, split) for i in range(number)]


def test_prepared_clips(tmp_path):
    config = StickActionsConfig(**SMALL, persons=2, change=1.0, flow=True)
    for split in ("train", "validation", "test"):
        source = open_source("stick_actions", split=split, config=config, data_dir=tmp_path)
        assert len(source) == SMALL[split]
    record = source[1]
    expected = film(np.random.default_rng([0, 2, 1]), config, "test")
    assert record.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(record[key], value)
    shapes = {key: (value.shape, str(value.dtype)) for key, value in record.items()}
    assert shapes == {
        "video": ((8, 24, 24, 3), "uint8"),
        "label": ((), "int64"),
        "joints": ((8, 2, 13, 2), "float32"),
        "visible": ((8, 2, 13), "bool"),
        "action": ((8, 2), "int64"),
        "actor": ((2,), "int64"),
        "boxes": ((8, 2, 4), "float32"),
        "present": ((8, 2), "bool"),
        "flow": ((7, 24, 24, 2), "float16"),
    }


def test_prepared_and_read_without_tensorflow_or_jax(tmp_path):
    script = f"""
import sys
from seqjax.data.source import open_source
source = open_source("stick_actions", split="test", config="tiny_16", data_dir={str(tmp_path)!r})
assert source[2]["video"].shape == (8, 16, 16, 3)
assert not {{"jax", "tensorflow", "torch"}} & set(sys.modules)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr


def test_actors_of_one_split_are_in_no_other():
    config = StickActionsConfig(**SMALL | {"actors": 40})
    known = {split: set(cast(config, split)) for split in ("train", "validation", "test")}
    assert {split: len(numbers) for split, numbers in known.items()} == {"train": 28, "validation": 4, "test": 8}
    assert len(set.union(*known.values())) == 40
    for split, numbers in known.items():
        assert {int(clip["actor"][0]) for clip in clips(config, 12, split)} <= numbers


def test_an_actor_always_looks_the_same_and_like_nobody_else():
    """The colour between hips and shoulders is one in all clips of an actor."""
    config = StickActionsConfig(**SMALL | {"size": 48, "actors": 12}, texture=0.0)
    seen = {}
    for clip in clips(config, 30):
        joints = clip["joints"][0, 0]
        row, column = np.rint(joints[[1, 2, 7, 8]].mean(axis=0)).astype(int)
        seen.setdefault(int(clip["actor"][0]), []).append(tuple(clip["video"][0, row, column].tolist()))
    shirts = {number: max(set(colours), key=colours.count) for number, colours in seen.items()}
    assert len(set(shirts.values())) == len(shirts) >= 6
    right = [colour == shirts[number] for number, colours in seen.items() for colour in colours]
    assert np.mean(right) > 0.6  # arms pass in front
    twice = [actor(np.random.default_rng([0, 3, 5])) for _ in range(2)]
    for a, b in zip(*twice, strict=True):
        np.testing.assert_array_equal(a, b)


def tracks(clip):
    """Of one person: means, spreads and speeds of the joints about the hips, in heights, left and right alike."""
    joints = clip["joints"][:, 0]
    about = joints - joints[:, HIPS].mean(axis=1, keepdims=True)
    about = about / np.ptp(joints[..., 0], axis=1).max()
    sides = about[:, 1:].reshape(len(about), 6, 2, 2)
    spread = np.sort(np.concatenate([sides.std(axis=0), np.abs(np.diff(sides, axis=0)).mean(axis=0)], axis=-1), axis=1)
    level = np.sort(sides[..., 0].mean(axis=0), axis=1)
    feet = joints[:, ANKLES, 0].max(axis=1).std() / np.ptp(joints[..., 0], axis=1).max()
    return np.concatenate([spread.ravel(), level.ravel(), [about[:, HEAD, 0].std(), feet]])


def test_actions_are_told_from_each_other_by_the_tracks_of_joints():
    """By the nearest of 180 clips of other actors: chance is 1 in 9."""
    config = StickActionsConfig(frames=30, size=32)
    known, asked = clips(config, 180), clips(config, 60, "test", seed=1)
    library, labels = np.stack([tracks(clip) for clip in known]), np.array([clip["label"] for clip in known])
    assert set(labels) == set(range(len(ACTIONS)))
    deviation = library.std(axis=0) + 1e-6
    right = []
    for clip in asked:
        nearest = np.square((library - tracks(clip)) / deviation).sum(axis=1).argmin()
        right.append(labels[nearest] == clip["label"])
    assert np.mean(right) > 0.9


def test_flow_of_records_brings_the_next_frame_onto_this():
    config = StickActionsConfig(frames=6, size=48, flow=True)
    errors = []
    for clip in clips(config, 6):
        video = clip["video"] / 255
        for t in range(5):
            places = np.moveaxis(np.stack(np.mgrid[:48, :48], axis=-1) + clip["flow"][t].astype(float), -1, 0)
            inside = ((places >= 0) & (places <= 47)).all(axis=0)
            warped = np.stack([map_coordinates(video[t + 1, ..., c], places, order=1) for c in range(3)], axis=-1)
            errors.append([np.median(np.abs(x - video[t])[inside].sum(axis=-1)) for x in (warped, video[t + 1])])
    warped, still = np.mean(errors, axis=0)
    assert warped < 0.3 * still


def test_background_moves_as_the_flow_says():
    rng = np.random.default_rng(0)
    scene = scenery(rng, size=32, ground=26.0, texture=0.05)
    still, moved = paint(scene, 32, np.array([0.0, 5.0]))
    np.testing.assert_allclose(moved[:, 5:], still[:, :-5], atol=1e-12)
    assert np.ptp(still[:20], axis=1).max() > 0.02
    plain = paint(scenery(rng, size=32, ground=26.0, texture=0.0), 32, np.array([0.0, 5.0]))
    np.testing.assert_array_equal(*plain)


def test_one_person_stays_in_the_frame_whatever_it_does():
    for size, frames in ((64, 32), (32, 74)):
        for clip in clips(StickActionsConfig(size=size, frames=frames), 40, seed=2):
            assert clip["present"].all()
            hips = clip["joints"][:, 0, HIPS].mean(axis=1)
            assert (hips > 0.1 * size).all()
            assert (hips < 0.9 * size).all()
            assert clip["visible"].mean() > 0.9


def test_tubes_end_where_someone_leaves():
    config = StickActionsConfig(frames=48, size=32, persons=2)
    found = clips(config, 40)
    present = np.stack([clip["present"] for clip in found])
    assert 0.7 < present.mean() < 1
    for clip in found:
        boxes, there = clip["boxes"], clip["present"]
        assert (boxes[~there] == -1).all()
        assert not clip["visible"][~there].any()
        top, left, bottom, right = boxes[there].T
        assert (top < bottom).all()
        assert (left < right).all()
        assert boxes[there].min() >= 0
        assert boxes[there].max() <= 32
        row, column = np.moveaxis(clip["joints"], -1, 0)[:, clip["visible"]]
        assert min(row.min(), column.min()) >= -0.5
        assert max(row.max(), column.max()) <= 31.5


def test_who_comes_later_is_nearer_and_hides():
    config = StickActionsConfig(frames=24, size=32, persons=2)
    hidden = np.zeros(2)
    for clip in clips(config, 30):
        inside = ((clip["joints"] > 0) & (clip["joints"] < 31)).all(axis=-1)
        hidden += (inside & ~clip["visible"]).sum(axis=(0, 2))
    assert hidden[0] > 20
    assert hidden[1] == 0


def test_labels_change_once_where_they_do():
    plain, changing = (clips(StickActionsConfig(**SMALL, change=share), 12) for share in (0.0, 1.0))
    for share, found in ((0, plain), (1, changing)):
        for clip in found:
            action = clip["action"][:, 0]
            changes = np.flatnonzero(np.diff(action)) + 1
            assert len(changes) == share
            assert all(2 < place < 6 for place in changes)
            assert clip["label"] == np.bincount(action).argmax()


def test_one_action_goes_over_into_another():
    """Before the blend it is the first, after it the second, and halfway in the middle of it."""

    def performed(starts):
        return perform(np.random.default_rng(7), np.array([0, 6]), np.array([-10, starts]), frames=30)

    changing, first, second = performed(15), performed(60), performed(-10)
    for a, b, c in zip(changing, first, second, strict=True):
        np.testing.assert_allclose(a[: 15 - BLEND // 2], b[: 15 - BLEND // 2], atol=1e-12)
        np.testing.assert_allclose(a[15 + BLEND // 2 + 1 :], c[15 + BLEND // 2 + 1 :], atol=1e-12)
        np.testing.assert_allclose(a[15], (b[15] + c[15]) / 2, atol=1e-12)


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_repeat_after_a_period_and_move(name):
    phase = np.arange(48) * (2 * np.pi / 24)
    found = ACTIONS[name].motion(phase)
    for values in found:
        np.testing.assert_allclose(values[:24], values[24:], atol=1e-9)
    assert max(np.ptp(found.angles, axis=0).max(), np.ptp(found.pitch)) > np.deg2rad(25)
    assert (found.speed > 0).all() == (name in ("walk", "run"))
    assert found.lift.min() >= -1e-9
    bend = found.angles[:, 2, :, 0] - found.angles[:, 3, :, 0]
    assert bend.min() > -0.12  # knees do not bend the other way


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"frames": 1}, "frames=1 .* 2 or more"),
        ({"size": 8}, "size=8 .* 16 or more"),
        ({"persons": 4}, "persons=4 .* 3 at the most"),
        ({"change": 1.5}, "change=1.5 .* 1 at the most"),
        ({"change": -0.1}, "change=-0.1 .* 0 or more"),
        ({"texture": -1.0}, "texture=-1.0 .* 0 or more"),
        ({"actors": 3}, "actors=3 .* 10 or more"),
        ({"test": 0}, "test=0 .* 1 or more"),
        ({"name": "mine"}, "name='mine'"),
    ],
)
def test_bad_settings_are_named(fields, named):
    with pytest.raises(InputError, match=named):
        StickActionsConfig(**fields)


def test_every_setting_has_a_directory_of_its_own():
    base = StickActionsConfig(**SMALL)
    others = [
        dataclasses.replace(base, name="", **{field: value})
        for field, value in {
            **{"frames": 9, "size": 32, "persons": 2, "change": 0.5, "texture": 0.1, "flow": True, "actors": 20},
            **{"train": 7, "validation": 3, "test": 4, "seed": 1},
        }.items()
    ]
    assert len({config.name for config in (base, *others, *stick_actions.StickActions.BUILDER_CONFIGS)}) == 18
