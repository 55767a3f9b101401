"""Oracle: ranks by sorting, one query at a time."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.metrics.retrieval import best_rank, chance, retrieval, retrieval_metric, scored_retrieval

RNG = np.random.default_rng(0)
N, K, D = 24, 3, 5
NUMBERS = RNG.permutation(np.repeat(np.arange(20), [2] * 4 + [1] * 16)).astype(np.int32)
IMAGES = RNG.normal(size=(N, D)).astype(np.float32)
TEXTS = (IMAGES[:, None] + 1.5 * RNG.normal(size=(N, K, D))).astype(np.float32)


def sorted_rank(scores, right):
    """Place of the first right answer when the others are sorted by score; no two scores are equal here."""
    return 1 + next(wrong for wrong, place in enumerate(np.argsort(-scores)) if right[place])


def oracle(images, texts, numbers):
    flat, of_text = texts.reshape(-1, D), np.repeat(numbers, K)
    figures = {}
    by_image = [sorted_rank(flat @ images[i], of_text == numbers[i]) for i in range(len(images))]
    by_text = [sorted_rank(images @ flat[j], numbers == of_text[j]) for j in range(len(flat))]
    for name, ranks in (("text", by_image), ("image", by_text)):
        ranks = np.array(ranks)
        figures |= {f"{name}_r{k}": sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 5, 10)}
        figures |= {f"{name}_median": int(np.median(ranks - 1)) + 1, f"{name}_mean": ranks.mean()}
    figures["rsum"] = 100 * sum(value for key, value in figures.items() if "_r" in key)
    return figures


def run(metric, size, images=IMAGES):
    acc, add = metric.init(), jax.jit(metric.accumulate)
    for start in range(0, N, size):
        rows = slice(start, start + size)
        missing = max(0, start + size - N)

        def fill(x, missing=missing):
            return jnp.asarray(np.concatenate([x, np.full((missing, *x.shape[1:]), 9, x.dtype)]))

        weight = jnp.asarray(np.pad(np.ones(size - missing, np.float32), (0, missing)))
        outputs = {"image": fill(images[rows]), "text": fill(TEXTS[rows])}
        acc = add(acc, outputs, {"index": fill(NUMBERS[rows]), "weight": weight})
    return metric.finish(acc)


METRIC = retrieval_metric(dimension=D, texts=K, capacity=30)


@pytest.mark.parametrize("size", [24, 10])
def test_figures_against_sorting(size):
    figures = run(METRIC, size)
    expected = oracle(IMAGES, TEXTS, NUMBERS)
    assert figures == pytest.approx(expected | {"samples": N}, rel=1e-6)
    assert 0.1 < figures["text_r1"] < figures["text_r10"] < 1
    assert json.loads(json.dumps(figures)) == figures


def test_folds_are_measured_apart_and_averaged():
    parts = [oracle(IMAGES[i : i + 8], TEXTS[i : i + 8], NUMBERS[i : i + 8]) for i in (0, 8, 16)]
    expected = {name: np.mean([part[name] for part in parts]) for name in parts[0]} | {"samples": N}
    metric = retrieval_metric(dimension=D, texts=K, capacity=24, folds=3)
    assert run(metric, 24) == pytest.approx(expected, rel=1e-6)
    assert metric.record["folds"] == 3
    with pytest.raises(InputError, match="24 images cannot be cut into folds=5"):
        run(retrieval_metric(dimension=D, texts=K, capacity=24, folds=5), 24)


def test_ties_count_half():
    scores = np.array([[1.0, 1, 1, 0], [3, 2, 2, 1], [5, 5, 5, 5]])
    right = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0]], bool)
    assert best_rank(scores, right).tolist() == [2, 2.5, 2]


def test_what_collapsed_is_not_good():
    figures = retrieval(np.ones((9, 9)), np.eye(9, dtype=bool))
    assert (figures["text_r1"], figures["image_mean"], figures["rsum"]) == (0, 5, 100 * (0 + 1 + 1) * 2)


def test_nan_reaches_the_figures():
    images = IMAGES.copy()
    images[3, 0] = np.nan
    figures = run(METRIC, 24, images)
    assert all(np.isnan(figures[name]) for name in ("text_r1", "text_mean", "image_r10", "rsum"))


def test_perfect_and_permuted():
    own = np.eye(6, dtype=bool)
    perfect = retrieval(np.eye(6), own)
    assert (perfect["rsum"], perfect["text_median"], perfect["image_mean"]) == (600, 1, 1)
    order = RNG.permutation(6)
    assert retrieval(np.eye(6)[order], own[order]) == perfect
    assert retrieval(np.eye(6)[order], own) != perfect


def test_refuses_queries_without_an_answer():
    with pytest.raises(InputError, match="1 of 2 images have no right text and 0 of 1 texts"):
        retrieval(np.ones((2, 1)), np.array([[True], [False]]))
    with pytest.raises(InputError, match="0 examples"):
        METRIC.finish(METRIC.init())


def test_scores_of_a_models_own_by_hand():
    """Log-likelihoods of three texts for four images: two share a text, and a third image's two texts are both right.

    Ranks of the images' best texts: 1; 1; 2, for a wrong one is likelier than both; 2.5, one wrong text being likelier
    and one as likely. Of the texts' best images, down the columns: 2, for the last image is wrong and likelier; 1; 2.
    """
    scores = np.array([[-1.0, -3.5, -3], [-4, -5, -6], [-2, -3, -4], [-0.5, -7, -7]], np.float32)
    right = {5: [1, 0, 0], 3: [1, 0, 0], 8: [0, 1, 1], 2: [0, 0, 1]}
    metric = scored_retrieval({number: np.array(row, bool) for number, row in right.items()})
    acc, add = metric.init(), jax.jit(metric.accumulate)
    for rows in ([0, 1, 2], [3, 0, 0]):  # the last two are padding
        weight = jnp.asarray([1.0, 1.0, 1.0] if rows[0] == 0 else [1.0, 0.0, 0.0])
        batch = {"index": jnp.asarray([list(right)[i] for i in rows]), "weight": weight}
        acc = add(acc, jnp.asarray(scores[rows]), batch)
    figures = metric.finish(acc)
    assert [figures[f"text_{name}"] for name in ("r1", "r5", "r10", "median")] == [0.5, 1, 1, 1]
    assert [figures[f"image_{name}"] for name in ("r1", "r5", "r10", "median")] == pytest.approx([1 / 3, 1, 1, 2])
    assert figures["rsum"] == pytest.approx(100 * (0.5 + 1 / 3 + 4))
    assert figures["text_chance"] == pytest.approx([(3 * 1 / 3 + 2 / 3) / 4, 1, 1])
    assert figures["image_chance"] == pytest.approx([(2 / 4 + 1 / 4 + 2 / 4) / 3, 1, 1])
    assert json.loads(json.dumps(figures)) == figures


def test_chance_is_the_mean_over_random_scores():
    right = RNG.random((12, 40)) < 0.08
    right[np.arange(12), RNG.integers(40, size=12)] = True
    ranks = np.stack([best_rank(RNG.random((12, 40)), right) for _ in range(3000)])
    np.testing.assert_allclose(chance(right), [np.mean(ranks <= k) for k in (1, 5, 10)], atol=0.01)
