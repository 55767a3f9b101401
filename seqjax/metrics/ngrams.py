"""Corpora of texts as lists of tokens, and the runs of tokens in them."""

from collections import Counter
from collections.abc import Sequence

from seqjax.errors import InputError

Tokens = Sequence[str]
"""One text, cut up by a tokenizer, without the signs for its beginning and its end; may be empty."""


def ngrams(tokens: Tokens, n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n tokens occurs; texts shorter than n have none."""
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def check_corpus(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    """Refuses what no score can be taken of.

    Raises:
      InputError: no hypotheses; not one set of references for each; a set without any; text that is not cut up.
    """
    if not len(hypotheses) == len(references) > 0 or not all(references):
        raise InputError(
            f"{len(hypotheses)} hypotheses came with {len(references)} sets of references, "
            f"{sum(not found for found in references)} of them empty; expected at least one hypothesis, and for each a "
            "set of at least one reference."
        )
    for text in (*hypotheses, *(text for found in references for text in found)):
        if isinstance(text, str):
            raise InputError(f"hypotheses and references are lists of tokens, but {text!r} came: tokenize it first.")
