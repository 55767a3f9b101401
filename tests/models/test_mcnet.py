"""MCNet beyond the laws that every system joins (``tests/laws``)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nn.filled import run_all

from seqjax import compat
from seqjax.errors import InputError
from seqjax.models.prediction import mcnet
from seqjax.models.prediction.mcnet import Config
from seqjax.nn.split import initialise, merge, split
from seqjax.ops.cells import lstm
from seqjax.ops.linear import affine

TINY = Config.tiny()
K, T = TINY.context, TINY.future
KEY = jax.random.key(0)


def configured(**changes):
    return dataclasses.replace(TINY, **changes)


@functools.cache
def networks(**changes):
    return initialise(functools.partial(mcnet.build, configured(**changes)), 0)


def clip(seed=0, frames=K + T, channels=1):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (2, frames, 8, 8, channels), np.uint8))


def predict(nets, video, steps):
    return np.asarray(run_all(nets, lambda nets, v: mcnet.predict(nets, {"video": v}, steps=steps), video))


def loss_of(name, nets, video):
    objective = getattr(mcnet, name)
    total, metrics = run_all(nets, lambda nets, v: objective(nets, {"video": v}, key=KEY), video)
    return float(total), {key: float(value) for key, value in metrics.items()}


@pytest.mark.parametrize(("context", "channels"), [(2, 1), (4, 3)])
def test_prediction_is_the_recursion_step_by_step(context, channels):
    """In a Python loop over the parts, each difference and each frame encoded when it is there."""
    nets = networks(context=context, channels=channels)
    video = clip(frames=context + 3, channels=channels)

    def by_hand(nets, video):
        net = nets["predictor"]
        frames = [2 * (video[:, t] / 255) - 1 for t in range(context)]
        params = compat.pure(net.lstm)
        state = lstm.carry(params, (2, 2, 2))
        found = []
        luma = jnp.asarray([0.299, 0.587, 0.114] if channels == 3 else [1.0]).reshape(1, 1, 1, -1)

        def grey(frame):
            return jnp.sum((frame + 1) / 2 * luma, axis=-1, keepdims=True)

        for t in range(1, context + 3):
            top, motion = net.motion(grey(frames[t]) - grey(frames[t - 1]))
            state, _ = lstm.step(params, state, lstm.project(params, top, affine), affine)
            if t < context - 1:
                continue
            top, content = net.content(frames[t])
            x = jnp.concatenate([state.h, top], axis=-1)
            for conv in net.combine:
                x = jax.nn.relu(conv(x))
            frames.append(net.decoder(x, [r(m, c) for r, m, c in zip(net.residuals, motion, content, strict=True)]))
            found.append(frames[-1])
        return jnp.stack(found[:3], axis=1) / 2 + 0.5

    expected = run_all({"predictor": nets["predictor"]}, by_hand, video)
    np.testing.assert_allclose(predict(nets, video, 3), expected, rtol=1e-4, atol=1e-5)
    assert np.std(expected, axis=1).max() > 1e-4


def test_the_future_is_not_read_and_a_longer_one_begins_with_the_shorter():
    nets, video = networks(), clip()
    other = video.at[:, K:].set(0)
    np.testing.assert_array_equal(predict(nets, video, 4), predict(nets, other, 4))
    np.testing.assert_allclose(predict(nets, video, 4)[:, :2], predict(nets, video, 2), rtol=1e-5, atol=1e-6)
    assert predict(nets, video[:, :K], 1).shape == (2, 1, 8, 8, 1)


def test_without_motion_every_difference_is_zero():
    """Exactly: in colour too, where grey is a sum of products."""
    still = jnp.repeat(clip(channels=3)[:, :1], K, axis=1)
    signed, _ = mcnet.split_clip(configured(channels=3), still, future=0)
    assert np.std(signed) > 0
    assert not np.diff(np.asarray(mcnet.grey(signed)), axis=1).any()


def test_gradients_flow_through_the_recursion():
    """The last frame alone is judged; what the first steps predicted has a part in it."""
    nets = networks()

    def slope(nets, video):
        net = nets["predictor"]
        context, _ = mcnet.split_clip(TINY, video, future=0)

        def last(context):
            return jnp.sum(net(context, steps=3)[:, -1])

        return jax.grad(last)(context)

    gradient = np.abs(run_all(nets, slope, clip()))
    assert (gradient.max(axis=(0, 2, 3, 4)) > 0).all(), "every frame of the context is seen"


@pytest.mark.parametrize(("distance", "exponent"), [("squared", 1.0), ("absolute", 2.0)])
def test_losses_by_their_definitions(distance, exponent):
    """In NumPy, from the frames and the logits."""
    changes = {"image": 0.7, "distance": distance, "gradient": 0.6, "exponent": exponent, "adversarial": 0.3}
    config, video, nets = configured(**changes), clip(), networks(**changes)

    def parts(nets, video):
        context, future = mcnet.split_clip(config, video)
        predicted = nets["predictor"](context, steps=T)
        judged = [nets["discriminator"](jnp.concatenate([context, x], axis=1)) for x in (future, predicted)]
        return future, predicted, judged

    found = run_all(nets, parts, video)
    future, predicted, (real, fake) = jax.tree.map(lambda x: np.asarray(x, np.float64), found)
    pixels = (np.abs(predicted - future) ** {"squared": 2, "absolute": 1}[distance]).mean()
    units = [(x + 1) / 2 for x in (predicted, future)]
    edges = sum(
        (np.abs(np.abs(np.diff(units[0], axis=axis)) - np.abs(np.diff(units[1], axis=axis))) ** exponent).mean()
        for axis in (2, 3)
    )
    fooled, on_real, on_fake = (np.log1p(np.exp(x)).mean() for x in (-fake, -real, fake))
    total, metrics = loss_of("loss_generator", nets, video)
    np.testing.assert_allclose([metrics[n] for n in ("pixels", "edges", "adversarial")], [pixels, edges, fooled], 1e-4)
    np.testing.assert_allclose(total, 0.7 * (pixels + 0.6 * edges) + 0.3 * fooled, rtol=1e-4)
    total, metrics = loss_of("loss_discriminator", nets, video)
    np.testing.assert_allclose(total, on_real + on_fake, rtol=1e-4)
    np.testing.assert_allclose([metrics["real"], metrics["fake"]], [on_real, on_fake], rtol=1e-4)


def test_the_adversarial_loss_counts_from_its_step_on():
    nets, video = networks(adversarial=0.5, adversarial_after=2), clip()
    shares = []

    def step(nets, video):
        total, metrics = mcnet.loss_generator(nets, {"video": video}, key=KEY)
        image = metrics["pixels"] + metrics["edges"]
        return total - image, metrics["adversarial"], nets["predictor"].steps[...]

    for began in (0, 1, 2, 3):
        nets["predictor"].steps[...] = jnp.asarray(began, jnp.int32)
        extra, fooled, steps = run_all(nets, step, video)
        shares.append(float(extra / fooled))
        assert steps == began + 1
    np.testing.assert_allclose(shares, [0, 0, 0.5, 0.5], atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "errors", "expected"),
    [
        (0, (0.69, 0.69), (False, True)),  # before the discriminator counts
        (0, (0.1, 0.9), (False, True)),
        (5, (0.69, 0.69), (True, True)),
        (5, (0.5, 0.2), (False, True)),
        (5, (0.5, 0.8), (True, False)),
        (5, (0.2, 0.8), (True, True)),
    ],
)
def test_who_plays(steps, errors, expected):
    rest = {"predictor": {"steps": jnp.asarray(steps)}, "discriminator": {"errors": jnp.asarray(errors)}}
    assert tuple(map(bool, mcnet.playing(configured(adversarial_after=5), rest))) == expected


@pytest.mark.parametrize(("output", "learns"), [("tanh", False), ("linear", True)])
def test_frames_far_below_black_have_a_gradient_without_tanh_alone(output, learns):
    nets = initialise(functools.partial(mcnet.build, configured(output=output, adversarial=0.0)), 0)
    last = nets["predictor"].decoder.scales[0][-1]
    last.bias = nnx.Param(last.bias[...] - 30)
    video, parts = clip(), split(nets)

    @jax.jit
    @jax.grad
    def slope(params):
        return mcnet.loss_generator(merge(parts.graphs, params, parts.rest), {"video": video}, key=KEY)[0]

    assert any(np.any(g) for g in jax.tree.leaves(slope(parts.params))) == learns
    assert not predict(nets, video, T).any()


def test_both_losses_leave_what_the_next_turn_is_told_from():
    nets, video = networks(), clip()
    for name in ("loss_generator", "loss_discriminator"):

        def errors(nets, video, name=name):
            getattr(mcnet, name)(nets, {"video": video}, key=KEY)
            return nets["discriminator"].errors[...]

        _, metrics = loss_of("loss_discriminator", nets, video)
        np.testing.assert_allclose(run_all(nets, errors, video), [metrics["real"], metrics["fake"]], rtol=1e-5)


def test_without_content_frames_do_not_depend_on_what_stands_still():
    """Motion is of differences: a constant added to the whole clip changes nothing."""
    for content, differs in (("none", False), ("frame", True)):
        nets, video = networks(content=content), clip() // 2
        shift = np.abs(predict(nets, video + jnp.uint8(60), 1) - predict(nets, video, 1)).max()
        assert (shift > 1e-4) == differs


def test_without_an_adversarial_loss_there_is_no_discriminator():
    nets = networks(adversarial=0.0)
    assert set(nets) == {"predictor"}
    total, metrics = loss_of("loss_generator", nets, clip())
    assert set(metrics) == {"pixels", "edges"}
    np.testing.assert_allclose(total, metrics["pixels"] + metrics["edges"], rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"context": 1}, "context, future: got 1 and 2"),
        ({"future": 0}, "context, future: got 3 and 0"),
        ({"height": 10}, "got 10x8x1; expected multiples of 4"),
        ({"channels": 2}, "got 8x8x2.*1 or 3 channels"),
    ],
)
def test_networks_that_cannot_be(fields, words):
    with pytest.raises(InputError, match=words):
        nnx.eval_shape(lambda: mcnet.build(configured(**fields), nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("video", "named"),
    [(clip(frames=4), "4 frames of 8x8x1.*at least 5"), (clip(channels=3), r"8x8x3.*5 frames of 8x8x1.*model\.")],
)
def test_a_clip_that_the_networks_cannot_take_is_described(video, named):
    with pytest.raises(InputError, match=named):
        mcnet.loss_generator(networks(), {"video": video}, key=KEY)
