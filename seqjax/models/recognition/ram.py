"""Recurrent attention model (Mnih et al., 2014): telling what an image shows from a few glimpses, chosen one by one.

Volodymyr Mnih, Nicolas Heess, Alex Graves, Koray Kavukcuoglu, *Recurrent Models of Visual Attention*, NIPS 2014,
https://arxiv.org/abs/1406.6247.

At each of T steps a retina sees patches of several resolutions around a place; a recurrent core remembers what was seen
where; from its state the next place is drawn. The class is told after the last glimpse. Where to look is learned from
the reward for a right answer (REINFORCE, with a learned baseline), everything else from the cross-entropy. The defaults
are the network for cluttered digits on 60x60 pixels.

Departures: the mean of the next place has a hidden layer and a tanh (``locator="linear"`` is the paper's), and the
first place is drawn evenly over the image, both as in kevinzakka/recurrent-visual-attention; log-densities are those of
the places as drawn, and only the retina clips them to the image; the core has one bias where the paper's formula has
two. The place drawn after the last glimpse decides nothing and is not scored.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax import compat
from seqjax.ops import cells
from seqjax.ops.glimpse import retina
from seqjax.ops.image import signed_images, signed_to_unit
from seqjax.ops.linear import affine
from seqjax.ops.policy import baseline_loss, gaussian_log_prob, score_function
from seqjax.ops.recurrence import Cell, Tree
from seqjax.ops.scan import unroll

Nets = dict[str, Any]
Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and options; the defaults are the paper's for cluttered digits on 60x60 pixels."""

    size: int = 60
    """Side of the images."""
    channels: int = 1
    """Channels of the images."""
    glimpses: int = 8
    """T."""
    patch: int = 12
    """g, the side of the patches that the network sees."""
    scales: int = 3
    """k, how many patches a glimpse has, each twice as wide as the last."""
    hidden: int = 128
    """Width of the layers that see patches and place apart."""
    features: int = 256
    """Width of a glimpse and of the core."""
    classes: int = 10
    """What is told apart."""
    core: Literal["rnn_relu", "lstm"] = "rnn_relu"
    """What remembers: the paper's for recognition, or its choice for control."""
    locator: Literal["tanh", "linear"] = "tanh"
    """The mean of the next place: ``tanh(W_2 ReLU(W_1 h))`` with ``hidden`` units, or ``W h``."""
    deviation: float = 0.15
    """σ of the next place around its mean; 2 is the whole image."""
    first: Literal["random", "centre"] = "random"
    """The first place: anywhere in the image, or its middle."""
    policy_weight: float = 1.0
    """λ, what the loss of the policy is multiplied by."""
    baseline_weight: float = 1.0
    """What the loss of the baseline is multiplied by; it shapes its own parameters alone."""
    episodes: int = 1
    """M, glimpse paths for each image in training; and in testing, of what is ``averaged``."""
    random: bool = False
    """Whether all places are drawn evenly over the image and none is learned, to compare with."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: two glimpses that see much, and rewards that weigh little."""
        return cls(
            size=8,
            glimpses=2,
            patch=4,
            scales=2,
            hidden=16,
            features=32,
            classes=4,
            deviation=0.3,
            first="centre",
            policy_weight=0.01,
            baseline_weight=0.1,
        )


class Path(NamedTuple):
    """Where the network looks, and what it makes of it."""

    places: Float[Array, "B T 2"]
    """``l_t = (x, y)``, each in [-1, 1] where it is in the image; no gradient goes to them."""
    means: Float[Array, "B T 2"]
    """Of the place after each glimpse."""
    states: Float[Array, "B T D"]
    """``h_t``."""


class Recognizer(nnx.Module):
    """Images in [0, 1] to what is seen along a path."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        hidden, width = config.hidden, config.features
        seen = config.scales * config.patch**2 * config.channels
        self.what = nnx.Linear(seen, hidden, rngs=rngs)
        self.where = nnx.Linear(2, hidden, rngs=rngs)
        self.of_what = nnx.Linear(hidden, width, rngs=rngs)
        self.of_where = nnx.Linear(hidden, width, rngs=rngs)
        self.core = nnx.Param(self.cell.init(rngs.params(), width, width))
        self.before_mean = nnx.Linear(width, hidden, rngs=rngs) if config.locator == "tanh" else None
        self.mean = nnx.Linear(hidden if config.locator == "tanh" else width, 2, rngs=rngs)
        self.head = nnx.Linear(width, config.classes, rngs=rngs)
        self.worth = nnx.Linear(width, 1, rngs=rngs)

    @property
    def cell(self) -> Cell:
        """What remembers."""
        return getattr(cells, self.config.core)

    def glimpse(self, images: Float[Array, "B S S C"], places: Float[Array, "B 2"]) -> Float[Array, "B D"]:
        """``g = ReLU(W ReLU(W ρ(x, l)) + W ReLU(W l))``: what is seen and where it is."""
        patches = retina(images, places, size=self.config.patch, scales=self.config.scales)
        what = jax.nn.relu(self.what(patches.reshape(len(images), -1)))
        where = jax.nn.relu(self.where(places.astype(images.dtype)))
        return jax.nn.relu(self.of_what(what) + self.of_where(where))

    def locate(self, h: Float[Array, "B D"]) -> Float[Array, "B 2"]:
        """The mean of the next place; from what is remembered, which it does not shape."""
        h = jax.lax.stop_gradient(h)
        if self.before_mean is None:
            return self.mean(h).astype(jnp.float32)
        return jnp.tanh(self.mean(jax.nn.relu(self.before_mean(h)))).astype(jnp.float32)

    def look(
        self,
        images: Float[Array, "B S S C"],
        first: Float[Array, "B 2"],
        *,
        noise: Float[Array, "B T 2"] | None = None,
        places: Float[Array, "B T 2"] | None = None,
    ) -> Path:
        """T glimpses.

        Args:
          images: in [0, 1].
          first: the first place.
          noise: ``ε ~ N(0, I)``: the place after step t is its mean and ``σ ε_t``; the last is not looked at.
          places: where to look after each step instead, whatever the network wants.
        """
        core: Tree = compat.pure(self.core)

        def step(params: Tree, carry: tuple[Tree, Array], x_t: Array) -> tuple[tuple[Tree, Array], Path]:
            state, place = carry
            seen = self.cell.project(params, self.glimpse(images, place), affine)
            state, h = self.cell.step(params, state, seen, affine)
            mean = self.locate(h)
            after = x_t if places is not None else mean + self.config.deviation * x_t
            return (state, jax.lax.stop_gradient(after)), Path(place, mean, h)

        start = self.cell.carry(core, (len(images),))
        return unroll(step, core, (start, first), noise if places is None else places)[1]

    def answer(self, path: Path) -> Float[Array, "B {self.config.classes}"]:
        """Logits, after the last glimpse."""
        return self.head(path.states[:, -1]).astype(jnp.float32)

    def expect(self, path: Path) -> Float[Array, "B _"]:
        """The reward that is expected before each place but the first is drawn: the baseline, which shapes nothing."""
        states = jax.lax.stop_gradient(path.states[:, :-1])
        return self.worth(states)[..., 0].astype(jnp.float32)


def build(config: Config, rngs: nnx.Rngs) -> dict[str, Recognizer]:
    """The one network of the system."""
    return {"recognizer": Recognizer(config, rngs=rngs)}


def loss(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Cross-entropy, and for the places ``λ Σ_t -(R - b_t) log π(l_t)`` and ``Σ_t (R - b_t)² / (T - 1)``.

    ``R`` is 1 for a right answer and else 0. Each is a mean over the batch, and over the episodes of an image.
    """
    net = nets["recognizer"]
    config = net.config
    images, labels = (jnp.repeat(x, config.episodes, axis=0) for x in (pixels(config, batch), batch["label"]))
    path = wander(net, images, key=key)
    logits = net.answer(path)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    reward = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    metrics = {"cross_entropy": jnp.mean(entropy), "reward": jnp.mean(reward)}
    if config.random or config.glimpses == 1:  # no place is chosen
        return metrics["cross_entropy"], metrics
    log_prob = gaussian_log_prob(path.places[:, 1:], path.means[:, :-1], deviation=config.deviation)
    rewards, baseline = jnp.broadcast_to(reward[:, None], log_prob.shape), net.expect(path)
    policy = jnp.sum(score_function(log_prob, rewards, baseline), axis=-1)
    guessed = jnp.mean(baseline_loss(baseline, rewards), axis=-1)
    metrics |= {"baseline": jnp.mean(guessed)}
    weighted = config.policy_weight * policy + config.baseline_weight * guessed
    return jnp.mean(entropy + weighted), metrics


def wander(net: Recognizer, images: Float[Array, "B S S C"], *, key: PRNGKeyArray, still: bool = False) -> Path:
    """A path of glimpses as the network is trained on them; ``still`` goes to the mean of each place but the first."""
    config = net.config
    first_key, key = jax.random.split(key)
    shape = (len(images), config.glimpses, 2)
    first = jax.random.uniform(first_key, shape[::2], minval=-1.0, maxval=1.0)
    first = first if config.first == "random" else jnp.zeros_like(first)
    if config.random:
        return net.look(images, first, places=jax.random.uniform(key, shape, minval=-1.0, maxval=1.0))
    return net.look(images, first, noise=jnp.zeros(shape) if still else jax.random.normal(key, shape))


def predict(nets: Nets, batch: Batch) -> dict[str, Array]:
    """What the network says, by draws that are the same for every batch.

    Returns:
      logarithms of probabilities ``[B, K]`` after one path: ``still``, where places are the means, ``drawn``, where
      they are drawn, and ``shuffled``, where they are those at which another image of the batch was looked at; of the
      mean of the probabilities after M still paths: ``averaged``; and ``places [B, T, 2]`` of the first of these.
    """
    net, images = nets["recognizer"], pixels(nets["recognizer"].config, batch)
    still = [wander(net, images, key=jax.random.key(m), still=True) for m in range(net.config.episodes)]
    places = still[0].places
    elsewhere = jnp.roll(places, 1, axis=0)
    after = jnp.concatenate([elsewhere[:, 1:], elsewhere[:, :1]], axis=1)
    paths = {
        "still": still[0],
        "drawn": wander(net, images, key=jax.random.key(0)),
        "shuffled": net.look(images, elsewhere[:, 0], places=after),
    }
    each = jnp.stack([jax.nn.log_softmax(net.answer(path)) for path in still])
    answers = {name: jax.nn.log_softmax(net.answer(path)) for name, path in paths.items()}
    averaged = jax.nn.logsumexp(each, axis=0) - jnp.log(jnp.float32(len(still)))
    return answers | {"averaged": averaged, "places": places}


def pixels(config: Config, batch: Batch) -> Float[Array, "B S S C"]:
    """The images in [0, 1].

    Raises:
      InputError: if they are of another shape.
    """
    return signed_to_unit(signed_images("image", batch["image"], (config.size, config.size, config.channels)))
