"""MoCoGAN's recipe: what its figures say of clips that are known, its codes, its players, and sets without labels."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.generation import mocogan as recipe
from seqjax.data.moving_discs import render, swing
from seqjax.errors import InputError
from seqjax.metrics.average_content_distance import centroid
from seqjax.nn.split import initialise, merge, split

TINY = recipe.PRESETS["tiny"]


def discs(number, size=16, frames=8):
    drawn = [swing(np.random.default_rng([1, i]), frames=frames, size=size) for i in range(number)]
    video = np.stack([render(d.colour, d.centres, size=size) for d in drawn])
    return video, np.array([d.label for d in drawn]), np.stack([d.centres for d in drawn])


@functools.cache
def measured(name):
    """The figures of real clips, or of what is made of them, through the recipe's own metrics."""
    video, label, _ = discs(64)
    config = dataclasses.replace(recipe.CPU, samples=64, classifier_steps=30)
    colour = np.float32(video.max(axis=(1, 2, 3)) / 255)
    real = {"video": video, "label": label, "colour": colour}
    metric = recipe.figures(config, recipe.feature_net(config, real, real), real)
    rows = {key: jnp.asarray(value) for key, value in recipe.to_compare(real, 64).items()}
    acc = jax.jit(metric.accumulate)(metric.init(), recipe.given(name, {}, rows), {"weight": jnp.ones(64)})
    return metric.finish(acc), metric.record


def test_real_clips_keep_their_colour_and_move_along_their_axis():
    found, record = measured("held-out clips")
    assert found["axis_accuracy"] == 1
    assert found["acd_ratio"] < 0.1
    assert 2 < found["amplitude"] < 3.5
    assert found["content_spread"] == pytest.approx(0.8 / np.sqrt(12), rel=0.25)
    assert (record["reference_split"], record["context_frames"], record["clip_frames"]) == ("train", 0, 8)
    assert record["feature_net"] == "moving_discs-gru"
    json.dumps(dict(record))


def test_shuffled_frames_keep_nothing_and_stills_do_not_move():
    shuffled, _ = measured("their frames shuffled")
    still, _ = measured("their first frames")
    assert shuffled["acd_ratio"] > 0.8
    assert 0.3 < shuffled["axis_accuracy"] < 0.7
    assert still["acd"] == pytest.approx(0, abs=1e-6)
    assert still["amplitude"] == pytest.approx(0, abs=1e-4)


def test_the_middle_of_what_is_bright_is_that_of_the_disc():
    video, _, centres = discs(20)
    np.testing.assert_allclose(centroid(jnp.asarray(video, jnp.float32) / 255), centres, atol=0.05)


def test_codes_share_contents_in_groups_and_motions_in_columns():
    drawn = recipe.codes(TINY.model, 5, 3)
    contents = drawn["content"].reshape(5, 3, -1)
    np.testing.assert_array_equal(contents[:, 1:], contents[:, :-1])
    assert len(np.unique(drawn["content"], axis=0)) == 5
    assert len(np.unique(drawn["noise"], axis=0)) == 15
    table = recipe.table_of_codes(TINY.model, rows=3, columns=4)
    for name in ("noise", "start", "category"):
        by_row = table[name].reshape(3, 4, -1)
        np.testing.assert_array_equal(by_row[1:], by_row[:-1])
    assert table["category"][:4].tolist() == [0, 1, 0, 1]
    by_row = table["content"].reshape(3, 4, -1)
    np.testing.assert_array_equal(by_row[:, 1:], by_row[:, :-1])


def test_the_sheet_has_a_column_for_each_motion():
    table = recipe.table_of_codes(TINY.model, rows=3, columns=4)
    levels = np.linspace(-1, 1, 12).reshape(12, 1, 1, 1, 1) * np.ones((12, 5, 8, 8, 3))
    (sheet,) = recipe.draw(levels.astype(np.float32), table).values()
    assert sheet.shape[0] == 5
    assert len(np.unique(sheet[0, :, :, 0])) >= 12


def test_the_published_network_sees_every_other_frame():
    assert recipe.PRESETS["paper"].data.every == 2


def test_each_player_has_its_own_rate_and_turn(monkeypatch):
    """By plain gradient descent every step is the rate times the gradient."""
    monkeypatch.setattr(recipe, "alternate", lambda players: players)
    optimizer = recipe.Optimizer(name="sgd", learning_rate=0.2)
    players = recipe.learner(dataclasses.replace(TINY, image_rate=0.5, video_rate=0.25, optimizer=optimizer))
    assert list(players) == ["image_discriminator", "video_discriminator", "generator"]
    for player, rate in zip(players.values(), (0.1, 0.05, 0.2), strict=True):
        one = jnp.ones(())
        assert player.tx.update(one, player.tx.init(one))[0] == pytest.approx(-rate)
    assert players["generator"].nets == ("motion", "generator")


def test_without_an_image_discriminator_two_play():
    config = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, image_discriminator="none"))
    nets = recipe.build(config, nnx.Rngs(0))
    state = jax.eval_shape(lambda key: recipe.learner(config).init(nets, key), jax.random.key(0))
    assert state.opt.keys() == {"video_discriminator", "generator"}


def test_clips_of_any_length_are_cut_in_training_and_measuring():
    """Every other frame from anywhere, told by their grey levels; what else is known of a clip stays on the host."""
    clips = [{"video": np.tile(np.arange(20, dtype=np.uint8)[:, None, None, None], (1, 8, 8, 3)), "label": 1}] * 9
    config = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, every=2))
    batch = next(recipe.batches(config, clips, 0))
    assert batch.keys() == {"video", "label"}
    assert batch["video"].shape == (8, 4, 8, 8, 3)
    times = batch["video"][:, :, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(np.diff(times), 2)
    assert len(set(times[:, 0])) > 1
    assert times.max() <= 19
    np.testing.assert_array_equal(recipe.arrays(config, clips)["video"][:, :, 0, 0, 0], [[0, 2, 4, 6]] * 9)


def test_frames_of_short_clips_are_closer():
    """Every fourth of four frames is had of thirteen or more; of eleven there is every third, of four each."""
    config = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, every=4))
    for length, expected in ((20, 4), (13, 4), (11, 3), (4, 1)):
        record = {"video": np.tile(np.arange(length, dtype=np.uint8)[:, None, None, None], (1, 8, 8, 3)), "label": 1}
        for cut in (recipe.somewhere(config, record, np.random.default_rng(0)), recipe.arrays(config, [record])):
            times = cut["video"].reshape(4, -1)[:, 0].astype(int)
            np.testing.assert_array_equal(np.diff(times), expected)
    with pytest.raises(InputError, match=r"a clip of 3 frames is shorter"):
        recipe.arrays(config, [{"video": np.zeros((3, 8, 8, 3), np.uint8)}])


def test_a_set_without_labels_is_trained_on_and_measured(tmp_path):
    """Grey digits that bounce, whose labels are of the digits in a clip and not of the clip."""
    model = dataclasses.replace(TINY.model, size=16, channels=1, frames=7, categories=0)
    data = recipe.Data("moving_digits", "tiny_16", batch=8, data_dir=str(tmp_path))
    experiment = recipe.prepare(dataclasses.replace(TINY, model=model, data=data, classifier_steps=2))
    assert next(experiment.batches(0)).keys() == {"video"}
    nets, evaluation = initialise(experiment.build, 0), experiment.evaluation
    parts = split(nets)

    @functools.partial(jax.jit, static_argnums=0)
    def add(predict, acc, params, batch):
        return evaluation.metric.accumulate(acc, predict(merge(parts.graphs, params, parts.rest), batch), batch)

    for predict in (evaluation.predict, *experiment.baselines().values()):
        acc = evaluation.metric.init()
        for batch in evaluation.batches():
            acc = add(predict, acc, parts.params, batch)
        found = evaluation.metric.finish(acc)
        assert {"acd", "amplitude", "moving_digits-order-gru-fd"} <= found.keys()
        assert not {"motion_control", "axis_accuracy"} & found.keys()
        assert np.isfinite(list(found.values())).all()
    drawn = experiment.sampling.draw(np.zeros((30, 7, 16, 16, 1), np.float32), experiment.sampling.batch)
    assert drawn["clips"].shape[-1] == 1


def test_without_labels_clips_are_compared_by_how_their_frames_follow():
    video, _, _ = discs(9, frames=5)
    found = recipe.in_orders(video)
    assert found["label"].tolist() == [0, 1, 2] * 3
    for clip, made, kind in zip(video, found["video"], found["label"], strict=True):
        expected = {0: clip, 2: np.repeat(clip[:1], 5, axis=0)}.get(kind)
        if expected is not None:
            np.testing.assert_array_equal(made, expected)
        else:
            assert sorted(frame.tobytes() for frame in made) == sorted(frame.tobytes() for frame in clip)
    assert any((made != clip).any() for clip, made in zip(video[1::3], found["video"][1::3], strict=True))


def test_clips_that_do_not_fit_are_described_before_anything_is_trained():
    unlabelled = [{"video": np.zeros((4, 8, 8, 3), np.uint8)}] * 9
    with pytest.raises(InputError, match=r'label: none came.*q_train to "fakes", or model.categories to 0'):
        recipe.arrays(TINY, unlabelled)
    for changes in ({"categories": 0}, {"q_train": "fakes"}):
        config = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, **changes))
        assert recipe.arrays(config, unlabelled).keys() == {"video"}
        with pytest.raises(InputError, match="images of 8x6x3 came, and the network takes 8x8x3"):
            recipe.arrays(config, [{"video": np.zeros((4, 8, 6, 3), np.uint8)}])
    with pytest.raises(InputError, match=r"model.categories: got 2, and moving_discs has 3 labels"):
        recipe.arrays(TINY, [{**record, "label": np.asarray(2)} for record in unlabelled])


def test_frames_of_any_size_are_brought_to_the_networks():
    """The middle square: what is left and right of it is not seen."""
    video = np.zeros((4, 16, 20, 3), np.uint8)
    video[:, :, 2:18] = 200
    config = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, side=8))
    found = recipe.cut(config, {"video": video, "label": np.asarray(1), "index": np.asarray(3)})
    assert found.keys() == {"video", "label"}
    np.testing.assert_array_equal(found["video"], np.full((4, 8, 8, 3), 200))
    assert recipe.cut(config, {"video": video, "label": np.array([1, 2])}).keys() == {"video"}
