"""Handwritten digits in two styles, A white on black and B dark blue on yellow: a small unpaired set.

For translation without pairs, in the manner of CycleGAN (J.-Y. Zhu, T. Park, P. Isola, A. A. Efros, "Unpaired
Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017). The splits are named as in TFDS's
``cycle_gan``. No digit of ``trainA`` is in ``trainB``; record ``i`` of ``testA`` and of ``testB`` is the same digit, so
that a translation can be held against the truth.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int64, UInt8

from seqjax.data.digits import DigitImages, random_split

STYLES: dict[str, Float[np.ndarray, "2 3"]] = {
    "A": np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]),
    "B": np.array([[0.9, 0.8, 0.2], [0.1, 0.2, 0.6]]),
}
"""Ground and ink of each domain, RGB in [0, 1]."""


class DigitStyles(DigitImages):
    """Digits in the colours of their domain: ``image`` uint8 ``[S, S, 3]``."""

    @staticmethod
    def draw(split: str, ink: UInt8[np.ndarray, "S S"], label: int) -> dict[str, UInt8[np.ndarray, "S S C"]]:
        """The digit in the style of the split's domain, its last letter."""
        ground, full = STYLES[split[-1]]
        return {"image": np.rint(255 * ground + ink[..., None] * (full - ground)).astype(np.uint8)}

    @staticmethod
    def places() -> Mapping[str, Int64[np.ndarray, " M"]]:
        """648 and 649 digits to train, 500 to test."""
        part = random_split()
        return {
            "trainA": part["train"][:648],
            "trainB": part["train"][648:],
            "testA": part["test"],
            "testB": part["test"],
        }
