"""A folder in the published layout, made here: films in which every joint is a mark."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from seqjax.data import penn_action
from seqjax.data.penn_action import ACTIONS, EIGHT, PennActionConfig, window
from seqjax.data.source import open_source
from seqjax.errors import InputError

CLIPS = {1: ("tennis_serve", 1, 4), 2: ("bench_press", 1, 3), 3: ("squat", -1, 5), 12: ("golf_swing", -1, 3)}


def film(number, frames, height=90, width=120):
    """A person of four bright marks, joints 0, 3, 8 and 12, that goes right by 3; the other joints are hidden."""
    x, y, visibility = np.ones((3, frames, 13))
    images = np.zeros((frames, height, width, 3), np.uint8)
    for t in range(frames):
        for k, (row, column) in {0: (20, 40), 3: (35, 30), 8: (50, 42), 12: (70, 46)}.items():
            y[t, k], x[t, k] = row, column + 3 * t + number
            images[t, row - 2 : row + 3, int(x[t, k]) - 2 : int(x[t, k]) + 3] = 255
    visibility[:, [k for k in range(13) if k not in (0, 3, 8, 12)]] = 0
    boxes = np.array([[25 + 3 * t + number, 15, 51 + 3 * t + number, 75] for t in range(frames)])
    return images, {"x": x, "y": y, "visibility": visibility, "bbox": boxes.astype(float)}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "downloads" / "manual" / "Penn_Action"
    (root / "labels").mkdir(parents=True)
    for number, (action, train, frames) in CLIPS.items():
        images, labels = film(number, frames)
        (root / "frames" / f"{number:04}").mkdir(parents=True)
        for t, image in enumerate(images):
            Image.fromarray(image).save(root / "frames" / f"{number:04}" / f"{t + 1:06}.jpg", quality=95)
        savemat(root / "labels" / f"{number:04}.mat", labels | {"action": action, "train": train})
    return tmp_path


def records(folder, split, config="128"):
    source = open_source("penn_action", split=split, config=config, data_dir=folder)
    return [source[i] for i in range(len(source))]


def test_splits_labels_and_actions_are_those_of_the_files(folder):
    found = {split: records(folder, split) for split in ("train", "test")}
    assert {split: [int(r["index"]) for r in rs] for split, rs in found.items()} == {"train": [1, 2], "test": [3, 12]}
    assert [ACTIONS[r["label"]] for r in found["train"] + found["test"]] == [action for action, *_ in CLIPS.values()]
    assert [len(r["video"]) for r in found["train"]] == [4, 3]
    eight = records(folder, "train", PennActionConfig(size=32, eight=True)) + records(
        folder, "test", PennActionConfig(size=32, eight=True)
    )
    assert [int(r["index"]) for r in eight] == [1, 12]
    assert set(EIGHT) < set(ACTIONS)


@pytest.mark.parametrize(("config", "size"), [("128", 128), (PennActionConfig(size=32), 32)])
def test_joints_and_boxes_are_where_the_image_shows_them(folder, config, size):
    for record in records(folder, "train", config):
        assert record["video"].shape[1:] == (size, size, 3)
        assert record["joints"].shape == (len(record["video"]), 1, 13, 2)
        visible = record["visible"][:, 0]
        np.testing.assert_array_equal(np.flatnonzero(visible[0]), [0, 3, 8, 12])
        bright = record["video"].mean(axis=-1)
        for t, joint in zip(*np.nonzero(visible), strict=True):
            row, column = np.rint(record["joints"][t, 0, joint]).astype(int)
            assert bright[t, row, column] > 180
        # Nothing is bright outside of the box, which begins five pixels of the film before the marks.
        scale = size / record["extent"][0]
        for image, (top, left, bottom, right) in zip(bright, record["boxes"][:, 0], strict=True):
            rows, columns = (np.flatnonzero((image > 128).any(axis=axis)) for axis in (1, 0))
            np.testing.assert_allclose([top, bottom], [rows[0] - 3 * scale, rows[-1] + 1 + 2 * scale], atol=1.5)
            assert left < columns[0]
            assert right > columns[-1]


def test_joints_by_hand(folder):
    """Clip 1 is cut out from row 10 and column 9 on, 70 x 70: the film's pixel (20, 41) has its middle at (10.5, 32.5)
    of 70, so 35 pixels show it at half of that, less a half."""
    record = records(folder, "train", PennActionConfig(size=35))[0]
    np.testing.assert_array_equal(record["extent"], [70, 70])
    np.testing.assert_allclose(record["joints"][0, 0, 0], [10.5 / 2 - 0.5, 32.5 / 2 - 0.5], atol=1e-5)


def test_what_is_cut_out_is_square_where_the_film_allows():
    boxes = np.array([[50.0, 20, 70, 60], [54, 24, 76, 61]])
    assert window(boxes, (120, 90)) == (38, 15, 89, 66)  # 36 x 51: 15 more in width, 7 of them on the left
    assert window(boxes, (80, 62)) == (38, 15, 80, 62)
    assert window(boxes - [45, 0, 45, 0], (120, 90))[0] == 0


def test_a_box_less_than_frames_and_an_image_too_many(folder):
    root = folder / "downloads" / "manual" / "Penn_Action"
    images, labels = film(1, 4)
    savemat(
        root / "labels" / "0001.mat",
        labels | {"bbox": labels["bbox"][:-1], "action": CLIPS[1][0], "train": CLIPS[1][1]},
    )
    Image.fromarray(images[0]).save(root / "frames" / "0001" / "000005.jpg")
    record = records(folder, "train")[0]
    assert len(record["video"]) == len(record["boxes"]) == 4
    np.testing.assert_array_equal(record["boxes"][3], record["boxes"][2])


def test_read_without_tensorflow_or_jax(folder):
    script = f"""
import sys
from seqjax.data.source import open_source
source = open_source("penn_action", split="test", config="64_eight", data_dir={str(folder)!r})
assert source[0]["video"].shape == (3, 64, 64, 3)
assert not {{"jax", "tensorflow", "torch"}} & set(sys.modules)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "damage", ["no labels", "no joints", "unknown action", "no images", "damaged image", "garbage", "MATLAB 7.3"]
)
def test_files_that_cannot_be_used_are_named(folder, damage):
    root = folder / "downloads" / "manual" / "Penn_Action"
    file, frames = root / "labels" / "0001.mat", root / "frames" / "0001"
    labels = film(1, 4)[1] | {"action": "tennis_serve", "train": 1}
    if damage == "no labels":
        for path in file.parent.iterdir():
            path.unlink()
    elif damage == "no joints":
        savemat(file, {key: value for key, value in labels.items() if key != "x"})
    elif damage == "unknown action":
        savemat(file, labels | {"action": "sleep"})
    elif damage == "no images":
        for path in frames.iterdir():
            path.unlink()
    elif damage == "damaged image":
        (frames / "000001.jpg").write_bytes(b"no image")
    elif damage == "MATLAB 7.3":
        file.write_bytes(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM\x89HDF" + bytes(600))
    else:
        file.write_bytes(b"no labels")
    with pytest.raises(InputError, match=r"Penn_Action\.tar\.gz"):
        open_source("penn_action", split="train", config="128", data_dir=folder)


def test_damaged_clips_are_left_out_and_listed(folder):
    """Labels, which say what a clip is for, and images."""
    root = folder / "downloads" / "manual" / "Penn_Action"
    for number in range(20, 37):
        images, labels = film(number, 1)
        (root / "frames" / f"{number:04}").mkdir()
        Image.fromarray(images[0]).save(root / "frames" / f"{number:04}" / "000001.jpg")
        savemat(root / "labels" / f"{number:04}.mat", labels | {"action": "bowl", "train": 1})
    (root / "labels" / "0020.mat").write_bytes(b"no labels")
    (root / "frames" / "0021" / "000001.jpg").write_bytes(b"no image")
    assert [int(r["index"]) for r in records(folder, "train")] == [1, 2, *range(22, 37)]
    damaged = penn_action.PennAction(config="128", data_dir=folder).info.metadata["damaged"]
    assert "0020.mat cannot be read" in damaged.pop("labels")[0]
    assert "0021 has images that cannot be read" in damaged.pop("train")[0]
    assert damaged == {"test": []}


def test_settings_that_cannot_be():
    with pytest.raises(InputError, match="size=8"):
        PennActionConfig(size=8)
    with pytest.raises(InputError, match="name='mine'"):
        PennActionConfig(name="mine")
    assert [config.name for config in penn_action.PennAction.BUILDER_CONFIGS] == ["128", "128_eight", "64_eight"]
