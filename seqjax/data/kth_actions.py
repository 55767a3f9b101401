"""KTH's human actions, as clips in grey, made from local files.

C. Schüldt, I. Laptev, B. Caputo, "Recognizing Human Actions: A Local SVM Approach", ICPR 2004: six actions by 25 people
in four scenarios, 160x120 at 25 frames per second. A text file says from which frame to which somebody is to be seen
in each of the videos, mostly four times. People 1 to 16 are for training and 17 to 25 for testing, as predictors of
video have it (R. Villegas et al., "Decomposing Motion and Content", ICLR 2017; E. Denton, R. Fergus, 2018).
"""

import dataclasses
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from seqjax.data.video_files import LeftOut, by_number, cut, read_video
from seqjax.errors import InputError

ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
"""By label."""
PEOPLE = {"train": range(1, 17), "test": range(17, 26)}
"""By split."""
RANGES = "00sequences.txt"
"""Name of the text file."""

Ranges = Mapping[str, list[tuple[int, int]]]
"""By video, such as ``person01_boxing_d1``, first and last frame of each sequence, counted from 1."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False, kw_only=True)
class KTHActionsConfig(tfds.core.BuilderConfig):
    """Size and length of the clips; each field changes what is on disk.

    Raises:
      InputError: a number below 1, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    size: int = 128
    """Height and width in pixels, to which the frames are squeezed."""
    frames: int = 30
    """Length of a clip: a sequence is cut into as many as it has room for, and those that are shorter are left out."""

    def __post_init__(self) -> None:
        for field in ("size", "frames"):
            if getattr(self, field) < 1:
                raise InputError(f"{field}={getattr(self, field)} in a KTHActionsConfig: give 1 or more.")
        spelt = f"{self.size}x{self.size}_{self.frames}frames"
        if self.name not in ("", spelt):
            raise InputError(f"name={self.name!r} in a KTHActionsConfig: leave it out, it follows from the rest.")
        self.name = spelt


class KTHActions(tfds.core.GeneratorBasedBuilder):
    """The clips of a ``KTHActionsConfig``, by video and sequence; prepared without TensorFlow.

    A record has ``video`` uint8 ``[T, H, W, 1]``, ``label`` int64 (of ``ACTIONS``), ``person`` int64 from 1 to 25,
    ``scenario`` int64 from 1 to 4 (outdoors, with another scale, in other clothes, indoors) and ``sequence`` int64,
    which of the video's it is cut from, counted from 1. Videos that cannot be read are left out, counted and named, in
    a warning and by split under ``damaged`` in ``info.metadata``; more than one in ten of a split are an error.
    """

    name = "kth_actions"
    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.1.0": "Damaged videos are left out and listed.", "1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [KTHActionsConfig(), KTHActionsConfig(size=64)]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Make the folder kth_actions there and put {RANGES} into it, and the videos of boxing.zip, handclapping.zip, "
        "handwaving.zip, jogging.zip, running.zip and walking.zip, in folders or not, from "
        "https://www.csc.kth.se/cvap/actions/."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        size, number = self.builder_config.size, tfds.features.Scalar(dtype=np.int64)
        clip = (self.builder_config.frames, size, size, 1)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Six actions by 25 people.",
            features=tfds.features.FeaturesDict(
                {"video": tfds.features.Tensor(shape=clip, dtype=np.uint8, encoding="zlib")}
                | dict.fromkeys(("label", "person", "scenario", "sequence"), number)
            ),
            metadata=tfds.core.MetadataDict(damaged={}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        root = Path(dl_manager.manual_dir) / "kth_actions"
        ranges = read_ranges(root / RANGES)
        files = {split: videos(root, people) for split, people in PEOPLE.items()}
        for split, found in files.items():
            if not found:
                raise InputError(f"{root} has no videos of people for {split}. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        return {split: self._generate_examples(split, found, ranges) for split, found in files.items()}

    def _generate_examples(self, split: str, files: list[Path], ranges: Ranges) -> Iterator[tuple[int, dict[str, Any]]]:
        clips, left_out = 0, LeftOut(split, len(files))
        for file in files:
            for record in self._clips(file, ranges, left_out):
                yield clips, record
                clips += 1
        left_out.tell(self.MANUAL_DOWNLOAD_INSTRUCTIONS)
        self.info.metadata["damaged"][split] = left_out.damaged
        if not clips:
            raise InputError(
                f"No sequence in {len(files)} videos has frames={self.builder_config.frames}: give fewer in a "
                "KTHActionsConfig."
            )

    def _clips(self, file: Path, ranges: Ranges, left_out: LeftOut) -> Iterator[dict[str, Any]]:
        stem = file.stem.removesuffix("_uncomp")
        if stem not in ranges:
            raise InputError(f"{file} is not in {RANGES}: fetch that anew, or take the video away.")
        person, action, scenario = _parts(stem)
        marks = {"label": ACTIONS.index(action), "person": person, "scenario": scenario}
        video = left_out.attempt(read_video, file, size=self.builder_config.size, channels=1, square=False)
        if video is None:
            return
        for number, (first, last) in enumerate(ranges[stem], 1):
            if last > len(video):
                _log.info("%s ends at frame %d, before sequence %d does (%d)", file, len(video), number, last)
            for clip in cut(video[first - 1 : last], self.builder_config.frames):
                yield {"video": clip, "sequence": number, **marks}


def read_ranges(file: Path) -> Ranges:
    """The frames of each video, from lines such as ``person01_boxing_d1  frames  1-95, 96-185``.

    Raises:
      InputError: the file is not there, or has no such line.
    """
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error}). {KTHActions.MANUAL_DOWNLOAD_INSTRUCTIONS}") from error
    found = (re.match(r"\s*(person\d\d_[a-z]+_d\d)\s+frames\s+(.*)", line) for line in lines)
    ranges = {
        match[1]: [(int(first), int(last)) for first, last in re.findall(r"(\d+)\s*-\s*(\d+)", match[2])]
        for match in found
        if match
    }
    if not ranges:
        raise InputError(
            f"{file} has no line such as 'person01_boxing_d1 frames 1-95, 96-185'. "
            f"{KTHActions.MANUAL_DOWNLOAD_INSTRUCTIONS}"
        )
    return ranges


def videos(root: Path, people: range) -> list[Path]:
    """The videos of these people, by name, in whatever folders."""
    named = (file for file in root.rglob("person*.avi") if re.fullmatch(r"person\d\d_[a-z]+_d\d(_uncomp)?", file.stem))
    chosen = [file for file in named if _parts(file.stem)[0] in people and _parts(file.stem)[1] in ACTIONS]
    return sorted(chosen, key=lambda file: by_number(Path(file.name)))


def _parts(stem: str) -> tuple[int, str, int]:
    """Person, action and scenario of a video's name."""
    person, action, scenario, *_ = stem.split("_")
    return int(person.removeprefix("person")), action, int(scenario.removeprefix("d"))
