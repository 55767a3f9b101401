"""A run in miniature for the drills: two players pull at one saddle, on batches that are numbers drawn by their step.

python -m tests.faults.toy --workdir DIR [--broken data --broken-step 7]
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Literal, NoReturn

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from seqjax.metrics.average import average
from seqjax.train.command import main
from seqjax.train.evaluate import Evaluation, Sampling
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.loop import Loop
from seqjax.train.mesh import this_process
from seqjax.train.step import Player, alternate

BATCH = 8


@dataclasses.dataclass(frozen=True)
class Config:
    """The toy."""

    loop: Loop = Loop(steps=400, log_every=1, save_every=1)
    """Length and cadences of training: it saves at every step, so a kill is likely to fall into a save."""
    seed: int = 0
    """Of the parameters and the batches."""
    workdir: str = "runs/toy"
    """Where the run keeps everything."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there."""
    size: int = 64
    """Numbers in each player."""
    broken: Literal["nothing", "data", "loss", "gradient"] = "nothing"
    """What is not a number."""
    broken_step: int = 0
    """From which step on."""


class Vector(nnx.Module):
    """A player's numbers."""

    def __init__(self, size: int):
        self.value = nnx.Param(jnp.linspace(-1.0, 2.0, size))


def down(nets, batch, *, key):
    """Minimises Σ c x² / 2 + x y - y² / 2, c the mean of the batch."""
    x, y = nets["x"].value[...], nets["y"].value[...]
    value = jnp.mean(batch["c"]) * jnp.mean(x**2) / 2 + jnp.mean(x * y) - jnp.mean(y**2) / 2
    # The square root of nothing has a value and no gradient.
    return value + jnp.max(batch["loss"]) + jnp.sqrt(jnp.sum(x**2) * (1 - jnp.max(batch["gradient"]))), {}


def up(nets, batch, *, key):
    """The other way."""
    return -down(nets, batch, key=key)[0], {}


def batches(config: Config, start: int) -> Iterator[dict[str, np.ndarray]]:
    """This process's part of each batch."""
    place = this_process()
    mine = slice(place["process_index"], None, place["process_count"])
    for step in range(start, config.loop.steps):
        wrong = step + 1 >= config.broken_step and config.broken != "nothing"
        batch = {name: np.zeros(BATCH, np.float32) for name in ("loss", "gradient")}
        batch["c"] = np.random.default_rng([config.seed, step]).normal(1, 1, BATCH).astype(np.float32)
        if wrong:
            name = {"data": "c"}.get(config.broken, config.broken)
            batch[name][3] = 1.0 if name == "gradient" else np.nan
        yield {name: values[mine] for name, values in batch.items()}


def prepare(config: Config) -> Experiment:
    """The experiment."""
    tx = optax.adam(1e-2)
    ones = {"c": np.ones(BATCH // this_process()["process_count"], np.float32)}

    def predict(nets, batch):
        return batch["c"] * (jnp.mean(nets["x"].value[...]) if nets else 0.0)

    return Experiment(
        alternate({"down": Player(down, ("x",), tx), "up": Player(up, ("y",), tx)}),
        lambda rngs: {"x": Vector(config.size), "y": Vector(config.size)},
        lambda start: batches(config, start),
        Evaluation(predict, average(["error"], lambda outputs, batch: {"error": outputs}), lambda: [ones]),
        Sampling(predict, ones, lambda outputs, batch: {}),
        lambda: {"zero": predict},
    )


def start(args: Sequence[str]) -> NoReturn:
    """As the command line does."""
    main(lambda config: run_experiment(config, lambda: prepare(config)), {"toy": Config()}, doc=__doc__, args=args)


if __name__ == "__main__":
    start(sys.argv[1:])
