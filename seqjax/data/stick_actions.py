"""Articulated figures that walk, jump and wave before a moving camera: one small set for all that watches people.

Recognition, localisation, pose estimation, optical flow and video prediction read the same clips. Everything told of
them is exact: the joints of Penn Action with their visibility, the action of each person in each frame, their boxes,
and where every pixel goes until the next frame. Actors of one split are in no other.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Float, Int

from seqjax.data import stick_figures as figures
from seqjax.data.stick_figures import JOINTS, Body, Capsules, Motion
from seqjax.data.stick_motions import ACTIONS, actor, perform
from seqjax.errors import InputError

SPLITS = ("train", "validation", "test")
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
"""Of the actors."""


class Background(NamedTuple):
    """A wall and a floor with waves on them, known at every point, so that a camera may move by parts of a pixel."""

    wall: Float[np.ndarray, "3"]
    floor: Float[np.ndarray, "3"]
    horizon: float
    """Row at which they meet."""
    waves: Float[np.ndarray, "3 3"]
    """Of each wave: cycles per pixel down and along, and its phase."""
    tints: Float[np.ndarray, "3 3"]
    """Of each wave, its amplitude in RGB."""


def scenery(rng: np.random.Generator, *, size: int, ground: float, texture: float) -> Background:
    """A background in muted colours, the floor the darker, whose waves are a third to one and a half frames long."""
    wall, tone = rng.uniform(0.45, 0.85) + rng.uniform(-0.1, 0.1, size=3), rng.uniform(0.5, 0.75)
    rate, angle = rng.uniform(0.7, 3, size=3) / size, rng.uniform(0, np.pi, size=3)
    phase = rng.uniform(0, 2 * np.pi, size=3)
    waves = np.stack([rate * np.sin(angle), rate * np.cos(angle), phase], axis=-1)
    tints = texture * (rng.normal(size=(3, 1)) + 0.4 * rng.normal(size=(3, 3)))
    return Background(wall, tone * wall[::-1], ground - rng.uniform(0.03, 0.12) * size, waves, tints)


def paint(background: Background, size: int, shift: Float[np.ndarray, " T"]) -> Float[np.ndarray, "T {size} {size} 3"]:
    """The background, frame by frame, ``shift`` pixels to the right."""
    row = np.arange(size)[None, :, None]
    column = np.arange(size)[None, None] - shift[:, None, None]
    below = (row - background.horizon + 0.5).clip(0, 1)[..., None]
    frames = background.wall + below * (background.floor - background.wall)
    for (down, along, phase), tint in zip(background.waves, background.tints, strict=True):
        frames = frames + np.sin(2 * np.pi * (down * row + along * column) + phase)[..., None] * tint
    return frames.clip(0, 1)


class Person(NamedTuple):
    """A figure in a clip."""

    body: Body
    motion: Motion
    action: Int[np.ndarray, " T"]
    """Places in ``ACTIONS``."""
    heading: float
    """Where it faces, 0 to the right and π/2 towards the camera."""
    scale: float
    """Pixels per leg."""
    ground: float
    """Row of the ground under it."""
    middle: float
    """Column in the middle of the clip, if the camera goes along."""


NAMED: dict[str, dict[str, Any]] = {
    "one_64": {},
    "change_64": {"change": 1.0},
    "two_64": {"persons": 2, "change": 0.5},
    "flow_64": {"flow": True, "frames": 16},
    "long_32": {"size": 32, "frames": 74, "texture": 0.0},
    "tiny_16": {"size": 16, "frames": 8, "actors": 10, "train": 48, "validation": 8, "test": 12, "flow": True},
}
"""Configurations by name: one person who does one thing (the default); one who goes over to another; two of whom either
may; short clips with optical flow; small long ones before a plain wall, for prediction; and a few clips for tests."""


@dataclasses.dataclass(eq=False, kw_only=True)
class StickActionsConfig(tfds.core.BuilderConfig):
    """Settings of one set of clips; each field changes what is on disk.

    Raises:
      InputError: a number out of range, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    frames: int = 32
    """Length of a clip."""
    size: int = 64
    """Height and width in pixels."""
    persons: int = 1
    """Figures in a clip, up to 3; who comes later is nearer."""
    change: float = 0.0
    """Share of the persons who, near the middle of the clip, go over to another action."""
    texture: float = 0.05
    """Amplitude of each of the three waves on the background, on the scale [0, 1]; on a plain one that the camera moves
    cannot be seen."""
    flow: bool = False
    """Whether optical flow is stored too, which is as large as the clip."""
    actors: int = 100
    """Of all splits together, 10 or more."""
    train: int = 1_000
    """Clips of the actors for training."""
    validation: int = 100
    """Clips of the actors for validation."""
    test: int = 200
    """Clips of the actors for testing."""
    seed: int = 0
    """Clip ``i`` of a split depends on the seed, the split and ``i`` alone, an actor on the seed and its number."""

    def __post_init__(self) -> None:
        least = {
            "frames": 2,
            "size": 16,
            "persons": 1,
            "change": 0,
            "texture": 0,
            "actors": 10,
            "seed": 0,
        } | dict.fromkeys(SPLITS, 1)
        for field, low in least.items():
            if getattr(self, field) < low:
                raise InputError(f"{field}={getattr(self, field)} in a StickActionsConfig: give {low} or more.")
        for field, high in {"persons": 3, "change": 1}.items():
            if getattr(self, field) > high:
                raise InputError(f"{field}={getattr(self, field)} in a StickActionsConfig: give {high} at the most.")
        if self.name and self.name not in NAMED:
            raise InputError(f"name={self.name!r} in a StickActionsConfig: leave it out, it follows from the rest.")
        self.name = self.name or (
            f"{self.persons}in{self.size}_{self.frames}frames_change{self.change}_texture{self.texture}"
            f"{'_flow' * self.flow}_{self.actors}actors_{self.train}_{self.validation}_{self.test}_seed{self.seed}"
        )


class StickActions(tfds.core.GeneratorBasedBuilder):
    """The clips of a ``StickActionsConfig``, prepared without TensorFlow.

    A record has, with T frames, P persons, the farthest first, and 13 joints (``stick_figures.JOINTS``),

    - ``video`` uint8 ``[T, S, S, 3]``, and ``label``, what the first person does in most frames: a place in
      ``ACTIONS``;
    - ``joints`` float32 ``[T, P, 13, 2]``: row and column in pixels, outside of the frame too; ``visible`` bool
      ``[T, P, 13]``: in the frame, and no nearer person is there (one's own limbs hide nothing);
    - ``action`` int64 ``[T, P]``, ``actor`` int64 ``[P]``;
    - ``boxes`` float32 ``[T, P, 4]``: top, left, bottom, right edge in pixels, cut off at the frame's, of all that
      would be seen of a person who stood alone; ``present`` bool ``[T, P]``: whether that is anything, else the box is
      -1. The boxes of a person are a tube;
    - with ``flow``, ``flow`` float16 ``[T-1, S, S, 2]``: rows and columns that what a pixel shows moves until the next
      frame, whether or not it is seen there.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [StickActionsConfig(name=name, **fields) for name, fields in NAMED.items()]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        frames, size, persons = config.frames, config.size, config.persons
        tensor = tfds.features.Tensor
        features = {
            "video": tensor(shape=(frames, size, size, 3), dtype=np.uint8, encoding="zlib"),
            "label": tensor(shape=(), dtype=np.int64),
            "joints": tensor(shape=(frames, persons, len(JOINTS), 2), dtype=np.float32),
            "visible": tensor(shape=(frames, persons, len(JOINTS)), dtype=np.bool_),
            "action": tensor(shape=(frames, persons), dtype=np.int64),
            "actor": tensor(shape=(persons,), dtype=np.int64),
            "boxes": tensor(shape=(frames, persons, 4), dtype=np.float32),
            "present": tensor(shape=(frames, persons), dtype=np.bool_),
        }
        if config.flow:
            features["flow"] = tensor(shape=(frames - 1, size, size, 2), dtype=np.float16, encoding="zlib")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Articulated figures that walk, jump, wave and so on, with joints, boxes and optical flow.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, np.ndarray]]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for i in range(getattr(self.builder_config, split)):
            rng = np.random.default_rng([self.builder_config.seed, SPLITS.index(split), i])
            yield i, film(rng, self.builder_config, split)


def cast(config: StickActionsConfig, split: str) -> range:
    """The numbers of the actors of a split."""
    ends = np.rint(np.cumsum([0, *SHARES.values()]) * config.actors).astype(int)
    place = SPLITS.index(split)
    return range(ends[place], ends[place + 1])


def film(rng: np.random.Generator, config: StickActionsConfig, split: str) -> dict[str, np.ndarray]:
    """One record of ``StickActions``."""
    actors = rng.choice(cast(config, split), size=config.persons)
    bodies = [actor(np.random.default_rng([config.seed, len(SPLITS), number])) for number in actors]
    persons = [place(rng, config, body, k) for k, body in enumerate(bodies)]
    ways = pan(rng, config, persons)
    joints = np.stack([locate(person, way) for person, way in zip(persons, ways.columns, strict=True)], axis=1)
    parts = [
        figures.capsules(person.body, joints[:, k], heading=person.heading, scale=person.scale)
        for k, person in enumerate(persons)
    ]
    scene = scenery(rng, size=config.size, ground=persons[0].ground, texture=config.texture)
    background = paint(scene, config.size, ways.background)
    frames, shown = figures.draw(figures.join(parts), background)
    action = np.stack([person.action for person in persons], axis=1)
    record = {
        "video": np.rint(255 * frames).astype(np.uint8),
        "label": np.bincount(action[:, 0]).argmax(),
        "joints": joints[..., :2].astype(np.float32),
        "visible": visible(joints[..., :2], shown, len(parts[0].radius)),
        "action": action,
        "actor": actors,
    } | framed(parts, config.size)
    if config.flow:
        moved = np.array([0, np.diff(ways.background)[0]])
        record["flow"] = figures.flow(figures.join(parts), shown, moved).astype(np.float16)
    return record


def place(rng: np.random.Generator, config: StickActionsConfig, body: Body, k: int) -> Person:
    """Someone who does something, seen half from the front, feet near the lower border."""
    first, second = rng.choice(len(ACTIONS), size=2, replace=False)
    start = round(config.frames * rng.uniform(0.35, 0.65)) if rng.random() < config.change else config.frames + 10
    motion = perform(rng, np.array([first, second]), np.array([-10, start]), frames=config.frames)
    heading = np.deg2rad(rng.uniform(30, 65))
    tall = rng.uniform(0.6, 0.74) if config.persons == 1 else rng.uniform(0.48, 0.58)
    slot = (k + 0.5) / config.persons + rng.uniform(-0.08, 0.08)
    return Person(
        body,
        motion,
        np.where(np.arange(config.frames) < start, first, second),
        heading if rng.random() < 0.5 else np.pi - heading,
        tall * config.size / body.height,
        config.size * (rng.uniform(0.86, 0.9) + 0.03 * k),
        config.size * slot,
    )


class Ways(NamedTuple):
    """What a camera that moves evenly makes of a clip."""

    columns: Float[np.ndarray, "P T"]
    """Of the point where each person began."""
    background: Float[np.ndarray, " T"]
    """Pixels that the background has gone to the right."""


def pan(rng: np.random.Generator, config: StickActionsConfig, persons: list[Person]) -> Ways:
    """A camera that follows someone who is alone, but for a sixth of the frame; several it hardly follows."""
    middle = np.arange(config.frames) - (config.frames - 1) / 2
    follow = 0.0
    if config.persons == 1:
        follow = float(np.mean(persons[0].motion.speed) * persons[0].scale * np.cos(persons[0].heading))
    drift = rng.uniform(-0.17, 0.17) * config.size / (config.frames - 1) - follow
    columns = []
    for person in persons:
        way = np.cumsum(person.motion.speed) * person.scale * np.cos(person.heading)
        columns.append(person.middle - np.median(way) + drift * middle)
    return Ways(np.stack(columns), drift * middle)


def locate(person: Person, column: Float[np.ndarray, " T"]) -> Float[np.ndarray, "T 13 3"]:
    """The joints on the screen."""
    joints = figures.pose(person.body, person.motion)
    return figures.project(joints, heading=person.heading, scale=person.scale, ground=person.ground, column=column)


def visible(
    joints: Float[np.ndarray, "T P J 2"], shown: Int[np.ndarray, "T S S"], parts: int
) -> Bool[np.ndarray, "T P J"]:
    """Joints in the frame, at a pixel that shows no nearer person; each has so many ``parts``."""
    pixels = np.rint(joints).astype(int)
    size = shown.shape[1]
    inside = ((pixels >= 0) & (pixels < size)).all(axis=-1)
    row, column = np.moveaxis(pixels.clip(0, size - 1), -1, 0)
    nearest = shown[np.arange(len(shown))[:, None, None], row, column] // parts
    return inside & (nearest <= np.arange(joints.shape[1])[None, :, None])


def framed(parts: list[Capsules], size: int) -> dict[str, np.ndarray]:
    """Boxes and whether persons are present."""
    found, present = zip(*(figures.boxes(figure, (size, size)) for figure in parts), strict=True)
    there = np.stack(present, axis=1)
    return {"boxes": np.where(there[..., None], np.stack(found, axis=1), -1).astype(np.float32), "present": there}
