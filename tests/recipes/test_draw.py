"""DRAW's recipe: several networks by one command, its baseline, and its pictures."""

import contextlib
import dataclasses
import io
import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.generation import draw as recipe

TINY = recipe.PRESETS["tiny"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The work directory of two networks trained, and what was printed then and by the same call again."""
    workdir = tmp_path_factory.mktemp("compared")
    config = dataclasses.replace(
        TINY,
        data=dataclasses.replace(TINY.data, data_dir=str(tmp_path_factory.mktemp("data"))),
        loop=dataclasses.replace(TINY.loop, steps=4),
        variants=("no_attention", "one_step"),
        workdir=str(workdir),
    )
    printed = []
    for _ in range(2):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            recipe.run(config)
        printed.append(out.getvalue())
    return workdir, *printed


def test_each_network_has_its_run_and_the_comparison_its_figures(compared):
    workdir, out, again = compared
    comparison = json.loads((workdir / "comparison.json").read_text())
    assert list(comparison) == ["pixels one by one", "no_attention", "one_step"]
    for name, change in (("no_attention", {"attention": False}), ("one_step", {"steps": 1})):
        report = json.loads((workdir / name / "report.json").read_text())
        assert change.items() <= report["config"]["model"].items()
        assert report["baselines"]["pixels one by one"] == comparison["pixels one by one"]
        for metric, value in report["metrics"].items():
            assert comparison[name][metric] == value
            assert f"{value:.4g}" in out
    with Image.open(workdir / "comparison.png") as picture:
        assert np.ptp(np.asarray(picture)) > 0
    assert again.count("finished, all 4 steps are done") == 2
    assert out.splitlines()[-4:] == again.splitlines()[-4:]


def test_pixels_one_by_one_have_their_means():
    """Of three images: one white pixel in all, one in two; each probability (k + 1) / (3 + 2)."""
    images = np.zeros((3, 8, 8, 1), np.uint8)
    images[:, 0, 0], images[:2, 0, 1] = 255, 255
    (predict,) = recipe.baselines(TINY, [{"image": image} for image in images]).values()
    found = predict({}, {"image": jnp.asarray(images[:1])})
    expected = -np.log(4 / 5) - np.log(3 / 5) - 62 * np.log(4 / 5)
    np.testing.assert_allclose(found["bound"], [expected], rtol=1e-5)


def test_values_of_binarized_mnist_are_brought_to_grey_levels():
    record = {"image": np.array([[[0], [1]]], np.uint8)}
    assert recipe.image_alone(1, record)["image"].ravel().tolist() == [0, 255]
    assert recipe.image_alone(255, {"image": np.array([[[7]]], np.uint8)})["image"].item() == 7


def test_the_window_is_drawn_where_it_writes():
    """Five numbers 0 cover the image: the edge of the picture is red in the first frame and not in the last."""
    frames = np.full((1, 2, 8, 8, 1), 90, np.uint8)
    video = recipe.paint(TINY.model, frames, np.zeros((1, 2, 5), np.float32))
    assert video.shape[0] == 3
    red = (video[..., 0] == 255) & (video[..., 1] == 0)
    assert red[0, 2, 2:98].all()
    assert red[1, 2:98, 2].all()
    assert not red[2].any()
