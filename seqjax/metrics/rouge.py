"""ROUGE-L: how long the longest common subsequence of a text and its references is."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from seqjax.metrics.ngrams import Tokens, check_corpus


def rouge_l(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], *, beta: float = 1.2
) -> Float[np.ndarray, " N"]:
    """ROUGE-L of each text, from 0 to 1; a corpus has the mean.

        P = max_r LCS(h, r) / |h|,  R = max_r LCS(h, r) / |r|,  ROUGE-L = (1 + β²) P R / (R + β² P)

    ``LCS`` is the length of the longest common subsequence, which may have gaps. The two maxima may be by two
    references, as in COCO's protocol, and so is β; with one reference, β = 1 is what the package rouge-score gives
    without its stemmer.

    Source: Lin, *ROUGE: A Package for Automatic Evaluation of Summaries*, 2004, section 3.1.

    Args:
      hypotheses: the texts to judge.
      references: for each hypothesis, at least one text to judge it by.
      beta: weight of R against P.

    Raises:
      InputError: as ``check_corpus``.
    """
    check_corpus(hypotheses, references)
    return np.array([_score(h, known, beta) for h, known in zip(hypotheses, references, strict=True)])


def _score(hypothesis: Tokens, references: Sequence[Tokens], beta: float) -> float:
    common = [_longest_common_subsequence(hypothesis, text) for text in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(hypothesis)
    recall = max(length / len(text) for length, text in zip(common, references, strict=True) if text)
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def _longest_common_subsequence(one: Tokens, other: Tokens) -> int:
    best = [0] * (len(other) + 1)  # of what was read of `one` and the first j tokens of `other`
    for token in one:
        before = 0
        for j, there in enumerate(other, 1):
            before, best[j] = best[j], before + 1 if token == there else max(best[j], best[j - 1])
    return best[-1]
