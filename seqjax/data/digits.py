"""scikit-learn's 1,797 handwritten digits as images of any size, split so that writers are disjoint.

The digits are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI,
1998), which scikit-learn carries: 8 x 8 pixels, values 0 to 16, by 13 people. Who wrote which digit is not on
record, but the order shows it: the labels come in 14 blocks of about 130 digits, each starting with three runs of
0 to 9 (two blocks lack one or two of those digits), and the handwriting changes where a block starts. ``SPLITS``
cuts between blocks only, so writers are disjoint as far as the published data can show (14 blocks by 13 people:
somebody may have filled two).
"""

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

SPLITS = {"train": range(0, 1287), "validation": range(1287, 1545), "test": range(1545, 1797)}
"""Index ranges of the splits: ten, two and two blocks."""


def load(size: int) -> tuple[UInt8[np.ndarray, "M S S"], Int64[np.ndarray, " M"]]:
    """All 1,797 digits in the order of scikit-learn, and their labels 0 to 9.

    Args:
      size: height and width ``S`` in pixels.

    Returns:
      Images, 0 (paper) to 255 (ink), enlarged by bicubic interpolation cut off at 0 and 255; labels.
    """
    from sklearn.datasets import load_digits  # slow to import, and needed once per prepared set

    digits = load_digits()
    images = np.stack([_enlarge(image * (255 / 16), size) for image in digits.images])
    return images, digits.target.astype(np.int64)


def _enlarge(image: np.ndarray, size: int) -> UInt8[np.ndarray, "S S"]:
    smooth = Image.fromarray(image.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(smooth).round().clip(0, 255).astype(np.uint8)
