"""Data sets by name, as sources of records that can be read in any order.

A record is a dict of NumPy arrays; a clip is under ``"video"``, uint8 ``[T, H, W, C]``. The sets of this package are
known by name beside all of TFDS's. What is not on disk yet is prepared first, once, in the ``array_record`` format.
Reading needs no TensorFlow, nor does preparing this package's sets; some of TFDS's sets cannot be had without it.
"""

import difflib
import importlib.util
import os
import sys
from typing import Protocol, runtime_checkable

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError
from tensorflow_datasets.core.registered import DatasetNotFoundError

from seqjax.data.memory_tasks import AddingProblem, CopyMemory
from seqjax.data.moving_digits import MovingDigits
from seqjax.errors import InputError

BUILDERS = (AddingProblem, CopyMemory, MovingDigits)
"""The sets of this package."""
VIDEO_KEYS = {"moving_mnist": "image_sequence"}
"""What TFDS calls the clips of a set, where it is not ``video``."""

Record = dict[str, np.ndarray]


@runtime_checkable
class Source(Protocol):
    """Records that can be read in any order, from several threads at once."""

    def __len__(self) -> int:
        """Number of records."""
        ...

    def __getitem__(self, index: int, /) -> Record:
        """Record ``index``, from 0."""
        ...


def open_source(
    name: str,
    *,
    split: str,
    config: str | tfds.core.BuilderConfig | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Source:
    """The records of one split of a data set, which is prepared first if it is not on disk.

    Several processes may do this at once in one directory: each prepares in a directory of its own, the first to
    finish renames it into place, the others drop theirs and use the first's.

    Args:
      name: ``"moving_digits"`` or a name of the TFDS catalogue.
      split: such as ``"train"``, or a part of one in the syntax of TFDS, ``"train[:80%]"``.
      config: one of the set's configurations by name, or a new one; the set's default unless given.
      data_dir: where prepared sets are; unless given, ``$TFDS_DATA_DIR`` or else ``~/tensorflow_datasets``.

    Raises:
      InputError: unknown name, split or configuration; a set that needs TensorFlow, a download or files that are not
        there; a directory that cannot be written. Reading a record that is damaged on disk raises one too.
    """
    builder = _find(name, config, data_dir)
    if not builder.is_prepared():
        _prepare(builder)
        builder = _find(name, config, data_dir)
    return _Prepared(builder, split)


def in_memory(source: Source) -> Source:
    """The same records, read and decoded once and kept in one array per key; made for small sets.

    The arrays of a record are read-only views of what is kept.

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
                f"{_layout(first)}: bring them to one size first, or train from the source itself."
            )
        for key, value in record.items():
            arrays[key][i] = value
    for array in arrays.values():
        array.flags.writeable = False
    return _InMemory(arrays)


def _layout(record: Record) -> dict[str, str]:
    return {key: f"{value.dtype}{list(value.shape)}" for key, value in sorted(record.items())}


class _InMemory:
    def __init__(self, arrays: Record) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def __getitem__(self, index: int, /) -> Record:
        return {key: array[index, ...] for key, array in self._arrays.items()}


class _Prepared:
    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        self._what = f"split {split!r} of {builder.info.full_name}"
        self._directory = builder.data_dir
        self._video_key = VIDEO_KEYS.get(builder.name, "video")
        try:
            self._records = builder.as_data_source(split)
        except ValueError as error:
            raise InputError(
                f"split={split!r} cannot be had from {builder.info.full_name} ({_line(error)}): give one of "
                f"{list(builder.info.splits)}, or a part of one such as 'train[:80%]'."
            ) from error
        except NotImplementedError as error:
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
        return {"video" if key == self._video_key else key: np.asarray(value) for key, value in record.items()}


def _find(
    name: str, config: str | tfds.core.BuilderConfig | None, data_dir: str | os.PathLike[str] | None
) -> tfds.core.DatasetBuilder:
    if not name.isidentifier():
        raise InputError(_unknown(name))
    try:
        return tfds.builder(name, config=config, data_dir=data_dir)
    except DatasetNotFoundError as error:
        hidden = name in VIDEO_KEYS and not importlib.util.find_spec("tensorflow")
        raise InputError(_needs_tensorflow(name) if hidden else _unknown(name)) from error
    except ImportError as error:
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
        f"TFDS can prepare and read {name} only with TensorFlow, which is not installed: run "
        '`pip install "seqjax[prepare]"` and try again.'
    )


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder.download_and_prepare(file_format="array_record")
    except ImportError as error:
        raise InputError(_needs_tensorflow(builder.name)) from error
    except (OSError, AssertionError) as error:
        if builder.is_prepared():  # by another process in the meantime
            return
        raise InputError(
            f"{builder.name} cannot be prepared in {builder.data_dir} ({_line(error)}): give a data_dir, or set "
            "TFDS_DATA_DIR to one, that can be written and has room; a set of TFDS may need a network or files that "
            "its page in the catalogue names."
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
