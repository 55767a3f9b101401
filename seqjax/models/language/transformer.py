"""Transformer (Vaswani et al., 2017): sequences to sequences by attention alone.

Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones, Aidan N. Gomez, Łukasz Kaiser, Illia
Polosukhin, *Attention Is All You Need*, NeurIPS 2017, https://arxiv.org/abs/1706.03762.

Here are the encoder and the decoder, the smoothed loss, and decoding by beam search with a cache, so that a new token
costs one position. One matrix is both embeddings and the output layer. `Config()` is the base model, `Config.big()` the
big one for English to German. Ids are those of `seqjax.ops.tokens`.

Departures: none that changes the function. The paper does not say whether the projections of attention have biases
(here, as in its formulas and in Tensor2Tensor, they have none; the other layers do), nor where dropout within the
feed-forward network goes (after the ReLU, as in Tensor2Tensor; ``attention_dropout`` is Tensor2Tensor's too, and 0).
The paper prints 65 and 213 million parameters and 37,000 tokens, which make 63.0 and 214.2 million here.

Beyond the paper, ``positions`` may be "rotary" (Su et al., *RoFormer*, 2021) or "alibi" (Press et al., *Train Short,
Test Long*, 2022) instead of its sinusoids: distances in the self-attention of encoder and decoder, and nothing added to
the embeddings. Attention to the source has neither, as in RoFormer's translation (section 4.1): a place in the target
has no distance to one in the source, so that who is to be asked for follows from what was read. Press et al. have
decoders alone; the encoder's distance is the same both ways, so that only what stands there, such as BOS and EOS, tells
left from right.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from seqjax import compat
from seqjax.nn.transformer import BlockConfig, DecoderBlock, EncoderBlock, Placement, Relative, layer_norm
from seqjax.ops.beam_search import Beams, beam_search
from seqjax.ops.compose import dropped
from seqjax.ops.dot_product_attention import Implementation
from seqjax.ops.multi_head import Cache, Memory
from seqjax.ops.position import sinusoidal
from seqjax.ops.tokens import BOS, EOS, PAD, forbidden, foretold, lengths, token_cross_entropy, token_mean

Embeddings = Literal["one", "target", "three"]
Positions = Literal["interleaved", "split", "rotary", "alibi"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and options; the defaults are the base model's."""

    vocabulary: int = 37_000
    """Ids that are written, and read."""
    source_vocabulary: int | None = None
    """Ids that are read, where they are others."""
    layers: int = 6
    """Blocks of the encoder, and of the decoder."""
    features: int = 512
    """D: size of a token."""
    heads: int = 8
    """Heads of attention, a divisor of D."""
    hidden: int = 2048
    """Width of the feed-forward networks."""
    norm: Placement = "post"
    """Normalisation after each sum, as published, which needs warm-up, or before each sub-layer."""
    embeddings: Embeddings = "one"
    """Matrices: one for source, target and output; one for the source and one for target and output; or three."""
    positions: Positions = "interleaved"
    """Sinusoids in the paper's order; sines before cosines, as Tensor2Tensor and Flax have them; or none, but distances
    in self-attention, "rotary" or "alibi"."""
    bias: bool = False
    """Whether the projections of attention have biases."""
    dropout: float = 0.1
    """Of embeddings and of each sub-layer."""
    attention_dropout: float = 0.0
    """Of attention's weights."""
    smoothing: float = 0.1
    """Share of the target's probability that is spread over all tokens."""
    beams: int = 4
    """Hypotheses of beam search; 1 decodes greedily."""
    length_penalty: float = 0.6
    """α of beam search."""
    extra: int = 50
    """Tokens that an output may have more than the padded input."""
    implementation: Implementation | None = None
    """Of attention: "xla"; "flash", whose memory is linear in the number of tokens; "cudnn"; None chooses by size."""
    remat: bool = False
    """Whether the backward pass computes each block again instead of keeping what is inside it."""

    @classmethod
    def big(cls) -> "Config":
        """The big model for English to German (dropout 0.1 for English to French)."""
        return cls(features=1024, heads=16, hidden=4096, dropout=0.3)

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: one layer, and no dropout, without which one batch can be learned by heart."""
        return cls(vocabulary=14, layers=1, features=8, heads=2, hidden=12, dropout=0.0, beams=2, extra=0)

    @property
    def relative(self) -> Relative | None:
        """What self-attention is told of distance."""
        return self.positions if self.positions in ("rotary", "alibi") else None

    @property
    def block(self) -> BlockConfig:
        """One block."""
        return BlockConfig(
            features=self.features,
            heads=self.heads,
            hidden=self.hidden,
            norm=self.norm,
            relative=self.relative,
            bias=self.bias,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            implementation=self.implementation,
        )


class Encoded(NamedTuple):
    """What the decoder reads."""

    memories: list[Memory]
    """Keys and values for each of its blocks."""
    lengths: Int[Array, " B"]
    """Of the sources."""


class Embedding(nnx.Module):
    """A matrix that makes ids to tokens and, if it is asked, tokens to logits."""

    def __init__(self, size: int, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        draw = jax.random.normal(rngs.params(), (size, config.features))
        self.matrix = nnx.Param(draw * config.features**-0.5)

    def __call__(
        self, ids: Int[Array, "B T"], start: Array | int = 0, *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "B T D"]:
        """``√D E[id] + PE(position)``, with dropout; ``start`` is the first token's position. Without sinusoids, the
        first term alone."""
        config, features = self.config, self.config.features
        xs = self.matrix[...][ids] * features**0.5
        if config.positions != "rotary" and config.positions != "alibi":
            codes = sinusoidal(start + jnp.arange(ids.shape[1]), features, layout=config.positions)
            xs = xs + jnp.broadcast_to(codes.astype(xs.dtype), xs.shape)
        return dropped(xs, config.dropout, key)

    def logits(self, xs: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Products with every row."""
        return xs @ self.matrix[...].T


class Transformer(nnx.Module):
    """Encoder and decoder."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        sources = config.source_vocabulary or config.vocabulary
        self.target = Embedding(config.vocabulary, config, rngs=rngs)
        self.source = None if config.embeddings == "one" else Embedding(sources, config, rngs=rngs)
        self.output = Embedding(config.vocabulary, config, rngs=rngs) if config.embeddings == "three" else None
        self.encoder = compat.List([EncoderBlock(config.block, rngs=rngs) for _ in range(config.layers)])
        self.decoder = compat.List([DecoderBlock(config.block, rngs=rngs) for _ in range(config.layers)])
        # After sums that nothing has normalised.
        last = config.norm == "pre"
        self.encoder_norm = layer_norm(config.features, rngs=rngs) if last else None
        self.decoder_norm = layer_norm(config.features, rngs=rngs) if last else None

    def __call__(
        self, source: Int[Array, "B S"], target: Int[Array, "B T"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "B T V"]:
        """Logits of the token after each of the target's; a key draws dropout."""
        keys = [None, None] if key is None else jax.random.split(key)
        return self.decode(target, self.encode(source, key=keys[0]), key=keys[1])[0]

    def encode(self, source: Int[Array, "B S"], *, key: PRNGKeyArray | None = None) -> Encoded:
        """The sources, read once."""
        keys = self._keys(key)
        xs, sizes = (self.source or self.target)(source, key=keys[-1]), lengths(source)
        for block, each in zip(self.encoder, keys, strict=False):
            xs = self._run(functools.partial(block, lengths=sizes, key=each), xs)
        if self.encoder_norm is not None:
            xs = self.encoder_norm(xs)
        return Encoded([block.remember(xs) for block in self.decoder], sizes)

    def decode(
        self,
        target: Int[Array, "B T"],
        encoded: Encoded,
        caches: list[Cache] | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "B T V"], list[Cache] | None]:
        """Logits after each token; with the caches of the tokens before, tokens that go on from there."""
        keys = self._keys(key)
        xs = self.target(target, 0 if caches is None else caches[0].length, key=keys[-1])
        filled: list[Any] = []
        for i, block in enumerate(self.decoder):
            run = functools.partial(block, lengths=encoded.lengths, key=keys[i])
            xs, cache = self._run(run, xs, encoded.memories[i], None if caches is None else caches[i])
            filled.append(cache)
        if self.decoder_norm is not None:
            xs = self.decoder_norm(xs)
        return (self.output or self.target).logits(xs), None if caches is None else filled

    def weights(self, source: Int[Array, "B S"], target: Int[Array, "B T"]) -> Float[Array, "L B N T S"]:
        """How much each head of each decoder block looks at each token of the source as it reads one of the target."""
        encoded, xs = self.encode(source), self.target(target)
        seen = []
        for block, memory in zip(self.decoder, encoded.memories, strict=True):
            seen.append(block.weights(xs, memory, lengths=encoded.lengths))
            xs, _ = block(xs, memory, lengths=encoded.lengths)
        return jnp.stack(seen)

    def search(self, source: Int[Array, "B S"]) -> Beams:
        """The best outputs by beam search, each at most ``extra`` longer than the padded source."""
        config, encoded = self.config, self.encode(source)
        length = source.shape[1] + config.extra

        def step(caches: list[Cache], token: Array) -> tuple[Any, Array]:
            logits, filled = self.decode(token[:, None], encoded, caches)
            return filled, forbidden(logits[:, 0], PAD, BOS)

        return beam_search(
            step,
            [block.cache((len(source),), length) for block in self.decoder],
            jnp.full(len(source), BOS, source.dtype),
            beams=config.beams,
            length=length,
            end=EOS,
            pad=PAD,
            length_penalty=config.length_penalty,
        )

    def _keys(self, key: PRNGKeyArray | None) -> Any:
        """One for each block, and one for the embedding."""
        number = self.config.layers + 1
        return [None] * number if key is None else jax.random.split(key, number)

    def _run(self, block: Any, *args: Any) -> Any:
        return jax.checkpoint(block)(*args) if self.config.remat else block(*args)


def build(config: Config, rngs: nnx.Rngs) -> dict[str, Transformer]:
    """The one network of the system."""
    return {"transformer": Transformer(config, rngs=rngs)}


def loss(
    nets: dict[str, Transformer], batch: dict[str, Array], *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Smoothed cross-entropy, mean over the tokens of all targets; their plain one and how many are foretold.

    Args:
      nets: of `build`.
      batch: ids ``source`` [B, S] and ``target`` [B, T + 1].
      key: draws dropout.
    """
    net, asked = nets["transformer"], batch["target"][:, 1:]
    logits = net(batch["source"], batch["target"][:, :-1], key=key)
    smoothed = token_cross_entropy(logits, asked, smoothing=net.config.smoothing)
    return token_mean(smoothed, asked), foretold(logits, asked)


def predict(nets: dict[str, Transformer], batch: dict[str, Array]) -> Int[Array, "B L"]:
    """The best output for each source, as ids: EOS, then PAD, where it is shorter than ``S + extra``."""
    return nets["transformer"].search(batch["source"]).tokens[:, 0]
