"""Differentiable RAM (Gregor et al., 2015): a digit somewhere in an image, told through a window that moves and zooms.

    python -m experiments.recognition.differentiable_ram --workdir runs/differentiable_ram        # cpu: minutes
    python -m experiments.recognition.differentiable_ram paper --workdir runs/differentiable_ram-paper

The same command starts or resumes. `cpu` trains on digits of 8x8 pixels somewhere in 24x24, seen in four glimpses of
8x8; `paper` is the paper's network on MNIST's digits among pieces of others in 100x100, eight glimpses of 12x12 (3.36 %
wrong there), `cluttered_100_4` with four (4.18 %); `tiny` takes seconds and is what the tests run. The recurrent
attention model, which has to learn from rewards where to look, has 10.83 % in eight glimpses on such images, in the
arXiv version of its paper, and a recipe of its own: `experiments.recognition.ram`.
Training images are put together anew at every use; held-out ones are of other digits. The report has the error in
percent, that of the same network through the windows of another image, and how near the middle of a glimpse comes to
that of the digit; beside them feed-forward networks on all pixels, trained in as many steps. `samples/glimpses.gif`
shows the window, glimpse after glimpse.

Measured: `cpu`, seed 0, on one CPU core, 54 s: 1.8 % wrong (85.7 % through the windows of another image); two layers of
256 on all pixels, which have 216,074 parameters to our 100,751, 8.15 %, of 64 21.55 %, a linear map 85.4 %. The window
shrinks from most of the image to little more than the digit, which often comes to lie in its corner (4.1 pixels from
middle to middle). The others have not been trained to the end yet.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.data.pipeline import eval_batches
from seqjax.data.placed_digits import PlacedDigits, open_digits, placed_batches, placed_images
from seqjax.data.source import Record, Source, first
from seqjax.metrics.average import average
from seqjax.metrics.baselines import Classify, feed_forward, same_class
from seqjax.metrics.pointing import look_distances
from seqjax.models.recognition import differentiable_ram
from seqjax.ops.glimpse import Window, gaussian_window, window_edges
from seqjax.train.command import main
from seqjax.train.evaluate import Evaluation, Predict, Sampling
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.loop import Loop
from seqjax.train.media import outlined
from seqjax.train.mesh import this_process
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.step import Learner, minimise

METRICS = {"error": "logits", "error_shuffled": "shuffled"}
"""Errors in percent, and the answers that each is measured with."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe."""

    model: differentiable_ram.Config = differentiable_ram.Config(size=24, glimpses=4, read=8, features=128)
    """The network."""
    data: PlacedDigits = PlacedDigits(digit=8)
    """The images."""
    optimizer: Optimizer = Optimizer("muon", learning_rate=6e-3, schedule="cosine", clip_norm=5.0)
    """The optimiser."""
    rivals: bool = True
    """Whether feed-forward networks of all pixels are trained too, to be compared with."""
    loop: Loop = Loop(steps=3000, log_every=100, evaluate_every=1000, sample_every=1000, save_every=500)
    """Length and cadences of training."""
    seed: int = 0
    """Of the parameters and the images."""
    workdir: str = "runs/differentiable_ram"
    """Where the run keeps everything; a run that is there already is continued."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there, such as loop.steps."""


PAPER = Config(
    model=differentiable_ram.Config(),
    data=PlacedDigits("mnist", None, size=100, pieces=4, test_config="mnist_cluttered_100", digit=28),
    optimizer=Optimizer(learning_rate=1e-3, clip_norm=5.0),
    rivals=False,
    loop=Loop(steps=187_500, log_every=100, evaluate_every=5_000, sample_every=10_000, save_every=2_000),
    workdir="runs/differentiable_ram-paper",
)
PRESETS = {
    "cpu": Config(),
    "paper": PAPER,
    "cluttered_100_4": dataclasses.replace(
        PAPER, model=differentiable_ram.Config(glimpses=4), workdir="runs/differentiable_ram-cluttered_100_4"
    ),
    "tiny": Config(
        model=dataclasses.replace(differentiable_ram.Config.tiny(), size=24, classes=10),
        data=PlacedDigits(test_config="tiny", digit=8, batch=8),
        optimizer=Optimizer(),
        rivals=False,
        loop=Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5),
        workdir="runs/differentiable_ram-tiny",
    ),
}


def run(config: Config) -> None:
    """Train, measure beside the baselines, and report."""
    run_experiment(config, functools.partial(prepare, config))


def prepare(config: Config) -> Experiment:
    """The experiment, its data sets open."""
    train, test = open_digits(config.data)
    return Experiment(
        learner(config),
        functools.partial(build, config),
        functools.partial(batches, config, train),
        Evaluation(
            differentiable_ram.predict,
            average(names(config), functools.partial(measure, config)),
            lambda: eval_batches(test, batch_size=config.data.batch, **this_process()),
        ),
        Sampling(differentiable_ram.predict, first(test, 36, "image"), functools.partial(draw, config.model)),
        functools.partial(baselines, config, train),
        sources=(train, test),
    )


def batches(config: Config, source: Source, step: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Images of shuffled digits from a step on, this process's part of each batch."""
    calls = config.loop.steps_per_call
    return placed_batches(
        config.data, source, seed=config.seed, start_step=step, steps_per_call=calls, **this_process()
    )


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The networks."""
    return dict(differentiable_ram.build(config.model, rngs))


def learner(config: Config) -> Learner:
    """How they are trained."""
    return minimise(differentiable_ram.loss, make_optimizer(config.optimizer, config.loop.steps))


def names(config: Config) -> tuple[str, ...]:
    """What is measured."""
    return (*METRICS, "nearest", "last") if config.data.digit else tuple(METRICS)


def measure(config: Config, outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """100 for each image that is told wrong, else 0; pixels from the nearest and the last glimpse to the middle of the
    digit."""
    found = {
        name: 100.0 * (jnp.argmax(outputs[answers], axis=-1) != batch["label"]).astype(jnp.float32)
        for name, answers in METRICS.items()
    }
    if not config.data.digit:
        return found
    looked = window(config.model, outputs["windows"]).centre + 0.5
    distances = look_distances(looked, batch["corner"], side=config.data.digit)
    return found | {"nearest": jnp.min(distances, axis=-1), "last": distances[..., -1]}


def window(model: differentiable_ram.Config, numbers: jax.Array) -> Window:
    """The windows that the network has asked for."""
    return gaussian_window(numbers, height=model.size, width=model.size, taps=model.read)


def baselines(config: Config, train: Source) -> dict[str, Predict]:
    """Always the same class, and feed-forward networks of all pixels, on as many images as it sees."""
    known: dict[str, Classify] = {"always the same": functools.partial(same_class, classes=config.model.classes)}
    if config.rivals:
        seen = placed_images(config.data, train, steps=config.loop.steps, seed=config.seed)
        known |= feed_forward(*seen, steps=config.loop.steps, batch=config.data.batch)
    return {name: functools.partial(rival, config.model, classify) for name, classify in known.items()}


def rival(
    model: differentiable_ram.Config, classify: Classify, nets: Any, batch: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """What is said without the networks."""
    return anywhere(model, classify(batch["image"]))


def anywhere(model: differentiable_ram.Config, logits: jax.Array) -> dict[str, jax.Array]:
    """The answers of a network that looks nowhere in particular, as if through so many windows at random."""
    windows = jax.random.uniform(jax.random.key(0), (len(logits), model.glimpses, 5), minval=-1.0, maxval=1.0)
    return dict.fromkeys(METRICS.values(), logits) | {"windows": windows}


def draw(model: differentiable_ram.Config, outputs: Mapping[str, np.ndarray], batch: Record) -> dict[str, np.ndarray]:
    """What the window has of the image, in red, glimpse after glimpse, and the images once more without."""
    edges = np.asarray(window_edges(window(model, jnp.asarray(outputs["windows"])), taps=model.read))
    edges = np.clip(edges, 0, model.size)
    steps = [outlined(batch["image"], {(255, 0, 0): edges[:, t]}) for t in range(model.glimpses)]
    return {"glimpses": np.stack([*steps, outlined(batch["image"], {})])}


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
