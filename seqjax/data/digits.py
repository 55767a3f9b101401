"""scikit-learn's 1,797 handwritten digits as images of any size, and ``digits``, a tfds data set of them.

The digits are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI,
1998), which scikit-learn carries: 8 x 8 pixels, values 0 to 16, by 13 people. Who wrote which digit is not on
record, but the order shows it: the labels come in 14 blocks of about 130 digits, each starting with three runs of
0 to 9 (two blocks lack one or two of those digits), and the handwriting changes where a block starts. ``SPLITS``
cuts between blocks only, so writers are disjoint as far as the published data can show (14 blocks by 13 people:
somebody may have filled two).

``digits`` and its relatives are split at random instead, as is usual for generative models, which are measured by how
near they come to held-out images like those they saw: there, every writer is in both parts.
"""

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int64, UInt8
from PIL import Image

from seqjax.errors import InputError

SPLITS = {"train": range(0, 1287), "validation": range(1287, 1545), "test": range(1545, 1797)}
"""Index ranges of the splits by writer: ten, two and two blocks."""


def load(
    size: int, *, method: Literal["bicubic", "bilinear"] = "bicubic"
) -> tuple[UInt8[np.ndarray, "M S S"], Int64[np.ndarray, " M"]]:
    """All 1,797 digits in the order of scikit-learn, and their labels 0 to 9.

    Args:
      size: height and width ``S`` in pixels.
      method: interpolation by which they are enlarged.

    Returns:
      Images, 0 (paper) to 255 (ink), cut off there; labels.
    """
    from sklearn.datasets import load_digits  # slow to import, and needed once per prepared set

    digits = load_digits()
    images = np.stack([_enlarge(image * (255 / 16), size, method) for image in digits.images])
    return images, digits.target.astype(np.int64)


def _enlarge(image: np.ndarray, size: int, method: str) -> UInt8[np.ndarray, "S S"]:
    smooth = Image.fromarray(image.astype(np.float32)).resize((size, size), Image.Resampling[method.upper()])
    return np.asarray(smooth).round().clip(0, 255).astype(np.uint8)


def random_split() -> dict[str, Int64[np.ndarray, " M"]]:
    """Places of 1,297 digits for training and of 500 for testing, by a permutation that is always the same."""
    order = np.random.RandomState(0).permutation(1797).astype(np.int64)
    return {"train": order[:1297], "test": order[1297:]}


@dataclasses.dataclass(eq=False, kw_only=True)
class DigitsConfig(tfds.core.BuilderConfig):
    """Settings of ``digits`` and its relatives.

    Raises:
      InputError: a size below that of the original, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the size."""
    size: int = 16
    """Height and width in pixels; enlarged bilinearly from 8."""

    def __post_init__(self) -> None:
        if self.size < 8:
            raise InputError(f"size={self.size} in a DigitsConfig is less than the digits have: give 8 or more.")
        spelt = f"{self.size}x{self.size}"
        if self.name not in ("", spelt):
            raise InputError(f"name={self.name!r} in a DigitsConfig: leave it out, it follows from the size.")
        self.name = spelt


class DigitImages(tfds.core.GeneratorBasedBuilder):
    """What sets of still digits share; prepared without TensorFlow.

    A record has what ``draw`` makes of a digit, ``label`` int64 (its value) and ``index`` int64 (its place in
    ``load``). Record ``i`` of a split is the digit at the ``i``-th place of that split.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [DigitsConfig(size=size) for size in (16, 8, 32)]

    @staticmethod
    @abc.abstractmethod
    def draw(split: str, ink: UInt8[np.ndarray, "S S"], label: int) -> dict[str, UInt8[np.ndarray, "S S C"]]:
        """The images of one record."""

    @staticmethod
    def places() -> Mapping[str, Int64[np.ndarray, " M"]]:
        """The digits of each split."""
        return random_split()

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        images = self.draw(next(iter(self.places())), np.zeros((size, size), np.uint8), 0)
        features: dict[str, Any] = {
            key: tfds.features.Tensor(shape=image.shape, dtype=np.uint8, encoding="zlib")
            for key, image in images.items()
        }
        features |= {key: tfds.features.Scalar(dtype=np.int64) for key in ("label", "index")}
        return tfds.core.DatasetInfo(
            builder=self,
            description=str(self.__doc__),
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in self.places()}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        images, labels = load(self.builder_config.size, method="bilinear")
        for i, index in enumerate(self.places()[split]):
            pictures = self.draw(split, images[index], int(labels[index]))
            yield i, pictures | {"label": labels[index], "index": index}


class Digits(DigitImages):
    """The digits themselves: ``image`` uint8 ``[S, S, 1]``, 0 (paper) to 255 (ink)."""

    @staticmethod
    def draw(split: str, ink: UInt8[np.ndarray, "S S"], label: int) -> dict[str, UInt8[np.ndarray, "S S C"]]:
        """The digit as it is."""
        return {"image": ink[..., None]}
