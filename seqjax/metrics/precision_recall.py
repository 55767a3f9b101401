"""Fidelity and diversity apart: what share of generated images looks real, what share of real ones is reached.

A set stands for the region that it fills: the union of balls around its features, each as wide as the distance to
the k-th nearest neighbour within the set. Distances are taken in float64, a block of rows at a time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from seqjax.errors import InputError

_BLOCK = 1024


class PrecisionRecall(NamedTuple):
    """Shares, from 0 to 1."""

    precision: float
    """Of the generated features, those within the real region."""
    recall: float
    """Of the real features, those within the generated region."""


class DensityCoverage(NamedTuple):
    """1 each, on average, where the two sets are of one distribution; for coverage nearly."""

    density: float
    """Balls of real features that a generated one lies in, divided by k; may exceed 1."""
    coverage: float
    """Of the balls of real features, those with a generated one inside."""


def precision_recall(
    real: Float[np.ndarray, "N D"], generated: Float[np.ndarray, "M D"], *, k: int = 3
) -> PrecisionRecall:
    """Share of each set's features that lie in the other's region; both are 1 for identical sets.

    Source: Kynkäänniemi et al., *Improved Precision and Recall Metric for Assessing Generative Models*, 2019, Eq. 1
    and 2 (k = 3).
    """
    real, generated = _centred(real, generated)

    def share(points: np.ndarray, region: np.ndarray) -> float:
        radii = _radii(region, k)
        inside = [(block <= radii[None]).any(axis=1) for block in _squared_distances(points, region)]
        return float(np.concatenate(inside).mean())

    return PrecisionRecall(share(generated, real), share(real, generated))


def density_coverage(
    real: Float[np.ndarray, "N D"], generated: Float[np.ndarray, "M D"], *, k: int = 5
) -> DensityCoverage:
    """The same question asked of the real region alone, which one outlier among the generated cannot widen.

        density  = Σ_j Σ_i [g_j in the ball of r_i] / (k M)
        coverage = Σ_i [some g_j in the ball of r_i] / N

    Source: Naeem et al., *Reliable Fidelity and Diversity Metrics for Generative Models*, 2020, Eq. 3 and 4 (k = 5).
    """
    real, generated = _centred(real, generated)
    radii = _radii(real, k)
    held, reached = 0, np.zeros(len(real), bool)
    for block in _squared_distances(generated, real):
        inside = block <= radii[None]
        held += int(inside.sum())
        reached |= inside.any(axis=0)
    return DensityCoverage(held / (k * len(generated)), float(reached.mean()))


def _centred(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In float64, with the common mean taken out: distances then lose no digits to it."""
    centre = np.mean(real, axis=0, dtype=np.float64, keepdims=True)
    return real - centre, generated - centre


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """Squared distance to the k-th nearest other point."""
    if not 1 <= k < len(points):
        raise InputError(
            f"k={k}: a set of {len(points)} features has no {k}-th nearest neighbour for each; expected k from 1 to "
            "the number of features less one: give more images or a smaller k."
        )
    # Each point is its own nearest one.
    return np.concatenate([np.partition(block, k, axis=1)[:, k] for block in _squared_distances(points, points)])


def _squared_distances(rows: np.ndarray, columns: np.ndarray) -> Iterator[np.ndarray]:
    lengths = np.sum(columns**2, axis=1)[None]
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        products = np.sum(block**2, axis=1)[:, None] - 2 * block @ columns.T
        yield (products + lengths).clip(0)
