"""Folders of videos and of pictures, made here."""

import hashlib
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data.videos import flat, noise, write
from PIL import Image

from seqjax.data.folder_of_clips import FolderOfClips, FolderOfClipsConfig, share_out
from seqjax.data.source import in_memory, open_source
from seqjax.errors import InputError

SMALL = {"size": 8, "channels": 1, "frames": 3}


def config(**fields):
    return FolderOfClipsConfig(**(SMALL | fields))


def root(tmp_path, name="clips"):
    return tmp_path / "downloads" / "manual" / name


def message(tmp_path, **fields):
    with pytest.raises(InputError) as caught:
        open_source("folder_of_clips", split="train", config=config(**fields), data_dir=tmp_path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def levels(source):
    """Of each record, the video it is of and its frames' levels."""
    records = [source[i] for i in range(len(source))]
    return [(int(r["index"]), r["video"][:, 0, 0, 0].tolist()) for r in records]


@pytest.fixture
def folders(tmp_path):
    """Splits by folder: videos in train, a video and a folder of pictures in test."""
    write(root(tmp_path) / "train" / "b10.avi", flat(range(20, 28)))
    write(root(tmp_path) / "train" / "b9.mkv", flat(range(3)))
    write(root(tmp_path) / "test" / "deep" / "a.avi", flat(range(50, 54)))
    (root(tmp_path) / "test" / "shots").mkdir()
    for level in (9, 10, 11):
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(root(tmp_path) / "test" / "shots" / f"{level}.png")
    (root(tmp_path) / "notes.txt").write_text("no video")
    return tmp_path


def test_splits_by_folder(folders):
    train, test = (
        open_source("folder_of_clips", split=split, config=config(), data_dir=folders) for split in ("train", "test")
    )
    assert levels(train) == [(0, [0, 1, 2]), (1, [20, 21, 22]), (1, [23, 24, 25])]
    assert levels(test) == [(0, [50, 51, 52]), (1, [9, 10, 11])]
    assert train[0]["video"].shape == (3, 8, 8, 1)
    assert in_memory(train)[2]["video"].dtype == np.uint8


def test_paths_of_the_videos_are_kept(folders):
    open_source("folder_of_clips", split="train", config=config(), data_dir=folders)
    builder = FolderOfClips(config=config(), data_dir=folders)
    files = {"train": ["train/b9.mkv", "train/b10.avi"], "test": ["test/deep/a.avi", "test/shots"]}
    assert builder.info.metadata["files"] == files


def test_folders_called_val_are_validation(tmp_path):
    for split in ("train", "val"):
        write(root(tmp_path) / split / "a.avi", flat(range(3)))
    assert len(open_source("folder_of_clips", split="validation", config=config(), data_dir=tmp_path)) == 1


def test_splits_by_a_hash_of_the_path(tmp_path):
    """Recomputed here; adding videos moves none of the others."""
    names = [f"{i % 3}/{i}.avi" for i in range(12)]
    for i, name in enumerate(names):
        write(root(tmp_path) / name, flat([i] * 3))
    shares = {"validation": 0.2, "test": 0.3}
    place = {n: int(hashlib.sha256(n.encode()).hexdigest()[:16], 16) / 16**16 for n in names}
    where = {n: "validation" if p < 0.2 else "test" if p < 0.5 else "train" for n, p in place.items()}
    assert set(where.values()) == {"train", "validation", "test"}
    for split in ("train", "validation", "test"):
        source = open_source("folder_of_clips", split=split, config=config(**shares), data_dir=tmp_path)
        found = sorted(clip[0] for _, clip in levels(source))
        assert found == sorted(i for i, n in enumerate(names) if where[n] == split)
    files = [root(tmp_path) / n for n in names]
    before = share_out(root(tmp_path), files, shares)
    after = share_out(root(tmp_path), [*files, root(tmp_path) / "new.avi"], shares)
    assert all(set(chosen) <= set(after[split]) for split, chosen in before.items())


def test_damaged_and_short_ones_are_counted_and_named(folders, caplog):
    (root(folders) / "train" / "broken.mp4").write_bytes(b"no video")
    (root(folders) / "train" / "empty.avi").write_bytes(b"")
    write(root(folders) / "train" / "brief.avi", flat(range(2)))
    with caplog.at_level(logging.WARNING, "seqjax.data"):
        source = open_source("folder_of_clips", split="train", config=config(), data_dir=folders)
    assert len(source) == 3
    damaged, short = [record.getMessage() for record in caplog.records if record.name.startswith("seqjax")]
    assert "2 of 5 cannot be read" in damaged
    assert "broken.mp4" in damaged
    assert "empty.avi" in damaged
    assert "1 of 5 are shorter than frames=3: train/brief.avi (2 frames)" in short
    metadata = FolderOfClips(config=config(), data_dir=folders).info.metadata
    assert len(metadata["damaged"]["train"]) == 2
    assert metadata["damaged"]["test"] == []
    assert metadata["short"]["train"] == ["train/brief.avi (2 frames)"]


def test_a_split_of_damaged_ones_alone_is_an_error(folders):
    for file in (root(folders) / "train").iterdir():
        file.write_bytes(b"no video")
    text = message(folders)
    assert "train: more than 50% are damaged. 2 of 2 cannot be read" in text
    assert "b9.mkv" in text
    assert "b10.avi" in text


def test_a_split_of_short_ones_alone_is_an_error(folders):
    text = message(folders, frames=9)
    assert "Nothing is left for test. 2 of 2 are shorter than frames=9" in text


def test_colour_and_size(tmp_path):
    frames = noise(4, 16, 16)
    for split in ("train", "test"):
        write(root(tmp_path, "mine") / split / "a.avi", frames)
    chosen = FolderOfClipsConfig(folder="mine", size=16, frames=4)
    source = open_source("folder_of_clips", split="test", config=chosen, data_dir=tmp_path)
    np.testing.assert_array_equal(source[0]["video"], frames)


def test_no_folder_and_an_empty_one(tmp_path):
    text = message(tmp_path)
    assert str(root(tmp_path).parent) in text
    assert "into the folder named" in text
    root(tmp_path).mkdir(parents=True)
    text = message(tmp_path)
    assert "has no videos and no pictures" in text
    assert ".avi" in text


def test_too_few_videos_for_every_split(tmp_path):
    write(root(tmp_path) / "a.avi", flat(range(3)))
    text = message(tmp_path)
    assert "of 1 videos none is for" in text
    assert "folders train and test" in text
    write(root(tmp_path) / "test" / "a.avi", flat(range(3)))
    (root(tmp_path) / "train").mkdir()
    assert "none is for train" in message(tmp_path)


def test_without_pyav_it_is_said_and_pictures_alone_still_do(folders, monkeypatch):
    """Videos beside pictures are not left out as if they were damaged."""
    monkeypatch.setitem(sys.modules, "av", None)
    (root(folders) / "test" / "shots").rename(root(folders) / "train" / "shots")
    text = message(folders)
    assert 'pip install "seqjax[video]"' in text
    assert "damaged" not in text
    for file in [*root(folders).rglob("*.avi"), *root(folders).rglob("*.mkv")]:
        file.unlink()
    assert len(open_source("folder_of_clips", split="train", config=config(), data_dir=folders)) == 1


def test_configurations():
    assert list(FolderOfClips.builder_configs) == [
        "clips_rgb_64_20frames", "clips_grey_64_20frames", "clips_rgb_128_20frames", "clips_grey_128_20frames",
    ]  # fmt: skip
    names = [config(**fields).name for fields in ({}, {"test": 0.2}, {"validation": 0.0}, {"folder": "a"}, {"size": 9})]
    assert len(set(names)) == len(names)
    wrong = ({"folder": "a/b"}, {"size": 0}, {"frames": 0}, {"channels": 2}, {"validation": 1.0}, {"name": "mine"})
    for fields in wrong:
        (field,) = fields
        with pytest.raises(InputError, match=f"^{field}="):
            config(**fields)


def test_prepared_and_read_without_tensorflow_or_jax(folders):
    script = f"""
import sys
from seqjax.data.folder_of_clips import FolderOfClipsConfig
from seqjax.data.source import open_source
open_source("folder_of_clips", split="test", config=FolderOfClipsConfig(**{SMALL}), data_dir={str(folders)!r})[0]
assert not {{"jax", "tensorflow", "torch"}} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
