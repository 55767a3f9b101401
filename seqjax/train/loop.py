"""The one training loop: starts or resumes, logs, evaluates, draws, saves, and stops for a reason that it names."""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from seqjax.errors import InputError
from seqjax.nn.split import Nets, initialise, merge, split
from seqjax.train.balance import Balance
from seqjax.train.checkpoint import Checkpoints
from seqjax.train.evaluate import Evaluation, Sampling, compile_evaluation, compile_sampling
from seqjax.train.log import Logs
from seqjax.train.media import write_gif, write_png
from seqjax.train.mesh import compile_step, gather, make_mesh, place, shard_batch
from seqjax.train.outcome import Diverged, Preempted
from seqjax.train.profile import Profile
from seqjax.train.progress import Progress
from seqjax.train.sharding import state_shardings
from seqjax.train.state import State
from seqjax.train.step import Learner, repeat


@dataclasses.dataclass(frozen=True)
class Loop:
    """How long to train, and how often to do what else."""

    steps: int = 1000
    """Optimiser steps of the whole run."""
    log_every: int = 50
    """Steps between two lines of metrics."""
    evaluate_every: int = 0
    """Steps between two evaluations; 0 evaluates at the end alone."""
    sample_every: int = 0
    """Steps between two sets of pictures; 0 draws at the end alone."""
    save_every: int = 200
    """Steps between two checkpoints; the last step is always saved."""
    keep: int = 2
    """How many checkpoints are kept, newest first."""
    steps_per_call: int = 1
    """Optimiser steps in one call of the compiled program; what the other numbers count is a multiple of it. For
    accelerators: on CPU, XLA runs convolutions inside a loop many times slower."""
    parallel: Literal["jit", "pmap"] = "jit"
    """Several devices: "jit" computes what one device would (BatchNorm sees the whole batch); "pmap" lets each
    device see its part alone and averages gradients."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """What the networks compute in. Parameters, optimisers, gradients, losses and statistics stay in float32."""
    devices: int | None = None
    """Devices that there have to be, over all processes: a run that finds others ends before it compiles."""
    shard: tuple[str, ...] = ()
    """Regular expressions: parameters whose paths match are split over the devices, with what optimisers keep of them,
    instead of being whole on each; the results are the same to rounding. With parallel="jit" alone."""
    profile: str | None = None
    """First and last step to trace, such as 10:20; the trace in <workdir>/profile opens in TensorBoard and XProf."""

    @property
    def dtype(self) -> str | None:
        """What the networks are brought to before they compute; None leaves them as they are."""
        return None if self.compute == "float32" else self.compute


class Fit(NamedTuple):
    """A finished training run."""

    nets: Nets
    """The networks, with averaged parameters where the learner averages."""
    state: State
    """The last state."""
    figures: dict[str, Any]
    """What the evaluation found at the last step; empty without one."""
    steps: int
    seconds: float
    """Time spent in this loop, over all the processes that the run took."""
    seconds_to_first_step: float
    """From entering the loop to the end of the first step: compilation, restoring and the first batch."""
    input_wait: float
    """Share of the time after the first step that the loop waited for batches, from 0 to 1."""


def fit(
    learner: Learner,
    build: Callable[[nnx.Rngs], Nets],
    batches: Callable[[int], Iterator[Mapping[str, np.ndarray]]],
    *,
    loop: Loop,
    seed: int,
    workdir: Path,
    config: Mapping[str, Any],
    evaluation: Evaluation | None = None,
    sampling: Sampling | None = None,
    warm_start: Callable[[Nets], Nets] | None = None,
) -> Fit:
    """Train to the last step of ``loop``, from the newest checkpoint in ``workdir`` if there is one.

    The state holds all that the steps depend on and ``batches`` begins at any step, so n steps, an end of whatever
    kind, and the rest make the same run as all steps at once.

    Args:
      learner: from ``train.step``.
      build: networks with fresh parameters.
      batches: ``batches(step)``: host batches from that step on, this process's part of each; with
        ``loop.steps_per_call`` n above 1, each item stacks n batches.
      loop: how long, how often.
      seed: of the parameters and of all that the steps draw.
      workdir: made by ``train.workdir.open_workdir``.
      config: the run's configuration as JSON, stored in each checkpoint.
      evaluation: what to measure.
      sampling: what to draw.
      warm_start: what the first step begins with instead, given the networks of ``build`` and of their structure; not
        called where there is a checkpoint.

    Raises:
      Diverged: a metric of some step is not finite; the checkpoint before that step stays the newest.
      Preempted: SIGTERM came; the step reached is saved.
      InputError: what the parts raise, and cadences that ``steps_per_call`` does not divide.
    """
    _check(loop)
    began, mesh = time.monotonic(), make_mesh()
    nets, key = initialise(build, seed), jax.random.fold_in(jax.random.key(seed), 1)
    graphs = split(nets).graphs
    state = learner.init(nets, key)
    evaluate = evaluation and compile_evaluation(evaluation, graphs, mesh, dtype=loop.dtype)
    sample = sampling and compile_sampling(sampling, graphs, dtype=loop.dtype)
    calls = loop.steps_per_call
    learner = repeat(learner, calls) if calls > 1 else learner
    places = state_shardings(state, mesh, loop.shard)
    compiled = compile_step(learner, graphs, mesh, loop.parallel, inner_steps=calls, dtype=loop.dtype, shardings=places)
    figures: dict[str, Any] = {}
    seconds_to_first_step = 0.0

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints", keep=loop.keep))
        start, state, spent = _begin(checkpoints, state, mesh, places)
        state = state if warm_start is None or start else place(learner.init(warm_start(nets), key), places)
        lead = jax.process_index() == 0
        logs = stack.enter_context(Logs(workdir, resume_step=start, active=lead))
        progress = stack.enter_context(Progress(loop.steps, start=start, active=lead))
        stop = stack.enter_context(_StopSignal())
        profile = stack.enter_context(Profile(loop.profile, workdir / "profile"))
        data = _Timed(batches(start))
        stack.callback(data.close)
        recent = _Recent(logs, progress, loop.log_every)

        for step in range(start + calls, loop.steps + 1, calls):
            profile.before(step)
            state, metrics = compiled(state, shard_batch(next(data), mesh, inner_steps=calls))
            profile.after(step, metrics)
            recent.add(step, calls, metrics)
            progress.advance(step)
            last, stopping = step == loop.steps, stop.asked(step)
            if step == start + calls:
                jax.block_until_ready(metrics)
                seconds_to_first_step = time.monotonic() - began
            if _due(step - calls, loop.log_every):
                recent.write(leave=calls)
            if evaluate and (last or _due(step, loop.evaluate_every)):
                recent.write()
                figures = evaluate(*_trained(state, mesh))
                logs.write(step, "evaluation", figures)
                progress.log(step, figures)
            if sample and (last or _due(step, loop.sample_every)):
                _draw(sample(*_trained(state, mesh)), step, workdir, logs, lead)
            if last or stopping or _due(step, loop.save_every):
                recent.write()
                seconds = spent + time.monotonic() - began
                checkpoints.save(step, state, config=dict(config), progress={"seconds": seconds})
            if stopping and not last:
                checkpoints.wait()
                raise Preempted(f"asked to stop (SIGTERM); step {step} is saved, the same command continues from it.")

    if evaluate and not figures:
        figures = evaluate(*_trained(state, mesh))
    nets = merge(graphs, *_trained(state, mesh))
    seconds = time.monotonic() - began
    waited = data.seconds / (seconds - seconds_to_first_step)
    return Fit(nets, state, figures, loop.steps, spent + seconds, seconds_to_first_step, waited)


def _begin(checkpoints: Checkpoints, state: State, mesh: Mesh, places: State) -> tuple[int, State, float]:
    """Step, state and seconds spent of the newest checkpoint, or of a fresh run."""
    restored = checkpoints.restore(jax.eval_shape(lambda: state), mesh, places)
    if restored is None:
        return 0, place(state, places), 0.0
    return restored.step, restored.state, restored.progress["seconds"]


def _trained(state: State, mesh: Mesh) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters, averaged where the learner averages, and the other variables; whole on every device."""
    return gather(state.params | state.ema, mesh), state.rest


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _draw(pictures: Mapping[str, np.ndarray], step: int, workdir: Path, logs: Logs, active: bool) -> None:
    for name, picture in pictures.items():
        path = workdir / "samples" / f"{name}_{step:07d}"
        if not active:
            continue
        if picture.ndim == 4:
            write_gif(path.with_suffix(".gif"), picture)
            logs.video(step, name, picture)
        else:
            write_png(path.with_suffix(".png"), picture)
            logs.image(step, name, picture)


class _Recent:
    """Metrics of the latest steps, still on the device: read one call late, so that the device has work meanwhile."""

    def __init__(self, logs: Logs, progress: Progress, log_every: int):
        self.logs, self.progress, self.log_every = logs, progress, log_every
        self.held: list[tuple[int, dict[str, Any]]] = []
        self.balance = Balance()

    def add(self, step: int, steps: int, metrics: dict[str, Any]) -> None:
        for i in range(steps):
            one = metrics if steps == 1 else {name: values[i] for name, values in metrics.items()}
            self.held.append((step - steps + 1 + i, one))

    def write(self, leave: int = 0) -> None:
        """Check every step's metrics, log those that are due; the newest ``leave`` stay where they are."""
        ready, self.held = self.held[: len(self.held) - leave], self.held[len(self.held) - leave :]
        for step, metrics in jax.device_get(ready):
            figures = _of_who_played({name: float(value) for name, value in metrics.items()})
            broken = {name: value for name, value in figures.items() if not np.isfinite(value)}
            if broken:
                self.logs.write(step, "train", figures)
                raise Diverged(
                    f"step {step}: {', '.join(f'{name} is {value}' for name, value in broken.items())}. The checkpoint "
                    "before it is kept. Try a lower learning rate, clipping of the gradient, or another seed."
                )
            if step % self.log_every == 0:
                self.logs.write(step, "train", figures)
                self.progress.log(step, figures)
                self.balance.watch(step, figures)


def _of_who_played(figures: dict[str, float]) -> dict[str, float]:
    """Without the metrics of players whose turn it was not, and without the turns."""
    out = tuple(name.removesuffix("turn") for name, value in figures.items() if name.endswith("/turn") and not value)
    return {name: value for name, value in figures.items() if not name.endswith("/turn") and not name.startswith(out)}


class _Timed:
    """Batches, and the seconds that the loop has waited for them, the first aside."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self.batches, self.seconds, self.first = batches, 0.0, True

    def __next__(self) -> Any:
        began = time.monotonic()
        batch = next(self.batches)
        if not self.first:
            self.seconds += time.monotonic() - began
        self.first = False
        return batch

    def close(self) -> None:
        if hasattr(self.batches, "close"):
            self.batches.close()


class _StopSignal:
    """Whether this run, or with several processes any of them, was asked to stop by SIGTERM."""

    def __enter__(self) -> "_StopSignal":
        self.received = False
        self.previous = None
        # With several processes the runtime of jax listens for the signal; elsewhere threads have no say in it.
        self.alone = jax.process_count() == 1
        if self.alone and threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGTERM, self.previous)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def asked(self, step: int) -> bool:
        return self.received if self.alone else multihost_utils.reached_preemption_sync_point(step)


def _check(loop: Loop) -> None:
    if loop.steps < 1 or loop.log_every < 1 or loop.save_every < 1 or loop.keep < 1 or loop.steps_per_call < 1:
        raise InputError(
            f"loop: steps {loop.steps}, log_every {loop.log_every}, save_every {loop.save_every}, keep {loop.keep} and "
            f"steps_per_call {loop.steps_per_call} have to be at least 1."
        )
    for name in ("steps", "log_every", "evaluate_every", "sample_every", "save_every"):
        if getattr(loop, name) % loop.steps_per_call:
            raise InputError(
                f"loop.{name}: {getattr(loop, name)} is not a multiple of steps_per_call={loop.steps_per_call}, the "
                "steps that one call makes. Choose multiples of it."
            )
