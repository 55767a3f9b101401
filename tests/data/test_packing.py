"""Rows unpacked again, one sequence at a time, against the records that went in."""

import numpy as np
import pytest

from seqjax.data import packing
from seqjax.data.packing import packed
from seqjax.data.pipeline import train_batches
from seqjax.errors import InputError

LENGTHS = {"source": 10, "target": 12}


def records(number, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        sizes = {"source": int(rng.integers(0, 8)), "target": int(rng.integers(1, 9))}
        record = {"other": np.array([1])}
        for key, size in sizes.items():
            ids = np.zeros(9, np.int32)
            ids[:size] = rng.integers(1, 50, size)
            record |= {key: ids, f"{key}_length": np.array([size], np.int32)[0:1].reshape(())}
        found.append(record)
    return found


def unpacked(row):
    """The records of a row as lists, and the checks that hold of every row."""
    found = []
    for key, length in LENGTHS.items():
        ids, segment, position = row[key], row[f"{key}_segment"], row[f"{key}_position"]
        assert ids.shape == segment.shape == position.shape == (length,)
        assert ids.dtype == segment.dtype == position.dtype == np.int32
        filled = int((segment > 0).sum())
        assert (segment[filled:] == 0).all()
        assert (ids[filled:] == 0).all()
        assert (position[filled:] == 0).all()
        of_key = {}
        for k in range(filled):
            of_key.setdefault(int(segment[k]), []).append(int(ids[k]))
            assert position[k] == len(of_key[int(segment[k])]) - 1
        found.append(of_key)
    number = max(max(of_key, default=0) for of_key in found)
    return [tuple(tuple(of_key.get(k, [])) for of_key in found) for k in range(1, number + 1)]


def test_every_record_is_in_one_row_whole():
    source = records(60)
    rows = packed(source, LENGTHS)
    members = [member for i in range(len(rows)) for member in unpacked(rows[i])]
    expected = [tuple(tuple(r[key][: int(r[f"{key}_length"])].tolist()) for key in LENGTHS) for r in source]
    assert sorted(members) == sorted(expected)
    assert set(rows[0]) == {f"{key}{end}" for key in LENGTHS for end in ("", "_segment", "_position")}


def test_rows_are_well_filled():
    """Nearly as few as fit, and far fewer than one each: 60 targets of 4.4 on average in rows of 12."""
    source = records(60)
    rows = packed(source, LENGTHS)
    least = max(-(-sum(int(r[f"{key}_length"]) for r in source) // length) for key, length in LENGTHS.items())
    assert least <= len(rows) <= 1.25 * least < 60 / 1.8


def test_first_open_row_with_room(monkeypatch):
    def of(*sizes):
        return [{"x": np.full(9, i), "x_length": np.array([size])[0:1].reshape(())} for i, size in enumerate(sizes, 1)]

    rows = packed(of(6, 7, 3, 2, 4), {"x": 9})
    assert [row["x"].tolist() for row in map(rows.__getitem__, range(3))] == [
        [1] * 6 + [3] * 3,
        [2] * 7 + [4] * 2,
        [5] * 4 + [0] * 5,
    ]
    monkeypatch.setattr(packing, "OPEN", 1)
    assert len(packed(of(6, 7, 3, 2), {"x": 9})) == 3  # the first row is closed when the second opens


def test_values_of_any_shape_and_in_batches():
    source = [{"x": np.full((4, 3), i, np.float32), "x_length": np.array(2)} for i in range(8)]
    rows = packed(source, {"x": 5})
    assert len(rows) == 4
    batch = next(train_batches(rows, batch_size=4, seed=0))
    assert (batch["x"].shape, batch["x"].dtype) == ((4, 5, 3), np.float32)
    assert batch["x_segment"].tolist() == [[1, 1, 2, 2, 0]] * 4


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"record 1 has the lengths \{'x': 4\}, and rows \{'x': 3\}"):
        packed([{"x": np.ones(9), "x_length": np.array(n)} for n in (3, 4)], {"x": 3})
