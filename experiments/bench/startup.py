"""Process start to first step, of every recipe, with an empty cache of compiled programs and with a full one.

    python -m experiments.bench.startup [tiny] --out runs/bench/startup

Each recipe is started twice as a user starts it, in a fresh work directory, both times with the same cache of compiled
programs, which is empty at first. The seconds, and how many programs were compiled and loaded, are those that the run
itself writes into ``report.json``; the data is prepared before, by a run that is not counted. ``results.json`` has them
all, versions and the machine.
"""

import dataclasses
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.bench.record import write_results
from experiments.bench.step import every_recipe
from seqjax.errors import InputError
from seqjax.train.command import main
from seqjax.train.report import read_report


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    out: str = "runs/bench/startup"
    """Directory of results.json."""
    recipes: tuple[str, ...] = ()
    """Modules, such as experiments.prediction.convlstm; all of them if none is named."""
    preset: str = "cpu"
    """Preset of each recipe."""
    steps: int = 60
    """Steps of each run: more than the warm-up of any preset, since a report is written at the end."""
    data_dir: str | None = None
    """Where prepared sets are; TFDS's own choice if None."""


PRESETS = {"cpu": Config(), "tiny": Config(preset="tiny", steps=2)}


def prepare(config: Config, recipe: str) -> None:
    """Makes the data of a recipe if it is not there."""
    module = importlib.import_module(recipe)
    preset = module.PRESETS[config.preset]
    data = dataclasses.replace(preset.data, data_dir=config.data_dir)
    with tempfile.TemporaryDirectory() as workdir:
        module.prepare(dataclasses.replace(preset, data=data, workdir=workdir))


def started(config: Config, recipe: str, cache: Path, workdir: Path) -> dict[str, Any]:
    """Runs a recipe to its end in a process of its own; what its first report says of its start.

    Raises:
      InputError: it ended otherwise.
    """
    options = ["--workdir", str(workdir), "--loop.steps", str(config.steps)]
    options += [] if config.data_dir is None else ["--data.data-dir", config.data_dir]
    line = [sys.executable, "-m", recipe, config.preset, *options]
    ended = subprocess.run(line, env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}, capture_output=True)
    if ended.returncode:
        raise InputError(f"{recipe} ended with status {ended.returncode}: {ended.stderr.decode()[-500:]}")
    # A recipe that trains several networks one after another writes a report for each.
    first = min(workdir.rglob("report.json"), key=lambda path: path.stat().st_mtime)
    report = read_report(first.parent)
    return {"seconds": report["seconds_to_first_step"], **report["programs"]}


def measure(config: Config, recipe: str) -> dict[str, Any]:
    """The record of one recipe: a cold start, then a warm one."""
    prepare(config, recipe)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        runs = {name: started(config, recipe, cache, Path(folder) / name) for name in ("cold", "warm")}
    return {"recipe": recipe.removeprefix("experiments."), "preset": config.preset, **runs}


def table(records: list[dict[str, Any]]) -> Table:
    """A row per recipe."""
    result = Table(box=None, pad_edge=False, title="Seconds from the start of the process to the end of its first step")
    for column in ("recipe", "cold", "compiled", "warm", "loaded"):
        result.add_column(column, justify="left" if column == "recipe" else "right", no_wrap=column == "recipe")
    for r in records:
        cold, warm = r["cold"], r["warm"]
        row = f"{cold['seconds']:.1f}", str(cold["compiled"]), f"{warm['seconds']:.1f}", str(warm["loaded"])
        result.add_row(r["recipe"], *row)
    return result


def run(config: Config) -> None:
    """Measure, print, write."""
    console, out, records = Console(), Path(config.out), []
    out.mkdir(parents=True, exist_ok=True)
    for recipe in config.recipes or every_recipe():
        records.append(measure(config, recipe))
        cold, warm = (records[-1][start]["seconds"] for start in ("cold", "warm"))
        console.print(f"{recipe}: {cold:.1f} s cold, {warm:.1f} s warm", highlight=False)
    console.print(table(records))
    write_results(config, records=records)


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
