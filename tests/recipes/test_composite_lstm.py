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
