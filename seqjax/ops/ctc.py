"""Decoding of connectionist temporal classification: what a network says that may wait, repeat itself and be silent.

A path has one label or blank for each frame. It says what is left of it when repetitions are merged and then blanks
taken out, so ``P(labels)`` is a sum over paths: `optax.ctc_loss` is its ``-log``, for training. Blank is label 0.

Source: Graves, Fernández, Gomez, Schmidhuber, *Connectionist Temporal Classification*, ICML 2006, sections 2 and 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqjax.errors import InputError

BLANK = 0


class Labels(NamedTuple):
    """What is said in each row."""

    labels: Int[Array, "B L"]
    """Then zeros."""
    lengths: Int[Array, " B"]


class Prefixes(NamedTuple):
    """K strings of labels for each row, likeliest first."""

    labels: Int[Array, "B K L"]
    """Then zeros."""
    lengths: Int[Array, "B K"]
    log_probs: Float[Array, "B K"]
    """``log P(labels)``, summed over the paths that the search kept; -∞ where there are fewer strings than K."""


def best_path(logits: Float[Array, "B T K"], lengths: Int[Array, " B"]) -> Labels:
    """What the likeliest path says: quick, and often the likeliest labels too, but not always.

    Args:
      logits: of labels and blank at each frame.
      lengths: frames of each row; the rest is padding.

    Source: Graves et al., 2006, section 3.2.
    """
    path = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    before = jnp.pad(path[:, :-1], ((0, 0), (1, 0)))
    said = (path != BLANK) & (path != before) & (jnp.arange(path.shape[1])[None] < lengths[:, None])
    # What is not said goes past the end, where it is dropped.
    places = jnp.where(said, jnp.cumsum(said, axis=1) - 1, path.shape[1])
    rows = jnp.broadcast_to(jnp.arange(len(path))[:, None], path.shape)
    labels = jnp.zeros_like(path).at[rows, places].set(path, mode="drop")
    return Labels(labels, jnp.sum(said, axis=1, dtype=jnp.int32))


def prefix_beam_search(
    logits: Float[Array, "B T K"], lengths: Int[Array, " B"], *, beams: int, longest: int
) -> Prefixes:
    """The likeliest labels, their paths summed, from the ``beams`` likeliest prefixes kept at every frame.

    A prefix has two probabilities, that of the paths that end in a blank and of those that do not: only after a blank
    does the same label count again. With as many beams as there are prefixes the probabilities are exact.

    Args:
      logits: of labels and blank at each frame.
      lengths: frames of each row; the rest is padding.
      beams: prefixes kept.
      longest: most labels of a string.

    Raises:
      InputError: if beams or longest is less than 1.

    Source: Hannun, Maas, Jurafsky, Ng, *First-Pass Large Vocabulary Continuous Speech Recognition using
    Bi-Directional Recurrent DNNs*, 2014, Algorithm 1, without a language model; after Graves et al., 2006, section 3.2.
    """
    if beams < 1 or longest < 1:
        raise InputError(f"prefix_beam_search: beams is {beams}, longest {longest}; expected 1 or more of each.")
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    empty = _Search(
        labels=jnp.zeros((beams, longest), jnp.int32),
        lengths=jnp.zeros(beams, jnp.int32),
        blank=jnp.full(beams, -jnp.inf).at[0].set(0.0),
        sound=jnp.full(beams, -jnp.inf),
    )

    def row(log_probs: Array, length: Array) -> Prefixes:
        def frame(state: _Search, inputs: tuple[Array, Array]) -> tuple[_Search, None]:
            t, log_prob = inputs
            new = _advance(state, log_prob)
            return jax.tree.map(lambda a, b: jnp.where(t < length, a, b), new, state), None

        state, _ = jax.lax.scan(frame, empty, (jnp.arange(len(log_probs)), log_probs))
        return Prefixes(state.labels, state.lengths, jnp.logaddexp(state.blank, state.sound))

    return jax.vmap(row)(log_probs, lengths)


class _Search(NamedTuple):
    """Of one row: different prefixes, and the log-probabilities of their paths."""

    labels: Array
    lengths: Array
    blank: Array
    """Of those that end in a blank."""
    sound: Array
    """Of those that end in the last label."""


def _advance(state: _Search, log_prob: Array) -> _Search:
    """All prefixes a frame later."""
    beams, classes = len(state.lengths), len(log_prob)
    last, total = _last(state), jnp.logaddexp(state.blank, state.sound)
    # A label more: only the paths that end in a blank where it is the last one again.
    again = jnp.arange(classes)[None] == last[:, None]
    longer = jnp.where(again, state.blank[:, None], total[:, None]) + jnp.broadcast_to(log_prob, (beams, classes))
    possible = (state.lengths < state.labels.shape[1])[:, None] & (jnp.arange(classes) != BLANK)[None]
    longer = jnp.where(possible, longer, -jnp.inf)
    # A prefix that is another one and a label is kept once.
    parent = _is_parent(state)
    gained = jnp.where(parent, longer[:, last], -jnp.inf)
    taken = jnp.any(parent[:, :, None] & (jnp.arange(classes)[None] == last[:, None])[None], axis=1)
    longer = jnp.where(taken, -jnp.inf, longer)
    stay = state.sound + jnp.where(state.lengths > 0, log_prob[last], -jnp.inf)
    sound = jnp.logaddexp(stay, jax.nn.logsumexp(gained, axis=0))
    blank = total + log_prob[BLANK]

    scores = jnp.concatenate([jnp.logaddexp(blank, sound), longer.reshape(-1)])
    _, best = jax.lax.top_k(scores, beams)
    new = best >= beams
    origin = jnp.where(new, (best - beams) // classes, best)
    label = ((best - beams) % classes).astype(jnp.int32)
    labels, lengths = state.labels[origin], state.lengths[origin]
    written = labels.at[jnp.arange(beams), lengths].set(label, mode="drop")
    return _Search(
        jnp.where(new[:, None], written, labels),
        lengths + new.astype(jnp.int32),
        jnp.where(new, -jnp.inf, blank[origin]),
        jnp.where(new, scores[best], sound[origin]),
    )


def _last(state: _Search) -> Array:
    return state.labels[jnp.arange(len(state.lengths)), jnp.maximum(state.lengths - 1, 0)]


def _is_parent(state: _Search) -> Array:
    """Whether prefix i is prefix j without its last label, ``[i, j]``."""
    inside = jnp.arange(state.labels.shape[1])[None, None] < state.lengths[:, None, None]
    same = jnp.all((state.labels[:, None] == state.labels[None]) | ~inside, axis=-1)
    alive = jnp.logaddexp(state.blank, state.sound) > -jnp.inf
    return same & (state.lengths[:, None] + 1 == state.lengths[None]) & (alive[:, None] & alive[None])
