"""BLEU: how many runs of words a corpus of texts shares with its references."""

import math
from collections import Counter
from collections.abc import Sequence

from seqjax.metrics.ngrams import Tokens, check_corpus, ngrams


def bleu(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], *, order: int = 4) -> list[float]:
    """BLEU-1 to BLEU-``order`` of a corpus, each from 0 to 1.

        p_k = Σ_i Σ_g min(h_i(g), max_r r_i(g)) / Σ_i Σ_g h_i(g)      g over the runs of k tokens
        BLEU-n = BP · (p_1 ·· p_n)^(1/n),  BP = min(1, exp(1 - L_r / L_h))

    ``h_i(g)`` counts g in hypothesis i, ``r_i(g)`` in one of its references. ``L_h`` is the length of all hypotheses
    together, ``L_r`` that of the references nearest in length, the shorter of two equally near. The BLEU of a corpus
    is not the mean of its texts' BLEU. Nothing is smoothed: without one common run of n tokens, BLEU-n is 0
    (COCO's code then gives a little more than 0, sacreBLEU by default much more).

    Source: Papineni, Roukos, Ward, Zhu, *BLEU: a Method for Automatic Evaluation of Machine Translation*, ACL 2002,
    sections 2.1 and 2.3; several references as in its reference implementation.

    Args:
      hypotheses: the texts to judge.
      references: for each hypothesis, at least one text to judge it by.
      order: longest runs that count.

    Raises:
      InputError: as ``check_corpus``.
    """
    check_corpus(hypotheses, references)
    hits, tries = [0] * order, [0] * order
    long, short = 0, 0
    for hypothesis, known in zip(hypotheses, references, strict=True):
        long += len(hypothesis)
        short += min((abs(len(text) - len(hypothesis)), len(text)) for text in known)[1]
        for k in range(order):
            found, most = ngrams(hypothesis, k + 1), Counter[tuple[str, ...]]()
            for text in known:
                most |= ngrams(text, k + 1)
            hits[k] += (found & most).total()
            tries[k] += found.total()
    brevity = min(0.0, 1 - short / long) if long else -math.inf
    logs = [math.log(hit / tried) if hit else -math.inf for hit, tried in zip(hits, tries, strict=True)]
    return [math.exp(brevity + sum(logs[:n]) / n) for n in range(1, order + 1)]
