"""LSTM composite model (Srivastava et al., 2015): ten frames of moving digits given back in reverse, ten foretold.

    python -m experiments.prediction.composite_lstm --workdir runs/composite            # cpu: minutes on two cores
    python -m experiments.prediction.composite_lstm paper --workdir runs/composite-paper
    python -m experiments.prediction.percepts && python -m experiments.prediction.composite_lstm percepts

The same command starts or resumes. Presets: `cpu` trains 512 units on one digit that bounces on 32x32, the clips of
`experiments.prediction.convlstm`; `paper` is the conditional network of 2048 units for two digits on 64x64; `patches`
is the one for 32x32 patches of UCF-101 (TFDS downloads and prepares that set, with TensorFlow); `tiny` takes seconds
and is what the tests run. `percepts` trains 256 units on features of the frames of the same digits instead of the
frames; `paper_percepts` is the network of two layers for fc6 of VGG-16, 16 frames given back and 13 foretold, on files
that `experiments.prediction.percepts vgg` makes of UCF-101 (the paper: of 300 hours of YouTube). Data sets of one's
own are `--data.name folder_of_features --data.config FOLDER_FEATURES_FRAMESframes`.
`paper` and `patches` have the optimiser of the released code, SGD with momentum whose updates are clipped one by one;
biases, too, bear its L2 penalty here. `paper_percepts`, for which it has none, has RMSProp.
Held out are digits of other writers. The report sets the model beside three predictions that need no training, each of
them also in the place of the reconstruction: the last frame copied, an empty background, and the mean frame of the
training set; of features the last, their mean over the frames seen, and their mean over the training set.

Measured: `cpu`, seed 0: MSE of the future 15.74 per frame against 44.75 of the best baseline, SSIM 0.6782 against
0.4747, MSE of the reconstruction 10.03; 16 steps per second on two free CPU cores.
`experiments.prediction.convlstm` reaches 13.83 and 0.7283 in about the same time. Where a digit is and goes is learned,
its shape is hardly more than a stroke of the right size, better in the reconstruction.
`percepts`, seed 0: squared error of future features 87.67 per frame, 0.267 of the best baseline (the training set's
mean: 328.7; the clip's 344.1, the last 355.8), of those given back 30.16 (the clip's mean: 118.4); 6 min 22 s on a busy
core, after some 3 min for the features. The classifier that makes them gets 89.4 % of held-out frames right; 33 of its
64 features are zero in all of them.
The other presets have not been trained yet.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.data.augment import frames_somewhere, middle_patch, patch_somewhere
from seqjax.data.clips import Clips, open_clips, training_clips
from seqjax.data.pipeline import eval_batches
from seqjax.data.source import Record, Source, first, mapped
from seqjax.metrics import baselines
from seqjax.metrics.frames import frame_metrics, vector_metrics
from seqjax.metrics.metric import Figures, Metric, together
from seqjax.models.prediction import composite_lstm
from seqjax.ops.image import unit_to_uint8
from seqjax.train.command import main
from seqjax.train.evaluate import Evaluation, Predict, Sampling
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.loop import Loop
from seqjax.train.media import sheet, side_by_side
from seqjax.train.mesh import this_process
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.step import Learner, minimise


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe."""

    model: composite_lstm.Config = composite_lstm.Config(size=32, features=(512,), conditional="none")
    """The network; of frames, of patches, or of percepts, where data.name is folder_of_features."""
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


def published(sums: float) -> Optimizer:
    """That of the released code, whose gradient is so many times ours: it adds up over sequences and steps."""
    return Optimizer(
        name="momentum",
        learning_rate=1e-4 * sums,
        schedule="staircase",
        epoch=10_000,
        factor=0.9,
        weight_decay=1e-4 / sums,
        momentum=0.9,
        clip_updates=1e-4,
    )


PRESETS = {
    "cpu": Config(),
    "paper": Config(
        model=composite_lstm.Config(conditional="both"),
        data=Clips(config="two_64", batch=80),
        optimizer=published(80 * 10),
        loop=Loop(steps=100_000, log_every=100, evaluate_every=5_000, sample_every=10_000, save_every=2_000),
        workdir="runs/composite-paper",
    ),
    "patches": Config(
        model=composite_lstm.Config(size=32, channels=3, conditional="both", error="squared"),
        data=Clips("ucf101", "ucf101_1", in_memory=False, batch=100),
        patches=True,
        optimizer=published(100 * 10 / 2),  # its squared error is half of ours
        loop=Loop(steps=100_000, log_every=100, evaluate_every=5_000, sample_every=10_000, save_every=2_000),
        workdir="runs/composite-patches",
    ),
    "percepts": Config(
        model=composite_lstm.Config(percept=64, features=(256,), conditional="none", error="squared"),
        data=Clips("folder_of_features", "percepts_64_20frames", batch=32),
        workdir="runs/composite-percepts",
    ),
    "paper_percepts": Config(
        model=composite_lstm.Config(
            context=16, future=13, percept=4096, features=(2048, 2048), conditional="none", error="squared"
        ),
        data=Clips("folder_of_features", "percepts_4096_29frames", in_memory=False, batch=128),
        optimizer=Optimizer(name="rmsprop", learning_rate=1e-3, clip_norm=5.0),
        loop=Loop(steps=100_000, log_every=100, evaluate_every=5_000, sample_every=10_000, save_every=2_000),
        workdir="runs/composite-paper-percepts",
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
    frames, key = config.model.context + config.model.future, config.model.key
    train, test = open_clips(config.data, frames=frames, key=key)
    seen = functools.partial(whole, config)
    return Experiment(
        learner(config),
        functools.partial(build, config),
        functools.partial(training_batches, config, train),
        Evaluation(composite_lstm.predict, metrics(config.model), functools.partial(test_batches, config, seen(test))),
        Sampling(composite_lstm.predict, first(seen(test), 4, key), functools.partial(draw, config.model)),
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
        cut=cut(config),
        seed=config.seed,
        start_step=step,
        steps_per_call=config.loop.steps_per_call,
        **this_process(),
    )


def cut(config: Config) -> Callable[..., Record]:
    """How the frames of a clip are taken in training: of it all, of a patch, or their features."""
    if config.patches:
        return functools.partial(patch_somewhere, size=config.model.size)
    return functools.partial(frames_somewhere, key=config.model.key)


def test_batches(config: Config, source: Source) -> Iterator[Mapping[str, np.ndarray]]:
    """The held-out clips in order, this process's part of each batch."""
    return eval_batches(source, batch_size=config.data.batch, **this_process())


def metrics(model: composite_lstm.Config) -> Metric:
    """Of the future as ``frame_metrics`` or ``vector_metrics`` names them, and of the reconstruction with its name
    before them."""
    frames = {"reconstruction": model.context, "future": model.future}

    def of(name: str) -> Metric:
        def target(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            steps = composite_lstm.sequences(model, dict(batch))[name]
            return {"target": steps.reshape(*steps.shape[:2], *model.step), "weight": batch["weight"]}

        vectors = model.percept is not None
        metric = (vector_metrics(steps=frames[name]) if vectors else frame_metrics(frames=frames[name])).on(target)
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
    records = [{model.key: train[i][model.key]} for i in range(len(train))]
    rivals = baselines.forecasts if model.percept is None else baselines.feature_forecasts
    forecasts = {name: rivals(records, steps=frames[name]) for name in model.names}

    def on_context(rival: str) -> Predict:
        def predict(_: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            steps = composite_lstm.sequences(model, dict(batch))["context"]
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
    if model.percept is not None:
        return draw_percepts(model, outputs, batch["percepts"])
    context, future = np.split(batch["video"][:, : model.context + model.future], [model.context], axis=1)
    images = {name: np.asarray(unit_to_uint8(jnp.asarray(frames))) for name, frames in outputs.items()}
    columns = {"context": np.concatenate([context, context[:, ::-1]], axis=1)}
    if "reconstruction" in images:
        columns["backwards"] = images["reconstruction"]
    if "future" in images:
        columns |= {"truth": future, "prediction": images["future"]}
    starts = {name: model.context for name in columns if name != "context"}
    return {"composite": side_by_side(columns, starts=starts)}


def draw_percepts(
    model: composite_lstm.Config, outputs: Mapping[str, np.ndarray], percepts: np.ndarray, *, shown: int = 32
) -> dict[str, np.ndarray]:
    """A row for each feature, of 32 at most those that vary most, a column for each step, from left to right in time:
    the true sequence; what is given back of its beginning (turned round) and foretold of its end, or the truth where
    that is not asked for; and by how much it is off. Grey is a feature's mean over all that is shown, or an error of
    zero; black and white are two standard deviations of all these together from it."""
    true = percepts[:, : model.context + model.future]
    mean, variance = (f(true, axis=(0, 1), keepdims=True) for f in (np.mean, np.var))
    varying = np.argsort(-variance.ravel(), kind="stable")[:shown]
    grey = 63.75 / max(np.sqrt(variance.ravel()[varying].mean()), 1e-6)  # of one unit
    given_back = outputs.get("reconstruction", true[:, : model.context][:, ::-1])[:, ::-1]
    found = np.concatenate([given_back, outputs.get("future", true[:, model.context :])], axis=1)

    def picture(values: np.ndarray) -> np.ndarray:
        levels = np.rint((127.5 + grey * values[..., varying]).clip(0, 255)).astype(np.uint8)
        return levels.swapaxes(1, 2).repeat(4, axis=1).repeat(4, axis=2)[..., None]

    return {
        "percepts": sheet(
            {"truth": picture(true - mean), "backwards, on": picture(found - mean), "error": picture(found - true)}
        )
    }


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
