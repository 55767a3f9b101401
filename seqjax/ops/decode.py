"""Words from a network that predicts the next one: the likeliest, or drawn; compiled and in batches.

Decoding, here and in `beam_search`, takes a ``step(carry, token) -> (carry, logits)``. The carry is any tree whose
arrays have the rows ``[B, ...]``, such as a recurrent state or a cache, or are scalars that all share; ``token`` is
``[B]`` and ``logits [B, V]``. What a step only reads, such as an encoded image, it closes over. A row ends with its
``end`` token, which belongs to the sequence, or at ``length`` tokens; then comes ``pad``. To forbid a token, let the
step set its logit to -∞. Nothing here has a gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from seqjax.errors import InputError
from seqjax.ops.softmax import wide

Tree = Any
Step = Callable[[Tree, Array], tuple[Tree, Array]]
"""``step(carry, token [B]) -> (carry, logits [B, V])``."""


class Decoded(NamedTuple):
    """One sequence for each row."""

    tokens: Int[Array, "B L"]
    """With its end token, then padding."""
    lengths: Int[Array, " B"]
    """Tokens before the padding."""
    log_probs: Float[Array, "B L"]
    """``log p`` of each token under the step's logits, temperature and truncation aside; 0 for padding."""


def greedy(step: Step, carry: Tree, start: Int[Array, " B"], *, length: int, end: int, pad: int = 0) -> Decoded:
    """The likeliest token at every step, given those before.

    Args:
      step: see above.
      carry: before the first token.
      start: token that begins a sequence; it is not part of the result.
      length: most tokens of a sequence.
      end: token that ends one.
      pad: token that follows.
    """
    return _decode(step, carry, start, lambda logits, t: jnp.argmax(logits, axis=-1), length, end, pad)


def sample(
    step: Step,
    carry: Tree,
    start: Int[Array, " B"],
    *,
    length: int,
    end: int,
    pad: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    key: PRNGKeyArray,
) -> Decoded:
    """A token drawn at every step from what `truncated` leaves of the logits.

    Args:
      step: see above.
      carry: before the first token.
      start: token that begins a sequence.
      length: most tokens of a sequence.
      end: token that ends one.
      pad: token that follows.
      temperature: of `truncated`, as the next two.
      top_k: how many of the likeliest tokens are left.
      top_p: probability of those that are left.
      key: draws; a token's draw depends on its place alone.
    """

    def choose(logits: Array, t: Array) -> Array:
        left = truncated(logits, temperature=temperature, top_k=top_k, top_p=top_p)
        return jax.random.categorical(jax.random.fold_in(key, t), left)

    return _decode(step, carry, start, choose, length, end, pad)


def truncated(
    logits: Float[Array, "*B V"], *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Float[Array, "*B V"]:
    """Logits divided by the temperature, and -∞ for the tokens that shall not be drawn.

    Args:
      logits: of the next token.
      temperature: above 1 flatter, below 1 sharper; near 0 only the likeliest is left.
      top_k: leave the k likeliest; ties with the last one stay.
      top_p: leave the likeliest tokens whose probabilities, at that temperature and among the top k, just reach p:
        the last of them crosses it, so that there is always one; ties with it stay.

    Raises:
      InputError: for a temperature or top_k that is not positive, or top_p outside (0, 1].

    Source: Holtzman et al., *The Curious Case of Neural Text Degeneration*, 2020, section 3.1 (top_p).
    """
    if temperature <= 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        raise InputError(
            f"truncated: temperature is {temperature}, top_k {top_k} and top_p {top_p}; expected a temperature above 0 "
            "(for the likeliest token alone use greedy), top_k of 1 or more, top_p above 0 and at most 1."
        )
    logits = logits.astype(wide(logits)) / temperature
    ordered = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    if top_k is not None and top_k < logits.shape[-1]:
        ordered = jnp.where(jnp.broadcast_to(jnp.arange(ordered.shape[-1]) < top_k, ordered.shape), ordered, -jnp.inf)
    kept = ordered > -jnp.inf
    if top_p is not None:
        probabilities = jax.nn.softmax(ordered, axis=-1)
        kept = kept & (jnp.cumsum(probabilities, axis=-1) - probabilities < top_p)
    least = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)


class _Writing(NamedTuple):
    t: Array
    carry: Tree
    last: Array
    tokens: Array
    log_probs: Array
    lengths: Array
    done: Array


def _decode(
    step: Step,
    carry: Tree,
    start: Array,
    choose: Callable[[Array, Array], Array],
    length: int,
    end: int,
    pad: int,
) -> Decoded:
    """Until all rows have ended, or to the length."""

    def write(state: _Writing) -> _Writing:
        carry, logits = step(state.carry, state.last)
        each = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
        token = choose(logits, state.t).astype(state.last.dtype)
        log_prob = jnp.take_along_axis(each, token[:, None], axis=-1)[:, 0]
        done = state.done
        return _Writing(
            state.t + 1,
            carry,
            token,
            state.tokens.at[:, state.t].set(jnp.where(done, jnp.full_like(token, pad), token)),
            state.log_probs.at[:, state.t].set(jnp.where(done, jnp.zeros_like(log_prob), log_prob)),
            jnp.where(done, state.lengths, state.t + 1),
            done | (token == end),
        )

    if jnp.ndim(start) != 1 or length < 1:
        raise InputError(
            f"start has shape {jnp.shape(start)} and length is {length}; expected the token that begins each row, [B], "
            "and 1 or more: give jnp.full(B, token)."
        )
    batch = len(start)
    tokens, lengths = jnp.full((batch, length), pad, start.dtype), jnp.zeros(batch, jnp.int32)
    state = _Writing(jnp.zeros((), jnp.int32), carry, start, tokens, jnp.zeros((batch, length)), lengths, lengths > 0)
    state = jax.lax.while_loop(lambda s: (s.t < length) & ~jnp.all(s.done), write, state)
    return Decoded(state.tokens, state.lengths, state.log_probs)
