"""Scores of generated texts against their references: BLEU, ROUGE-L and CIDEr-D of a whole set.

METEOR and SPICE are not here. What the field reports as METEOR is version 1.5, which only its authors' Java program
gives; of the packages, nltk computes the older measure of 2005 and fetches WordNet, pycocoevalcap, which starts that
program, is no longer kept up, and aac-metrics brings PyTorch and Java. None runs where Colab and TPU machines do.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from seqjax.errors import InputError
from seqjax.metrics.bleu import bleu
from seqjax.metrics.cider import cider_d
from seqjax.metrics.metric import Figures, Metric
from seqjax.metrics.ngrams import Tokens
from seqjax.metrics.rouge import rouge_l
from seqjax.metrics.rows import Rows, add_rows, no_rows, rows_of


def corpus_scores(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Figures:
    """Every score of a corpus:

        bleu_1 .. bleu_4  of the corpus, from 0 to 1                          `seqjax.metrics.bleu`
        rouge_l           mean over texts, from 0 to 1                        `seqjax.metrics.rouge`
        cider_d           mean over texts, from 0 to 10                       `seqjax.metrics.cider`
        exact             share of texts that equal one of their references
        samples           how many texts

    Args:
      hypotheses: the texts to judge, one per item.
      references: for each, at least one text to judge it by, cut up by the same tokenizer.

    Raises:
      InputError: not one set of references for each hypothesis, or text that is not cut up.
    """
    figures: Figures = {f"bleu_{n}": value for n, value in enumerate(bleu(hypotheses, references), 1)}
    figures["rouge_l"] = float(rouge_l(hypotheses, references).mean())
    figures["cider_d"] = float(cider_d(hypotheses, references).mean())
    equal = [list(h) in [list(text) for text in known] for h, known in zip(hypotheses, references, strict=True)]
    return figures | {"exact": float(np.mean(equal)), "samples": len(hypotheses)}


def caption_metrics(
    references: Mapping[int, Sequence[Tokens]],
    decode: Callable[[Int[np.ndarray, " L"]], list[str]],
    *,
    length: int,
    tokenization: str,
    key: str = "index",
) -> Metric:
    """`corpus_scores` of texts that a model writes, freely and not from the truth, for every example of a set.

    The outputs are ids, int ``[B, L]``; ``batch[key]``, int ``[B]``, says which example each row is of. The
    references are text, not ids, so that words which the model does not know still count against it.

    Args:
      references: of each example by its number, as the tokenizer named below cuts them up.
      decode: ids to tokens without the signs for beginning and end, such as ``Vocabulary.decode``; an unknown word
        has to become a token that no reference has.
      length: ``L``.
      tokenization: the tokenizer's name, and what else was done to the text; goes into the record.
      key: of the example's number in a batch.

    Raises:
      InputError: of `accumulate`, if the outputs have another length; of `finish`, if nothing was seen, more than there
        are references, or an example without any.
    """
    row = {"ids": jax.ShapeDtypeStruct((length,), jnp.int32), "number": jax.ShapeDtypeStruct((), jnp.int32)}

    def accumulate(acc: Rows, outputs: Int[Array, "B L"], batch: Mapping[str, Array]) -> Rows:
        if outputs.shape[1] != length:
            raise InputError(
                f"caption_metrics(length={length}): outputs have the shape {outputs.shape}, not [B, {length}]: "
                "build the metric for the length that the model writes."
            )
        weight = batch.get("weight", jnp.ones(len(outputs)))
        return add_rows(acc, {"ids": outputs, "number": batch[key]}, weight)

    def finish(acc: Rows) -> Figures:
        seen = rows_of(acc)
        unknown = sorted(set(seen["number"].tolist()) - references.keys())
        if unknown:
            raise InputError(
                f"caption_metrics has no references for batch[{key!r}] {unknown[:10]}: give the set's own."
            )
        known = [references[number] for number in seen["number"].tolist()]
        return corpus_scores([decode(ids) for ids in seen["ids"]], known)

    record: dict[str, Any] = {
        "tokenization": tokenization,
        "references": sum(map(len, references.values())) / max(1, len(references)),
        "bleu": "of the corpus, nearest reference length, not smoothed",
        "rouge_l": "beta 1.2",
        "cider_d": "document frequencies of these references",
    }
    return Metric(lambda: no_rows(row, len(references)), accumulate, finish, record)


def for_tables(metric: Metric) -> Metric:
    """`caption_metrics` in few columns: BLEU of all orders as one list, "bleu", which stands in a report's file, and
    beside it bleu_4, rouge_l, cider_d and exact."""

    def finish(acc: Rows) -> Figures:
        found = metric.finish(acc)
        orders = {"bleu": [float(found[f"bleu_{n}"]) for n in range(1, 5)]}  # type: ignore[arg-type]
        return orders | {name: found[name] for name in ("bleu_4", "rouge_l", "cider_d", "exact")}

    return metric._replace(finish=finish)
