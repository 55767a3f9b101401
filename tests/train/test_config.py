"""seqjax.train.config: the way to JSON and back, its errors, and what a resumed run may change.

Oracles: Python's `json` for the round trip, hand-made dictionaries for the rest.
"""

import dataclasses
import json
from typing import Literal

import hypothesis
import pytest
from hypothesis import strategies as st

from seqjax.errors import InputError
from seqjax.train.config import ABSENT, check_resumable, differences, from_dict, to_dict


@dataclasses.dataclass(frozen=True)
class Model:
    hidden: tuple[int, ...] = (64, 64)
    kernel: tuple[int, int] = (3, 3)
    peephole: bool = True


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = "runs/a"
    model: Model = Model()
    loss: Literal["squared", "cross_entropy"] = "squared"
    rate: float = 1e-3
    limit: int | None = None
    teacher: Model | None = None
    scale: float | Literal["auto"] = "auto"
    steps: int = 10


models = st.builds(
    Model,
    hidden=st.lists(st.integers(), max_size=3).map(tuple),
    kernel=st.tuples(st.integers(), st.integers()),
    peephole=st.booleans(),
)
finite = st.floats(allow_nan=False, allow_infinity=False)
configs = st.builds(
    Config,
    workdir=st.text(),
    model=models,
    loss=st.sampled_from(["squared", "cross_entropy"]),
    rate=finite,
    limit=st.none() | st.integers(),
    teacher=st.none() | models,
    scale=finite | st.just("auto"),
    steps=st.integers(),
)


@hypothesis.given(configs)
def test_json_round_trip_is_exact(config):
    stored = to_dict(config)
    again = json.loads(json.dumps(stored, allow_nan=False))
    assert again == stored
    assert from_dict(Config, again) == config


def test_whole_number_becomes_float_where_a_float_is_wanted():
    rate = from_dict(Config, to_dict(Config()) | {"rate": 1}).rate
    assert rate == 1
    assert type(rate) is float


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("steps", 3.5, ["steps is 3.5 (float)", "a whole number"]),
        ("steps", True, ["steps is True (bool)", "a whole number"]),
        ("rate", "fast", ["rate is 'fast' (str)", "a number"]),
        ("rate", float("inf"), ["rate is inf", "a number"]),
        ("workdir", None, ["workdir is None", "a string"]),
        ("limit", "3", ["limit is '3'", "a whole number or None"]),
        ("loss", "squard", ["loss is 'squard'", "'squared', 'cross_entropy'", "did you mean squared?"]),
        ("model", 3, ["model is 3", "the fields of Model"]),
        ("model.kernel", [3], ["model.kernel is [3]", "a list of 2: a whole number, a whole number"]),
        ("model.hidden", [3, "4"], ["model.hidden[1] is '4'", "a whole number"]),
        ("model.hidden", 64, ["model.hidden is 64", "a list whose items are a whole number"]),
        ("model.peephole", 1, ["model.peephole is 1", "true or false"]),
        ("teacher", {"hidden": []}, ["teacher.kernel of Model is missing", "a list of 2"]),
        ("stpes", 3, ["Config has no field stpes", "3", "did you mean steps?"]),
        ("model.hiden", 3, ["Model has no field model.hiden", "did you mean hidden?", "peephole"]),
    ],
)
def test_bad_value_is_named_with_what_was_expected(path, value, words):
    stored = to_dict(Config())
    *parents, last = path.split(".")
    inner = stored
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    with pytest.raises(InputError) as error:
        from_dict(Config, stored)
    assert [word for word in words if word not in str(error.value)] == []


def test_missing_field_is_named_by_its_path():
    stored = to_dict(Config())
    del stored["model"]["kernel"]
    with pytest.raises(InputError, match=r"model\.kernel of Model is missing"):
        from_dict(Config, stored)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1}, b"3", 1j])
def test_value_without_a_form_in_json_is_refused(value):
    with pytest.raises(InputError, match=r"model\.hidden\[1\]"):
        to_dict(Config(model=Model(hidden=(1, value))))  # type: ignore[arg-type]


def test_differences_by_dotted_path():
    stored, given = to_dict(Config()), to_dict(Config(steps=20, model=Model(hidden=(8,))))
    stored["old"], given["new"] = None, None
    found = {d.path: (d.stored, d.given) for d in differences(stored, given)}
    assert found == {
        "model.hidden": ([64, 64], [8]),
        "steps": (10, 20),
        "old": (None, ABSENT),
        "new": (ABSENT, None),
    }
    assert differences(stored, stored) == []


def check(given, **options):
    check_resumable(to_dict(Config()), to_dict(given), **options)


def test_same_configuration_elsewhere_resumes():
    check(Config(workdir="runs/b"))


def test_another_configuration_names_fields_values_and_ways_out():
    with pytest.raises(InputError) as error:
        check(Config(steps=20, model=Model(hidden=(8,))))
    for words in ["steps: stored 10, given 20", "model.hidden: stored [64, 64], given [8]", "--workdir"]:
        assert words in str(error.value)
    assert "--allow-change model.hidden steps" in str(error.value)


def test_allowed_fields_may_change_and_no_others():
    given = Config(steps=20, model=Model(hidden=(8,), peephole=False))
    check(given, allow=("steps", "model"))
    with pytest.raises(InputError, match=r"\(model\.peephole: stored True, given False\)"):
        check(given, allow=("steps", "model.hidden"))
    with pytest.raises(InputError, match="workdir"):
        check(Config(workdir="runs/b"), ignore=())


def test_misspelt_permission_is_an_error():
    with pytest.raises(InputError, match=r"'stpes' \(did you mean steps\?\)"):
        check(Config(steps=20), allow=("stpes",))
