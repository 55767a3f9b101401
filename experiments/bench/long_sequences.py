"""Long sequences: memory and time of a gradient step by what is stored, and Newton's iterations over time.

    python -m experiments.bench.long_sequences --out runs/bench/long_sequences

The first table compares ways to the gradient of a loss on the last state: temporary memory is what the compiled program
says it wants, besides inputs and parameters. The second solves random and trained networks for all steps at once, with
each kind of Jacobian, next to the loop: how many iterations, how far from the loop's states, how long. ``results.json``
has every figure, versions and the machine.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from rich.console import Console
from rich.table import Table

from experiments.bench.record import write_results
from experiments.bench.timing import compiled, in_turns
from seqjax.data.memory_tasks import adding
from seqjax.ops import cells
from seqjax.ops.newton import newton
from seqjax.ops.recurrence import Cell, Tree
from seqjax.ops.scan import unroll
from seqjax.train.command import main
from seqjax.train.optim import Optimizer, make_optimizer

CELLS = {"rnn": cells.rnn, "lstm": cells.lstm, "gru": cells.gru}
SCHEMES: dict[str, dict[str, Any]] = {
    "autodiff": {"weight_gradient": "autodiff"},
    "deferred": {},
    "deferred, carries saved": {"saved": "carries"},
    "chunks of 256": {"remat": 256},
    "chunks of √T": {"remat": "sqrt"},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    out: str = "runs/bench/long_sequences"
    """Directory of results.json."""
    batch: int = 16
    """Sequences in the table of memory."""
    features: int = 64
    """Width of input and state there."""
    steps: tuple[int, ...] = (1024, 4096)
    """Lengths there."""
    longest: int = 100_000
    """Length that only the chunked schemes run."""
    newton_steps: tuple[int, ...] = (256, 1024, 4096)
    """Lengths of the trajectories that Newton's method solves."""
    newton_features: int = 32
    """Width of their state."""
    tolerance: float = 2e-6
    """Of the largest residual."""
    training_steps: int = 300
    """Optimiser steps on the adding problem of length 60 that make a trained network."""
    rounds: int = 3
    """How often each way is timed, in turns."""
    seconds: float = 0.5
    """Time of one of them in one round, at least three calls."""


PRESETS = {
    "full": Config(),
    "tiny": Config(
        batch=2,
        features=4,
        steps=(64,),
        longest=1000,
        newton_steps=(64,),
        newton_features=4,
        training_steps=2,
        rounds=1,
        seconds=0.0,
    ),
}


def memory(config: Config) -> list[dict[str, Any]]:
    """A record per length and scheme, of an LSTM."""
    records = []
    for steps in (*config.steps, config.longest):
        schemes = {name: s for name, s in SCHEMES.items() if steps != config.longest or "remat" in s}
        params = cells.lstm.init(jax.random.key(0), config.features, config.features)
        xs = jax.random.normal(jax.random.key(1), (config.batch, steps, config.features))

        def loss(params: Tree, xs: Array, **options: Any) -> Array:
            return jnp.mean(jnp.square(unroll(cells.lstm, params, None, xs, **options)[0].h))

        programs = {n: compiled(jax.grad(functools.partial(loss, **s)), params, xs) for n, s in schemes.items()}
        rounds = 1 if steps == config.longest else config.rounds
        times = in_turns({name: program.call for name, program in programs.items()}, rounds, config.seconds)
        for name, program in programs.items():
            facts = {"seconds": times[name], "compile_seconds": program.seconds, "bytes": program.temporary_bytes}
            records.append({"steps": steps, "batch": config.batch, "features": config.features, "scheme": name} | facts)
    return records


def iterations(config: Config) -> list[dict[str, Any]]:
    """A record per cell, random or trained, length and kind of Jacobian."""
    records = []
    for name, cell in CELLS.items():
        random = cell.init(jax.random.key(0), 2, config.newton_features)
        networks = {"random": random, "trained": trained(cell, random, config.training_steps)}
        for (kind, params), steps in ((item, steps) for item in networks.items() for steps in config.newton_steps):
            xs = sequences(4, steps)
            loop = compiled(functools.partial(unroll, cell), params, None, xs)
            expected = loop.call()
            calls = {"loop": loop.call}
            found: dict[str, Any] = {}
            for jacobian in ("dense", "block", "diagonal"):
                solve = functools.partial(newton, cell, jacobian=jacobian, tolerance=config.tolerance)
                calls[jacobian] = compiled(solve, params, None, xs).call
                *outputs, found[jacobian] = calls[jacobian]()
                errors = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), tuple(outputs), expected)
                found[jacobian] = found[jacobian]._asdict() | {"error": max(jax.tree.leaves(errors))}
            times = in_turns(calls, config.rounds, config.seconds)
            for jacobian, facts in found.items():
                where = {"cell": name, "network": kind, "steps": steps, "jacobian": jacobian}
                figures = {key: np.asarray(value).item() for key, value in facts.items()}
                records.append(where | figures | {"seconds": times[jacobian], "loop_seconds": times["loop"]})
    return records


def sequences(number: int, steps: int, seed: int = 0) -> Array:
    """Inputs of the adding problem ``[B, T, 2]``."""
    rng = np.random.default_rng(seed)
    return jnp.stack([jnp.asarray(adding(rng, steps)[0]) for _ in range(number)])


def trained(cell: Cell, params: Tree, steps: int, *, batch: int = 64, length: int = 60) -> Tree:
    """After so many steps of Adam on the adding problem, the sum read from the mean of the last state."""
    optimizer = make_optimizer(Optimizer(learning_rate=3e-3), steps)

    @jax.jit
    def update(params: Tree, state: Tree, xs: Array, targets: Array) -> tuple[Tree, Tree]:
        def loss(params: Tree) -> Array:
            return jnp.mean(jnp.square(unroll(cell, params, None, xs)[1][:, -1].sum(-1) - targets))

        gradient = jax.grad(loss)(params)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
            updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    state, rng = optimizer.init(params), np.random.default_rng(1)
    for _ in range(steps):
        xs, targets = (np.stack(column) for column in zip(*(adding(rng, length) for _ in range(batch)), strict=True))
        params, state = update(params, state, xs, targets[:, 0])
    return params


def memory_table(records: list[dict[str, Any]]) -> Table:
    """Each scheme next to the plain loop of the same length."""
    table = Table(
        box=None, title=f"LSTM, {records[0]['batch']} sequences, {records[0]['features']} features: one gradient step"
    )
    for column in ("T", "scheme", "temporary MiB", "of autodiff", "ms", "of autodiff", "compile s"):
        table.add_column(column, justify="right")
    for record in records:
        plain = [r for r in records if r["steps"] == record["steps"] and r["scheme"] == "autodiff"]
        ratios = [f"{record[key] / plain[0][key]:.3f}" if plain else "" for key in ("bytes", "seconds")]
        figures = f"{record['bytes'] / 2**20:.1f}", ratios[0], f"{record['seconds'] * 1e3:.4g}", ratios[1]
        table.add_row(str(record["steps"]), record["scheme"], *figures, f"{record['compile_seconds']:.2f}")
    return table


def iterations_table(records: list[dict[str, Any]]) -> Table:
    """Iterations, error and time of each solve."""
    table = Table(box=None, title="Newton's method over time next to the loop, forward")
    for column in ("cell", "network", "T", "Jacobian", "iterations", "converged", "largest error", "ms", "loop ms"):
        table.add_column(column, justify="right")
    for record in records:
        where = [str(record[name]) for name in ("cell", "network", "steps", "jacobian", "iterations", "converged")]
        times = [f"{record[name] * 1e3:.4g}" for name in ("seconds", "loop_seconds")]
        table.add_row(*where, f"{record['error']:.1e}", *times)
    return table


def run(config: Config) -> None:
    """Measure, print, write."""
    console, out = Console(), Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    found = {"memory": memory(config)}
    console.print(memory_table(found["memory"]))
    found["newton"] = iterations(config)
    console.print(iterations_table(found["newton"]))
    write_results(config, **found)


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
