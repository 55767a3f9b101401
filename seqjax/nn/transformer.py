"""Transformer blocks: self-attention, attention to a memory, and a small network for each position, added to the input.

Where a block normalises is an option: after each sum, as published, which needs a learning rate that warms up; or
before each part, which trains without care and wants one more `layer_norm` after the last block.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax import compat
from seqjax.ops import multi_head
from seqjax.ops.compose import dropped
from seqjax.ops.dot_product_attention import Implementation
from seqjax.ops.multi_head import (
    Cache,
    Memory,
    MultiHeadParams,
    attention_weights,
    cached_attention,
    multi_head_attention,
    project,
)
from seqjax.ops.position import alibi_slopes

Placement = Literal["pre", "post"]
Relative = Literal["rotary", "alibi"]
Activation = Literal["relu", "gelu", "gelu_exact"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "gelu_exact": lambda x: jax.nn.gelu(x, approximate=False),
}
"""By name. ``gelu`` is the approximation by tanh, Flax's default; PyTorch's, and so timm's weights, want the exact."""


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """Sizes and options of one block; the defaults are the base model's of Vaswani et al."""

    features: int = 512
    """D of the tokens."""
    heads: int = 8
    """N, a divisor of D."""
    hidden: int = 2048
    """Width of the network for each position."""
    norm: Placement = "post"
    """``x + f(LN(x))`` ("pre"), or ``LN(x + f(x))`` ("post")."""
    activation: Activation = "relu"
    """Of the network for each position."""
    relative: Relative | None = None
    """How self-attention knows how far apart two tokens are: "rotary" turns queries and keys by their places, "alibi"
    takes ``m |i - j|`` off their score; None where the tokens themselves carry their places. Attention to a memory has
    neither: no distance is defined between places of two sequences."""
    bias: bool = True
    """Whether the projections of queries, keys, values and heads have one."""
    dropout: float = 0.0
    """Share dropped of each part's output and, in the network for each position, after its activation."""
    attention_dropout: float = 0.0
    """Share of the attention's weights that is dropped; above 0 it holds all of them at once."""
    implementation: Implementation | None = None
    """Of attention, as `dot_product_attention` takes it; decoding with a cache does without."""


class FeedForward(nnx.Module):
    """``W_2 φ(W_1 x + b_1) + b_2`` at each position, dropout after ``φ``."""

    def __init__(self, config: BlockConfig, *, rngs: nnx.Rngs):
        self.config = config
        init = initializers.xavier_uniform()
        self.input = nnx.Linear(config.features, config.hidden, kernel_init=init, rngs=rngs)
        self.output = nnx.Linear(config.hidden, config.features, kernel_init=init, rngs=rngs)

    def __call__(self, xs: Float[Array, "*B T D"], *, key: PRNGKeyArray | None = None) -> Float[Array, "*B T D"]:
        """The outputs; without a key, without dropout."""
        hidden = ACTIVATIONS[self.config.activation](self.input(xs))
        return self.output(dropped(hidden, self.config.dropout, key))


class EncoderBlock(nnx.Module):
    """Every position attends to every position that it may see, then thinks for itself."""

    def __init__(self, config: BlockConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.attention = _attention(config, rngs)
        self.attention_norm = layer_norm(config.features, rngs=rngs)
        self.feed_forward = FeedForward(config, rngs=rngs)
        self.feed_forward_norm = layer_norm(config.features, rngs=rngs)

    def __call__(
        self, xs: Float[Array, "*B T D"], *, key: PRNGKeyArray | None = None, **visible: Any
    ) -> Float[Array, "*B T D"]:
        """The tokens of the next layer.

        Args:
          xs: tokens.
          key: draws dropout; None for none.
          visible: who sees whom, as `dot_product_attention` takes it: lengths, mask, causal, segments, ...
        """
        keys = _keys(key, 4)
        params: MultiHeadParams = compat.pure(self.attention)

        def attend(xs: Array) -> Array:
            return _attend(self.config, params, xs, keys[0], **visible)

        xs = add(self.config, self.attention_norm, xs, attend, keys[1])
        return add(self.config, self.feed_forward_norm, xs, lambda xs: self.feed_forward(xs, key=keys[2]), keys[3])


class DecoderBlock(nnx.Module):
    """Every position attends to itself and those before it, then to a memory, then thinks for itself."""

    def __init__(self, config: BlockConfig, *, memory_features: int | None = None, rngs: nnx.Rngs):
        self.config = config
        self.attention = _attention(config, rngs)
        self.attention_norm = layer_norm(config.features, rngs=rngs)
        self.crossing = _attention(config, rngs, memory_features=memory_features)
        self.crossing_norm = layer_norm(config.features, rngs=rngs)
        self.feed_forward = FeedForward(config, rngs=rngs)
        self.feed_forward_norm = layer_norm(config.features, rngs=rngs)

    def remember(self, encoded: Float[Array, "*B S C"]) -> Memory:
        """The encoder's outputs as this block's keys and values: once, however many tokens are decoded."""
        return project(compat.pure(self.crossing), encoded)

    def cache(self, shape: tuple[int, ...], length: int) -> Cache:
        """An empty cache of self-attention for rows ``*B = shape`` of at most so many tokens."""
        return multi_head.init_cache(compat.pure(self.attention), shape, length)

    def __call__(
        self,
        xs: Float[Array, "*B T D"],
        memory: Memory,
        cache: Cache | None = None,
        *,
        key: PRNGKeyArray | None = None,
        **visible: Any,
    ) -> tuple[Float[Array, "*B T D"], Cache | None]:
        """The tokens of the next layer, and the cache with these tokens too.

        Args:
          xs: tokens; with a cache, those that follow the cached ones.
          memory: from `remember`.
          cache: of the tokens before; None where these are all.
          key: draws dropout; None for none.
          visible: of the memory, as `dot_product_attention` takes it, such as ``lengths``.
        """
        keys = _keys(key, 6)
        crossing: MultiHeadParams = compat.pure(self.crossing)

        def cross(xs: Array) -> Array:
            return multi_head_attention(crossing, xs, memory, **_options(self.config, keys[2]) | visible)

        xs, filled = self._look_back(xs, cache, keys[0], keys[1])
        xs = add(self.config, self.crossing_norm, xs, cross, keys[3])
        xs = add(self.config, self.feed_forward_norm, xs, lambda xs: self.feed_forward(xs, key=keys[4]), keys[5])
        return xs, filled

    def weights(self, xs: Float[Array, "*B T D"], memory: Memory, **visible: Any) -> Float[Array, "*B N T S"]:
        """How much each head looks at each place of the memory, to be looked at; arguments as of a call."""
        xs, _ = self._look_back(xs, None, None, None)
        asking = self.crossing_norm(xs) if self.config.norm == "pre" else xs
        return attention_weights(compat.pure(self.crossing), asking, memory, **visible)

    def _look_back(
        self, xs: Array, cache: Cache | None, key: PRNGKeyArray | None, key_sum: PRNGKeyArray | None
    ) -> tuple[Array, Cache | None]:
        params, filled = compat.pure(self.attention), cache

        def attend(xs: Array) -> Array:
            nonlocal filled
            if cache is None:
                return _attend(self.config, params, xs, key, causal=True)
            options = _penalty(self.config) | _dropping(self.config, key)
            filled, ys = cached_attention(params, cache, xs, rotate=self.config.relative == "rotary", **options)
            return ys

        return add(self.config, self.attention_norm, xs, attend, key_sum), filled


def layer_norm(features: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalisation as Transformers have it: biased variance, ``ε = 10⁻⁶``."""
    return nnx.LayerNorm(features, epsilon=1e-6, use_fast_variance=False, rngs=rngs)


def add(
    config: BlockConfig, norm: nnx.LayerNorm, xs: Array, part: Callable[[Array], Array], key: PRNGKeyArray | None
) -> Array:
    """A part of a block, its dropout, the sum with its input and the normalisation where it belongs."""
    if config.norm == "pre":
        return xs + dropped(part(norm(xs)), config.dropout, key)
    return norm(xs + dropped(part(xs), config.dropout, key))


def _attention(config: BlockConfig, rngs: nnx.Rngs, *, memory_features: int | None = None) -> Any:
    return nnx.Param(
        multi_head.init(rngs.params(), config.features, config.heads, memory_features=memory_features, bias=config.bias)
    )


def _attend(config: BlockConfig, params: MultiHeadParams, xs: Array, key: PRNGKeyArray | None, **visible: Any) -> Array:
    """Self-attention of all tokens at once."""
    places = jnp.arange(xs.shape[-2], dtype=jnp.int32) if config.relative == "rotary" else None
    options = _options(config, key) | _penalty(config) | visible
    return multi_head_attention(params, xs, project(params, xs, positions=places), positions=places, **options)


def _penalty(config: BlockConfig) -> dict[str, Any]:
    return {"alibi": alibi_slopes(config.heads)} if config.relative == "alibi" else {}


def _options(config: BlockConfig, key: PRNGKeyArray | None) -> dict[str, Any]:
    return {"implementation": config.implementation, **_dropping(config, key)}


def _dropping(config: BlockConfig, key: PRNGKeyArray | None) -> dict[str, Any]:
    dropout = config.attention_dropout
    return {"dropout": dropout, "key": key} if dropout and key is not None else {}


def _keys(key: PRNGKeyArray | None, number: int) -> Any:
    return [None] * number if key is None else jax.random.split(key, number)
