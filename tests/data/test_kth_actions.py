"""Videos in the published layout, made here: frame k of a video has the grey level k, so that ranges can be seen."""

import logging
import sys

import numpy as np
import pytest
from data.videos import flat, noise, write
from PIL import Image

from seqjax.data.kth_actions import ACTIONS, PEOPLE, KTHActions, KTHActionsConfig, read_ranges
from seqjax.data.source import open_source
from seqjax.errors import InputError

TEXT = """\
 The following list gives the frames of each sequence.

person01_boxing_d1\t\tframes\t1-10, 11-22, 23-25, 26-40
person02_walking_d3\t\tframes\t1-4,\t5-12
person17_running_d4 \tframes\t3-9, 20-60

person25_handclapping_d2\t\tframes\t1-8
"""
VIDEOS = {"person01_boxing_d1": 40, "person02_walking_d3": 12, "person17_running_d4": 30, "person25_handclapping_d2": 8}


@pytest.fixture
def archive(tmp_path):
    """The videos where they are expected: those of an archive in its folder, others without."""
    root = tmp_path / "downloads" / "manual" / "kth_actions"
    for name, frames in VIDEOS.items():
        folder = root / "boxing" if "boxing" in name else root
        write(folder / f"{name}_uncomp.avi", flat(range(frames)))
    (root / "00sequences.txt").write_text(TEXT)
    write(root / "another.avi", flat(range(9)))
    return tmp_path


def message(**options) -> str:
    with pytest.raises(InputError) as caught:
        open_source("kth_actions", split="train", config=KTHActionsConfig(size=8, frames=4), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_clips_of_the_ranges_by_person(archive):
    """By hand: ranges count from 1 and have both ends; what is left of a sequence is in no clip."""
    config = KTHActionsConfig(size=8, frames=4)
    expected = {
        "train": [
            *[(0, 1, 1, 1, first) for first in (0, 4)],
            *[(0, 1, 1, 2, first) for first in (10, 14, 18)],
            *[(0, 1, 1, 4, first) for first in (25, 29, 33)],
            (5, 2, 3, 1, 0),
            *[(5, 2, 3, 2, first) for first in (4, 8)],
        ],
        # the second sequence ends with the video, at 30
        "test": [(4, 17, 4, 1, 2), (4, 17, 4, 2, 19), (4, 17, 4, 2, 23), *[(1, 25, 2, 1, first) for first in (0, 4)]],
    }
    for split, records in expected.items():
        source = open_source("kth_actions", split=split, config=config, data_dir=archive)
        assert len(source) == len(records)
        for i, (label, person, scenario, sequence, first) in enumerate(records):
            record = source[i]
            marks = {key: int(record[key]) for key in ("label", "person", "scenario", "sequence")}
            assert marks == {"label": label, "person": person, "scenario": scenario, "sequence": sequence}
            np.testing.assert_array_equal(record["video"], flat(range(first, first + 4), 8, 8))


def test_frames_are_grey_and_squeezed(tmp_path):
    root = tmp_path / "downloads" / "manual" / "kth_actions"
    frames = noise(4, 120, 160)
    for person in (3, 20):
        write(root / f"person{person:02}_jogging_d1_uncomp.avi", frames)
    (root / "00sequences.txt").write_text("person03_jogging_d1 frames 1-4\nperson20_jogging_d1 frames 1-4\n")
    config = KTHActionsConfig(size=64, frames=4)
    (record,) = [open_source("kth_actions", split="test", config=config, data_dir=tmp_path)[0]]
    assert record["video"].shape == (4, 64, 64, 1)
    for given, found in zip(frames, record["video"][..., 0], strict=True):
        small = Image.fromarray(given).resize((64, 64), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(small) @ np.array([0.299, 0.587, 0.114]) - found).max() <= 0.51


def test_people_and_actions_are_the_published_ones():
    assert [*PEOPLE["train"], *PEOPLE["test"]] == list(range(1, 26))
    assert len(PEOPLE["train"]) == 16
    assert sorted(ACTIONS) == list(ACTIONS)
    assert len(ACTIONS) == 6


def test_ranges_of_the_text(archive):
    (file,) = archive.rglob("00sequences.txt")
    assert read_ranges(file)["person01_boxing_d1"] == [(1, 10), (11, 22), (23, 25), (26, 40)]
    assert read_ranges(file)["person17_running_d4"] == [(3, 9), (20, 60)]
    assert len(read_ranges(file)) == 4


def test_files_that_are_not_there(tmp_path, archive):
    text = message(data_dir=tmp_path / "empty")
    assert str(tmp_path / "empty" / "downloads" / "manual") in text
    assert "boxing.zip" in text
    (file,) = archive.rglob("00sequences.txt")
    content = file.read_text()
    file.write_text("nothing of use")
    assert "has no line such as" in message(data_dir=archive)
    file.unlink()
    assert "00sequences.txt cannot be read" in message(data_dir=archive)
    file.write_text(content)
    for video in archive.rglob("person[12][75]*.avi"):
        video.unlink()
    assert "no videos of people for test" in message(data_dir=archive)


def test_a_video_that_the_text_does_not_know(archive):
    (file,) = archive.rglob("person01*.avi")
    file.rename(file.with_name("person04_boxing_d1_uncomp.avi"))
    assert "person04_boxing_d1_uncomp.avi is not in 00sequences.txt" in message(data_dir=archive)


def test_damaged_videos_are_left_out_and_listed_unless_they_are_many(archive, caplog):
    """One in ten is left out, two are too many."""
    root = archive / "downloads" / "manual" / "kth_actions"
    names = [f"person{person:02}_jogging_d1" for person in range(3, 11)]
    for name in names:
        write(root / f"{name}_uncomp.avi", flat(range(4)))
    with (root / "00sequences.txt").open("a") as text:
        text.writelines(f"{name} frames 1-4\n" for name in names)
    (first,) = archive.rglob("person01*.avi")
    whole = first.read_bytes()
    for file in (first, root / "person04_jogging_d1_uncomp.avi"):
        file.write_bytes(b"no video")
    text = message(data_dir=archive)
    assert "train: more than 10% are damaged. 2 of 10 cannot be read" in text
    assert f"{first} cannot be read" in text
    assert "person04_jogging_d1_uncomp.avi cannot be read" in text
    assert "boxing.zip" in text
    first.write_bytes(whole)
    config = KTHActionsConfig(size=8, frames=4)
    with caplog.at_level(logging.WARNING, "seqjax.data"):
        source = open_source("kth_actions", split="train", config=config, data_dir=archive)
    assert [int(source[i]["person"]) for i in range(len(source))] == [1] * 8 + [2] * 3 + [3, 5, 6, 7, 8, 9, 10]
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("seqjax")]
    assert "Left out of train, 1 of 10 cannot be read" in said
    damaged = KTHActions(config=config, data_dir=archive).info.metadata["damaged"]
    assert ["person04" in reason for reason in damaged["train"]] == [True]
    assert damaged["test"] == []


def test_without_pyav_no_video_is_held_to_be_damaged(archive, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    text = message(data_dir=archive)
    assert 'pip install "seqjax[video]"' in text
    assert "damaged" not in text


def test_clips_longer_than_every_sequence(archive):
    with pytest.raises(InputError, match="No sequence in 2 videos has frames=41"):
        open_source("kth_actions", split="train", config=KTHActionsConfig(size=8, frames=41), data_dir=archive)


def test_configurations():
    assert list(KTHActions.builder_configs) == ["128x128_30frames", "64x64_30frames"]
    assert KTHActionsConfig(frames=40).name == "128x128_40frames"
    for fields in ({"size": 0}, {"frames": 0}, {"name": "mine"}):
        (field,) = fields
        with pytest.raises(InputError, match=f"^{field}="):
            KTHActionsConfig(**fields)
