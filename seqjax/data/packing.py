"""Short sequences side by side in rows of one length, so that little of a batch is padding."""

from collections.abc import Mapping, Sequence

import numpy as np

from seqjax.data.source import Record, Source
from seqjax.errors import InputError

OPEN = 64
"""Rows that are filled at a time."""


def packed(source: Source, lengths: Mapping[str, int]) -> Source:
    """Rows that hold several records' sequences one after the other, for models that are told where each begins.

    A record's sequences stay together, a source and its target in the same place of their rows' order, and every record
    is in one row, whole: in the first, of ``OPEN`` being filled at a time, where all its sequences have room. A row
    has, for every key,

    - ``{key}``, ``[L]``: the sequences, then zeros;
    - ``{key}_segment``, int32 ``[L]``: 1 for the first sequence, 2 for the second and so on, 0 for padding. Attention
      is allowed where segments are equal and not 0;
    - ``{key}_position``, int32 ``[L]``: places within each sequence, from 0; a recurrent network is reset where it is
      0.

    Args:
      source: records with ``{key}``, ``[T, ..]``, and ``{key}_length``, how much of it counts, as ``TextToIds`` makes
        them; every record is read once here, for its lengths.
      lengths: ``L`` by key; what else a record has is left out.

    Raises:
      InputError: a record that is longer than a row.
    """
    return _Packed(source, dict(lengths))


class _Packed:
    def __init__(self, source: Source, lengths: dict[str, int]) -> None:
        self._source, self._lengths = source, lengths
        room = np.array(list(lengths.values()))
        sizes = [[int(source[i][f"{key}_length"]) for key in lengths] for i in range(len(source))]
        self._rows: list[list[int]] = []
        used = np.zeros((0, len(room)), np.int64)  # of the rows that are open, as their members
        filling: list[list[int]] = []
        for i, size in enumerate(sizes):
            if (size > room).any():
                raise InputError(
                    f"record {i} has the lengths {dict(zip(lengths, size, strict=True))}, and rows {lengths}: give "
                    "longer rows, or cut such records or leave them out first."
                )
            fits = np.flatnonzero((used + size <= room).all(axis=1))
            if not len(fits):
                used = np.concatenate([used, np.zeros((1, len(room)), np.int64)])[-OPEN:]
                self._rows.append([])
                filling = [*filling, self._rows[-1]][-OPEN:]
            place = fits[0] if len(fits) else -1
            used[place] += size
            filling[place].append(i)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> Record:
        records = [self._source[i] for i in self._rows[index]]
        row: Record = {}
        for key, length in self._lengths.items():
            row |= _row(key, [record[key][: int(record[f"{key}_length"])] for record in records], length)
        return row


def _row(key: str, parts: Sequence[np.ndarray], length: int) -> Record:
    sizes = [len(part) for part in parts]
    rest = length - sum(sizes)

    def fill(values: Sequence[np.ndarray]) -> np.ndarray:
        joined = np.concatenate(values)
        return np.pad(joined, ((0, rest), *[(0, 0)] * (joined.ndim - 1)))

    return {
        key: fill(parts),
        f"{key}_segment": fill([np.full(size, k, np.int32) for k, size in enumerate(sizes, 1)]),
        f"{key}_position": fill([np.arange(size, dtype=np.int32) for size in sizes]),
    }
