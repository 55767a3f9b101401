"""Sequences of tokens: what is padding, what a sequence costs a network that foretells it, and what it writes itself.

A row is ``BOS w_1 .. w_n EOS PAD .. PAD``, as `seqjax.data.text` makes it: a decoder reads ``ids[:, :-1]`` and is asked
for ``ids[:, 1:]``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seqjax.ops.beam_search import beam_search
from seqjax.ops.decode import Step, Tree, greedy

PAD, BOS, EOS, UNK = range(4)
"""Padding, beginning, end, and an unknown word."""


def real(tokens: Int[Array, "*B T"]) -> Bool[Array, "*B T"]:
    """Which tokens are no padding."""
    return tokens != PAD


def lengths(tokens: Int[Array, "*B T"]) -> Int[Array, "*B"]:
    """How many tokens of each row are no padding."""
    return jnp.sum(real(tokens), axis=-1, dtype=jnp.int32)


def token_cross_entropy(
    logits: Float[Array, "*B T V"], targets: Int[Array, "*B T"], *, smoothing: float = 0.0
) -> Float[Array, "*B T"]:
    """``-Σ_v q_v log p_v`` with ``q = (1 - ε) onehot(target) + ε / V``, in nats for each token; 0 for padding.

    Its least value is the entropy of ``q``, not 0. Tensor2Tensor spreads ``ε`` over the V - 1 others and takes that
    entropy off.

    Args:
      logits: of the next token.
      targets: which came.
      smoothing: ``ε``, at least 0 and below 1; 0 gives ``-log p(target)``.

    Sources: Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, 2016, section 7 (label
    smoothing); Vaswani et al., *Attention Is All You Need*, 2017, section 5.4.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    cost = -jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
    if smoothing:
        cost = (1 - smoothing) * cost - smoothing * jnp.mean(log_probs, axis=-1)
    return jnp.where(real(targets), cost, jnp.zeros_like(cost))


def token_accuracy(logits: Float[Array, "*B T V"], targets: Int[Array, "*B T"]) -> Float[Array, "*B T"]:
    """1 where the likeliest token is the target; 0 elsewhere, and for padding."""
    return ((jnp.argmax(logits, axis=-1) == targets) & real(targets)).astype(jnp.float32)


def token_mean(values: Float[Array, "*B T"], targets: Int[Array, "*B T"]) -> Float[Array, ""]:
    """``Σ values / number of targets that are no padding``: over all tokens of a batch, not of sequences' means."""
    return jnp.sum(values) / jnp.maximum(jnp.sum(lengths(targets)), 1).astype(values.dtype)


def foretold(logits: Float[Array, "*B T V"], targets: Int[Array, "*B T"]) -> dict[str, Float[Array, ""]]:
    """Means over all tokens: ``nll``, the plain cross-entropy, and ``token_accuracy``, given the true tokens before."""
    values = {"nll": token_cross_entropy(logits, targets), "token_accuracy": token_accuracy(logits, targets)}
    return {name: token_mean(value, targets) for name, value in values.items()}


def text_log_probs(
    read: Callable[[Int[Array, "B T"]], Float[Array, "B T V"]], texts: Int[Array, "M L"], number: int
) -> Float[Array, "{number} M"]:
    """``log p(text)`` in nats of each of M texts for each row of what a decoder was given, such as an image.

    Args:
      read: logits of the token after each of these.
      texts: all of them are read for every row, one text at a time.
      number: of rows, B.
    """

    def of(text: Int[Array, " L"]) -> Float[Array, " B"]:
        ids = jnp.broadcast_to(text, (number, len(text)))
        return -jnp.sum(token_cross_entropy(read(ids[:, :-1]), ids[:, 1:]), axis=1)

    return jax.lax.map(of, texts).T


def forbidden(logits: Float[Array, "*B V"], *tokens: int) -> Float[Array, "*B V"]:
    """The logits, those of some tokens -∞, for a decoder that shall not write them."""
    return logits.at[..., jnp.asarray(tokens)].set(-jnp.inf)


def write(
    step: Step, carry: Tree, number: int, *, length: int, beams: int = 1, length_penalty: float = 0.0
) -> Int[Array, "{number} {length}"]:
    """The text that greedy decoding or beam search finds for each row: words, EOS, padding, and never PAD, BOS or UNK.

    Args:
      step: as `ops.decode` says.
      carry: before BOS.
      number: of rows.
      length: most tokens, EOS among them.
      beams: hypotheses of the search; 1 is greedy.
      length_penalty: of `beam_search`.
    """

    def allowed(carry: Tree, token: Array) -> tuple[Tree, Array]:
        carry, logits = step(carry, token)
        return carry, forbidden(logits, PAD, BOS, UNK)

    start = jnp.full(number, BOS, jnp.int32)
    if beams == 1:
        return greedy(allowed, carry, start, length=length, end=EOS, pad=PAD).tokens
    found = beam_search(
        allowed, carry, start, beams=beams, length=length, end=EOS, pad=PAD, length_penalty=length_penalty
    )
    return found.tokens[:, 0]
