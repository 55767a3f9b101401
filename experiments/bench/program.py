"""What a compiled program does, read from its text: multiplications in its products, and what devices exchange.

XLA's own ``cost_analysis`` counts the body of a loop once; here a loop counts as often as XLA knows that it runs, so
that a scan over time is all of its steps. Of branches all count.
"""

import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from seqjax.errors import InputError

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8}
_COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
_CALLED = re.compile(r"(?:calls|to_apply|condition|true_computation|false_computation)=(%[\w.\-]+)")


class Collective(NamedTuple):
    """An exchange between devices."""

    kind: str
    """In XLA's words, such as "all-reduce"."""
    bytes: int
    """Of its result, on each device."""
    times: int
    """How often the program runs it: more than once in a loop."""


class Program(NamedTuple):
    """What one device does when the program runs once."""

    operations: float
    """Floating-point operations of matrix products and convolutions, two for each multiply-add."""
    collectives: tuple[Collective, ...]


def read_program(text: str) -> Program:
    """Reads the text of an optimised program, as ``compiled.as_text()`` gives it."""
    computations = dict(_computations(text))
    times = _times(computations)
    operations, found = 0.0, []
    for name, lines in computations.items():
        shapes = {match[1]: _shape(match[2]) for line in lines if (match := re.match(r"(%[\w.\-]+) = (\S+) ", line))}
        for line in lines if times.get(name) else ():
            operations += times[name] * _product(line, shapes)
            if match := re.search(rf" = (.*?) ({_COLLECTIVES})(?:-start)?\(", line):
                found.append(Collective(match[2], _size(match[1]), times[name]))
    return Program(operations, tuple(found))


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    for head, body in re.findall(r"^((?:ENTRY )?%[\w.\-]+) [^\n]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        yield head, [line.strip().removeprefix("ROOT ") for line in body.splitlines()]


def _times(computations: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs."""
    found: dict[str, int] = {}

    def visit(name: str, times: int) -> None:
        found[name] = found.get(name, 0) + times
        for line in computations.get(name, ()):
            if body := re.search(r"\bbody=(%[\w.\-]+)", line):
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
                visit(body[1], times * (int(trips[1]) if trips else 1))
            branches = re.search(r"branch_computations=\{(.*?)\}", line)
            for called in _CALLED.findall(line) + (branches[1].split(", ") if branches else []):
                visit(called, times)

    visit(next(name for name in computations if name.startswith("ENTRY ")), 1)
    return found


def _product(line: str, shapes: dict[str, tuple[int, ...]]) -> float:
    match = re.match(r"%[\w.\-]+ = (\S+) (dot|convolution)\(([^)]*)\)", line)
    if match is None:
        return 0.0
    out, operands = math.prod(_shape(match[1])), re.findall(r"%[\w.\-]+", match[3])
    left, right = (shapes[name] for name in operands)
    if match[2] == "dot":
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line)
        return 2.0 * out * math.prod(left[int(axis)] for axis in axes[1].split(",") if axis) if axes else 2.0 * out
    labels = re.search(r"dim_labels=\w+_(\w+)->", line)
    if labels is None:
        raise InputError(f"text: a convolution without dim_labels: {line[:200]}. Give what compiled.as_text() gives.")
    return 2.0 * out * math.prod(right) / right[labels[1].index("o")]


@functools.cache
def _shape(text: str) -> tuple[int, ...]:
    match = re.match(r"\w+\[([\d,]*)\]", text)
    return tuple(int(size) for size in match[1].split(",") if size) if match else ()


def _size(text: str) -> int:
    """Bytes of an array, or of all arrays of a tuple."""
    return sum(
        _BYTES.get(kind, 4) * math.prod(_shape(f"{kind}[{sizes}]"))
        for kind, sizes in re.findall(r"(\w+)\[([\d,]*)\]", text)
    )
