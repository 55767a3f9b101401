"""Predictors side by side: trained or restored, measured alike, laid out in films."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from data.videos import noise, write
from PIL import Image
from skimage.metrics import structural_similarity

from experiments.prediction import compare, convlstm
from seqjax.data.clips import Clips, open_split
from seqjax.errors import InputError
from seqjax.models.prediction import convlstm as model
from seqjax.train.restore import restore

TINY = dataclasses.replace(compare.PRESETS["tiny"], steps=5)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def config(data_dir, tmp_path_factory):
    """What was compared."""
    data = dataclasses.replace(TINY.data, data_dir=data_dir)
    config = dataclasses.replace(TINY, data=data, workdir=str(tmp_path_factory.mktemp("compared")))
    compare.run(config)
    return config


def table(config):
    with open(f"{config.workdir}/comparison.json") as file:
        return json.load(file)


def test_a_row_for_each_baseline_and_each_way_to_count_a_system(config):
    found = table(config)
    assert list(found) == [
        *("copy of the last frame", "empty background", "mean frame of the training set"),
        *("convlstm", "mcnet", "svg-lp, one sample", "svg-lp, best of 3"),
    ]
    best, one = found["svg-lp, best of 3"], found["svg-lp, one sample"]
    assert best["mse"] < one["mse"]
    assert best["diversity"] > 0 == one["diversity"] == found["convlstm"]["diversity"]
    assert all(len(figures["ssim_by_frame"]) == len(figures["ssim_band"]) == 3 for figures in found.values())
    with Image.open(f"{config.workdir}/comparison.png") as picture:
        assert np.ptp(np.asarray(picture)) > 0


def test_figures_are_those_of_the_restored_network(config):
    """Oracle: NumPy and scikit-image, over the clips one by one."""
    _, nets = restore(f"{config.workdir}/convlstm", convlstm)
    test = open_split(config.data, config.data.test)
    clips = np.stack([test[i]["video"] for i in range(len(test))])
    frames = np.asarray(model.predict(nets, {"video": jnp.asarray(clips[:, : config.context + config.future])}))
    truth = clips[:, config.context : config.context + config.future] / 255
    found = table(config)["convlstm"]
    errors = np.square(frames - truth).sum(axis=(2, 3, 4))
    np.testing.assert_allclose(found["mse_by_frame"], errors.mean(axis=0), rtol=1e-5)
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    ssim = [structural_similarity(frames[0, t, ..., 0], truth[0, t, ..., 0], full=True, **options) for t in range(3)]
    alone = compare.measured(
        config, lambda *, key: jnp.asarray(frames[:1]), {"video": jnp.asarray(clips[:1])}, number=1
    )["ssim"][0]
    # Only windows that lie within the frame count, as in the metric.
    np.testing.assert_allclose(alone, [whole[5:-5, 5:-5].mean() for _, whole in ssim], atol=1e-4)


def test_the_same_command_restores(config, capsys):
    before = table(config)
    compare.run(config)
    said = capsys.readouterr().out
    assert said.count("finished, all 5 steps are done") == 3
    assert table(config) == before


def test_films_order_samples_by_their_error(config):
    """Samples whose error is known: the best and the middle one are found clip by clip."""
    video = np.zeros((2, 5, 4, 4, 1), np.uint8)
    levels = np.array([[0.6, 0.2], [0.4, 0.4], [0.8, 1.0]])
    samples = np.broadcast_to(levels[:, :, None, None, None, None], (3, 2, 3, 4, 4, 1)).astype(np.float32)
    sheet = compare.films(config, {"still": samples[:1], "drawn": samples}, video)[-1, ..., 0]
    side = 4 * 24  # enlarged to 96 pixels
    rows, columns = [22 + side // 2, 22 + side + 4 + side // 2], [4 + k * (side + 4) + side // 2 for k in range(7)]
    shown = np.array([[sheet[row, column] for column in columns] for row in rows])
    #        context, truth, still, best, middle, sample, another
    expected = np.array([[0, 0, 0.6, 0.4, 0.6, 0.6, 0.4], [0, 0, 0.2, 0.2, 0.4, 0.2, 0.4]])
    np.testing.assert_array_equal(shown, np.rint(255 * expected))


def test_a_preset_that_a_recipe_does_not_have():
    with pytest.raises(InputError, match="preset: convlstm has none named 'large', only cpu, paper, tiny"):
        compare.prepared(dataclasses.replace(TINY, preset="large"), "convlstm", (16, 16, 1))


@pytest.mark.parametrize(
    ("system", "frame", "reason"),
    [
        ("svg-lp", (24, 24, 1), r"svg-lp cannot take these clips\. size: got 24"),
        ("svg-fp", (16, 32, 3), "svg-fp cannot take these clips. height, width: got 16 and 32"),
        ("mcnet", (18, 16, 1), "mcnet cannot take these clips"),
        ("convlstm", (15, 16, 1), "convlstm cannot take these clips. video: .* 15x16 with 1 channels"),
        ("composite-lstm", (16, 32, 3), "composite-lstm takes square frames, and 16x32 came"),
    ],
)
def test_frames_that_a_network_cannot_take_are_said_before_training(system, frame, reason):
    with pytest.raises(InputError, match=reason):
        compare.prepared(TINY, system, frame)


@pytest.mark.parametrize("system", compare.CONTENDERS)
def test_what_the_clips_say_sets_the_networks(system):
    """The published presets are of 64x64 and 128x128, grey."""
    config = dataclasses.replace(TINY, preset="paper", context=5)
    _, run = compare.prepared(config, system, (32, 32, 3))
    fields = {"height": 32, "width": 32, "size": 32, "channels": 3}
    found = dataclasses.asdict(run.model)
    assert found["channels"] == 3
    assert found == found | {name: side for name, side in fields.items() if name in found}


def test_colour_clips_of_ones_own_of_another_size_and_length(tmp_path):
    """Films of several lengths, in colour; what stands still is foretold by copying, exactly."""
    folder = tmp_path / "downloads" / "manual" / "clips"
    still = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for split, lengths in {"train": (20, 47, 33), "test": (41, 23)}.items():
        for i, frames in enumerate(lengths):
            moves = noise(frames, 48, 64, seed=i) if split == "train" else np.repeat(still[None], frames, axis=0)
            write(folder / split / f"{i}.avi", moves)
    data = Clips("folder_of_clips", "clips_rgb_64_20frames", data_dir=str(tmp_path), batch=4)
    systems = ("composite-lstm", "svg-lp")
    config = dataclasses.replace(TINY, systems=systems, data=data, steps=2, workdir=str(tmp_path / "compared"))
    compare.run(config)
    found = table(config)
    assert found["copy of the last frame"]["mse"] == 0
    clip = open_split(data, "test")[0]["video"][0] / 255
    np.testing.assert_allclose(found["empty background"]["mse"], np.sum(clip**2), rtol=1e-4)
    for system in systems:
        (figures,) = [found[name] for name in found if name in (system, f"{system}, best of 3")]
        assert len(figures["mse_by_frame"]) == 3
        assert np.isfinite(figures["mse"])
    with Image.open(f"{config.workdir}/comparison.gif") as film:
        assert np.ptp(np.asarray(film.convert("RGB")), axis=-1).max() > 100
