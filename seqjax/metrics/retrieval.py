"""How high the right text stands among all texts for an image, and the right image for a text: recall at K."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from seqjax.errors import InputError
from seqjax.metrics.metric import Figures, Metric
from seqjax.metrics.rows import Rows, add_rows, no_rows, rows_of

CUTS = (1, 5, 10)
"""K of the recalls."""
RECALLS = (*(f"{answer}_r{k}" for answer in ("text", "image") for k in CUTS), "rsum")
"""The figures of which more is better."""


def best_rank(scores: Float[np.ndarray, "Q G"], right: Bool[np.ndarray, "Q G"]) -> Float[np.ndarray, " Q"]:
    """For each query, the rank of the best right answer, from 1.

        rank = 1 + #{wrong g: s_g > s} + #{wrong g: s_g = s} / 2,   s the best right answer's score

    Equal scores thus count half, so a model that tells nothing apart gets the middle rank, and not rank 1. A query with
    a score that is NaN has the rank NaN.
    """
    best = np.max(scores, axis=1, keepdims=True, where=right, initial=-np.inf)
    ranks = 1 + np.sum(~right & (scores > best), axis=1) + np.sum(~right & (scores == best), axis=1) / 2
    return np.where(np.isnan(scores).any(axis=1), np.nan, ranks)


def chance(right: Bool[np.ndarray, "Q G"]) -> list[float]:
    """Recalls at `CUTS` to be expected of scores without meaning, the mean over queries with r right answers among G.

    ``1 - C(G - r, K) / C(G, K)``: at least one of the K first is right.
    """
    among = right.shape[1]
    wrong = among - right.sum(axis=1)
    return [
        float(np.mean([1.0 if k > w else 1 - math.comb(w, k) / math.comb(among, k) for w in wrong.tolist()]))
        for k in CUTS
    ]


def retrieval(similarity: Float[np.ndarray, "N M"], right: Bool[np.ndarray, "N M"]) -> dict[str, float]:
    """Recalls both ways:

        text_r1, text_r5, text_r10     share of images whose best right text ranks 1, up to 5, up to 10
        text_median, text_mean         rank of that text: ⌊median of (rank - 1)⌋ + 1, and mean
        image_r1 .. image_mean         the same for texts and their images
        rsum                           sum of the six recalls, each in percent, so up to 600

    Ranks as `best_rank`. Recalls depend on how many texts and images there are to choose from.

    Args:
      similarity: of each image and text, larger for more alike.
      right: which texts are right for which images; any one of them will do.

    Raises:
      InputError: an image without a right text, or the reverse.
    """
    if not (right.any(axis=0).all() and right.any(axis=1).all()):
        raise InputError(
            f"{int((~right.any(axis=1)).sum())} of {len(right)} images have no right text and "
            f"{int((~right.any(axis=0)).sum())} of {right.shape[1]} texts no right image: leave them out."
        )
    figures: dict[str, float] = {}
    for answer, ranks in (("text", best_rank(similarity, right)), ("image", best_rank(similarity.T, right.T))):
        figures |= {f"{answer}_r{k}": float(np.mean(np.where(np.isnan(ranks), np.nan, ranks <= k))) for k in CUTS}
        figures[f"{answer}_median"] = float(np.floor(np.median(ranks - 1)) + 1)
        figures[f"{answer}_mean"] = float(np.mean(ranks))
    return figures | {"rsum": 100 * sum(figures[f"{answer}_r{k}"] for answer in ("text", "image") for k in CUTS)}


def retrieval_metric(*, dimension: int, texts: int, capacity: int, folds: int = 1, key: str = "index") -> Metric:
    """`retrieval` over a set by dot products of embeddings.

    The outputs are ``image``, ``[B, D]``, and ``text``, ``[B, K, D]``, the embeddings of an image and its K texts, of
    length 1 where the similarity is the cosine. ``batch[key]``, int ``[B]``, says what an image shows: those with one
    number share their texts.

    Args:
      dimension: ``D``.
      texts: ``K``.
      capacity: how many images there will be at most.
      folds: into how many equal parts, in order, the set is cut; the figures are means over them. COCO's "1k" is five
        parts of 5,000 images.
      key: of the image's number in a batch.

    Raises:
      InputError: of `finish`, if nothing was seen, more than the capacity, or a number of images that the folds do
        not divide.
    """
    row = {"image": (dimension,), "text": (texts, dimension)}
    kept = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in row.items()}
    kept["number"] = jax.ShapeDtypeStruct((), jnp.int32)

    def accumulate(acc: Rows, outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Rows:
        weight = batch.get("weight", jnp.ones(len(outputs["image"])))
        return add_rows(acc, {"image": outputs["image"], "text": outputs["text"], "number": batch[key]}, weight)

    def finish(acc: Rows) -> Figures:
        seen = rows_of(acc)
        number = len(seen["image"])
        if number % folds:
            raise InputError(f"{number} images cannot be cut into folds={folds} equal parts: give a divisor.")
        parts = [
            _figures({name: x[i : i + number // folds] for name, x in seen.items()})
            for i in range(0, number, number // folds)
        ]
        means: Figures = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
        return means | {"samples": number}

    record: dict[str, Any] = {"similarity": "dot product", "texts_per_image": texts, "folds": folds, "ties": "half"}
    return Metric(lambda: no_rows(kept, capacity), accumulate, finish, record)


def scored_retrieval(right: Mapping[int, Bool[np.ndarray, " M"]], *, key: str = "index") -> Metric:
    """`retrieval` over a set by a model's own score of every image with each of M texts, such as ``log p(text|image)``.

    The outputs are the scores, ``[B, M]``; ``batch[key]``, int ``[B]``, is the image's number. Means of ranks are left
    out; "text_chance" and "image_chance" are lists, what `chance` gives beside the recalls.

    Args:
      right: by the image's number, which of the texts are right for it.
      key: of the image's number in a batch.

    Raises:
      InputError: of `finish`, if nothing was seen, more than there are images, or an image or text without an answer.
    """
    texts = len(next(iter(right.values())))
    kept = {"scores": jax.ShapeDtypeStruct((texts,), jnp.float32), "number": jax.ShapeDtypeStruct((), jnp.int32)}

    def accumulate(acc: Rows, outputs: Float[Array, "B M"], batch: Mapping[str, Array]) -> Rows:
        weight = batch.get("weight", jnp.ones(len(outputs)))
        return add_rows(acc, {"scores": outputs, "number": batch[key]}, weight)

    def finish(acc: Rows) -> Figures:
        seen = rows_of(acc)
        table = np.stack([right[number] for number in seen["number"].tolist()])
        found: Figures = {k: x for k, x in retrieval(seen["scores"], table).items() if not k.endswith("_mean")}
        return found | {"text_chance": chance(table), "image_chance": chance(table.T)}

    return Metric(lambda: no_rows(kept, len(right)), accumulate, finish, {"texts": texts, "ties": "half"})


def _figures(seen: Mapping[str, np.ndarray]) -> dict[str, float]:
    texts = seen["text"].shape[1]
    similarity = seen["image"] @ seen["text"].reshape(-1, seen["text"].shape[-1]).T
    return retrieval(similarity, seen["number"][:, None] == np.repeat(seen["number"], texts)[None])
