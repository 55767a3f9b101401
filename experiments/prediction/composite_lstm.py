"""LSTM composite model (Srivastava et al., 2015): ten frames of moving digits given back in reverse, ten foretold.

    python -m experiments.prediction.composite_lstm --workdir runs/composite            # cpu: minutes on two cores
    python -m experiments.prediction.composite_lstm paper --workdir runs/composite-paper

The same command starts or resumes. Presets: `cpu` trains 512 units on one digit that bounces on 32x32, the clips of
`experiments.prediction.convlstm`; `paper` is the conditional network of 2048 units for two digits on 64x64; `patches`
is the one for 32x32 patches of UCF-101 (TFDS downloads and prepares that set, with TensorFlow); `tiny` takes seconds
and is what the tests run.
Held out are digits of other writers. The report sets the model beside three predictions that need no training, each of
them also in the place of the reconstruction: the last frame copied, an empty background, and the mean frame of the
training set.

Measured: `cpu`, seed 0: MSE of the future 15.74 per frame against 44.75 of the best baseline, SSIM 0.6782 against
0.4747, MSE of the reconstruction 10.03; 16 steps per second on two free CPU cores.
`experiments.prediction.convlstm` reaches 15.74 and 0.6939 in as many steps on an eighth of the clips. Where
a digit is and goes is learned, its shape is hardly more than a stroke of the right size, better in the reconstruction.
The other presets have not been trained yet.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.data.augment import frames_somewhere, middle_patch, patch_somewhere
from seqjax.data.clips import Clips, first_clips, open_clips, training_clips
from seqjax.data.pipeline import eval_batches
from seqjax.data.source import Source, mapped
from seqjax.metrics import baselines
from seqjax.metrics.frames import frame_metrics
from seqjax.metrics.metric import Figures, Metric, together
from seqjax.models.prediction import composite_lstm
from seqjax.ops.image import unit_to_uint8
from seqjax.train.command import main
from seqjax.train.evaluate import Evaluation, Predict, Sampling
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.loop import Loop
from seqjax.train.media import side_by_side
from seqjax.train.mesh import this_process
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.step import Learner, minimise


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe."""

    model: composite_lstm.Config = composite_lstm.Config(size=32, features=(512,), conditional="none")
    """The network; of frames or patches, for which there are data sets here."""
    data: Clips = Clips(batch=32)
    """The clips."""
    patches: bool = False
    """Whether the network sees patches of model.size anywhere in a clip, instead of whole frames."""
    optimizer: Optimizer = Optimizer(learning_rate=2e-3, schedule="cosine", warmup=50, clip_norm=5.0)
    """The optimiser."""
    loop: Loop = Loop(steps=3000, log_every=100, sample_every=1000, save_every=250)
    """Length and cadences of training."""
    seed: int = 0
    """Of the parameters, the order of the clips and the places of patches."""
    workdir: str = "runs/composite"
    """Where the run keeps everything; a run that is there already is continued."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there, such as loop.steps."""


PRESETS = {
    "cpu": Config(),
    "paper": Config(
        model=composite_lstm.Config(conditional="both"),
        data=Clips(config="two_64", batch=80),
        optimizer=Optimizer(name="rmsprop", learning_rate=1e-3, clip_norm=5.0),
        loop=Loop(steps=100_000, log_every=100, evaluate_every=5_000, sample_every=10_000, save_every=2_000),
        workdir="runs/composite-paper",
    ),
    "patches": Config(
        model=composite_lstm.Config(size=32, channels=3, conditional="both", error="squared"),
        data=Clips("ucf101", "ucf101_1", in_memory=False, batch=100),
        patches=True,
        optimizer=Optimizer(name="rmsprop", learning_rate=1e-3, clip_norm=5.0),
        loop=Loop(steps=100_000, log_every=100, evaluate_every=5_000, sample_every=10_000, save_every=2_000),
        workdir="runs/composite-patches",
    ),
    "tiny": Config(
        model=dataclasses.replace(composite_lstm.Config.tiny(), size=12, conditional="both"),
        data=Clips(config="tiny_16", batch=8),
        patches=True,
        optimizer=Optimizer(),
        loop=Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5),
        workdir="runs/composite-tiny",
    ),
}


def run(config: Config) -> None:
    """Train, measure beside the baselines, and report."""
    run_experiment(config, functools.partial(prepare, config))


def prepare(config: Config) -> Experiment:
    """The experiment, its data sets open."""
    data = config.data
    train, test = open_clips(data, frames=config.model.context + config.model.future)
    seen = functools.partial(whole, config)
    return Experiment(
        learner(config),
        functools.partial(build, config),
        functools.partial(training_batches, config, train),
        Evaluation(composite_lstm.predict, metrics(config.model), functools.partial(test_batches, config, seen(test))),
        Sampling(composite_lstm.predict, first_clips(seen(test), 4), functools.partial(draw, config.model)),
        functools.partial(predictions, config.model, seen(train)),
        higher_is_better=("psnr", "ssim"),
        sources=(train, test),
    )


def whole(config: Config, source: Source) -> Source:
    """The clips of a source, or the patch in the middle of each."""
    frames, size = config.model.context + config.model.future, config.model.size
    return mapped(source, functools.partial(middle_patch, frames=frames, size=size)) if config.patches else source


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The networks."""
    return composite_lstm.build(config.model, rngs)


def learner(config: Config) -> Learner:
    """How they are trained."""
    return minimise(composite_lstm.loss, make_optimizer(config.optimizer, config.loop.steps))


def training_batches(config: Config, source: Source, step: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Shuffled clips, or patches of them, cut out at random, from a step on, this process's part of each batch."""
    return training_clips(
        source,
        config.data,
        frames=config.model.context + config.model.future,
        cut=functools.partial(patch_somewhere, size=config.model.size) if config.patches else frames_somewhere,
        seed=config.seed,
        start_step=step,
        steps_per_call=config.loop.steps_per_call,
        **this_process(),
    )


def test_batches(config: Config, source: Source) -> Iterator[Mapping[str, np.ndarray]]:
    """The held-out clips in order, this process's part of each batch."""
    return eval_batches(source, batch_size=config.data.batch, **this_process())


def metrics(model: composite_lstm.Config) -> Metric:
    """Of the future as ``frame_metrics`` names them, and of the reconstruction with its name before them."""
    frames = {"reconstruction": model.context, "future": model.future}

    def of(name: str) -> Metric:
        def target(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            steps = composite_lstm.sequences(model, {"video": batch["video"]})[name]
            return {"target": steps.reshape(*steps.shape[:2], *model.step), "weight": batch["weight"]}

        metric = frame_metrics(frames=frames[name]).on(target)
        return metric if name == "future" else named(metric.only("mse", "mse_by_frame"), "reconstruction")

    return together(**{name: of(name) for name in model.names})


def named(metric: Metric, prefix: str) -> Metric:
    """The same metric, its figures named ``prefix_..``."""

    def finish(acc: Any) -> Figures:
        return {f"{prefix}_{name}": figure for name, figure in metric.finish(acc).items()}

    return metric._replace(finish=finish)


def predictions(model: composite_lstm.Config, train: Source) -> dict[str, Predict]:
    """The predictions that need no training, or only the average of it."""
    frames = {"reconstruction": model.context, "future": model.future}
    mean = [{"video": train[i]["video"]} for i in range(len(train))]
    forecasts = {name: baselines.forecasts(mean, steps=frames[name]) for name in model.names}

    def on_context(rival: str) -> Predict:
        def predict(_: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            steps = composite_lstm.sequences(model, {"video": batch["video"]})["context"]
            context = steps.reshape(*steps.shape[:2], *model.step)
            return {name: forecasts[name][rival](context) for name in model.names}

        return predict

    return {rival: on_context(rival) for rival in next(iter(forecasts.values()))}


def forecast(config: Config, nets: Any, batch: Mapping[str, jax.Array], *, key: jax.Array) -> jax.Array:
    """The future, as `experiments.prediction.compare` asks for it; nothing is drawn."""
    return composite_lstm.predict(nets, dict(batch))["future"]


def draw(
    model: composite_lstm.Config, outputs: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The context, forwards and then backwards, beside its reconstruction; true and predicted future beside these."""
    context, future = np.split(batch["video"][:, : model.context + model.future], [model.context], axis=1)
    images = {name: np.asarray(unit_to_uint8(jnp.asarray(frames))) for name, frames in outputs.items()}
    columns = {"context": np.concatenate([context, context[:, ::-1]], axis=1)}
    if "reconstruction" in images:
        columns["backwards"] = images["reconstruction"]
    if "future" in images:
        columns |= {"truth": future, "prediction": images["future"]}
    starts = {name: model.context for name in columns if name != "context"}
    return {"composite": side_by_side(columns, starts=starts)}


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
