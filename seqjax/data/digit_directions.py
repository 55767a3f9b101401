"""A handwritten digit that goes one way on a torus: ``digit_directions``, a tfds data set of motions to tell apart.

What leaves a frame on one side comes back on the other, and every start is equally likely, so no single frame says
anything about the direction, and the frames without their order do not tell it from its opposite: it has to be read
from how frames follow one another.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8

from seqjax.data.digits import SPLITS, load
from seqjax.errors import InputError

DIRECTIONS = np.array([(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)])
"""Rows and columns per frame at speed 1: up, and on clockwise, so that the opposite of d is ``(d + 4) % 8``."""
ARROWS = "↑↗→↘↓↙←↖"
"""The same, to be shown."""


def travel(
    digit: UInt8[np.ndarray, "S S"],
    start: Int[np.ndarray, " 2"],
    direction: int,
    speed: int,
    *,
    frames: int,
    size: int,
) -> UInt8[np.ndarray, "{frames} {size} {size} 1"]:
    """The digit on black, ``speed · DIRECTIONS[direction]`` pixels further in every frame.

    Args:
      digit: grey levels.
      start: row and column of its top left pixel in the first frame.
      direction: 0 to 7.
      speed: pixels per frame along each axis that it moves along.
      frames: length of the clip.
      size: height and width of the torus.
    """
    canvas = np.zeros((size, size), np.uint8)
    canvas[: len(digit), : len(digit)] = digit
    corners = start + speed * np.arange(frames)[:, None] * DIRECTIONS[direction]
    return np.stack([np.roll(canvas, corner, axis=(0, 1)) for corner in corners])[..., None]


NAMED: dict[str, dict[str, int]] = {
    "torus_16": {},
    "tiny": {"frames": 4, "train": 64, "validation": 16, "test": 16},
}
"""Configurations by name: six frames of 16 x 16 pixels, and a few shorter clips for tests."""


@dataclasses.dataclass(eq=False, kw_only=True)
class DigitDirectionsConfig(tfds.core.BuilderConfig):
    """Settings of one set of clips; each field changes what is on disk.

    Raises:
      InputError: a digit that does not fit, a count out of range, a speed at which directions look alike, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    frames: int = 6
    """Length of a clip."""
    size: int = 16
    """Height and width of the torus in pixels."""
    digit_size: int = 8
    """Height and width of a digit in pixels."""
    top_speed: int = 2
    """Speeds are drawn from 1 to this; below half of the size, at which there and back are the same."""
    train: int = 20_000
    """Clips of the digits for training."""
    validation: int = 1_000
    """Clips of the digits for validation."""
    test: int = 1_000
    """Clips of the digits for testing."""
    seed: int = 0
    """Clip ``i`` of a split depends on the seed, the split and ``i`` alone."""

    def __post_init__(self) -> None:
        for field, least in {"frames": 2, "digit_size": 8, "top_speed": 1, **dict.fromkeys(SPLITS, 1)}.items():
            if getattr(self, field) < least:
                raise InputError(f"{field}={getattr(self, field)} in a DigitDirectionsConfig: give {least} or more.")
        if self.digit_size > self.size or 2 * self.top_speed >= self.size or self.seed < 0:
            raise InputError(
                f"digit_size={self.digit_size}, top_speed={self.top_speed} and seed={self.seed} in a "
                f"DigitDirectionsConfig of size={self.size}: give a digit_size up to size, a top_speed below half of "
                "it, and a seed of 0 or more."
            )
        if self.name and self.name not in NAMED:
            raise InputError(f"name={self.name!r} in a DigitDirectionsConfig: leave it out, it follows from the rest.")
        self.name = self.name or (
            f"{self.digit_size}in{self.size}_{self.frames}frames_speed{self.top_speed}"
            f"_{self.train}_{self.validation}_{self.test}_seed{self.seed}"
        )


class DigitDirections(tfds.core.GeneratorBasedBuilder):
    """The clips of a ``DigitDirectionsConfig``, prepared without TensorFlow.

    A record has ``video`` uint8 ``[T, H, W, 1]``, ``label`` int64 (the direction), ``speed`` int64 and ``index`` int64
    (the digit's place in ``seqjax.data.digits.load``). Digits of one split are by other writers than those of another.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [DigitDirectionsConfig(name=name, **fields) for name, fields in NAMED.items()]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        shape = (config.frames, config.size, config.size, 1)
        features = {"video": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="zlib")}
        features |= {key: tfds.features.Scalar(dtype=np.int64) for key in ("label", "speed", "index")}
        return tfds.core.DatasetInfo(
            builder=self,
            description="A handwritten digit that goes one of eight ways on a torus.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        images, _ = load(config.digit_size)
        for i in range(getattr(config, split)):
            rng = np.random.default_rng([config.seed, list(SPLITS).index(split), i])
            index, direction = rng.choice(SPLITS[split]), int(rng.integers(len(DIRECTIONS)))
            speed, start = int(rng.integers(config.top_speed)) + 1, rng.integers(config.size, size=2)
            video = travel(images[index], start, direction, speed, frames=config.frames, size=config.size)
            yield i, {"video": video, "label": direction, "speed": speed, "index": index}
