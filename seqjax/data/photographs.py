"""Crops of the photographs that scikit-learn and scikit-image carry: a paired and an unpaired tfds data set.

- ``photograph_crops``: the crop in grey and in colour, for colourisation as translation;
- ``textures``: grass, domain A, and gravel, domain B, with splits named as in TFDS's ``cycle_gan``.

The left two thirds of each photograph are for training, the right third for testing, so no pixel is in both; and the
two textures are two photographs. Crops of one split may overlap.
"""

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from seqjax.errors import InputError

PHOTOGRAPHS = ("china", "flower", "astronaut", "chelsea", "coffee", "rocket", "motorcycle")
"""Names, in the order of ``photograph`` in a record."""
LARGEST = 128
"""Largest crop that fits everywhere, in pixels."""

Photograph = UInt8[np.ndarray, "H W C"]


def photographs() -> list[Photograph]:
    """Two photographs of scikit-learn and five of scikit-image in RGB, 300 to 512 pixels high."""
    from skimage import data  # slow to import, as the other, and needed once per prepared set
    from sklearn.datasets import load_sample_images

    motorcycle, _, _ = data.stereo_motorcycle()
    ours = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), motorcycle]
    return [*load_sample_images().images, *ours]


def textures() -> tuple[Photograph, Photograph]:
    """Grass and gravel, 512 x 512, one channel."""
    from skimage import data

    return data.grass()[..., None], data.gravel()[..., None]


@dataclasses.dataclass(eq=False, kw_only=True)
class CropsConfig(tfds.core.BuilderConfig):
    """Settings of one set of crops; each field changes what is on disk.

    Raises:
      InputError: a size or count out of range, a negative seed, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    size: int = 64
    """Height and width in pixels, at most 128."""
    train: int = 2_000
    """Crops for training; of each domain, if there are two."""
    test: int = 300
    """Crops for testing; of each domain, if there are two."""
    seed: int = 0
    """The place of crop ``i`` of a split depends on the seed, the split and ``i`` alone."""

    def __post_init__(self) -> None:
        for field, least in {"size": 1, "train": 1, "test": 1, "seed": 0}.items():
            if getattr(self, field) < least:
                raise InputError(f"{field}={getattr(self, field)} in a CropsConfig: give {least} or more.")
        if self.size > LARGEST:
            raise InputError(f"size={self.size} in a CropsConfig is too large for a photograph: give up to {LARGEST}.")
        if self.name and self.name not in NAMED:
            raise InputError(f"name={self.name!r} in a CropsConfig: leave it out, it follows from the rest.")
        self.name = self.name or f"{self.size}x{self.size}_{self.train}_{self.test}_seed{self.seed}"


NAMED: dict[str, dict[str, int]] = {
    "64x64": {},
    "32x32": {"size": 32},
    "128x128": {"size": 128},
    "tiny": {"size": 16, "train": 28, "test": 14},
}
"""Configurations by name: three sizes, and a few crops for tests."""


class _Crops(tfds.core.GeneratorBasedBuilder):
    """What both sets share.

    Beside its images a record has ``photograph`` int64, whose crop it is, and ``corner`` int64 ``[2]``, row and column
    of its top left pixel there. Record ``i`` of a split is of photograph ``i`` modulo their number.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [CropsConfig(name=name, **fields) for name, fields in NAMED.items()]
    SPLITS: ClassVar[tuple[str, ...]]

    @abc.abstractmethod
    def photographs(self, split: str) -> Mapping[int, Photograph]:
        """By number, those of which the split has crops."""

    @abc.abstractmethod
    def images(self, crop: np.ndarray) -> dict[str, np.ndarray]:
        """What a record has of a crop."""

    def _describe(self, images: Sequence[tuple[str, int]]) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        tensor = tfds.features.Tensor
        features: dict[str, Any] = {
            key: tensor(shape=(size, size, channels), dtype=np.uint8, encoding="zlib") for key, channels in images
        }
        features |= {"photograph": tensor(shape=(), dtype=np.int64), "corner": tensor(shape=(2,), dtype=np.int64)}
        return tfds.core.DatasetInfo(
            builder=self,
            description=str(self.__doc__),
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in self.SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        shown = sorted(self.photographs(split).items())
        training = split.startswith("train")
        for i in range(config.train if training else config.test):
            rng = np.random.default_rng([config.seed, self.SPLITS.index(split), i])
            number, photograph = shown[i % len(shown)]
            height, width, _ = photograph.shape
            border = 2 * width // 3
            left, right = (0, border) if training else (border, width)
            corner = rng.integers([0, left], [height - config.size, right - config.size], endpoint=True)
            rows, columns = (slice(start, start + config.size) for start in corner)
            yield i, self.images(photograph[rows, columns]) | {"photograph": number, "corner": corner}


class PhotographCrops(_Crops):
    """Crops of photographs in grey, ``input`` uint8 ``[S, S, 1]``, and in colour, ``target`` uint8 ``[S, S, 3]``."""

    SPLITS = ("train", "test")

    def photographs(self, split: str) -> Mapping[int, Photograph]:
        """All, in both splits."""
        return dict(enumerate(photographs()))

    def images(self, crop: np.ndarray) -> dict[str, np.ndarray]:
        """Luma, ``0.299 R + 0.587 G + 0.114 B`` (ITU-R BT.601), and the crop."""
        return {"input": np.asarray(Image.fromarray(crop).convert("L"))[..., None], "target": crop}

    def _info(self) -> tfds.core.DatasetInfo:
        return self._describe([("input", 1), ("target", 3)])


class Textures(_Crops):
    """Crops of two textures: ``image`` uint8 ``[S, S, 1]``, grass in the splits A and gravel in the splits B."""

    SPLITS = ("trainA", "trainB", "testA", "testB")

    def photographs(self, split: str) -> Mapping[int, Photograph]:
        """The one of the split's domain."""
        number = "AB".index(split[-1])
        return {number: textures()[number]}

    def images(self, crop: np.ndarray) -> dict[str, np.ndarray]:
        """The crop as it is."""
        return {"image": crop}

    def _info(self) -> tfds.core.DatasetInfo:
        return self._describe([("image", 1)])
