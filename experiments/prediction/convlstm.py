"""ConvLSTM encoder-forecaster (Shi et al., 2015): the next ten frames of moving handwritten digits.

    python -m experiments.prediction.convlstm --workdir runs/convlstm            # cpu: minutes on two cores
    python -m experiments.prediction.convlstm paper --workdir runs/convlstm-paper
    python -m experiments.prediction.convlstm paper --data.test-name moving_mnist     # held out: the published clips

The same command starts or resumes. Presets: `cpu` trains a small network on one digit that bounces on 32x32;
`paper` is the 5x5, 128-64-64 network of the paper on two digits on 64x64, with its RMSProp; `tiny` takes seconds and
is what the tests run.
Held out are digits of other writers. The report sets the model beside three predictions that need no training:
the last frame copied, an empty background, and the mean frame of the training set.

Measured: `cpu`, seed 0, two CPU cores, 3 min 16 s: MSE 13.83 per frame against 44.75 of the best baseline, SSIM 0.7283
against 0.4747 (after 3,000 steps of 3,000 15.74 and 0.6939). Its digits keep their shape roughly for a few frames and
then blur. It is trained by Muon, which needs far fewer steps here than Adam. `paper` has not been trained yet.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.data.clips import Clips, first_clips, open_clips, training_clips
from seqjax.data.pipeline import eval_batches
from seqjax.data.source import Source
from seqjax.metrics import baselines
from seqjax.metrics.frames import frame_metrics
from seqjax.models.prediction import convlstm
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

    model: convlstm.Config = convlstm.Config(features=(32, 32), kernel=3)
    """The network."""
    data: Clips = Clips()
    """The clips."""
    optimizer: Optimizer = Optimizer("muon", learning_rate=8e-3, schedule="cosine", warmup=50, clip_norm=5.0, b2=0.99)
    """The optimiser."""
    loop: Loop = Loop(steps=5000, log_every=100, sample_every=1000, save_every=250)
    """Length and cadences of training."""
    seed: int = 0
    """Of the parameters and the order of the clips."""
    workdir: str = "runs/convlstm"
    """Where the run keeps everything; a run that is there already is continued."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there, such as loop.steps."""


PRESETS = {
    "cpu": Config(),
    "paper": Config(
        model=convlstm.Config(),
        data=Clips(config="two_64", batch=16),
        optimizer=Optimizer(name="rmsprop", learning_rate=1e-3),
        loop=Loop(steps=200_000, log_every=100, evaluate_every=10_000, sample_every=10_000, save_every=2_000),
        workdir="runs/convlstm-paper",
    ),
    "tiny": Config(
        model=convlstm.Config.tiny(),
        data=Clips(config="tiny_16", batch=8),
        optimizer=Optimizer(),
        loop=Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5),
        workdir="runs/convlstm-tiny",
    ),
}


def run(config: Config) -> None:
    """Train, measure beside the baselines, and report."""
    run_experiment(config, functools.partial(prepare, config))


def prepare(config: Config) -> Experiment:
    """The experiment, its data sets open."""
    data = config.data
    train, test = open_clips(data, frames=config.model.context + config.model.future)
    metric = frame_metrics(frames=config.model.future).on(functools.partial(future, config.model))
    return Experiment(
        learner(config),
        functools.partial(build, config),
        functools.partial(training_batches, config, train),
        Evaluation(convlstm.predict, metric, functools.partial(test_batches, config, test)),
        Sampling(convlstm.predict, first_clips(test, 4), functools.partial(draw, config.model)),
        functools.partial(predictions, config.model, train),
        higher_is_better=("psnr", "ssim"),
        sources=(train, test),
    )


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The networks."""
    return convlstm.build(config.model, rngs)


def learner(config: Config) -> Learner:
    """How they are trained."""
    return minimise(convlstm.loss, make_optimizer(config.optimizer, config.loop.steps))


def training_batches(config: Config, source: Source, step: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Shuffled clips from a step on, cut out at random, this process's part of each batch."""
    frames, calls = config.model.context + config.model.future, config.loop.steps_per_call
    return training_clips(
        source, config.data, frames=frames, seed=config.seed, start_step=step, steps_per_call=calls, **this_process()
    )


def test_batches(config: Config, source: Source) -> Iterator[Mapping[str, np.ndarray]]:
    """The beginnings of the held-out clips in order, this process's part of each batch."""
    return eval_batches(source, batch_size=config.data.batch, **this_process())


def future(model: convlstm.Config, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The batch as the metric reads it."""
    return {"target": convlstm.split_clip(model, batch["video"])[1], "weight": batch["weight"]}


def predictions(model: convlstm.Config, train: Source) -> dict[str, Predict]:
    """The predictions that need no training, or only the average of it."""
    forecasts = baselines.forecasts((train[i] for i in range(len(train))), steps=model.future)

    def on_context(predict: baselines.Forecast) -> Predict:
        return lambda _, batch: predict(convlstm.split_clip(model, batch["video"])[0])

    return {name: on_context(predict) for name, predict in forecasts.items()}


def forecast(config: Config, nets: Any, batch: Mapping[str, jax.Array], *, key: jax.Array) -> jax.Array:
    """The future, as `experiments.prediction.compare` asks for it; nothing is drawn."""
    return convlstm.predict(nets, dict(batch))


def draw(model: convlstm.Config, outputs: np.ndarray, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Context, then truth and prediction, side by side."""
    video, predicted = batch["video"], np.asarray(unit_to_uint8(jnp.asarray(outputs)))
    truth = video[:, model.context : model.context + model.future]
    columns = {"context": video[:, : model.context], "truth": truth, "prediction": predicted}
    return {"forecast": side_by_side(columns, starts={"truth": model.context, "prediction": model.context})}


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
