"""Oracles: all sequences of a small vocabulary, enumerated; a beam search with Python lists; greedy decoding."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from seqjax.errors import InputError
from seqjax.ops import decode, multi_head
from seqjax.ops.beam_search import beam_search

V, END, PAD, LENGTH = 3, 1, 0, 4
TABLE = np.float32(np.random.default_rng(0).normal(size=(3, V, V, V)))
START = jnp.asarray([2, 2, 0])


def step(carry, token):
    """The next token depends on the last two and on the time, or sequences of the same pairs would be even. Part of the
    carry is each row's, and must follow its hypothesis; the time is a scalar that all share."""
    rows, before, time = carry
    logits = rows[jnp.arange(len(token)), before, token] * (1 + 0.1 * time.astype(jnp.float32))
    return (rows, token, time + 1), logits


def begin(table=TABLE):
    return jnp.asarray(table), jnp.zeros(len(table), jnp.int32), jnp.zeros((), jnp.int32)


def log_prob(table, start, tokens):
    before, last, total = 0, start, 0.0
    for time, token in enumerate(tokens):
        total += log_softmax(np.float64(table[before, last]) * (1 + 0.1 * time))[token]
        before, last = last, token
    return total


def score(total, length, alpha):
    return total / ((5 + length) / 6) ** alpha


def everything(table, start, alpha):
    """All that can be written: ended sequences, best first, then unended ones of full length."""
    ended, unended = [], []
    for length in range(1, LENGTH + 1):
        for tokens in itertools.product(range(V), repeat=length):
            if END in tokens[:-1]:
                continue
            rated = score(log_prob(table, start, tokens), length, alpha), tokens
            if tokens[-1] == END:
                ended.append(rated)
            elif length == LENGTH:
                unended.append(rated)
    return sorted(ended, reverse=True) + sorted(unended, reverse=True)


@functools.cache
def searched(beams, alpha, early_stop=False):
    options = {"beams": beams, "length": LENGTH, "end": END, "pad": PAD, "early_stop": early_stop}
    return jax.jit(lambda: beam_search(step, begin(), START, length_penalty=alpha, **options))()


@pytest.mark.parametrize("alpha", [0.0, 0.8])
def test_a_beam_that_holds_everything_equals_enumeration(alpha):
    """A row has 1 + 2 + 4 + 8 ended sequences and 16 unended ones: 31 in all, of 40 places."""
    found = searched(40, alpha)
    for row, start in enumerate(START):
        expected = everything(TABLE[row], int(start), alpha)
        assert len(expected) == 31
        np.testing.assert_allclose(found.scores[row, :31], [s for s, _ in expected], rtol=1e-5)
        for place, (_, tokens) in enumerate(expected):
            assert tuple(found.tokens[row, place, : len(tokens)].tolist()) == tokens
            assert found.lengths[row, place] == len(tokens)
            assert bool(found.finished[row, place]) == (tokens[-1] == END)
            np.testing.assert_array_equal(found.tokens[row, place, len(tokens) :], PAD)
        np.testing.assert_array_equal(found.scores[row, 31:], -np.inf)
        np.testing.assert_array_equal(found.lengths[row, 31:], 0)
        assert not found.finished[row, 31:].any()


def by_lists(table, start, beams, alpha):
    """The same search to its end, hypothesis by hypothesis."""
    live, finished = [(0.0, ())], []
    for _ in range(LENGTH):
        grown = [(log_prob(table, start, (*tokens, v)), (*tokens, v)) for _, tokens in live for v in range(V)]
        grown.sort(reverse=True)
        finished += [(score(total, len(tokens), alpha), tokens) for total, tokens in grown[:beams] if tokens[-1] == END]
        live = [hypothesis for hypothesis in grown if hypothesis[1][-1] != END][:beams]
    rest = [(score(total, len(tokens), alpha), tokens) for total, tokens in live]
    return (sorted(finished, reverse=True) + sorted(rest, reverse=True))[:beams]


@pytest.mark.parametrize(("beams", "alpha"), [(2, 0.0), (2, 3.0)])
def test_narrow_beams_equal_lists(beams, alpha):
    """The lists go to the end: stopping where nothing can be overtaken loses nothing."""
    found = searched(beams, alpha)
    for row, start in enumerate(START):
        expected = by_lists(TABLE[row], int(start), beams, alpha)
        np.testing.assert_allclose(found.scores[row], [s for s, _ in expected], rtol=1e-5)
        for place, (_, tokens) in enumerate(expected):
            assert tuple(found.tokens[row, place, : len(tokens)].tolist()) == tokens


def test_a_beam_of_one_that_stops_at_its_end_is_greedy():
    greedy = jax.jit(lambda: decode.greedy(step, begin(), START, length=LENGTH, end=END, pad=PAD))()
    found = searched(1, 1.0, early_stop=True)
    np.testing.assert_array_equal(found.tokens[:, 0], greedy.tokens)
    np.testing.assert_array_equal(found.lengths[:, 0], greedy.lengths)
    total = np.asarray(greedy.log_probs).sum(axis=-1)
    np.testing.assert_allclose(found.scores[:, 0], score(total, np.asarray(greedy.lengths), 1.0), rtol=1e-5)


def counting(table, **options):
    """How many steps a search takes."""
    calls = []

    def counted(carry, token):
        jax.debug.callback(lambda t: calls.append(t), carry[2], ordered=False)
        return step(carry, token)

    found = beam_search(counted, begin(table), START[: len(table)], end=END, pad=PAD, **options)
    jax.effects_barrier()
    return len(set(map(int, calls))), found


def test_search_stops_where_nothing_can_be_overtaken_and_earlier_if_asked():
    """A likely end: after two steps both places are taken by sequences that no live one can reach."""
    table = np.zeros((2, V, V, V), np.float32)
    table[..., END] = 4.0
    steps, found = counting(table, beams=2, length=50)
    assert steps < 6
    assert found.finished.all()
    # With a penalty that forgives length a live one might catch up, which "early" does not wait for.
    patient, _ = counting(table, beams=2, length=50, length_penalty=1.0)
    hasty, _ = counting(table, beams=2, length=50, length_penalty=1.0, early_stop=True)
    assert hasty == 2 < patient


def test_a_live_hypothesis_that_may_still_overtake_is_waited_for():
    """Two short sequences are finished, and so far the live one scores less than both; its length will make up."""
    table = np.full((1, V, V, V), 1e-3, np.float32)
    table[0, 0, 2], table[0, 2, 2], table[0, 2, 0] = [1e-3, 0.6, 0.4], [0.4, 0.6, 1e-3], [1e-3, 0.998, 1e-3]
    table = np.log(table)
    options = {"beams": 2, "length": LENGTH, "end": END, "length_penalty": 6.0}
    found = jax.jit(lambda: beam_search(step, begin(table), START[:1], **options))()
    expected = by_lists(table[0], 2, 2, 6.0)
    assert [tokens for _, tokens in expected] == [(2, 0, END), (END,)]
    assert score(log_prob(table[0], 2, (2, 0)), 2, 6.0) < score(log_prob(table[0], 2, (2, END)), 2, 6.0)
    np.testing.assert_allclose(found.scores[0], [s for s, _ in expected], rtol=1e-5)


def test_rows_do_not_act_on_one_another():
    whole = searched(2, 3.0)
    options = {"beams": 2, "length": LENGTH, "end": END, "pad": PAD, "length_penalty": 3.0}
    search = jax.jit(lambda table, start: beam_search(step, begin(table), start, **options))
    for row in range(3):
        alone = search(jnp.asarray(TABLE[row : row + 1]), START[row : row + 1])
        for a, b in zip(alone, whole, strict=True):
            np.testing.assert_allclose(a[0], b[row], rtol=1e-6)


def test_caches_follow_their_hypotheses():
    """A cached attention decoder gives each found sequence the score that one uncached call gives it."""
    width, words = 8, 6
    params = multi_head.init(jax.random.key(0), width, 2)
    embedding = 2 * jax.random.normal(jax.random.key(1), (words, width))
    memory = jax.random.normal(jax.random.key(2), (2, 1, width))  # closed over: neither copied nor gathered

    def logits(ys, memory):
        return (ys + jnp.broadcast_to(memory, ys.shape)) @ embedding.T

    def cached(cache, token):
        cache, ys = multi_head.cached_attention(params, cache, embedding[token][:, None], rotate=True)
        return cache, logits(ys, memory)[:, 0]

    @jax.jit
    def run(start):
        found = beam_search(cached, multi_head.init_cache(params, (2,), 5), start, beams=3, length=5, end=END)
        first = jnp.broadcast_to(start[:, None, None], (2, 3, 1))
        xs, positions = embedding[jnp.concatenate([first, found.tokens[..., :-1]], axis=-1)], jnp.arange(5)
        projected = multi_head.project(params, xs, positions=positions)
        ys = multi_head.multi_head_attention(params, xs, projected, positions=positions, causal=True)
        return found, jax.nn.log_softmax(logits(ys, memory[:, None]), axis=-1)

    found, log_probs = run(jnp.asarray([2, 3]))
    for row, place in np.ndindex(2, 3):
        length = int(found.lengths[row, place])
        total = sum(float(log_probs[row, place, t, found.tokens[row, place, t]]) for t in range(length))
        np.testing.assert_allclose(found.scores[row, place], total, rtol=1e-4)


@pytest.mark.parametrize("options", [{"beams": 0}, {"length": 0}, {"length_penalty": -1.0}])
def test_what_cannot_be_is_refused_by_name(options):
    with pytest.raises(InputError, match="beam_search: beams is"):
        beam_search(step, begin(), START, **{"beams": 2, "length": 3, "end": END} | options)


@pytest.mark.usefixtures("unchecked")
def test_a_start_is_one_for_each_row():
    with pytest.raises(InputError, match=r"start has shape \(\)"):
        beam_search(step, begin(), 1, beams=2, length=3, end=END)
