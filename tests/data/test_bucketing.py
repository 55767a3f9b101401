"""Batches of buckets against the records themselves."""

import collections
import itertools

import numpy as np
import pytest

from seqjax.data.bucketing import batch_sizes, bucketed_batches
from seqjax.errors import InputError

SIZES = [2] * 8 + [3] * 4 + [5] * 8 + [7, 8] * 8
SOURCE = [
    {"id": np.array(i), "x": np.arange(1, 10) * (np.arange(9) < size), "x_length": np.array(size)}
    for i, size in enumerate(SIZES)
]
BOUNDS = [3, 6, 9]


def batches(number, source=SOURCE, bounds=BOUNDS, **options):
    iterator = bucketed_batches(source, bounds, ("x",), **{"batch_size": 4, "seed": 1} | options)
    found = list(itertools.islice(iterator, number))
    iterator.close()
    return found


def same(one, other):
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
        for a, b in zip(one, other, strict=True)
    )


def test_an_epoch_has_every_record_once_in_its_bucket():
    """12, 8 and 16 records, so 3, 2 and 4 batches of four."""
    found = batches(18)
    for epoch in (found[:9], found[9:]):
        assert sorted(int(i) for batch in epoch for i in batch["id"]) == list(range(36))
        assert collections.Counter(batch["x"].shape for batch in epoch) == {(4, 3): 3, (4, 6): 2, (4, 9): 4}
    for batch in found:
        bound = batch["x"].shape[1]
        for i, row, length in zip(batch["id"], batch["x"], batch["x_length"], strict=True):
            assert bound == next(b for b in BOUNDS if b >= SIZES[i])
            assert length == SIZES[i]
            np.testing.assert_array_equal(row, SOURCE[i]["x"][:bound])
    shapes = [[batch["x"].shape for batch in epoch] for epoch in (found[:9], found[9:])]
    assert shapes[0] != shapes[1] != sorted(shapes[1])


def test_a_run_goes_on_at_any_step():
    whole = batches(20)
    for start in (1, 8, 9, 13):
        assert same(batches(3, start_step=start), whole[start : start + 3])
    assert not same(batches(5, seed=2), whole[:5])


def test_processes_share_a_batch():
    whole = batches(6)
    parts = [batches(6, process_index=p, process_count=2) for p in range(2)]
    joined = [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*parts, strict=True)]
    assert same(joined, whole)


def test_several_steps_in_one_call_are_of_one_bucket():
    """12, 8 and 16 records over 8 per call: 2 (nearest to 1.5), 1 and 2 calls an epoch."""
    found = batches(10, steps_per_call=2)
    assert collections.Counter(batch["x"].shape for batch in found) == {(2, 4, 3): 4, (2, 4, 6): 2, (2, 4, 9): 4}
    assert same(batches(3, steps_per_call=2, start_step=8), found[4:7])
    with pytest.raises(InputError, match="start_step=3 is not a multiple of steps_per_call=2"):
        batches(1, steps_per_call=2, start_step=3)


def test_records_are_changed_by_chance_the_same_way_again():
    def noisy(record, rng):
        return record | {"x": record["x"] + rng.integers(100)}

    whole = batches(9, augment=noisy)
    assert same(batches(4, augment=noisy, start_step=5), whole[5:])
    assert not same(whole, batches(9))


def test_the_longest_of_several_sequences_decides():
    source = [{"x": np.ones(9), "x_length": np.array(2), "y": np.ones(9), "y_length": np.array(8)}] * 4
    iterator = bucketed_batches(source, [4, 9], ("x", "y"), batch_size=2, seed=0)
    batch = next(iterator)
    iterator.close()
    assert batch["x"].shape == batch["y"].shape == (2, 9)


def test_a_bucket_too_small_for_a_batch_has_its_turn():
    assert collections.Counter(b["x"].shape[1] for b in batches(8, source=[*SOURCE[:12], SOURCE[-1]])) == {3: 6, 9: 2}


@pytest.mark.parametrize(
    ("bounds", "words"),
    [([], "rise"), ([3, 3, 9], "rise"), ([9, 3], "rise"), ([0, 9], "rise"), ([3, 7], "sequence of 8 is longer")],
)
def test_bounds_that_do_not_fit(bounds, words):
    with pytest.raises(InputError, match=words):
        batches(1, bounds=bounds)


def test_batches_of_a_budget_have_a_size_per_bucket():
    """24 places of 3, 6 and 9: 8, 4 and 2 records in steps of two, so 2 (nearest to 1.5), 2 and 8 batches an epoch."""
    sizes = batch_sizes(BOUNDS, tokens=24, multiple=2)
    assert sizes == [8, 4, 2]
    assert batch_sizes((16, 32, 64, 128), tokens=25_000, multiple=64) == [1536, 768, 384, 192]
    whole = batches(24, batch_size=sizes)
    assert collections.Counter(batch["x"].shape for batch in whole) == {(8, 3): 4, (4, 6): 4, (2, 9): 16}
    assert all(same(batches(3, batch_size=sizes, start_step=k), whole[k : k + 3]) for k in (1, 11, 12, 17))
    parts = [batches(12, batch_size=sizes, process_index=p, process_count=2) for p in range(2)]
    joined = [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*parts, strict=True)]
    assert same(joined, whole[:12])
    assert same(batches(9, batch_size=[4, 4, 4]), batches(9))


def test_budgets_that_do_not_fit():
    with pytest.raises(InputError, match=r"tokens=17 are too few .* give 18 or more"):
        batch_sizes(BOUNDS, tokens=17, multiple=2)
    with pytest.raises(InputError, match="not one number for each"):
        batches(1, batch_size=[4, 4])


def test_lengths_that_are_known_are_not_read():
    class Unread(list):
        def __getitem__(self, i):
            record = super().__getitem__(i)
            return {key: record[key] for key in record if key != "x_length"}

    found = batches(9, source=Unread(SOURCE), longest=SIZES)
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(found, batches(9), strict=True))
    with pytest.raises(InputError, match="longest has 2 numbers for 36 records"):
        batches(1, longest=[1, 2])
