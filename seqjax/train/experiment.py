"""A recipe from first line to last: the run starts or resumes, is measured beside its baselines, and reports."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx

from seqjax.nn.split import DType, Nets, split
from seqjax.train.command import command_line
from seqjax.train.config import to_dict
from seqjax.train.evaluate import Evaluation, Predict, Sampling, compile_evaluation
from seqjax.train.loop import Loop, fit
from seqjax.train.mesh import make_mesh
from seqjax.train.progress import show
from seqjax.train.report import finished, format_report, write_report
from seqjax.train.startup import programs, start
from seqjax.train.step import Learner
from seqjax.train.workdir import open_workdir


@runtime_checkable
class Settings(Protocol):
    """What every recipe's configuration has beside fields of its own; a frozen dataclass."""

    @property
    def loop(self) -> Loop:
        """Length and cadences of training."""
        ...

    @property
    def seed(self) -> int:
        """Of the parameters and of all that is drawn."""
        ...

    @property
    def workdir(self) -> str:
        """Where the run keeps everything."""
        ...

    @property
    def allow_change(self) -> tuple[str, ...]:
        """Fields that may differ from those of the run that is already there."""
        ...


class Experiment(NamedTuple):
    """What is trained, on what, and what it is compared with."""

    learner: Learner
    """From ``train.step``."""
    build: Callable[[nnx.Rngs], Nets]
    """Networks with fresh parameters."""
    batches: Callable[[int], Iterator[Mapping[str, np.ndarray]]]
    """``batches(step)``, as ``train.loop.fit`` takes them."""
    evaluation: Evaluation
    """What is measured of the model, and of the baselines."""
    sampling: Sampling
    """What is drawn."""
    baselines: Callable[[], Mapping[str, Predict]]
    """Predictions that need no training, by name: ``predict({}, batch)``. Called after training."""
    higher_is_better: Collection[str] = ()
    """Those of the metrics that are no errors."""
    out_of_reach: Collection[str] = ()
    """Those of the baselines that nothing can beat, such as real images beside generated ones."""
    elsewhere: Mapping[str, Evaluation] = MappingProxyType({})
    """Further sets on which the networks and the baselines are measured after training, by name, such as one of what
    training does not show."""
    warm_start: Callable[[Nets], Nets] | None = None
    """What a run begins with, made of the networks with fresh parameters and of the same structure, such as parameters
    of another run. Not called where the run is continued."""
    sources: Collection[Any] = ()
    """What the records come from; the damaged ones that a source knows of (its ``damaged``) stand in the report."""


def run_experiment(config: Settings, prepare: Callable[[], Experiment]) -> None:
    """Train to the end of ``config.loop`` in ``config.workdir``, measure, write ``report.json`` and print it.

    A run that is there already is continued; if it is finished its report is printed, and ``prepare`` (data sets are
    opened there) is not called. Errors and ends are those of ``open_workdir`` and ``fit``.
    """
    began = start(to_dict(config), devices=config.loop.devices)
    lead = jax.process_index() == 0
    with open_workdir(
        config.workdir, to_dict(config), allow=config.allow_change, command=command_line(), lead=lead
    ) as workdir:
        if report := finished(workdir, config.loop.steps):
            show(f"{workdir}: finished, all {config.loop.steps} steps are done.")
            return show(format_report(report))
        experiment = prepare()
        before_the_loop = max(0.0, time.time() - began)  # the clock may have been set back
        result = fit(
            experiment.learner,
            experiment.build,
            experiment.batches,
            loop=config.loop,
            seed=config.seed,
            workdir=workdir,
            config=to_dict(config),
            evaluation=experiment.evaluation,
            sampling=experiment.sampling,
            warm_start=experiment.warm_start,
        )
        baselines = experiment.baselines()
        figures = {name: measure(experiment.evaluation, predict) for name, predict in baselines.items()}
        elsewhere = measure_elsewhere(experiment, baselines, result.nets, config.loop.dtype)
        if not lead:
            return None
        report = write_report(
            workdir,
            metrics=result.figures,
            baselines=figures,
            elsewhere=elsewhere,
            higher_is_better=experiment.higher_is_better,
            out_of_reach=experiment.out_of_reach,
            protocol=experiment.evaluation.metric.record,
            config=to_dict(config),
            seed=config.seed,
            steps=result.steps,
            seconds=result.seconds,
            seconds_to_first_step=before_the_loop + result.seconds_to_first_step,
            input_wait=result.input_wait,
            programs=programs(),
            damaged=[reason for source in experiment.sources for reason in getattr(source, "damaged", {}).values()],
            command=command_line(),
        )
        return show(format_report(report))


def measure(
    evaluation: Evaluation, predict: Predict, nets: Nets | None = None, *, dtype: DType | None = None
) -> dict[str, Any]:
    """The figures of predictions by networks, or by what needs none, through the same evaluation."""
    parts = split(nets or {})
    compiled = compile_evaluation(evaluation._replace(predict=predict), parts.graphs, make_mesh(), dtype=dtype)
    return compiled(parts.params, parts.rest)


def measure_elsewhere(
    experiment: Experiment, baselines: Mapping[str, Predict], nets: Nets, dtype: DType | None
) -> dict[str, dict[str, dict[str, Any]]]:
    """The figures of the model and of the baselines on each of the further sets."""
    return {
        place: {"model": measure(evaluation, evaluation.predict, nets, dtype=dtype)}
        | {name: measure(evaluation, predict) for name, predict in baselines.items()}
        for place, evaluation in experiment.elsewhere.items()
    }
