"""The account of a finished run: `report.json`, and the table that sets the model against its baselines."""

import datetime
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

import seqjax
from seqjax.errors import InputError
from seqjax.files import replace_file
from seqjax.train.log import Figures, from_json, to_json

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "seqjax")


def write_report(
    workdir: str | os.PathLike[str],
    *,
    metrics: Figures,
    baselines: Mapping[str, Figures],
    elsewhere: Mapping[str, Mapping[str, Figures]] = MappingProxyType({}),
    higher_is_better: Collection[str] = (),
    out_of_reach: Collection[str] = (),
    protocol: Mapping[str, Any] | None = None,
    config: Mapping[str, Any],
    seed: int,
    steps: int,
    seconds: float,
    seconds_to_first_step: float,
    input_wait: float,
    programs: Mapping[str, int],
    damaged: Collection[str] = (),
    command: str,
) -> dict[str, Any]:
    """Writes `report.json` into the work directory and returns it as `read_report` would.

    Args:
      workdir: the work directory.
      metrics: what the model reaches: numbers by name, and curves as lists.
      baselines: the same of each trivial predictor, by its name.
      elsewhere: the same of the "model" and of each trivial predictor on further sets, by the set's name.
      higher_is_better: the metrics that are no errors, such as ("psnr", "ssim").
      out_of_reach: those of the baselines that the model cannot beat, such as held-out images for a generator.
      protocol: what has to stand beside the metrics for them to mean anything: the record of a
        ``seqjax.metrics.metric.Metric``.
      config: the configuration, in the form of `seqjax.train.config.to_dict`.
      seed: of the parameters, the data order and all that is drawn.
      steps: optimiser steps of the whole run.
      seconds: spent on them, over all the processes that the run took.
      seconds_to_first_step: from the start of the process to the end of its first step, compilation included.
      input_wait: share of the time after it that was spent waiting for data, from 0 to 1.
      programs: how many compiled programs were loaded from the cache and how many made, from `train.startup`: a cold
        start loads none, a warm one makes none.
      damaged: the records that were skipped, each with its reason: those that this process met.
      command: what was typed, from `seqjax.train.command.command_line`.

    Raises:
      InputError: the file cannot be written; an earlier report is still there.
    """
    report = {
        "metrics": to_json(metrics),
        "baselines": _each(to_json, baselines),
        "elsewhere": {place: _each(to_json, found) for place, found in elsewhere.items()},
        "higher_is_better": sorted(higher_is_better),
        "out_of_reach": sorted(out_of_reach),
        "protocol": dict(protocol or {}),
        "command": command,
        "seed": seed,
        "steps": steps,
        "seconds": seconds,
        "seconds_to_first_step": seconds_to_first_step,
        "input_wait": input_wait,
        "programs": dict(programs),
        "damaged": sorted(damaged),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "hardware": hardware(),
        "config": dict(config),
    }
    replace_file(Path(workdir) / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    return read_report(workdir)


def read_report(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the report of a run, its metrics and baselines as numbers.

    Raises:
      InputError: there is none, or it is damaged.
    """
    path = Path(workdir) / "report.json"
    try:
        report = json.loads(path.read_text())
        report["metrics"] = from_json(report["metrics"])
        report["baselines"] = _each(from_json, report["baselines"])
        report["elsewhere"] = {place: _each(from_json, found) for place, found in report.get("elsewhere", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read as a report ({error}); expected the file that a finished run leaves in its "
            f"work directory. Run its command again to have it written."
        ) from error
    return report


def finished(workdir: str | os.PathLike[str], steps: int) -> dict[str, Any] | None:
    """Returns the report of a run that has made all its `steps`, None if it has not, or left no whole report."""
    try:
        report = read_report(workdir)
    except InputError:
        return None
    return report if report["steps"] >= steps else None


def versions() -> dict[str, str | None]:
    """Returns the versions of Python and of what computes, and the git commit of seqjax if it runs from one."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return {**found, "commit": _commit(Path(seqjax.__path__[0]).parent)}


def hardware() -> dict[str, Any]:
    """Returns what the run has to compute on, over all its processes; `cpus` are those of this machine."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cpus": os.cpu_count(),
    }


def format_report(report: Mapping[str, Any]) -> RenderableType:
    """Lays the report out for `rich`: the model above every baseline, one column per metric, and what it took.

    The row below them leads from the best baseline of each metric, which bears a star, to the model: "× 0.5" is half
    its error, "+ 0.1" a tenth more where higher is better (↑). Baselines out of reach bear none. What was measured
    elsewhere stands at the end; where it has none of these metrics, in a table of its own, one row per metric.
    """
    model = _numbers(report["metrics"])
    higher = {name: name in report["higher_is_better"] for name in model}
    rivals = {name: _numbers(figures) for name, figures in report["baselines"].items()}
    within_reach = {name: values for name, values in rivals.items() if name not in report.get("out_of_reach", ())}
    best = {name: _best(name, within_reach, higher[name]) for name in model}
    table = _table("", (_directed(report, name) for name in model))
    apart: list[RenderableType] = []
    # What bears no star ends in two blanks, so that the digits of a column stay in line.
    table.add_row("model", *(f"{value:.4g}  " for value in model.values()), style="bold")
    for rival, values in rivals.items():
        marks = {name: "*" if best[name] == rival else " " for name in model}
        table.add_row(rival, *(f"{values[n]:.4g} {marks[n]}" if n in values else "" for n in model))
    if any(best.values()):
        steps = (_step(model[n], rivals[rival][n], higher[n]) if rival else "" for n, rival in best.items())
        table.add_section()
        table.add_row("model against the best (*)", *steps)
    for place, found in report.get("elsewhere", {}).items():
        rows = {f"{name}, {place}": _numbers(figures) for name, figures in found.items()}
        if not any(model.keys() & values.keys() for values in rows.values()):
            apart += ["", _apart(report, place)]
            continue
        table.add_section()
        for name, values in rows.items():
            table.add_row(name, *(f"{values[n]:.4g}  " if n in values else "" for n in model))
    return Group(table, *apart, "", *map(Text, _circumstances(report)))


def _apart(report: Mapping[str, Any], place: str) -> Table:
    """What was measured there, one column for the model and each baseline."""
    found = {name: _numbers(figures) for name, figures in report["elsewhere"][place].items()}
    table = _table(place, found)
    for metric in next(iter(found.values())):
        values = (f"{figures[metric]:.4g}" if metric in figures else "" for figures in found.values())
        table.add_row(_directed(report, metric), *values)
    return table


def _table(corner: str, columns: Iterable[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(corner)
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _directed(report: Mapping[str, Any], metric: str) -> str:
    return f"{metric} {'↑' if metric in report['higher_is_better'] else '↓'}"


def _each(function: Callable[[Figures], Figures], found: Mapping[str, Figures]) -> dict[str, Figures]:
    return {name: function(figures) for name, figures in found.items()}


def _best(metric: str, rivals: Mapping[str, Mapping[str, float]], higher: bool) -> str | None:
    known = {name: values[metric] for name, values in rivals.items() if not math.isnan(values.get(metric, math.nan))}
    return (max if higher else min)(known, key=known.__getitem__, default=None)


def _step(value: float, best: float, higher: bool) -> str:
    if higher:
        return f"{'-' if value < best else '+'} {abs(value - best):.3g}  "
    return f"× {value / best:.3g}  " if best else "best exact  "


def _circumstances(report: Mapping[str, Any]) -> list[str]:
    on, versions = report["hardware"], report["versions"]
    devices = f"{on['devices']} × {on['device']}" if on["platform"] != "cpu" else f"{on['cpus']} CPU cores"
    took = f"{_duration(report['seconds'])}, the first after {_duration(report['seconds_to_first_step'])}"
    steps = f"{report['steps']} steps in {took}; {devices}; seed {report['seed']}; jax {versions['jax']}"
    skipped = len(report.get("damaged", ()))
    lost = [f"{skipped} damaged record{'s'[: skipped != 1]} skipped, listed in report.json"] if skipped else []
    return [steps, report["command"], *lost]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.3g} s"
    return str(datetime.timedelta(seconds=round(seconds)))


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not isinstance(value, list)}


def _commit(root: Path) -> str | None:
    """The commit of the checkout that `root` is, "-dirty" after it if files differ; None where it is none."""
    if not (root / ".git").exists():
        return None
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(describe, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
