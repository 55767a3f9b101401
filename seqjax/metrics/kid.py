"""Kernel distance between two sets of features: KID is this of Inception's features."""

import numpy as np
from jaxtyping import Float

from seqjax.errors import InputError


def squared_mmd(x: Float[np.ndarray, "M D"], y: Float[np.ndarray, "N D"], *, degree: int = 3) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy under ``k(x, y) = (x·y / D + 1)^degree``.

        Σ_{i≠j} k(x_i, x_j) / (M (M-1))  +  Σ_{i≠j} k(y_i, y_j) / (N (N-1))  -  2 Σ_{i,j} k(x_i, y_j) / (M N)

    Unbiased for any M and N of at least 2, so below 0 half the time where the sets are of one distribution.

    Source: Gretton et al., *A Kernel Two-Sample Test*, 2012, Eq. 3; the cubic kernel: Bińkowski et al., *Demystifying
    MMD GANs*, 2018, section 4.
    """
    if min(len(x), len(y)) < 2:
        raise InputError(
            f"squared_mmd: {len(x)} and {len(y)} features; expected at least 2 on both sides, since each is compared "
            "with the others of its set: give more images."
        )
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** degree

    def within(a: np.ndarray) -> float:
        values = kernel(a, a)
        return (values.sum() - np.trace(values)) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def kernel_distance(
    x: Float[np.ndarray, "M D"],
    y: Float[np.ndarray, "N D"],
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
    scale: float = 1.0,
) -> tuple[float, float]:
    """Mean and standard deviation of ``squared_mmd`` over random subsets of both sets, drawn without replacement.

    The cubic kernel is not free of scale: a few large activations of a small network of one's own outweigh the rest.
    Divide by the standard deviation of the reference features there (``scale``), and say so; Inception's stay as
    they are.

    Args:
      x: features of one set.
      y: features of the other.
      subsets: how many are drawn.
      size: features in each, or all if a set has fewer.
      seed: of the draw.
      scale: what the features are divided by.
    """
    size, draw = min(size, len(x), len(y)), np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        parts = [features[draw.choice(len(features), size, replace=False)] / scale for features in (x, y)]
        values.append(squared_mmd(*parts))
    return float(np.mean(values)), float(np.std(values))
