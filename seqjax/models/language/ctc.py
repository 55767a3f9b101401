"""Connectionist temporal classification (Graves et al., 2006): frames to labels, in order but of unknown timing.

Alex Graves, Santiago Fernández, Faustino Gomez, Jürgen Schmidhuber, *Connectionist Temporal Classification: Labelling
Unsegmented Sequence Data with Recurrent Neural Networks*, ICML 2006, https://doi.org/10.1145/1143844.1143891.

A bidirectional LSTM reads the frames and says at each one a label or nothing; the loss sums over all ways to time the
labels. Decoding is by `seqjax.ops.ctc`. Label 0 is blank, and padding.

Departures: the loss is averaged over sequences, and the parameters begin as the cells' own, not uniform in [-0.1, 0.1].
Several layers and other cells are options. Their prefix search is here by a beam of fixed width. The defaults have the
114,662 weights of the paper, peepholes among them.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from seqjax import compat
from seqjax.ops import cells
from seqjax.ops.compose import Directions, bidirectional, dropped
from seqjax.ops.ctc import BLANK, best_path, prefix_beam_search


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and options; the defaults are the network for TIMIT."""

    inputs: int = 26
    """Features of a frame."""
    labels: int = 61
    """Kinds of labels, blank not among them."""
    features: int = 100
    """Width of each direction of each layer."""
    layers: int = 1
    """Bidirectional layers."""
    cell: Literal["lstm", "gru"] = "lstm"
    """Of each direction, by its name in ``seqjax.ops.cells``; an LSTM has peepholes."""
    noise: float = 0.6
    """Standard deviation of what is added to the features in training."""
    dropout: float = 0.0
    """Of what goes up from layer to layer."""
    beams: int = 1
    """Prefixes of the search; 1 takes the best path."""
    longest: int = 75
    """Most labels of a row that the search writes."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests."""
        return cls(inputs=24, labels=10, features=8, noise=0.0, longest=3)


class Recogniser(nnx.Module):
    """The layers, and the map to labels."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config, cell = config, getattr(cells, config.cell)
        options = {"peephole": "channel"} if config.cell == "lstm" else {}
        sizes = [config.inputs] + [2 * config.features] * (config.layers - 1)
        one = functools.partial(cell.init, features=config.features, **options)
        self.layers = nnx.Param(
            tuple(Directions(*(one(rngs.params(), in_features=size) for _ in range(2))) for size in sizes)
        )
        self.output = nnx.Linear(2 * config.features, config.labels + 1, rngs=rngs)

    def __call__(
        self, frames: Float[Array, "B T F"], lengths: Int[Array, " B"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "B T K"]:
        """Logits of blank and labels at each frame; a key draws noise and dropout."""
        number = self.config.layers + 1
        keys: Any = [None] * number if key is None else jax.random.split(key, number)
        if key is not None and self.config.noise:
            frames = frames + self.config.noise * jax.random.normal(keys[-1], frames.shape, frames.dtype)
        xs: Array = frames
        for layer, params in enumerate(compat.pure(self.layers)):
            xs = dropped(xs, self.config.dropout if layer else 0.0, keys[layer])
            _, xs = bidirectional(getattr(cells, self.config.cell), params, None, xs, lengths=lengths)
        return self.output(xs)


def build(config: Config, rngs: nnx.Rngs) -> dict[str, Recogniser]:
    """The one network of the system."""
    return {"recogniser": Recogniser(config, rngs=rngs)}


def loss(
    nets: dict[str, Recogniser], batch: dict[str, Array], *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``-log P(labels)``, mean over the batch.

    Labels that cannot be said in their frames, one for each and one more between two of the same, count as 0 and teach
    nothing; ``impossible`` is the share of such rows.

    Args:
      nets: of `build`.
      batch: ``features`` [B, T, F], of which ``length`` [B] frames count, and ``labels`` [B, U], then zeros.
      key: draws noise and dropout.
    """
    logits = nets["recogniser"](batch["features"], batch["length"], key=key).astype(jnp.float32)
    past = (jnp.arange(logits.shape[1])[None] >= batch["length"][:, None]).astype(jnp.float32)
    costs = optax.ctc_loss(logits, past, batch["labels"], (batch["labels"] == BLANK).astype(jnp.float32))
    labels, said = batch["labels"], batch["labels"] != BLANK
    again = said[:, 1:] & (labels[:, 1:] == labels[:, :-1])
    impossible = jnp.sum(said, axis=1) + jnp.sum(again, axis=1) > batch["length"]
    return jnp.mean(jnp.where(impossible, jnp.zeros_like(costs), costs)), {"impossible": jnp.mean(impossible)}


def predict(nets: dict[str, Recogniser], batch: dict[str, Array]) -> Int[Array, "B L"]:
    """The labels of each row, then zeros: T of them from the best path, ``longest`` from the search."""
    net = nets["recogniser"]
    logits = net(batch["features"], batch["length"])
    if net.config.beams == 1:
        return best_path(logits, batch["length"]).labels
    search = prefix_beam_search(logits, batch["length"], beams=net.config.beams, longest=net.config.longest)
    return search.labels[:, 0]


def probabilities(nets: dict[str, Recogniser], batch: dict[str, Array]) -> Float[Array, "B T K"]:
    """Of blank and labels at each frame."""
    net: Any = nets["recogniser"]
    return jax.nn.softmax(net(batch["features"], batch["length"]).astype(jnp.float32), axis=-1)
