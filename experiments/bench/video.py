"""Training steps of video prediction next to the same networks in eager PyTorch: time and memory.

    pip install -e ".[bench]"
    python -m experiments.bench.video [quick] --out runs/bench/video

Each library runs in a process of its own, one at a time; at every point all are timed round after round. The step is
that of the recipe of the ConvLSTM and of SVG-LP, but by Adam in all of them, on one device, at sizes of their presets;
where there is a GPU these are the published ones. The peers are ``experiments.bench.video_torch``, which have as many
parameters, and start from the same weights and see the same batch, so that the ConvLSTM's losses of the first step are
to agree; SVG draws its noise.

What our own ways cost stands beside: ConvLSTMs of which every √T-th state is kept (`remat`), and SVG with encoder and
decoder on one frame after another, not on all at once. Both ways are there for PyTorch's SVG; its published code goes
frame by frame. Then batches are normalised frame by frame as well.

Memory is what a step takes above what is held before: on a CPU the rise of the resident memory of a process of its own,
on a GPU of what PyTorch has allocated, and of ours what the compiled program asks for. The tables have milliseconds and
MiB of seqjax and the others' over them (time: above 1 seqjax is faster; memory: above 1 it takes less), with geometric
means. ``results.json`` has everything, with compile seconds, operations, versions and the machine; ``video.png`` shows
it.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from experiments.bench.record import write_results
from experiments.bench.video_peers import PEERS, RETURNED, Point
from experiments.bench.workers import geometric_mean, in_turns, start
from seqjax.train.command import main
from seqjax.train.report import hardware

ON_CPU = (
    Point("convlstm", "cpu", batch=4),
    Point("convlstm", "cpu", batch=4, future=90),
    Point("convlstm", "paper", batch=1),
    Point("svg", "cpu", batch=8),
    Point("svg", "paper", batch=4),
)
ON_GPU = (
    Point("convlstm", "paper", batch=16),
    Point("convlstm", "paper", batch=16, future=90),
    Point("svg", "paper", batch=100),
)
MEASURES = {"time": "seconds", "memory": "peak_bytes"}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    out: str = "runs/bench/video"
    """Directory of results.json and video.png."""
    points: tuple[Point, ...] = ()
    """The grid; for none given, published sizes where there is a GPU and smaller ones elsewhere."""
    peers: tuple[str, ...] = tuple(PEERS)[1:]
    """Libraries and ways; seqjax as it is comes first."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What all networks compute in; their parameters stay in float32."""
    rounds: int = 3
    """How often every library is timed at a point, in turns."""
    seconds: float = 3.0
    """Time of one library in one round, at least three steps."""


PRESETS = {
    "full": Config(),
    "quick": Config(points=(ON_CPU[0], ON_CPU[3]), rounds=1, seconds=0.3),
}


def grid(config: Config) -> tuple[Point, ...]:
    """The points; asking for the machine, this process takes none of a GPU's memory before it needs any."""
    if config.points:
        return config.points
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return ON_CPU if hardware()["platform"] == "cpu" else ON_GPU


def measure(config: Config, console: Console) -> Iterator[dict[str, Any]]:
    """One record per point and library."""
    packages = {name: PEERS[name][2] if name in PEERS else name for name in ("seqjax", *config.peers)}
    points, begin = grid(config), functools.partial(start, "experiments.bench.video_peers", packages, console)
    workers, apart = begin(), begin(RETURNED) if hardware()["platform"] == "cpu" else {}
    for point in points:
        point = point._replace(dtype=config.dtype)
        able = [worker for name, worker in workers.items() if point.system in PEERS[name][1]]
        for name, found in in_turns(able, {"point": point}, config.rounds, config.seconds).items():
            if name in apart:
                found |= {"peak_bytes": apart[name].ask({"point": point, "memory": True}, 0.0).get("peak_bytes")}
            yield {"library": name, **point._asdict(), **found}
    for worker in (*workers.values(), *apart.values()):
        worker.stop()


def ratios(records: list[dict[str, Any]], measure: str) -> dict[Point, dict[str, float]]:
    """By point what seqjax needs, under its name, and the others' over it; NaN where it is not known."""
    found: dict[Point, dict[str, float]] = {}
    for record in records:
        point = Point(*(record[name] for name in Point._fields))
        value = record.get(MEASURES[measure])
        found.setdefault(point, {})[record["library"]] = math.nan if value is None else value
    for by_library in found.values():
        ours = by_library["seqjax"]
        by_library |= {name: value / ours for name, value in by_library.items() if name != "seqjax" and ours}
    return found


def table(records: list[dict[str, Any]], measure: Literal["time", "memory"]) -> Table:
    """A row per point: what seqjax needs, and the others' over it."""
    others = list(dict.fromkeys(record["library"] for record in records if record["library"] != "seqjax"))
    unit, scale = ("ms", 1e3) if measure == "time" else ("MiB", 2**-20)
    result = Table(box=None, pad_edge=False, title=f"{measure.capitalize()} of a training step, {records[0]['dtype']}")
    for column in ("system", "networks", "B", "future", unit, *others):
        result.add_column(column, justify="left" if column == "system" else "right", no_wrap=column == "system")
    found = ratios(records, measure)
    for point, row in found.items():
        cells = [f"{row[name]:.2f}" if name in row else "" for name in others]
        result.add_row(*map(str, point[:3]), str(point.future or ""), f"{row['seqjax'] * scale:.4g}", *cells)
    means = [geometric_mean([row[name] for row in found.values() if name in row]) for name in others]
    result.add_row("geometric mean", "", "", "", "", *means, style="bold")
    return result


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Time and memory of each library over those of seqjax, a dot per point."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained", sharey=True)
    for axes, measure in zip(panels, MEASURES, strict=True):
        found = ratios(records, measure)
        libraries = list(dict.fromkeys(name for row in found.values() for name in row if name != "seqjax"))
        for system in dict.fromkeys(point.system for point in found):
            dots = [
                (row[name], libraries.index(name))
                for point, row in found.items()
                for name in row
                if point.system == system and name != "seqjax" and not math.isnan(row[name])
            ]
            axes.plot(*zip(*dots, strict=True) if dots else ([], []), "o", alpha=0.5, label=system)
        axes.axvline(1, color="black", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlim(min(axes.get_xlim()[0], 0.45), max(axes.get_xlim()[1], 2.2))
        axes.set(yticks=range(len(libraries)), yticklabels=libraries, xlabel=f"{measure} / seqjax's")
    panels[0].legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def line(record: dict[str, Any]) -> str:
    """One record as it is printed when it is there."""
    point = " ".join(str(record[name]) for name in Point._fields)
    if "error" in record:
        return f"{point} {record['library']}: {record['error']}"
    memory = "" if record["peak_bytes"] is None else f", {record['peak_bytes'] / 2**20:.4g} MiB"
    loss = f"{record['first_losses']['loss']:.5g}"
    return f"{point} {record['library']}: {record['seconds'] * 1e3:.4g} ms{memory}; loss of the first step: {loss}"


def run(config: Config) -> None:
    """Measure, print, write."""
    console, out, records = Console(), Path(config.out), []
    out.mkdir(parents=True, exist_ok=True)
    for record in measure(config, console):
        records.append(record)
        console.print(line(record), highlight=False)
    write_results(config, records=records)
    console.print(table(records, "time"))
    console.print(table(records, "memory"))
    plot(records, out / "video.png")


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
