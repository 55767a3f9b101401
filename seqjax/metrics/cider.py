"""CIDEr-D: how well texts agree with what several people said of the same image, rare words counting most."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from seqjax.metrics.ngrams import Tokens, check_corpus, ngrams

ORDER = 4
"""Longest runs of tokens that count."""
SIGMA = 6.0
"""Difference of length, in tokens, at which the similarity has fallen by exp(-1/2)."""

NGram = tuple[str, ...]


class DocumentFrequency(NamedTuple):
    """In how many items' references each run of tokens occurs."""

    counts: Mapping[NGram, int]
    items: int
    """Number of items."""


def document_frequency(references: Iterable[Sequence[Tokens]]) -> DocumentFrequency:
    """The frequencies in sets of references, one set per item."""
    items = [{run for text in known for n in range(1, ORDER + 1) for run in ngrams(text, n)} for known in references]
    return DocumentFrequency(Counter(run for runs in items for run in runs), len(items))


def cider_d(
    hypotheses: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    *,
    frequency: DocumentFrequency | None = None,
) -> Float[np.ndarray, " N"]:
    """CIDEr-D of each text, from 0 to 10; a corpus has the mean.

        g_n(t)_ω = count of ω in t · (ln M - ln max(1, df(ω)))      ω over the runs of n tokens
        s_n(h, r) = exp(-(|h| - |r|)² / 2σ²) Σ_ω min(g_n(h)_ω, g_n(r)_ω) g_n(r)_ω / (‖g_n(h)‖ ‖g_n(r)‖)
        CIDEr-D = 10 · mean over r, and over n = 1 .. 4, of s_n(h, r)

    ``df(ω)`` is the number of items, of ``M``, whose references have ω. Taken from the references themselves, as here
    unless told otherwise, it makes scores depend on the evaluation set, and zero on a set of one item; a reward wants a
    fixed table. The length ``|t|`` is that of COCO's code, which counts pairs of tokens: 0 for one token or none. No
    stemming, as there.

    Source: Vedantam, Zitnick, Parikh, *CIDEr: Consensus-based Image Description Evaluation*, CVPR 2015, equations 1
    to 3 and section 5.3, which puts the clipping and the length into CIDEr-D.

    Args:
      hypotheses: the texts to judge.
      references: for each hypothesis, at least one text to judge it by.
      frequency: ``df`` and ``M`` of another set; of these references unless given.

    Raises:
      InputError: as ``check_corpus``.
    """
    check_corpus(hypotheses, references)
    frequency = document_frequency(references) if frequency is None else frequency
    return np.array([_score(h, known, frequency) for h, known in zip(hypotheses, references, strict=True)])


def _score(hypothesis: Tokens, references: Sequence[Tokens], frequency: DocumentFrequency) -> float:
    mine = _weigh(hypothesis, frequency)
    return 10 * sum(_similarity(mine, _weigh(text, frequency)) for text in references) / len(references)


class _Weighed(NamedTuple):
    vectors: list[dict[NGram, float]]
    """By n."""
    norms: list[float]
    length: int


def _weigh(tokens: Tokens, frequency: DocumentFrequency) -> _Weighed:
    every = math.log(max(1, frequency.items))
    vectors = [
        {run: count * (every - math.log(max(1, frequency.counts.get(run, 0)))) for run, count in counted.items()}
        for counted in (ngrams(tokens, n) for n in range(1, ORDER + 1))
    ]
    norms = [math.sqrt(sum(weight**2 for weight in vector.values())) for vector in vectors]
    return _Weighed(vectors, norms, max(0, len(tokens) - 1))


def _similarity(one: _Weighed, other: _Weighed) -> float:
    total = 0.0
    for mine, its, norm, its_norm in zip(one.vectors, other.vectors, one.norms, other.norms, strict=True):
        if norm and its_norm:
            shared = sum(min(weight, its.get(run, 0.0)) * its.get(run, 0.0) for run, weight in mine.items())
            total += shared / (norm * its_norm)
    return total / ORDER * math.exp(-((one.length - other.length) ** 2) / (2 * SIGMA**2))
