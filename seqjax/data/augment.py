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

    images = {key: record[key] for key in keys if key in record and record[key].ndim == 3}
    squares = {key: image[_middle(*image.shape[:2])] for key, image in images.items()}
    return resize(record | squares, keys=keys, size=size)


def crop_somewhere(
    record: Record, rng: np.random.Generator, *, keys: Collection[str], size: int, least: float = 0.05
) -> Record:
    """A part of each image at ``size x size``, every other one mirrored, left to right.

    Its share of the area is uniform from ``least`` to 1, the logarithm of its width over its height uniform from
    log 3/4 to log 4/3; where ten draws do not fit into the image, it is the largest square in the middle.

    Source: C. Szegedy et al., "Going Deeper with Convolutions", 2015, section 6 (training methodology).

    Args:
      record: with images ``[H, W, C]``, uint8 or float32.
      rng: source of places and shapes.
      keys: of the images, each cut on its own.
      size: height and width of what comes out.
      least: smallest share of the area.

    Raises:
      InputError: a share out of range, and as `resize`.
    """
    if not 0 < least <= 1:
        raise InputError(f"least={least} is not a share of an image's area: give more than 0 and at most 1.")
    parts = {}
    for key in keys:
        height, width, _ = record[key].shape
        rows, columns = _somewhere(height, width, rng, least)
        part = _resized(record | {key: record[key][rows, columns]}, key, size, ())
        parts[key] = part[:, ::-1] if rng.random() < 0.5 else part
    return record | parts


def patch_somewhere(record: Record, rng: np.random.Generator, *, frames: int, size: int) -> Record:
    """A patch of a clip, at one place in all of its frames: so many consecutive frames, from anywhere in the clip.

    Source: N. Srivastava et al., "Unsupervised Learning of Video Representations using LSTMs", 2015 (``size=32``).

    Args:
      record: with ``video`` ``[T, H, W, C]``.
      rng: source of the place and of the first frame.
      frames: how many.
      size: height and width, in pixels.

    Returns:
      ``video`` ``[frames, size, size, C]``, and nothing else.

    Raises:
      InputError: the clip is shorter or its frames are smaller.
    """
    shape = (frames, size, size)
    return {"video": _patch(record, rng.integers(_slack_of_patch(record, shape), endpoint=True), shape)}


def middle_patch(record: Record, *, frames: int, size: int) -> Record:
    """What ``patch_somewhere`` cuts out but for chance: the middle of the clip's first frames, for evaluation."""
    shape = (frames, size, size)
    _, rows, columns = _slack_of_patch(record, shape)
    return {"video": _patch(record, np.array([0, rows // 2, columns // 2]), shape)}


def scaled_somewhere(
    record: Record, rng: np.random.Generator, *, frames: int, sides: Sequence[int], size: int, flip: bool = True
) -> Record:
    """Consecutive frames from anywhere in a clip, of them a part at one place, brought to ``size x size``.

    Source: L. Wang et al., "Towards Good Practices for Very Deep Two-Stream ConvNets", 2015, section 3 (multi-scale
    cropping, there at the corners and in the middle; ``sides=(256, 224, 192, 168)``).

    Args:
      record: with ``video`` ``[T, H, W, C]``.
      rng: source of the place, the first frame, the shape and the choice to mirror.
      frames: how many.
      sides: what the height and the width of the part are drawn from, each on its own, in pixels.
      size: height and width of what comes out.
      flip: mirror with probability 1/2, left to right.

    Raises:
      InputError: the clip is shorter or its frames are smaller.
    """
    height, width = rng.choice(np.asarray(sides), size=2)
    shape = (frames, int(height), int(width))
    part = _patch(record, rng.integers(_slack_of_patch(record, shape), endpoint=True), shape)
    scaled = np.stack([_resized({"frame": frame}, "frame", size, ()) for frame in part])
    return record | {"video": scaled[:, :, ::-1] if flip and rng.random() < 0.5 else scaled}


def clips_throughout(record: Record, *, frames: int, size: int, count: int) -> Record:
    """For evaluation: so many clips of consecutive frames, evenly spread over a longer one, of each the middle.

    ``video`` ``[T, H, W, C]`` becomes ``[count, frames, size, size, C]``; a single clip is the first.

    Raises:
      InputError: the clip is shorter or its frames are smaller.
    """
    shape = (frames, size, size)
    last, rows, columns = _slack_of_patch(record, shape)
    starts = np.linspace(0, last, count).astype(int)
    clips = [_patch(record, np.array([t, rows // 2, columns // 2]), shape) for t in starts]
    return record | {"video": np.stack(clips)}


def frames_somewhere(
    record: Record, rng: np.random.Generator, *, frames: int, every: int = 1, flip: bool = False, key: str = "video"
) -> Record:
    """Frames of a clip, evenly apart, from one anywhere in it on; everything else of the record as it was.

    Args:
      record: with a clip, ``[T, H, W, C]``, or its features, ``[T, D]``.
      rng: source of the first frame and of the choice to mirror.
      frames: how many.
      every: how far they are apart.
      flip: mirror all of them with probability 1/2, left to right.
      key: the clip's.

    Raises:
      InputError: the clip is shorter.
    """
    slack = _slack_of_frames(record[key], frames, every)
    cut = _frames(record[key], int(rng.integers(slack, endpoint=True)), frames, every)
    return record | {key: cut[:, :, ::-1] if flip and rng.random() < 0.5 else cut}


def first_frames(record: Record, *, frames: int, every: int = 1, key: str = "video") -> Record:
    """What ``frames_somewhere`` takes out but for chance: from the first frame on, for evaluation."""
    _slack_of_frames(record[key], frames, every)
    return record | {key: _frames(record[key], 0, frames, every)}


def _slack_of_frames(clip: np.ndarray, frames: int, every: int) -> int:
    slack = len(clip) - (frames - 1) * every - 1
    if slack < 0:
        raise InputError(
            f"frames={frames}, every={every}: a clip of {len(clip)} frames is shorter. Give fewer (a predictor's are "
            "model.context and model.future or horizon), or leave such clips out."
        )
    return slack


def _frames(clip: np.ndarray, first: int, frames: int, every: int) -> np.ndarray:
    return clip[first : first + (frames - 1) * every + 1 : every]


def _slack_of_patch(record: Record, patch: tuple[int, int, int]) -> np.ndarray:
    shape, (frames, height, width) = record["video"].shape[:3], patch
    slack = np.subtract(shape, patch)
    if slack.min() < 0:
        size = str(height) if height == width else f"{height}x{width}"
        raise InputError(
            f"frames={frames}, size={size}: a clip of {shape[0]} frames of {shape[1]}x{shape[2]} has no such patch. "
            "Give fewer frames and a smaller size, or leave such clips out."
        )
    return slack


def _patch(record: Record, corner: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    return record["video"][tuple(slice(start, start + side) for start, side in zip(corner, shape, strict=True))]


def _somewhere(height: int, width: int, rng: np.random.Generator, least: float) -> tuple[slice, slice]:
    """Rows and columns of a part."""
    for _ in range(10):
        area, shape = rng.uniform(least, 1) * height * width, np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        rows, columns = round(np.sqrt(area / shape)), round(np.sqrt(area * shape))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
            return slice(top, top + rows), slice(left, left + columns)
    return _middle(height, width)


def _middle(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the largest square in the middle."""
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return slice(top, top + side), slice(left, left + side)


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
