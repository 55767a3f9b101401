"""Every adversarial loss, with what the laws need to know about it. A new loss adds one entry.

The oracles are written with probabilities ``D = σ(logit)`` or raw scores, as the papers write them, in NumPy float64,
for one example: its patch of logits to a number. The batches of the other side come whole, for the means over them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit


class Case(NamedTuple):
    discriminator: Callable[..., np.ndarray]
    """``(real, fake)``, logits ``[B, *P]`` to the losses of the examples."""
    generator: Callable[..., np.ndarray]
    """``(fake, real)``."""
    at_zero: tuple[float, float]
    """Both losses where all logits are 0."""
    relativistic: bool = False
    """Whether the generator needs the real logits."""
    shift_invariant: bool = False
    """Whether a constant added to all logits changes nothing."""


def mean(values):
    return values.reshape(len(values), -1).mean(axis=1)


def log_d(logits):
    return np.log(expit(logits))


def cross_entropy(real, fake):
    return mean(-log_d(real) - np.log(1 - expit(fake)))


def average(own, other):
    return mean(-log_d(own - other.mean()) - np.log(1 - expit(other - own.mean())))


def paired(own, other):
    return mean(-log_d(own - other))


LN2 = np.log(2)
CASES = {
    "minimax": Case(cross_entropy, lambda f, r: mean(np.log(1 - expit(f))), (2 * LN2, -LN2)),
    "non_saturating": Case(cross_entropy, lambda f, r: mean(-log_d(f)), (2 * LN2, LN2)),
    "least_squares": Case(lambda r, f: mean((r - 1) ** 2 + f**2), lambda f, r: mean((f - 1) ** 2), (1, 1)),
    "hinge": Case(lambda r, f: mean(-np.minimum(0, -1 + r) - np.minimum(0, -1 - f)), lambda f, r: mean(-f), (2, 0)),
    "wasserstein": Case(lambda r, f: mean(f) - mean(r), lambda f, r: -mean(f), (0, 0)),
    "relativistic": Case(paired, paired, (LN2, LN2), relativistic=True, shift_invariant=True),
    "relativistic_average": Case(average, average, (2 * LN2, 2 * LN2), relativistic=True, shift_invariant=True),
}
