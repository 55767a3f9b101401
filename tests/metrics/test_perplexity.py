"""Oracle: sums over all tokens in NumPy, float64; and models whose perplexity is known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.metrics.perplexity import perplexity, target_perplexity

METRIC = perplexity(lambda outputs, batch: {"nll": outputs, **batch}, tokenization="words, 7", characters=True)


def run(nll, tokens, characters, size):
    acc, add = METRIC.init(), jax.jit(METRIC.accumulate)
    for start in range(0, len(nll), size):
        rows = [np.float32(x[start : start + size]) for x in (nll, tokens, characters)]
        missing = size - len(rows[0])
        rows = [jnp.asarray(np.pad(x, (0, missing), constant_values=np.nan)) for x in rows]
        weight = jnp.asarray(np.pad(np.ones(size - missing, np.float32), (0, missing)))
        acc = add(acc, rows[0], {"tokens": rows[1], "characters": rows[2], "weight": weight})
    return METRIC.finish(acc)


def test_figures_over_all_tokens_whatever_the_batches():
    rng = np.random.default_rng(0)
    tokens, nll = rng.integers(1, 30, 10), rng.uniform(0, 60, 10)
    characters = 5 * tokens
    mean = np.float32(nll).sum(dtype=np.float64) / tokens.sum()
    expected = {"nll": mean, "perplexity": math.exp(mean), "bits_per_token": mean / math.log(2)}
    expected["bits_per_character"] = expected["bits_per_token"] / 5
    for size in (10, 4):
        assert run(nll, tokens, characters, size) == pytest.approx(expected, rel=1e-6)
    assert abs(expected["nll"] - np.mean(nll / tokens)) > 0.1  # the mean of the texts' figures is another number


def test_a_model_that_knows_nothing_has_as_many_choices_as_there_are_tokens():
    tokens = np.array([3, 5])
    assert run(tokens * math.log(27), tokens, tokens, 2)["perplexity"] == pytest.approx(27, rel=1e-5)


def test_a_model_that_is_certain_and_wrong_is_infinitely_bad():
    figures = run(np.array([2000.0]), np.array([1]), np.array([1]), 1)
    assert (figures["nll"], figures["perplexity"]) == (2000, math.inf)
    assert math.isnan(run(np.array([np.nan]), np.array([1]), np.array([1]), 1)["perplexity"])


def test_characters_are_counted_on_request_and_the_record_says_what_tokens_are():
    plain = perplexity(lambda outputs, batch: {"nll": outputs, "tokens": outputs}, tokenization="characters")
    figures = plain.finish(plain.accumulate(plain.init(), jnp.ones(2), {}))
    assert figures.keys() == {"nll", "perplexity", "bits_per_token"}
    assert plain.record == {"tokenization": "characters"}
    assert METRIC.record == {"tokenization": "words, 7"}
    with pytest.raises(InputError, match="perplexity: no example"):
        plain.finish(plain.init())


def test_of_targets_all_but_the_first_and_padding_are_foretold():
    metric = target_perplexity(tokenization="words")
    target = jnp.asarray([[1, 7, 8, 2, 0], [1, 2, 0, 0, 0]])
    acc = metric.accumulate(metric.init(), jnp.asarray([3.0, 0.5]), {"target": target})
    assert metric.finish(acc) == pytest.approx({"perplexity": math.exp(3.5 / 4)})
