"""Recurrent cells of seqjax next to those of other libraries: time of the forward pass and of a gradient step.

    pip install -e ".[bench]"
    python -m experiments.bench.recurrent [quick] --out runs/bench/recurrent

Each library runs in a process of its own, one at a time; at every grid point all are timed round after round, so that
a slow minute of the machine meets all of them. A library that is not installed is left out and named. The table has
medians, ratios to seqjax (above 1: seqjax is faster) and geometric means; ``results.json`` has every time, compile
seconds, temporary memory of the compiled program, versions and the machine.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from experiments.bench.record import write_results
from experiments.bench.recurrent_peers import PEERS, Point
from experiments.bench.workers import geometric_mean, in_turns, start
from seqjax.train.command import main

JAX_PEERS = ("flax.linen", "flax.nnx", "haiku", "equinox", "keras")
MODULES = {"flax.linen": "flax", "flax.nnx": "flax", "seqjax, unrolled": "seqjax"}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    out: str = "runs/bench/recurrent"
    """Directory of results.json and of the plot."""
    grid: Literal["quick", "full"] = "full"
    """A few points, to see that everything runs, or all."""
    cells: tuple[str, ...] = ("lstm", "gru", "convlstm")
    """Cells."""
    peers: tuple[str, ...] = tuple(PEERS)
    """Libraries; seqjax is always there."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of parameters and inputs."""
    rounds: int = 3
    """How often every library is timed at a point, in turns."""
    seconds: float = 0.3
    """Time of one library in one round, at least three calls."""


PRESETS = {"full": Config(), "quick": Config(grid="quick", rounds=1, seconds=0.05)}


def points(config: Config) -> list[Point]:
    """The grid: batch, length and width one at a time around a middle, and the corners that hurt."""
    if config.grid == "quick":
        dense, spatial = [(1, 20, 64), (16, 64, 64)], [(8, 10, 16, 16)]
    else:
        dense = [(b, 64, 128) for b in (1, 16, 32, 64, 128)]
        dense += [(32, t, 128) for t in (20, 256, 1024)] + [(32, 64, w) for w in (64, 256, 512)]
        dense += [(1, 1024, 64), (1, 1024, 512), (128, 20, 512)]
        spatial = [(8, 10, 32, 16), (8, 20, 16, 16), (2, 10, 16, 64), (1, 20, 64, 16)]
    grid = [
        Point(cell, b, t, w, 0, config.dtype) for cell in config.cells if cell in ("lstm", "gru") for b, t, w in dense
    ]
    if "convlstm" in config.cells:
        grid += [Point("convlstm", b, t, w, side, config.dtype) for b, t, w, side in spatial]
    return grid


def measure(config: Config, console: Console) -> Iterator[dict[str, Any]]:
    """One record per point, direction and library."""
    packages = {name: MODULES.get(name, name) for name in ("seqjax", *config.peers)}
    workers = start("experiments.bench.recurrent_peers", packages, console)
    for point in points(config):
        rivals = [worker for name, worker in workers.items() if point.cell in PEERS[name][1]]
        for gradient in (False, True):
            task = {"point": point, "gradient": gradient}
            for name, found in in_turns(rivals, task, config.rounds, config.seconds).items():
                yield {"library": name, "gradient": gradient, **point._asdict(), **found}
    for worker in workers.values():
        worker.stop()


FASTEST = "fastest JAX peer"


def ratios(records: list[dict[str, Any]], gradient: bool) -> dict[tuple, dict[str, float]]:
    """By point, each library's time over that of seqjax, and that of the fastest of the other JAX libraries."""
    found: dict[tuple, dict[str, float]] = {}
    for record in records:
        if record["gradient"] == gradient:
            seconds = found.setdefault(tuple(record[name] for name in Point._fields), {})
            seconds[record["library"]] = record.get("seconds", math.nan)
    for point, seconds in found.items():
        ours = seconds.pop("seqjax")
        found[point] = {name: theirs / ours for name, theirs in seconds.items()}
        rivals = [ratio for name, ratio in found[point].items() if name in JAX_PEERS and not math.isnan(ratio)]
        found[point] |= {FASTEST: min(rivals)} if rivals else {}
    return found


def table(records: list[dict[str, Any]], gradient: bool) -> Table:
    """Milliseconds of seqjax, and each library's time over it."""
    found = ratios(records, gradient)
    columns = list(dict.fromkeys(name for by_library in found.values() for name in by_library))
    result = Table(box=None, title="gradient step" if gradient else "forward pass")
    for column in ("cell", "B", "T", "D", "side", "seqjax ms", *columns):
        result.add_column(column, justify="right")
    ours = {
        tuple(r[name] for name in Point._fields): r.get("seconds", math.nan)
        for r in records
        if (r["library"], r["gradient"]) == ("seqjax", gradient)
    }
    for point, by_library in found.items():
        cells = [f"{by_library[name]:.2f}" if name in by_library else "" for name in columns]
        result.add_row(*map(str, point[:5]), f"{ours[point] * 1e3:.3g}", *cells)
    for kind, spatial in (("dense", False), ("convolutional", True)):
        rows = [by_library for point, by_library in found.items() if (Point(*point).side > 0) == spatial]
        if rows:
            means = [geometric_mean([row[name] for row in rows if name in row]) for name in columns]
            result.add_row(f"geometric mean, {kind}", "", "", "", "", "", *means, style="bold")
    return result


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Time of a gradient step of each library over that of seqjax, a dot per point."""
    import matplotlib.pyplot as plt

    gradient = [record for record in records if record["gradient"] and "seconds" in record]
    ours = {tuple(r[n] for n in Point._fields): r["seconds"] for r in gradient if r["library"] == "seqjax"}
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    libraries = list(dict.fromkeys(r["library"] for r in gradient if r["library"] != "seqjax"))
    for row, library in enumerate(libraries):
        mine = [r for r in gradient if r["library"] == library]
        ratios = [r["seconds"] / ours[tuple(r[n] for n in Point._fields)] for r in mine]
        axes.plot(ratios, [row] * len(ratios), "o", alpha=0.5)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", yticks=range(len(libraries)), yticklabels=libraries)
    axes.set_xlabel("time of a gradient step / that of seqjax")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def run(config: Config) -> None:
    """Measure, print, write."""
    console = Console()
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    records = []
    for record in measure(config, console):
        records.append(record)
        figure = f"{record['seconds'] * 1e3:.3g} ms" if "seconds" in record else record["error"]
        names = " ".join(str(record[name]) for name in Point._fields[:5])
        console.print(f"{names} {'gradient' if record['gradient'] else 'forward'} {record['library']}: {figure}")
    write_results(config, records=records)
    for gradient in (False, True):
        console.print(table(records, gradient))
    plot(records, out / "gradient.png")


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
