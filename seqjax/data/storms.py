"""Clips of weather with storms in it, their centres and their density maps, as tfds data sets.

``Storms`` is simulated here: pressure and winds on a square, in which vortices drift on curved paths, grow, fade and
merge, among lows that do not rotate. Such a low has the pressure of a storm but winds that blow out of it, so that
pressure alone cannot tell the two apart. ``Cam5Hurricanes`` is made from the published files of S. Kim, H. Kim,
J. Lee, S. Yoon, S. E. Kahou, K. Kashinath, Prabhat, "Deep-Hurricane-Tracker: Tracking and Forecasting Extreme Climate
Events", WACV 2019.

Both have the fields in [0, 1], pressure first, then the eastward and the northward wind. Row 0 is in the south, column
0 in the west, of the northern hemisphere, where storms turn counterclockwise.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Float

from seqjax.errors import InputError

SPLITS = ("train", "validation", "test")
MERGE = 5.0
"""Pixels; two storms whose centres are nearer become one."""
DEVIATION = 0.75
"""Standard deviation of a storm in the density map, over its radius."""


class Lows(NamedTuple):
    """Low-pressure systems over time: T steps of N."""

    centres: Float[np.ndarray, "T N 2"]
    """Row and column in pixels."""
    radius: Float[np.ndarray, "T N"]
    """Of the strongest wind, in pixels."""
    strength: Float[np.ndarray, "T N"]
    """Of that wind, about 1."""
    present: Bool[np.ndarray, "T N"]
    """False once it is part of another, and in records where it has left the square, though its winds still blow in."""


def drift(rng: np.random.Generator, *, frames: int, number: int, size: int) -> Lows:
    """Lows on paths of constant speed and curvature, which grow or fade steadily.

    ``p_t = p_0 + Σ v (sin θ_s, cos θ_s)``, ``θ_s = θ_0 + s κ``: starts lie apart, in cells of a grid of 3 x 3;
    ``v ~ U[0.5, 1.3]`` pixels per step, ``θ_0 ~ U[0, 2π)``, ``κ ~ N(0, 0.15²)``; radius ``R_0 ~ U[1.8, 2.8]`` and
    strength ``s_0 ~ U[0.7, 1]``, both times ``e^{g t / T}``, ``g ~ U[-0.3, 0.5]`` of its own. All is for a square of
    32 pixels; speeds and radii go with its size, at least as half of it.

    Args:
      rng: source of all of it.
      frames: ``T``.
      number: ``N``, 9 at the most.
      size: height and width of the square.
    """
    scale, steps = max(size / 32, 0.5), np.arange(frames)[:, None]
    cells = rng.permutation(9)[:number]
    start = (np.stack([cells // 3, cells % 3], axis=-1) + rng.uniform(0.3, 0.7, (number, 2))) * size / 3
    speed, heading = rng.uniform(0.5, 1.3, number) * scale, rng.uniform(0, 2 * np.pi, number)
    angle = heading + steps * rng.normal(0, 0.15, number)
    way = np.cumsum(speed[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=-1), axis=0)
    growth = np.exp(rng.uniform(-0.3, 0.5, (2, number))[:, None] * steps / frames)
    radius, strength = rng.uniform(1.8, 2.8, number) * scale * growth[0], rng.uniform(0.7, 1, number) * growth[1]
    return Lows(start + way, radius, strength, np.ones((frames, number), bool))


def approach(rng: np.random.Generator, lows: Lows) -> Lows:
    """The second low on its way to the first, which it meets in the last third of the clip or soon after its end."""
    frames = len(lows.centres)
    until = rng.uniform(0.7, 1.2) * frames
    first, second = lows.centres[:, 0], lows.centres[0, 1]
    share = 1 - np.arange(frames)[:, None] / until
    centres = lows.centres.copy()
    centres[:, 1] = first + (second - first[0]) * share.clip(0)
    return lows._replace(centres=centres)


def merge(lows: Lows, *, distance: float) -> Lows:
    """Storms that come nearer than ``distance`` become one, from that step on.

    The stronger one goes on, moved to the mean of both centres weighted by strength; areas and the squares of the
    strengths add up, ``R² = R_a² + R_b²``, ``s² = s_a² + s_b²``. The other one is not present any more.
    """
    centres, radius, strength, present = (x.copy() for x in lows)
    for t in range(len(centres)):
        for a in range(centres.shape[1]):
            for b in range(a):
                both = present[t, a] and present[t, b]
                if not both or np.linalg.norm(centres[t, a] - centres[t, b]) >= distance:
                    continue
                stays, goes = (a, b) if strength[t, a] >= strength[t, b] else (b, a)
                share = strength[t, goes] / (strength[t, a] + strength[t, b])
                centres[t:, stays] += share * (centres[t, goes] - centres[t, stays])
                for quantity in (radius, strength):
                    quantity[t:, stays] *= np.hypot(1, quantity[t, goes] / quantity[t, stays])
                present[t:, goes] = False
    return Lows(centres, radius, strength, present)


def inside(lows: Lows, *, size: int) -> Lows:
    """Those whose centre has left the square are not present."""
    within = ((lows.centres >= 0) & (lows.centres <= size - 1)).all(axis=-1)
    return lows._replace(present=lows.present & within)


def weather(storms: Lows, decoys: Lows, noise: Float[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "T H W 3"]:
    """Pressure, eastward and northward wind, each in [0, 1] with 0.5 for none.

    With ``(x, y)`` east and north of a centre and ``f = exp(-(x² + y²) / 2R²)``, a low takes ``0.3 s f`` from the
    pressure. A storm adds ``0.25 s √e f / R (-y, x)`` to the winds, whose strongest is ``0.25 s`` at ``R``; a decoy
    adds ``0.25 s √e f / R (x, y)``, which has no curl. Outside of [0, 1] all is cut off.
    """
    fields = 0.5 + noise
    for lows, turn in ((storms, True), (decoys, False)):
        offset = _offsets(lows, noise.shape[1:3])
        north, east = np.moveaxis(offset, -1, 0)
        radius = lows.radius[:, None, None]
        strength = (lows.present * lows.strength)[:, None, None]
        shape = strength * np.exp(-np.square(offset).sum(axis=-1) / (2 * radius**2))
        wind = 0.25 * np.sqrt(np.e) * shape / radius
        along = (-north, east) if turn else (east, north)
        fields[..., 0] -= 0.3 * shape.sum(axis=-1)
        for channel, direction in enumerate(along, 1):
            fields[..., channel] += (wind * direction).sum(axis=-1)
    return fields.clip(0, 1).astype(np.float32)


def density(storms: Lows, *, size: int) -> Float[np.ndarray, "T H W 1"]:
    """The map that is to be predicted: the largest of a Gaussian per storm, of deviation ``0.75 R``.

    Each is scaled so that its largest pixel is 1.
    """
    deviation = DEVIATION * storms.radius[:, None, None]
    exponents = -np.square(_offsets(storms, (size, size))).sum(axis=-1) / (2 * deviation**2)
    bumps = np.exp(exponents - exponents.max(axis=(1, 2), keepdims=True)) * storms.present[:, None, None]
    return bumps.max(axis=-1, initial=0)[..., None].astype(np.float32)


def _offsets(lows: Lows, size: tuple[int, ...]) -> Float[np.ndarray, "T H W N 2"]:
    pixels = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    return pixels[None, :, :, None] - lows.centres[:, None, None]


def smooth_noise(
    rng: np.random.Generator, *, frames: int, size: int, length: float = 3.0, memory: float = 0.9
) -> Float[np.ndarray, "T H W 3"]:
    """Three fields of variance 1, smooth over ``length`` pixels, each step correlated with the one before.

    ``n_t = ρ n_{t-1} + √(1 - ρ²) e_t``, ``ρ`` = memory, ``e_t`` white noise through a Gaussian filter that is periodic.
    """
    frequency = np.fft.fftfreq(size)
    response = np.exp(-2 * (np.pi * length) ** 2 * (frequency[:, None] ** 2 + frequency**2))
    response /= np.sqrt(np.square(response).mean())
    white = rng.normal(size=(frames, 3, size, size))
    fresh = np.fft.ifft2(np.fft.fft2(white) * response).real
    for t in range(1, frames):
        fresh[t] = memory * fresh[t - 1] + np.sqrt(1 - memory**2) * fresh[t]
    return np.moveaxis(fresh, 1, -1)


NAMED: dict[str, dict[str, Any]] = {
    "square_32": {},
    "square_64": {"size": 64, "storms": 3, "decoys": 3},
    "tiny_16": {"frames": 6, "size": 16, "train": 48, "validation": 8, "test": 12},
}
"""Configurations by name: the default, a larger square, and a few clips for tests."""


@dataclasses.dataclass(eq=False, kw_only=True)
class StormsConfig(tfds.core.BuilderConfig):
    """Settings of one simulated set; each field changes what is on disk.

    Raises:
      InputError: a count out of range, a negative seed or noise, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    frames: int = 10
    """Length of a clip."""
    size: int = 32
    """Height and width in pixels."""
    storms: int = 2
    """The most storms of a clip; it has 1 or more, all numbers equally likely."""
    decoys: int = 2
    """The most lows that do not rotate; likewise."""
    meeting: float = 0.3
    """Share of the clips of two storms or more whose second comes towards the first."""
    noise: float = 0.05
    """Standard deviation of the weather around them."""
    train: int = 1_000
    """Clips for training."""
    validation: int = 100
    """Clips for validation."""
    test: int = 200
    """Clips for testing."""
    seed: int = 0
    """Clip ``i`` of a split depends on the seed, the split and ``i`` alone."""

    def __post_init__(self) -> None:
        least = {"frames": 1, "size": 16, "seed": 0, "noise": 0, "meeting": 0} | dict.fromkeys(SPLITS, 1)
        for field, low in least.items():
            if getattr(self, field) < low:
                raise InputError(f"{field}={getattr(self, field)} in a StormsConfig: give {low} or more.")
        for field in ("storms", "decoys"):
            if not 1 <= getattr(self, field) <= 9:
                raise InputError(f"{field}={getattr(self, field)} in a StormsConfig: give 1 to 9.")
        if self.name and self.name not in NAMED:
            raise InputError(f"name={self.name!r} in a StormsConfig: leave it out, it follows from the rest.")
        self.name = self.name or (
            f"{self.storms}and{self.decoys}in{self.size}_{self.frames}frames_meeting{self.meeting}_noise{self.noise}"
            f"_{self.train}_{self.validation}_{self.test}_seed{self.seed}"
        )


class Storms(tfds.core.GeneratorBasedBuilder):
    """The clips of a ``StormsConfig``, prepared without TensorFlow.

    A record has ``fields`` float32 ``[T, H, W, 3]``, ``density`` float32 ``[T, H, W, 1]``, ``centres`` float32
    ``[T, N, 2]`` (row and column in pixels) and ``present`` bool ``[T, N]``, N being the most that there may be; rows
    of storms that are not present are -1.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [StormsConfig(name=name, **fields) for name, fields in NAMED.items()]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        clip = (config.frames, config.size, config.size)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Simulated pressure and winds with storms among lows that do not rotate.",
            features=tfds.features.FeaturesDict(
                {
                    "fields": tfds.features.Tensor(shape=(*clip, 3), dtype=np.float32, encoding="zlib"),
                    "density": tfds.features.Tensor(shape=(*clip, 1), dtype=np.float32, encoding="zlib"),
                    "centres": tfds.features.Tensor(shape=(config.frames, config.storms, 2), dtype=np.float32),
                    "present": tfds.features.Tensor(shape=(config.frames, config.storms), dtype=np.bool_),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, np.ndarray]]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for i in range(getattr(self.builder_config, split)):
            rng = np.random.default_rng([self.builder_config.seed, SPLITS.index(split), i])
            yield i, simulate(rng, self.builder_config)


def simulate(rng: np.random.Generator, config: StormsConfig) -> dict[str, np.ndarray]:
    """One record of ``Storms``."""
    frames, size = config.frames, config.size
    number, others = (int(rng.integers(1, most, endpoint=True)) for most in (config.storms, config.decoys))
    lows = drift(rng, frames=frames, number=min(number + others, 9), size=size)
    storms, decoys = (Lows(*(x[:, part] for x in lows)) for part in (slice(number), slice(number, None)))
    if number > 1 and rng.random() < config.meeting:
        storms = approach(rng, storms)
    storms = merge(storms, distance=MERGE * max(size / 32, 0.5))
    fields = weather(storms, decoys, config.noise * smooth_noise(rng, frames=frames, size=size))
    storms = inside(storms, size=size)
    present = np.zeros((frames, config.storms), bool)
    present[:, :number] = storms.present
    centres = np.full((frames, config.storms, 2), -1, np.float32)
    centres[present] = storms.centres[storms.present]
    return {"fields": fields, "density": density(storms, size=size), "centres": centres, "present": present}


FILES = {"fields": "hurricane_image", "density": "hurricane_label"}
"""What the names of the published files of ``Cam5Hurricanes`` begin with."""


class Cam5Hurricanes(tfds.core.GeneratorBasedBuilder):
    """Hurricanes of a climate simulation (CAM5, 1996 to 2015, every 3 hours, 0-60°N and 180-340°E at half a degree).

    A record has ``fields`` float32 ``[10, 128, 257, 6]`` (sea level pressure, eastward and northward wind at 850 hPa,
    precipitation, surface temperature, humidity, each scaled to [0, 1]) and ``density`` float32 ``[10, 128, 257, 1]``,
    a Gaussian for every storm that the TECA toolkit finds. The files are memory-mapped, for they are larger than most
    memories, and read from one end to the other.

    Splits are blocks in the order of the files, never drawn at random, for neighbouring clips overlap in time: of one
    file 80, 10 and 10 %; where there is one of training and one of testing, 90 and 10 % of the first and the second as
    it is. The clips before a seam that could reach over it, one less than a clip has steps, are in none.
    """

    name = "cam5_hurricanes"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put hurricane_image.npy and hurricane_label.npy there, or hurricane_image_train.npy, "
        "hurricane_label_train.npy, hurricane_image_test.npy and hurricane_label_test.npy, from "
        "https://doi.org/10.6075/J0862DZ8."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Simulated climate with the density maps of its hurricanes.",
            features=tfds.features.FeaturesDict(
                {key: tfds.features.Tensor(shape=(None,) * 4, dtype=np.float32, encoding="zlib") for key in FILES}
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, np.ndarray]]]]:
        folder = Path(dl_manager.manual_dir)
        if (folder / f"{FILES['fields']}_train.npy").exists():
            train, test = read(folder, "_train"), read(folder, "_test")
            found = split_up(train, {"train": 0.9, "validation": 0.1}) | split_up(test, {"test": 1.0})
        else:
            found = split_up(read(folder, ""), {"train": 0.8, "validation": 0.1, "test": 0.1})
        return {split: self._generate_examples(*clips) for split, clips in found.items()}

    def _generate_examples(
        self, arrays: dict[str, np.ndarray], block: range
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for i in block:
            yield i, {key: np.asarray(array[i], np.float32) for key, array in arrays.items()}


def split_up(arrays: dict[str, np.ndarray], shares: dict[str, float]) -> dict[str, tuple[dict[str, np.ndarray], range]]:
    """Of each split the arrays and the clips in them: blocks of these shares, a gap before every seam.

    Raises:
      InputError: too few clips for one in each.
    """
    clips, frames = arrays["fields"].shape[:2]
    ends = [round(share * clips) for share in np.cumsum(list(shares.values()))]
    last = [end - (frames - 1) for end in ends[:-1]] + [clips]
    blocks = [range(start, end) for start, end in zip([0, *ends[:-1]], last, strict=True)]
    if not all(blocks):
        raise InputError(
            f"Cam5Hurricanes: {clips} clips of {frames} steps came, too few for the splits {list(shares)} with "
            f"{frames - 1} clips left out before every seam."
        )
    return {split: (arrays, block) for split, block in zip(shares, blocks, strict=True)}


def read(folder: Path, ending: str) -> dict[str, np.ndarray]:
    """The published arrays, memory-mapped; ``ending`` is what their names have before ``.npy``.

    Raises:
      InputError: they are not there, or are not clips and maps that belong together.
    """
    try:
        arrays = {key: np.load(folder / f"{file}{ending}.npy", mmap_mode="r") for key, file in FILES.items()}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{folder} does not hold the files of Cam5Hurricanes ({type(error).__name__}: {error}). "
            f"{Cam5Hurricanes.MANUAL_DOWNLOAD_INSTRUCTIONS}"
        ) from error
    fields, maps = (array.shape for array in arrays.values())
    if len(fields) != 5 or maps != (*fields[:4], 1):
        raise InputError(
            f"{folder}: {FILES['fields']}{ending}.npy has the shape {fields} and {FILES['density']}{ending}.npy "
            f"{maps}; expected [N, T, H, W, C] and [N, T, H, W, 1]."
        )
    return arrays
