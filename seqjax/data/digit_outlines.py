"""Outlines of handwritten digits and the digits filled with the colour of their class: a small paired set.

The pairs are made so that the colour cannot be read off the outline without recognising the digit, and the shape can:
for image-to-image translation in the manner of pix2pix (P. Isola, J.-Y. Zhu, T. Zhou, A. A. Efros, "Image-to-Image
Translation with Conditional Adversarial Networks", CVPR 2017), at a size that two cores train in a minute.
"""

import colorsys

import numpy as np
from jaxtyping import Float, UInt8

from seqjax.data.digits import DigitImages

COLOURS: Float[np.ndarray, "10 3"] = np.array([colorsys.hsv_to_rgb(label / 10, 1, 1) for label in range(10)])
"""Colour of each class, RGB in [0, 1]: fully saturated, hues a tenth of the circle apart."""
EDGE = 0.18
"""Steepness from which a pixel is outline: change of ink, from 0 to 1, per 16th of the picture."""


def outline(ink: UInt8[np.ndarray, "S S"]) -> UInt8[np.ndarray, "S S"]:
    """Where ``|grad ink| > EDGE`` by central differences: 255, elsewhere 0."""
    down, right = np.gradient(ink / 255, 16 / len(ink))
    return np.where(np.hypot(down, right) > EDGE, np.uint8(255), np.uint8(0))


class DigitOutlines(DigitImages):
    """Outlines of digits, ``input`` uint8 ``[S, S, 1]``, and the digits in colour on black, ``target`` ``[S, S, 3]``.

    The value of ``input`` is 0 or 255.
    """

    @staticmethod
    def draw(split: str, ink: UInt8[np.ndarray, "S S"], label: int) -> dict[str, UInt8[np.ndarray, "S S C"]]:
        """The outline, and the digit in the colour of its class."""
        filled = np.rint(ink[..., None] * COLOURS[label]).astype(np.uint8)
        return {"input": outline(ink)[..., None], "target": filled}
