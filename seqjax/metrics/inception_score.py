"""Inception score: how sure a classifier is of each image, and of how many classes."""

import numpy as np
from jaxtyping import Float

from seqjax.errors import InputError


def inception_score(probabilities: Float[np.ndarray, "N K"], *, splits: int = 10) -> tuple[float, float]:
    """``exp(mean_x KL(p(y|x) ‖ p(y)))``: 1 if all images get the same answer, K if every class gets a sure one.

    Returns mean and standard deviation over the splits.

    It knows nothing of the real images. Of a classifier other than the field's Inception, or of other images than
    those of ImageNet's kind, only ratios within one table mean anything.

    Args:
      probabilities: ``p(y|x)`` of each image, rows that sum to 1.
      splits: parts of equal length, in the order given, that each have a ``p(y)`` and a score of their own.

    Source: Salimans et al., *Improved Techniques for Training GANs*, 2016, section 4.
    """
    if not 1 <= splits <= len(probabilities):
        raise InputError(
            f"inception_score: splits={splits} of {len(probabilities)} images; expected at least one split and one "
            "image in each: draw more images or ask for fewer splits."
        )
    scores = []
    for part in np.array_split(np.asarray(probabilities, np.float64), splits):
        marginal = part.mean(axis=0, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(part == 0, 0.0, part * np.log(part / marginal))
        scores.append(np.exp(terms.sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))
