"""The published sets of presets, opened by the recipes' own code: the features are those that TFDS's builders declare,
what is in them is made here. Networks are not built.

Shapes of batches follow from the papers' sizes, batch size apart: images of VGG and ViT-S/16 have 224 pixels, those on
which ViT-B/16 is fine-tuned 384; a caption has at most 20 words, with BOS and EOS in 21 and 22 places; sentences of 6
words fill, with BOS and EOS, the smallest bucket, and 16 of them have the places of two that fill the largest.
"""

import dataclasses
import importlib
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.object_detection import coco

from seqjax.data.cluttered_digits import ClutteredDigits
from seqjax.data.karpathy_captions import KarpathyCaptions

RNG = np.random.default_rng(0)
WORDS = ("one", "two", "three", "four", "five", "six", "seven")
TEST = ("train", "test")
SPLITS = {
    "binarized_mnist": ("train", "validation", "test"),
    "cifar10": TEST,
    "coco_captions": ("train", "val", "test", "restval"),
    "imagenet2012": ("train", "validation"),
    "mnist": TEST,
    "svhn_cropped": (*TEST, "extra"),
    "ted_hrlr_translate": ("train", "validation", "test"),
    "wmt14_translate": ("train", "validation", "test"),
}
RECORDS = 8

DIGITS, TINY, COLOUR = ({"image": (2, side, side, channels)} for side, channels in ((28, 1), (32, 3), (224, 3)))
SENTENCES = {"source": (2, 12), "target": (2, 12)}
BY_TOKENS = {"source": (16, 16), "target": (16, 16)}
TED = {"name": "ted_hrlr_translate", "config": "pt_to_en", "source": "pt", "target": "en"}
PRESETS = {
    ("generation.draw", "paper"): DIGITS,
    ("generation.draw", "svhn"): TINY,
    ("generation.draw", "cifar10"): TINY,
    ("language.captioner", "paper"): COLOUR | {"captions": (2, 21)},
    ("language.captioner", "show_and_tell"): COLOUR | {"captions": (2, 21)},
    ("language.show_attend_tell", "paper"): COLOUR | {"captions": (2, 21)},
    ("language.seq2seq", "paper"): SENTENCES,
    ("language.seq2seq", "luong"): SENTENCES,
    ("language.seq2seq", "sutskever"): SENTENCES,
    ("language.transformer", "paper"): BY_TOKENS,
    ("language.transformer", "big"): BY_TOKENS,
    ("recognition.vit", "paper"): COLOUR | {"label": (2,)},
    ("recognition.vit", "cifar10"): TINY | {"label": (2,)},
    ("recognition.vit", "finetune_cifar10"): {"image": (2, 384, 384, 3), "label": (2,)},
    ("recognition.vit", "finetune_imagenet"): {"image": (2, 384, 384, 3), "label": (2,)},
    ("recognition.ram", "mnist"): DIGITS | {"label": (2,)},
    ("recognition.ram", "paper"): {"image": (2, 60, 60, 1), "label": (2,)},
    ("recognition.ram", "translated_60"): {"image": (2, 60, 60, 1), "label": (2,)},
    ("recognition.ram", "cluttered_60"): {"image": (2, 60, 60, 1), "label": (2,)},
    ("recognition.ram", "cluttered_100"): {"image": (2, 100, 100, 1), "label": (2,)},
    ("recognition.differentiable_ram", "paper"): {"image": (2, 100, 100, 1), "label": (2,)},
    ("recognition.differentiable_ram", "cluttered_100_4"): {"image": (2, 100, 100, 1), "label": (2,)},
}
"""Shapes of training batches."""


def made(feature):
    """Something that a feature can hold; images of no fixed size have any."""
    match feature:
        case tfds.features.FeaturesDict():
            return {name: made(inner) for name, inner in feature.items()}
        case tfds.features.Sequence():
            return [made(feature.feature) for _ in range(5)]
        case tfds.features.Text():
            return " ".join(RNG.permutation(WORDS)[:6])
        case tfds.features.ClassLabel():
            return int(RNG.integers(feature.num_classes))
        case tfds.features.BBoxFeature():
            return tfds.features.BBox(0.0, 0.0, 0.5, 0.5)
        case tfds.features.Image():
            height, width, channels = (n or int(RNG.integers(30, 40)) for n in feature.shape)
            pixels = RNG.integers(2, size=(height, width, 1 if channels == 1 else 3), dtype=np.uint8)
            return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        case _:
            return " ".join(WORDS[:6]) if np.dtype(feature.np_dtype).kind in "OSU" else int(RNG.integers(2))


def split_generators(splits):
    """In place of a builder's own, which would download."""

    def generate(features):
        for i in range(RECORDS):
            record = made(features)
            yield i, record | {key: i for key in ("index", "image/id") if key in record}

    return lambda self, dl_manager: {split: generate(self.info.features) for split in splits}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where all sets are prepared, each when it is asked for."""
    with pytest.MonkeyPatch.context() as patched:
        importlib.import_module("tensorflow_datasets.translate")
        patched.setattr(coco, "tf", types.SimpleNamespace(int64=np.int64))
        for name, splits in SPLITS.items():
            patched.setattr(tfds.builder_cls(name), "_split_generators", split_generators(splits))
        patched.setattr(KarpathyCaptions, "_split_generators", split_generators(("train", "val", "test")))
        for config in ClutteredDigits.BUILDER_CONFIGS:
            patched.setattr(config, "train", RECORDS)
            patched.setattr(config, "test", RECORDS)
        yield tmp_path_factory.mktemp("data")


def first_batch(recipe, preset, data_dir, workdir, **options):
    """Of training, and of the held-out set."""
    module = importlib.import_module(f"experiments.{recipe}")
    config = module.PRESETS[preset]
    if getattr(config.data, "tokens", 0):
        options["tokens"] = 2 * config.data.length
    data = dataclasses.replace(config.data, batch=2, data_dir=str(data_dir), **options)
    experiment = module.prepare(dataclasses.replace(config, data=data, workdir=str(workdir)))
    return next(experiment.batches(0)), next(iter(experiment.evaluation.batches()))


@pytest.mark.parametrize(("recipe", "preset"), PRESETS)
def test_preset_opens_its_set(recipe, preset, data_dir, tmp_path):
    train, test = first_batch(recipe, preset, data_dir, tmp_path)
    for key, shape in PRESETS[recipe, preset].items():
        assert train[key].shape == shape
        assert test[key].shape[0] == 2
        assert (train[key].dtype == np.uint8) == (key == "image")
        assert key == "label" or np.ptp(train[key]) > 0


def test_a_smaller_set_of_translations(data_dir, tmp_path):
    train, _ = first_batch("language.transformer", "paper", data_dir, tmp_path, **TED)
    assert train["source"].shape == BY_TOKENS["source"]


def test_every_preset_of_a_published_set_is_here():
    for recipe in {recipe for recipe, _ in PRESETS}:
        presets = importlib.import_module(f"experiments.{recipe}").PRESETS
        for preset, config in presets.items():
            name = getattr(config.data, "name", getattr(config.data, "digits", None))
            published = name in SPLITS or name == KarpathyCaptions.name
            assert published == ((recipe, preset) in PRESETS), (recipe, preset)
