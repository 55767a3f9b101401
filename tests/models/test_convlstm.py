"""The ConvLSTM encoder-forecaster beyond the laws that every system joins (``tests/laws``)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.errors import InputError
from seqjax.models.prediction import convlstm
from seqjax.models.prediction.convlstm import Config
from seqjax.nn.split import merge, split

TINY = Config.tiny()


def clip(seed=0, frames=5, size=8, channels=1):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (2, frames, size, size, channels), np.uint8))


def network(**changes):
    return convlstm.build(dataclasses.replace(TINY, **changes), nnx.Rngs(0))["forecaster"]


def future(video):
    return convlstm.split_clip(TINY, video)


def test_loss_is_the_cross_entropy_of_the_predictions():
    """Against the definition in NumPy, from the probabilities that ``predict`` gives."""
    nets, video = {"forecaster": network()}, clip()
    loss, metrics = convlstm.loss(nets, {"video": video}, key=jax.random.key(0))
    p = np.asarray(convlstm.predict(nets, {"video": video}), np.float64)
    x = np.asarray(video[:, 3:5], np.float64) / 255
    entropy = -(x * np.log(p) + (1 - x) * np.log(1 - p))
    np.testing.assert_allclose(metrics["cross_entropy"], entropy.sum() / 2, rtol=1e-5)
    np.testing.assert_allclose(loss, entropy.mean(), rtol=1e-5)


def test_the_future_is_not_an_input():
    nets, video = {"forecaster": network()}, clip()
    changed = video.at[:, 3:].set(0)
    np.testing.assert_array_equal(*(convlstm.predict(nets, {"video": v}) for v in (video, changed)))


def test_a_longer_forecast_begins_with_the_shorter():
    context, _ = future(clip())
    net = network()
    np.testing.assert_allclose(net(context, steps=6)[:, :2], net(context, steps=2), rtol=1e-5, atol=1e-6)


def test_conditional_forecaster_runs_on_its_own_or_on_true_frames():
    context, truth = future(clip())
    net = network(conditional=True)
    free = net(context, steps=2)
    forced = net(context, steps=2, teacher=truth)
    np.testing.assert_allclose(forced[:, 0], free[:, 0], rtol=1e-5, atol=1e-6)  # the first input is the same
    assert np.abs(forced[:, 1] - free[:, 1]).max() > 1e-4
    own = jnp.concatenate([jax.nn.sigmoid(free[:, :1]), truth[:, 1:]], axis=1)
    np.testing.assert_allclose(net(context, steps=2, teacher=own), free, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(net(context, steps=2, teacher=truth, use=jnp.zeros((2, 2))), free, rtol=1e-5, atol=1e-6)


def test_teacher_forcing_trains_the_input_of_the_forecaster():
    nets, video = {"forecaster": network(conditional=True)}, clip()
    loss, _ = convlstm.loss(nets, {"video": video}, key=jax.random.key(0))
    context, truth = future(video)
    logits = nets["forecaster"](context, steps=2, teacher=truth)
    expected = jnp.mean(jnp.logaddexp(0, logits) - truth * logits)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("conditional", [False, True])
def test_steps_computed_again_have_the_same_gradient(conditional):
    """And are in the program: where all are kept nothing is checkpointed."""

    def gradient(remat):
        graphs, params, rest = split({"forecaster": network(remat=remat, conditional=conditional)})

        def loss(params):
            return convlstm.loss(merge(graphs, params, rest), {"video": clip()}, key=jax.random.key(0))[0]

        assert ("remat" in str(jax.make_jaxpr(loss)(params))) == remat
        return jax.jit(jax.grad(loss))(params)

    for a, b in zip(*(jax.tree.leaves(gradient(remat)) for remat in (False, True)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "named"),
    [({"frames": 4}, "4 frames"), ({"size": 7}, "7x7"), ({"channels": 3}, "3 channels")],
)
def test_a_clip_that_the_network_cannot_take_is_described(shape, named):
    with pytest.raises(InputError, match=named):
        convlstm.predict({"forecaster": network()}, {"video": clip(**shape)})
