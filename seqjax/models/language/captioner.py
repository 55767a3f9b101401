"""Captions by a recurrent network that is given the image once: Karpathy and Fei-Fei, 2015, and Show and Tell.

Andrej Karpathy, Li Fei-Fei, *Deep Visual-Semantic Alignments for Generating Image Descriptions*, CVPR 2015,
https://arxiv.org/abs/1412.2306, section 3.2, and the authors' neuraltalk. Oriol Vinyals, Alexander Toshev, Samy Bengio,
Dumitru Erhan, *Show and Tell: A Neural Image Caption Generator*, CVPR 2015, https://arxiv.org/abs/1411.4555.

Both are a cell over words whose outputs foretell the next one; they differ in the cell and in how the image comes in:

    first    its features are added to the cell's sums at the first word           Karpathy and Fei-Fei, section 3.2
    every    the same at every word                                                neuraltalk
    word     they are a word of their own, read before the first                   Show and Tell

The defaults are the paper's network: an Elman network with rectified units, VGG-16's last dense layer; `show_and_tell`
is the other. Departures: in neuraltalk the image goes through a layer of the words' size first; Show and Tell reads
images by an Inception network, here VGG, and writes with an ensemble.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from seqjax import compat
from seqjax.nn.image_encoder import EncoderConfig, ImageEncoder
from seqjax.ops import cells, tokens
from seqjax.ops.compose import dropout_mask
from seqjax.ops.linear import affine
from seqjax.ops.recurrence import Affine, Cell
from seqjax.ops.scan import unroll


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the networks; the defaults are Karpathy and Fei-Fei's."""

    encoder: EncoderConfig = EncoderConfig(net="vgg16", layer="relu7")
    """What reads the image; all its places are one vector here."""
    vocabulary: int = 8_800
    """Ids of tokens, the four special ones among them."""
    length: int = 20
    """Most tokens of a caption, its end among them."""
    embedding: int = 256
    """Features of a token."""
    features: int = 256
    """Width of the recurrent layer."""
    cell: Literal["rnn", "rnn_relu", "lstm", "gru"] = "rnn_relu"
    """The recurrent cell, by its name in ``seqjax.ops.cells``."""
    image_feed: Literal["first", "every", "word"] = "first"
    """How the image comes in."""
    dropout: float = 0.5
    """Share of the words' and the image's features, and of the outputs, that is dropped."""
    initial: Literal["neuraltalk", "lecun"] = "neuraltalk"
    """How kernels start: U(-0.1, 0.1), a tenth of it for the output layer, or LeCun-normal, the recurrent one
    orthogonal."""
    beams: int = 1
    """Of the search for a caption; 1 is greedy."""
    length_penalty: float = 0.0
    """Of the search, see `ops.beam_search`."""

    @classmethod
    def show_and_tell(cls) -> "Config":
        """The network of Vinyals et al., on VGG-16, and its search."""
        return cls(embedding=512, features=512, cell="lstm", image_feed="word", beams=20)

    @classmethod
    def tiny(cls) -> "Config":
        """For tests."""
        return cls(
            encoder=EncoderConfig.tiny(),
            vocabulary=9,
            length=4,
            embedding=5,
            features=7,
            cell="rnn",
            dropout=0.0,
            initial="lecun",
        )


class Carry(NamedTuple):
    """State of the decoder."""

    state: Any
    """The cell's."""
    image: Float[Array, "B G"] | None
    """What the next word's sums are given of the image."""


def given(cell: Cell, *, every: bool) -> Cell:
    """A cell to whose sums the image's features are added: at the next step alone, or at every one."""

    def step(params: Any, carry: Carry, z_t: Array, affine: Affine) -> tuple[Carry, Array]:
        if carry.image is None:
            state, y_t = cell.step(params, carry.state, z_t, affine)
            return Carry(state, None), y_t
        state, y_t = cell.step(params, carry.state, z_t + carry.image, affine)
        return Carry(state, carry.image if every else jnp.zeros_like(carry.image)), y_t

    return cell._replace(step=step)


class Decoder(nnx.Module):
    """Captions from features.

    Args:
      config: of the system.
      inputs: features of an image.
      rngs: of the parameters.
    """

    def __init__(self, config: Config, inputs: int, *, rngs: nnx.Rngs):
        self.config = config
        start = _initial(config, 0.1)
        self.words = nnx.Embed(config.vocabulary, config.embedding, embedding_init=start, rngs=rngs)
        params = self.cell.init(rngs.params(), config.embedding, config.features)
        drawn = ("input", "recurrent") if config.initial == "neuraltalk" else ("input",)
        kernels = {name: start(rngs.params(), getattr(params, name).shape) for name in drawn}
        self.recurrent = nnx.Param(params._replace(**kernels))
        seen = config.embedding if config.image_feed == "word" else params.bias.shape[-1]
        self.image = nnx.Linear(inputs, seen, use_bias=False, kernel_init=start, rngs=rngs)
        self.out = nnx.Linear(config.features, config.vocabulary, kernel_init=_initial(config, 0.01), rngs=rngs)

    @property
    def cell(self) -> Cell:
        """The recurrent cell."""
        return getattr(cells, self.config.cell)

    def encode(self, maps: Float[Array, "B H W C"], *, key: PRNGKeyArray | None = None) -> Float[Array, "B G"]:
        """What the cell is given of an image; with a key for dropout."""
        return self._dropped(self.image(maps.reshape(len(maps), -1)), key, 0)

    def init_state(self, encoded: Float[Array, "B G"]) -> Carry:
        """The state before the first word."""
        params = compat.pure(self.recurrent)
        state = self.cell.carry(params, encoded.shape[:1])
        if self.config.image_feed != "word":
            return Carry(state, encoded)
        return Carry(self.cell.step(params, state, self.cell.project(params, encoded, affine), affine)[0], None)

    def step(self, carry: Carry, token: Int[Array, " B"]) -> tuple[Carry, Float[Array, "B V"]]:
        """One more word: the next state, and logits of the word after ``token``."""
        params, cell = compat.pure(self.recurrent), self._given()
        carry, h = cell.step(params, carry, cell.project(params, self.words(token), affine), affine)
        return carry, self.out(h)

    def __call__(
        self, encoded: Float[Array, "B G"], ids: Int[Array, "B T"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "B T V"]:
        """Logits of the token after each of these, from BOS on: `step` over all of them; with a key for dropout."""
        words = self._dropped(self.words(ids), key, 1)
        _, hs = unroll(self._given(), compat.pure(self.recurrent), self.init_state(encoded), words)
        return self.out(self._dropped(hs, key, 2))

    def _given(self) -> Cell:
        return given(self.cell, every=self.config.image_feed == "every")

    def _dropped(self, x: Array, key: PRNGKeyArray | None, place: int) -> Array:
        if key is None or not self.config.dropout:
            return x
        return x * dropout_mask(jax.random.fold_in(key, place), self.config.dropout, x.shape, x.dtype)


Nets = dict[str, Any]
Batch = dict[str, Array]


def build(config: Config, rngs: nnx.Rngs, *, counts: Float[Array, " V"] | None = None) -> Nets:
    """The network that reads and the one that tells.

    Args:
      config: sizes.
      rngs: of the parameters.
      counts: how often each id occurs in training: the output's bias then starts at ``log(count / largest)``, so that
        training begins with the words' frequencies known (neuraltalk); ids that do not occur count as once.
    """
    encoder = ImageEncoder(config.encoder, rngs=rngs)
    height, width, features = encoder.shape
    decoder = Decoder(config, height * width * features, rngs=rngs)
    if counts is not None:
        least = jnp.maximum(counts, 1)
        decoder.out.bias[...] = jnp.log(least / jnp.max(least))  # type: ignore[index]
    return {"encoder": encoder, "decoder": decoder}


def loss(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``-Σ_t log p(y_t | y_<t, image)``, averaged over captions.

    Args:
      nets: of `build`.
      batch: "image" uint8 ``[B, H, W, 3]``; "captions" ids ``[B, length + 1]``, BOS, words, EOS, padding.
      key: of dropout.
    """
    nll = jnp.mean(_cost(nets, batch, key))
    return nll, {"nll": nll}


def predict(nets: Nets, batch: Batch) -> dict[str, Array]:
    """Captions written freely, "captions" ids ``[B, length]``, and "nll" ``[B]`` of ``batch["captions"]``, in nats."""
    return {**describe(nets, batch), "nll": _cost(nets, batch, None)}


def describe(nets: Nets, batch: Batch) -> dict[str, Array]:
    """Captions written freely, "captions" ids ``[B, length]``."""
    decoder, config = nets["decoder"], nets["decoder"].config
    encoded = decoder.encode(nets["encoder"](batch["image"]))
    options = {"length": config.length, "beams": config.beams, "length_penalty": config.length_penalty}
    return {"captions": tokens.write(decoder.step, decoder.init_state(encoded), len(encoded), **options)}


def likelihoods(nets: Nets, batch: Batch, captions: Int[Array, "M T"]) -> Float[Array, "B M"]:
    """``log p(caption | image)`` of every image and every one of these captions, rows of ids, in nats."""
    decoder = nets["decoder"]
    encoded = decoder.encode(nets["encoder"](batch["image"]))
    return tokens.text_log_probs(lambda ids: decoder(encoded, ids), captions, len(encoded))


def _cost(nets: Nets, batch: Batch, key: PRNGKeyArray | None) -> Float[Array, " B"]:
    decoder, ids = nets["decoder"], batch["captions"]
    encoded = decoder.encode(nets["encoder"](batch["image"]), key=key)
    return jnp.sum(tokens.token_cross_entropy(decoder(encoded, ids[:, :-1], key=key), ids[:, 1:]), axis=1)


def _initial(config: Config, bound: float) -> Callable[..., Array]:
    """How a kernel starts."""

    def start(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **_: object) -> Array:
        if config.initial == "lecun":
            return jax.nn.initializers.lecun_normal()(key, shape, dtype)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return start
