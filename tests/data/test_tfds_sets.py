"""Published sets of TFDS, as the library reads them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data.published import MovingMnist, message
from PIL import Image
from tensorflow_datasets.core.registered import skip_registration

from seqjax.data.augment import first_frames
from seqjax.data.clips import Clips, open_split
from seqjax.data.pipeline import train_batches
from seqjax.data.source import in_memory, mapped, open_source
from seqjax.data.text import texts


def test_moving_mnist_gives_videos(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "builder", lambda name, config, data_dir: MovingMnist(data_dir=data_dir))
    source = open_source("moving_mnist", split="test", data_dir=tmp_path)
    assert sorted(int(source[i]["video"].max()) for i in range(3)) == [0, 1, 2]
    assert source[0]["video"].shape == (20, 64, 64, 1)
    assert list(source[0]) == ["video"]
    assert "['test']" in message("moving_mnist", split="train", data_dir=tmp_path)


def encoded(frames):
    """As pictures, which TFDS writes without TensorFlow."""
    return [Image.fromarray(frame) for frame in frames]


with skip_registration():

    class PublishedUcf101(tfds.core.GeneratorBasedBuilder):
        """As TFDS declares it where TensorFlow is there: frames of a sequence of images, as many as a clip has."""

        name = "ucf101"
        VERSION = tfds.core.Version("2.0.0")

        def _info(self):
            frame = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
            features = {"video": tfds.features.Sequence(frame), "label": tfds.features.ClassLabel(num_classes=101)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(3):
                yield i, {"video": encoded(np.full((4 + i, 12, 16, 3), 60 * i, np.uint8)), "label": i}

    class PublishedBair(tfds.core.GeneratorBasedBuilder):
        """As TFDS declares it: a sequence of dictionaries, whose main camera the field predicts."""

        name = "bair_robot_pushing_small"
        VERSION = tfds.core.Version("2.0.0")

        def _info(self):
            camera = tfds.features.Image(shape=(64, 64, 3))
            frame = {"image_main": camera, "image_aux1": camera}
            frame |= {
                name: tfds.features.Tensor(shape=(size,), dtype=np.float32)
                for name, size in (("action", 4), ("endeffector_pos", 3))
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.Sequence(frame, length=30))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(2):
                cameras = (encoded(np.full((30, 64, 64, 3), level + i, np.uint8)) for level in (10, 200))
                rest = {"action": np.zeros((30, 4), np.float32), "endeffector_pos": np.zeros((30, 3), np.float32)}
                yield i, dict(zip(("image_main", "image_aux1"), cameras, strict=True)) | rest


def prepared_elsewhere(builder, monkeypatch):
    """Where there is TensorFlow; its own is found from now on."""
    builder.download_and_prepare(file_format="array_record")
    monkeypatch.setattr(tfds, "builder", lambda name, config, data_dir: builder)


def test_ucf101_gives_clips_as_long_as_they_are(tmp_path, monkeypatch):
    prepared_elsewhere(PublishedUcf101(data_dir=tmp_path), monkeypatch)
    source = open_split(Clips("ucf101", None, data_dir=str(tmp_path)), "train")
    found = sorted((record["video"].shape, int(record["video"].max())) for record in (source[i] for i in range(3)))
    assert found == [((4, 12, 16, 3), 0), ((5, 12, 16, 3), 60), ((6, 12, 16, 3), 120)]
    assert source[0]["video"].dtype == np.uint8
    cut = mapped(source, lambda record: first_frames(record, frames=4))
    assert in_memory(cut)[2]["video"].shape == (4, 12, 16, 3)


def describe_as_video(data_dir, content):
    """The description that TFDS's video feature leaves, whose frames are on disk as those of a sequence of images."""
    (file,) = data_dir.rglob("features.json")
    description = json.loads(file.read_text())
    name = "tensorflow_datasets.core.features.video_feature.Video"
    description["featuresDict"]["features"]["video"] = {"pythonClassName": name, **content}
    file.write_text(json.dumps(description))


@pytest.mark.parametrize(
    "content",
    [
        {"video": {"shape": {"dimensions": ["-1", "-1", "-1", "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"}},
        {"jsonFeature": {"json": '{"shape": [null, null, null, 3], "encoding_format": "jpeg"}'}},
    ],
)
def test_ucf101_prepared_elsewhere_is_read_without_tensorflow(content, tmp_path, monkeypatch):
    """By its description alone, as TFDS's video feature leaves it."""
    PublishedUcf101(data_dir=tmp_path).download_and_prepare(file_format="array_record")
    describe_as_video(tmp_path, content)

    def without_tensorflow(name, config, data_dir):
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(tfds, "builder", without_tensorflow)
    source = open_source("ucf101", split="train", data_dir=tmp_path)
    assert sorted(source[i]["video"].shape for i in range(3)) == [(4 + i, 12, 16, 3) for i in range(3)]
    assert sorted(int(source[i]["video"].max()) for i in range(3)) == [0, 60, 120]
    (prepared,) = tmp_path.rglob("features.json")
    described = tfds.features.FeaturesDict.from_config(prepared.parent)
    assert described["video"].shape == (None, None, None, 3)


def test_bair_gives_its_main_camera(tmp_path, monkeypatch):
    prepared_elsewhere(PublishedBair(data_dir=tmp_path), monkeypatch)
    source = open_split(Clips("bair_robot_pushing_small", None, data_dir=str(tmp_path)), "train")
    assert sorted(int(source[i]["video"].max()) for i in range(2)) == [10, 11]
    assert source[0]["video"].shape == (30, 64, 64, 3)
    assert source[0]["video"].dtype == np.uint8
    assert source[0]["action"].shape == (30, 4)


@pytest.mark.parametrize("name", ["ucf101", "bair_robot_pushing_small"])
def test_published_clips_say_which_extra_prepares_them(name, tmp_path, monkeypatch):
    """Before anything is downloaded."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find_spec(name))
    text = message(name, split="train", data_dir=tmp_path)
    assert 'pip install "seqjax[prepare]"' in text


@pytest.fixture
def horses_and_zebras(tmp_path, monkeypatch):
    """TFDS's own ``cycle_gan``, prepared from pictures made here instead of its archive."""

    def split_generators(self, dl_manager):
        splits = {}
        for split, count in (("trainA", 3), ("trainB", 4), ("testA", 2), ("testB", 1)):
            (tmp_path / split).mkdir()
            for i in range(count):
                Image.new("RGB", (5, 4), (i, ord(split[-1]), len(split))).save(tmp_path / split / f"{i}.png")
            splits[split] = self._generate_examples(tmp_path / split, split[-1])
        return splits

    def generate_examples(self, path, label):
        return ((file.name, {"image": file, "label": label}) for file in sorted(path.iterdir()))

    builder = tfds.builder_cls("cycle_gan")
    with monkeypatch.context() as patched:
        patched.setattr(builder, "_split_generators", split_generators)
        patched.setattr(builder, "_generate_examples", generate_examples)
        prepared = tfds.builder("cycle_gan/horse2zebra", data_dir=tmp_path)
        prepared.download_and_prepare(file_format="array_record")
    return tmp_path


def test_cycle_gan_is_read_without_tensorflow(horses_and_zebras):
    """By the same interface as our own unpaired sets: images of each domain, and batches of both."""
    a, b = (
        open_source("cycle_gan", config="horse2zebra", split=split, data_dir=horses_and_zebras)
        for split in ("trainA", "trainB")
    )
    assert (len(a), len(b)) == (3, 4)
    assert a[0]["image"].shape == (4, 5, 3)
    batch = next(train_batches({"a": a, "b": b}, batch_size=12, seed=0))
    assert batch.keys() == {"a", "a_label", "b", "b_label"}
    np.testing.assert_array_equal(np.bincount(batch["a"][:, 0, 0, 0]), [4] * 3)
    np.testing.assert_array_equal(np.bincount(batch["b"][:, 0, 0, 0]), [3] * 4)
    assert set(batch["a"][..., 1].ravel()) == {ord("A")}
    assert set(batch["b"][..., 1].ravel()) == {ord("B")}


def test_cycle_gan_without_tensorflow_is_refused_before_the_download(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find_spec(name))
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", lambda *_, **__: pytest.fail("went to download")
    )
    text = message("cycle_gan", config="maps", split="trainA", data_dir=tmp_path)
    assert 'pip install "seqjax[prepare]"' in text
    assert "cycle_gan" in text


with skip_registration():

    class PublishedCocoCaptions(tfds.core.GeneratorBasedBuilder):
        """What TFDS's builder gives where TensorFlow is there."""

        name = "coco_captions"
        VERSION = tfds.core.Version("1.1.0")
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="2014"),)

        def _info(self):
            whole = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "image/filename": tfds.features.Text(),
                "image/id": np.int64,
                "objects": tfds.features.Sequence({"bbox": tfds.features.BBoxFeature()}),
                "captions": tfds.features.Sequence({"text": np.str_, "id": np.int64}),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(whole))

        def _split_generators(self, dl_manager):
            return {"restval": self._generate_examples()}

        def _generate_examples(self):
            for i in range(2):
                captions = [{"text": f"caption {k} of é {i}", "id": 10 * i + k} for k in range(5 + i)]
                file = Path(self.data_dir).parent / f"{i}.jpg"
                Image.new("RGB", (5, 6 + i)).save(file)
                image = {"image": file, "image/filename": file.name, "image/id": 90 + i}
                yield i, {**image, "objects": [], "captions": captions}


def test_captions_of_coco_prepared_elsewhere_are_read_without_tensorflow(tmp_path, monkeypatch):
    def without(name, **options):
        raise ImportError("No module named 'tensorflow'")

    monkeypatch.setattr(tfds, "builder", without)
    assert "seqjax[prepare]" in message("coco_captions", split="restval", data_dir=tmp_path)
    PublishedCocoCaptions(data_dir=tmp_path).download_and_prepare(file_format="array_record")
    source = open_source("coco_captions", split="restval", data_dir=tmp_path)
    found = {int(source[k]["index"]): source[k] for k in range(2)}
    for i in range(2):
        record = found[90 + i]
        assert {"image", "captions", "objects/bbox"} <= record.keys()
        assert texts(record["captions"]) == [f"caption {k} of é {i}" for k in range(5 + i)]
        assert record["image"].shape == (6 + i, 5, 3)
