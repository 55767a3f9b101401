"""A tiny set in the published layout, made here."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from seqjax.data.karpathy_captions import FOLDERS, KarpathyCaptions, KarpathyCaptionsConfig
from seqjax.data.source import open_source
from seqjax.data.text import texts
from seqjax.errors import InputError

ENTRIES = [("a.jpg", "train", "", 5), ("b.png", "test", "", 5), ("c.jpg", "train", "", 2), ("d.png", "val", "sub", 6)]


def picture(number, mode="RGB"):
    values = np.random.default_rng(number).integers(256, size=(6 + number, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.fixture
def archive(tmp_path):
    """Makes a set where its files are expected."""

    def make(folder="flickr8k", entries=ENTRIES, mode="RGB"):
        root = tmp_path / "downloads" / "manual"
        images = []
        for i, (name, split, path, captions) in enumerate(entries):
            (root / folder / path).mkdir(parents=True, exist_ok=True)
            picture(i, mode).save(root / folder / path / name)
            raw = [f"Caption {k} of é {name}." for k in range(captions)]
            sentences = [{"raw": text, "tokens": ["other"], "sentid": 9} for text in raw]
            images.append({"filename": name, "split": split, "sentences": sentences, "imgid": i + 50})
            images[-1] |= {"filepath": path, "cocoid": 3} if path else {}
        (root / f"dataset_{folder}.json").write_text(json.dumps({"images": images, "dataset": folder}))
        return tmp_path

    return make


def message(**options):
    with pytest.raises(InputError) as caught:
        open_source("karpathy_captions", split="train", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_that_are_not_asked_for_are_not_decoded(archive, monkeypatch):
    options = {"config": "flickr8k", "split": "train", "data_dir": archive()}
    whole = open_source("karpathy_captions", **options)
    written = open_source("karpathy_captions", only=("captions", "index"), **options)
    monkeypatch.setattr(tfds.features.Image, "decode_example_np", None)
    assert written[1].keys() == {"captions", "index"}
    assert texts(written[1]["captions"]) == ["Caption 0 of é c.jpg.", "Caption 1 of é c.jpg."]
    with pytest.raises(InputError, match="cannot be read"):
        whole[1]


@pytest.mark.parametrize("folder", FOLDERS)
def test_images_captions_and_splits_are_those_of_the_file(folder, archive):
    data_dir = archive(folder)
    for split in ("train", "val", "test"):
        source = open_source("karpathy_captions", config=folder, split=split, data_dir=data_dir)
        expected = [(i, *entry) for i, entry in enumerate(ENTRIES) if entry[1] == split]
        assert len(source) == len(expected)
        for k, (i, name, _, path, captions) in enumerate(expected):
            record = source[k]
            assert record.keys() == {"image", "captions", "index"}
            assert record["index"] == i
            assert texts(record["captions"]) == [f"Caption {n} of é {name}." for n in range(captions)]
            stored = Image.open(data_dir / "downloads" / "manual" / folder / path / name)
            # Decoders of JPEG may differ by a few levels.
            assert np.abs(record["image"].astype(int) - np.asarray(stored)).max() <= (4 if name.endswith("jpg") else 0)


def test_splits_may_be_joined(archive):
    source = open_source("karpathy_captions", split="train+val", data_dir=archive())
    assert [int(source[i]["index"]) for i in range(3)] == [0, 2, 3]


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_pictures_in_other_colours_are_read_as_rgb(mode, archive):
    entries = [("a.jpg", "train", "", 1)]
    data_dir = archive("mine", entries, mode)
    config = KarpathyCaptionsConfig(folder="mine")
    source = open_source("karpathy_captions", config=config, split="train", data_dir=data_dir)
    stored = Image.open(data_dir / "downloads" / "manual" / "mine" / "a.jpg").convert("RGB")
    assert source[0]["image"].shape == (6, 5, 3)
    assert np.abs(source[0]["image"].astype(int) - np.asarray(stored)).max() <= 4


def test_files_that_are_not_there(tmp_path, archive):
    text = message(data_dir=tmp_path)
    assert str(tmp_path / "downloads" / "manual") in text
    assert "caption_datasets.zip" in text
    text = message(config="coco", data_dir=archive())
    assert "dataset_coco.json cannot be read" in text
    assert "coco/train2014" in text


def test_picture_that_is_missing_or_damaged(archive):
    data_dir = archive()
    (file,) = data_dir.rglob("c.jpg")
    for content in (file.read_bytes()[:-60], b"no picture"):
        file.write_bytes(content)
        assert f"{file} cannot be read" in message(data_dir=data_dir)
    file.unlink()
    assert f"{file} cannot be read" in message(data_dir=data_dir)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"images": [{"filename": "a"}]}',
        '{"images": [{"filename": "a", "split": "train", "sentences": [{"raw": ""}]}]}',
    ],
)
def test_file_of_another_layout(content, archive):
    data_dir = archive()
    (file,) = data_dir.rglob("dataset_flickr8k.json")
    file.write_text(content)
    text = message(data_dir=data_dir)
    assert f"{file} cannot be read as images with captions" in text
    assert "Unpack http" in text


def test_configurations():
    assert list(KarpathyCaptions.builder_configs) == list(FOLDERS)
    for fields in ({"folder": "a/b"}, {"name": "mine"}):
        (field,) = fields
        with pytest.raises(InputError, match=f"^{field}="):
            KarpathyCaptionsConfig(**fields)
