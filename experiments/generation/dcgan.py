"""DCGAN (Radford et al., 2016): handwritten digits from noise.

    python -m experiments.generation.dcgan --workdir runs/dcgan            # cpu: minutes on two cores
    python -m experiments.generation.dcgan paper --workdir runs/dcgan-paper

The same command starts or resumes. Presets: `cpu` trains small networks on 16x16 digits, the discriminator held by a
penalty on its slope (R1) where the paper normalises by batches; `batch_norm` does as the paper does, with every image
shifted at random before the discriminator sees it; `paper` is the Torch version's 64x64 network on faces; `tiny` takes
seconds and is what the tests run.
Generated images are held against real ones by the features of a small classifier that is trained on the spot (its
figures are `digits-cnn-...`, and no FID), or, as `paper` needs it, of Inception from a local file with its published
weights: `--inception pt_inception-2015-12-05-6726825d.pth`. The report sets the model beside held-out real images,
which are out of reach, and samplers that need no training: a Gaussian with the pixels' full covariance, means of two
images, single pixels.

Measured: `cpu`, seed 0, on one busy core, 3 min 36 s: digits-cnn-fd 4.69 (held-out digits 3.45, the Gaussian 21.5),
score 6.93 (8.86, 5.77), precision 0.514 (0.92, 0.34), recall 0.899 (0.926, 0.866), the rarest digit 6.6 % of the
samples: most are digits, some are between two. `batch_norm`, 2 min 51 s: digits-cnn-fd 18.8, score 6.21, the rarest
digit 5.2 %. `paper` has not been trained yet.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.convert.inception import load_inception
from seqjax.data.augment import middle
from seqjax.data.pipeline import eval_batches, train_batches
from seqjax.data.source import Record, SkipDamaged, Source, in_memory, open_source
from seqjax.errors import InputError
from seqjax.metrics import baselines, inception
from seqjax.metrics.digits_cnn import train_digits_cnn
from seqjax.metrics.features import FeatureNet, extract
from seqjax.metrics.generation import generation_metrics
from seqjax.models.generation import dcgan
from seqjax.ops.image import signed_to_unit, unit_to_uint8
from seqjax.train.command import main
from seqjax.train.evaluate import Evaluation, Sampling
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.loop import Loop
from seqjax.train.media import grid
from seqjax.train.mesh import this_process
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.step import Learner, Player, alternate


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images."""

    name: str = "digits"
    """Data set: digits, or any set of images of the TFDS catalogue."""
    config: str | None = "16x16"
    """Configuration of the data set; its own default if None."""
    test: str = "test"
    """Split that is held out, or a part of one, such as test[:500]."""
    data_dir: str | None = None
    """Where prepared sets are; TFDS's own choice if None."""
    side: int | None = None
    """Side to which the middle square of each image is brought; None leaves them as they are."""
    in_memory: bool = True
    """Whether the training images are kept in memory."""
    batch: int = 64
    """Images per update, over all devices."""
    damaged: float = 0.01
    """Largest share of a split that may be damaged on disk; such images are skipped and named."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe."""

    model: dcgan.Config = dcgan.Config(size=16, channels=1, latent=32, base=32, norm="none", r1=1.0)
    """The networks and the game."""
    data: Data = Data()
    """The images."""
    optimizer: Optimizer = Optimizer(learning_rate=5e-4, b1=0.5, b2=0.9)
    """The optimiser of each player."""
    average: float = 0.99
    """Decay of the average of the generator's parameters that is measured and drawn; 0 for none."""
    samples: int = 500
    """Images generated for an evaluation."""
    references: int = 10_000
    """Real images that they are held against, at most."""
    inception: str | None = None
    """File with the published weights of FID's Inception; None trains a small classifier on the labels."""
    loop: Loop = Loop(steps=3000, log_every=50, evaluate_every=500, sample_every=500, save_every=250)
    """Length and cadences of training."""
    seed: int = 0
    """Of the parameters, the order of the images and the noise."""
    workdir: str = "runs/dcgan"
    """Where the run keeps everything; a run that is there already is continued."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there, such as loop.steps."""


PRESETS = {
    "cpu": Config(),
    "batch_norm": Config(
        model=dcgan.Config(size=16, channels=1, latent=32, base=32, augment=("translation",)),
        optimizer=Optimizer(learning_rate=2e-4, b1=0.5),
        loop=Loop(steps=4500, log_every=50, evaluate_every=500, sample_every=500, save_every=250),
        workdir="runs/dcgan-batch_norm",
    ),
    "paper": Config(
        model=dcgan.Config(),
        optimizer=Optimizer(learning_rate=2e-4, b1=0.5),
        data=Data(name="celeb_a", config=None, side=64, in_memory=False),
        average=0.0,
        samples=10_000,
        loop=Loop(steps=80_000, log_every=100, evaluate_every=10_000, sample_every=2_000, save_every=2_000),
        workdir="runs/dcgan-paper",
    ),
    "tiny": Config(
        model=dcgan.Config.tiny(),
        data=Data(config="8x8", batch=8),
        optimizer=Optimizer(b1=0.5),
        samples=40,
        loop=Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5),
        workdir="runs/dcgan-tiny",
    ),
}


def run(config: Config) -> None:
    """Train, measure beside the baselines, and report."""
    run_experiment(config, functools.partial(prepare, config))


def prepare(config: Config) -> Experiment:
    """The experiment, its data sets open."""
    train, test = open_split(config, "train"), open_split(config, config.data.test)
    train = in_memory(train) if config.data.in_memory else train
    real, held_out = arrays(config, train), arrays(config, test)
    net = feature_net(config, real, held_out)
    metric = generation_metrics(net, extract(net, real["image"])[0], capacity=config.samples)
    metric = metric.only(*map(net.figure, ("fd", "score", "rarest_class", "precision", "recall")))
    others = to_compare(real["image"], held_out["image"], config.samples)
    rows = rows_of(noise(config.model, config.samples) | others)
    return Experiment(
        learner(config),
        functools.partial(build, config),
        functools.partial(batches, config, train),
        Evaluation(dcgan.sample, metric, lambda: eval_batches(rows, batch_size=config.data.batch, **this_process())),
        Sampling(dcgan.sample, noise(config.model, 64), draw),
        lambda: {name: functools.partial(given, name) for name in others},
        higher_is_better=[net.figure(kind) for kind in ("score", "rarest_class", "precision", "recall")],
        out_of_reach=["held-out images"],
        sources=(train, test),
    )


def open_split(config: Config, split: str) -> Source:
    """The images of one split."""
    data = config.data
    return SkipDamaged(open_source(data.name, split=split, config=data.config, data_dir=data.data_dir), data.damaged)


def cut(config: Config, record: Record) -> Record:
    """The image as the networks take it, and its label if there is one."""
    kept = {key: value for key, value in record.items() if key in ("image", "label")}
    return kept if config.data.side is None else middle(kept, keys=("image",), size=config.data.side)


def arrays(config: Config, source: Source) -> Record:
    """The first images of a source, in [-1, 1], and their labels if there are any."""
    records = [cut(config, source[i]) for i in range(min(len(source), config.references))]
    stacked = {key: np.stack([record[key] for record in records]) for key in records[0]}
    return stacked | {"image": stacked["image"].astype(np.float32) / 127.5 - 1}


def feature_net(config: Config, real: Record, held_out: Record) -> FeatureNet:
    """What images are compared by.

    Raises:
      InputError: there are neither weights nor labels.
    """
    if config.inception is not None:
        return inception.feature_net(*load_inception(config.inception))
    if "label" not in real:
        raise InputError(
            f"inception: none came, and {config.data.name} has no labels to train a classifier on, by whose features "
            "generated images could be compared with real ones. Give the file with the published weights, "
            "pt_inception-2015-12-05-6726825d.pth of github.com/mseitzer/pytorch-fid, as --inception."
        )
    return train_digits_cnn(real["image"], real["label"], held_out["image"], held_out["label"])


def noise(model: dcgan.Config, number: int) -> dict[str, np.ndarray]:
    """Latent vectors, always the same, and labels in turn where the networks are told them."""
    z = {"z": np.asarray(dcgan.latents(model, number, key=jax.random.key(0)))}
    return z | ({"label": np.arange(number) % model.classes} if model.classes else {})


def to_compare(real: np.ndarray, held_out: np.ndarray, number: int) -> dict[str, np.ndarray]:
    """Images that come without training, or are real."""
    return {
        "held-out images": np.resize(held_out, (number, *held_out.shape[1:])),
        "Gaussian of all pixels": baselines.gaussian_pixels(real, number),
        "means of two images": baselines.mean_of_two(real, number),
        "pixels one by one": baselines.pixel_marginals(real, number),
    }


def rows_of(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """As records."""
    return [dict(zip(arrays, row, strict=True)) for row in zip(*arrays.values(), strict=True)]


def given(name: str, nets: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
    """A prediction that is in the batch already."""
    return batch[name]


def draw(outputs: np.ndarray, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A sheet of images, always of the same noise."""
    return {"samples": grid(np.asarray(unit_to_uint8(signed_to_unit(jnp.asarray(outputs)))))}


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The networks."""
    return dcgan.build(config.model, rngs)


def learner(config: Config) -> Learner:
    """How they are trained: the discriminator first, then the generator, each on noise of its own."""
    tx = make_optimizer(config.optimizer, config.loop.steps)
    players = {
        "discriminator": Player(dcgan.loss_discriminator, ("discriminator",), tx),
        "generator": Player(dcgan.loss_generator, ("generator",), tx),
    }
    return alternate(players, ema={"generator": config.average} if config.average else None)


def batches(config: Config, source: Source, step: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Shuffled images from a step on, this process's part of each batch."""
    size, calls = config.data.batch, config.loop.steps_per_call
    return train_batches(
        source,
        batch_size=size,
        seed=config.seed,
        start_step=step,
        transform=functools.partial(cut, config),
        steps_per_call=calls,
        **this_process(),
    )


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
