"""Clips of a coloured disc that swings to and fro, up and down or left and right: ``moving_discs``, a tfds data set.

The least video in which what is seen and how it moves are two things: the colour is a clip's content, the axis its
kind of motion, and neither tells anything of the other. So a generator that is to keep them apart (Tulyakov et al.,
"MoCoGAN: Decomposing Motion and Content for Video Generation", CVPR 2018, whose own shapes are not published) can be
held to both.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, UInt8

from seqjax.errors import InputError

KINDS = ("vertical", "horizontal")
"""Motions; their number is a clip's label."""
SPLITS = ("train", "validation", "test")
RADIUS = 0.16
"""Of the disc, in sides of a frame."""


class Swing(NamedTuple):
    """What is drawn for a clip."""

    label: int
    """Kind of motion."""
    colour: Float[np.ndarray, " 3"]
    """RGB in [0, 1]."""
    centres: Float[np.ndarray, "T 2"]
    """Row and column in pixels, that of the upper left pixel's middle being 0."""


def swing(rng: np.random.Generator, *, frames: int, size: int) -> Swing:
    """A clip: ``p_t = m + A size sin(2π (t f / T + φ))`` along the label's axis, the middle ``m`` along the other.

    The kind is one of two, each channel of the colour ``U[0.2, 1]``, ``A ~ U[0.2, 0.28]``, the number of swings in a
    clip ``f ~ U[0.75, 1.25]`` and ``φ ~ U[0, 1]``.

    Args:
      rng: source of all of them.
      frames: ``T``.
      size: of a frame.
    """
    label, colour = int(rng.integers(len(KINDS))), rng.uniform(0.2, 1, size=3)
    reach, swings, phase = size * rng.uniform(0.2, 0.28), rng.uniform(0.75, 1.25), rng.uniform()
    centres = np.full((frames, 2), (size - 1) / 2)
    centres[:, label] += reach * np.sin(2 * np.pi * (swings * np.arange(frames) / frames + phase))
    return Swing(label, colour, centres)


def render(
    colour: Float[np.ndarray, " 3"], centres: Float[np.ndarray, "T 2"], *, size: int
) -> UInt8[np.ndarray, "T H W 3"]:
    """A disc of radius 0.16 sides on black, at a pixel ``255 colour · min(1, max(0, radius + ½ - distance))``."""
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    distances = np.hypot(rows - centres[:, 0, None, None], columns - centres[:, 1, None, None])
    cover = np.clip(RADIUS * size + 0.5 - distances, 0, 1)
    return np.rint(255 * cover[..., None] * colour).astype(np.uint8)


NAMED: dict[str, dict[str, int]] = {
    "discs_16": {},
    "discs_64": {"frames": 16, "size": 64},
    "tiny": {"frames": 5, "size": 8, "train": 64, "validation": 16, "test": 12},
}
"""Configurations by name: eight frames of 16x16, MoCoGAN's sizes, and a few clips for tests."""


@dataclasses.dataclass(eq=False, kw_only=True)
class MovingDiscsConfig(tfds.core.BuilderConfig):
    """Settings of one set of clips; each field changes what is on disk.

    Raises:
      InputError: a count below 1, frames too small for the disc, a negative seed, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    frames: int = 8
    """Length of a clip."""
    size: int = 16
    """Height and width of a clip in pixels."""
    train: int = 4_000
    """Clips for training."""
    validation: int = 500
    """Clips for validation."""
    test: int = 512
    """Clips for testing."""
    seed: int = 0
    """Clip ``i`` of a split depends on the seed, the split and ``i`` alone."""

    def __post_init__(self) -> None:
        for field, least in {"frames": 1, "size": 8, **dict.fromkeys(SPLITS, 1), "seed": 0}.items():
            if getattr(self, field) < least:
                raise InputError(f"{field}={getattr(self, field)} in a MovingDiscsConfig: give {least} or more.")
        if self.name and self.name not in NAMED:
            raise InputError(f"name={self.name!r} in a MovingDiscsConfig: leave it out, it follows from the rest.")
        self.name = self.name or (
            f"{self.size}pixels_{self.frames}frames_{self.train}_{self.validation}_{self.test}_seed{self.seed}"
        )


class MovingDiscs(tfds.core.GeneratorBasedBuilder):
    """The clips of a ``MovingDiscsConfig``, prepared without TensorFlow.

    A record has ``video`` uint8 ``[T, H, W, 3]``, ``label`` int64 ``[]``, the place in ``KINDS``, and ``colour``
    float32 ``[3]`` in [0, 1]. Record ``i`` of a split is its clip ``i``.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [MovingDiscsConfig(name=name, **fields) for name, fields in NAMED.items()]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        shape = (config.frames, config.size, config.size, 3)
        return tfds.core.DatasetInfo(
            builder=self,
            description="A coloured disc that swings up and down or left and right.",
            features=tfds.features.FeaturesDict(
                {
                    "video": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="zlib"),
                    "label": tfds.features.Scalar(dtype=np.int64),
                    "colour": tfds.features.Tensor(shape=(3,), dtype=np.float32),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        for i in range(getattr(config, split)):
            rng = np.random.default_rng([config.seed, SPLITS.index(split), i])
            drawn = swing(rng, frames=config.frames, size=config.size)
            video = render(drawn.colour, drawn.centres, size=config.size)
            yield i, {"video": video, "label": drawn.label, "colour": drawn.colour.astype(np.float32)}
