"""Clips for predictors of video: which set, how it is opened, parts of them, the first of them to be looked at."""

import dataclasses
from collections.abc import Collection

import numpy as np

from seqjax.data.source import Record, SkipDamaged, Source, open_source


@dataclasses.dataclass(frozen=True)
class Clips:
    """Which clips."""

    name: str = "moving_digits"
    """Data set: moving_digits, kth_actions, folder_of_clips (one's own; both by ``seqjax[video]``), or any video
    set of the TFDS catalogue with a train and a test split, such as ucf101 and bair_robot_pushing_small, which
    ``seqjax[prepare]`` prepares and nothing more is needed to read."""
    config: str | None = "one_32"
    """Configuration of the data set; its own default if None."""
    test: str = "test"
    """Split that is held out, or a part of one, such as test[:100]."""
    data_dir: str | None = None
    """Where prepared sets are; TFDS's own choice if None."""
    in_memory: bool = True
    """Whether the training clips are read once and kept in memory."""
    batch: int = 4
    """Clips per optimiser step, over all devices."""
    damaged: float = 0.01
    """Largest share of a split that may be damaged on disk; such clips are skipped and named."""


def open_split(data: Clips, split: str) -> Source:
    """The clips of one split."""
    return SkipDamaged(open_source(data.name, split=split, config=data.config, data_dir=data.data_dir), data.damaged)


def first_clips(source: Source, number: int) -> dict[str, np.ndarray]:
    """One batch of the first clips, the same on every process."""
    return {"video": np.stack([source[i]["video"] for i in range(min(number, len(source)))])}


def video_alone(record: Record) -> Record:
    """The clip of a record, of whose other fields not all sets have the same."""
    return {"video": record["video"]}


def window(record: Record, *, keys: Collection[str], start: int, frames: int) -> Record:
    """So many frames of a clip, those ``keys`` that have one entry a frame cut, others left out; after the clip's end
    its last frame again and again."""
    length = len(record[next(iter(keys))])
    return {key: record[key][np.minimum(np.arange(start, start + frames), length - 1)] for key in keys}


def any_window(record: Record, rng: np.random.Generator, *, keys: Collection[str], frames: int) -> Record:
    """`window` from anywhere, past the end only where the clip is too short."""
    spare = len(record[next(iter(keys))]) - frames
    return window(record, keys=keys, start=int(rng.integers(max(spare, 0) + 1)), frames=frames)


def any_pair(record: Record, rng: np.random.Generator, *, keys: Collection[str], gap: int) -> Record:
    """Two frames of a clip, 1 to ``gap`` apart: first the gap is drawn, cut to what the clip has, then the place."""
    length = len(record[next(iter(keys))])
    apart = min(int(rng.integers(1, gap + 1)), length - 1)
    first = int(rng.integers(length - apart))
    return {key: record[key][[first, first + apart]] for key in keys}
