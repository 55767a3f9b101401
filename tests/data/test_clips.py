"""Parts of clips, by hand."""

import dataclasses

import numpy as np
import pytest

from seqjax.data import clips
from seqjax.data.clips import Clips, any_pair, any_window, open_clips, training_clips, window
from seqjax.data.pipeline import eval_batches, train_batches
from seqjax.errors import InputError

CLIP = {"video": np.arange(6)[:, None], "joints": np.arange(6) * 10, "label": np.int64(3)}
KEYS = ("video", "joints")


def test_window_ends_with_the_last_frame_again():
    part = window(CLIP, keys=KEYS, start=3, frames=5)
    np.testing.assert_array_equal(part["video"][:, 0], [3, 4, 5, 5, 5])
    np.testing.assert_array_equal(part["joints"], [30, 40, 50, 50, 50])
    assert part.keys() == set(KEYS)


def test_windows_from_anywhere_lie_inside_if_they_can():
    rng = np.random.default_rng(0)
    starts = {any_window(CLIP, rng, keys=KEYS, frames=4)["joints"][0] for _ in range(60)}
    assert starts == {0, 10, 20}
    np.testing.assert_array_equal(any_window(CLIP, rng, keys=KEYS, frames=8)["video"][:, 0], [0, 1, 2, 3, 4, 5, 5, 5])


def test_pairs_have_every_gap_equally_often_and_every_place():
    rng = np.random.default_rng(0)
    found = [tuple(any_pair(CLIP, rng, keys=KEYS, gap=3)["video"][:, 0].tolist()) for _ in range(3000)]
    assert set(found) == {(a, a + n) for n in (1, 2, 3) for a in range(6 - n)}
    gaps = np.bincount([b - a for a, b in found])[1:]
    np.testing.assert_allclose(gaps, 1000, rtol=0.1)
    longest = [any_pair(CLIP, rng, keys=KEYS, gap=50)["video"][:, 0].tolist() for _ in range(50)]
    assert max(b - a for a, b in longest) == 5


def films(*lengths, shape=(2, 3, 3)):
    """Of each the frames are numbered; labels that not all clips have in one shape."""
    return [
        {"video": np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, *shape)), "boxes": np.zeros(n)}
        for n in lengths
    ]


@pytest.fixture
def ragged(monkeypatch):
    """Clips of several lengths, by name and split."""
    sets = {("mine", "train"): films(4, 6, 9), ("mine", "test"): films(7, 5), ("theirs", "part"): films(8, 8, 8)}
    sets["wide", "part"] = films(8, shape=(2, 5, 3))
    monkeypatch.setattr(clips, "open_source", lambda name, split, config, data_dir: sets[name, split])
    return Clips("mine", None, in_memory=False, batch=3)


def numbers(batch):
    return batch["video"][:, :, 0, 0, 0].tolist()


def test_predictors_read_any_lengths(ragged):
    """In training windows from anywhere, in testing the beginnings; nothing but videos."""
    train, test = open_clips(ragged, frames=5)
    batches = training_clips(train, ragged, frames=4, seed=0)
    seen = [tuple(clip) for _ in range(30) for clip in numbers(next(batches))]
    assert {clip[0] for clip in seen} == set(range(6))
    assert all(np.diff(clip).tolist() == [1, 1, 1] for clip in seen)
    (batch,) = eval_batches(test, batch_size=2)
    assert batch.keys() == {"video", "weight"}
    assert numbers(batch) == [[0, 1, 2, 3, 4]] * 2


def test_the_order_of_clips_that_are_as_long_as_needed_is_that_of_the_records():
    source = [{"video": np.full((4, 2, 2, 1), i, np.uint8)} for i in range(11)]
    whole = train_batches(source, batch_size=3, seed=5, start_step=2)
    cut = training_clips(source, Clips(batch=3), frames=4, seed=5, start_step=2)
    for _ in range(9):
        np.testing.assert_array_equal(next(cut)["video"], next(whole)["video"])


def test_marks_of_those_held_out_are_cut_alike(ragged):
    _, test = open_clips(ragged, frames=5, marks=("boxes", "impact"))
    assert {key: len(value) for key, value in test[0].items()} == {"video": 5, "boxes": 5}


def test_tested_on_a_set_of_its_own(ragged):
    train, test = open_clips(dataclasses.replace(ragged, test="part", test_name="theirs"), frames=8)
    assert (len(train), len(test)) == (3, 3)
    assert [len(test[i]["video"]) for i in range(3)] == [8, 8, 8]


def test_clips_that_do_not_do(ragged):
    with pytest.raises(InputError, match=r"shape \(2, 3, 3\) and those for testing of shape \(2, 5, 3\)"):
        open_clips(dataclasses.replace(ragged, test="part", test_name="wide"), frames=8)
    _, test = open_clips(ragged, frames=6)
    with pytest.raises(InputError, match="a clip of 5 frames is shorter"):
        test[1]
    with pytest.raises(InputError, match="in_memory=False"):
        open_clips(dataclasses.replace(ragged, in_memory=True), frames=5)
