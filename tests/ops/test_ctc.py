"""``optax.ctc_loss``, which recipes use as it is, against the sum over all alignments of a small vocabulary."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, logsumexp

CLASSES, STEPS = 3, 4
LOGITS = np.float32(np.random.default_rng(0).normal(size=(6, STEPS, CLASSES)))
LABELS = [[1], [1, 2], [1, 1], [2, 1, 2], [], [2]]
LENGTHS = [4, 4, 4, 4, 4, 2]


def collapse(path, blank=0):
    return [label for label, _ in itertools.groupby(path) if label != blank]


def enumerated(logits, labels):
    """Over all paths: repetitions merged, blanks left out."""
    logs = log_softmax(np.float64(logits), axis=-1)
    paths = itertools.product(range(CLASSES), repeat=len(logs))
    return -logsumexp([sum(logs[range(len(logs)), path]) for path in paths if collapse(path) == labels])


@pytest.fixture(scope="module")
def found():
    """Losses and their gradient, of labels padded with the blank's number."""
    width = max(map(len, LABELS))
    labels = jnp.asarray([row + [0] * (width - len(row)) for row in LABELS])
    label_paddings = jnp.asarray([[float(i >= len(row)) for i in range(width)] for row in LABELS])
    logit_paddings = jnp.asarray([[float(t >= n) for t in range(STEPS)] for n in LENGTHS])

    def loss(logits):
        losses = optax.ctc_loss(logits, logit_paddings, labels, label_paddings)
        return jnp.sum(losses), losses

    return jax.jit(jax.grad(loss, has_aux=True))(jnp.asarray(LOGITS))


def test_loss_is_that_of_all_alignments(found):
    expected = [enumerated(x[:n], y) for x, n, y in zip(LOGITS, LENGTHS, LABELS, strict=True)]
    np.testing.assert_allclose(found[1], expected, rtol=1e-5)


def test_gradient_is_that_of_all_alignments_and_zero_past_the_end(found):
    for row, (x, n, y) in enumerate(zip(LOGITS, LENGTHS, LABELS, strict=True)):
        direction = np.random.default_rng(row).normal(size=(STEPS, CLASSES))
        ahead, behind = (enumerated((x + h * direction)[:n], y) for h in (1e-5, -1e-5))
        np.testing.assert_allclose(np.vdot(found[0][row], direction), (ahead - behind) / 2e-5, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(found[0][row, n:], 0)
