"""How well a model foretells text: nats, bits and perplexity per token, over a whole set."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from seqjax.metrics.average import Totals, add, means, zeros
from seqjax.metrics.metric import Figures, Metric
from seqjax.ops.tokens import lengths


def perplexity(
    values: Callable[[Any, Mapping[str, Array]], Mapping[str, Float[Array, " B"]]],
    *,
    tokenization: str,
    characters: bool = False,
) -> Metric:
    """Figures over all tokens of a set, which are not means of batches' or texts' figures:

        nll                 -Σ ln p(token) / tokens, in nats
        perplexity          exp(nll): a model that takes all V tokens for equally likely has V
        bits_per_token      nll / ln 2
        bits_per_character  -Σ log2 p(token) / characters: alone of these fit to compare two tokenizations

    Perplexities compare only where tokens do, and the end of a text has to be foretold as well as its words.

    Args:
      values: ``values(outputs, batch)``, of each example: ``nll``, its summed -ln p in nats; ``tokens``, how many were
        foretold, the end among them and padding not; ``characters``, if those are counted.
      tokenization: the tokenizer's name and the vocabulary's size; goes into the record.
      characters: whether ``bits_per_character`` is given.

    Raises:
      InputError: of `finish`, if nothing was seen.
    """
    names = ("nll", "tokens", *(("characters",) if characters else ()))

    def accumulate(acc: Totals, outputs: Any, batch: Mapping[str, Array]) -> Totals:
        found = values(outputs, batch)
        return add(acc, {name: found[name] for name in names}, batch.get("weight", jnp.ones(len(found["nll"]))))

    def finish(acc: Totals) -> Figures:
        per_text = {name: float(value) for name, value in means(acc, "perplexity").items()}
        nll = per_text["nll"] / per_text["tokens"]
        # Past the largest float a model is infinitely bad, and no error.
        figures: Figures = {"nll": nll, "perplexity": math.inf if nll > 709 else math.exp(nll)}
        figures["bits_per_token"] = nll / math.log(2)
        if characters:
            figures["bits_per_character"] = per_text["nll"] / per_text["characters"] / math.log(2)
        return figures

    return Metric(lambda: zeros(dict.fromkeys(names, ())), accumulate, finish, {"tokenization": tokenization})


def target_perplexity(*, tokenization: str) -> Metric:
    """`perplexity` alone, of the rows ``batch["target"]``, BOS, words, EOS and padding: all but BOS are foretold.

    The outputs are the summed -ln p of each row in nats, ``[B]``, without label smoothing.
    """

    def values(nll: Float[Array, " B"], batch: Mapping[str, Array]) -> dict[str, Float[Array, " B"]]:
        return {"nll": nll, "tokens": (lengths(batch["target"]) - 1).astype(jnp.float32)}

    return perplexity(values, tokenization=tokenization).only("perplexity")
