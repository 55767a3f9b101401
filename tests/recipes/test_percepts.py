"""Features of frames, from clips to a trained composite model; the network against itself, called directly."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.prediction import composite_lstm, percepts
from seqjax.data.clips import Clips
from seqjax.data.folder_of_features import folder_in
from seqjax.data.source import open_source
from seqjax.errors import InputError
from seqjax.metrics.digits_cnn import train_digits_cnn
from seqjax.nn.vgg import VGG
from seqjax.train.loop import Loop


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """With the features of a few clips."""
    path = tmp_path_factory.mktemp("data")
    percepts.run(configured(path))
    return path


def configured(path, **changes):
    tiny = percepts.PRESETS["tiny"]
    return dataclasses.replace(tiny, data=dataclasses.replace(tiny.data, data_dir=str(path)), **changes)


def test_a_file_for_every_clip_with_its_features_by_frame(data_dir):
    root = folder_in(data_dir, "percepts")
    clips = open_source("moving_digits", split="test", config="tiny_16", data_dir=data_dir)
    assert [file.name for file in sorted((root / "test").iterdir())] == [f"{i:06}.npy" for i in range(12)]
    train = open_source("moving_digits", split="train", config="tiny_16", data_dir=data_dir)
    frames = [np.stack([s[i]["video"][i % 8] for i in range(len(s))]) / np.float32(127.5) - 1 for s in (train, clips)]
    labels = [np.array([int(s[i]["label"][0]) for i in range(len(s))]) for s in (train, clips)]
    net = train_digits_cnn(frames[0], labels[0], frames[1], labels[1], name="frames-cnn")
    for i in (0, 11):
        expected = net.extract(net.params, jnp.asarray(clips[i]["video"] / 127.5 - 1, jnp.float32)).features
        np.testing.assert_allclose(np.load(root / "test" / f"{i:06}.npy"), expected, rtol=1e-4, atol=1e-5)
    assert json.loads((root / "network.json").read_text())["feature_net_sha256"] == net.sha256


def test_it_goes_on_where_it_ended_and_mixes_nothing(data_dir):
    test = folder_in(data_dir, "percepts") / "test"
    kept, again = test / "000003.npy", test / "000004.npy"
    before = kept.stat().st_mtime_ns, again.read_bytes()
    again.unlink()
    percepts.run(configured(data_dir))
    assert (kept.stat().st_mtime_ns, again.read_bytes()) == before
    with pytest.raises(InputError, match=r"^folder: .*protocol .*seed 0, not .*seed 1"):
        percepts.run(configured(data_dir, seed=1))


def test_a_damaged_clip_has_no_file(tmp_path):
    class Damaged(list):
        damaged = (1,)

    net = train_digits_cnn(*[np.zeros((2, 4, 4, 1), np.float32), np.arange(2)] * 2)
    percepts.write(Damaged([{"video": np.zeros((3, 4, 4, 1), np.uint8)}] * 3), tmp_path, net, frames=2)
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["000000.npy", "000002.npy"]
    assert np.load(tmp_path / "000002.npy").shape == (3, 64)


@pytest.mark.parametrize("record", [{}, {"label": np.zeros(2, np.int64)}])
def test_clips_without_one_label_each(record):
    with pytest.raises(InputError, match=r"^data: .*--vgg"):
        percepts.labelled([{"video": np.zeros((3, 4, 4, 1), np.uint8), **record}])


def test_vgg_sees_the_square_in_the_middle():
    """At 224 pixels nothing is resized; grey stands in all channels."""
    vgg = VGG(top=True, shrink=64, rngs=nnx.Rngs(0))
    net = percepts.vgg_features(vgg)
    images = np.random.default_rng(0).uniform(-1, 1, (1, 224, 230, 1)).astype(np.float32)
    expected = np.maximum(vgg(jnp.asarray(images[:, :, 3:-3].repeat(3, axis=-1)), ("fc6",))["fc6"], 0)
    found = net.extract(net.params, jnp.asarray(images)).features
    np.testing.assert_allclose(found, expected.reshape(1, -1), rtol=1e-4, atol=1e-6)
    assert net.dimension == found.shape[1] == 64


def trained(data_dir, tmp_path, **changes):
    preset = composite_lstm.PRESETS["percepts"]
    return dataclasses.replace(
        preset,
        model=dataclasses.replace(preset.model, context=3, future=2, features=(16,), **changes),
        data=Clips("folder_of_features", "percepts_64_8frames", data_dir=str(data_dir), batch=8),
        loop=Loop(steps=20, log_every=10, sample_every=20),
        workdir=str(tmp_path / "run"),
    )


@pytest.mark.parametrize("conditional", ["none", "both"])
def test_a_run_on_them_ends_with_a_report_and_a_picture(data_dir, tmp_path, conditional):
    composite_lstm.run(trained(data_dir, tmp_path, conditional=conditional))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    names = {"mse", "mse_by_frame", "reconstruction_mse", "reconstruction_mse_by_frame"}
    assert report["metrics"].keys() == names
    assert len(report["baselines"]) == 3
    assert all(figures.keys() == names for figures in report["baselines"].values())
    assert list((tmp_path / "run" / "samples").glob("*percepts*.png"))


def test_features_of_another_width_are_explained(data_dir, tmp_path):
    with pytest.raises(InputError, match=r"^percepts: .*model.percept"):
        composite_lstm.run(trained(data_dir, tmp_path, percept=32))
