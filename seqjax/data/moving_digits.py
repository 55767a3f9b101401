"""Clips of handwritten digits that move in a square and turn at its walls, as a tfds data set.

Three published motions, over the digits of ``seqjax.data.digits``:

- ``bounce``: Moving MNIST (N. Srivastava, E. Mansimov, R. Salakhutdinov, "Unsupervised Learning of Video
  Representations using LSTMs", ICML 2015), the protocol that the field's tables rest on;
- ``reflect``: the same speed with exact mirror reflection, as TFDS's ``image_as_moving_sequence`` has it;
- ``stochastic``: SM-MNIST (E. Denton, R. Fergus, "Stochastic Video Generation with a Learned Prior", ICML 2018):
  a wall draws the velocity anew, so that the future is open there and nowhere else.

Instead of black there may be a smooth texture behind them, one for each clip, that stands still: what moves and what
does not are then different things to predict.

Departures: scikit-learn's digits instead of MNIST's; a fixed number of clips, prepared once, instead of clips drawn
while training; the digits of one split are by other writers than those of another.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8

from seqjax.data.digits import SPLITS, load
from seqjax.data.storms import smooth_noise
from seqjax.errors import InputError

STEP = 0.1
"""Way per frame of ``bounce`` and ``reflect``, in units of the slack: the clip's size less the digit's."""
TOP_SPEED = 4
"""Largest speed of ``stochastic`` along an axis, in pixels per frame."""


def bounce(rng: np.random.Generator, *, frames: int, digits: int, slack: int) -> Int[np.ndarray, "T N 2"]:
    """Straight paths; a digit that would leave stops at the wall for this frame and turns back.

    ``p ~ U[0, 1]²``, ``v = 0.1 (sin a, cos a)`` with ``a ~ U[0, 2π)``. Each frame: ``p <- p + v``; a coordinate
    ``<= 0`` or ``>= 1`` is set to the wall and its velocity changes sign; the corner is ``int(slack p)``. The
    first recorded frame is the one after the first step.

    Args:
      rng: source of the positions and directions.
      frames: ``T``.
      digits: ``N``.
      slack: largest corner coordinate, in pixels.

    Returns:
      Top left corners (row, column) in pixels, 0 to slack.
    """
    position, velocity = _straight_start(rng, digits)
    corners = np.empty((frames, digits, 2), np.int64)
    for t in range(frames):
        position = position + velocity
        velocity = np.where((position <= 0) | (position >= 1), -velocity, velocity)
        position = position.clip(0, 1)
        corners[t] = slack * position  # the assignment truncates
    return corners


def reflect(rng: np.random.Generator, *, frames: int, digits: int, slack: int) -> Int[np.ndarray, "T N 2"]:
    """Straight paths folded back at the walls like light at a mirror.

    ``p_t = p_0 + t v`` with the start and velocity of ``bounce``; ``q = p_t mod 2``; the corner is
    ``round(slack min(q, 2 - q))``. The first frame shows the start. Arguments and result as in ``bounce``.
    """
    position, velocity = _straight_start(rng, digits)
    path = (position + velocity * np.arange(frames)[:, None, None]) % 2
    return np.rint(slack * np.minimum(path, 2 - path)).astype(np.int64)


def _straight_start(rng: np.random.Generator, digits: int) -> tuple[np.ndarray, np.ndarray]:
    position = rng.uniform(size=(digits, 2))
    angle = rng.uniform(0, 2 * np.pi, size=digits)
    return position, STEP * np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def stochastic(rng: np.random.Generator, *, frames: int, digits: int, slack: int) -> Int[np.ndarray, "T N 2"]:
    """Whole-pixel velocities that a wall redraws.

    The corner starts uniformly in ``{0, .., slack - 1}²``, the velocity in ``{-4, .., 4}²``. Each frame, first
    for the row, then for the column: a coordinate ``< 0`` (``>= slack``) is set to 0 (``slack - 1``), its
    velocity is drawn from ``{1, .., 4}`` (``{-4, .., -1}``) and the other coordinate's from ``{-4, .., 4}``. The
    corner is recorded, then the digit moves. Arguments as in ``bounce``; corners are 0 to slack - 1.
    """
    corners = np.empty((frames, digits, 2), np.int64)
    for n in range(digits):
        corner = rng.integers(0, slack, size=2)
        velocity = rng.integers(-TOP_SPEED, TOP_SPEED + 1, size=2)
        for t in range(frames):
            for axis in (0, 1):
                inward = 1 if corner[axis] < 0 else -1 if corner[axis] >= slack else 0
                if inward:
                    corner[axis] = 0 if inward == 1 else slack - 1
                    velocity[axis] = inward * rng.integers(1, TOP_SPEED + 1)
                    velocity[1 - axis] = rng.integers(-TOP_SPEED, TOP_SPEED + 1)
            corners[t, n] = corner
            corner = corner + velocity
    return corners


MOTIONS = {"bounce": bounce, "reflect": reflect, "stochastic": stochastic}


def overlay(
    images: UInt8[np.ndarray, "N S S"], corners: Int[np.ndarray, "T N 2"], *, size: int, add: bool
) -> UInt8[np.ndarray, "T H W 1"]:
    """Clip of the images at the corners on black.

    Args:
      images: one per moving digit.
      corners: row and column of the top left pixel per frame and image.
      size: height and width of the clip, ``H = W``.
      add: where images meet, show their sum cut off at 255 (SM-MNIST) instead of the larger (Moving MNIST).
    """
    side = images.shape[-1]
    combine = np.add if add else np.maximum
    canvas = np.zeros((len(corners), size, size), np.int64)
    for frame, places in zip(canvas, corners, strict=True):
        for image, (row, column) in zip(images, places, strict=True):
            window = frame[row : row + side, column : column + side]
            combine(window, image, out=window)
    return canvas.clip(0, 255).astype(np.uint8)[..., None]


def before(background: UInt8[np.ndarray, "H W 1"], video: UInt8[np.ndarray, "T H W 1"]) -> UInt8[np.ndarray, "T H W 1"]:
    """A clip in front of what stands still: ``b + (255 - b) v / 255``, ink of 255 hides it."""
    ground = background.astype(np.float32)[None]
    return np.rint(ground + (255 - ground) * (video / np.float32(255))).astype(np.uint8)


def texture(rng: np.random.Generator, size: int) -> UInt8[np.ndarray, "H W 1"]:
    """Smooth noise (`storms.smooth_noise`, over 1.5 pixels) of mean 80 and standard deviation 35, at most 160."""
    noise = smooth_noise(rng, frames=1, size=size, length=1.5)[0, ..., :1]
    return (80 + 35 * noise).clip(0, 160).astype(np.uint8)


NAMED: dict[str, dict[str, Any]] = {
    "two_64": {},
    "one_32": {"size": 32, "digit_size": 16, "digits": 1},
    "stochastic_32": {"motion": "stochastic", "size": 32, "digit_size": 16, "digits": 1},
    "stochastic_64": {"motion": "stochastic", "digit_size": 32},
    "stochastic_64_30frames": {"motion": "stochastic", "digit_size": 32, "frames": 30},
    "textured_32": {"frames": 10, "size": 32, "digit_size": 16, "digits": 1, "background": "texture", "train": 4_000},
    "tiny_16": {"frames": 8, "size": 16, "digit_size": 8, "digits": 1, "train": 64, "validation": 16, "test": 12},
}
"""Configurations by name: Moving MNIST's sizes (the default), small sets for quick runs, SM-MNIST's sizes, also as
long as it is tested on, a texture behind, and a few clips for tests."""


@dataclasses.dataclass(eq=False, kw_only=True)
class MovingDigitsConfig(tfds.core.BuilderConfig):
    """Settings of one set of clips; each field changes what is on disk.

    Raises:
      InputError: a digit that does not fit, a count below 1, an unknown motion, a negative seed, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    motion: Literal["bounce", "reflect", "stochastic"] = "bounce"
    """How digits move, as published: see the functions of that name."""
    frames: int = 20
    """Length of a clip."""
    size: int = 64
    """Height and width of a clip in pixels."""
    digit_size: int = 28
    """Height and width of a digit in pixels, less than ``size``."""
    digits: int = 2
    """Digits per clip, drawn with replacement."""
    background: Literal["black", "texture"] = "black"
    """What is behind them."""
    train: int = 10_000
    """Clips of the digits for training."""
    validation: int = 1_000
    """Clips of the digits for validation."""
    test: int = 1_000
    """Clips of the digits for testing."""
    seed: int = 0
    """Clip ``i`` of a split depends on the seed, the split and ``i`` alone."""

    def __post_init__(self) -> None:
        for field in ("frames", "digits", "digit_size", *SPLITS):
            if getattr(self, field) < 1:
                raise InputError(f"{field}={getattr(self, field)} in a MovingDigitsConfig: give 1 or more.")
        if self.digit_size >= self.size:
            raise InputError(
                f"digit_size={self.digit_size} in a MovingDigitsConfig leaves no way to go in a clip of "
                f"size={self.size}: give a digit_size below size."
            )
        if self.motion not in MOTIONS:
            raise InputError(f"motion={self.motion!r} in a MovingDigitsConfig: give one of {list(MOTIONS)}.")
        if self.background not in ("black", "texture"):
            raise InputError(
                f"background={self.background!r} in a MovingDigitsConfig: give one of ['black', 'texture']."
            )
        if self.seed < 0:
            raise InputError(f"seed={self.seed} in a MovingDigitsConfig: give 0 or more.")
        if self.name and self.name not in NAMED:
            raise InputError(f"name={self.name!r} in a MovingDigitsConfig: leave it out, it follows from the rest.")
        self.name = self.name or (
            f"{self.motion}_{self.digits}x{self.digit_size}in{self.size}_{self.frames}frames"
            f"_{self.train}_{self.validation}_{self.test}_seed{self.seed}"
            + f"_{self.background}"
            * (self.background != "black")
        )


class MovingDigits(tfds.core.GeneratorBasedBuilder):
    """The clips of a ``MovingDigitsConfig``, prepared without TensorFlow.

    A record has ``video`` uint8 ``[T, H, W, 1]``, ``label`` int64 ``[N]`` (the values of the digits) and ``index``
    int64 ``[N]`` (their places in ``seqjax.data.digits.load``). Record ``i`` of a split is its clip ``i``.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [MovingDigitsConfig(name=name, **fields) for name, fields in NAMED.items()]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits that move in a square and turn at its walls.",
            features=tfds.features.FeaturesDict(
                {
                    "video": tfds.features.Tensor(
                        shape=(config.frames, config.size, config.size, 1), dtype=np.uint8, encoding="zlib"
                    ),
                    "label": tfds.features.Tensor(shape=(config.digits,), dtype=np.int64),
                    "index": tfds.features.Tensor(shape=(config.digits,), dtype=np.int64),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, np.ndarray]]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        config = self.builder_config
        images, labels = load(config.digit_size)
        for i in range(getattr(config, split)):
            rng = np.random.default_rng([config.seed, list(SPLITS).index(split), i])
            index = rng.choice(SPLITS[split], size=config.digits)
            corners = MOTIONS[config.motion](
                rng, frames=config.frames, digits=config.digits, slack=config.size - config.digit_size
            )
            video = overlay(images[index], corners, size=config.size, add=config.motion == "stochastic")
            video = video if config.background == "black" else before(texture(rng, config.size), video)
            yield i, {"video": video, "label": labels[index], "index": index}
