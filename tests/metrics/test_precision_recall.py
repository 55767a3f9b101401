"""Oracle: the definitions as loops over all pairs."""

import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.metrics import precision_recall as module
from seqjax.metrics.precision_recall import density_coverage, precision_recall


def balls(points, k):
    """Radius around each point: distance to its k-th nearest other one."""
    return [sorted(np.linalg.norm(p - q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)]


def by_loops(real, generated, k):
    radii, own = balls(real, k), balls(generated, k)
    inside = np.array(
        [[np.linalg.norm(g - r) <= radius for r, radius in zip(real, radii, strict=True)] for g in generated]
    )
    reach = np.array(
        [[np.linalg.norm(r - g) <= radius for g, radius in zip(generated, own, strict=True)] for r in real]
    )
    return (
        (inside.any(axis=1).mean(), reach.any(axis=1).mean()),
        (inside.sum() / (k * len(generated)), inside.any(axis=0).mean()),
    )


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("block", [7, 1024])
def test_equals_the_definitions(k, block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    rng = np.random.default_rng(k)
    real, generated = rng.normal(size=(40, 3)) + 1e4, rng.normal(size=(30, 3)) * 0.7 + 0.5 + 1e4
    shares, region = by_loops(real, generated, k)
    assert precision_recall(real, generated, k=k) == pytest.approx(shares)
    assert density_coverage(real, generated, k=k) == pytest.approx(region)


def test_identical_sets_and_sets_far_apart():
    real = np.random.default_rng(0).normal(size=(50, 4))
    assert precision_recall(real, real) == (1, 1)
    assert density_coverage(real, real).coverage == 1
    assert precision_recall(real, real + 100) == (0, 0)
    assert density_coverage(real, real + 100) == (0, 0)


def test_one_mode_of_two_is_precise_and_recalls_half():
    rng = np.random.default_rng(0)
    left, right, copies = (rng.normal(size=(60, 2)) + centre for centre in (0, 50, 0))
    precision, recall = precision_recall(np.concatenate([left, right]), copies)
    assert precision > 0.9
    assert 0.4 < recall <= 0.5
    assert density_coverage(np.concatenate([left, right]), copies).coverage <= 0.5


@pytest.mark.parametrize("k", [0, 3])
def test_refuses_k_that_the_set_does_not_have(k):
    with pytest.raises(InputError, match=f"k={k}: a set of 3 features"):
        precision_recall(np.eye(3), np.eye(3), k=k)
