"""MoCoGAN beyond the laws that every system joins (``tests/laws``)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from laws.systems import labelled_clips
from nn.filled import run_all

from seqjax.errors import InputError
from seqjax.models.generation import mocogan
from seqjax.models.generation.mocogan import Codes, Config
from seqjax.nn.split import initialise, merge, split
from seqjax.train.step import Player, alternate

TINY = Config.tiny()
B, T = 6, TINY.frames
KEY = jax.random.key(3)
PLAYERS = {
    "image": Player(mocogan.loss_image_discriminator, ("image_discriminator",), optax.sgd(0.1)),
    "video": Player(mocogan.loss_video_discriminator, ("video_discriminator",), optax.sgd(0.1)),
    "generator": Player(mocogan.loss_generator, ("motion", "generator"), optax.sgd(0.1)),
}


def configured(**changes):
    return dataclasses.replace(TINY, **changes)


@functools.cache
def networks(**changes):
    """With kernels ten times as large, so that what codes say shows in the frames."""
    nets = initialise(functools.partial(mocogan.build, configured(**changes)), 0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(split(nets).params["generator"]):
        if leaf.ndim == 4:
            module = nets["generator"]
            for key in path[:-1]:
                module = module[key.key] if isinstance(key.key, int) else getattr(module, key.key)
            module.kernel[...] = 10 * module.kernel[...]
    return nets


def codes(frames=T, number=B, key=KEY, **changes):
    return mocogan.draw_codes(configured(**changes), number, frames=frames, key=key)


def sampled(nets, drawn):
    return np.asarray(run_all(nets, mocogan.sample, drawn._asdict()))


def objective(name, nets, batch):
    return run_all(nets, lambda nets, batch: getattr(mocogan, name)(nets, batch, key=KEY), batch)


def batch(size=B):
    return {name: jnp.asarray(values) for name, values in labelled_clips(TINY, size).items()}


@pytest.mark.parametrize("to", ["rnn", "gen"])
def test_content_is_the_same_in_all_frames_and_the_category_goes_where_it_is_told(to):
    nets, drawn = networks(category_to=to), codes()
    found = np.asarray(run_all(nets, mocogan.frame_codes, drawn))
    assert found.shape == (B, T, 3 + 2 + 2 * (to == "gen"))
    np.testing.assert_array_equal(found[..., :3], np.repeat(drawn.content[:, None], T, axis=1))
    other = np.asarray(run_all(nets, mocogan.frame_codes, drawn._replace(category=1 - drawn.category)))
    told = slice(3, 5) if to == "rnn" else slice(5, 7)
    assert (found[..., told] != other[..., told]).any(axis=-1).all()
    rest = [k for k in range(found.shape[-1]) if k not in range(told.start, told.stop)]
    np.testing.assert_array_equal(found[..., rest], other[..., rest])
    if to == "gen":
        np.testing.assert_array_equal(found[..., 5:].argmax(axis=-1), np.repeat(drawn.category[:, None], T, axis=1))


def test_the_path_is_that_of_a_gru_that_starts_at_its_state():
    """In NumPy, by the equations of Cho et al.; the initial state is no frame's code."""
    nets, drawn = networks(), codes()
    w, u, b, c = map(np.float64, split(nets).params["motion"]["gru"][:4])
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    h, path = np.float64(drawn.start), []
    for t in range(T):
        x = np.concatenate([np.float64(drawn.noise[:, t]), np.eye(2)[np.asarray(drawn.category)]], axis=1) @ w + b
        r, z = sigmoid(x[:, :2] + h @ u[:, :2]), sigmoid(x[:, 2:4] + h @ u[:, 2:4])
        h = (1 - z) * np.tanh(x[:, 4:] + r * (h @ u[:, 4:] + c)) + z * h
        path.append(h)
    found = np.asarray(run_all(nets, mocogan.frame_codes, drawn))[..., 3:]
    np.testing.assert_allclose(found, np.stack(path, axis=1), rtol=1e-4, atol=1e-5)


def test_a_frame_is_its_codes_alone():
    """Codes of frames in another order give these frames in that order, in whatever company."""
    nets, drawn = networks(), codes()
    found = np.asarray(run_all(nets, mocogan.frame_codes, drawn))
    order = np.array([2, 0, 3, 1])

    def render(nets, z):
        return nets["generator"](z, running=True)

    clips = sampled(nets, drawn)
    assert np.abs(np.diff(clips, axis=1)).max() > 0.05
    assert np.abs(clips).max() <= 1
    for b in range(B):
        np.testing.assert_allclose(run_all(nets, render, jnp.asarray(found[b, order])), clips[b, order], atol=1e-5)


def test_a_longer_clip_begins_with_the_shorter_one():
    nets, drawn = networks(), codes(frames=3 * T)
    short = drawn._replace(noise=drawn.noise[:, :T])
    long = sampled(nets, drawn)
    assert long.shape == (B, 3 * T, 8, 8, 1)
    np.testing.assert_allclose(long[:, :T], sampled(nets, short), atol=1e-5)


def test_codes_are_standard_normal_and_kinds_equally_likely():
    drawn = codes(number=2000)
    for values in (drawn.content, drawn.start, drawn.noise):
        assert abs(float(values.mean())) < 0.06
        assert abs(float(values.std()) - 1) < 0.04
    assert np.bincount(drawn.category).tolist() == pytest.approx([1000, 1000], abs=90)


@pytest.mark.parametrize("judge", ["patch", "global"])
def test_discriminators_that_say_nothing_lose_log_2_a_term(judge):
    """Logits of 0: 2 log 2 = 1.386294 of either discriminator, log 2 a term of the generator, and log K a category."""
    config = Config(16, 3, 8, categories=2, base=4, discriminator_base=4, image_discriminator=judge)
    nets = initialise(functools.partial(mocogan.build, config), 0)
    for name in ("image_discriminator", "video_discriminator"):
        last = nets[name].convs[-1].kernel
        last[...] = jnp.zeros_like(last[...])
    given = {"video": jnp.zeros((2, 8, 16, 16, 3), jnp.uint8), "label": jnp.array([0, 1])}
    log2 = np.log(2)
    assert objective("loss_image_discriminator", nets, given)[0] == pytest.approx(2 * log2)
    assert objective("loss_video_discriminator", nets, given)[0] == pytest.approx(3 * log2)
    loss, metrics = objective("loss_generator", nets, given)
    assert loss == pytest.approx(3 * log2)
    assert metrics == {name: pytest.approx(log2) for name in ("clips", "frames", "category")}


def test_losses_are_the_sums_of_their_terms():
    """Cross-entropies in NumPy, from the logits that the networks give for the same keys."""
    nets, given = networks(noise=0.0), batch()

    def parts(nets, given):
        key_codes, key_real, key_fake = jax.random.split(KEY, 3)
        drawn = mocogan.draw_codes(TINY, B, key=key_codes)
        clips = [mocogan.signed_clips(TINY, given["video"]), mocogan.render(nets, drawn)]
        judged = [nets["video_discriminator"](x, key=k) for x, k in zip(clips, (key_real, key_fake), strict=True)]
        return judged, drawn.category

    (real, fake), meant = jax.tree.map(np.asarray, run_all(nets, parts, given))
    assert real.shape == fake.shape == (B, 1, 1, 1, 1 + 2)
    real, fake = np.float64(real.reshape(B, 3)), np.float64(fake.reshape(B, 3))
    game = np.mean(np.log1p(np.exp(-real[:, 0])) + np.log1p(np.exp(fake[:, 0])))

    def entropy(logits, labels):
        return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(B), labels])

    loss, metrics = objective("loss_video_discriminator", nets, given)
    assert metrics["category"] == pytest.approx(entropy(real[:, 1:], np.asarray(given["label"])), rel=1e-4)
    assert loss == pytest.approx(game + float(metrics["category"]), rel=1e-4)
    nets["generator"].config = configured(noise=0.0, q_train="fakes", category=3.0)
    loss, metrics = objective("loss_video_discriminator", nets, {"video": given["video"]})
    assert metrics["category"] == pytest.approx(entropy(fake[:, 1:], meant), rel=1e-4)
    assert loss == pytest.approx(game + 3 * float(metrics["category"]), rel=1e-4)
    networks.cache_clear()


def test_frames_of_the_image_discriminator_are_of_any_time_and_clip():
    """The place of a frame is told by its grey level; real ones are one of each clip."""
    levels = np.arange(200 * T).reshape(200, T, 1)
    found = np.asarray(mocogan._one_of_each(jnp.asarray(levels, jnp.float32), key=KEY)).ravel().astype(int)
    np.testing.assert_array_equal(found // T, np.arange(200))
    assert (np.bincount(found % T, minlength=T) > 30).all()


@pytest.mark.parametrize("playing", PLAYERS)
def test_a_player_leaves_the_others_as_they_are(playing):
    """Bit for bit, and changes its own networks all over; statistics of the generator are kept whoever plays."""
    nets = networks()
    learner, parts = alternate({playing: PLAYERS[playing]}), split(nets)
    state = learner.init(nets, jax.random.key(0))
    after, _ = jax.jit(functools.partial(learner.step, parts.graphs))(state, batch())
    for name, params in parts.params.items():
        same = [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (params, after.params[name])), strict=True)]
        assert not any(same) if name in PLAYERS[playing].nets else all(same), name


class Through(nnx.Module):
    def __call__(self, x):
        return x


def test_noise_before_each_convolution_has_its_deviation():
    discriminator = mocogan.Discriminator([Through()], [], noise=0.3, rngs=nnx.Rngs(0))
    x = jnp.full((50, 8, 8, 1), 0.5)
    seen = np.asarray(discriminator(x, key=KEY))
    assert seen.mean() == pytest.approx(0.5, abs=0.02)
    assert seen.std() == pytest.approx(0.3, rel=0.05)
    discriminator.noise = 0.0
    np.testing.assert_array_equal(discriminator(x, key=KEY), x)


def test_sixteen_frames_of_64_pixels_leave_one_time_and_four_by_four_patches():
    nets = nnx.eval_shape(lambda: mocogan.build(Config(), nnx.Rngs(0)))
    assert [conv.kernel.shape[0] for conv in nets["video_discriminator"].convs] == [4] * 5
    parts = split(nets)

    def judge(params, rest):
        nets = merge(parts.graphs, params, rest)
        videos, images = jnp.zeros((2, 16, 64, 64, 3)), jnp.zeros((2, 64, 64, 3))
        return nets["video_discriminator"](videos, key=KEY), nets["image_discriminator"](images, key=KEY)

    clips, frames = jax.eval_shape(judge, parts.params, parts.rest)
    assert clips.shape == (2, 1, 1, 1, 7)
    assert frames.shape == (2, 4, 4, 1)


def test_without_an_image_discriminator_there_is_none_to_please():
    nets = networks(image_discriminator="none")
    assert nets.keys() == {"motion", "generator", "video_discriminator"}
    assert objective("loss_generator", nets, batch())[1].keys() == {"clips", "category"}


def test_without_categories_nothing_is_told_or_asked():
    nets = networks(categories=0)
    given = {"video": batch()["video"]}
    assert objective("loss_generator", nets, given)[1].keys() == {"clips", "frames"}
    assert "category" not in objective("loss_video_discriminator", nets, given)[1]
    assert sampled(nets, codes(categories=0)).shape == (B, T, 8, 8, 1)


def test_what_cannot_be_is_described():
    with pytest.raises(InputError, match=r"frames: got 12.*takes 12 away.*model.frames to 13"):
        mocogan.build(Config(frames=12), nnx.Rngs(0))
    with pytest.raises(InputError, match="size: got 24"):
        mocogan.build(Config(size=24), nnx.Rngs(0))
    nets = networks()
    with pytest.raises(InputError, match=r"clips of 3 frames came.*takes 4"):
        mocogan.loss_video_discriminator(nets, {"video": batch()["video"][:, :3]}, key=KEY)
    with pytest.raises(InputError, match=r"images of 8x7x1.*8x8x1"):
        mocogan.loss_image_discriminator(nets, {"video": batch()["video"][:, :, :, :7]}, key=KEY)
    with pytest.raises(InputError, match=r'label: none came.*q_train to "fakes"'):
        mocogan.loss_video_discriminator(nets, {"video": batch()["video"]}, key=KEY)


def test_codes_have_the_names_that_sampling_reads():
    assert Codes._fields == ("content", "start", "noise", "category")
