"""Hierarchical prediction's recipe beyond the general laws: both networks at once, the game, Penn Action's layout."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from scipy.io import savemat

from experiments.prediction import hierarchical as recipe
from seqjax.data.stick_figures import JOINTS
from seqjax.train.log import read_metrics
from seqjax.train.step import Learner

TINY = recipe.PRESETS["tiny"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


def config(data_dir, workdir="unused", steps=3, **changes):
    """The tiny preset, on fewer steps of either network."""
    loop = dataclasses.replace(TINY.loop, steps=steps)
    return dataclasses.replace(
        TINY,
        data=dataclasses.replace(TINY.data, data_dir=data_dir),
        loop=loop,
        pose=dataclasses.replace(TINY.pose, loop=loop),
        workdir=str(workdir),
        **changes,
    )


@pytest.fixture(scope="module")
def composed(tmp_path_factory, data_dir):
    workdir = tmp_path_factory.mktemp("composed")
    recipe.run(config(data_dir, workdir, stages=("pose", "image")))
    return workdir


def test_both_networks_have_their_reports_and_the_whole_its_figures(composed):
    reports = {stage: json.loads((composed / stage / "report.json").read_text()) for stage in ("pose", "image")}
    assert set(reports["pose"]["baselines"]) == {"copy of the last pose", "constant velocity", "mean pose"}
    assert len(reports["pose"]["metrics"]["joint_error_by_frame"]) == 4
    found = json.loads((composed / "prediction.json").read_text())
    assert found.pop("gaps") == [2, 4]
    assert list(found) == ["predicted poses", "true poses", "copy of the last frame", "mean of the frames seen"]
    for name, expected in {**reports["image"]["baselines"], "true poses": reports["image"]["metrics"]}.items():
        for key, value in expected.items():
            np.testing.assert_allclose(found[name][key], value, rtol=1e-4)
    assert found["predicted poses"]["psnr"] != found["true poses"]["psnr"]


def test_the_film_is_as_long_as_context_and_prediction(composed):
    for file in (composed / "prediction.gif", *(composed / "image" / "samples").iterdir()):
        with Image.open(file) as picture:
            assert picture.n_frames == 3 + 4


@pytest.mark.parametrize(("margin", "playing"), [(0.3, {"generator", "discriminator"}), (0.49, {"discriminator"})])
def test_a_player_pauses_by_the_margin(data_dir, tmp_path, margin, playing):
    """At first both losses are log 2, more than 0.51."""
    recipe.run(config(data_dir, tmp_path, steps=1, margin=margin))
    first = next(line for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "train")
    assert {name.split("/")[0] for name in first if "/" in name} == playing


def test_without_a_weight_there_is_no_discriminator(data_dir):
    plain = config(data_dir, model=dataclasses.replace(TINY.model, adversarial=0.0))
    assert set(recipe.build(plain, nnx.Rngs(0))) == {"generator"}
    assert isinstance(recipe.learner(plain), Learner)


def test_features_of_vgg_are_one_network(data_dir, monkeypatch):
    built = []
    monkeypatch.setattr(recipe, "VGG", lambda *, rngs: built.append(rngs) or nnx.Linear(2, 2, rngs=rngs))
    assert recipe.feature_fns(TINY) == []
    assert not built
    (phi,) = recipe.feature_fns(dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, features=(1.0,))))
    assert callable(phi)
    assert len(built) == 1


def test_mirrored_clips_have_their_sides_exchanged():
    rng = np.random.default_rng(0)
    record = {
        "video": rng.integers(0, 256, (2, 8, 8, 3), np.uint8),
        "joints": rng.uniform(0, 7, (2, 1, 13, 2)).astype(np.float32),
        "visible": rng.random((2, 1, 13)) < 0.5,
    }
    seen = recipe.mirror(record)
    np.testing.assert_array_equal(seen["video"][:, :, 0], record["video"][:, :, 7])
    for k, name in enumerate(JOINTS):
        sides = {"left": "right", "right": "left"}
        other = JOINTS.index("_".join(sides.get(part, part) for part in name.split("_")))
        np.testing.assert_array_equal(seen["joints"][..., k, 0], record["joints"][..., other, 0])
        np.testing.assert_allclose(seen["joints"][..., k, 1], 7 - record["joints"][..., other, 1])
        np.testing.assert_array_equal(seen["visible"][..., k], record["visible"][..., other])
    again = recipe.mirror(seen)
    for key, value in record.items():
        np.testing.assert_allclose(again[key], value, rtol=1e-6, atol=1e-6)


def test_the_same_joints_of_a_record_are_always_hidden():
    record = {"joints": np.random.default_rng(1).random((40, 1, 13, 2)), "visible": np.ones((40, 1, 13), bool)}
    first, second = (recipe.hide(record, 0.1)["visible"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(1 - first.mean(), 0.1, atol=0.04)
    assert recipe.hide(record, 0.0)["visible"].all()


def test_colour_is_measured_at_the_middle_of_the_trunk():
    batch = {
        "video": np.zeros((1, 8, 16, 16, 3), np.uint8),
        "joints": np.zeros((1, 8, 1, 13, 2), np.float32),
        "visible": np.ones((1, 8, 1, 13), bool),
        "weight": np.ones(1, np.float32),
    }
    batch["joints"][0, :, 0, [1, 2, 7, 8]] = np.array([[4, 5], [4, 9], [10, 6], [10, 8]])[:, None]
    outputs = np.zeros((1, 2, 16, 16, 3), np.float32)
    outputs[0, :, 7, 7] = [[0.3, 0, 0], [0.3, 0.6, 0]]
    found = recipe.colour_error(TINY, jax.numpy.asarray(outputs), jax.tree.map(jax.numpy.asarray, batch))
    np.testing.assert_allclose(found["colour_error"], [0.2], rtol=1e-5)


def test_clips_in_the_layout_of_penn_action(tmp_path):
    """Of other lengths, some shorter than what is asked for, and not square."""
    root = tmp_path / "downloads" / "manual" / "Penn_Action"
    (root / "labels").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(1, 11):
        frames, folder = 4 + number, root / "frames" / f"{number:04}"
        folder.mkdir(parents=True)
        for t in range(frames):
            Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / f"{t + 1:06}.jpg")
        labels = {
            **{"x": rng.uniform(12, 24, (frames, 13)), "y": rng.uniform(6, 26, (frames, 13))},
            **{"visibility": np.ones((frames, 13)), "bbox": np.tile([12.0, 6, 24, 26], (frames, 1))},
        }
        savemat(root / "labels" / f"{number:04}.mat", labels | {"action": "squat", "train": 1 if number < 9 else -1})
    penn = config(str(tmp_path), tmp_path / "run", stages=("pose", "image"))
    data = dataclasses.replace(penn.data, name="penn_action", config="128", in_memory=False, batch=4)
    model = dataclasses.replace(penn.model, size=128, widths=(4, 4), discriminator_widths=(4, 4), normalise="swapped")
    recipe.run(dataclasses.replace(penn, data=data, model=model, pose=dataclasses.replace(penn.pose, batch=4)))
    assert (Path(penn.workdir) / "prediction.gif").exists()
