"""Winds and paths against physics and loops, the set as prepared, and fabricated files in the published layout."""

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from seqjax.data import storms
from seqjax.data.source import open_source
from seqjax.data.storms import Lows, StormsConfig, approach, density, drift, inside, merge, smooth_noise, weather
from seqjax.errors import InputError
from seqjax.ops.heatmap import render

seeds = st.integers(0, 2**32 - 1)
SMALL = {"frames": 4, "size": 16, "train": 12, "validation": 2, "test": 3}


def lows(*centres, radius=2.0, strength=1.0, frames=1):
    places = np.repeat(np.float64(centres)[None], frames, axis=0)
    full = np.ones(places.shape[:2])
    return Lows(places, radius * full, strength * full, full.astype(bool))


NONE = lows()._replace(centres=np.zeros((1, 0, 2)), radius=np.ones((1, 0)), strength=np.ones((1, 0)))
NONE = NONE._replace(present=np.ones((1, 0), bool))


def curl_and_divergence(fields):
    u, v = fields[0, ..., 1], fields[0, ..., 2]
    (u_north, u_east), (v_north, v_east) = np.gradient(u), np.gradient(v)
    return v_east - u_north, u_east + v_north


def test_storms_turn_and_decoys_blow_outwards():
    """At the centre the curl of one and the divergence of the other are 0.25 s √e 2 / R, the other of each is 0."""
    calm, one = np.zeros((1, 41, 41, 3)), lows((20, 20), radius=6.0, strength=0.8)
    turning, blowing = weather(one, NONE, calm), weather(NONE, one, calm)
    expected = 2 * 0.25 * 0.8 * np.sqrt(np.e) / 6
    for fields, (strong, weak) in ((turning, (0, 1)), (blowing, (1, 0))):
        found = curl_and_divergence(fields)
        np.testing.assert_allclose(found[strong][20, 20], expected, rtol=0.03)
        assert np.abs(found[weak]).max() < 0.04 * expected
    np.testing.assert_array_equal(turning[..., 0], blowing[..., 0])
    speed = np.hypot(*(turning[0, 20, :, c] - 0.5 for c in (1, 2)))
    assert {14, 26} >= set(np.flatnonzero(speed > speed.max() - 1e-6).tolist())
    np.testing.assert_allclose(speed.max(), 0.25 * 0.8, rtol=1e-5)
    np.testing.assert_allclose(turning[0, 20, 20, 0], 0.5 - 0.3 * 0.8, rtol=1e-5)
    assert turning[0, 20, 26, 2] > 0.5 > turning[0, 20, 14, 2]  # northward in the east: counterclockwise


def test_fields_stay_within_their_range():
    wild = weather(lows((5, 5), strength=9.0), NONE, np.zeros((1, 12, 12, 3)))
    assert wild.min() == 0
    assert wild.max() == 1


def test_density_is_that_of_the_rendered_maps():
    several = lows((3.2, 4.7), (10, 9.5), (6, 6), radius=2.5, frames=2)
    several.present[1, 1] = False
    sigma = 0.75 * several.radius
    expected = render(
        jnp.asarray(several.centres, jnp.float32),
        jnp.asarray(sigma, jnp.float32),
        jnp.asarray(several.present),
        size=(14, 14),
    )
    np.testing.assert_allclose(density(several, size=14)[..., 0], expected, atol=1e-6)


@given(seeds)
def test_paths_have_one_speed_and_one_curvature(seed):
    found = drift(np.random.default_rng(seed), frames=9, number=5, size=32)
    steps = np.diff(found.centres, axis=0)
    speed = np.linalg.norm(steps, axis=-1)
    np.testing.assert_allclose(speed, np.broadcast_to(speed[:1], speed.shape), rtol=1e-9)
    assert speed.min() >= 0.5
    assert speed.max() <= 1.3
    turns = np.diff(np.unwrap(np.arctan2(steps[..., 0], steps[..., 1]), axis=0), axis=0)
    np.testing.assert_allclose(turns, np.broadcast_to(turns[:1], turns.shape), atol=1e-9)
    for quantity, low, high in ((found.radius, 1.8, 2.8), (found.strength, 0.7, 1.0)):
        assert quantity[0].min() >= low
        assert quantity[0].max() <= high
        rates = np.diff(np.log(quantity), axis=0)
        np.testing.assert_allclose(rates, np.broadcast_to(rates[:1], rates.shape), atol=1e-9)
    # Cells of a third, in each of which a start has 0.4 of the side.
    cell = 32 / 3
    start = found.centres[0] - steps[0]
    apart = [np.abs(start[a] - start[b]).max() for a, b in itertools.combinations(range(5), 2)]
    assert min(apart) >= 0.6 * cell - 1e-9


@given(seeds)
def test_the_second_comes_straight_towards_the_first(seed):
    rng = np.random.default_rng(seed)
    found = approach(rng, drift(rng, frames=10, number=2, size=32))
    offset = found.centres[:, 1] - found.centres[:, 0]
    length = np.linalg.norm(offset, axis=-1)
    assert (np.diff(length) <= 1e-9).all()
    assert length[-1] < 0.3 * length[0]
    np.testing.assert_allclose(offset[:6] / length[:6, None], np.repeat(offset[:1] / length[0], 6, axis=0), atol=1e-9)


def test_merging_computed_by_hand():
    """Two come within 3 pixels at step 1; the weaker one, of a third of the strength, is gone from then on."""
    two = lows((5, 5), (5, 12), frames=3)
    two.centres[1:, 1] = [5, 7]
    two.radius[:], two.strength[:] = [3, 4], [0.9, 0.3]
    one = merge(two, distance=3.0)
    np.testing.assert_array_equal(one.present, [[True, True], [True, False], [True, False]])
    np.testing.assert_allclose(one.centres[:, 0], [[5, 5], [5, 5.5], [5, 5.5]])
    np.testing.assert_allclose(one.radius[:, 0], [3, 5, 5])
    np.testing.assert_allclose(one.strength[:, 0], [0.9, np.hypot(0.9, 0.3), np.hypot(0.9, 0.3)])
    np.testing.assert_array_equal(merge(two, distance=1.9).present, True)
    assert two.present.all()  # what came is left as it was


def test_three_that_meet_become_one():
    assert merge(lows((5, 5), (5, 6), (6, 5)), distance=3.0).present.sum() == 1


def test_what_has_left_is_not_present():
    np.testing.assert_array_equal(
        inside(lows((0, 0), (15, 15), (-0.1, 3), (3, 15.1)), size=16).present[0], [1, 1, 0, 0]
    )


def test_noise_has_variance_one_its_length_and_its_memory():
    noise = smooth_noise(np.random.default_rng(0), frames=400, size=32, length=2.0, memory=0.5)
    np.testing.assert_allclose(noise.std(), 1, rtol=0.03)
    # White noise through exp(-x²/2L²): neighbours at a distance x are correlated by exp(-x²/4L²).
    for lag in (1, 3):
        np.testing.assert_allclose((noise * np.roll(noise, lag, axis=2)).mean(), np.exp(-(lag**2) / 16), atol=0.03)
    np.testing.assert_allclose((noise[1:] * noise[:-1]).mean(), 0.5, atol=0.03)
    assert abs((noise[..., 0] * noise[..., 1]).mean()) < 0.03


def clips(tmp_path, split="train", **fields):
    source = open_source("storms", split=split, config=StormsConfig(**(SMALL | fields)), data_dir=tmp_path)
    return [source[i] for i in range(len(source))]


def test_prepared_clips(tmp_path):
    """Maps have a peak of 1 at the pixel of every centre that is present, and records repeat for a seed."""
    records = clips(tmp_path)
    assert len(records) == 12
    config = StormsConfig(**SMALL)
    for i, record in enumerate(records):
        again = storms.simulate(np.random.default_rng([0, 0, i]), config)
        assert record.keys() == again.keys()
        for key, value in again.items():
            assert record[key].dtype == value.dtype
            np.testing.assert_array_equal(record[key], value)
        assert record["fields"].shape == (4, 16, 16, 3)
        for t, n in np.ndindex(4, 2):
            if record["present"][t, n]:
                row, column = np.rint(record["centres"][t, n]).astype(int)
                np.testing.assert_allclose(record["density"][t, row, column, 0], 1, atol=1e-6)
            else:
                np.testing.assert_array_equal(record["centres"][t, n], -1)
        np.testing.assert_array_equal(record["present"].any(axis=1), record["density"].max(axis=(1, 2, 3)) > 0)
    held_out = clips(tmp_path, "test")
    assert not np.array_equal(held_out[0]["fields"], records[0]["fields"])


def test_clips_merge_leave_and_number_as_they_should():
    config = StormsConfig()
    records = [storms.simulate(np.random.default_rng([1, 0, i]), config) for i in range(150)]
    present = np.stack([record["present"] for record in records])
    assert 0.3 < present[:, 0, 1].mean() < 0.6  # half of them have two
    assert (present[:, 0].sum(axis=1) > present[:, -1].sum(axis=1)).mean() > 0.2
    apart = [np.linalg.norm(np.diff(r["centres"][r["present"].all(axis=1)], axis=1), axis=-1) for r in records]
    assert min(d.min() for d in apart if d.size) >= storms.MERGE


def test_every_field_is_in_the_name():
    own = {field.name for field in dataclasses.fields(StormsConfig)}
    own -= {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
    other = dict.fromkeys(own, 7) | {"size": 65, "meeting": 0.5, "noise": 0.1}
    names = {StormsConfig(**{field: value}).name for field, value in other.items()}
    assert len({*names, StormsConfig().name}) == len(own) + 1


@pytest.mark.parametrize(
    "fields",
    [{"frames": 0}, {"size": 15}, {"storms": 0}, {"decoys": 10}, {"noise": -1.0}, {"seed": -1}, {"name": "mine"}],
)
def test_settings_that_cannot_be(fields):
    ((field, value),) = fields.items()
    with pytest.raises(InputError, match=f"{field}={value!r}"):
        StormsConfig(**fields)


def test_prepared_and_read_without_tensorflow_or_jax(tmp_path):
    script = f"""
import sys
from seqjax.data.storms import StormsConfig
from seqjax.data.source import open_source
source = open_source("storms", split="test", config=StormsConfig(**{SMALL}), data_dir={str(tmp_path)!r})
assert source[2]["fields"].shape == (4, 16, 16, 3)
assert not {{"jax", "tensorflow", "torch"}} & set(sys.modules)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def published(tmp_path):
    """Writes arrays where the published ones are expected; each clip is filled with its number."""

    def write(clips, ending="", frames=3):
        folder = tmp_path / "downloads" / "manual"
        folder.mkdir(parents=True, exist_ok=True)
        numbers = np.arange(clips, dtype=np.float32).reshape(-1, 1, 1, 1, 1)
        for name, channels in (("image", 6), ("label", 1)):
            array = np.broadcast_to(numbers, (clips, frames, 4, 5, channels))
            np.save(folder / f"hurricane_{name}{ending}.npy", array)
        return tmp_path

    return write


def numbers(data_dir, split):
    source = open_source("cam5_hurricanes", split=split, data_dir=data_dir)
    records = [source[i] for i in range(len(source))]
    for record in records:
        assert record["fields"].shape == (3, 4, 5, 6)
        assert record["density"].shape == (3, 4, 5, 1)
        assert record["fields"].dtype == np.float32
    return [int(record["fields"].max()) for record in records]


def test_published_clips_are_split_in_blocks_with_gaps(published):
    data_dir = published(40)
    assert numbers(data_dir, "train") == list(range(30))
    assert numbers(data_dir, "validation") == [32, 33]
    assert numbers(data_dir, "test") == [36, 37, 38, 39]


def test_published_training_and_test_files_stay_apart(published):
    published(40, "_train")
    data_dir = published(5, "_test")
    assert numbers(data_dir, "train") == list(range(34))
    assert numbers(data_dir, "validation") == [36, 37, 38, 39]
    assert numbers(data_dir, "test") == list(range(5))


def test_published_files_that_are_missing_damaged_or_too_few(published, tmp_path):
    def message():
        with pytest.raises(InputError) as caught:
            open_source("cam5_hurricanes", split="train", data_dir=tmp_path)
        return str(caught.value)

    assert "10.6075/J0862DZ8" in message()
    published(6)
    assert "6 clips of 3 steps" in message()
    folder = tmp_path / "downloads" / "manual"
    np.save(folder / "hurricane_label.npy", np.zeros((6, 3, 4, 4, 1)))
    assert "(6, 3, 4, 4, 1)" in message()
    (folder / "hurricane_label.npy").write_bytes(b"no array")
    assert "does not hold the files" in message()
