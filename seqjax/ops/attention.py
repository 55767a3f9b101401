"""Attention as a lookup: scores of queries against keys, a softmax over the keys, a mean or a sample of the values.

    name          score of query q and key k      project(k), once per source
    dot           q · k                            k
    scaled_dot    q · k / √D                       k / √D
    general       qᵀ W k                           W k
    additive      vᵀ tanh(W_q q + W_k k + b)       W_k k + b
    cosine        τ cos(q, k)                      k / |k|

A score is data, as a cell is: what does not read the query is in ``project``, so that a decoder calls it once per
source and only ``logits`` at every step. ``attend`` is the whole: scores, softmax, mean. Arrays are queries
``[*B, T, D]``, keys ``[*B, S, C]`` and values ``[*B, S, E]``; the positions of an image are the keys in
`attend_over_maps`. Heads of scaled dot products, as Transformers have them, are in `dot_product_attention`.

A mask ``[*B, T, S]`` is True where a query may see a key; dimensions that share it may have size 1. A query that sees
no key has weights 0, context 0, and gives nothing a gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import initializers
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from seqjax.ops.policy import sample_categorical
from seqjax.ops.softmax import masked_softmax, wide


class Score(NamedTuple):
    """A scoring function as data."""

    init: Callable[..., Any]
    """``init(key, query_features, key_features, **options) -> params``."""
    project: Callable[[Any, Array], Array]
    """``project(params, keys) -> memory [*B, S, A]``."""
    logits: Callable[[Any, Array, Array], Array]
    """``logits(params, queries, memory) -> [*B, T, S]``, float32 at least."""


class Attended(NamedTuple):
    """What soft attention finds."""

    context: Float[Array, "*B T E"]
    """``Σ_s α_s v_s``, in the dtype of the values."""
    weights: Float[Array, "*B T S"]
    """``α``: at least 0; of sum 1, or 0 where nothing is seen."""


class Sampled(NamedTuple):
    """What hard attention finds."""

    context: Float[Array, "*B T E"]
    """``v`` of the chosen key, in the dtype of the values."""
    weights: Float[Array, "*B T S"]
    """1 for the chosen key; no gradient."""
    log_prob: Float[Array, "*B T"]
    """``log α`` of the choice, for `policy.score_function`."""
    entropy: Float[Array, "*B T"]
    """``-Σ α log α`` in nats, for a bonus."""


class GeneralParams(NamedTuple):
    """Parameters of ``general``."""

    kernel: Float[Array, "D C"]
    """``W``."""


class AdditiveParams(NamedTuple):
    """Parameters of ``additive``."""

    query: Float[Array, "D A"]
    """``W_q``."""
    key: Float[Array, "C A"]
    """``W_k``."""
    bias: Float[Array, " A"]
    """``b``."""
    score: Float[Array, " A"]
    """``v``."""


class CosineParams(NamedTuple):
    """Parameters of ``cosine``."""

    log_temperature: Float[Array, ""]
    """``log τ``."""


def attend(
    score: Score,
    params: Any,
    queries: Float[Array, "*B T D"],
    keys: Float[Array, "*B S C"],
    values: Float[Array, "*B S E"] | None = None,
    *,
    mask: Bool[Array, "*#B #T #S"] | None = None,
) -> Attended:
    """Soft attention: for every query the mean of the values, weighted by the softmax of its scores.

    Args:
      score: one of the table.
      params: the score's.
      queries: such as states of a decoder.
      keys: such as states of an encoder.
      values: one for each key; the keys themselves unless given.
      mask: which keys a query sees.

    Source: Bahdanau, Cho and Bengio, *Neural Machine Translation by Jointly Learning to Align and Translate*, 2015,
    Eq. 5 and 6.
    """
    logits = score.logits(params, queries, score.project(params, keys))
    return soft_attention(logits, keys if values is None else values, mask=mask)


def soft_attention(
    logits: Float[Array, "*B T S"], values: Float[Array, "*B S E"], *, mask: Bool[Array, "*#B #T #S"] | None = None
) -> Attended:
    """The part of `attend` after the scores: ``α = softmax(logits)``, ``Σ_s α_s v_s``."""
    weights = masked_softmax(logits, mask)
    return Attended(_mean(weights, values), weights)


def hard_attention(
    logits: Float[Array, "*B T S"],
    values: Float[Array, "*B S E"],
    *,
    mask: Bool[Array, "*#B #T #S"] | None = None,
    soft: Bool[Array, "*B"] | None = None,
    key: PRNGKeyArray | None,
) -> Sampled:
    """Hard attention: one key for each query, drawn with the probabilities ``α = softmax(logits)``, and its value.

    The choice has no derivative: the context carries a gradient to the values alone. That of an expected reward
    reaches the logits through ``log_prob``, by `policy.score_function`.

    Args:
      logits: scores.
      values: one for each key.
      mask: which keys a query sees.
      soft: rows that get the expectation ``Σ α v`` in place of a sample, with gradient, and log_prob 0; half of them,
        drawn for each example, make the estimate of Show, Attend and Tell less noisy.
      key: draws; None takes the likeliest key, as at test time.

    Sources: Xu et al., *Show, Attend and Tell*, 2015, section 4.1.
    """
    choice = sample_categorical(logits, mask=mask, key=key)
    chosen = jax.nn.one_hot(choice.chosen, logits.shape[-1], dtype=choice.entropy.dtype)
    if mask is not None:
        chosen = jnp.where(mask, chosen, jnp.zeros_like(chosen))
    log_prob = choice.log_prob
    if soft is not None:
        rows = soft[..., None]
        chosen = jnp.where(rows[..., None], masked_softmax(logits, mask).astype(chosen.dtype), chosen)
        log_prob = jnp.where(rows, jnp.zeros_like(log_prob), log_prob)
    return Sampled(_mean(chosen, values), chosen, log_prob, choice.entropy)


def attend_over_maps(
    score: Score,
    params: Any,
    query: Float[Array, "*B D"],
    maps: Float[Array, "*B H W C"],
    values: Float[Array, "*B H W E"] | None = None,
    *,
    mask: Bool[Array, "*#B #H #W"] | None = None,
) -> tuple[Float[Array, "*B E"], Float[Array, "*B H W"]]:
    """Spatial attention: one query looks at the positions of a feature map.

    In a decoder's loop project the maps once, ``score.project(params, positions(maps))``, and call `soft_attention`, or
    `hard_attention`, on ``score.logits``.

    Args:
      score: one of the table.
      params: the score's.
      query: such as the state of a captioner.
      maps: features of an image; the keys.
      values: the maps themselves unless given.
      mask: which positions are seen.

    Returns:
      The context and the weights, which sum to 1 over height and width.

    Source: Xu et al., *Show, Attend and Tell*, 2015, section 3.1.2.
    """
    *batch, height, width, _ = maps.shape
    seen = None
    if mask is not None:
        seen = jnp.broadcast_to(mask, maps.shape[:-1]).reshape(*batch, 1, height * width)
    keys, contents = positions(maps), None if values is None else positions(values)
    found = attend(score, params, query[..., None, :], keys, contents, mask=seen)
    return found.context[..., 0, :], found.weights.reshape(*batch, height, width)


def positions(maps: Float[Array, "*B H W C"]) -> Float[Array, "*B H*W C"]:
    """The positions of a map as a sequence of keys, row by row."""
    return maps.reshape(*maps.shape[:-3], -1, maps.shape[-1])


def coverage_penalty(
    weights: Float[Array, "*B T S"], *, target: float | Float[Array, "*B"] = 1.0
) -> Float[Array, "*B"]:
    """Doubly stochastic attention: ``Σ_s (τ - Σ_t α_ts)²``, least where every key got the same attention in all.

    The sum of all weights is T, so τ = 1, the paper's, can be met only where there are as many words as positions; with
    14 x 14 positions and ten words the term asks for attention that is spread evenly. ``τ = T / S`` can be met.

    Args:
      weights: of all steps; those past the end of a caption must be 0.
      target: ``τ``, one number or one for each row.

    Source: Xu et al., *Show, Attend and Tell*, 2015, Eq. 14.
    """
    total = jnp.sum(weights, axis=-2)
    tau = jnp.broadcast_to(jnp.asarray(target, total.dtype)[..., None], total.shape)
    return jnp.sum(jnp.square(tau - total), axis=-1)


def _mean(weights: Array, values: Array) -> Array:
    return jnp.einsum("...ts,...se->...te", weights.astype(wide(values)), values.astype(wide(values))).astype(
        values.dtype
    )


def _inner(params: Any, queries: Float[Array, "*B T A"], memory: Float[Array, "*B S A"]) -> Float[Array, "*B T S"]:
    return jnp.einsum("...ta,...sa->...ts", queries, memory, preferred_element_type=wide(queries))


def _no_parameters(key: PRNGKeyArray, query_features: int, key_features: int) -> tuple[()]:
    return ()


dot = Score(_no_parameters, lambda params, keys: keys, _inner)
"""``q · k``. Its variance grows with the features: for few of them, or for normalised ones.

Source: Luong, Pham and Manning, *Effective Approaches to Attention-based Neural Machine Translation*, 2015, Eq. 8.
"""

scaled_dot = Score(_no_parameters, lambda params, keys: keys / keys.shape[-1] ** 0.5, _inner)
"""``q · k / √D``: unit variance for unit-variance features.

Source: Vaswani et al., *Attention Is All You Need*, 2017, Eq. 1.
"""


def _general_init(key: PRNGKeyArray, query_features: int, key_features: int) -> GeneralParams:
    return GeneralParams(initializers.lecun_normal()(key, (key_features, query_features)).T)


general = Score(_general_init, lambda params, keys: keys @ params.kernel.T, _inner)
"""``qᵀ W k``, bilinear: queries and keys may have different sizes.

Source: Luong, Pham and Manning, 2015, Eq. 8.
"""


def _additive_init(
    key: PRNGKeyArray, query_features: int, key_features: int, *, features: int | None = None
) -> AdditiveParams:
    """LeCun-normal kernels, zero bias; ``features`` is A, the query's unless given."""
    width = query_features if features is None else features
    keys, normal = jax.random.split(key, 3), initializers.lecun_normal()
    return AdditiveParams(
        normal(keys[0], (query_features, width)),
        normal(keys[1], (key_features, width)),
        jnp.zeros(width),
        normal(keys[2], (width, 1))[:, 0],
    )


def _additive_project(params: AdditiveParams, keys: Float[Array, "*B S C"]) -> Float[Array, "*B S A"]:
    product = keys @ params.key
    return product + jnp.broadcast_to(params.bias, product.shape)


def _additive_logits(
    params: AdditiveParams, queries: Float[Array, "*B T D"], memory: Float[Array, "*B S A"]
) -> Float[Array, "*B T S"]:
    hidden = jnp.tanh((queries @ params.query)[..., :, None, :] + memory[..., None, :, :])
    return jnp.einsum("...tsa,a->...ts", hidden, params.score, preferred_element_type=wide(hidden))


additive = Score(_additive_init, _additive_project, _additive_logits)
"""``vᵀ tanh(W_q q + W_k k + b)``, the score of concatenated query and key; ``init`` takes ``features``.

It holds ``[*B, T, S, A]``: in a decoder call it step by step, with T = 1.

Sources: Bahdanau, Cho and Bengio, 2015, appendix A.1.2; Luong, Pham and Manning, 2015, Eq. 8 (concat).
"""


def _cosine_logits(
    params: CosineParams, queries: Float[Array, "*B T D"], memory: Float[Array, "*B S D"]
) -> Float[Array, "*B T S"]:
    cosines = _inner(params, _unit(queries), memory)
    return cosines * jnp.broadcast_to(jnp.exp(params.log_temperature).astype(cosines.dtype), cosines.shape)


def _unit(x: Array) -> Array:
    """Of length 1; zeros stay zeros and have no gradient, where that of a root of nothing would be NaN."""
    x = x.astype(wide(x))
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    some = squares > jnp.finfo(x.dtype).tiny
    return x * jnp.where(some, jax.lax.rsqrt(jnp.where(some, squares, jnp.ones_like(squares))), jnp.zeros_like(squares))


cosine = Score(
    lambda key, query_features, key_features: CosineParams(jnp.zeros(())),
    lambda params, keys: _unit(keys),
    _cosine_logits,
)
"""``τ cos(q, k)``, which only directions decide; ``τ`` starts at 1.

Source: Graves, Wayne and Danihelka, *Neural Turing Machines*, 2014, Eq. 5 and 6.
"""
