"""Data sets by name, as sources of records that can be read in any order.

A record is a dict of NumPy arrays. A clip is under ``"video"``, uint8 ``[T, H, W, C]``, features of its frames under
``"percepts"``, float32 ``[T, D]``, a still under ``"image"``, uint8 ``[H, W, C]``, a pair of stills under ``"input"``
and ``"target"``. Sets for translation without pairs have splits ``trainA``, ``trainB``, ``testA``, ``testB`` of stills,
which ``train_batches`` takes together. Images with captions have texts under ``"captions"`` and a number of their own
under ``"index"``. What a set of TFDS nests is taken apart, ``"objects/label"``. The sets of this package are known by
name beside all of TFDS's. What is not on disk yet is prepared first, once, in the ``array_record`` format. Reading
needs no TensorFlow, nor does preparing this package's sets; some of TFDS's sets cannot be had without it.
"""

import difflib
import importlib
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError
from tensorflow_datasets.core.read_only_builder import builder_from_files
from tensorflow_datasets.core.registered import DatasetNotFoundError

from seqjax.data.binary_digits import BinaryDigits
from seqjax.data.bouncing_blob import BouncingBlob
from seqjax.data.cluttered_digits import ClutteredDigits
from seqjax.data.digit_directions import DigitDirections
from seqjax.data.digit_outlines import DigitOutlines
from seqjax.data.digit_styles import DigitStyles
from seqjax.data.digits import Digits
from seqjax.data.encoded_frames import EncodedFrames
from seqjax.data.folder_of_clips import FolderOfClips
from seqjax.data.folder_of_features import FolderOfFeatures
from seqjax.data.karpathy_captions import KarpathyCaptions
from seqjax.data.kth_actions import KTHActions
from seqjax.data.memory_tasks import AddingProblem, CopyMemory
from seqjax.data.moving_digits import MovingDigits
from seqjax.data.moving_discs import MovingDiscs
from seqjax.data.penn_action import PennAction
from seqjax.data.photographs import PhotographCrops, Textures
from seqjax.data.pix2pix import Pix2Pix
from seqjax.data.scenes import Scenes
from seqjax.data.stick_actions import StickActions
from seqjax.data.storms import Cam5Hurricanes, Storms
from seqjax.data.synthetic_speech import SyntheticSpeech
from seqjax.data.transduction import Transduction
from seqjax.errors import InputError

BUILDERS = (
    AddingProblem,
    BinaryDigits,
    BouncingBlob,
    Cam5Hurricanes,
    ClutteredDigits,
    CopyMemory,
    DigitDirections,
    DigitOutlines,
    DigitStyles,
    Digits,
    FolderOfClips,
    FolderOfFeatures,
    KTHActions,
    KarpathyCaptions,
    MovingDigits,
    MovingDiscs,
    PennAction,
    PhotographCrops,
    Pix2Pix,
    Scenes,
    StickActions,
    Storms,
    SyntheticSpeech,
    Textures,
    Transduction,
)
"""The sets of this package."""
VIDEO_KEYS = {"moving_mnist": "image_sequence", "bair_robot_pushing_small": "image_main", "ucf101": "video"}
"""What TFDS calls the clips of the sets that it may know only where there is TensorFlow."""
OTHER_NAMES = {
    **{name: {key: "video"} for name, key in VIDEO_KEYS.items()},
    "coco_captions": {"captions/text": "captions", "image/id": "index"},
}
"""What entries of TFDS's sets are called here."""
FEATURES = (EncodedFrames,)
"""Those that TFDS finds by name in the description of a set."""
PREPARED_BY_TENSORFLOW = ("bair_robot_pushing_small", "cycle_gan", "ucf101")
"""Sets for which TFDS, to prepare them, wants TensorFlow; of some it is noticed only after the download."""

Record = dict[str, np.ndarray]

_log = logging.getLogger(__name__)


@runtime_checkable
class Source(Protocol):
    """Records that can be read in any order, from several threads at once."""

    def __len__(self) -> int:
        """Number of records."""
        ...

    def __getitem__(self, index: int, /) -> Record:
        """Record ``index``, from 0; an InputError if it cannot be read."""
        ...


def open_source(
    name: str,
    *,
    split: str,
    config: str | tfds.core.BuilderConfig | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    only: Sequence[str] | None = None,
) -> Source:
    """The records of one split of a data set, which is prepared first if it is not on disk.

    Several processes may do this at once in one directory: each prepares in a directory of its own, the first to
    finish renames it into place, the others drop theirs and use the first's.

    Args:
      name: of one of ``BUILDERS``, such as ``"moving_digits"``, or of the TFDS catalogue.
      split: such as ``"train"``, or a part of one in the syntax of TFDS, ``"train[:80%]"``.
      config: one of the set's configurations by name, or a new one; the set's default unless given.
      data_dir: where prepared sets are; unless given, ``$TFDS_DATA_DIR`` or else ``~/tensorflow_datasets``.
      only: entries of the records, for who needs no others: images among those are not decoded. All unless given.

    Raises:
      InputError: unknown name, split or configuration; a set that needs TensorFlow, a download or files that are not
        there; a directory that cannot be written. Reading a record that is damaged on disk raises one too, unless
        ``SkipDamaged`` is put around the source.
    """
    builder = _find(name, config, data_dir)
    if not builder.is_prepared():
        _prepare(builder)
        builder = _find(name, config, data_dir)
    return _Prepared(builder, split, only)


def in_memory(source: Source) -> Source:
    """The same records, read and decoded once and kept in one array per key; made for small sets.

    The arrays of a record are read-only views of what is kept. Of a ``SkipDamaged`` it has the same ``damaged``,
    complete from the start.

    Raises:
      InputError: no records, or records whose keys, shapes or types differ from the first one's.
    """
    if not len(source):
        raise InputError("in_memory got a source without records: give one that has some.")
    first = source[0]
    arrays = {key: np.empty((len(source), *value.shape), value.dtype) for key, value in first.items()}
    for i in range(len(source)):
        record = source[i]
        if _layout(record) != _layout(first):
            raise InputError(
                f"in_memory needs records of one layout, but record {i} has {_layout(record)} and record 0 has "
                f"{_layout(first)}: bring them to one size first, or train from the source itself (in_memory=False)."
            )
        for key, value in record.items():
            arrays[key][i] = value
    for array in arrays.values():
        array.flags.writeable = False
    return _InMemory(arrays, getattr(source, "damaged", {}))


def first(source: Source, number: int, *keys: str) -> Record:
    """One batch of the first records, or of these keys of them, the same on every process."""
    records = [source[i] for i in range(min(number, len(source)))]
    return {key: np.stack([record[key] for record in records]) for key in keys or records[0]}


def mapped(source: Source, transform: Callable[[Record], Record]) -> Source:
    """The records of a source, each as ``transform`` gives it; brings records to the one layout of ``in_memory``."""
    return _Mapped(source, transform)


def part(source: Source, places: Sequence[int] | np.ndarray) -> Source:
    """Some records of a source, in the order given."""
    return _Part(source, places)


class SkipDamaged:
    """The same records, but in place of each that cannot be read the next one that can, after the last the first.

    What stands at an index depends on the disk alone, so a batch is the same on any number of processes and in a run
    that goes on: an epoch has every readable record once, and those after damaged ones again for them.
    ``eval_batches`` counts none twice: it gives such a stand-in no weight.

    ``damaged`` has what was met so far: by index, the reason, which names the split. Each is logged once, as a
    warning. A process knows of its own reads since it began: in training it meets the whole set in the course of some
    epochs, in evaluation its share alone, once.

    Args:
      source: whose ``[index]`` raises InputError for a record that cannot be read.
      limit: largest share of the set that may be damaged, at least 0 and below 1; 0 makes the first an error. With
        the default a flipped bit here and there ends no run, but the loss of one of fewer than a hundred files does;
        a set of fewer than a hundred records has to be whole.

    Raises:
      InputError: a limit out of range; from ``[index]``, more damaged records than that.
    """

    def __init__(self, source: Source, limit: float = 0.01) -> None:
        if not 0 <= limit < 1:
            raise InputError(f"limit={limit} is not a share of damaged records: give at least 0 and less than 1.")
        self.damaged: dict[int, str] = {}
        self._source, self._limit, self._lock = source, limit, threading.Lock()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int, /) -> Record:
        while True:
            try:
                return self._source[index]
            except InputError as error:
                self._note(index, error)
            index = (index + 1) % len(self)

    def _note(self, index: int, error: InputError) -> None:
        with self._lock:
            if index not in self.damaged:
                self.damaged[index] = str(error)
                _log.warning("Damaged record skipped, %d of %d so far: %s", len(self.damaged), len(self), error)
            first = sorted(self.damaged)
        if len(first) / len(self) > self._limit:
            raise InputError(
                f"{len(first)} of {len(self)} records are damaged so far, a larger share than limit={self._limit}: "
                f"{str(first[:10])[1:-1]}{', ..' if first[10:] else ''}. {self.damaged[first[0]]}"
            ) from error


def _layout(record: Record) -> dict[str, str]:
    return {key: f"{value.dtype}{list(value.shape)}" for key, value in sorted(record.items())}


class _Mapped:
    def __init__(self, source: Source, transform: Callable[[Record], Record]) -> None:
        self._source, self._transform = source, transform

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int, /) -> Record:
        return self._transform(self._source[index])

    @property
    def damaged(self) -> Mapping[int, str]:
        return getattr(self._source, "damaged", {})


class _Part:
    def __init__(self, source: Source, places: Sequence[int] | np.ndarray) -> None:
        self._source, self._places = source, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int, /) -> Record:
        return self._source[int(self._places[index])]

    @property
    def damaged(self) -> Mapping[int, str]:
        damaged = getattr(self._source, "damaged", {})
        return damaged and {i: damaged[place] for i, place in enumerate(self._places) if place in damaged}


class _InMemory:
    def __init__(self, arrays: Record, damaged: Mapping[int, str]) -> None:
        self._arrays, self.damaged = arrays, damaged

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def __getitem__(self, index: int, /) -> Record:
        return {key: array[index, ...] for key, array in self._arrays.items()}


class _Prepared:
    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, only: Sequence[str] | None) -> None:
        self._what = f"split {split!r} of {builder.info.full_name}"
        self._directory = builder.data_dir
        self._names, self._only = OTHER_NAMES.get(builder.name, {}), only
        skipped = {
            key: tfds.decode.SkipDecoding()
            for key, feature in builder.info.features.items()
            if isinstance(feature, tfds.features.Image) and not self._wanted(key)
        }
        try:
            self._records = builder.as_data_source(split, decoders=skipped or None)
        except ValueError as error:
            raise InputError(
                f"split={split!r} cannot be had from {builder.info.full_name} ({_line(error)}): give one of "
                f"{list(builder.info.splits)}, or a part of one such as 'train[:80%]'."
            ) from error
        except NotImplementedError as error:  # what TFDS has for formats whose records come in order alone
            raise InputError(
                f"{builder.data_dir} does not hold {builder.info.full_name} in the array_record format: delete that "
                "directory and run again to prepare the set anew, or give another data_dir."
            ) from error

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            record = self._records[index]
        except Exception as error:  # the reader, zlib, protobuf and the decoders each have their own
            raise InputError(
                f"Record {index} of the {self._what} cannot be read ({_line(error)}): its file in {self._directory} is "
                "damaged. Delete that directory and run again to prepare the set anew."
            ) from error
        entries = {key: value for key, value in _taken_apart(record).items() if self._wanted(key)}
        return {self._names.get(key, key): np.asarray(value) for key, value in entries.items()}

    def _wanted(self, key: str) -> bool:
        return self._only is None or self._names.get(key, key) in self._only


def _taken_apart(record: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in record.items():
        inner = _taken_apart(value) if isinstance(value, Mapping) else None
        found |= {key: value} if inner is None else {f"{key}/{name}": part for name, part in inner.items()}
    return found


def _find(
    name: str, config: str | tfds.core.BuilderConfig | None, data_dir: str | os.PathLike[str] | None
) -> tfds.core.DatasetBuilder:
    if not name.isidentifier():
        raise InputError(_unknown(name))
    if name.endswith("_translate"):
        # Without TensorFlow, TFDS comes no further in its families than to the first that wants it.
        importlib.import_module("tensorflow_datasets.translate")
    try:
        return tfds.builder(name, config=config, data_dir=data_dir)
    except DatasetNotFoundError as error:
        hidden = name in VIDEO_KEYS and not importlib.util.find_spec("tensorflow")
        raise InputError(_needs_tensorflow(name) if hidden else _unknown(name)) from error
    except ImportError as error:
        try:  # what was prepared elsewhere is read by its own description
            return builder_from_files(name, config=config, data_dir=data_dir)
        except DatasetNotFoundError:
            raise InputError(_needs_tensorflow(name)) from error
    except ValueError as error:
        raise InputError(
            f"config={config!r} is not a configuration of {name}: give one of "
            f"{list(tfds.builder_cls(name).builder_configs)}, or a new one without a name."
        ) from error
    except ParseError as error:
        directory = os.path.join(data_dir or tfds.core.constants.DATA_DIR, name)
        raise InputError(
            f"The description of {name} in {directory} is damaged ({_line(error)}): delete that directory and run "
            "again to prepare the set anew."
        ) from error


def _unknown(name: str) -> str:
    catalogue = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(name, catalogue)
    return (
        f"name={name!r} is unknown: give one of {[builder.name for builder in BUILDERS]} or of the {len(catalogue)} "
        f"sets of the TFDS catalogue{f', such as {near}' if near else ''}; some of those appear only after "
        '`pip install "seqjax[prepare]"`.'
    )


def _needs_tensorflow(name: str) -> str:
    return (
        f"TFDS can prepare {name} only with TensorFlow, which is not installed: run "
        '`pip install "seqjax[prepare]"` and try again.'
    )


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    if builder.name in PREPARED_BY_TENSORFLOW and not importlib.util.find_spec("tensorflow"):
        raise InputError(
            f"TFDS can prepare {builder.name} only with TensorFlow, which is not installed: run "
            '`pip install "seqjax[prepare]"` and try again, or give the data_dir of a machine that has prepared it, '
            "for it is read without."
        )
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder.download_and_prepare(file_format="array_record")
    except ImportError as error:
        raise InputError(_needs_tensorflow(builder.name)) from error
    except (OSError, AssertionError) as error:
        if builder.is_prepared():  # by another process in the meantime
            return
        if isinstance(error, AssertionError) and builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise InputError(
                f"{builder.name} is made from files that you have to fetch. {' '.join(str(error).split())}"
            ) from error
        raise InputError(
            f"{builder.name} cannot be prepared in {builder.data_dir} ({_line(error)}): give a data_dir, or set "
            "TFDS_DATA_DIR to one, that can be written and has room; a set of TFDS may need a network or files that "
            "its page in the catalogue names."
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
