"""Frames out of video files, and out of folders that hold one picture per frame; files that cannot be read left out.

Videos are decoded by PyAV, which brings FFmpeg with it: ``pip install "seqjax[video]"``.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from seqjax.errors import InputError

VIDEOS = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
"""Endings of files that are tried as videos."""
PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of files that are tried as frames."""

Frames = UInt8[np.ndarray, "T H W C"]
Found = TypeVar("Found")

_log = logging.getLogger(__name__)


def read_video(file: Path, *, size: int, channels: int, square: bool = True) -> Frames:
    """All frames of the first stream of a video, at a size at which they fit into memory.

    Args:
      file: of any format that FFmpeg decodes.
      size: height and width of what comes out, in pixels; frames are resized bilinearly.
      channels: 1 for grey (luma of ITU-R BT.601) or 3 for RGB.
      square: whether the largest square in the middle of the frames is taken; the whole is squeezed otherwise.

    Raises:
      InputError: PyAV is not installed; the file cannot be decoded, or has no frame.
    """
    av = _av()
    try:
        with av.open(str(file)) as container:
            decoded = container.decode(video=0)
            frames = [_picture(frame.to_image(), size, channels, square) for frame in decoded]
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        raise InputError(_unreadable(file, error)) from error
    if not frames:
        raise InputError(_unreadable(file, ValueError("it has no frame")))
    return np.stack(frames)


def read_pictures(folder: Path, *, size: int, channels: int, square: bool = True) -> Frames:
    """The pictures of a folder as frames, in the order of their names, numbers in them by value: 2 before 10.

    Arguments as of `read_video`.

    Raises:
      InputError: there is none, or one cannot be read.
    """
    frames = []
    for file in sorted(pictures(folder), key=by_number):
        try:
            with Image.open(file) as picture:
                frames.append(_picture(picture, size, channels, square))
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(_unreadable(file, error)) from error
    if not frames:
        raise InputError(f"{folder} has no pictures: give files with one of the endings {', '.join(PICTURES)}.")
    return np.stack(frames)


def pictures(folder: Path) -> list[Path]:
    """The files of a folder, not of those in it, that are tried as frames."""
    return [file for file in folder.iterdir() if file.suffix.lower() in PICTURES]


def by_number(file: Path) -> list[tuple[int, int | str]]:
    """A key to sort files by, as people read their paths."""
    parts = re.split(r"(\d+)", file.as_posix())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def cut(video: Shaped[np.ndarray, "T *S"], frames: int) -> Iterator[Shaped[np.ndarray, "{frames} *S"]]:
    """Consecutive clips of so many frames from the beginning on; what is left at the end is in none."""
    for start in range(0, len(video) - frames + 1, frames):
        yield video[start : start + frames]


class LeftOut:
    """The files of a split that cannot be read: left out, counted and named.

    Args:
      split: whose files they are.
      files: how many it has.
      most: largest share of them that may be damaged; of more the download or the disk is to blame.
    """

    def __init__(self, split: str, files: int, most: float = 0.1) -> None:
        self.damaged: list[str] = []
        """The reasons, which name the files."""
        self._split, self._files, self._most = split, files, most

    def attempt(self, read: Callable[..., Found], *arguments: Any, **options: Any) -> Found | None:
        """What ``read`` gives for a file, or None of one that is damaged.

        Raises:
          InputError: what decodes such files is not installed.
        """
        try:
            return read(*arguments, **options)
        except InputError as error:
            if isinstance(error.__cause__, ImportError):
                raise
            self.damaged.append(str(error))
            return None

    def tell(self, advice: str = "") -> None:
        """A warning where some files are damaged.

        Raises:
          InputError: too many are; it ends with the advice.
        """
        reasons = f"{len(self.damaged)} of {self._files} cannot be read: {listed(self.damaged, most=20)}"
        if len(self.damaged) > self._most * self._files:
            raise InputError(f"{self._split}: more than {self._most:.0%} are damaged. {reasons} {advice}".rstrip())
        if self.damaged:
            _log.warning("Left out of %s, %s", self._split, reasons)


def listed(reasons: Iterable[str], most: int = 5) -> str:
    """So many reasons, and how many there are beyond."""
    reasons = list(reasons)
    rest = len(reasons) - most
    return "; ".join(reasons[:most]) + (f"; and {rest} more" if rest > 0 else "")


def _picture(picture: Image.Image, size: int, channels: int, square: bool) -> UInt8[np.ndarray, "H W C"]:
    if square:
        side = min(picture.size)
        left, top = ((length - side) // 2 for length in picture.size)
        picture = picture.crop((left, top, left + side, top + side))
    # Colours of a palette cannot be mixed, and transparency is none of them.
    picture = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture.convert("L") if channels == 1 else picture).reshape(size, size, channels)


def _unreadable(file: Path, error: Exception) -> str:
    return f"{file} cannot be read ({' '.join(str(error).split())}): fetch it again, or take it away."


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise InputError(
            'Videos are decoded by PyAV, which is not installed: run `pip install "seqjax[video]"` and try again, or '
            "give folders with a picture per frame."
        ) from error
    return av
