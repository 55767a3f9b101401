"""Training steps of pix2pix and CycleGAN next to the same networks in eager PyTorch: steps per second.

    pip install -e ".[bench]"
    python -m experiments.bench.gan [quick] --out runs/bench/gan

Each library runs in a process of its own, one at a time; at every point all are timed round after round. The step is
that of the recipe, on one device, at the published networks' sizes, at the same scaled to fit, and at those of the
recipe's preset for two cores; the peers are ``experiments.bench.gan_torch``, once as seqjax trains, every update
with translations of its own, and once as the published code does, with one translation for both players. All start
from the same weights and see the same batch, so that the losses of the first step are to agree; where there is dropout
(pix2pix) its draws differ, and reusing translations means that the second player's loss is one of earlier weights.

The table has steps per second of seqjax, the others' time over its own (above 1: seqjax is faster) and geometric means.
``results.json`` has every time, first losses, compile seconds, operations, versions and the machine.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from experiments.bench.gan_peers import PEERS, Point
from experiments.bench.record import write_results
from experiments.bench.workers import geometric_mean, in_turns, start
from seqjax.train.command import main


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    out: str = "runs/bench/gan"
    """Directory of results.json."""
    points: tuple[Point, ...] = (
        Point("pix2pix", "paper", size=256, base=64, batch=1),
        Point("pix2pix", "paper", size=256, base=32, batch=1),
        Point("pix2pix", "paper", size=64, base=64, batch=8),
        Point("pix2pix", "cpu", size=16, base=24, batch=16),
        Point("cyclegan", "paper", size=128, base=32, batch=1),
        Point("cyclegan", "paper", size=64, base=32, batch=4),
        Point("cyclegan", "cpu", size=16, base=16, batch=8),
    )
    """The grid."""
    peers: tuple[str, ...] = tuple(PEERS)
    """Libraries; seqjax is always there."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What all networks compute in; their parameters stay in float32."""
    rounds: int = 3
    """How often every library is timed at a point, in turns."""
    seconds: float = 3.0
    """Time of one library in one round, at least three steps."""


PRESETS = {
    "full": Config(),
    "quick": Config(points=tuple(point for point in Config().points if point.size < 64), rounds=1, seconds=0.3),
}


def measure(config: Config, console: Console) -> Iterator[dict[str, Any]]:
    """One record per point and library."""
    workers = start(
        "experiments.bench.gan_peers", {name: name.split(",")[0] for name in ("seqjax", *config.peers)}, console
    )
    for point in config.points:
        point = point._replace(dtype=config.dtype)
        for name, found in in_turns(list(workers.values()), {"point": point}, config.rounds, config.seconds).items():
            speed = {"steps_per_second": 1 / found["seconds"]} if "seconds" in found else {}
            yield {"library": name, **point._asdict(), **found, **speed}
    for worker in workers.values():
        worker.stop()


def table(records: list[dict[str, Any]]) -> Table:
    """A row per point: what seqjax does in a second, and the others' time over its own."""
    found: dict[Point, dict[str, dict[str, Any]]] = {}
    for record in records:
        point = Point(*(record[name] for name in Point._fields))
        found.setdefault(point, {})[record["library"]] = record
    others = list(dict.fromkeys(record["library"] for record in records if record["library"] != "seqjax"))
    result = Table(box=None, pad_edge=False, title=f"Training steps in {records[0]['dtype']}")
    for column in ("system", "networks", "size", "base", "B", "steps/s", "GFLOP/step", *others):
        result.add_column(column, justify="left" if column == "system" else "right", no_wrap=column == "system")
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for point, by_library in found.items():
        ours = by_library["seqjax"]
        for name in others:
            ratios[name].append(by_library[name].get("seconds", math.nan) / ours.get("seconds", math.nan))
        speed, operations = ours.get("steps_per_second", math.nan), ours.get("operations", math.nan)
        cells = [f"{ratios[name][-1]:.2f}" for name in others]
        result.add_row(*map(str, point[:5]), f"{speed:.3g}", f"{operations / 1e9:.3g}", *cells)
    means = [geometric_mean(ratios[name]) for name in others]
    result.add_row("geometric mean", *[""] * 6, *means, style="bold")
    return result


def line(record: dict[str, Any]) -> str:
    """One record as it is printed when it is there."""
    point = " ".join(str(record[name]) for name in Point._fields)
    if "error" in record:
        return f"{point} {record['library']}: {record['error']}"
    losses = ", ".join(f"{name} {value:.5g}" for name, value in record["first_losses"].items())
    return f"{point} {record['library']}: {record['seconds'] * 1e3:.4g} ms; losses of the first step: {losses}"


def run(config: Config) -> None:
    """Measure, print, write."""
    console, out, records = Console(), Path(config.out), []
    out.mkdir(parents=True, exist_ok=True)
    for record in measure(config, console):
        records.append(record)
        console.print(line(record), highlight=False)
    write_results(config, records=records)
    console.print(table(records))


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
