"""Clips for predictors of video: which set, how it is opened, parts of them, the first of them to be looked at.

What a predictor reads is one thing, whatever the set: `open_clips` and `training_clips`. In training so many frames
from anywhere in each clip, in testing its first ones; clips may differ in length.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

import grain
import numpy as np

from seqjax.data.augment import first_frames, frames_somewhere
from seqjax.data.pipeline import train_batches
from seqjax.data.source import Record, SkipDamaged, Source, first, in_memory, mapped, open_source
from seqjax.errors import InputError


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
    test_name: str | None = None
    """Data set that it is of, where that is not the one for training: moving_mnist of TFDS, which has nothing else."""
    test_config: str | None = None
    """Configuration of that data set; its own default if None."""
    data_dir: str | None = None
    """Where prepared sets are; TFDS's own choice if None."""
    in_memory: bool = True
    """Whether the training clips are read once and kept in memory, for which they have to be of one length."""
    batch: int = 4
    """Clips per optimiser step, over all devices."""
    damaged: float = 0.01
    """Largest share of a split that may be damaged on disk; such clips are skipped and named."""


def open_split(data: Clips, split: str) -> Source:
    """The clips of one split of the set for training."""
    return _open(data, data.name, data.config, split)


def open_test(data: Clips) -> Source:
    """The clips that are held out."""
    return _open(data, *((data.test_name, data.test_config) if data.test_name else (data.name, data.config)), data.test)


def _open(data: Clips, name: str, config: str | None, split: str) -> Source:
    return SkipDamaged(open_source(name, split=split, config=config, data_dir=data.data_dir), data.damaged)


def open_clips(data: Clips, *, frames: int, key: str = "video", marks: Collection[str] = ()) -> tuple[Source, Source]:
    """Whole clips for training, and so many first frames of those that are held out.

    Args:
      data: which clips.
      frames: how many.
      key: what is read of a record, such as ``percepts``, features of its frames.
      marks: what else is kept of those held out, where they have it; it has one entry a frame.

    Raises:
      InputError: their frames differ in shape, by the first clip of each. From the held-out ones, a clip is shorter.
    """
    begin = functools.partial(beginning, frames=frames, key=key, marks=marks)
    train, test = mapped(open_split(data, "train"), functools.partial(alone, key=key)), mapped(open_test(data), begin)
    shapes = [source[0][key].shape[1:] for source in (train, test)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"data: frames for training are of shape {shapes[0]} and those for testing of shape {shapes[1]}: choose "
            "sets, or configurations of them, that have one shape."
        )
    return in_memory(train) if data.in_memory else train, test


def training_clips(
    source: Source,
    data: Clips,
    *,
    frames: int,
    seed: int,
    cut: Callable[..., Record] = frames_somewhere,
    **options: Any,
) -> grain.DatasetIterator:
    """Batches of so many frames from anywhere in each clip, shuffled.

    Args:
      source: the clips for training, of `open_clips`.
      data: what says how many are a batch.
      frames: of each clip, which are all in their order where it has no more.
      seed: of the order and of what is cut out.
      cut: ``cut(record, rng, frames=frames)``, how that is done, such as a ``patch_somewhere``.
      **options: those of `train_batches`: the first step, steps per call, this process's place among others.

    Raises:
      InputError: a clip is shorter.
    """
    augment = functools.partial(cut, frames=frames)
    return train_batches(source, batch_size=data.batch, seed=seed, augment=augment, **options)


def first_clips(source: Source, number: int) -> Record:
    """One batch of the first clips, the same on every process."""
    return first(source, number, "video")


def alone(record: Record, *, key: str) -> Record:
    """The clip of a record, of whose other fields not all sets have the same."""
    return {key: record[key]}


def beginning(record: Record, *, frames: int, key: str = "video", marks: Collection[str] = ()) -> Record:
    """So many first frames of a clip, and of those ``marks`` that it has as many entries.

    Raises:
      InputError: the clip is shorter.
    """
    kept = first_frames(record, frames=frames, key=key)
    return {name: kept[name][:frames] for name in (key, *marks) if name in kept}


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
