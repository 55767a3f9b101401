"""Storms in fields of weather, tracked and forecast with density maps (after Kim et al., 2019).

    python -m experiments.prediction.storms --workdir runs/storms                # cpu: tracking, minutes on two cores
    python -m experiments.prediction.storms forecast --workdir runs/storms-forecast      # five maps to the next five
    python -m experiments.prediction.storms paper --workdir runs/storms-paper            # the published fields

The same command starts or resumes. `cpu` learns to tell storms from lows that do not rotate, in simulated pressure and
winds on 32x32, `forecast` where storms go, how they grow and merge; both on clips of ten steps. `paper` reads the
published clips (`seqjax.data.storms.Cam5Hurricanes` says where they come from) with the full network, `--model.task
forecast` there forecasts; `tiny` takes seconds and is what the tests run.
The report has precision, recall and F1 of the centres found, at the threshold that is best for each predictor, their
distance in pixels, and the scores of the maps at a half. Beside the tracker stand maps of low pressure and of
vorticity, beside the forecaster persistence and centres that go on at constant velocity.

Measured, seed 0, a share of one busy core: `cpu`, 5 min 36 s: F1 0.993 (0.984 after 160 steps), low pressure 0.609,
vorticity 0.969; distance 0.20 pixels, vorticity's as much. `forecast`, 8 min 1 s: CSI 0.626 (persistence 0.211,
constant velocity 0.577), F1 0.887 (0.344, 0.849); distance 1.05 pixels over all five steps (2.59, 0.97), at the fifth
1.82 (4.28, 2.02). It foresees most mergers and curves, and blurs what it is unsure of; near ahead constant velocity is
the more exact. `paper` has not been trained yet.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from seqjax.data.clips import Clips, open_split, open_test
from seqjax.data.pipeline import eval_batches, train_batches
from seqjax.data.source import Record, Source, first, in_memory
from seqjax.metrics import storm_baselines
from seqjax.metrics.baselines import copy_last
from seqjax.metrics.metric import together
from seqjax.metrics.nowcasting import centres, nowcasting
from seqjax.models.prediction import storms
from seqjax.ops.heatmap import peaks
from seqjax.train.command import main
from seqjax.train.evaluate import Evaluation, Predict, Sampling
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.loop import Loop
from seqjax.train.mesh import this_process
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.plot import picture
from seqjax.train.step import Learner, minimise

SUPPRESSION = 3.0
"""Pixels around a peak in which there is no other."""
MOST = 8
"""Storms of a step that are looked for."""
MUON = Optimizer("muon", learning_rate=8e-3, schedule="cosine", warmup=20, clip_norm=5.0, b2=0.99)
"""Which needs far fewer steps here than Adam."""
HIGHER_IS_BETTER = ("precision", "recall", "f1", "csi_0.5", "pod_0.5")


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe."""

    model: storms.Config = storms.Config(channels=3, stem=(16, 16), features=(16,), positive_weight=10.0)
    """The network, and whether it tracks or forecasts."""
    data: Clips = Clips("storms", config="square_32", batch=8)
    """The clips."""
    optimizer: Optimizer = MUON
    """The optimiser."""
    loop: Loop = Loop(steps=480, log_every=40, evaluate_every=160, save_every=80)
    """Length and cadences of training."""
    seed: int = 0
    """Of the parameters and the order of the clips."""
    workdir: str = "runs/storms"
    """Where the run keeps everything; a run that is there already is continued."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there, such as loop.steps."""


PRESETS = {
    "cpu": Config(),
    "forecast": Config(
        model=storms.Config(task="forecast", features=(32, 32), positive_weight=2.0),
        loop=Loop(steps=1000, log_every=50, sample_every=500, save_every=250),
        workdir="runs/storms-forecast",
    ),
    "paper": Config(
        model=storms.Config(),
        data=Clips("cam5_hurricanes", config=None, in_memory=False, batch=16),
        optimizer=Optimizer(learning_rate=1e-3),
        loop=Loop(steps=20_000, log_every=100, evaluate_every=2_000, sample_every=2_000, save_every=500),
        workdir="runs/storms-paper",
    ),
    "tiny": Config(
        model=storms.Config.tiny(),
        data=Clips("storms", config="tiny_16", batch=8),
        optimizer=Optimizer(),
        loop=Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5),
        workdir="runs/storms-tiny",
    ),
}


def run(config: Config) -> None:
    """Train, measure beside the baselines, and report."""
    run_experiment(config, functools.partial(prepare, config))


def prepare(config: Config) -> Experiment:
    """The experiment, its data sets open."""
    data, model = config.data, config.model
    train, test = open_split(data, "train"), open_test(data)
    train = in_memory(train) if data.in_memory else train
    steps = len(test[0]["density"]) if model.task == "track" else model.future
    metric = together(
        centres=centres(frames=steps, number=MOST, suppression=SUPPRESSION), maps=nowcasting(frames=steps)
    )
    return Experiment(
        learner(config),
        functools.partial(build, config),
        functools.partial(training_batches, config, train),
        Evaluation(twice(storms.predict), metric.on(functools.partial(truth, model)), lambda: held_out(config, test)),
        Sampling(storms.predict, first(test, 4, "fields", "density"), functools.partial(draw, model)),
        functools.partial(baselines, model, train),
        higher_is_better=HIGHER_IS_BETTER,
        sources=(train, test),
    )


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The networks."""
    return storms.build(config.model, rngs)


def learner(config: Config) -> Learner:
    """How they are trained."""
    return minimise(storms.loss, make_optimizer(config.optimizer, config.loop.steps))


def training_batches(config: Config, source: Source, step: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Shuffled clips from a step on, this process's part of each batch."""
    size, calls = config.data.batch, config.loop.steps_per_call
    return train_batches(
        source, batch_size=size, seed=config.seed, start_step=step, steps_per_call=calls, **this_process()
    )


def held_out(config: Config, source: Source) -> Iterator[Mapping[str, np.ndarray]]:
    """The held-out clips in order, this process's part of each batch."""
    return eval_batches(source, batch_size=config.data.batch, **this_process())


def truth(model: storms.Config, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The batch as the metrics read it. Where a set has maps alone, the true centres are their peaks above a tenth."""
    _, target = storms.inputs_and_targets(model, batch)
    start = 0 if model.task == "track" else model.context
    if "centres" in batch:
        places, present = (batch[key][:, start : start + target.shape[1]] for key in ("centres", "present"))
    else:
        places, values = peaks(target[..., 0], number=MOST, radius=SUPPRESSION)
        present = values > 0.1
    return {"target": target, "centres": places, "present": present, "weight": batch["weight"]}


def twice(predict: Predict) -> Predict:
    """The same maps for either part of the metric."""
    return lambda nets, batch: dict.fromkeys(("centres", "maps"), predict(nets, batch))


def baselines(model: storms.Config, train: Source) -> dict[str, Predict]:
    """The predictions that need no training, by name."""

    def on_inputs(function: Callable[[jax.Array], jax.Array]) -> Predict:
        return twice(lambda _, batch: function(storms.inputs_and_targets(model, batch)[0]))

    if model.task == "forecast":
        ahead = functools.partial(storm_baselines.constant_velocity, steps=model.future, suppression=SUPPRESSION)
        persistence = functools.partial(copy_last, steps=model.future)
        return {"persistence": on_inputs(persistence), "constant velocity": on_inputs(ahead)}
    fields = np.stack([train[i]["fields"] for i in range(min(len(train), 64))])

    def in_units(function: Callable[[jax.Array], jax.Array]) -> Predict:
        """The largest value of the first training clips is 1."""
        scale = float(jnp.max(function(jnp.asarray(fields))))
        return on_inputs(lambda inputs: function(inputs) / scale)

    return {"low pressure": in_units(storm_baselines.low_pressure), "vorticity": in_units(storm_baselines.vorticity)}


def draw(model: storms.Config, outputs: np.ndarray, batch: Record) -> dict[str, np.ndarray]:
    """Pressure with winds, the true density and the predicted one, step by step; north is up."""
    start = 0 if model.task == "track" else model.context
    frames = [step_of(outputs, batch, t, start) for t in range(start + outputs.shape[1])]
    return {model.task: np.stack(frames)}


def step_of(outputs: np.ndarray, batch: Record, t: int, start: int) -> np.ndarray:
    """One step: the clips from top to bottom."""
    fields, density = batch["fields"][:, t], batch["density"][:, t, ..., 0]
    rows, height, width = density.shape
    predicted = outputs[:, t - start, ..., 0] if t >= start else np.full_like(density, np.nan)
    columns = {"pressure and winds": fields[..., 0], "true density": density, "prediction": predicted}
    tall = 0.3 + 1.8 * rows * (height + 1) / width
    figure = Figure(figsize=(5.4, tall), dpi=72)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=1 - 0.25 / tall, wspace=0.02)
    for axes, (name, maps) in zip(figure.subplots(1, 3), columns.items(), strict=True):
        northward = np.pad(maps[:, ::-1], ((0, 0), (0, 1), (0, 0)), constant_values=np.nan)
        colours = "gray" if name.startswith("pressure") else "magma"
        axes.imshow(northward.reshape(-1, width), cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_title(name, fontsize=9)
        axes.set_axis_off()
    every = max(1, width // 10)
    row, y, x = (k.ravel() for k in np.mgrid[:rows, every // 2 : height : every, every // 2 : width : every])
    east, north = fields[row, y, x, 1:3].T - 0.5
    places = row * (height + 1) + height - 1 - y
    figure.axes[0].quiver(x, places, east, north, color="orange", scale=2.5, width=0.012)
    return picture(figure)


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
