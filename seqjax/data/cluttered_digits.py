"""Handwritten digits somewhere in a larger image, alone or among pieces of others, as a tfds data set.

For models that look where the digit is, after V. Mnih, N. Heess, A. Graves, K. Kavukcuoglu, "Recurrent Models of Visual
Attention", NIPS 2014, section 4.1: "translated" has a digit at a random place on black, "cluttered" beside it pieces of
8 x 8 pixels cut at random from other digits, four of them at random places in 60 x 60 and in 100 x 100 pixels.

Departures: scikit-learn's digits, unless the configuration is one of MNIST's; a fixed number of images, prepared once,
instead of images drawn while training (an ``augment`` of ``train_batches`` can call ``place`` itself); where the digit
and a piece meet, the larger value shows, so that neither covers the other. The paper does not say.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int64, UInt8

from seqjax.data.binary_digits import black_and_white
from seqjax.data.digits import load, random_split
from seqjax.errors import InputError

SPLITS = ("train", "test")


def place(
    rng: np.random.Generator,
    digit: UInt8[np.ndarray, "S S"],
    others: Sequence[UInt8[np.ndarray, "S S"]] | UInt8[np.ndarray, "M S S"],
    *,
    size: int,
    pieces: int,
    piece: int = 8,
) -> tuple[UInt8[np.ndarray, "{size} {size}"], Int64[np.ndarray, " 2"]]:
    """A digit among pieces of others on black, at places that are all equally likely.

    Args:
      rng: source of the places and pieces.
      digit: what is to be found.
      others: what pieces are cut from; not looked at if there are none.
      size: height and width of the image.
      pieces: how many.
      piece: height and width of one.

    Returns:
      The image; row and column of the digit's top left pixel.
    """
    canvas = np.zeros((size, size), np.uint8)

    def paste(part: np.ndarray) -> np.ndarray:
        row, column = corner = rng.integers(size - len(part), size=2, endpoint=True)
        window = canvas[row : row + len(part), column : column + len(part)]
        np.maximum(window, part, out=window)
        return corner

    corner = paste(digit)
    for _ in range(pieces):
        other = others[int(rng.integers(len(others)))]
        row, column = rng.integers(len(other) - piece, size=2, endpoint=True)
        paste(other[row : row + piece, column : column + piece])
    return canvas, corner


NAMED: dict[str, dict[str, Any]] = {
    "translated_60": {},
    "cluttered_60": {"pieces": 4},
    "translated_100": {"size": 100},
    "cluttered_100": {"size": 100, "pieces": 4},
    "translated_24": {"size": 24, "digit_size": 8},
    "cluttered_24": {"size": 24, "digit_size": 8, "pieces": 4, "piece": 3},
    "cluttered_32": {"size": 32, "digit_size": 8, "pieces": 4, "piece": 4},
    "binary_16": {"size": 16, "digit_size": 8, "binary": True},
    "mnist_translated_60": {"digits": "mnist", "train": 60_000, "test": 10_000},
    "mnist_cluttered_60": {"digits": "mnist", "pieces": 4, "train": 60_000, "test": 10_000},
    "mnist_cluttered_100": {"digits": "mnist", "size": 100, "pieces": 4, "train": 60_000, "test": 10_000},
    "tiny": {"size": 24, "digit_size": 8, "pieces": 2, "piece": 3, "train": 64, "test": 16},
}
"""Configurations by name: sizes of the paper; small ones for quick runs, plain, cluttered and binary; those of MNIST's
digits; and a few images for tests."""


@dataclasses.dataclass(eq=False, kw_only=True)
class ClutteredDigitsConfig(tfds.core.BuilderConfig):
    """Settings of one set; each field changes what is on disk.

    Raises:
      InputError: sizes that do not fit, a count out of range, unknown digits, a negative seed, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    digits: Literal["scikit-learn", "mnist"] = "scikit-learn"
    """Whose: scikit-learn's, enlarged, or TFDS's ``mnist``, which is downloaded."""
    size: int = 60
    """Height and width of an image."""
    digit_size: int = 28
    """Height and width of a digit, up to ``size``; 28 for MNIST's."""
    pieces: int = 0
    """Pieces of other digits in an image."""
    piece: int = 8
    """Height and width of a piece, up to ``digit_size``."""
    binary: bool = False
    """Whether every pixel is 0 or 255."""
    train: int = 20_000
    """Images of the digits for training, each in turn."""
    test: int = 2_000
    """Images of the digits for testing, likewise."""
    seed: int = 0
    """Image ``i`` of a split depends on the seed, the split and ``i`` alone."""

    def __post_init__(self) -> None:
        for field, least in {"train": 1, "test": 1, "piece": 1, "digit_size": 8, "pieces": 0, "seed": 0}.items():
            if getattr(self, field) < least:
                raise InputError(f"{field}={getattr(self, field)} in a ClutteredDigitsConfig: give {least} or more.")
        if not self.piece <= self.digit_size <= self.size:
            raise InputError(
                f"piece={self.piece}, digit_size={self.digit_size} and size={self.size} in a ClutteredDigitsConfig: "
                "each has to fit into the next."
            )
        if self.digits not in ("scikit-learn", "mnist") or (self.digits == "mnist" and self.digit_size != 28):
            raise InputError(
                f"digits={self.digits!r} with digit_size={self.digit_size} in a ClutteredDigitsConfig: give "
                "'scikit-learn', or 'mnist' with 28."
            )
        if self.name and self.name not in NAMED:
            raise InputError(f"name={self.name!r} in a ClutteredDigitsConfig: leave it out, it follows from the rest.")
        self.name = self.name or (
            f"{self.digits.replace('-', '')}{self.digit_size}in{self.size}_{self.pieces}x{self.piece}"
            f"{'_binary' if self.binary else ''}_{self.train}_{self.test}_seed{self.seed}"
        )


class ClutteredDigits(tfds.core.GeneratorBasedBuilder):
    """The images of a ``ClutteredDigitsConfig``, prepared without TensorFlow.

    A record has ``image`` uint8 ``[S, S, 1]``, 0 (paper) to 255 (ink), ``label`` int64 (the value of the digit),
    ``corner`` int64 ``[2]`` (row and column of its top left pixel) and ``index`` int64 (which digit of its split it
    is). Record ``i`` of a split is of digit ``i`` modulo their number: scikit-learn's as in ``digits``, 1,297 for
    training and 500 for testing, or MNIST's, 60,000 and 10,000. Pieces are of digits of the same split.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [ClutteredDigitsConfig(name=name, **fields) for name, fields in NAMED.items()]

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits somewhere in a larger image, alone or among pieces of others.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(size, size, 1), dtype=np.uint8, encoding="zlib"),
                    "label": tfds.features.Scalar(dtype=np.int64),
                    "corner": tfds.features.Tensor(shape=(2,), dtype=np.int64),
                    "index": tfds.features.Scalar(dtype=np.int64),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        digits, labels = self._digits(split)
        for i in range(getattr(config, split)):
            rng, index = np.random.default_rng([config.seed, SPLITS.index(split), i]), i % len(digits)
            image, corner = place(
                rng, digits[index], digits, size=config.size, pieces=config.pieces, piece=config.piece
            )
            image = black_and_white(image) if config.binary else image
            yield i, {"image": image[..., None], "label": labels[index], "corner": corner, "index": index}

    def _digits(self, split: str) -> tuple[UInt8[np.ndarray, "M S S"], Int64[np.ndarray, " M"]]:
        if self.builder_config.digits == "scikit-learn":
            images, labels = load(self.builder_config.digit_size, method="bilinear")
            places = random_split()[split]
            return images[places], labels[places]
        # Beside this set, so that one data_dir has all that was prepared.
        mnist = tfds.builder("mnist", data_dir=self._data_dir_root)
        mnist.download_and_prepare(file_format="array_record")
        records = list(mnist.as_data_source(split))
        images = np.stack([record["image"][..., 0] for record in records])
        return images, np.array([record["label"] for record in records], np.int64)
