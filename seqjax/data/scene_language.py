"""What is said of scenes: captions from a grammar, questions with options, frames of a verb and its roles.

All of it is in the words of a few rules, so there is a right and a wrong:

- captions in the manner of image captioning, ``a red square is left of a blue cross``, five different ones each;
- questions after Visual7W (Y. Zhu, O. Groth, M. Bernstein, L. Fei-Fei, "Visual7W: Grounded Question Answering in
  Images", CVPR 2016): telling ones, answered by a word, and pointing ones, answered by a box, with four options;
- frames after imSitu (M. Yatskar, L. Zettlemoyer, A. Farhadi, "Situation Recognition: Visual Semantic Role Labeling for
  Image Understanding", CVPR 2016): a verb, and for each of its roles a noun from each of three annotators, who err.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("square", "circle", "triangle", "cross")
RELATIONS = ("left", "above", "right", "below")
"""Where one thing lies, seen from another; the first in reading order is never below, so captions that name the first
two things in this order know three."""
ROWS = ("top", "upper", "lower", "bottom")
KINDS = ("colour", "shape", "row")
"""What telling questions ask for."""
ANSWERS = {"colour": COLOURS, "shape": SHAPES, "row": ROWS}
NOUNS = COLOURS + SHAPES
ROLES = ("first colour", "first shape", "second colour", "second shape")
"""Of every verb, which are the relations; "first" in reading order."""
PHRASES = {
    "left": ("left of", "to the left of"),
    "above": ("above", "over"),
    "right": ("right of", "to the right of"),
    "below": ("below", "under"),
}
SENTENCES = (
    "a {one} is {where} a {other}",
    "a {one} sits {where} a {other}",
    "there is a {one} {where} a {other}",
    "{where} a {other} is a {one}",
    "we see a {one} {where} a {other}",
)
CAPTIONS, QUESTIONS, OPTIONS, ANNOTATORS = 5, 2, 4, 3
"""Of each record: captions, questions of each sort, options of a question, annotators of a frame."""
SLIP = 0.15
"""Probability with which an annotator draws a noun from all of the role's instead of naming the true one."""


class Thing(NamedTuple):
    """An object of a scene, and its cell."""

    colour: str
    shape: str
    row: int
    column: int

    @property
    def looks(self) -> str:
        """Colour and shape in words."""
        return f"{self.colour} {self.shape}"


Scene = tuple[Thing, ...]
"""Things in reading order, no two on one diagonal."""


class Reference(NamedTuple):
    """Words that fit one thing of a scene and no other."""

    words: str
    place: int
    """Of the thing."""
    tells: tuple[str, ...]
    """Which of its looks the words give away."""


def relation(one: Thing, other: Thing) -> str:
    """Where ``one`` lies, seen from ``other``: along the axis on which they are farther apart."""
    down, across = one.row - other.row, one.column - other.column
    if abs(across) > abs(down):
        return "left" if across < 0 else "right"
    return "above" if down < 0 else "below"


def meaning(scene: Scene) -> int:
    """What the first caption says, as a number below 768: looks of the first two things, and their relation."""
    first, second = ((COLOURS.index(t.colour), SHAPES.index(t.shape)) for t in scene[:2])
    places = (*first, RELATIONS.index(relation(*scene[:2])), *second)
    return int(np.ravel_multi_index(places, (4, 4, 3, 4, 4)))


def sentences(one: Thing, other: Thing) -> list[str]:
    """The twenty true sentences about two things; the first is "a .. is .. a ..", said of ``one``."""
    return [
        sentence.format(one=a.looks, where=phrase, other=b.looks)
        for a, b in ((one, other), (other, one))
        for sentence in SENTENCES
        for phrase in PHRASES[relation(a, b)]
    ]


def captions(rng: np.random.Generator, scene: Scene) -> list[str]:
    """Five different captions: first ``sentences(..)[0]`` of the first two things, then any about any two."""
    every = list(dict.fromkeys(s for pair in itertools.combinations(scene, 2) for s in sentences(*pair)))
    return [every[0], *(every[i] for i in rng.choice(np.arange(1, len(every)), CAPTIONS - 1, replace=False))]


def by_looks(scene: Scene) -> list[Reference]:
    """The things that can be told by colour, by shape, or by both."""
    found = []
    for place, thing in enumerate(scene):
        for words, tells in (
            (f"the {thing.shape}", ("shape",)),
            (f"the {thing.colour} thing", ("colour",)),
            (f"the {thing.looks}", ("colour", "shape")),
        ):
            if sum(all(getattr(t, look) == getattr(thing, look) for look in tells) for t in scene) == 1:
                found.append(Reference(words, place, tells))
    return found


def by_place(scene: Scene) -> list[Reference]:
    """The things farthest out, and those in some relation to a thing that can be told by its looks."""
    found = []
    for word, axis, end in (
        ("leftmost", "column", min),
        ("rightmost", "column", max),
        ("highest", "row", min),
        ("lowest", "row", max),
    ):
        lines = [getattr(thing, axis) for thing in scene]
        if lines.count(end(lines)) == 1:
            found.append(Reference(f"the {word} thing", lines.index(end(lines)), ()))
    for known in by_looks(scene):
        for where in RELATIONS if len(known.tells) == 2 else ():
            anchor = scene[known.place]
            there = [i for i, thing in enumerate(scene) if i != known.place and relation(thing, anchor) == where]
            if len(there) == 1:
                found.append(Reference(f"the thing {PHRASES[where][0]} {known.words}", there[0], ()))
    return found


def references(scene: Scene, *, relational: bool) -> list[Reference]:
    """By looks, and also by place if ``relational``, or if there are fewer than two by looks."""
    looks = by_looks(scene)
    return looks + by_place(scene) if relational or len(looks) < QUESTIONS else looks


class Telling(NamedTuple):
    """A question that a word answers."""

    kind: str
    text: str
    answer: str


def tellings(scene: Scene, *, relational: bool) -> list[Telling]:
    """All that can be asked for in words and is not given away; the row of things that are told by looks alone."""
    found = []
    for words, place, tells in references(scene, relational=relational):
        thing = scene[place]
        if "colour" not in tells:
            found.append(Telling("colour", f"what colour is {words}", thing.colour))
        if "shape" not in tells:
            found.append(Telling("shape", f"what shape is {words}", thing.shape))
        if tells:
            found.append(Telling("row", f"in which row is {words}", ROWS[thing.row]))
    return found


def tell(rng: np.random.Generator, scene: Scene, *, relational: bool) -> list[tuple[Telling, list[str]]]:
    """Two questions, each with its options in any order; kinds are alike likely, however many ways there are to ask."""
    left, chosen = tellings(scene, relational=relational), []
    for _ in range(QUESTIONS):
        kinds = sorted({question.kind for question in left})
        kind = kinds[rng.integers(len(kinds))]
        ways = [question for question in left if question.kind == kind]
        question = ways[rng.integers(len(ways))]
        left.remove(question)
        chosen.append((question, [ANSWERS[kind][i] for i in rng.permutation(OPTIONS)]))
    return chosen


class Pointing(NamedTuple):
    """A question that a cell answers."""

    text: str
    cells: Int64[np.ndarray, "4 2"]
    """The options."""
    answer: int
    """Which of them."""


def point(rng: np.random.Generator, scene: Scene, *, relational: bool, grid: int) -> list[Pointing]:
    """Two questions; the options are the cells of the things, and empty ones to make up four, in any order."""
    asked = references(scene, relational=relational)
    full = [(thing.row, thing.column) for thing in scene]
    empty = [cell for cell in itertools.product(range(grid), repeat=2) if cell not in full]
    found = []
    for i in rng.choice(len(asked), QUESTIONS, replace=False):
        others = [empty[j] for j in rng.choice(len(empty), OPTIONS - len(full), replace=False)]
        order = rng.permutation(OPTIONS)
        cells = np.array(full + others, np.int64)[order]
        found.append(Pointing(f"which is {asked[i].words}", cells, int(np.flatnonzero(order == asked[i].place)[0])))
    return found


def can_be_asked_about(scene: Scene, *, relational: bool) -> bool:
    """Whether there are two questions of each sort."""
    return all(len(f(scene, relational=relational)) >= QUESTIONS for f in (references, tellings))


def annotate(rng: np.random.Generator, scene: Scene) -> Int64[np.ndarray, "3 4"]:
    """What three annotators put into ``ROLES``, as places in ``NOUNS``: the truth, but for slips."""
    truth = [NOUNS.index(look) for thing in scene[:2] for look in (thing.colour, thing.shape)]
    slips = rng.random((ANNOTATORS, len(ROLES))) < SLIP
    drawn = rng.integers(len(COLOURS), size=slips.shape) + np.array([0, len(COLOURS)] * 2)
    return np.where(slips, drawn, truth)
