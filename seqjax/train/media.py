"""Pictures of a run: image grids as PNG, videos as GIF, several videos side by side with labels.

All take uint8 in [0, 255] with one channel (grey) or three (RGB): a float picture has lost its range by the
time it gets here, so it is refused rather than guessed at. Files are replaced whole or not at all.
"""

import colorsys
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from seqjax.errors import InputError
from seqjax.files import replace_file

_PAGE, _CELL, _INK = 20, 40, 210
"""Grey levels of the ground, of a cell that has nothing to show yet, and of the labels."""


def grid(
    images: UInt8[np.ndarray, "N H W C"], columns: int | None = None, padding: int = 2
) -> UInt8[np.ndarray, "H2 W2 C"]:
    """Lays images out row by row on a dark ground.

    Args:
      images: `[N, H, W, C]`.
      columns: images per row; by default as many as make the grid about as wide as high.
      padding: pixels between the images and around them.
    """
    _check(images, "N H W C")
    n, h, w, c = images.shape
    columns = min(columns or math.ceil(math.sqrt(n * h / w)), n)
    rows = -(-n // columns)
    sheet = np.full((rows * (h + padding) + padding, columns * (w + padding) + padding, c), _PAGE, np.uint8)
    for i, image in enumerate(images):
        top, left = padding + i // columns * (h + padding), padding + i % columns * (w + padding)
        sheet[top : top + h, left : left + w] = image
    return sheet


def side_by_side(
    videos: Mapping[str, UInt8[np.ndarray, "N _ H W C"]],
    *,
    starts: Mapping[str, int] | None = None,
    scale: int | None = None,
    gap: int = 4,
) -> UInt8[np.ndarray, "T H2 W2 C"]:
    """Lays videos of several sequences out in one: a labelled column per name, a row per sequence.

    With `{"context": seen, "truth": future, "prediction": out}` and `starts={"truth": 10, "prediction": 10}`
    ten frames of context play first, then both futures next to its last frame.

    Args:
      videos: by column label, `[N, T, H, W, C]`; T may differ between columns, nothing else.
      starts: the frame at which a column begins, 0 unless named; its cells are blank before, and hold the
        last frame after its end.
      scale: whole-number enlargement of every frame; by default what brings the shorter side to 96 pixels.
      gap: pixels between the frames and around them.
    """
    for name, video in videos.items():
        _check(video, "N T H W C", name)
    shapes = {name: (video.shape[0], *video.shape[2:]) for name, video in videos.items()}
    if len(set(shapes.values())) != 1:
        raise InputError(f"side_by_side: the columns must agree in N, H, W and C, but have {shapes}.")
    n, h, w, c = next(iter(shapes.values()))
    scale = scale or -(-96 // min(h, w))
    h, w = h * scale, w * scale
    begin = {name: (starts or {}).get(name, 0) for name in videos}
    length = max(begin[name] + video.shape[1] for name, video in videos.items())
    header = _header(list(videos), w, gap, c)
    top = header.shape[0]
    sheet = np.full((length, top + n * (h + gap), len(videos) * (w + gap) + gap, c), _PAGE, np.uint8)
    sheet[:, :top] = header
    for column, (name, video) in enumerate(videos.items()):
        played = _enlarge(_play(video, begin[name], length), scale)
        left = gap + column * (w + gap)
        for row in range(n):
            y = top + row * (h + gap)
            sheet[:, y : y + h, left : left + w] = played[row]
    return sheet


def sheet(columns: Mapping[str, UInt8[np.ndarray, "N H W _"]]) -> UInt8[np.ndarray, "H2 W2 C"]:
    """Lays images that belong together out in rows: a labelled column per name; grey ones beside coloured ones do."""
    deepest = max(images.shape[-1] for images in columns.values())
    stills = {
        name: np.repeat(images, deepest // images.shape[-1], axis=-1)[:, None] for name, images in columns.items()
    }
    return side_by_side(stills)[0]


def two_ways(outputs: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sheets of translations between domains ``a`` and ``b``: image, translation, and what came back.

    Args:
      outputs: images in [-1, 1]: to either domain, and ``cycle_a`` and ``cycle_b``.
      batch: uint8 images of both.
    """
    levels = {name: np.rint(np.clip(x + 1, 0, 2) * 127.5).astype(np.uint8) for name, x in outputs.items()}
    return {
        f"{here}_to_{there}": sheet({here: batch[here], f"to {there}": levels[there], "back": levels[f"cycle_{here}"]})
        for here, there in ("ab", "ba")
    }


def outline(
    images: UInt8[np.ndarray, "N H W 3"], boxes: Float[np.ndarray, "N 4"], colour: tuple[int, int, int] = (255, 0, 0)
) -> UInt8[np.ndarray, "N H W 3"]:
    """Draws the edge of a box on each image.

    Args:
      images: `[N, H, W, 3]`.
      boxes: of each, left, top, right and bottom edge in pixels from the upper left corner; what lies outside of the
        image is left away.
      colour: RGB of the edge, one pixel wide.
    """
    _check(images, "N H W C")
    drawn = []
    for image, (left, top, right, bottom) in zip(images, np.rint(boxes), strict=True):
        canvas = Image.fromarray(image)
        ImageDraw.Draw(canvas).rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour)
        drawn.append(np.asarray(canvas))
    return np.stack(drawn)


def outlined(
    images: UInt8[np.ndarray, "N H W C"], boxes: Mapping[tuple[int, int, int], Float[np.ndarray, "N 4"]]
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """A grid of images with the edges of boxes on each.

    Args:
      images: `[N, H, W, C]`; small ones are enlarged, as often as 96 pixels hold their height.
      boxes: by colour, as `outline` takes them; later ones lie on earlier ones.
    """
    _check(images, "N H W C")
    scale = max(1, 96 // images.shape[1])
    shown = _enlarge(np.broadcast_to(images, (*images.shape[:-1], 3)), scale)
    for colour, edges in boxes.items():
        shown = outline(shown, scale * edges, colour)
    return grid(shown)


def skeletons(
    poses: Float[np.ndarray, "N T J 2"], limbs: Sequence[tuple[int, int, int, int]], *, size: int, scale: int
) -> UInt8[np.ndarray, "N T S S 3"]:
    """Poses as lines on a dark ground, limbs in colours of their own.

    Args:
      poses: row and column of joints in pixels of frames of ``size``.
      limbs: each from the middle of two joints to the middle of two others.
      size: height and width of the frames.
      scale: how much larger they are drawn.
    """
    colours = [colorsys.hsv_to_rgb(0.8 * k / len(limbs), 0.6, 1.0) for k in range(len(limbs))]
    inks = [tuple(round(255 * part) for part in colour) for colour in colours]
    ends = np.array(limbs)
    places = scale * (np.stack([poses[..., ends[:, two], :].mean(axis=-2) for two in ((0, 1), (2, 3))], axis=-2) + 0.5)

    def drawn(lines: np.ndarray) -> np.ndarray:
        canvas = Image.new("RGB", (size * scale,) * 2, (_CELL,) * 3)
        for line, ink in zip(lines, inks, strict=True):
            ImageDraw.Draw(canvas).line([(column, row) for row, column in line], ink, max(1, scale // 2))
        return np.asarray(canvas)

    return np.stack([[drawn(lines) for lines in clip] for clip in places])


def write_png(path: str | os.PathLike[str], image: UInt8[np.ndarray, "H W C"]) -> None:
    """Writes one image as PNG."""
    _check(image, "H W C")
    buffer = io.BytesIO()
    _picture(image).save(buffer, "PNG")
    replace_file(path, buffer.getvalue())


def write_gif(
    path: str | os.PathLike[str], video: UInt8[np.ndarray, "T H W C"], *, fps: float | int = 8, scale: int = 1
) -> None:
    """Writes a video as an animated GIF that repeats; the options are those of `encode_gif`."""
    replace_file(path, encode_gif(video, fps=fps, scale=scale))


def encode_gif(video: UInt8[np.ndarray, "T H W C"], *, fps: float | int = 8, scale: int = 1) -> bytes:
    """Returns a video as an animated GIF that repeats, with a longer look at its last frame.

    Frames with at most 256 colours, grey ones among them, are kept exactly; others lose some to the palette.

    Args:
      video: `[T, H, W, C]`.
      fps: frames per second, in (0, 50]: viewers slow faster GIFs down. GIF counts time in 1/100 s.
      scale: whole-number enlargement, by repeating pixels, so that small videos can be seen.
    """
    _check(video, "T H W C")
    if not 0 < fps <= 50:
        raise InputError(f"fps: got {fps}, expected more than 0 and at most 50, all that GIF viewers show.")
    first, *rest = [_palette(_picture(frame)) for frame in _enlarge(video, scale)]
    milliseconds = 10 * round(100 / fps)
    buffer = io.BytesIO()
    durations = [milliseconds] * len(rest) + [milliseconds + 500]
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return buffer.getvalue()


def _check(array: Any, axes: str, name: str = "picture") -> None:
    shape, dtype = np.shape(array), getattr(array, "dtype", type(array).__name__)
    if dtype != np.uint8 or len(shape) != len(axes.split()) or shape[-1] not in (1, 3) or 0 in shape:
        raise InputError(
            f"{name}: got {dtype}{list(shape)}, expected uint8[{axes}] with 1 or 3 channels and no empty "
            f"axis; floats in [-1, 1] become np.uint8(np.clip(127.5 * x + 128, 0, 255))."
        )


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _palette(image: Image.Image) -> Image.Image:
    if image.mode == "L":
        return image
    # Median cut keeps up to 256 colours exactly; of more it drops small patches, and is much slower.
    few = image.getcolors(256) is not None
    return image.quantize(256, Image.Quantize.MEDIANCUT if few else Image.Quantize.FASTOCTREE)


def _enlarge(frames: np.ndarray, scale: int) -> np.ndarray:
    return frames.repeat(scale, -3).repeat(scale, -2)


def _play(video: np.ndarray, start: int, length: int) -> np.ndarray:
    """The video from frame `start` on: blank before, its last frame after its end."""
    after = length - start - video.shape[1]
    held = np.pad(video, [(0, 0), (0, after), (0, 0), (0, 0), (0, 0)], "edge")
    return np.pad(held, [(0, 0), (start, 0), (0, 0), (0, 0), (0, 0)], constant_values=_CELL)


def _header(labels: list[str], width: int, gap: int, channels: int) -> np.ndarray:
    """The strip above the columns, with each label over the middle of its column."""
    font = ImageFont.load_default(12)
    strip = Image.new("L", (len(labels) * (width + gap) + gap, 18 + gap), _PAGE)
    draw = ImageDraw.Draw(strip)
    for column, label in enumerate(labels):
        middle = gap + column * (width + gap) + width / 2
        draw.text((middle, 9 + gap / 2), label, _INK, font, "mm")
    return np.asarray(strip)[..., None].repeat(channels, -1)
