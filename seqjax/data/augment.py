"""Random changes of images on the host, and the fixed ones that evaluation has in their place.

For ``train_batches(augment=partial(jitter, together=PAIRED, load=286, crop=256))``, whose generator depends on the seed
and on the record's place in the stream alone: a run that goes on, on any number of processes, draws the same crops.
"""

from collections.abc import Collection, Sequence

import numpy as np
from PIL import Image

from seqjax.data.source import Record
from seqjax.errors import InputError

PAIRED = (("input", "target"),)
"""Images of a paired set: both change alike."""
UNPAIRED = (("a",), ("b",))
"""Images of an unpaired set: each changes on its own."""


def jitter(
    record: Record,
    rng: np.random.Generator,
    *,
    together: Sequence[Sequence[str]],
    load: int,
    crop: int,
    flip: bool = True,
    nearest: Collection[str] = (),
) -> Record:
    """Resize, then cut out a square anywhere and mirror every other one, left to right.

    Source: P. Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", 2017, section 6.2
    ("random jitter": ``load=286``, ``crop=256``).

    Args:
      record: with images ``[H, W, C]`` of any number of channels, uint8 or float32.
      rng: source of the places and of the choice to mirror.
      together: keys of the images in groups; all of a group are cut at one place and mirrored alike.
      load: height and width to which images are resized, in pixels.
      crop: height and width of the part that is kept, at most ``load``.
      flip: mirror with probability 1/2.
      nearest: keys of images whose values are labels and not to be mixed; the others are resized bicubically, which
        smooths where it shrinks. At edges float values may overshoot; uint8 is cut off at 0 and 255.

    Returns:
      The record with these images ``[crop, crop, C]``, everything else as it was.

    Raises:
      InputError: a crop larger than ``load``, a key that the record lacks, an array that is no image.
    """
    if not 0 < crop <= load:
        raise InputError(f"crop={crop} cannot be cut from load={load} pixels: give 1 to load.")
    changed = {}
    for group in together:
        top, left = rng.integers(load - crop + 1, size=2)
        mirrored = flip and rng.random() < 0.5
        for key in group:
            part = _resized(record, key, load, nearest)[top : top + crop, left : left + crop]
            changed[key] = part[:, ::-1] if mirrored else part
    return record | changed


def resize(record: Record, *, keys: Collection[str], size: int, nearest: Collection[str] = ()) -> Record:
    """What ``jitter`` does to images but for chance: the whole of each at ``size x size``, for evaluation."""
    return record | {key: _resized(record, key, size, nearest) for key in keys}


def middle(record: Record, *, keys: Collection[str], size: int) -> Record:
    """The largest square in the middle of each image, at ``size x size``."""

    def square(image: np.ndarray) -> np.ndarray:
        side = min(image.shape[:2])
        top, left = ((n - side) // 2 for n in image.shape[:2])
        return image[top : top + side, left : left + side]

    squares = {key: square(record[key]) for key in keys if key in record and record[key].ndim == 3}
    return resize(record | squares, keys=keys, size=size)


def _resized(record: Record, key: str, size: int, nearest: Collection[str]) -> np.ndarray:
    image = record.get(key)
    if image is None or image.ndim != 3 or image.dtype not in (np.uint8, np.float32):
        layout = {name: f"{value.dtype}{list(value.shape)}" for name, value in record.items()}
        raise InputError(
            f"A record has no image {key!r}, uint8 or float32 [H, W, C], to resize: it has {layout}. Name its images."
        )
    method = Image.Resampling.NEAREST if key in nearest else Image.Resampling.BICUBIC
    channels = (Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(image, -1, 0))
    return np.stack([np.asarray(channel.resize((size, size), method)) for channel in channels], axis=-1)
