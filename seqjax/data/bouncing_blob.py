"""A blob on a strip of pixels that turns at either end at a speed nobody can know: ``bouncing_blob``, a tfds data set.

The least video with a future that is open at known places: at every impact one of four speeds is drawn, log 4 = 1.386
nats of news in the frame that follows, and everywhere else there is none. So a model that is to say when it does not
know (Denton and Fergus, "Stochastic Video Generation with a Learned Prior", ICML 2018) can be held to it.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Int, UInt8

from seqjax.errors import InputError

TOP_SPEED = 4
"""Largest speed, in pixels per frame."""
SPLITS = ("train", "validation", "test")


def bounce(
    rng: np.random.Generator, *, frames: int, pixels: int
) -> tuple[Int[np.ndarray, " T"], Bool[np.ndarray, " T"]]:
    """The path, and where it is at a wall whose speed has just been drawn.

    The place starts uniformly in ``{0, .., pixels - 1}``, the velocity in ``{±1, .., ±4}``. Each frame the place is
    recorded and then moves; where it would leave, it is set to the end and the speed drawn from ``{1, .., 4}``, inward:
    an impact. What was drawn is seen in the frame after.

    Args:
      rng: source of places and speeds.
      frames: ``T``.
      pixels: length of the strip.
    """
    place, velocity = int(rng.integers(pixels)), int(rng.integers(1, TOP_SPEED + 1) * rng.choice([-1, 1]))
    places, impacts = np.zeros(frames, np.int64), np.zeros(frames, bool)
    for t in range(frames):
        inward = 1 if place < 0 else -1 if place >= pixels else 0
        if inward:
            place = 0 if inward == 1 else pixels - 1
            velocity = inward * int(rng.integers(1, TOP_SPEED + 1))
        places[t], impacts[t] = place, bool(inward)
        place = place + velocity
    return places, impacts


def blob(places: Int[np.ndarray, " T"], *, pixels: int) -> UInt8[np.ndarray, "T 1 W 1"]:
    """The strip with ``255 exp(-(j - place)² / 2)`` at pixel j."""
    distances = np.arange(pixels)[None, :] - places[:, None]
    return np.rint(255 * np.exp(-(distances**2) / 2)).astype(np.uint8)[:, None, :, None]


NAMED: dict[str, dict[str, int]] = {
    "strip_32": {},
    "tiny": {"frames": 8, "pixels": 12, "train": 64, "validation": 16, "test": 12},
}
"""Configurations by name: twenty frames of 32 pixels, and a few clips for tests."""


@dataclasses.dataclass(eq=False, kw_only=True)
class BouncingBlobConfig(tfds.core.BuilderConfig):
    """Settings of one set of clips; each field changes what is on disk.

    Raises:
      InputError: a count below 1, a strip shorter than two steps, a negative seed, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    frames: int = 20
    """Length of a clip."""
    pixels: int = 32
    """Length of the strip."""
    train: int = 20_000
    """Clips for training."""
    validation: int = 1_000
    """Clips for validation."""
    test: int = 1_000
    """Clips for testing."""
    seed: int = 0
    """Clip ``i`` of a split depends on the seed, the split and ``i`` alone."""

    def __post_init__(self) -> None:
        for field, least in {"frames": 1, "pixels": 2 * TOP_SPEED, **dict.fromkeys(SPLITS, 1), "seed": 0}.items():
            if getattr(self, field) < least:
                raise InputError(f"{field}={getattr(self, field)} in a BouncingBlobConfig: give {least} or more.")
        if self.name and self.name not in NAMED:
            raise InputError(f"name={self.name!r} in a BouncingBlobConfig: leave it out, it follows from the rest.")
        self.name = self.name or (
            f"{self.pixels}pixels_{self.frames}frames_{self.train}_{self.validation}_{self.test}_seed{self.seed}"
        )


class BouncingBlob(tfds.core.GeneratorBasedBuilder):
    """The clips of a ``BouncingBlobConfig``, prepared without TensorFlow.

    A record has ``video`` uint8 ``[T, 1, W, 1]`` and ``impact`` uint8 ``[T]``, 1 where a speed has just been drawn.
    Record ``i`` of a split is its clip ``i``.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [BouncingBlobConfig(name=name, **fields) for name, fields in NAMED.items()]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        shape = (config.frames, 1, config.pixels, 1)
        return tfds.core.DatasetInfo(
            builder=self,
            description="A blob on a strip of pixels that turns at either end at a speed drawn there.",
            features=tfds.features.FeaturesDict(
                {
                    "video": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="zlib"),
                    "impact": tfds.features.Tensor(shape=(config.frames,), dtype=np.uint8),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, np.ndarray]]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        config = self.builder_config
        for i in range(getattr(config, split)):
            rng = np.random.default_rng([config.seed, SPLITS.index(split), i])
            places, impacts = bounce(rng, frames=config.frames, pixels=config.pixels)
            yield i, {"video": blob(places, pixels=config.pixels), "impact": impacts.astype(np.uint8)}
