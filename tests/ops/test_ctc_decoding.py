"""Decoding of CTC against all paths of a small vocabulary, one by one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from seqjax.errors import InputError
from seqjax.ops.ctc import best_path, prefix_beam_search

CLASSES, STEPS = 3, 5
LOGITS = jnp.asarray(np.random.default_rng(0).normal(0, 2, size=(4, STEPS, CLASSES)), jnp.float32)
LENGTHS = jnp.asarray([5, 5, 3, 0])


def said(path):
    return tuple(label for label, _ in itertools.groupby(path) if label)


def enumerated(logits):
    """log P of every string, from all paths."""
    logs, found = log_softmax(np.float64(logits), axis=-1), {}
    for path in itertools.product(range(CLASSES), repeat=len(logs)):
        value = sum(log[label] for log, label in zip(logs, path, strict=True))
        found[said(path)] = np.logaddexp(found.get(said(path), -np.inf), value)
    return sorted(((value, labels) for labels, value in found.items()), reverse=True)


def test_best_path_merges_repetitions_and_drops_blanks():
    path = np.array([[1, 1, 0, 1, 2, 2, 0], [0, 0, 2, 1, 0, 1, 1]])
    found = best_path(jax.nn.one_hot(path, 3), jnp.asarray([7, 4]))
    assert found.labels.tolist() == [[1, 1, 2, 0, 0, 0, 0], [2, 1, 0, 0, 0, 0, 0]]
    assert found.lengths.tolist() == [3, 2]
    found = best_path(LOGITS, LENGTHS)
    for row in range(4):
        expected = said(np.asarray(LOGITS[row, : LENGTHS[row]]).argmax(axis=-1).tolist())
        assert tuple(found.labels[row, : found.lengths[row]].tolist()) == expected


@pytest.fixture(scope="module")
def wide():
    return jax.jit(lambda x, n: prefix_beam_search(x, n, beams=64, longest=STEPS))(LOGITS, LENGTHS)


def test_a_beam_wide_enough_finds_every_string_with_its_probability(wide):
    for row in range(4):
        expected = enumerated(LOGITS[row, : LENGTHS[row]])
        for k, (value, labels) in enumerate(expected):
            assert tuple(wide.labels[row, k, : wide.lengths[row, k]].tolist()) == labels
            np.testing.assert_allclose(wide.log_probs[row, k], value, rtol=1e-4, atol=1e-5)
            assert not wide.labels[row, k, len(labels) :].any()
        assert jnp.isneginf(wide.log_probs[row, len(expected) :]).all()


def test_strings_of_all_probability(wide):
    np.testing.assert_allclose(jnp.exp(wide.log_probs).sum(axis=1), 1, rtol=1e-4)


def test_a_narrow_beam_keeps_part_of_the_paths(wide):
    found = jax.jit(lambda x, n: prefix_beam_search(x, n, beams=2, longest=STEPS))(LOGITS, LENGTHS)
    assert (found.log_probs[:, 0] <= wide.log_probs[:, 0] + 1e-5).all()
    assert (found.log_probs[:, 0] >= wide.log_probs[:, 0] - 1.0).all()
    short = jax.jit(lambda x, n: prefix_beam_search(x, n, beams=64, longest=1))(LOGITS, LENGTHS)
    assert int(short.lengths.max()) == 1


def test_the_likeliest_string_is_not_that_of_the_likeliest_path():
    """Graves et al., 2006, figure 2: blank is likelier at both frames (0.36 in all), and yet A is (0.64)."""
    logits = jnp.log(jnp.asarray([[[0.6, 0.4], [0.6, 0.4]]]))
    assert best_path(logits, jnp.asarray([2])).lengths.tolist() == [0]
    found = prefix_beam_search(logits, jnp.asarray([2]), beams=3, longest=2)
    assert found.labels[0].tolist()[:2] == [[1, 0], [0, 0]]
    np.testing.assert_allclose(jnp.exp(found.log_probs[0, :2]), [0.64, 0.36], rtol=1e-5)


@pytest.mark.parametrize("options", [{"beams": 0}, {"longest": 0}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(InputError, match="prefix_beam_search: beams is"):
        prefix_beam_search(LOGITS, LENGTHS, **({"beams": 2, "longest": 2} | options))
