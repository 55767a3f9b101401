"""DRAW (Gregor et al., 2015): binary handwritten digits, painted step by step with and without attention.

    python -m experiments.generation.draw --workdir runs/draw              # cpu: three networks, minutes on two cores
    python -m experiments.generation.draw cpu --variants --workdir runs/draw-one      # one network, model.* as it is
    python -m experiments.generation.draw paper --workdir runs/draw-paper

The same command starts or resumes. `cpu` trains one after another, each in a directory of its own, a network that reads
and writes through windows, one without them, and one with windows but a single step, on digits of 8x8 pixels anywhere
in 16x16, and draws `comparison.png`. `paper` is the network of 64 steps on binarised MNIST, where the paper has a bound
of 80.97 nats with attention and 87.40 without; `svhn` and `cifar10` are the paper's sizes on TFDS's images of 32x32;
`tiny` takes seconds and is what the tests run.
Held out are other digits. The report sets the bound in nats per image beside the likelihood of pixels that are drawn
one by one, each with its mean. `samples/painting.gif` shows images arise from noise, the window that writes in red.

Measured: `cpu`, seed 0, one CPU core: with attention 23.26 nats (2 min 34 s), without 26.72 (6 min 9 s), with one step
30.36 (71 s), pixels one by one 60.64. Nearly all samples with attention are digits,
painted from a patch of light to strokes; without, a third of them; one step gives a patch at the right place. With
attention it is 29.93 after 1,000 steps and 24.50 after 3,000, when one step has 30.73. Trained by Muon: Adam ended at
31.85 after 2,000 steps, this at 30.64.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.data.pipeline import eval_batches, train_batches
from seqjax.data.source import Record, SkipDamaged, Source, first, in_memory, mapped, open_source
from seqjax.metrics.average import average
from seqjax.models.generation import draw
from seqjax.ops.glimpse import gaussian_window, window_edges
from seqjax.train.command import main
from seqjax.train.comparison import run_several, training_curves
from seqjax.train.evaluate import Evaluation, Predict, Sampling
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.loop import Loop
from seqjax.train.media import grid, outlined, sheet
from seqjax.train.mesh import this_process
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.step import Learner, minimise

Variant = Literal["attention", "no_attention", "one_step"]
CHANGES: dict[Variant, dict[str, Any]] = {
    "attention": {"attention": True},
    "no_attention": {"attention": False},
    "one_step": {"attention": True, "steps": 1},
}
METRICS = ("bound", "reconstruction", "kl")


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images."""

    name: str = "cluttered_digits"
    """Data set: one of ours with images, or of the TFDS catalogue."""
    config: str | None = "binary_16"
    """Configuration of the data set; its own default if None."""
    test: str = "test"
    """Split that is held out, or a part of one, such as test[:500]."""
    white: int = 255
    """The value of a white pixel: 255, but 1 in TFDS's binarized_mnist."""
    data_dir: str | None = None
    """Where prepared sets are; TFDS's own choice if None."""
    batch: int = 100
    """Images per update, over all devices."""
    damaged: float = 0.01
    """Largest share of a split that may be damaged on disk; such images are skipped and named."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe."""

    model: draw.Config = draw.Config(size=16, steps=8, features=128, latent=8, read=4, write=4, canvas=-2.0)
    """The network."""
    data: Data = Data()
    """The images."""
    optimizer: Optimizer = Optimizer("muon", learning_rate=8e-3, schedule="cosine", clip_norm=5.0)
    """The optimiser."""
    loop: Loop = Loop(steps=5000, log_every=100, evaluate_every=1000, sample_every=1000, save_every=500)
    """Length and cadences of training."""
    seed: int = 0
    """Of the parameters, the order of the images and the noise."""
    variants: tuple[Variant, ...] = ()
    """Networks to train one after another, each in workdir/<variant>, and to draw side by side: model with, or without,
    attention, or with a single step."""
    workdir: str = "runs/draw"
    """Where the run keeps everything; a run that is there already is continued."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there, such as loop.steps."""


PAPER = Config(
    model=draw.Config(),
    data=Data("binarized_mnist", None, white=1),
    optimizer=Optimizer(learning_rate=3e-4, clip_norm=10.0),
    loop=Loop(steps=50_000, log_every=100, evaluate_every=5_000, sample_every=5_000, save_every=1_000),
    workdir="runs/draw-paper",
)
PRESETS = {
    "cpu": Config(variants=("attention", "no_attention", "one_step")),
    "paper": PAPER,
    "svhn": dataclasses.replace(
        PAPER,
        model=draw.Config(size=32, channels=3, steps=32, features=800, read=12, write=12),
        data=Data("svhn_cropped", None),
        workdir="runs/draw-svhn",
    ),
    "cifar10": dataclasses.replace(
        PAPER,
        model=draw.Config(size=32, channels=3, features=400, latent=200, read=5, write=5),
        data=Data("cifar10", None),
        workdir="runs/draw-cifar10",
    ),
    "tiny": Config(
        model=draw.Config.tiny(),
        data=Data("binary_digits", "8x8", batch=8),
        optimizer=Optimizer(),
        loop=Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5),
        workdir="runs/draw-tiny",
    ),
}


def run(config: Config) -> None:
    """Train one network, or each of several and compare them."""
    if not config.variants:
        return run_experiment(config, functools.partial(prepare, config))
    run_several(
        {variant: alone(config, variant) for variant in config.variants},
        prepare,
        workdir=config.workdir,
        title=f"{config.data.name} {config.data.config}, nats per image",
        plot=functools.partial(training_curves, label="bound in nats, training batches"),
    )
    return None


def alone(config: Config, variant: Variant) -> Config:
    """The run of one of several networks."""
    changed = dataclasses.replace(config.model, **CHANGES[variant])
    return dataclasses.replace(config, model=changed, variants=(), workdir=str(Path(config.workdir) / variant))


def prepare(config: Config) -> Experiment:
    """The experiment, its data sets open."""
    size = config.data.batch
    train, test = in_memory(open_split(config, "train")), in_memory(open_split(config, config.data.test))
    return Experiment(
        learner(config),
        functools.partial(build, config),
        functools.partial(batches, config, train),
        Evaluation(
            draw.predict,
            average(METRICS, lambda outputs, batch: outputs),
            lambda: eval_batches(test, batch_size=size, **this_process()),
        ),
        Sampling(
            draw.sample, first(test, 36, "image") | noise(config.model, 36), functools.partial(pictures, config.model)
        ),
        functools.partial(baselines, config, train),
        sources=(train, test),
    )


def open_split(config: Config, split: str) -> Source:
    """The images of one split, white ones of value 255."""
    data = config.data
    source = open_source(data.name, split=split, config=data.config, data_dir=data.data_dir)
    return SkipDamaged(mapped(source, functools.partial(image_alone, data.white)), data.damaged)


def image_alone(white: int, record: Record) -> Record:
    """The image of a record, its values brought from 0 to ``white`` to 0 to 255."""
    return {"image": record["image"] * np.uint8(255 // white)}


def batches(config: Config, source: Source, step: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Shuffled images from a step on, this process's part of each batch."""
    size, calls = config.data.batch, config.loop.steps_per_call
    return train_batches(
        source, batch_size=size, seed=config.seed, start_step=step, steps_per_call=calls, **this_process()
    )


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The networks."""
    return dict(draw.build(config.model, rngs))


def learner(config: Config) -> Learner:
    """How they are trained."""
    return minimise(draw.loss, make_optimizer(config.optimizer, config.loop.steps))


def baselines(config: Config, train: Source) -> dict[str, Predict]:
    """Every pixel drawn on its own, with its mean over the training images; half an image more on either side."""
    total = 1 + sum(train[i]["image"].astype(np.float64) / 255 for i in range(len(train)))
    mean = jnp.asarray(total / (len(train) + 2), jnp.float32)

    def one_by_one(_: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        images = draw.pixels(config.model, dict(batch))
        logits = jnp.broadcast_to(jnp.log(mean / (1 - mean))[None], images.shape)
        entropy = draw.surprise(config.model, logits, images)
        return {"bound": entropy, "reconstruction": entropy, "kl": jnp.zeros_like(entropy)}

    return {"pixels one by one": one_by_one}


def noise(config: draw.Config, number: int) -> Record:
    """Latent vectors of every step, always the same."""
    return {"z": np.asarray(jax.random.normal(jax.random.key(0), (number, config.steps, config.latent)))}


def pictures(config: draw.Config, outputs: Mapping[str, np.ndarray], batch: Record) -> dict[str, np.ndarray]:
    """Images painted from noise: how they arise, and what they become; and held-out images, painted again."""
    painted, again = (np.rint(255 * np.clip(outputs[name], 0, 1)).astype(np.uint8) for name in ("painted", "again"))
    few, scale = batch["image"][:8], max(1, 64 // config.size)
    return {
        "painting": paint(config, painted[:16], outputs["windows"][:16]),
        "samples": grid(painted[:, -1].repeat(scale, axis=1).repeat(scale, axis=2)),
        "again": sheet({"image": few, "painted again": again[:8]}),
    }


def paint(config: draw.Config, frames: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """A sheet of images after every step, with the window that has just written; the last once more without."""
    steps = []
    for t in range(config.steps):
        edges = {}
        if config.attention:
            size, numbers = config.size, jnp.asarray(windows[:, t])
            window = gaussian_window(numbers, height=size, width=size, taps=config.write)
            edges = {(255, 0, 0): np.asarray(window_edges(window, taps=config.write))}
        steps.append(outlined(frames[:, t], edges))
    return np.stack([*steps, outlined(frames[:, -1], {})])


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
