"""Tiny archives in the published layout, made here."""

import numpy as np
import pytest
from PIL import Image

from seqjax.data.pipeline import train_batches
from seqjax.data.pix2pix import DIRECTIONS, Pix2Pix, Pix2PixConfig
from seqjax.data.source import open_source
from seqjax.errors import InputError

COUNTS = {"train": 12, "val": 2, "test": 3}


def half(side: str, split: str, number: int) -> np.ndarray:
    rng = np.random.default_rng(["AB".index(side), len(split), number])
    return rng.integers(256, size=(8, 6, 3), dtype=np.uint8)


@pytest.fixture
def archive(tmp_path):
    """Makes the archive of a set, unpacked where its files are expected."""

    def make(folder, counts=COUNTS):
        for split, count in counts.items():
            directory = tmp_path / "downloads" / "manual" / folder / split
            directory.mkdir(parents=True)
            (directory / ".DS_Store").write_text("no picture")
            for i in range(count):
                both = np.concatenate([half("A", split, i), half("B", split, i)], axis=1)
                Image.fromarray(both).save(directory / f"{i + 1:02}.png")
        return tmp_path

    return make


def message(*args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        open_source(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("config", "sides"),
    [
        *[("facades", "BA"), ("cityscapes", "BA"), ("maps", "AB"), ("edges2shoes", "AB"), ("edges2handbags", "AB")],
        *[("night2day", "BA"), ("maps_BtoA", "BA"), ("facades_AtoB", "AB")],
    ],
)
def test_halves_are_split_and_named_by_direction(config, sides, archive):
    """The usual ones as published: labels to photographs, aerial photographs to maps, edges to photographs, day to
    night."""
    data_dir = archive(config.split("_")[0])
    for split, count in COUNTS.items():
        source = open_source("pix2pix", config=config, split=split, data_dir=data_dir)
        assert len(source) == count
        for i in range(count):
            record = source[i]
            assert record.keys() == {"input", "target"}
            for key, side in zip(("input", "target"), sides, strict=True):
                np.testing.assert_array_equal(record[key], half(side, split, i))


def test_only_the_splits_that_are_there(archive):
    data_dir = archive("edges2shoes", {"train": 2, "val": 1})
    assert len(open_source("pix2pix", config="edges2shoes", split="val", data_dir=data_dir)) == 1
    assert "['train', 'val']" in message("pix2pix", config="edges2shoes", split="test", data_dir=data_dir)


def test_pairs_of_ones_own_and_jpeg_and_grey(archive):
    data_dir = archive("mine", {"train": 1})
    train = data_dir / "downloads" / "manual" / "mine" / "train"
    grey = np.repeat(np.array([[40, 200]], np.uint8), 8, axis=1).repeat(8, axis=0)
    Image.fromarray(grey).save(train / "99.JPG", quality=95)
    source = open_source("pix2pix", config=Pix2PixConfig(folder="mine"), split="train", data_dir=data_dir)
    np.testing.assert_array_equal(source[0]["input"], half("A", "train", 0))
    for key, value in (("input", 40), ("target", 200)):
        assert source[1][key].shape == (8, 8, 3)
        assert np.abs(source[1][key].astype(int) - value).max() <= 2


def test_batches(archive):
    source = open_source("pix2pix", split="train", data_dir=archive("facades"))
    batch = next(train_batches(source, batch_size=4, seed=0))
    assert {key: value.shape for key, value in batch.items()} == {"input": (4, 8, 6, 3), "target": (4, 8, 6, 3)}


def test_files_that_are_not_there(tmp_path, archive):
    text = message("pix2pix", config="maps", split="train", data_dir=tmp_path)
    assert str(tmp_path / "downloads" / "manual") in text
    assert "Unpack http" in text
    assert "maps" in text
    text = message("pix2pix", config="maps", split="train", data_dir=archive("facades"))
    assert str(tmp_path / "downloads" / "manual" / "maps" / "train") in text
    assert "Unpack http" in text


def test_picture_that_cannot_be_halved(archive):
    data_dir = archive("facades", {"train": 1})
    (file,) = data_dir.rglob("01.png")
    Image.new("RGB", (7, 4)).save(file)
    text = message("pix2pix", split="train", data_dir=data_dir)
    assert str(file) in text
    assert "7 pixels" in text
    Image.fromarray(half("A", "train", 0)).save(file)
    for content in (file.read_bytes()[:-60], b"no picture"):
        file.write_bytes(content)
        assert f"{file} cannot be read" in message("pix2pix", split="train", data_dir=data_dir)


def test_configurations_of_both_directions():
    names = list(Pix2Pix.builder_configs)
    assert names[:6] == list(DIRECTIONS)
    assert len(names) == 12
    for fields in ({"folder": "a/b"}, {"name": "mine"}):
        (field,) = fields
        with pytest.raises(InputError, match=f"^{field}="):
            Pix2PixConfig(**fields)
