"""pix2pix (Isola et al., 2017): outlines of digits to digits filled with the colour of their class.

    python -m experiments.translation.pix2pix --workdir runs/pix2pix            # cpu: minutes on two cores
    python -m experiments.translation.pix2pix paper --workdir runs/pix2pix-paper

The same command starts or resumes. Presets: `cpu` trains a small U-Net and patch discriminator on 16x16 outlines, whose
colour cannot be told without recognising the digit; `paper` is the 256x256 network on the authors' facades (put the
archive where the error message says); `tiny` takes seconds and is what the tests run.
Held out are other digits. The report has the mean absolute difference from the target, in [-1, 1], the share of images
in the right colour where classes are known, and the gradient energy over that of the targets (1 is as sharp as they
are), beside the mean and the median image of the training set and the training pair with the nearest input.

Measured: `cpu`, seed 0, on one busy core, 2 min 39 s: L1 0.0759 against 0.0737 of the nearest pair and 0.279 of the
median image, the right colour in 93.2 % (nearest pair 96.2 %), gradient energy 1.05. `paper` has not been trained yet.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.data.augment import PAIRED, jitter, resize
from seqjax.data.digit_outlines import COLOURS
from seqjax.data.pipeline import eval_batches, train_batches
from seqjax.data.source import Record, SkipDamaged, Source, in_memory, open_source
from seqjax.metrics.baselines import nearest_pair
from seqjax.metrics.translation import pair_metrics
from seqjax.models.translation import pix2pix
from seqjax.ops.image import signed_to_unit, uint8_to_unit, unit_to_signed, unit_to_uint8
from seqjax.train.command import main
from seqjax.train.evaluate import Evaluation, Predict, Sampling
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.loop import Loop
from seqjax.train.media import sheet
from seqjax.train.mesh import this_process
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.step import Learner, Player, alternate


@dataclasses.dataclass(frozen=True)
class Data:
    """Which pairs."""

    name: str = "digit_outlines"
    """Data set: digit_outlines, photograph_crops, pix2pix (the authors' archives, or pairs of one's own)."""
    config: str | None = "16x16"
    """Configuration of the data set; its own default if None."""
    test: str = "test"
    """Split that is held out, or a part of one, such as test[:100]."""
    data_dir: str | None = None
    """Where prepared sets are; TFDS's own choice if None."""
    batch: int = 16
    """Pairs per update, over all devices."""
    load: int | None = None
    """Side that images are brought to, before a part of `crop` is cut out at random; None leaves them as they are."""
    crop: int = 256
    """Side of that part, and of the images in evaluation."""
    damaged: float = 0.01
    """Largest share of a split that may be damaged on disk; such pairs are skipped and named."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe."""

    model: pix2pix.Config = pix2pix.Config(
        inputs=1, downs=4, base=24, dropout=0.0, layers=2, discriminator_base=32, norm="instance"
    )
    """The networks and the losses."""
    data: Data = Data()
    """The pairs."""
    optimizer: Optimizer = Optimizer(learning_rate=2e-4, b1=0.5)
    """The optimiser of each player."""
    loop: Loop = Loop(steps=2000, log_every=50, evaluate_every=500, sample_every=500, save_every=250)
    """Length and cadences of training."""
    seed: int = 0
    """Of the parameters, the order of the pairs and the dropout."""
    workdir: str = "runs/pix2pix"
    """Where the run keeps everything; a run that is there already is continued."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there, such as loop.steps."""


PRESETS = {
    "cpu": Config(),
    "paper": Config(
        model=pix2pix.Config(),
        data=Data(name="pix2pix", config="facades", batch=1, load=286, crop=256),
        loop=Loop(steps=80_000, log_every=100, evaluate_every=20_000, sample_every=4_000, save_every=4_000),
        workdir="runs/pix2pix-paper",
    ),
    "tiny": Config(
        model=pix2pix.Config.tiny(),
        data=Data(config="16x16", batch=8),
        optimizer=Optimizer(b1=0.5),
        loop=Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5),
        workdir="runs/pix2pix-tiny",
    ),
}


def run(config: Config) -> None:
    """Train, measure beside the baselines, and report."""
    run_experiment(config, functools.partial(prepare, config))


def prepare(config: Config) -> Experiment:
    """The experiment, its data sets open."""
    train, test = in_memory(open_split(config, "train")), open_split(config, config.data.test)
    whole, size = whole_images(config), config.data.batch
    palette = COLOURS if config.data.name == "digit_outlines" else None
    metric = pair_metrics(channels=config.model.outputs, palette=palette).on(signed_target)
    colour = () if palette is None else ("colour_accuracy",)
    return Experiment(
        learner(config),
        functools.partial(build, config),
        functools.partial(batches, config, train),
        Evaluation(
            pix2pix.predict,
            metric.only("l1", "ssim", "gradient_energy", *colour),
            lambda: eval_batches(test, batch_size=size, transform=whole, **this_process()),
        ),
        Sampling(pix2pix.predict, first(test, 12, whole), draw),
        functools.partial(predictions, train, whole),
        higher_is_better=("ssim", "gradient_energy", "colour_accuracy"),
        sources=(train, test),
    )


def signed_target(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The batch as the metric reads it."""
    return {**batch, "target": unit_to_signed(uint8_to_unit(batch["target"]))}


def open_split(config: Config, split: str) -> Source:
    """The pairs of one split."""
    data = config.data
    return SkipDamaged(open_source(data.name, split=split, config=data.config, data_dir=data.data_dir), data.damaged)


def whole_images(config: Config) -> Any:
    """What is done to the images in evaluation, or None."""
    if config.data.load is None:
        return None
    return functools.partial(resize, keys=PAIRED[0], size=config.data.crop)


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The networks."""
    return pix2pix.build(config.model, rngs)


def learner(config: Config) -> Learner:
    """How they are trained: the discriminator first, then the generator."""
    tx = make_optimizer(config.optimizer, config.loop.steps)
    return alternate(
        {
            "discriminator": Player(pix2pix.loss_discriminator, ("discriminator",), tx),
            "generator": Player(pix2pix.loss_generator, ("generator",), tx),
        }
    )


def batches(config: Config, source: Source, step: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Shuffled pairs from a step on, this process's part of each batch."""
    data, augment = config.data, None
    if data.load is not None:
        augment = functools.partial(jitter, together=PAIRED, load=data.load, crop=data.crop)
    return train_batches(
        source,
        batch_size=data.batch,
        seed=config.seed,
        start_step=step,
        augment=augment,
        steps_per_call=config.loop.steps_per_call,
        **this_process(),
    )


def first(source: Source, number: int, transform: Any) -> Record:
    """One batch of the first pairs, the same on every process."""
    records = [source[i] for i in range(min(number, len(source)))]
    records = [transform(record) for record in records] if transform else records
    return {name: np.stack([record[name] for record in records]) for name in ("input", "target")}


def predictions(train: Source, transform: Any) -> dict[str, Predict]:
    """The predictions that need no training, or only statistics of it."""
    pairs = first(train, len(train), transform)
    targets = pairs["target"].astype(np.float32) / 127.5 - 1

    def fixed(image: np.ndarray) -> Predict:
        return lambda _, batch: jnp.broadcast_to(jnp.asarray(image)[None], (len(batch["input"]), *image.shape))

    return {
        "mean image": fixed(targets.mean(axis=0)),
        "median image": fixed(np.median(targets, axis=0)),
        "nearest training pair": lambda _, batch: nearest_pair(pairs["input"], pairs["target"], batch["input"]),
    }


def draw(outputs: np.ndarray, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Input, translation and target, side by side."""
    translation = np.asarray(unit_to_uint8(signed_to_unit(jnp.asarray(outputs))))
    return {"pairs": sheet({"input": batch["input"], "translation": translation, "target": batch["target"]})}


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
