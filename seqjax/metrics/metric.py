"""The contract that every metric joins."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxtyping import Array

Figures = dict[str, float | list[float]]


class Metric(NamedTuple):
    """A figure over a data set as three functions, so that no set has to fit in memory at once.

        acc = metric.init()
        for outputs, batch in ...:
            acc = metric.accumulate(acc, outputs, batch)
        figures = metric.finish(acc)

    init: () -> acc, a pytree of arrays for "nothing seen".
    accumulate: (acc, outputs, batch) -> acc, what the model gave for one batch added. Pure and made of
        jax operations, so that it runs inside the compiled evaluation step and is right whether the
        batch lies on one device or is sharded over many. `batch["weight"]`, float [B], is 1 for an
        example and 0 for padding; without it every row counts. A row of weight 0 leaves no trace, even
        if it holds NaN; a NaN in a row that counts must reach the figures.
    finish: acc -> figures, numbers by name and curves as lists, on the host, ready for JSON. InputError
        if nothing was seen.
    record: what has to stand beside the figures for them to mean anything, where their names do not say it: the
        protocol, the feature network and the hash of its weights.

    The figures depend on the examples alone, not on how they were cut into batches, to rounding that
    does not grow with the number of batches. Units and definitions are documented by each metric.
    """

    init: Callable[[], Any]
    accumulate: Callable[[Any, Any, Mapping[str, Array]], Any]
    finish: Callable[[Any], Figures]
    record: Mapping[str, str | float | None] = MappingProxyType({})

    def only(self, *names: str) -> "Metric":
        """The same metric with these of its figures, in this order."""

        def finish(acc: Any) -> Figures:
            figures = self.finish(acc)
            return {name: figures[name] for name in names}

        return self._replace(finish=finish)

    def on(self, view: Callable[[Mapping[str, Array]], Mapping[str, Array]]) -> "Metric":
        """The same metric, which sees ``view(batch)`` where it would see the batch."""
        return self._replace(accumulate=lambda acc, outputs, batch: self.accumulate(acc, outputs, view(batch)))


def together(**parts: Metric) -> Metric:
    """Several metrics as one: each sees the outputs under its name, ``outputs[name]``; the figures stand side by side.

    Figures and records of one name would hide each other: give each part its own.
    """

    def accumulate(acc: dict[str, Any], outputs: Mapping[str, Any], batch: Mapping[str, Array]) -> dict[str, Any]:
        return {name: part.accumulate(acc[name], outputs[name], batch) for name, part in parts.items()}

    def finish(acc: dict[str, Any]) -> Figures:
        return {key: value for name, part in parts.items() for key, value in part.finish(acc[name]).items()}

    record = {key: value for part in parts.values() for key, value in part.record.items()}
    return Metric(lambda: {name: part.init() for name, part in parts.items()}, accumulate, finish, record)


def alike(*parts: Metric) -> Metric:
    """`together`, but all see the same outputs."""
    named = together(**{str(i): part for i, part in enumerate(parts)})

    def accumulate(acc: dict[str, Any], outputs: Any, batch: Mapping[str, Array]) -> dict[str, Any]:
        return named.accumulate(acc, dict.fromkeys(acc, outputs), batch)

    return named._replace(accumulate=accumulate)
