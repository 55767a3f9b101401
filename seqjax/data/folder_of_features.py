"""Any folder of features that a network has made of frames, as a tfds data set.

A file for each clip or video: ``.npy`` with an array ``[T, D]`` of real numbers, a row for each frame, or ``.npz`` with
one such array, in the folders ``train``, ``validation`` (or ``val``) and ``test``, which are the splits. They are read
once, when the set is prepared, and cut into sequences of one length.
"""

import dataclasses
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float

from seqjax.data.folder_of_clips import SPLITS, tell_short
from seqjax.data.video_files import LeftOut, by_number, cut
from seqjax.errors import InputError

ARRAYS = (".npy", ".npz")
"""Endings of files that are read."""


@dataclasses.dataclass(eq=False, kw_only=True)
class FolderOfFeaturesConfig(tfds.core.BuilderConfig):
    """Which folder, and how sequences come out; each field changes what is on disk.

    Raises:
      InputError: a folder that is no plain name, numbers out of range, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, ``percepts_64_20frames``, and spells them where a set is asked
    for by name."""
    folder: str = "percepts"
    """Name of the folder."""
    features: int = 64
    """Of each frame."""
    frames: int = 20
    """Length of a sequence: a file is cut into as many as it has room for."""

    def __post_init__(self) -> None:
        if not self.folder.isidentifier():
            raise InputError(f"folder={self.folder!r} in a FolderOfFeaturesConfig: give letters, digits, underscores.")
        for field in ("features", "frames"):
            if getattr(self, field) < 1:
                raise InputError(f"{field}={getattr(self, field)} in a FolderOfFeaturesConfig: give 1 or more.")
        spelt = f"{self.folder}_{self.features}_{self.frames}frames"
        if self.name not in ("", spelt):
            raise InputError(f"name={self.name!r} in a FolderOfFeaturesConfig: leave it out, it follows from the rest.")
        self.name = spelt


class FolderOfFeatures(tfds.core.GeneratorBasedBuilder):
    """The sequences of a ``FolderOfFeaturesConfig``, in the order of their paths; prepared without TensorFlow.

    A record has ``percepts`` float32 ``[T, D]`` and ``index`` int64, which of the split's files it is cut from:
    ``info.metadata`` has their paths below the folder, by split, under ``files``. A file that cannot be read, holds no
    array ``[T, D]`` or numbers that are not finite, and one that is too short, is left out, counted and named, in a
    warning and under ``damaged`` and ``short`` there. It is an error where more than half of a split's files are
    damaged, or nothing is left of it.
    """

    name = "folder_of_features"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [
        FolderOfFeaturesConfig(features=64),
        FolderOfFeaturesConfig(features=4096, frames=29),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put a file ({' or '.join(ARRAYS)}) with an array [T, D] for each clip, its features by frame, into the "
        "folders train and test of the one named in the configuration, percepts unless said otherwise. `python -m "
        "experiments.prediction.percepts` makes such files of any clips."
    )

    def __init__(self, *, config: str | tfds.core.BuilderConfig | None = None, **options: Any) -> None:
        spelt = re.fullmatch(r"(\w+)_(\d+)_(\d+)frames", config) if isinstance(config, str) else None
        if spelt and config not in self.builder_configs:
            folder, features, frames = spelt.groups()
            config = FolderOfFeaturesConfig(folder=folder, features=int(features), frames=int(frames))
        super().__init__(config=config, **options)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        return tfds.core.DatasetInfo(
            builder=self,
            description="Features of frames, of one's own.",
            features=tfds.features.FeaturesDict(
                {
                    "percepts": tfds.features.Tensor(
                        shape=(config.frames, config.features), dtype=np.float32, encoding="zlib"
                    ),
                    "index": tfds.features.Scalar(dtype=np.int64),
                }
            ),
            metadata=tfds.core.MetadataDict(files={}, damaged={}, short={}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        root = Path(dl_manager.manual_dir) / self.builder_config.folder
        splits: dict[str, list[Path]] = {"train": []}
        for folder, split in SPLITS.items():
            files = [file for file in (root / folder).rglob("*") if file.suffix.lower() in ARRAYS]
            if files:
                splits[split] = splits.get(split, []) + files
        if not splits["train"]:
            raise InputError(f"{root / 'train'} has no {' and no '.join(ARRAYS)}. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        return {
            split: self._generate_examples(root, split, sorted(files, key=by_number)) for split, files in splits.items()
        }

    def _generate_examples(self, root: Path, split: str, files: list[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
        frames, sequences = self.builder_config.frames, 0
        left_out, short = LeftOut(split, len(files), most=0.5), list[str]()
        paths = [file.relative_to(root).as_posix() for file in files]
        for i, (file, path) in enumerate(zip(files, paths, strict=True)):
            percepts = left_out.attempt(read, file, features=self.builder_config.features)
            if percepts is None:
                continue
            if len(percepts) < frames:
                short.append(f"{path} ({len(percepts)} frames)")
            for sequence in cut(percepts, frames):
                yield sequences, {"percepts": sequence, "index": i}
                sequences += 1
        left_out.tell()
        tell_short(split, kept=sequences, files=len(files), short=short, frames=frames)
        self.info.metadata["files"][split] = paths
        self.info.metadata["damaged"][split] = left_out.damaged
        self.info.metadata["short"][split] = short


def folder_in(data_dir: str | os.PathLike[str] | None, folder: str) -> Path:
    """Where the set looks for a folder of features: below the directory of prepared sets, TFDS's own choice if None."""
    return Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / "downloads" / "manual" / folder


def read(file: Path, *, features: int) -> Float[np.ndarray, "T D"]:
    """The array of a file, as float32.

    Raises:
      InputError: it cannot be read, or is none of finite real numbers with so many features.
    """
    try:
        with file.open("rb") as opened:
            loaded = np.load(opened, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                (name,) = loaded.files
                loaded = loaded[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file} cannot be read as one array ({reason}): make it again, or take it away.") from error
    if loaded.ndim != 2 or loaded.shape[1] != features or loaded.dtype.kind not in "fiu":
        raise InputError(
            f"{file} has {loaded.dtype}{list(loaded.shape)}; expected real numbers [T, {features}]: make it again, or "
            "give its number of features."
        )
    with np.errstate(over="ignore"):
        percepts = loaded.astype(np.float32)
    if not np.isfinite(percepts).all():
        raise InputError(f"{file} has numbers that are not finite, as float32: make it again, or take it away.")
    return percepts
