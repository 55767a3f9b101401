"""Coloured shapes on black, described, asked about and framed: one small set for all that joins pictures and words.

Captioning, retrieval, visual question answering and situation recognition read the same pictures. Everything said of
them follows from a few rules (``seqjax.data.scene_language``), so that what a model says can be checked, and what can
be reached without looking is known: a caption's objects and relation are worth

    4 ln 4 + 0.9682 = 6.513 nats

if all sixteen kinds of object occur, and 2 ln 12 + 0.9682 = 5.938 nats if the four of ``HELD_OUT`` do not.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Int64, UInt8

from seqjax.data import scene_language as language
from seqjax.data.scene_language import COLOURS, SHAPES, Scene, Thing
from seqjax.errors import InputError

GRID = 4
"""Cells along each side of a picture."""
NOISE = 0.05
"""Standard deviation of the noise on every pixel and channel, on the scale [0, 1]; what leaves it is cut off."""
RGB = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
HELD_OUT = (("red", "circle"), ("green", "triangle"), ("blue", "cross"), ("yellow", "square"))
"""Kinds of object that only ``novel`` shows: every colour and every shape is known from others."""
SPLITS = ("train", "validation", "test", "novel")


def mask(shape: str, side: int) -> Bool[np.ndarray, "S S"]:
    """Where a shape is, in a cell of ``side`` pixels: lengths below are in eighths of it, (y, x) from the centre.

    square: ``max(|y|, |x|) < 3``; circle: ``y² + x² < 9.5``; triangle: ``-3.5 < y < 3.5``, ``|x| <= (y + 3.5) / 2``;
    cross: ``min(|y|, |x|) < 1.1`` and ``max(|y|, |x|) < 3.6``.
    """
    line = (np.arange(side) - (side - 1) / 2) * (8 / side)
    y, x = np.meshgrid(line, line, indexing="ij")
    far, near = np.maximum(abs(y), abs(x)), np.minimum(abs(y), abs(x))
    return {
        "square": far < 3,
        "circle": y**2 + x**2 < 9.5,
        "triangle": (abs(y) < 3.5) & (abs(x) <= (y + 3.5) / 2),
        "cross": (near < 1.1) & (far < 3.6),
    }[shape]


def render(rng: np.random.Generator, scene: Scene, size: int) -> UInt8[np.ndarray, "S S 3"]:
    """The picture of a scene, each object filling its cell, with noise."""
    side = size // GRID
    canvas = np.zeros((size, size, 3))
    for thing in scene:
        rows, columns = (slice(place * side, (place + 1) * side) for place in (thing.row, thing.column))
        canvas[rows, columns][mask(thing.shape, side)] = RGB[thing.colour]
    return np.rint(canvas + rng.normal(scale=255 * NOISE, size=canvas.shape)).clip(0, 255).astype(np.uint8)


def boxes(cells: Int64[np.ndarray, "*N 2"], side: int) -> Int64[np.ndarray, "*N 4"]:
    """Top, left, bottom, right of cells in pixels, the last two exclusive."""
    return np.concatenate([cells, cells + 1], axis=-1) * side


def arrange(rng: np.random.Generator, number: int) -> Int64[np.ndarray, "{number} 2"]:
    """Cells of objects, (row, column) in reading order, no two on one diagonal: which way one lies is never in doubt.

    All such sets of cells are equally likely; of two objects there are 92: 46 times the first lies above the second, 35
    times left of it, 11 times right.
    """
    while True:
        cells = np.stack(np.divmod(np.sort(rng.choice(GRID * GRID, number, replace=False)), GRID), axis=1)
        down, across = abs(cells[:, None] - cells[None]).transpose(2, 0, 1)
        if not np.triu(down == across, 1).any():
            return cells.astype(np.int64)


def draw(rng: np.random.Generator, number: int, *, held_out: bool, novel: bool, relational: bool) -> Scene:
    """A scene about which enough can be asked.

    Args:
      rng: source of cells, colours and shapes.
      number: of objects, 2 to 4.
      held_out: whether the kinds of ``HELD_OUT`` are left out.
      novel: whether one object, whichever, is of those kinds after all.
      relational: whether it may be asked about with reference to place and to other objects.
    """
    every = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    usual = [kind for kind in every if not held_out or kind not in HELD_OUT]
    while True:
        kinds = [usual[i] for i in rng.integers(len(usual), size=number)]
        if novel:
            kinds[rng.integers(number)] = HELD_OUT[rng.integers(len(HELD_OUT))]
        cells = arrange(rng, number).tolist()
        scene = tuple(Thing(*kind, *cell) for kind, cell in zip(kinds, cells, strict=True))
        if language.can_be_asked_about(scene, relational=relational):
            return scene


NAMED: dict[str, dict[str, Any]] = {
    "two": {},
    "two_all": {"held_out": False},
    "four": {"size": 64, "objects": 4, "relational": True},
    "tiny": {"train": 64, "validation": 16, "test": 16, "novel": 16},
}
"""Configurations by name: two objects (the default); the same with all kinds in every split; four objects, asked about
by place and by relation; and a few scenes for tests."""


@dataclasses.dataclass(eq=False, kw_only=True)
class ScenesConfig(tfds.core.BuilderConfig):
    """Settings of one set of scenes; each field changes what is on disk.

    Raises:
      InputError: a size, number or count out of range, a negative seed, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    size: int = 32
    """Height and width in pixels, a multiple of 4 from 32 on."""
    objects: int = 2
    """Objects in a picture, 2 to 4."""
    held_out: bool = True
    """Whether the kinds of ``HELD_OUT`` are kept for ``novel``; without, there is no such split."""
    relational: bool = False
    """Whether questions also refer to objects by place ("the highest thing") and by relation ("the thing left of the
    red cross") where their looks would do."""
    train: int = 12_000
    """Scenes for training."""
    validation: int = 1_000
    """Scenes for validation."""
    test: int = 1_000
    """Scenes for testing, of the kinds known from training."""
    novel: int = 1_000
    """Scenes for testing in which one object is of a kind that no other split shows."""
    seed: int = 0
    """Scene ``i`` of a split depends on the seed, the split and ``i`` alone."""

    def __post_init__(self) -> None:
        for field, least in {**dict.fromkeys(SPLITS, 1), "seed": 0, "size": 32, "objects": 2}.items():
            if getattr(self, field) < least:
                raise InputError(f"{field}={getattr(self, field)} in a ScenesConfig: give {least} or more.")
        if self.size % GRID or self.objects > language.OPTIONS:
            raise InputError(
                f"size={self.size} and objects={self.objects} in a ScenesConfig: give a multiple of {GRID}, and up to "
                f"{language.OPTIONS} objects."
            )
        if self.name and self.name not in NAMED:
            raise InputError(f"name={self.name!r} in a ScenesConfig: leave it out, it follows from the rest.")
        flags = "".join(f"_{flag}" for flag in ("held_out", "relational") if getattr(self, flag))
        counts = "_".join(str(getattr(self, split)) for split in SPLITS)
        self.name = self.name or f"{self.objects}in{self.size}{flags}_{counts}_seed{self.seed}"


class Scenes(tfds.core.GeneratorBasedBuilder):
    """Scenes of a ``ScenesConfig``, prepared without TensorFlow.

    Record ``i`` of a split is its scene ``i``. Text is UTF-8; ids of colours, shapes and so on are places in the tuples
    of ``seqjax.data.scene_language``. A record has

    - ``image`` uint8 ``[S, S, 3]``, and ``index``, which is ``i``;
    - ``boxes`` int64 ``[N, 4]``: top, left, bottom, right in pixels, in reading order; ``colours``, ``shapes`` ``[N]``;
    - ``captions``, five texts, the first of one form; ``meaning``: which of the 768 things the first says;
    - ``question`` text ``[2]``, ``kind`` ``[2]``, ``options`` text ``[2, 4]``, ``answer`` ``[2]``: the right option;
    - ``pointing_question`` text ``[2]``, ``pointing_boxes`` ``[2, 4, 4]``, ``pointing_answer`` ``[2]``: likewise, boxes
      instead of words, those of other objects first, then those of empty cells;
    - ``verb``, the relation that the first caption names, and ``nouns`` ``[3, 4]``, what each annotator put into the
      roles of ``ROLES``.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [ScenesConfig(name=name, **fields) for name, fields in NAMED.items()]

    def _info(self) -> tfds.core.DatasetInfo:
        size, number = self.builder_config.size, self.builder_config.objects
        questions, options = language.QUESTIONS, language.OPTIONS
        text = functools.partial(tfds.features.Tensor, dtype=np.object_)
        whole = functools.partial(tfds.features.Tensor, dtype=np.int64)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Coloured shapes with captions, questions, boxes and frames.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(size, size, 3), dtype=np.uint8, encoding="zlib"),
                    "index": whole(shape=()),
                    "boxes": whole(shape=(number, 4)),
                    "colours": whole(shape=(number,)),
                    "shapes": whole(shape=(number,)),
                    "captions": text(shape=(language.CAPTIONS,)),
                    "meaning": whole(shape=()),
                    "question": text(shape=(questions,)),
                    "options": text(shape=(questions, options)),
                    "answer": whole(shape=(questions,)),
                    "kind": whole(shape=(questions,)),
                    "pointing_question": text(shape=(questions,)),
                    "pointing_boxes": whole(shape=(questions, options, 4)),
                    "pointing_answer": whole(shape=(questions,)),
                    "verb": whole(shape=()),
                    "nouns": whole(shape=(language.ANNOTATORS, len(language.ROLES))),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in SPLITS[: 4 if self.builder_config.held_out else 3]}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for i in range(getattr(self.builder_config, split)):
            yield i, self._record(split, i)

    def _record(self, split: str, i: int) -> dict[str, Any]:
        config = self.builder_config
        rng, side = np.random.default_rng([config.seed, SPLITS.index(split), i]), config.size // GRID
        scene = draw(
            rng, config.objects, held_out=config.held_out, novel=split == "novel", relational=config.relational
        )
        told = language.tell(rng, scene, relational=config.relational)
        pointed = language.point(rng, scene, relational=config.relational, grid=GRID)
        return {
            "image": render(rng, scene, config.size),
            "index": i,
            "boxes": boxes(np.array([(thing.row, thing.column) for thing in scene]), side),
            "colours": [COLOURS.index(thing.colour) for thing in scene],
            "shapes": [SHAPES.index(thing.shape) for thing in scene],
            "captions": language.captions(rng, scene),
            "meaning": language.meaning(scene),
            "question": [question.text for question, _ in told],
            "options": [options for _, options in told],
            "answer": [options.index(question.answer) for question, options in told],
            "kind": [language.KINDS.index(question.kind) for question, _ in told],
            "pointing_question": [question.text for question in pointed],
            "pointing_boxes": boxes(np.stack([question.cells for question in pointed]), side),
            "pointing_answer": [question.answer for question in pointed],
            "verb": language.RELATIONS.index(language.relation(*scene[:2])),
            "nouns": language.annotate(rng, scene),
        }
