"""Input: how fast batches come from each local set, what reading them adds to a process, and who waits for whom.

    python -m experiments.bench.input [quick] --step-ms 20 --out runs/bench/input

Each set is read along two roads, from disk and kept in memory, as a recipe reads it: shuffled, in batches, ahead of
time by threads of the training process. So a worker is a process, and each row is measured in a fresh one: memory is
what its resident set grew by from before opening the set to the end. Waiting is the share of time in which ``next``
blocks while every batch is followed by a step of the given length. The step is slept, as with an accelerator at work;
where the step itself computes on these cores there is less left for reading, and the loop's own figure tells.
``results.json`` has every figure, versions and the machine.
"""

import dataclasses
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.console import Console
from rich.table import Table

from experiments.bench.record import write_results
from seqjax.data.pipeline import train_batches
from seqjax.data.source import in_memory, open_source
from seqjax.train.command import main
from seqjax.train.report import read_report

SETS = {
    "moving_digits/one_32": 4,
    "moving_digits/tiny_16": 8,
    "adding_problem/t60": 64,
    "copy_memory/t10": 64,
    "digits/16x16": 64,
    "digit_outlines/16x16": 16,
    "digit_styles/16x16": 8,
    "cluttered_digits/translated_24": 64,
    "cluttered_digits/binary_16": 100,
    "scenes/two": 64,
    "transduction/reverse_16": 64,
}
"""The local sets, and the batch size of the recipe that trains on them."""
DOMAINS = ("digit_styles", "textures")
"""Those of two domains, of which the first is read."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    out: str = "runs/bench/input"
    """Directory of results.json."""
    sets: tuple[str, ...] = tuple(SETS)
    """Sets, as name/configuration."""
    roads: tuple[Literal["disk", "memory"], ...] = ("disk", "memory")
    """From array_record files, or read once into memory."""
    data_dir: str | None = None
    """Where prepared sets are; TFDS's own choice if None. What is missing is prepared first."""
    batch: int = 16
    """Records per batch of a set for which no recipe says it."""
    step_ms: float = 10.0
    """Length of a training step in milliseconds."""
    workdir: str | None = None
    """Work directory of a finished run whose mean step, all that the run did included, is taken instead of step_ms."""
    seconds: float = 3.0
    """Time of each measurement, at least three batches."""


PRESETS = {"full": Config(), "quick": Config(seconds=0.2)}


def measure(config: Config, name: str, road: str, step: float) -> dict[str, Any]:
    """The record of one set along one road, with steps of so many seconds; to be called in a fresh process."""
    process, batch = psutil.Process(), SETS.get(name, config.batch)
    before, start = process.memory_info().rss, time.perf_counter()
    source = open_train(config, name)
    source = in_memory(source) if road == "memory" else source
    batches = train_batches(source, batch_size=batch, seed=0)
    first = next(batches)
    facts = {"set": name, "road": road, "records": len(source), "batch": batch}
    facts["record_bytes"] = sum(array.nbytes for array in first.values()) // batch
    facts["seconds_to_first_batch"] = time.perf_counter() - start
    count, total, _ = consume(batches, config.seconds)
    facts |= {"batches_per_second": count / total, "records_per_second": count * batch / total}
    _, total, waited = consume(batches, config.seconds, step)
    facts |= {"step_seconds": step, "wait_share": waited / total}
    return facts | {"memory_bytes": process.memory_info().rss - before}


def open_train(config: Config, name: str) -> Any:
    """The training records of ``name/configuration``."""
    name, _, variant = name.partition("/")
    split = "trainA" if name in DOMAINS else "train"
    return open_source(name, split=split, config=variant or None, data_dir=config.data_dir)


def consume(batches: Iterator[Any], seconds: float, step: float = 0.0) -> tuple[int, float, float]:
    """Number of batches taken in the time given, the seconds that took, and those in which ``next`` blocked."""
    count, waited, start = 0, 0.0, time.perf_counter()
    while count < 3 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - before
        count += 1
        if step:
            time.sleep(step)
    return count, time.perf_counter() - start, waited


def step_seconds(config: Config) -> float:
    """Of the configuration, or of the run that it names."""
    if config.workdir is None:
        return config.step_ms / 1e3
    report = read_report(config.workdir)
    return report["seconds"] / report["steps"]


def table(records: list[dict[str, Any]]) -> Table:
    """A row per set and road."""
    title = f"Training batches, and waiting with a step of {records[0]['step_seconds'] * 1e3:g} ms"
    result = Table(box=None, pad_edge=False, title=title)
    for column in ("set", "road", "B", "records/s", "batches/s", "first s", "MiB", "waiting"):
        result.add_column(column, justify="right")
    for record in records:
        speed = f"{record['records_per_second']:.0f}", f"{record['batches_per_second']:.4g}"
        cost = f"{record['seconds_to_first_batch']:.2f}", f"{record['memory_bytes'] / 2**20:.0f}"
        where = record["set"], record["road"], str(record["batch"])
        result.add_row(*where, *speed, *cost, f"{record['wait_share']:.1%}")
    return result


def run(config: Config) -> None:
    """Measure, print, write."""
    step, records, out = step_seconds(config), [], Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    for name in config.sets:
        open_train(config, name)  # prepared here, if it has to be, so that it is not measured
        for road in config.roads:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                records.append(fresh.submit(measure, config, name, road, step).result())
    Console().print(table(records))
    write_results(config, records=records)


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
