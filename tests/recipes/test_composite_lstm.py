"""What the recipe of the LSTM composite model measures, compares with and draws, against NumPy."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.prediction import composite_lstm as recipe

MODEL = dataclasses.replace(recipe.PRESETS["tiny"].model, size=12)
DECODERS = {"both": ("reconstruction", "future"), "reconstruction": ("reconstruction",), "future": ("future",)}


def clips(number=3, seed=0):
    """Of the three frames that are read, the two that follow, and one more."""
    return np.random.default_rng(seed).integers(0, 256, (number, 6, 12, 12, 1), np.uint8)


def batch():
    return {"video": jnp.asarray(clips()), "weight": jnp.ones(3)}


@pytest.mark.parametrize("decoders", DECODERS)
def test_reconstruction_is_measured_against_the_context_backwards(decoders):
    model = dataclasses.replace(MODEL, decoders=decoders)
    metric, rng = recipe.metrics(model), np.random.default_rng(1)
    truth = {"reconstruction": clips()[:, 2::-1] / 255, "future": clips()[:, 3:5] / 255}
    outputs = {name: rng.random(truth[name].shape, np.float32) for name in DECODERS[decoders]}
    figures = metric.finish(metric.accumulate(metric.init(), {k: jnp.asarray(x) for k, x in outputs.items()}, batch()))
    names = {"reconstruction": "reconstruction_mse", "future": "mse"}
    for name, frames in outputs.items():
        by_frame = ((frames - truth[name]) ** 2).sum(axis=(2, 3, 4)).mean(axis=0)
        np.testing.assert_allclose(figures[f"{names[name]}_by_frame"], by_frame, rtol=1e-5)
        np.testing.assert_allclose(figures[names[name]], by_frame.mean(), rtol=1e-5)
    assert ("ssim" in figures) == ("future" in outputs)
    assert ("reconstruction_mse" in figures) == ("reconstruction" in outputs)


@pytest.mark.parametrize("decoders", DECODERS)
def test_rivals_stand_in_for_every_decoder(decoders):
    train = [{"video": video} for video in clips(4, seed=2)]
    rivals = recipe.predictions(dataclasses.replace(MODEL, decoders=decoders), train)
    assert len(rivals) == 3
    found = rivals["copy of the last frame"]({}, batch())
    assert found.keys() == set(DECODERS[decoders])
    for name, frames in found.items():
        steps = {"reconstruction": 3, "future": 2}[name]
        np.testing.assert_allclose(frames, clips()[:, 2:3].repeat(steps, axis=1) / 255, rtol=1e-6)


@pytest.mark.parametrize(("decoders", "columns"), [("both", 4), ("reconstruction", 2), ("future", 3)])
def test_pictures_have_a_column_for_each_thing_there_is(decoders, columns):
    outputs = {n: np.ones((3, {"reconstruction": 3, "future": 2}[n], 12, 12, 1)) for n in DECODERS[decoders]}
    picture = recipe.draw(dataclasses.replace(MODEL, decoders=decoders), outputs, {"video": clips()})["composite"]
    assert picture.shape[0] == 6
    assert picture.shape[2] == columns * (96 + 4) + 4
    rows = slice(22, 22 + 96, 8)  # of the first clip
    for t, seen in enumerate([0, 1, 2, 2, 1, 0]):  # forwards, then backwards
        np.testing.assert_array_equal(picture[t, rows, 4 : 4 + 96 : 8], clips()[0, seen])
    if "future" in outputs:
        truth = 4 + (columns - 2) * 100
        np.testing.assert_array_equal(picture[4, rows, truth : truth + 96 : 8], clips()[0, 4])


def test_patches_of_training_are_drawn_and_of_evaluation_are_the_middle():
    config = recipe.PRESETS["tiny"]
    framed = np.pad(clips(8), [(0, 0), (0, 0), (3, 3), (3, 3), (0, 0)])
    source = [{"video": video, "label": np.asarray(7)} for video in framed]
    for i, clip in enumerate(clips(8)):
        np.testing.assert_array_equal(recipe.whole(config, source)[i]["video"], clip[:5])
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch=8))
    drawn = next(recipe.training_batches(config, source, 0))
    assert drawn.keys() == {"video"}
    assert drawn["video"].shape == (8, 5, 12, 12, 1)
    everywhere = dataclasses.replace(config, patches=False)
    assert recipe.whole(everywhere, source) is source


PERCEPTS = dataclasses.replace(MODEL, percept=70, error="squared")


def features(number=3):
    """Of five steps and one more, the last features varying most."""
    return np.random.default_rng(3).normal(size=(number, 6, 70)).astype(np.float32) * np.arange(1, 71, dtype=np.float32)


def test_features_are_measured_and_their_rivals_stand_in_for_every_decoder():
    xs = features()
    batch = {"percepts": jnp.asarray(xs), "weight": jnp.ones(3)}
    found = recipe.predictions(PERCEPTS, [{"percepts": x} for x in xs])["copy of the last features"]({}, batch)
    metric = recipe.metrics(PERCEPTS)
    figures = metric.finish(metric.accumulate(metric.init(), found, batch))
    for name, truth in (("mse", xs[:, 3:5]), ("reconstruction_mse", xs[:, 2::-1])):
        by_frame = ((xs[:, 2:3] - truth) ** 2).sum(axis=2).mean(axis=0)
        np.testing.assert_allclose(figures[f"{name}_by_frame"], by_frame, rtol=1e-5)
    assert figures.keys() == {f"{name}{end}" for name in ("mse", "reconstruction_mse") for end in ("", "_by_frame")}


@pytest.mark.parametrize("decoders", DECODERS)
def test_picture_of_features_is_in_the_order_of_time(decoders):
    """Those predicted exactly have no error; a wrong one is off where it is in time, the most varying on top."""
    xs = features(2)
    truth = {"reconstruction": xs[:, 2::-1].copy(), "future": xs[:, 3:5].copy()}
    name = DECODERS[decoders][0]
    truth[name][0, 0, np.argmax(xs[:, :5].std(axis=(0, 1)))] += 1e4
    model = dataclasses.replace(PERCEPTS, decoders=decoders)
    picture = recipe.draw(model, {n: truth[n] for n in DECODERS[decoders]}, {"percepts": xs})["percepts"]
    height, width = 32 * 4 * 5, 5 * 4 * 5  # of a cell, all enlarged to 100 pixels at least
    top, left = picture.shape[0] - 2 * (height + 4), 4 + 2 * (width + 4)
    error = picture[top : top + height : 20, left : left + width : 20, 0]
    assert error.shape == (32, 5)
    wrong = {"reconstruction": 2, "future": 3}[name]
    assert error[0, wrong] == 255
    assert (np.delete(error.ravel(), wrong) == 128).all()
