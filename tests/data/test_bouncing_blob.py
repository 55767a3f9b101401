"""The blob's path against its rules, and the set as it is prepared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqjax.data.bouncing_blob import NAMED, SPLITS, BouncingBlobConfig, blob, bounce
from seqjax.data.source import open_source
from seqjax.errors import InputError


@given(st.integers(0, 2**32 - 1), st.integers(8, 40))
def test_velocities_change_at_impacts_alone(seed, pixels):
    """Followed by hand: straight on, cut off at the ends, and away from them at a speed of one to four."""
    places, impacts = bounce(np.random.default_rng(seed), frames=30, pixels=pixels)
    assert ((places >= 0) & (places < pixels)).all()
    assert not impacts[0]
    velocity = None  # not known before the second frame, nor after an impact
    for t in range(1, 30):
        step = places[t] - places[t - 1]
        if impacts[t]:
            assert velocity is None or not 0 <= places[t - 1] + velocity < pixels
            assert places[t] in (0, pixels - 1)
            velocity = None
            continue
        assert step == velocity if velocity is not None else 1 <= abs(step) <= 4
        assert not impacts[t - 1] or (step > 0) == (places[t - 1] == 0)
        velocity = step


def test_after_an_impact_four_speeds_are_equally_likely():
    """So that log 4 is the news: counted over some thousand impacts, within four standard errors."""
    speeds = []
    for seed in range(1000):
        places, impacts = bounce(np.random.default_rng(seed), frames=20, pixels=32)
        speeds += np.abs(np.diff(places))[impacts[:-1]].tolist()
    shares = np.bincount(speeds, minlength=5)[1:] / len(speeds)
    np.testing.assert_allclose(shares, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / len(speeds)))


def test_the_blob_is_a_gaussian_of_deviation_one():
    video = blob(np.array([0, 5]), pixels=9)
    assert video.shape == (2, 1, 9, 1)
    expected = np.rint(255 * np.array([1, np.exp(-0.5), np.exp(-2), np.exp(-4.5)]))
    assert (
        video[0, 0, :4, 0].tolist() == video[1, 0, 5:, 0].tolist() == video[1, 0, 5:1:-1, 0].tolist() == list(expected)
    )


def test_prepared_sets_hold_their_clips_and_share_none(tmp_path):
    seen = []
    for split in SPLITS:
        source = open_source("bouncing_blob", split=split, config="tiny", data_dir=tmp_path)
        assert len(source) == NAMED["tiny"][split]
        for i in range(len(source)):
            rng = np.random.default_rng([0, SPLITS.index(split), i])
            places, impacts = bounce(rng, frames=8, pixels=12)
            np.testing.assert_array_equal(source[i]["video"], blob(places, pixels=12))
            np.testing.assert_array_equal(source[i]["impact"], impacts)
            assert source[i]["video"].dtype == source[i]["impact"].dtype == np.uint8
    for seed in (0, 1):
        config = BouncingBlobConfig(frames=8, pixels=12, train=2, validation=1, test=1, seed=seed)
        seen.append(open_source("bouncing_blob", split="train", config=config, data_dir=tmp_path)[0]["video"])
    assert not np.array_equal(*seen)


@pytest.mark.parametrize("fields", [{"frames": 0}, {"pixels": 7}, {"test": 0}, {"seed": -1}, {"name": "mine"}])
def test_settings_that_make_no_sense(fields):
    (field,) = fields
    with pytest.raises(InputError, match=f"^{field}="):
        BouncingBlobConfig(**fields)
