"""RandAugment (Cubuk et al., 2020): random changes of an image's colours and places, one after the other.

Ekin D. Cubuk, Barret Zoph, Jonathon Shlens, Quoc V. Le, *RandAugment: Practical automated data augmentation with a
reduced search space*, NeurIPS 2020, https://arxiv.org/abs/1909.13719.

The sixteen changes are those of EfficientNet's published code (github.com/tensorflow/tpu, autoaugment.py), which
github.com/google-research/big_vision took over for its Vision Transformers. At magnitude M, whose scale ends at 10:

    AutoContrast, Equalize, Invert          whatever M
    Rotate                                  by ±3 M degrees
    ShearX, ShearY                          by ±0.03 M
    TranslateX, TranslateY                  by ±10 M pixels
    Color, Contrast, Brightness, Sharpness  by a factor of 0.1 + 0.18 M, 1 leaving all as it is
    Posterize                               to ⌊0.4 M⌋ bits
    Solarize                                inverts from ⌊25.6 M⌋ on: nothing at 10
    SolarizeAdd                             adds ⌊11 M⌋ to what is below 128
    Cutout                                  a square of 2 ⌊4 M⌋ pixels, its middle anywhere

So M is no strength of Posterize, Solarize and the factors: at 10 the first is weak and the second nothing. What comes
from outside of the image is grey, 128. Pixels are taken from the nearest place.

Departures: each change is Pillow's, after which the code there is made, but for its Contrast, which takes the number of
pixels over 256 for the mean grey (196 for 224x224); shears leave the corner of the first pixel where it is, there its
middle.
"""

from collections.abc import Callable, Collection

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from seqjax.data.source import Record
from seqjax.errors import InputError

GREY = 128


def rand_augment(
    record: Record, rng: np.random.Generator, *, keys: Collection[str], changes: int = 2, magnitude: float = 10.0
) -> Record:
    """Images after so many of ``OPERATIONS``, each drawn from all of them.

    Args:
      record: with images uint8 ``[H, W, C]``, grey or of three colours; nothing is looked at for 0 changes.
      rng: source of the operations, their signs and places.
      keys: of the images, each changed on its own.
      changes: N of the paper.
      magnitude: M of the paper, 0 to 30; the scales are made for 10 at most.

    Raises:
      InputError: numbers out of range, an array that is no such image.
    """
    if changes < 0 or not 0 <= magnitude <= 30:
        raise InputError(f"changes={changes}, magnitude={magnitude}: give at least 0, and 0 to 30.")
    if not changes:
        return record
    changed = {}
    for key in keys:
        image = _image(record, key)
        for index in rng.integers(len(OPERATIONS), size=changes):
            image = list(OPERATIONS.values())[index](image, magnitude / 10, rng)
        changed[key] = np.array(image).reshape(record[key].shape)
    return record | changed


Operation = Callable[[Image.Image, float, np.random.Generator], Image.Image]
"""``operation(image, share, rng)``, with the share of 10 that the magnitude is."""


def rotate(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """About the middle, by ±30 degrees times the share."""
    return image.rotate(_signed(30 * share, rng), Image.Resampling.NEAREST, fillcolor=_grey(image))


def shear_x(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Rows are moved by ±0.3 times the share of their distance from the upper edge."""
    return _moved(image, (1, _signed(0.3 * share, rng), 0, 0, 1, 0))


def shear_y(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Columns are moved by ±0.3 times the share of their distance from the left edge."""
    return _moved(image, (1, 0, 0, _signed(0.3 * share, rng), 1, 0))


def translate_x(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """By ±100 pixels times the share."""
    return _moved(image, (1, 0, _signed(100 * share, rng), 0, 1, 0))


def translate_y(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """By ±100 pixels times the share."""
    return _moved(image, (1, 0, 0, 0, 1, _signed(100 * share, rng)))


def posterize(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """To the highest bits of each value, 4 times the share."""
    lost = 8 - min(8, int(4 * share))  # all may be: ImageOps.posterize refuses to
    return image.point([i >> lost << lost for i in range(256)] * len(image.getbands()))


def solarize(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """What is at least 256 times the share is inverted."""
    return ImageOps.solarize(image, int(256 * share))


def solarize_add(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """110 times the share is added to what is below 128."""
    added = int(110 * share)
    return image.point([min(255, i + added) if i < 128 else i for i in range(256)] * len(image.getbands()))


def cutout(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """A grey square, as far as it is within the image, reaches 40 pixels times the share from its middle.

    Source: T. DeVries, G. W. Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.
    """
    reach, pixels = int(40 * share), np.array(image)
    row, column = (int(rng.integers(size)) for size in pixels.shape[:2])
    pixels[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach] = GREY
    return Image.fromarray(pixels)


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """Away from the image without colour, contrast, light or edges, by a factor of 0.1 and 1.8 times the share."""
    return lambda image, share, rng: kind(image).enhance(1.8 * share + 0.1)


def _whatever(function: Callable[[Image.Image], Image.Image]) -> Operation:
    return lambda image, share, rng: function(image)


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": _whatever(ImageOps.autocontrast),
    "Equalize": _whatever(ImageOps.equalize),
    "Invert": _whatever(ImageOps.invert),
    "Rotate": rotate,
    "Posterize": posterize,
    "Solarize": solarize,
    "Color": _enhanced(ImageEnhance.Color),
    "Contrast": _enhanced(ImageEnhance.Contrast),
    "Brightness": _enhanced(ImageEnhance.Brightness),
    "Sharpness": _enhanced(ImageEnhance.Sharpness),
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
    "Cutout": cutout,
    "SolarizeAdd": solarize_add,
}
"""By the names of the paper."""


def _image(record: Record, key: str) -> Image.Image:
    array = record.get(key)
    if array is None or array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3):
        layout = {name: f"{value.dtype}{list(value.shape)}" for name, value in record.items()}
        raise InputError(f"A record has no image {key!r}, uint8 [H, W, 1] or [H, W, 3], to change: it has {layout}.")
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[-1] == 1 else array))


def _signed(amount: float, rng: np.random.Generator) -> float:
    return amount if rng.random() < 0.5 else -amount


def _grey(image: Image.Image) -> tuple[int, ...]:
    return (GREY,) * len(image.getbands())


def _moved(image: Image.Image, matrix: tuple[float | int, ...]) -> Image.Image:
    """The pixel at x, y comes from a x + b y + c, d x + e y + f."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=_grey(image))
