"""Several runs of one recipe by one command: each in a directory of its own, their figures and curves side by side."""

import functools
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from seqjax.files import replace_file
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.log import read_metrics, to_json
from seqjax.train.media import write_png
from seqjax.train.plot import picture
from seqjax.train.progress import show
from seqjax.train.report import read_report

Lines = Mapping[str, list[dict[str, Any]]]
"""Of ``metrics.jsonl``, by run."""
Found = Mapping[str, Mapping[str, Any]]
"""Figures by baseline and run."""


def training_curves(lines: Lines, found: Found, *, curve: str = "loss", label: str = "training loss") -> np.ndarray:
    """A metric of training over the steps, a line for each run.

    Args:
      lines: of the runs.
      found: what they reach.
      curve: the metric.
      label: what it is.
    """
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, all_lines in lines.items():
        train = [line for line in all_lines if line["kind"] == "train"]
        axes.plot([line["step"] for line in train], [line[curve] for line in train], label=name)
    axes.set(xlabel="step", ylabel=label)
    axes.legend()
    return picture(figure)


def curves_by_frame(found: Found, names: Collection[str], *, bold: Collection[str] = ()) -> np.ndarray:
    """Figures by frame of the future with their 95 % confidence bands, a panel for each figure.

    Args:
      found: what `seqjax.metrics.samples.curves` finishes with, by baseline and model.
      names: the figures.
      bold: models whose lines are drawn bold.
    """
    figure = Figure(figsize=(4.5 * len(names), 4), dpi=110, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for who, figures in found.items():
            mean, band = (np.asarray(figures[f"{name}_{what}"]) for what in ("by_frame", "band"))
            frames = np.arange(1, len(mean) + 1)
            (line,) = axes.plot(frames, mean, linewidth=2 if who in bold else 1, label=who)
            axes.fill_between(frames, mean - band, mean + band, color=line.get_color(), alpha=0.2)
        axes.set(xlabel="frame of the future", ylabel=name)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    return picture(figure)


def run_several(
    runs: Mapping[Any, Any],
    prepare: Callable[[Any], Experiment],
    *,
    workdir: str,
    title: str,
    more: Callable[[Any], Mapping[str, Any]] = lambda config: {},
    plot: Callable[[Lines, Found], np.ndarray] = training_curves,
) -> None:
    """Train one after another, print a table, and leave ``comparison.json`` and ``comparison.png`` in ``workdir``.

    Runs that are finished are not run again. The baselines of the first stand for all: they are of the same data.

    Args:
      runs: configurations by name, each with a work directory of its own.
      prepare: ``prepare(config)``, as of `run_experiment`.
      workdir: where the comparison is put.
      title: of the table.
      more: ``more(config)``, figures of a finished run beside those of its report.
      plot: ``plot(lines, found)``, what is drawn.
    """
    for name, config in runs.items():
        show(f"\n{name}: {config.workdir}")
        run_experiment(config, functools.partial(prepare, config))
    if jax.process_index() == 0:
        places = {name: config.workdir for name, config in runs.items()}
        compare(places, workdir=workdir, title=title, more={name: more(run) for name, run in runs.items()}, plot=plot)


def compare(
    runs: Mapping[str, str],
    *,
    workdir: str,
    title: str,
    more: Found | None = None,
    plot: Callable[[Lines, Found], np.ndarray] = training_curves,
) -> None:
    """The part of `run_several` after the runs, of which the work directories are given.

    Raises:
      InputError: a run left no report.
    """
    places = {name: Path(run).expanduser() for name, run in runs.items()}
    reports = {name: read_report(run) for name, run in places.items()}
    lines = {name: read_metrics(run / "metrics.jsonl") for name, run in places.items()}
    first, *_ = reports.values()
    found = dict(first["baselines"])
    found |= {name: {**report["metrics"], **(more or {}).get(name, {})} for name, report in reports.items()}
    for place, figures in first["elsewhere"].items():
        found |= {f"{name}, {place}": rivals for name, rivals in figures.items() if name != "model"}
        found |= {f"{name}, {place}": report["elsewhere"][place]["model"] for name, report in reports.items()}
    write_comparison(found, plot(lines, found), workdir=workdir, title=title)


def write_comparison(found: Found, figure: np.ndarray, *, workdir: str, title: str) -> None:
    """Print a table, and leave ``comparison.json`` and ``comparison.png`` in ``workdir``.

    Args:
      found: figures by baseline and model. Those that share any with the first are the table's rows, the others
        columns of a second one; lists are left out.
      figure: the picture.
      workdir: where both are put.
      title: of the table.
    """
    place = Path(workdir).expanduser()
    content = {name: to_json(figures) for name, figures in found.items()}
    replace_file(place / "comparison.json", (json.dumps(content, indent=2) + "\n").encode())
    write_png(place / "comparison.png", figure)
    first, *_ = found.values()
    apart = {name: figures for name, figures in found.items() if not first.keys() & figures.keys()}
    show(_tabulate(title, {name: figures for name, figures in found.items() if name not in apart}))
    if apart:
        show(_turned(apart))
    show(f"{place / 'comparison.png'}")


def _tabulate(title: str, found: Found) -> Table:
    *_, figures = found.values()
    metrics = [name for name, value in figures.items() if not isinstance(value, list)]
    table = Table("", title=title, box=None)
    for metric in metrics:
        table.add_column(metric, justify="right")
    for name, values in found.items():
        table.add_row(name, *(f"{values[metric]:.4g}" if metric in values else "" for metric in metrics))
    return table


def _turned(found: Found) -> Table:
    """One column for each baseline and model."""
    metrics = dict.fromkeys(
        name for figures in found.values() for name, x in figures.items() if not isinstance(x, list)
    )
    table = Table("", box=None)
    for name in found:
        table.add_column(name, justify="right")
    for metric in metrics:
        table.add_row(metric, *(f"{values[metric]:.4g}" if metric in values else "" for values in found.values()))
    return table
