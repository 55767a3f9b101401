"""Fréchet distance between two sets of features, each taken for a Gaussian: FID is this of Inception's features."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax.errors import InputError


class Gaussian(NamedTuple):
    """What the Fréchet distance knows of a set, on the host, in float64."""

    mean: Float[np.ndarray, " D"]
    covariance: Float[np.ndarray, "D D"]
    """With the divisor n - 1."""
    n: int
    """How many features it was taken of."""


class Moments(NamedTuple):
    """Moments of the features so far, on the devices; mean and scatter are each the sum of two float32 arrays."""

    n: Float[Array, ""]
    mean: Float[Array, "2 D"]
    scatter: Float[Array, "2 D D"]
    """``Σ (x - mean)(x - mean)ᵀ``."""


def fit(features: Float[np.ndarray, "N D"]) -> Gaussian:
    """The Gaussian of features that lie on the host, N at least 2."""
    wide = np.asarray(features, np.float64)
    if len(wide) < 2:
        raise InputError(f"features: {len(wide)} of them have no covariance; expected at least 2 (far more than D).")
    return Gaussian(wide.mean(axis=0), np.atleast_2d(np.cov(wide, rowvar=False)), len(wide))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """``|μ_a - μ_b|² + Tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½)``: 0 where mean and covariance agree.

    The trace of the root is ``Σ √λ(R Σ_b R)`` with ``R = Σ_a^½``: symmetric matrices only, so nothing becomes complex,
    and fewer features than dimensions need no ridge. Directions in which ``Σ_a`` is zero to rounding are left out.

    The estimate is biased upwards, the more the fewer the features: compare figures of one n alone.

    Source: Dowson and Landau, *The Fréchet Distance between Multivariate Normal Distributions*, 1982, Eq. 4; Heusel et
    al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*, 2017, Eq. 6.

    Raises:
      InputError: the two have different dimensions.
    """
    if a.mean.shape != b.mean.shape:
        raise InputError(
            f"frechet_distance: features of {len(a.mean)} and of {len(b.mean)} dimensions; expected two sets from one "
            "feature network: compute both with the same."
        )
    if not all(np.isfinite(x).all() for x in (a.mean, a.covariance, b.mean, b.covariance)):
        return float("nan")
    values, vectors = np.linalg.eigh(a.covariance)
    kept = values > values.max() * len(values) * np.finfo(np.float64).eps
    root = vectors[:, kept] * np.sqrt(values[kept])
    shared = np.linalg.eigvalsh(root.T @ b.covariance @ root)
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(shared.clip(0)).sum()
    return float(np.sum((a.mean - b.mean) ** 2) + trace)


def no_moments(dimension: int) -> Moments:
    """Nothing seen yet, of features with D = ``dimension``."""
    return Moments(jnp.zeros(()), jnp.zeros((2, dimension)), jnp.zeros((2, dimension, dimension)))


def add_moments(acc: Moments, features: Float[Array, "B D"], weight: Float[Array, " B"]) -> Moments:
    """A batch of features more, each counted by its weight; what has weight 0 may be NaN.

    Each batch is centred on its own mean and merged with those before it:

        μ ← μ + δ n_b / n,    S ← S + S_b + δ δᵀ n_a n_b / n,    δ = μ_b - μ,    n = n_a + n_b

    and the sums carry their rounding error along as a second array. So a mean far from zero costs no digits, and the
    error, that of float32 products within one batch, does not grow with the number of batches.

    Source: Chan, Golub and LeVeque, *Updating Formulae and a Pairwise Algorithm for Computing Sample Variances*, 1979.
    """
    rows, counts = weight[:, None], (weight > 0)[:, None]
    xs = jnp.where(counts, features.astype(jnp.float32), 0.0)
    batch = jnp.sum(weight)
    divisor = jnp.maximum(batch, 1.0)
    mean = jnp.sum(rows * xs, axis=0) / divisor
    centred = jnp.where(counts, xs - mean[None], 0.0)
    rest = jnp.sum(rows * centred, axis=0) / divisor  # what rounding kept out of the mean
    centred = jnp.where(counts, centred - rest[None], 0.0)
    scatter = jnp.einsum("bi,bj->ij", rows * centred, centred, precision="highest")

    n = acc.n + batch
    share = batch / jnp.maximum(n, 1.0)
    shift = (mean - acc.mean[0]) + (rest - acc.mean[1])
    between = shift[:, None] * shift[None] * (acc.n * share)
    # The first mean is far from the zero that stands before it, and a product with the shift would round it.
    merged = jnp.where(acc.n > 0, _plus(acc.mean, shift * share), jnp.stack([mean, rest]))
    return Moments(n, merged, _plus(_plus(acc.scatter, scatter), between))


def gaussian_of(acc: Moments) -> Gaussian:
    """The Gaussian of all that was accumulated, on the host.

    Raises:
      InputError: fewer than two features.
    """
    n = float(acc.n)
    if n < 2:
        raise InputError(
            f"features: {n:g} of them were accumulated, which have no covariance; expected at least 2 (far more than "
            "dimensions): check that the evaluation split is not empty."
        )
    mean, scatter = (np.asarray(pair, np.float64).sum(axis=0) for pair in (acc.mean, acc.scatter))
    return Gaussian(mean, scatter / (n - 1), round(n))


def _plus(pair: Array, value: Array) -> Array:
    """Adds to a number held in two parts, low below half a unit in the last place of high (Knuth's two-sum)."""
    high, low = pair
    total = high + value
    grown = total - high
    low = low + ((high - (total - grown)) + (value - grown))
    high = total + low
    return jnp.stack([high, low - (high - total)])
