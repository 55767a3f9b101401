"""What can be wrong with the clips of the ConvLSTM recipe."""

import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data.published import MovingMnist
from PIL import Image

from experiments.prediction import convlstm as recipe
from seqjax.data.source import open_source
from seqjax.train.report import read_report


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    open_source("moving_digits", split="train", config="tiny_16", data_dir=path)
    return path


def fails(capsys, *options):
    with pytest.raises(SystemExit) as stopped:
        recipe.main(recipe.run, recipe.PRESETS, doc=recipe.__doc__, args=["tiny", *map(str, options)])
    assert stopped.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture
def damaged(prepared, tmp_path):
    damaged = tmp_path / "data"
    shutil.copytree(prepared, damaged)
    (shard,) = damaged.rglob("*train*array_record*")
    clip = tfds.builder("moving_digits", config="tiny_16", data_dir=damaged).as_data_source(
        "train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )[7]
    content = bytearray(shard.read_bytes())
    content[content.index(clip) + len(clip) // 2] ^= 0x10
    shard.write_bytes(content)
    return damaged


def test_a_record_that_is_damaged_on_disk(capsys, damaged, tmp_path):
    message = fails(capsys, "--workdir", tmp_path / "run", "--data.data-dir", damaged)
    for part in ("Record 7", "moving_digits/tiny_16", str(damaged), "damaged", "run again to prepare"):
        assert part in message


def test_damaged_records_within_bounds_are_skipped_and_listed(damaged, tmp_path):
    options = ["tiny", "--workdir", tmp_path, "--data.data-dir", damaged, "--data.damaged", 0.2, "--loop.steps", 2]
    with pytest.raises(SystemExit) as ended:
        recipe.main(recipe.run, recipe.PRESETS, doc=recipe.__doc__, args=[*map(str, options)])
    assert ended.value.code == 0
    (reason,) = read_report(tmp_path)["damaged"]
    assert "Record 7" in reason


def test_a_clip_that_the_network_cannot_take(capsys, prepared, tmp_path):
    message = fails(capsys, "--workdir", tmp_path, "--data.data-dir", prepared, "--model.patch", 5)
    assert "16x16" in message
    assert "model.patch" in message


def test_tested_on_a_set_of_its_own(tmp_path, monkeypatch):
    """Clips of one's own for training, the published Moving MNIST for testing, of which clip i has grey level i."""
    find, folder = tfds.builder, tmp_path / "downloads" / "manual" / "clips"
    monkeypatch.setattr(
        tfds,
        "builder",
        lambda name, **kw: MovingMnist(data_dir=tmp_path) if name == "moving_mnist" else find(name, **kw),
    )
    for split in ("train", "test"):
        (folder / split / "shots").mkdir(parents=True)
        for t in range(20):
            Image.fromarray(np.full((8, 8), 10 * t, np.uint8)).save(folder / split / "shots" / f"{t}.png")
    options = ["--data.name", "folder_of_clips", "--data.config", "clips_grey_64_20frames", "--data.data-dir", tmp_path]
    options += ["--data.test-name", "moving_mnist", "--loop.steps", 2, "--workdir", tmp_path / "run"]
    with pytest.raises(SystemExit) as ended:
        recipe.main(recipe.run, recipe.PRESETS, doc=recipe.__doc__, args=["tiny", *map(str, options)])
    assert ended.value.code == 0
    found = read_report(tmp_path / "run")["baselines"]
    assert found["copy of the last frame"]["mse"] == 0
    levels = np.arange(3) / 255
    assert found["empty background"]["mse"] == pytest.approx(np.mean(levels**2) * 64 * 64, rel=1e-4)
    # Of the training set alone: levels 0, 10, ..., 190.
    assert found["mean frame of the training set"]["mse"] == pytest.approx(
        np.mean((levels - 95 / 255) ** 2) * 64 * 64, rel=1e-4
    )


def test_a_clip_that_is_too_short(capsys, prepared, tmp_path):
    message = fails(capsys, "--workdir", tmp_path, "--data.data-dir", prepared, "--model.future", 50)
    assert "a clip of 8 frames" in message
    assert "model.future" in message


def test_batch_that_the_devices_cannot_share(capsys, prepared, tmp_path):
    message = fails(capsys, "--workdir", tmp_path, "--data.data-dir", prepared, "--data.batch", 6)
    assert "batch of 6 cannot be divided by 4 devices" in message
