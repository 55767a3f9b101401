"""Forecasts that need no training, against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.metrics.baselines import constant, copy_last, feature_forecasts, forecasts, mean_frame


def records(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {"video": rng.integers(0, 256, (frames, 3, 4, 2), np.uint8), "label": np.int64(frames)} for frames in lengths
    ]


def context():
    return jnp.asarray(np.random.default_rng(1).random((2, 5, 3, 4, 2), np.float32))


def test_the_last_frame_is_copied():
    seen = context()
    found = copy_last(seen, steps=3)
    assert found.shape == (2, 3, 3, 4, 2)
    for s in range(3):
        np.testing.assert_array_equal(found[:, s], seen[:, 4])


def test_one_frame_for_every_step_of_every_clip():
    frame = np.random.default_rng(2).random((3, 4, 2), np.float32)
    found = constant(context(), jnp.asarray(frame), steps=3)
    np.testing.assert_array_equal(found, np.tile(frame, (2, 3, 1, 1, 1)))


def test_mean_is_over_all_frames_and_not_over_clips():
    clips = records(1, 6, 2)
    frames = np.concatenate([record["video"] for record in clips]).astype(np.float64)
    found = mean_frame(iter(clips))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, sum(frames) / 9 / 255, rtol=1e-6)
    assert np.abs(found - np.mean([r["video"].mean(axis=0) for r in clips], axis=0) / 255).max() > 0.01


def test_mean_of_bright_clips_does_not_overflow():
    white = [{"video": np.full((400, 2, 2, 1), 255, np.uint8)}] * 3
    np.testing.assert_array_equal(mean_frame(white), np.ones((2, 2, 1)))


def test_mean_has_the_least_squared_error_of_all_constants():
    clips = records(4, 5)
    frames = np.concatenate([record["video"] for record in clips]) / 255
    best, rng = ((frames - mean_frame(clips)) ** 2).sum(), np.random.default_rng(3)
    for _ in range(20):
        assert best < ((frames - mean_frame(clips) - 0.05 * rng.normal(size=(3, 4, 2))) ** 2).sum()


def test_no_record_has_no_mean():
    for make in (mean_frame, lambda none: forecasts(none, steps=2)):
        with pytest.raises(InputError, match="mean_frame: no record came"):
            make(iter(()))


def test_the_three_by_name():
    clips, seen = records(2, 3), context()
    found = forecasts(iter(clips), steps=4)
    frames = np.concatenate([record["video"] for record in clips])
    expected = {
        "copy of the last frame": seen[:, 4:].repeat(4, axis=1),
        "empty background": np.zeros((2, 4, 3, 4, 2)),
        "mean frame of the training set": np.tile(frames.mean(axis=0) / 255, (2, 4, 1, 1, 1)),
    }
    assert found.keys() == expected.keys()
    for name, predict in found.items():
        forecast = predict(seen)
        assert forecast.dtype == np.float32
        np.testing.assert_allclose(forecast, expected[name], rtol=1e-6)


def test_features_are_foretold_by_the_last_and_by_two_means():
    rng = np.random.default_rng(4)
    train, seen = rng.normal(5, 1, (6, 7, 3)).astype(np.float32), rng.normal(size=(2, 4, 3)).astype(np.float32)
    rivals = feature_forecasts(({"percepts": percepts} for percepts in train), steps=5)
    expected = {
        "copy of the last features": [[row[-1]] * 5 for row in seen],
        "mean features of the clip": [[sum(row) / 4] * 5 for row in seen],
        "mean features of the training set": [[sum(train.reshape(-1, 3)) / 42] * 5] * 2,
    }
    assert rivals.keys() == expected.keys()
    for name, rival in rivals.items():
        np.testing.assert_allclose(rival(jnp.asarray(seen)), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
