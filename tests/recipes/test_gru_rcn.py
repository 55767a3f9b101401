"""The recipe of GRU-RCN: its clips, figures and picture, and what stays as it is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.recognition import gru_rcn as recipe
from seqjax.errors import InputError

TINY = recipe.PRESETS["tiny"]
LONG = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, sides=(20, 18), frames=3, clips=4))
RECORD = {"video": np.arange(6 * 24 * 30, dtype=np.uint8).reshape(6, 24, 30, 1), "label": np.int64(3), "speed": 1}


def test_longer_videos_are_cut_and_scaled_and_others_taken_whole():
    parts = [recipe.somewhere(LONG, RECORD, np.random.default_rng(seed)) for seed in range(3)]
    assert len({part["video"].tobytes() for part in parts}) == 3
    for record in (*parts, recipe.throughout(LONG, RECORD)):
        assert record.keys() == {"video", "label"}
        assert record["video"].shape[-4:] == (3, 16, 16, 1)
    assert len(recipe.throughout(LONG, RECORD)["video"]) == 4
    for record in (recipe.somewhere(TINY, RECORD, np.random.default_rng(0)), recipe.throughout(TINY, RECORD)):
        np.testing.assert_array_equal(record["video"], RECORD["video"])


def test_variants_are_the_papers_three():
    variants = recipe.PRESETS["cpu"].variants
    models = [recipe.alone(recipe.PRESETS["cpu"], variant).model for variant in variants]
    assert [(model.stacked, model.bidirectional) for model in models] == [(False, False), (True, False), (False, True)]
    assert [recipe.alone(TINY, variant).workdir for variant in variants] == [f"{TINY.workdir}/{v}" for v in variants]


def test_accuracy_and_cross_entropy_of_each_clip():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    found = recipe.measure(jnp.log(jnp.asarray(p, jnp.float32)), {"label": jnp.array([0, 2])})
    assert found["accuracy"].tolist() == [1, 0]
    np.testing.assert_allclose(found["cross_entropy"], -np.log([0.7, 0.3]), rtol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_backbone_is_not_trained(frozen):
    """Adam has means of the gradients of what is trained, and of nothing else."""
    config = dataclasses.replace(TINY, frozen=frozen)

    def init(key):
        return recipe.learner(config).init(recipe.build(config, nnx.Rngs(0)), key)

    state = jax.eval_shape(init, jax.random.key(0))
    assert set(state.params) == {"backbone", "recogniser"}
    assert set(optax.tree.get(state.opt, "mu")) == {"recogniser"} | (set() if frozen else {"backbone"})


def test_published_weights_are_wanted_where_they_stay():
    paper = recipe.PRESETS["paper"]
    with pytest.raises(InputError, match=r"vgg16-397923af\.pth"):
        nnx.eval_shape(lambda: recipe.build(paper, nnx.Rngs(0)))
    nnx.eval_shape(lambda: recipe.build(dataclasses.replace(paper, frozen=False), nnx.Rngs(0)))


def test_the_picture_has_every_clip_and_marks_mistakes():
    """Of what is said right in green, else in red; with frames that are foretold there is a strip more."""
    videos, p = np.full((3, 4, 16, 16, 1), 90, np.uint8), np.eye(8)[:3]
    log_p = np.log(p + 1e-9)
    batch = {"video": videos, "label": np.array([0, 1, 5])}
    (sheet,) = recipe.draw(TINY, {"log_p": log_p}, batch).values()
    red, green, _ = np.moveaxis(sheet.astype(int), -1, 0)
    assert (red - green > 80).any()
    assert (green - red > 80).any()
    frames = np.full((3, 3, 16, 16, 1), 20 / 255)
    (larger,) = recipe.draw(TINY, {"log_p": log_p, "frames": frames}, batch).values()

    def has(sheet, level):
        return (np.abs(sheet.astype(int) - level).max(axis=-1) <= 1).sum() > 1000

    assert (has(sheet, 90), has(sheet, 20), has(larger, 90), has(larger, 20)) == (True, False, True, True)
    several = batch | {"video": np.stack([videos, videos], axis=1)}
    np.testing.assert_array_equal(recipe.draw(TINY, {"log_p": log_p}, several)["clips"], sheet)


RECORDS = [
    {"video": np.full((4, 16, 16, 1), 20 * k, np.uint8), "label": np.int64(k % 8), "speed": 1} for k in range(12)
]


def test_the_network_for_frames_is_trained_where_there_are_rivals():
    blind = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, foresight=0.0))
    assert list(recipe.baselines(dataclasses.replace(blind, rivals=False), RECORDS)) == ["all classes alike"]
    known = recipe.baselines(blind, RECORDS)
    assert list(known) == ["all classes alike", "frames one by one"]
    batch = {key: jnp.stack([record[key] for record in RECORDS]) for key in ("video", "label")}
    for predict in known.values():
        found = predict({}, batch)
        assert found.keys() == {"log_p"}
        assert found["log_p"].shape == (12, 8)
        np.testing.assert_allclose(np.exp(found["log_p"]).sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("several", [False, True])
def test_frames_are_foretold_beside_the_one_before_and_the_mean(several):
    """By hand: of frames that get brighter by 20 levels a step the one before is 20 off at every pixel."""
    config = dataclasses.replace(LONG if several else TINY, rivals=False)
    levels = 20 * np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 24, 30, 1), np.uint8)
    record = {"video": levels if several else levels[:4, :16, :16], "label": np.int64(3)}
    record |= {"video": recipe.throughout(config, record)["video"]}
    batch = {key: jnp.asarray(value)[None] for key, value in record.items()} | {"weight": jnp.ones(1)}
    frames = 3 if several else 4
    metric = recipe.figures(config, frames=frames)
    source = [{"video": levels, "label": np.int64(3)} if several else record]

    def measured(predict):
        return metric.finish(metric.accumulate(metric.init(), predict({}, batch), batch))

    found = {name: measured(predict) for name, predict in recipe.baselines(config, source).items()}
    assert list(found) == ["all classes alike", "frame before copied", "mean frame of the training set"]
    copied, mean = found["frame before copied"], found["mean frame of the training set"]
    np.testing.assert_allclose(copied["mse_by_frame"], [256 * (20 / 255) ** 2] * (frames - 1), rtol=1e-4)
    levels_of_mean = np.mean([[t, t + 1, t + 2] for t in range(4)]) if several else 1.5
    errors = [256 * (20 * (t - levels_of_mean) / 255) ** 2 for t in range(1, frames)]
    np.testing.assert_allclose(mean["mse_by_frame"], errors, rtol=1e-4)
    assert np.isnan([copied["accuracy"], mean["cross_entropy"], found["all classes alike"]["mse"]]).all()
    assert found["all classes alike"]["cross_entropy"] == pytest.approx(np.log(8), rel=1e-5)
    nets = recipe.build(config, nnx.Rngs(0))
    told = recipe.answers(config, nets, batch)
    assert told["frames"].shape == (1, frames - 1, 16, 16, 1)
    assert 0 <= told["frames"].min() <= told["frames"].max() <= 1
    if not several:  # where the objective sees the same clip, in [-1, 1]
        _, metrics = recipe.gru_rcn.loss(nets, batch, key=jax.random.key(0))
        found = metric.finish(metric.accumulate(metric.init(), told, batch))
        assert found["mse"] == pytest.approx(256 / 4 * float(metrics["next_frame"]), rel=1e-4)
