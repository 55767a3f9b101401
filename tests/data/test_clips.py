"""Parts of clips, by hand."""

import numpy as np

from seqjax.data.clips import any_pair, any_window, window

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
