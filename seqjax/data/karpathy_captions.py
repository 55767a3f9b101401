"""Flickr8k, Flickr30k and COCO with the captions and splits of Karpathy and Fei-Fei, made from local files.

A. Karpathy, L. Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions", CVPR 2015: the splits by
which captioning and retrieval are compared, in one JSON file per set. Any set in that layout will do:

    {"images": [{"filename": .., "filepath": .., "split": .., "sentences": [{"raw": ..}, ..]}, ..]}

with ``filepath``, the folder below the set's, where images lie in several.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from seqjax.errors import InputError

FOLDERS = ("flickr8k", "flickr30k", "coco")
"""The published sets."""


@dataclasses.dataclass(eq=False, kw_only=True)
class KarpathyCaptionsConfig(tfds.core.BuilderConfig):
    """Which set.

    Raises:
      InputError: a folder that is no plain name, a name.
    """

    name: str = ""
    """Leave it out: it is the folder."""
    folder: str = "flickr8k"
    """Of a published set or of one's own."""

    def __post_init__(self) -> None:
        if not self.folder.isidentifier():
            raise InputError(f"folder={self.folder!r} in a KarpathyCaptionsConfig: give letters, digits, underscores.")
        if self.name not in ("", self.folder):
            raise InputError(f"name={self.name!r} in a KarpathyCaptionsConfig: leave it out, it is the folder.")
        self.name = self.folder


class KarpathyCaptions(tfds.core.GeneratorBasedBuilder):
    """Images of a ``KarpathyCaptionsConfig`` in the order of the file; prepared without TensorFlow.

    A record has ``image`` uint8 ``[H, W, 3]``, of the size that it has; ``captions``, texts as they were written, about
    five; and ``index`` int64, its place in the file. Splits are those of the file: ``train``, ``val``, ``test``, and of
    COCO ``restval``, which most add to the first: ``train+restval``.
    """

    name = "karpathy_captions"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [KarpathyCaptionsConfig(folder=folder) for folder in FOLDERS]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Unpack https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip so that dataset_SET.json "
        "lies there, SET being flickr8k, flickr30k or coco, and put the images into the folder SET beside it: those of "
        "Flickr8k and Flickr30k, which their authors hand out on request, directly, and COCO's, from "
        "http://images.cocodataset.org/zips/train2014.zip and val2014.zip, as coco/train2014 and coco/val2014."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Images with about five captions each.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "index": tfds.features.Scalar(dtype=np.int64),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        root, folder = Path(dl_manager.manual_dir), self.builder_config.folder
        entries = read(root / f"dataset_{folder}.json")
        splits = dict.fromkeys(entry["split"] for entry in entries)
        return {split: self._generate_examples(root / folder, entries, split) for split in splits}

    def _generate_examples(
        self, folder: Path, entries: list[dict[str, Any]], split: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, entry in enumerate(entries):
            if entry["split"] == split:
                picture = whole(folder / entry.get("filepath", "") / entry["filename"])
                yield i, {"image": picture, "captions": [text["raw"] for text in entry["sentences"]], "index": i}


def read(file: Path) -> list[dict[str, Any]]:
    """The entries of one of the JSON files.

    Raises:
      InputError: it is not there, or is none of that layout.
    """
    try:
        entries = json.loads(file.read_text())["images"]
        for entry in entries:
            if not (entry["filename"] and entry["split"] and all(text["raw"] for text in entry["sentences"])):
                raise ValueError(f"an entry of {entry['filename']!r} is empty")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} cannot be read as images with captions ({type(error).__name__}: {error}). "
            f"{KarpathyCaptions.MANUAL_DOWNLOAD_INSTRUCTIONS}"
        ) from error
    return entries


def whole(file: Path) -> Path | Image.Image:
    """The picture, as its file if that is in grey or RGB, so that nothing is lost, and converted to RGB otherwise.

    Raises:
      InputError: it is not there, or not whole.
    """
    try:
        with Image.open(file) as picture:
            picture.load()
            return file if picture.mode in ("L", "RGB") else picture.convert("RGB")
    except OSError as error:
        raise InputError(
            f"{file} cannot be read ({error}): fetch it again, or take it out of the JSON file. "
            f"{KarpathyCaptions.MANUAL_DOWNLOAD_INSTRUCTIONS}"
        ) from error
