"""Any folder of videos, or of folders with a picture per frame, as a tfds data set.

Each is decoded once, when the set is prepared, brought to one size, and cut into clips of one length, so that whatever
takes clips can take one's own. Where the folder has one named ``train``, its folders ``train``, ``validation`` (or
``val``) and ``test`` are the splits. Otherwise a hash of each video's path decides, so that adding videos moves none
of those that were there, and all clips of a video are in one split.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from seqjax.data.video_files import VIDEOS, LeftOut, by_number, cut, listed, pictures, read_pictures, read_video
from seqjax.errors import InputError

SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""Folders that are splits, and what these are called."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False, kw_only=True)
class FolderOfClipsConfig(tfds.core.BuilderConfig):
    """Which folder, and how clips come out; each field changes what is on disk.

    Raises:
      InputError: a folder that is no plain name, numbers out of range, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    folder: str = "clips"
    """Name of the folder."""
    size: int = 64
    """Height and width in pixels, to which the largest square in the middle of the frames is resized."""
    channels: int = 3
    """1 for grey, 3 for RGB."""
    frames: int = 20
    """Length of a clip: a video is cut into as many as it has room for."""
    validation: float = 0.1
    """Share of the videos for validation, where no folders say which."""
    test: float = 0.1
    """Share of the videos for testing, likewise."""

    def __post_init__(self) -> None:
        if not self.folder.isidentifier():
            raise InputError(f"folder={self.folder!r} in a FolderOfClipsConfig: give letters, digits and underscores.")
        for field in ("size", "frames"):
            if getattr(self, field) < 1:
                raise InputError(f"{field}={getattr(self, field)} in a FolderOfClipsConfig: give 1 or more.")
        if self.channels not in (1, 3):
            raise InputError(f"channels={self.channels} in a FolderOfClipsConfig: give 1 for grey or 3 for RGB.")
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 1:
            raise InputError(
                f"validation={self.validation} and test={self.test} in a FolderOfClipsConfig are no shares that leave "
                "some for training: give 0 or more, together below 1."
            )
        spelt = f"{self.folder}_{'grey' if self.channels == 1 else 'rgb'}_{self.size}_{self.frames}frames"
        if (self.validation, self.test) != (0.1, 0.1):
            spelt += f"_{self.validation}_{self.test}"
        if self.name not in ("", spelt):
            raise InputError(f"name={self.name!r} in a FolderOfClipsConfig: leave it out, it follows from the rest.")
        self.name = spelt


class FolderOfClips(tfds.core.GeneratorBasedBuilder):
    """The clips of a ``FolderOfClipsConfig``, in the order of their paths; prepared without TensorFlow.

    A record has ``video`` uint8 ``[T, H, W, C]`` and ``index`` int64, which of the split's videos it is cut from:
    ``info.metadata`` has their paths below the folder, by split, under ``files``. What cannot be read and what is too
    short is left out, counted and named, in a warning and under ``damaged`` and ``short`` there. Where more than half
    of a split's videos are damaged, or nothing is left of it, it is an error.
    """

    name = "folder_of_clips"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [
        FolderOfClipsConfig(size=size, channels=channels) for size in (64, 128) for channels in (3, 1)
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put videos ({', '.join(VIDEOS)}), or folders with a picture for each frame, into the folder named in the "
        "configuration, clips unless said otherwise; those for testing may be in a folder test of it, if those for "
        "training are in train."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        clip = (config.frames, config.size, config.size, config.channels)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Clips of one's own.",
            features=tfds.features.FeaturesDict(
                {
                    "video": tfds.features.Tensor(shape=clip, dtype=np.uint8, encoding="zlib"),
                    "index": tfds.features.Scalar(dtype=np.int64),
                }
            ),
            metadata=tfds.core.MetadataDict(files={}, damaged={}, short={}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        config = self.builder_config
        root = Path(dl_manager.manual_dir) / config.folder
        found = find(root)
        if not found:
            raise InputError(f"{root} has no videos and no pictures. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        splits = share_out(root, found, {"validation": config.validation, "test": config.test})
        return {split: self._generate_examples(root, split, files) for split, files in splits.items()}

    def _generate_examples(self, root: Path, split: str, files: list[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
        config, clips = self.builder_config, 0
        left_out, short = LeftOut(split, len(files), most=0.5), list[str]()
        paths = [file.relative_to(root).as_posix() for file in files]
        for i, (file, path) in enumerate(zip(files, paths, strict=True)):
            read = read_pictures if file.is_dir() else read_video
            video = left_out.attempt(read, file, size=config.size, channels=config.channels)
            if video is None:
                continue
            if len(video) < config.frames:
                short.append(f"{path} ({len(video)} frames)")
            for clip in cut(video, config.frames):
                yield clips, {"video": clip, "index": i}
                clips += 1
        left_out.tell()
        tell_short(split, kept=clips, files=len(files), short=short, frames=config.frames)
        self.info.metadata["files"][split] = paths
        self.info.metadata["damaged"][split] = left_out.damaged
        self.info.metadata["short"][split] = short


def tell_short(split: str, *, kept: int, files: int, short: Collection[str], frames: int) -> None:
    """A warning where some of the files of a split are too short.

    Args:
      split: its name.
      kept: clips that there are.
      files: of the split.
      short: names and lengths of those shorter than ``frames``.
      frames: length of a clip.

    Raises:
      InputError: nothing is kept.
    """
    reasons = f"{len(short)} of {files} are shorter than frames={frames}: {listed(short)}"
    if not kept:
        raise InputError(f"Nothing is left for {split}. {reasons}")
    if short:
        _log.warning("Left out of %s, %s", split, reasons)


def find(root: Path) -> list[Path]:
    """Videos, and folders of pictures, anywhere below a folder, in the order of their paths."""
    files = [root, *root.rglob("*")] if root.is_dir() else []
    found = [file for file in files if (pictures(file) if file.is_dir() else file.suffix.lower() in VIDEOS)]
    return sorted(found, key=by_number)


def share_out(root: Path, files: list[Path], shares: dict[str, float]) -> dict[str, list[Path]]:
    """Videos by split: that of the folder that they are in, or a hash of the path below the root decides.

    A video is for the first split up to which the shares sum to more than ``h / 2⁶⁴``, h being the first eight bytes of
    the SHA-256 of its path, and for training if there is none.

    Raises:
      InputError: there are too few videos for one in each split.
    """
    below = {file: file.relative_to(root) for file in files}
    if (root / "train").is_dir():
        splits: dict[str, list[Path]] = {}
        for file, path in below.items():
            if path.parts and path.parts[0] in SPLITS:
                splits.setdefault(SPLITS[path.parts[0]], []).append(file)
    else:
        splits = {"train": [], **{split: [] for split, share in shares.items() if share}}
        for file, path in below.items():
            splits[_drawn(path.as_posix(), shares)].append(file)
    if empty := [split for split, chosen in {"train": [], **splits}.items() if not chosen]:
        raise InputError(
            f"{root}: of {len(files)} videos none is for {' and '.join(empty)}. Give more of them, other shares in a "
            "FolderOfClipsConfig, or folders train and test that say which are which."
        )
    return splits


def _drawn(path: str, shares: dict[str, float]) -> str:
    place, total = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") / 2**64, 0.0
    for split, share in shares.items():
        total += share
        if place < total:
            return split
    return "train"
