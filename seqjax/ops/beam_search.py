"""Beam search: the best sequences of a network that predicts the next token, in one compiled loop for all rows."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seqjax.errors import InputError
from seqjax.ops.decode import Step, Tree


class Beams(NamedTuple):
    """K sequences for each row, best first."""

    tokens: Int[Array, "B K L"]
    lengths: Int[Array, "B K"]
    scores: Float[Array, "B K"]
    """``log p(tokens) / ((5 + length) / 6)^α``; -∞ where there are fewer sequences than K."""
    finished: Bool[Array, "B K"]
    """Whether the sequence reached its end token; those that did not come after all that did."""


def beam_search(
    step: Step,
    carry: Tree,
    start: Int[Array, " B"],
    *,
    beams: int,
    length: int,
    end: int,
    pad: int = 0,
    length_penalty: float = 0.0,
    early_stop: bool = False,
) -> Beams:
    """The best of the sequences that grow from K hypotheses kept at every step.

    Each live hypothesis is continued by every token; of all these, those among the K best that end are scored and set
    aside, and the K best that do not end live on. A row is done when no live hypothesis can overtake its K finished
    ones: log-probabilities only fall, so ``log p / ((5 + length) / 6)^α`` with the greatest length bounds what one can
    reach, and the result is that of a search to the end. A row that finishes fewer than K fills up with its best live
    ones, so that there is always a first.

    The step runs on B·K rows through `jax.vmap`: arrays that it closes over are neither copied nor reordered.

    Args:
      step: as `seqjax.ops.decode` says.
      carry: before the first token, of B rows.
      start: token that begins a sequence.
      beams: K; 1 with ``early_stop`` is `greedy`.
      length: L, most tokens of a sequence, the end token included.
      end: token that ends one.
      pad: token that follows.
      length_penalty: ``α ≥ 0``: 0 compares log-probabilities, in favour of short sequences; 1 about their means.
      early_stop: end a row as soon as it has K finished hypotheses, better ones to come or not.

    Raises:
      InputError: if beams or length is less than 1, or α negative.

    Sources: Sutskever, Vinyals, Le, *Sequence to Sequence Learning with Neural Networks*, 2014, section 3.2; Wu et al.,
    *Google's Neural Machine Translation System*, 2016, Eq. 14 (the penalty).
    """
    if jnp.ndim(start) != 1:
        raise InputError(f"start has shape {jnp.shape(start)}; expected the token that begins each row, [B].")
    if beams < 1 or length < 1 or length_penalty < 0:
        raise InputError(
            f"beam_search: beams is {beams}, length {length} and length_penalty {length_penalty}; expected at least "
            "1, at least 1, and none below 0."
        )
    rule = _Rule(beams, length, end, pad, length_penalty, early_stop)
    batch = len(start)

    axes = jax.tree.map(lambda x: 1 if jnp.ndim(x) else None, carry)
    many = jax.vmap(step, in_axes=(axes, 1), out_axes=(axes, 1))
    nothing = jnp.full((batch, beams, length), pad, start.dtype)
    impossible = jnp.full((batch, beams), -jnp.inf)
    zeros = jnp.zeros((batch, beams), jnp.int32)
    state = _Search(
        t=jnp.zeros((), jnp.int32),
        carry=_repeated(carry, beams),
        last=jnp.broadcast_to(start[:, None], (batch, beams)),
        tokens=nothing,
        log_probs=impossible.at[:, 0].set(0.0),
        finished=Beams(nothing, zeros, impossible, zeros > 0),
        done=jnp.zeros(batch, bool),
    )
    state = jax.lax.while_loop(
        lambda s: (s.t < length) & ~jnp.all(s.done), functools.partial(_advance, rule, many), state
    )
    return _ranked(rule, state)


class _Rule(NamedTuple):
    beams: int
    length: int
    end: int
    pad: int
    length_penalty: float
    early_stop: bool

    def score(self, log_probs: Array, lengths: Array | int) -> Array:
        return log_probs / ((5 + jnp.asarray(lengths, log_probs.dtype)) / 6) ** self.length_penalty


class _Search(NamedTuple):
    t: Array
    carry: Tree
    last: Array
    """Of the live ones, ``[B, K]``, as tokens and log_probs are."""
    tokens: Array
    log_probs: Array
    finished: Beams
    done: Array
    """Rows ``[B]`` in which nothing can change."""


def _advance(rule: _Rule, step: Step, state: _Search) -> _Search:
    """All live hypotheses, longer by one token."""
    carry, logits = step(state.carry, state.last)
    each = jax.nn.log_softmax(logits.astype(state.log_probs.dtype), axis=-1)
    total = jnp.broadcast_to(state.log_probs[..., None], each.shape) + each
    words = logits.shape[-1]
    # A hypothesis ends in one way: of the 2K best at least K do not.
    best, index = jax.lax.top_k(total.reshape(len(total), -1), min(2 * rule.beams, rule.beams * words))
    parent, token = index // words, (index % words).astype(state.last.dtype)
    tokens = _take(state.tokens, parent).at[:, :, state.t].set(token)
    ends = token == rule.end

    counts = ends & (jnp.arange(ends.shape[1]) < rule.beams)[None] & ~state.done[:, None] & (best > -jnp.inf)
    lengths = jnp.full(index.shape, state.t + 1, jnp.int32)
    scores = jnp.where(counts, rule.score(best, state.t + 1), -jnp.inf)
    finished = _best(rule, state.finished, Beams(tokens, lengths, scores, counts))

    log_probs, live = jax.lax.top_k(jnp.where(ends, -jnp.inf, best), rule.beams)
    parent, last, tokens = (_take(x, live) for x in (parent, token, tokens))
    carry = jax.tree.map(lambda x: _take(x, parent) if jnp.ndim(x) else x, carry)
    worst, reachable = jnp.min(finished.scores, axis=-1), rule.score(jnp.max(log_probs, axis=-1), rule.length)
    done = state.done | (worst >= reachable)
    if rule.early_stop:
        done = done | jnp.all(finished.finished, axis=-1)
    return _Search(state.t + 1, carry, last, tokens, log_probs, finished, done)


def _ranked(rule: _Rule, state: _Search) -> Beams:
    """The finished ones, then those that ran out of length."""
    lengths = jnp.full(state.last.shape, state.t, jnp.int32)
    scores = rule.score(state.log_probs, state.t)
    beams = _best(rule, state.finished, Beams(state.tokens, lengths, scores, jnp.zeros(scores.shape, bool)))
    nothing = beams.scores == -jnp.inf
    tokens = jnp.where(nothing[..., None], jnp.full_like(beams.tokens, rule.pad), beams.tokens)
    return beams._replace(tokens=tokens, lengths=jnp.where(nothing, jnp.zeros_like(lengths), beams.lengths))


def _best(rule: _Rule, one: Beams, other: Beams) -> Beams:
    """K of both, those that are finished before those that are not."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), one, other)
    order = jnp.lexsort((-both.scores, ~both.finished), axis=-1)[:, : rule.beams]
    return jax.tree.map(lambda x: _take(x, order), both)


def _take(array: Array, index: Array) -> Array:
    """``array [B, K, ..]`` at ``index [B, k]``."""
    return array[jnp.arange(len(array))[:, None], index]


def _repeated(carry: Tree, beams: int) -> Tree:
    """Every row K times, ``[B, K, ..]``; what all rows share stays."""

    def repeat(x: Array) -> Array:
        return jnp.broadcast_to(x[:, None], (len(x), beams, *x.shape[1:])) if jnp.ndim(x) else x

    return jax.tree.map(repeat, carry)
