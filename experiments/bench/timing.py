"""Timing one compiled call: what the benchmarks share."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from experiments.bench.program import read_program
from seqjax.nn.split import Nets, split
from seqjax.train.mesh import compile_step, make_mesh, replicate, shard_batch
from seqjax.train.step import Learner

Call = Callable[[], Any]
"""Runs once and blocks until the result is there."""


class Compiled(NamedTuple):
    """A function compiled for its arguments."""

    call: Call
    """Runs it on them."""
    seconds: float
    """What compiling took, tracing included."""
    temporary_bytes: int | None
    """Memory that the program wants besides its arguments and results, where the backend tells."""


def compiled(function: Callable, *arguments: Any) -> Compiled:
    """Compile for these arguments."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - start
    memory = getattr(program.memory_analysis(), "temp_size_in_bytes", None)
    return Compiled(lambda: jax.block_until_ready(program(*arguments)), seconds, memory)


def step_call(program: Callable, state: Any, batch: Any) -> Call:
    """One training step after another on one batch, each from the state that the last left behind; its metrics."""
    held = [state]

    def call() -> Any:
        held[0], metrics = program(held[0], batch)
        jax.block_until_ready(held[0])
        return jax.block_until_ready(metrics)

    return call


def training_step(learner: Learner, nets: Nets, batch: Any, dtype: str) -> tuple[Call, dict[str, Any]]:
    """A learner's step from fresh states on one batch, compiled for one device as the loop compiles it; facts: seconds
    of compiling, operations, memory beside arguments and results, and the losses of the first step by player."""
    mesh = make_mesh(jax.devices()[:1])
    state, placed = replicate(learner.init(nets, jax.random.key(0)), mesh), shard_batch(batch, mesh)
    start = time.perf_counter()
    step: Any = compile_step(learner, split(nets).graphs, mesh, dtype=None if dtype == "float32" else dtype)
    program = step.lower(state, placed).compile()
    facts: dict[str, Any] = {
        "compile_seconds": time.perf_counter() - start,
        "operations": read_program(program.as_text()).operations,
    }
    facts["temporary_bytes"] = getattr(program.memory_analysis(), "temp_size_in_bytes", None)
    call = step_call(program, state, placed)
    losses = {name: float(value) for name, value in call().items() if name.split("/")[-1] == "loss"}
    return call, facts | {"first_losses": {name.removesuffix("/loss"): value for name, value in losses.items()}}


def measure(call: Call, seconds: float) -> list[float]:
    """Times of single calls after one that is not counted: for the time given, and at least three."""
    call()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return times


def in_turns(calls: dict[str, Call], rounds: int, seconds: float) -> dict[str, float]:
    """The median time of each, all timed round after round, so that a slow minute of the machine meets all."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name] += measure(call, seconds)
    return {name: statistics.median(found) for name, found in times.items()}
