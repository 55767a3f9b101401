"""The sequences against the definitions of Arjovsky et al. (2016), and the sets as they are prepared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqjax.data.memory_tasks import NAMED, SPLITS, AddingProblem, CopyMemory, MemoryTaskConfig, adding, copying
from seqjax.data.source import open_source
from seqjax.errors import InputError

seeds, lengths = st.integers(0, 2**32 - 1), st.integers(2, 40)


@given(seeds, lengths)
def test_adding_marks_one_number_in_each_half_and_sums_them(seed, length):
    inputs, target = adding(np.random.default_rng(seed), length)
    numbers, marks = inputs.T
    first, second = np.flatnonzero(marks)
    assert marks[first] == marks[second] == 1
    assert first < length // 2 <= second < length
    assert (numbers >= 0).all()
    assert (numbers < 1).all()
    assert target == pytest.approx([float(numbers[first]) + float(numbers[second])])


def test_adding_without_memory_costs_a_sixth():
    """The variance of the sum of two independent U[0, 1): 2/12, about the mean 1; marks are uniform in their half."""
    drawn = [adding(np.random.default_rng(seed), 7) for seed in range(4000)]
    targets = np.asarray([target for _, target in drawn])
    assert np.square(targets - 1).mean() == pytest.approx(1 / 6, rel=0.06)
    marks = np.mean([inputs[:, 1] for inputs, _ in drawn], axis=0)
    np.testing.assert_allclose(marks, [1 / 3] * 3 + [1 / 4] * 4, atol=0.03)


@given(seeds, lengths)
def test_copying_asks_for_ten_symbols_after_the_blanks(seed, length):
    inputs, targets = copying(np.random.default_rng(seed), length)
    symbols = inputs[:10].tolist()
    assert set(symbols) <= set(range(8))
    assert inputs.tolist() == symbols + [8] * (length - 1) + [9] + [8] * 10
    assert targets.tolist() == [8] * (length + 10) + symbols


def test_copying_draws_all_symbols_alike():
    symbols = np.concatenate([copying(np.random.default_rng(seed), 2)[0][:10] for seed in range(800)])
    np.testing.assert_allclose(np.bincount(symbols, minlength=8) / len(symbols), 1 / 8, atol=0.015)


@pytest.mark.parametrize(("name", "builder"), [("adding_problem", AddingProblem), ("copy_memory", CopyMemory)])
def test_prepared_sets_hold_their_sequences_and_share_none(name, builder, tmp_path):
    seen = []
    for split in SPLITS:
        source = open_source(name, split=split, config="tiny", data_dir=tmp_path)
        assert len(source) == NAMED["tiny"][split]
        for i in range(len(source)):
            rng = np.random.default_rng([0, SPLITS.index(split), i])
            for key, expected in zip(("inputs", "targets"), builder.draw(rng, 8), strict=True):
                assert source[i][key].dtype == expected.dtype
                np.testing.assert_array_equal(source[i][key], expected)
            seen.append(source[i]["inputs"].tobytes())
    assert len(set(seen)) == len(seen) == sum(NAMED["tiny"][split] for split in SPLITS)


def test_another_seed_gives_other_sequences(tmp_path):
    sequences = []
    for seed in (0, 1):
        config = MemoryTaskConfig(length=8, train=2, validation=1, test=1, seed=seed)
        sequences.append(open_source("copy_memory", split="train", config=config, data_dir=tmp_path)[0]["inputs"])
    assert not np.array_equal(*sequences)


@pytest.mark.parametrize("fields", [{"length": 1}, {"train": 0}, {"seed": -1}, {"name": "t61"}])
def test_settings_that_make_no_sense(fields):
    (field,) = fields
    with pytest.raises(InputError, match=f"^{field}="):
        MemoryTaskConfig(**fields)
