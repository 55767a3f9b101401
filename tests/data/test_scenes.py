"""Scenes as an independent reader sees them: objects found in the pixels, and every sentence checked against them."""

import collections
import itertools
import math
import re

import numpy as np
import pytest

from seqjax.data import scene_language as language
from seqjax.data import scenes
from seqjax.data.scenes import HELD_OUT, SPLITS, ScenesConfig
from seqjax.data.source import in_memory, mapped, open_source
from seqjax.data.text import CAPTIONS, TextToIds, Vocabulary, texts
from seqjax.errors import InputError

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
FEW = {"train": 30, "validation": 2, "test": 2, "novel": 30}


def raster(shape):
    """The shapes as the set's definition gives them, pixel by pixel in a cell of eight."""
    picture = np.zeros((8, 8), bool)
    for y, x in itertools.product(range(8), repeat=2):
        dy, dx = y - 3.5, x - 3.5
        picture[y, x] = {
            "square": abs(dy) < 3 and abs(dx) < 3,
            "circle": dy**2 + dx**2 < 9.5,
            "triangle": 0 < y < 7 and abs(dx) <= y / 2,
            "cross": (abs(dy) < 1.1 or abs(dx) < 1.1) and abs(dy) < 3.6 and abs(dx) < 3.6,
        }[shape]
    return picture


def seen(image):
    """(colour, shape, row, column) of the objects in a picture, by the nearest clean cell."""
    side = len(image) // 4
    clean = {
        (colour, shape): np.kron(raster(shape), np.ones((side // 8, side // 8)))[..., None] * rgb
        for colour, rgb in COLOURS.items()
        for shape in ("square", "circle", "triangle", "cross")
    }
    found = []
    for row, column in itertools.product(range(4), repeat=2):
        cell = image[row * side : (row + 1) * side, column * side : (column + 1) * side] / 255
        if cell.max() > 0.5:
            found.append((*min(clean, key=lambda kind: np.square(clean[kind] - cell).sum()), row, column))
    return found


def lies(one, other):
    down, across = one[2] - other[2], one[3] - other[3]
    assert abs(down) != abs(across)
    if abs(down) > abs(across):
        return "above" if down < 0 else "below"
    return "left" if across < 0 else "right"


WHERE = {"left of": "left", "to the left of": "left", "right of": "right", "to the right of": "right"}
WHERE |= {"above": "above", "over": "above", "below": "below", "under": "below"}
PHRASE = "(?P<where>" + "|".join(WHERE) + ")"
FORMS = [
    rf"a (?P<one>\w+ \w+) (?:is|sits) {PHRASE} a (?P<other>\w+ \w+)",
    rf"(?:there is|we see) a (?P<one>\w+ \w+) {PHRASE} a (?P<other>\w+ \w+)",
    rf"{PHRASE} a (?P<other>\w+ \w+) is a (?P<one>\w+ \w+)",
]


def holds(caption, things):
    (found,) = filter(None, (re.fullmatch(form, caption) for form in FORMS))
    return any(
        " ".join(one[:2]) == found["one"]
        and " ".join(other[:2]) == found["other"]
        and lies(one, other) == WHERE[found["where"]]
        for one, other in itertools.permutations(things, 2)
    )


def meant(words, things):
    """The only thing that words fit."""
    ends = {"leftmost": (3, min), "rightmost": (3, max), "highest": (2, min), "lowest": (2, max)}
    by_end, by_other = re.fullmatch(r"the (\w+) thing", words), re.fullmatch(r"the thing (.+) (the \w+ \w+)", words)
    if by_end and by_end[1] in ends:
        axis, end = ends[by_end[1]]
        fits = [thing for thing in things if thing[axis] == end(t[axis] for t in things)]
    elif by_other:
        anchor = meant(by_other[2], things)
        fits = [thing for thing in things if thing != anchor and lies(thing, anchor) == WHERE[by_other[1]]]
    else:
        named = set(words.split()) - {"the", "thing"}
        fits = [thing for thing in things if named <= set(thing[:2])]
    assert len(fits) == 1, (words, things)
    return fits[0]


def answered(question, things):
    for start, look in (("what colour is ", 0), ("what shape is ", 1), ("in which row is ", 2)):
        if question.startswith(start):
            thing = meant(question.removeprefix(start), things)
            assert "the thing " in question or str(thing[look]) not in question.split()
            assert look < 2 or not re.search("most|est thing|the thing", question)
            return ("top", "upper", "lower", "bottom")[thing[2]] if look == 2 else thing[look]
    raise AssertionError(question)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    configs = {
        "two": ScenesConfig(**FEW),
        "four": ScenesConfig(size=64, objects=4, relational=True, **FEW),
    }
    return {
        (name, split): open_source("scenes", split=split, config=config, data_dir=directory)
        for name, config in configs.items()
        for split in ("train", "novel")
    }


@pytest.mark.parametrize("split", ["train", "novel"])
@pytest.mark.parametrize("name", ["two", "four"])
def test_what_is_said_is_what_can_be_seen(sets, name, split):
    source = sets[name, split]
    assert len(source) == 30
    for i in range(30):
        record = source[i]
        things, side = seen(record["image"]), len(record["image"]) // 4
        assert record["index"] == i
        assert record["boxes"].tolist() == [[side * k for k in (r, c, r + 1, c + 1)] for _, _, r, c in things]
        assert [language.COLOURS[k] for k in record["colours"]] == [thing[0] for thing in things]
        assert [language.SHAPES[k] for k in record["shapes"]] == [thing[1] for thing in things]

        captions = texts(record["captions"])
        verb = lies(*things[:2])
        assert len(set(captions)) == 5
        assert all(holds(caption, things) for caption in captions)
        where = {"left": "left of", "right": "right of"}.get(verb, verb)
        assert captions[0] == "a {} {} is {} a {} {}".format(*things[0][:2], where, *things[1][:2])
        assert language.RELATIONS[record["verb"]] == verb

        for question, options, answer, kind in zip(
            texts(record["question"]), record["options"], record["answer"], record["kind"], strict=True
        ):
            assert sorted(texts(options)) == sorted(language.ANSWERS[language.KINDS[kind]])
            assert texts(options)[answer] == answered(question, things)
            assert f" {language.KINDS[kind]} is " in question
        assert len(set(texts(record["question"]))) == 2
        for question, options, answer in zip(
            texts(record["pointing_question"]), record["pointing_boxes"], record["pointing_answer"], strict=True
        ):
            thing = meant(question.removeprefix("which is "), things)
            assert options[answer].tolist() == [side * k for k in (*thing[2:], thing[2] + 1, thing[3] + 1)]
            assert len({tuple(box) for box in options}) == 4
            assert {tuple(box) for box in record["boxes"]} <= {tuple(box) for box in options}
        assert len(set(texts(record["pointing_question"]))) == 2


def test_numbers_of_what_the_first_captions_say(sets):
    """768 of them, and equal where the captions are."""
    of = {}
    for key in (("two", "train"), ("four", "train")):
        for i in range(30):
            record = sets[key][i]
            of.setdefault(int(record["meaning"]), set()).add(texts(record["captions"])[0])
    assert all(len(said) == 1 for said in of.values())
    assert len({said for (said,) in of.values()}) == len(of)
    corner = language.Thing("yellow", "cross", 0, 3)
    assert language.meaning((corner, corner._replace(row=1, column=0))) == 767
    assert language.meaning((language.Thing("red", "square", 0, 0), language.Thing("red", "square", 0, 1))) == 0


def test_kinds_that_are_held_out(sets):
    for name in ("two", "four"):
        for split, number in (("train", 0), ("novel", 1)):
            for i in range(30):
                things = seen(sets[name, split][i]["image"])
                assert sum(thing[:2] in HELD_OUT for thing in things) == number
    assert {colour for colour, _ in HELD_OUT} == set(COLOURS)
    assert {shape for _, shape in HELD_OUT} == set(language.SHAPES)


def test_all_kinds_occur_where_none_are_held_out(tmp_path):
    config = ScenesConfig(held_out=False, **FEW | {"train": 80})
    source = open_source("scenes", split="train", config=config, data_dir=tmp_path)
    found = collections.Counter(thing[:2] for i in range(80) for thing in seen(source[i]["image"]))
    assert len(found) == 16
    with pytest.raises(InputError, match="split='novel' cannot be had"):
        open_source("scenes", split="novel", config=config, data_dir=tmp_path)


def test_arrangements_and_what_a_caption_is_worth_blind():
    """All pairs of cells by enumeration: 46 above, 35 left, 11 right; so 4 ln 4 + 0.9682 = 6.513 nats."""
    cells = list(itertools.product(range(4), repeat=2))
    allowed = [
        (one, other)
        for one, other in itertools.combinations(cells, 2)
        if abs(one[0] - other[0]) != abs(one[1] - other[1])
    ]
    counts = collections.Counter(lies((0, 0, *one), (0, 0, *other)) for one, other in allowed)
    assert counts == {"above": 46, "left": 35, "right": 11}
    entropy = -sum(n / 92 * math.log(n / 92) for n in counts.values())
    assert (round(entropy, 4), round(4 * math.log(4) + entropy, 3)) == (0.9682, 6.513)
    assert round(2 * math.log(12) + entropy, 3) == 5.938

    rng = np.random.default_rng(0)
    drawn = collections.Counter(tuple(map(tuple, scenes.arrange(rng, 2).tolist())) for _ in range(4600))
    assert set(drawn) == set(allowed)
    assert 20 < min(drawn.values()) <= max(drawn.values()) < 90  # 50 expected each
    for number in (3, 4):
        placed = scenes.arrange(rng, number)
        assert all(lies((0, 0, *one), (0, 0, *other)) for one, other in itertools.combinations(placed.tolist(), 2))


def test_annotators_slip_as_often_as_said():
    """A slip hits the truth again once in four, so 0.15 · 3/4 = 0.1125 of the nouns are wrong, each other one alike."""
    scene = (language.Thing("red", "circle", 0, 0), language.Thing("blue", "cross", 0, 2))
    rng = np.random.default_rng(0)
    nouns = np.stack([language.annotate(rng, scene) for _ in range(1500)])
    truth = [language.NOUNS.index(look) for look in ("red", "circle", "blue", "cross")]
    assert np.mean(nouns != truth) == pytest.approx(0.1125, abs=0.01)
    for role, k in enumerate(truth):
        every = np.bincount(nouns[..., role].ravel(), minlength=8)
        others = [n for noun, n in enumerate(every) if noun != k and noun // 4 == k // 4]
        assert sum(others) + every[k] == 4500
        np.testing.assert_allclose(others, 4500 * 0.0375, rtol=0.25)


def test_answers_stand_anywhere(sets):
    """Each of four options is right a quarter of the time: 240 questions of each sort."""
    orders = {tuple(texts(options)) for source in sets.values() for i in range(30) for options in source[i]["options"]}
    assert len(orders) > 50  # of 72
    for key in ("answer", "pointing_answer"):
        places = [int(k) for source in sets.values() for i in range(30) for k in source[i][key]]
        assert np.abs(np.bincount(places, minlength=4) / 240 - 0.25).max() < 0.1


def test_ways_to_ask(sets):
    """Plainly by looks, unless two things look alike; relationally in every way."""
    plain = " ".join(q for i in range(30) for q in texts(sets["two", "novel"][i]["question"]))
    rich = " ".join(q for i in range(30) for q in texts(sets["four", "train"][i]["question"]))
    assert not re.search("thing (left|right|above|below)", plain)
    for words in ("most thing", "thing left of the", "what colour", "what shape", "in which row"):
        assert words in rich
    twins = (language.Thing("red", "circle", 0, 0), language.Thing("red", "circle", 0, 2))
    assert {r.words for r in language.references(twins, relational=False)} == {
        "the leftmost thing",
        "the rightmost thing",
    }
    corners = tuple(language.Thing("red", "circle", *cell) for cell in ((0, 0), (0, 3), (2, 0), (2, 3)))
    assert not language.can_be_asked_about(corners, relational=True)


def test_scenes_depend_on_seed_split_and_place_alone(sets, tmp_path):
    again = open_source("scenes", split="train", config=ScenesConfig(**FEW | {"train": 3}), data_dir=tmp_path)
    other = open_source("scenes", split="train", config=ScenesConfig(seed=1, **FEW | {"train": 3}), data_dir=tmp_path)
    held = open_source("scenes", split="test", config=ScenesConfig(**FEW | {"train": 3}), data_dir=tmp_path)
    assert (held[0]["image"] != again[0]["image"]).any()
    for i in range(3):
        for key, value in sets["two", "train"][i].items():
            np.testing.assert_array_equal(again[i][key], value)
        assert (again[i]["image"] != other[i]["image"]).any()


@pytest.mark.parametrize("shape", language.SHAPES)
def test_shapes_against_a_loop_over_pixels(shape):
    np.testing.assert_array_equal(scenes.mask(shape, 8), raster(shape))
    for side in (16, 56):  # larger ones cover as much of their cell
        assert scenes.mask(shape, side).mean() == pytest.approx(raster(shape).mean(), abs=0.09)


def test_noise_is_what_was_said(sets):
    """On black, half of a normal distribution cut at 0: 0.05 · 255 / sqrt(2π) on average."""
    background = np.concatenate([sets["two", "train"][i]["image"].ravel() for i in range(30)])
    assert background[background < 128].mean() == pytest.approx(12.75 / math.sqrt(2 * math.pi), rel=0.03)


def test_captions_as_ids_in_memory(sets):
    plain = sets["two", "train"]
    said = [texts(plain[i]["captions"]) for i in range(30)]
    vocabulary = Vocabulary.of(CAPTIONS.split(caption) for captions in said for caption in captions)
    source = in_memory(mapped(plain, TextToIds(vocabulary, CAPTIONS, {"captions": 15})))
    assert "question" not in source[0]
    for i in range(30):
        assert [CAPTIONS.join(vocabulary.decode(ids)) for ids in source[i]["captions"]] == said[i]


@pytest.mark.parametrize(
    "fields",
    [{"size": 30}, {"size": 34}, {"objects": 1}, {"objects": 5}, {"novel": 0}, {"seed": -1}, {"name": "three"}],
)
def test_settings_that_make_no_sense(fields):
    (field,) = fields
    with pytest.raises(InputError, match=f"{field}=.* in a ScenesConfig"):
        ScenesConfig(**fields)


def test_names_of_configurations():
    assert list(scenes.Scenes.builder_configs) == ["two", "two_all", "four", "tiny"]
    assert ScenesConfig(test=5).name == "2in32_held_out_12000_1000_5_1000_seed0"
    assert SPLITS[-1] == "novel"
