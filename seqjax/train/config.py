"""Configurations: plain frozen dataclasses, their form as JSON, and what a resumed run may change.

A field is an int, float, str, bool or None, a Literal, a tuple of these, or another such dataclass. That is
all a recipe needs, and it makes the way to JSON and back exact: `from_dict(type(c), to_dict(c)) == c`.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from seqjax.errors import InputError

C = TypeVar("C")

CIRCUMSTANCES = ("workdir", "allow_change", "data.data_dir", "loop.devices", "loop.profile", "loop.shard")
"""Fields that say where and how a run runs, not what it trains: they may differ when it is continued."""

_WORDS = {
    type(None): "None",
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
}


class _Absent:
    def __repr__(self) -> str:
        return "no such field"


ABSENT = _Absent()
"""Stands for the value of a field that one of two configurations does not have."""


class Difference(NamedTuple):
    """One field in which two configurations differ; a side without the field holds `ABSENT`."""

    path: str
    stored: Any
    given: Any


def to_dict(config: Any) -> dict[str, Any]:
    """Returns the configuration as nested dicts, lists and scalars: what `json` writes and reads unchanged.

    Raises:
      InputError: a value that JSON has no form for (infinite numbers and nan among them), named by its path.
    """
    return {f.name: _plain(getattr(config, f.name), f.name) for f in dataclasses.fields(config)}


def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
    """Returns the configuration of type `cls` that `to_dict` gave as `values`, checked by the type hints.

    Every field must be there: a default filled in silently would make a run that was stored before the field
    existed look as if it had been trained with it.

    Raises:
      InputError: an unknown or missing field or a value of another type, named by its dotted path, with
        what came, what was expected and the nearest name there is.
    """
    return _build(cls, values, "")


def without(config: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """The fields by dotted path, but for those at or below `paths`."""
    return {path: value for path, value in _leaves(config) if not _within(path, paths)}


def differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[Difference]:
    """Returns the fields in which two configurations in the form of `to_dict` differ, by dotted path."""
    before, after = dict(_leaves(stored)), dict(_leaves(given))
    pairs = ((path, before.get(path, ABSENT), after.get(path, ABSENT)) for path in {**before, **after})
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]


def check_resumable(
    stored: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    allow: tuple[str, ...] = (),
    ignore: tuple[str, ...] = CIRCUMSTANCES,
) -> None:
    """Refuses to continue a run under another configuration than the one that it was started with.

    Args:
      stored: the configuration kept with the run, in the form of `to_dict`.
      given: the one asked for now.
      allow: dotted paths of the fields that may change; a path stands for all fields below it too.
      ignore: the same for fields that need no leave.

    Raises:
      InputError: names each differing field with both values and says what to do; or a path in `allow`
        that neither configuration has.
    """
    known = {path for path, _ in (*_leaves(stored), *_leaves(given))}
    for name in allow:
        if not any(_within(path, (name,)) for path in known):
            raise InputError(f"--allow-change: no field is called {name!r}{did_you_mean(name, known)}.")
    changed = [d for d in differences(stored, given) if not _within(d.path, (*allow, *ignore))]
    if changed:
        listing = "; ".join(f"{d.path}: stored {d.stored!r}, given {d.given!r}" for d in changed)
        raise InputError(
            f"the run in this work directory has another configuration ({listing}). Use another --workdir "
            f"for a new run, repeat the stored values to continue this one, or let it change with "
            f"--allow-change {' '.join(d.path for d in changed)}"
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `" (did you mean a or b?)"` with the known names nearest to `name`, or nothing."""
    near = difflib.get_close_matches(name, known, n=2)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _plain(value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name), f"{path}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(path, value, "a finite number; let None stand for no limit")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise _wrong(path, value, "a number, a string, true or false, None, a tuple of these or a dataclass")


def _build(cls: type[C], values: Any, path: str) -> C:
    hints, prefix = get_type_hints(cls), f"{path}." if path else ""
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    if not isinstance(values, Mapping):
        raise _wrong(path, values, f"the fields of {cls.__name__}")
    for key in values:
        if key not in names:
            raise InputError(
                f"configuration: {cls.__name__} has no field {prefix}{key} (its value here is "
                f"{values[key]!r}){did_you_mean(str(key), names)}. Its fields are {', '.join(names)}."
            )
    for name in names:
        if name not in values:
            raise InputError(
                f"configuration: the field {prefix}{name} of {cls.__name__} is missing, expected "
                f"{_expected(hints[name])}; give it a value, or use the version of the code that wrote it."
            )
    return cls(**{name: _typed(hints[name], values[name], prefix + name) for name in names})


def _typed(kind: Any, value: Any, path: str) -> Any:
    """`value` as the type hint `kind` has it."""
    origin, options = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, path)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        return _first_that_fits(kind, value, path)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = options[:1] * len(value) if options[-1:] == (Ellipsis,) else options
        if len(kinds) == len(value):
            return tuple(_typed(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    elif origin is Literal:
        if any(type(value) is type(choice) and value == choice for choice in options):
            return value
    elif kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    elif kind is not float and type(value) is kind:
        return value
    raise _wrong(path, value, _expected(kind), options if origin is Literal else ())


def _first_that_fits(union: Any, value: Any, path: str) -> Any:
    for kind in get_args(union):
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            return _typed(kind, value, path)
        try:
            return _typed(kind, value, path)
        except InputError:
            continue
    raise _wrong(path, value, _expected(union))


def _expected(kind: Any) -> str:
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(option) for option in options)
    if origin is Literal:
        return f"one of {', '.join(map(repr, options))}"
    if origin is tuple and options[-1:] == (Ellipsis,):
        return f"a list whose items are {_expected(options[0])}"
    if origin is tuple:
        return f"a list of {len(options)}: {', '.join(_expected(option) for option in options)}"
    return _WORDS.get(kind, f"the fields of {getattr(kind, '__name__', kind)}")


def _wrong(path: str, value: Any, expected: str, choices: Collection[Any] = ()) -> InputError:
    hint = did_you_mean(value, [str(c) for c in choices]) if isinstance(value, str) else ""
    where = path or "the whole"
    return InputError(f"configuration: {where} is {value!r} ({type(value).__name__}), expected {expected}{hint}")


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _within(path: str, parents: Iterable[str]) -> bool:
    return any(path == parent or path.startswith(f"{parent}.") for parent in parents)
