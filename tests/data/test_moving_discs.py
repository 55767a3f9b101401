"""The disc's swing against its equation, what is drawn of it, and the set as it is prepared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqjax.data.moving_discs import NAMED, RADIUS, SPLITS, MovingDiscsConfig, render, swing
from seqjax.data.source import open_source
from seqjax.errors import InputError


@given(st.integers(0, 2**32 - 1), st.integers(8, 64))
def test_the_disc_swings_along_its_axis_alone_and_stays_inside(seed, size):
    drawn = swing(np.random.default_rng(seed), frames=12, size=size)
    middle = (size - 1) / 2
    np.testing.assert_array_equal(drawn.centres[:, 1 - drawn.label], middle)
    way = np.abs(drawn.centres[:, drawn.label] - middle)
    assert 0.05 * size < way.max() <= 0.28 * size
    assert (way + RADIUS * size <= size / 2).all()
    assert ((drawn.colour >= 0.2) & (drawn.colour < 1)).all()


def test_a_swing_solves_the_equation_of_a_pendulum():
    """``p_{t+1} + p_{t-1} = 2 cos(ω) p_t`` for one ω, whatever amplitude and phase."""
    for seed in range(20):
        drawn = swing(np.random.default_rng(seed), frames=16, size=40)
        p = drawn.centres[:, drawn.label] - 19.5
        twice = (p[2:] + p[:-2])[np.abs(p[1:-1]) > 1] / p[1:-1][np.abs(p[1:-1]) > 1]
        np.testing.assert_allclose(twice, twice[0], atol=1e-9)
        assert 0.75 <= np.arccos(twice[0] / 2) * 16 / (2 * np.pi) <= 1.25


def test_kinds_and_colours_are_drawn_evenly_and_apart():
    drawn = [swing(np.random.default_rng(seed), frames=1, size=16) for seed in range(2000)]
    labels, colours = np.array([d.label for d in drawn]), np.stack([d.colour for d in drawn])
    assert abs(labels.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)
    np.testing.assert_allclose(colours.mean(axis=0), 0.6, atol=4 * 0.8 / np.sqrt(12 * 2000))
    np.testing.assert_allclose(colours.std(axis=0), 0.8 / np.sqrt(12), rtol=0.05)
    assert np.abs(np.corrcoef(np.column_stack([labels, colours]), rowvar=False)[0, 1:]).max() < 4 / np.sqrt(2000)


def test_a_disc_is_drawn_at_its_centre_in_its_colour():
    """Its area is that of a circle, its middle the centre, and one pixel well inside has the colour itself."""
    colour, centre = np.array([1.0, 0.5, 0.2]), np.array([14.3, 20.7])
    (frame,) = render(colour, centre[None], size=40)
    assert frame.shape == (40, 40, 3)
    np.testing.assert_array_equal(frame[14, 21], np.rint(255 * colour))
    np.testing.assert_array_equal(frame[0], 0)
    cover = frame[..., 0] / 255
    assert cover.sum() == pytest.approx(np.pi * (RADIUS * 40) ** 2, rel=0.02)
    for axis in (0, 1):
        places = np.arange(40).reshape(-1, *[1] * (1 - axis))
        assert (cover * places).sum() / cover.sum() == pytest.approx(centre[axis], abs=0.05)


def test_prepared_sets_hold_their_clips_and_share_none(tmp_path):
    seen = []
    for split in SPLITS:
        source = open_source("moving_discs", split=split, config="tiny", data_dir=tmp_path)
        assert len(source) == NAMED["tiny"][split]
        for i in range(len(source)):
            drawn = swing(np.random.default_rng([0, SPLITS.index(split), i]), frames=5, size=8)
            np.testing.assert_array_equal(source[i]["video"], render(drawn.colour, drawn.centres, size=8))
            np.testing.assert_array_equal(source[i]["colour"], drawn.colour.astype(np.float32))
            assert source[i]["label"] == drawn.label
            assert source[i]["video"].dtype == np.uint8
        seen.append(source[0]["video"].tobytes())
    config = MovingDiscsConfig(frames=5, size=8, train=2, validation=1, test=1, seed=1)
    seen.append(open_source("moving_discs", split="train", config=config, data_dir=tmp_path)[0]["video"].tobytes())
    assert len(set(seen)) == 4


@pytest.mark.parametrize("fields", [{"frames": 0}, {"size": 7}, {"test": 0}, {"seed": -1}, {"name": "mine"}])
def test_settings_that_make_no_sense(fields):
    (field,) = fields
    with pytest.raises(InputError, match=f"^{field}="):
        MovingDiscsConfig(**fields)
