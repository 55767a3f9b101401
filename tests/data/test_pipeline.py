import threading
from itertools import chain, islice

import grain
import numpy as np
import pytest

from seqjax.data.pipeline import eval_batches, train_batches
from seqjax.data.source import SkipDamaged, in_memory
from seqjax.errors import InputError


def numbered(count: int) -> list[dict[str, np.ndarray]]:
    """A source whose records carry their number."""
    return [{"number": np.asarray(i), "video": np.full((2, 3, 3, 1), i, np.uint8)} for i in range(count)]


def numbers(batches, count: int | None = None) -> list[list[int]]:
    return [batch["number"].tolist() for batch in islice(batches, count)]


def test_every_epoch_holds_every_record_once_in_an_order_of_its_own():
    """10 records in batches of 4: an epoch ends within a batch."""
    stream = [number for batch in numbers(train_batches(numbered(10), batch_size=4, seed=1), 15) for number in batch]
    epochs = [tuple(stream[start : start + 10]) for start in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({*epochs, tuple(range(10))}) == 7


@pytest.mark.parametrize("process_count", [1, 2, 4])
@pytest.mark.parametrize("count", [12, 10, 3])
def test_processes_together_see_every_record_once_per_epoch_and_none_runs_out(count, process_count):
    """4, which is a batch, divides the first number alone: an epoch then ends within a batch, or spans less."""
    shares = []
    for p in range(process_count):
        options = {"process_index": p, "process_count": process_count}
        shares.append(numbers(train_batches(numbered(count), batch_size=4, seed=1, **options), 2 * count))
    assert {len(batch) for share in shares for batch in share} == {4 // process_count}
    assert {len(share) for share in shares} == {2 * count}  # 8 epochs
    stream = [number for parts in zip(*shares, strict=True) for part in parts for number in part]
    epochs = [stream[start : start + count] for start in range(0, 8 * count, count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)


def test_batches_stack_the_records():
    batch = next(train_batches(numbered(10), batch_size=4, seed=0))
    assert batch["video"].shape == (4, 2, 3, 3, 1)
    assert batch["video"].dtype == np.uint8
    np.testing.assert_array_equal(batch["video"][:, 0, 0, 0, 0], batch["number"])


def test_seed_decides_the_order():
    orders = [numbers(train_batches(numbered(50), batch_size=10, seed=seed), 5) for seed in (0, 0, 1, 2**32 - 1)]
    assert orders[0] == orders[1]
    assert len({str(order) for order in orders}) == 3


class Damaged(list):
    """Of which these records cannot be read."""

    def __init__(self, records, *damaged):
        super().__init__(records)
        self.lost = damaged

    def __getitem__(self, index):
        if index in self.lost:
            raise InputError(f"Record {index} is damaged.")
        return super().__getitem__(index)


def test_damaged_records_leave_the_rest_of_the_order_as_it_is():
    """Row by row the undamaged stream, but for the stand-ins, on any number of processes and from any step on."""
    stand_in = {3: 4, 8: 10, 9: 10, 20: 0}
    whole = numbers(train_batches(numbered(21), batch_size=8, seed=5), 12)
    expected = [[stand_in.get(number, number) for number in batch] for batch in whole]

    def joined(process_count, start=0):
        shares = []
        for p in range(process_count):
            source = SkipDamaged(Damaged(numbered(21), *stand_in), limit=0.5)
            options = {"start_step": start, "process_index": p, "process_count": process_count}
            shares.append(numbers(train_batches(source, batch_size=8, seed=5, **options), 12 - start))
        return [list(chain(*parts)) for parts in zip(*shares, strict=True)]

    for process_count in (1, 2, 4):
        assert joined(process_count) == expected
        assert joined(process_count, start=7) == expected[7:]


@pytest.mark.parametrize("process_count", [2, 4, 8])
def test_the_shares_of_all_processes_are_the_global_batch(process_count):
    """Joined in the order of the processes, as rows of one array: the batch of a single process, row by row."""
    source = numbered(21)
    whole = numbers(train_batches(source, batch_size=8, seed=5, start_step=2), 12)
    shares = []
    for p in range(process_count):
        options = {"start_step": 2, "process_index": p, "process_count": process_count}
        shares.append(numbers(train_batches(source, batch_size=8, seed=5, **options), 12))
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == whole


def test_a_process_reads_its_own_rows_only():
    read = []

    class Watched(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    share = list(eval_batches(Watched(numbered(16)), batch_size=8, process_index=1, process_count=4))
    assert sorted(read) == [2, 3, 10, 11]
    assert numbers(share) == [[2, 3], [10, 11]]


@pytest.mark.parametrize("start", [1, 7, 40])
def test_starting_at_a_step_is_skipping_the_batches_before(start):
    source = numbered(13)
    from_zero = numbers(train_batches(source, batch_size=4, seed=3), start + 5)
    assert numbers(train_batches(source, batch_size=4, seed=3, start_step=start), 5) == from_zero[start:]


@pytest.mark.parametrize("start", [0, 5])
def test_steps_per_call_stacks_consecutive_batches(start):
    source = numbered(13)
    single = list(islice(train_batches(source, batch_size=4, seed=3, start_step=start), 9))
    for call, batch in enumerate(
        islice(train_batches(source, batch_size=4, seed=3, start_step=start, steps_per_call=3), 3)
    ):
        assert batch["video"].shape == (3, 4, 2, 3, 3, 1)
        for step in range(3):
            for key in batch:
                np.testing.assert_array_equal(batch[key][step], single[3 * call + step][key])


def add_noise(record, rng):
    return record | {"noise": rng.integers(2**60)}


def test_augment_draws_from_the_seed_and_the_place_in_the_stream():
    source = numbered(6)
    options = {"batch_size": 4, "seed": 2, "augment": add_noise}
    noise = [batch["noise"].tolist() for batch in islice(train_batches(source, **options), 9)]
    assert len({value for batch in noise for value in batch}) == 36  # other numbers in other epochs
    later = next(train_batches(source, start_step=5, **options))
    assert later["noise"].tolist() == noise[5]
    shares = [
        next(train_batches(source, process_index=p, process_count=2, **options))["noise"].tolist() for p in (0, 1)
    ]
    assert list(chain(*shares)) == noise[0]
    other = next(train_batches(source, **(options | {"seed": 3})))
    assert other["noise"].tolist() != noise[0]


def test_transform_sees_the_augmented_record():
    batch = next(
        train_batches(
            numbered(6),
            batch_size=4,
            seed=0,
            augment=lambda record, rng: record | {"drawn": rng.integers(100)},
            transform=lambda record: record | {"twice": 2 * record["drawn"]},
        )
    )
    np.testing.assert_array_equal(batch["twice"], 2 * batch["drawn"])


def test_a_source_smaller_than_a_batch_repeats_within_it():
    (first,) = numbers(train_batches(numbered(3), batch_size=8, seed=0), 1)
    assert sorted(first[:3]) == sorted(first[3:6]) == [0, 1, 2]


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (8, 4), (3, 4), (1, 1), (1, 4)])
@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_evaluation_counts_every_record_once(count, batch_size, process_count):
    batch_size *= process_count
    shares = [
        list(eval_batches(numbered(count), batch_size=batch_size, process_index=p, process_count=process_count))
        for p in range(process_count)
    ]
    assert {len(share) for share in shares} == {-(-count // batch_size)}
    order, weights = [], []
    for parts in zip(*shares, strict=True):
        for batch in parts:
            assert batch["weight"].dtype == np.float32
            assert len(batch["weight"]) == batch_size // process_count
            order += batch["number"].tolist()
            weights += batch["weight"].tolist()
    padding = len(order) - count
    assert order == [*range(count), *[count - 1] * padding]
    assert weights == [1] * count + [0] * padding


@pytest.mark.parametrize("process_count", [1, 2, 4])
@pytest.mark.parametrize("keep", [lambda source: source, in_memory])
def test_evaluation_gives_damaged_records_no_weight(keep, process_count):
    """2 and 3 beside each other, 9 at the end, which is the padding's too."""
    order, weights = [], []
    source = keep(SkipDamaged(Damaged(numbered(10), 2, 3, 9), limit=0.3))
    options = {"batch_size": 4, "process_count": process_count}
    for parts in zip(*(eval_batches(source, process_index=p, **options) for p in range(process_count)), strict=True):
        for batch in parts:
            assert batch["video"].shape == (4 // process_count, 2, 3, 3, 1)
            order += batch["number"].tolist()
            weights += batch["weight"].tolist()
    assert order == [0, 1, 4, 4, 4, 5, 6, 7, 8, 0, 0, 0]
    assert weights == [1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0]


def test_too_many_damaged_records_stop_training_and_evaluation():
    def source():
        return SkipDamaged(Damaged(numbered(20), 4, 11, 17), limit=0.1)

    for batches in (train_batches(source(), batch_size=2, seed=0), eval_batches(source(), batch_size=2)):
        with pytest.raises(InputError, match=r"3 of 20 records are damaged .*limit=0\.1: 4, 11, 17\. Record 4"):
            list(islice(batches, 20))


def test_evaluation_transforms():
    (batch,) = eval_batches(numbered(3), batch_size=4, transform=lambda record: {"half": record["video"][:, ::2]})
    assert batch.keys() == {"half", "weight"}
    assert batch["half"].shape == (4, 2, 2, 3, 1)


def test_an_error_in_a_thread_reaches_the_caller_as_it_is():
    source = Damaged(numbered(8), 5)
    for batches in (eval_batches(source, batch_size=2), train_batches(source, batch_size=2, seed=0)):
        with pytest.raises(InputError) as caught:
            list(islice(batches, 4))
        assert str(caught.value) == "Record 5 is damaged."


def stills(count: int, start: int) -> list[dict[str, np.ndarray]]:
    return [{"image": np.full((2, 2, 1), start + i, np.uint8), "label": np.asarray(-i)} for i in range(count)]


def met(batches, count: int | None = None) -> list[list[tuple[int, int]]]:
    """Which images meet, batch by batch."""
    return [
        list(zip(*(batch[name][:, 0, 0, 0].tolist() for name in "ab"), strict=True)) for batch in islice(batches, count)
    ]


DOMAINS = {"a": stills(6, 0), "b": stills(10, 100)}


def test_unpaired_sets_have_epochs_and_an_order_each():
    """Six and ten in batches of 4: each set whole in its own epochs, and in 30 steps all 60 pairs but a few meet."""
    stream = list(chain(*met(train_batches(DOMAINS, batch_size=4, seed=1), 75)))
    for column, members in ((0, range(6)), (1, range(100, 110))):
        size = len(members)
        seen = [pair[column] for pair in stream]
        epochs = {tuple(seen[k : k + size]) for k in range(0, 300, size)}
        assert all(sorted(epoch) == list(members) for epoch in epochs)
        assert len(epochs) >= 0.9 * 300 / size
    assert len(set(stream)) == 60


def test_unpaired_sets_of_one_length_do_not_run_in_step():
    stream = list(chain(*met(train_batches({"a": stills(8, 0), "b": stills(8, 0)}, batch_size=8, seed=0), 8)))
    assert sum(a == b for a, b in stream) < 32
    assert len(set(stream)) > 24


@pytest.mark.parametrize("process_count", [1, 2, 4])
@pytest.mark.parametrize("start", [0, 7])
def test_unpaired_batches_depend_on_seed_and_step_alone(process_count, start):
    options = {"batch_size": 4, "augment": add_noise}
    whole = list(islice(train_batches(DOMAINS, seed=5, **options), start + 4))[start:]
    options |= {"start_step": start, "process_count": process_count}
    shares = [list(islice(train_batches(DOMAINS, seed=5, process_index=p, **options), 4)) for p in range(process_count)]
    for parts, expected in zip(zip(*shares, strict=True), whole, strict=True):
        for key in ("a", "a_label", "b", "b_label", "noise"):
            np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), expected[key])
    assert met(train_batches(DOMAINS, seed=6, batch_size=4), 4) != met(whole)


def test_unpaired_records_keep_what_goes_with_an_image():
    batch = next(train_batches(DOMAINS, batch_size=16, seed=0))
    assert batch.keys() == {"a", "a_label", "b", "b_label"}
    np.testing.assert_array_equal(batch["a"][:, 0, 0, 0], -batch["a_label"])
    np.testing.assert_array_equal(batch["b"][:, 0, 0, 0], 100 - batch["b_label"])


def test_several_sources_are_evaluated_in_step():
    batches = list(eval_batches({"a": stills(5, 0), "b": stills(5, 100)}, batch_size=4))
    assert met(batches) == [[(0, 100), (1, 101), (2, 102), (3, 103)], [(4, 104)] * 4]
    assert [batch["weight"].tolist() for batch in batches] == [[1, 1, 1, 1], [1, 0, 0, 0]]
    (alone,) = eval_batches({"b": stills(3, 100)}, batch_size=4)
    assert alone.keys() == {"b", "b_label", "weight"}
    with pytest.raises(InputError, match=r"\{'a': 6, 'b': 10\} records"):
        eval_batches(DOMAINS, batch_size=4)


def test_damage_to_one_of_several_sources_takes_the_weight_of_both():
    sources = {"a": SkipDamaged(Damaged(stills(4, 0), 1), 0.5), "b": SkipDamaged(Damaged(stills(4, 100), 2), 0.5)}
    (batch,) = eval_batches(sources, batch_size=4)
    assert batch["weight"].tolist() == [1, 0, 0, 1]


def readers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")}


@pytest.mark.parametrize("how", ["closed", "dropped", "exhausted"])
def test_threads_end(how):
    before = readers()
    batches = eval_batches(numbered(8), batch_size=2) if how == "exhausted" else None
    batches = batches or train_batches(numbered(8), batch_size=2, seed=0)
    next(batches)
    started = readers() - before
    assert started
    if how == "closed":
        batches.close()
    else:
        assert how == "dropped" or len(list(batches)) == 3
        del batches
    for thread in started:
        thread.join(timeout=60)
    assert not started & readers()


def test_result_is_a_grain_iterator():
    """So that a caller may close it."""
    assert isinstance(train_batches(numbered(2), batch_size=1, seed=0), grain.DatasetIterator)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 6, "process_count": 4}, ["batch_size=6", "process_count=4", "multiple"]),
        ({"batch_size": 0}, ["batch_size=0"]),
        ({"process_index": 2, "process_count": 2}, ["process_index=2", "process_count=2"]),
        ({"process_index": -1}, ["process_index=-1"]),
        ({"seed": -1}, ["seed=-1", "2**32 - 1"]),
        ({"seed": 2**32}, ["seed=4294967296"]),
        ({"start_step": -1}, ["start_step=-1"]),
        ({"steps_per_call": 0}, ["steps_per_call=0"]),
    ],
)
def test_numbers_out_of_range(options, words):
    with pytest.raises(InputError) as caught:
        train_batches(numbered(8), **({"batch_size": 4, "seed": 0} | options))
    assert all(word in str(caught.value) for word in words)


def test_no_records():
    with pytest.raises(InputError, match="no records"):
        train_batches([], batch_size=4, seed=0)
    with pytest.raises(InputError, match="no records"):
        eval_batches([], batch_size=4)
    for sources in ({}, {"a": stills(2, 0), "b": []}):
        with pytest.raises(InputError, match="no records"):
            train_batches(sources, batch_size=4, seed=0)
