"""Handwritten digits in black and white, for models of binary images, in the manner of DRAW's binarised MNIST.

The threshold is fixed, so likelihoods can be compared between runs; with those on ``binarized_mnist``, whose pixels
were drawn by chance once and for all, or on MNIST drawn anew in every epoch, they cannot.
"""

import numpy as np
from jaxtyping import UInt8

from seqjax.data.digits import DigitImages

INK = 128
"""From this value on a pixel is black: 8 of 16 in scikit-learn's own pixels."""


def black_and_white(ink: UInt8[np.ndarray, "*N"]) -> UInt8[np.ndarray, "*N"]:
    """255 from ``INK`` on, elsewhere 0."""
    return np.where(ink >= INK, np.uint8(255), np.uint8(0))


class BinaryDigits(DigitImages):
    """Digits without greys: ``image`` uint8 ``[S, S, 1]``, 255 (ink) or 0 (paper)."""

    @staticmethod
    def draw(split: str, ink: UInt8[np.ndarray, "S S"], label: int) -> dict[str, UInt8[np.ndarray, "S S C"]]:
        """The digit, every pixel black or white."""
        return {"image": black_and_white(ink)[..., None]}
