"""Folders of arrays, made here."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seqjax.data.folder_of_features import FolderOfFeatures, FolderOfFeaturesConfig, folder_in
from seqjax.data.source import in_memory, open_source
from seqjax.errors import InputError


def array(frames, seed=0, features=3):
    return np.random.default_rng(seed).normal(size=(frames, features)).astype(np.float32)


def opened(tmp_path, split="train", config="percepts_3_4frames"):
    return open_source("folder_of_features", split=split, config=config, data_dir=tmp_path)


def message(tmp_path, **fields):
    with pytest.raises(InputError) as caught:
        opened(tmp_path, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def root(tmp_path):
    """Two files in train, one of them deeper, one of half precision in test."""
    root = folder_in(tmp_path, "percepts")
    for folder in ("train/deep", "test"):
        (root / folder).mkdir(parents=True)
    np.save(root / "train" / "10.npy", array(9))
    np.savez(root / "train" / "deep" / "9.npz", array(4, seed=1))
    np.save(root / "test" / "a.npy", array(4, seed=2).astype(np.float16))
    (root / "train" / "notes.txt").write_text("no array")
    return root


def test_files_are_cut_into_sequences(root, tmp_path):
    train, test = opened(tmp_path), opened(tmp_path, "test")
    assert root == tmp_path / "downloads" / "manual" / "percepts"
    assert [int(train[i]["index"]) for i in range(len(train))] == [0, 0, 1]
    for i, expected in enumerate((array(9)[:4], array(9)[4:8], array(4, seed=1))):
        np.testing.assert_array_equal(train[i]["percepts"], expected)
    assert in_memory(test)[0]["percepts"].dtype == np.float32
    np.testing.assert_allclose(test[0]["percepts"], array(4, seed=2), rtol=1e-3, atol=1e-4)
    files = {"train": ["train/10.npy", "train/deep/9.npz"], "test": ["test/a.npy"]}
    assert FolderOfFeatures(config="percepts_3_4frames", data_dir=tmp_path).info.metadata["files"] == files


def test_numbers_in_names_count_by_value(root, tmp_path):
    for number in (2, 11):
        np.save(root / "test" / f"{number}.npy", np.full((4, 3), number))
    test = opened(tmp_path, "test")
    assert [test[i]["percepts"][0, 0] for i in range(2)] == [2, 11]


def test_damaged_and_short_ones_are_counted_and_named(root, tmp_path, caplog):
    train = root / "train"
    (train / "text.npy").write_text("no array")
    (train / "empty.npy").write_bytes(b"")
    (train / "half.npy").write_bytes((train / "10.npy").read_bytes()[:150])
    (train / "broken.npz").write_bytes((train / "deep" / "9.npz").read_bytes()[:90])
    np.savez(train / "two.npz", array(4), array(4))
    np.save(train / "wide.npy", array(4, features=5))
    np.save(train / "flat.npy", array(4)[0])
    np.save(train / "words.npy", np.array([["a"] * 3] * 4))
    np.save(train / "infinite.npy", np.full((4, 3), 1e300))
    np.save(train / "objects.npy", np.array([[None] * 3] * 4))
    np.save(train / "brief.npy", array(2))
    for number in range(8):
        np.save(train / f"good_{number}.npy", array(4))
    with caplog.at_level(logging.WARNING, "seqjax.data"):
        assert len(opened(tmp_path)) == 11
    damaged, short = [record.getMessage() for record in caplog.records if record.name.startswith("seqjax")]
    assert "10 of 21 cannot be read" in damaged
    assert "1 of 21 are shorter than frames=4: train/brief.npy (2 frames)" in short
    metadata = FolderOfFeatures(config="percepts_3_4frames", data_dir=tmp_path).info.metadata
    reasons = {Path(reason.split()[0]).name: reason for reason in metadata["damaged"]["train"]}
    bad = {"text.npy", "empty.npy", "half.npy", "broken.npz", "two.npz", "wide.npy", "flat.npy", "words.npy"}
    assert reasons.keys() == bad | {"infinite.npy", "objects.npy"}
    assert "float32[4, 5]; expected real numbers [T, 3]" in reasons["wide.npy"]
    assert "not finite" in reasons["infinite.npy"]
    assert metadata["damaged"]["test"] == []
    assert metadata["short"]["train"] == ["train/brief.npy (2 frames)"]


def test_nothing_left_and_nothing_there(root, tmp_path):
    assert "Nothing is left for train. 2 of 2 are shorter than frames=10" in message(
        tmp_path, config="percepts_3_10frames"
    )
    text = message(tmp_path, config="percepts_7_4frames")
    assert "train: more than 50% are damaged. 2 of 2 cannot be read" in text
    other = message(tmp_path, config="mine_3_4frames")
    assert str(root.parent / "mine" / "train") in other
    assert "python -m experiments.prediction.percepts" in other


def test_without_a_directory_for_files_it_is_said_where_they_go(tmp_path):
    assert "into the folders train and test" in message(tmp_path)


def test_configurations():
    assert list(FolderOfFeatures.builder_configs) == ["percepts_64_20frames", "percepts_4096_29frames"]
    assert FolderOfFeaturesConfig(folder="a_b", features=5, frames=2).name == "a_b_5_2frames"
    for wrong in ({"folder": "a/b"}, {"features": 0}, {"frames": 0}, {"name": "mine"}):
        (field,) = wrong
        with pytest.raises(InputError, match=f"^{field}="):
            FolderOfFeaturesConfig(**wrong)


def test_a_name_that_spells_nothing_is_refused(tmp_path):
    assert "config='percepts' is not a configuration" in message(tmp_path, config="percepts")


def test_prepared_and_read_without_tensorflow_or_jax(root, tmp_path):
    script = f"""
import sys
from seqjax.data.source import open_source
open_source("folder_of_features", split="test", config="percepts_3_4frames", data_dir={str(tmp_path)!r})[0]
assert not {{"jax", "tensorflow", "torch"}} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
