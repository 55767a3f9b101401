"""The LSTM composite model beyond the laws that every system joins (``tests/laws``)."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax import compat
from seqjax.errors import InputError
from seqjax.models.prediction import composite_lstm as system
from seqjax.models.prediction.composite_lstm import Config
from seqjax.nn.split import merge, split

TINY = dataclasses.replace(Config.tiny(), conditional="both")
KEY = jax.random.key(0)
PERCEPTS = {"percept": 7, "error": "squared"}


def networks(seed=0, **changes):
    """Fresh ones whose biases and peepholes are not zero either."""
    nets = system.build(dataclasses.replace(TINY, **changes), nnx.Rngs(seed))
    graphs, params, rest = split(nets)
    rng = np.random.default_rng(seed)
    moved = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), params)
    return merge(graphs, moved, rest)


def clip(seed=0, frames=5, size=8, channels=1):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (2, frames, size, size, channels), np.uint8))


def percepts(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2, 5, 7)).astype(np.float32))


def flat(frames):
    return np.asarray(frames, np.float64).reshape(*frames.shape[:2], -1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step_by_hand(layers, states, x):
    """One step of the layers in NumPy, by equations 1-5 of the paper; ``x`` is None where there is no input."""
    after = []
    for params, (h, c) in zip(layers, states, strict=True):
        w_x, w_h, b, p = (None if a is None else np.asarray(a, np.float64) for a in params[:4])
        i, f, g, o = np.split((0 if x is None else x @ w_x) + h @ w_h + b, 4, axis=-1)
        memory = sigmoid(f + p[1] * c) * c + sigmoid(i + p[0] * c) * np.tanh(g)
        x = sigmoid(o + p[2] * memory) * np.tanh(memory)
        after.append((x, memory))
    return after, x


def predict_by_hand(nets, context, steps, values):
    states = [(np.zeros((len(context), width)),) * 2 for width in TINY.features]
    for t in range(context.shape[1]):
        states, _ = step_by_hand(compat.pure(nets["encoder"].layers), states, context[:, t])
    found = {}
    for name, count in steps.items():
        net, after, x, written = nets[name], states, None, []
        kernel, bias = (np.asarray(a, np.float64) for a in compat.pure(net.readout))
        for _ in range(count):
            after, h = step_by_hand(compat.pure(net.layers), after, x if net.conditional else None)
            x = values(h @ kernel + bias)
            written.append(x)
        found[name] = np.stack(written, axis=1)
    return found


@pytest.mark.parametrize("conditional", ["none", "future", "reconstruction", "both"])
def test_predictions_are_those_of_the_equations(conditional):
    nets, video = networks(conditional=conditional), clip()
    found = system.predict(nets, {"video": video})
    expected = predict_by_hand(nets, flat(video[:, :3]) / 255, {"reconstruction": 3, "future": 2}, sigmoid)
    assert found.keys() == expected.keys()
    for name, frames in found.items():
        assert frames.shape[2:] == (8, 8, 1)
        np.testing.assert_allclose(flat(frames), expected[name], rtol=1e-4, atol=1e-6)


def test_percepts_are_predicted_as_real_numbers():
    nets, xs = networks(**PERCEPTS), percepts()
    found = system.predict(nets, {"percepts": xs})
    expected = predict_by_hand(nets, flat(xs[:, :3]), {"reconstruction": 3, "future": 2}, lambda x: x)
    for name, vectors in found.items():
        np.testing.assert_allclose(vectors, expected[name], rtol=1e-4, atol=1e-5)


def test_loss_is_the_cross_entropy_of_the_reversed_context_and_of_the_future():
    """Against the definition in NumPy, from the probabilities that ``predict`` gives."""
    nets, video = networks(conditional="none"), clip()
    loss, metrics = system.loss(nets, {"video": video}, key=KEY)
    x = flat(video) / 255
    truth = {"reconstruction": x[:, 2::-1], "future": x[:, 3:]}
    for name, p in system.predict(nets, {"video": video}).items():
        p = flat(p)
        entropy = -(truth[name] * np.log(p) + (1 - truth[name]) * np.log(1 - p)).sum(axis=-1)
        np.testing.assert_allclose(metrics[name], entropy.mean(), rtol=1e-5)
    np.testing.assert_allclose(loss, metrics["reconstruction"] + metrics["future"], rtol=1e-6)


def test_squared_loss_of_percepts():
    nets, xs = networks(**PERCEPTS, conditional="none"), percepts()
    _, metrics = system.loss(nets, {"percepts": xs}, key=KEY)
    x = np.asarray(xs, np.float64)
    truth = {"reconstruction": x[:, 2::-1], "future": x[:, 3:]}
    for name, vectors in system.predict(nets, {"percepts": xs}).items():
        np.testing.assert_allclose(metrics[name], ((vectors - truth[name]) ** 2).sum(axis=-1).mean(), rtol=1e-5)


def test_cross_entropy_of_no_opinion_is_log_two_per_pixel():
    error = system.step_error(Config(), jnp.zeros((1, 1, 4096)), jnp.full((1, 1, 4096), 0.3))
    np.testing.assert_allclose(error, 2839.13, atol=0.01)
    np.testing.assert_allclose(error, 4096 * math.log(2), rtol=1e-6)


def test_each_decoder_is_trained_by_its_own_part_alone():
    graphs, params, rest = split(networks())

    def part(name):
        def value(params):
            return system.loss(merge(graphs, params, rest), {"video": clip()}, key=KEY)[1][name]

        return jax.jit(jax.grad(value))(params)

    for name, other in (system.DECODERS, system.DECODERS[::-1]):
        gradients = part(name)
        assert all(not np.any(g) for g in jax.tree.leaves(gradients[other]))
        for trained in (name, "encoder"):
            assert all(np.any(g) for g in jax.tree.leaves(gradients[trained]))


@pytest.mark.parametrize("alone", system.DECODERS)
def test_with_one_decoder_it_is_that_part_of_the_composite(alone):
    composite, video = networks(), {"video": clip()}
    nets = {name: net for name, net in composite.items() if name in ("encoder", alone)}
    nets["encoder"].config = dataclasses.replace(TINY, decoders=alone)
    assert networks(decoders=alone).keys() == nets.keys()
    loss, metrics = system.loss(nets, video, key=KEY)
    assert metrics.keys() == {alone}
    nets["encoder"].config = TINY
    np.testing.assert_allclose(loss, system.loss(composite, video, key=KEY)[1][alone], rtol=1e-6)


def test_first_step_of_a_conditional_decoder_reads_nothing():
    nets, video = networks(), {"video": clip()}
    decoder = nets["future"]
    deaf = networks(conditional="none")["future"]
    deaf.readout = decoder.readout
    bottom, *above = compat.pure(decoder.layers)
    deaf.layers = nnx.Param((bottom._replace(input=None), *above))
    carries = nets["encoder"](system.sequences(TINY, video)["context"])
    with_input, without = decoder(carries, steps=2), deaf(carries, steps=2)
    np.testing.assert_allclose(with_input[:, 0], without[:, 0], rtol=1e-5, atol=1e-6)
    assert np.abs(with_input[:, 1] - without[:, 1]).max() > 1e-3


def test_teacher_shows_the_true_frame_one_step_late():
    nets = networks()
    true = system.sequences(TINY, {"video": clip()})
    carries, decoder = nets["encoder"](true["context"]), nets["reconstruction"]
    free = decoder(carries, steps=3)
    forced = decoder(carries, steps=3, teacher=true["reconstruction"])
    np.testing.assert_allclose(forced[:, 0], free[:, 0], rtol=1e-5, atol=1e-6)
    assert np.abs(forced[:, 1] - free[:, 1]).max() > 1e-3
    own = jax.nn.sigmoid(free)
    np.testing.assert_allclose(decoder(carries, steps=3, teacher=own), free, rtol=1e-4, atol=1e-5)
    unused = decoder(carries, steps=3, teacher=true["reconstruction"], use=jnp.zeros((2, 3)))
    np.testing.assert_allclose(unused, free, rtol=1e-5, atol=1e-6)
    changed = true["reconstruction"].at[:, 2].set(0.5)  # what is written last is never read
    np.testing.assert_array_equal(decoder(carries, steps=3, teacher=changed), forced)


def test_true_frames_are_as_frequent_as_asked_for():
    """0 is the loss of what ``predict`` gives, 1 that of teacher forcing, between lies between."""
    video = {"video": clip()}
    losses = {}
    for share in (0.0, 0.5, 1.0):
        loss = jax.jit(functools.partial(system.loss, networks(true_frames=share), video))
        losses[share] = [loss(key=jax.random.key(seed))[0] for seed in range(3)]
    free = system.predict(networks(), video)
    truth = system.sequences(TINY, video)
    expected = sum(
        -(truth[n] * np.log(flat(p)) + (1 - truth[n]) * np.log(1 - flat(p))).sum(axis=-1).mean()
        for n, p in free.items()
    )
    np.testing.assert_allclose(losses[0.0], expected, rtol=1e-4)
    assert len(set(map(float, losses[1.0]))) == 1
    assert len(set(map(float, losses[0.5]))) > 1
    assert float(losses[1.0][0]) != float(losses[0.0][0])


def test_the_future_is_not_an_input():
    nets, video = networks(), clip()
    changed = video.at[:, 3:].set(0)
    for name, frames in system.predict(nets, {"video": video}).items():
        np.testing.assert_array_equal(frames, system.predict(nets, {"video": changed})[name])


@pytest.mark.parametrize(
    ("shape", "named"),
    [({"frames": 4}, r"\(4, 8, 8, 1\)"), ({"size": 7}, r"\(5, 7, 7, 1\)"), ({"channels": 3}, r"\(5, 8, 8, 3\)")],
)
def test_a_clip_that_the_network_cannot_take_is_described(shape, named):
    with pytest.raises(InputError, match=f"^video: .*{named}.*model.size"):
        system.predict(networks(), {"video": clip(**shape)})


def test_percepts_of_another_width_are_described():
    with pytest.raises(InputError, match=r"^percepts: .*\(5, 7\).*model.percept"):
        system.predict(networks(percept=6, error="squared"), {"percepts": percepts()})


def test_percepts_have_no_cross_entropy():
    with pytest.raises(InputError, match="error='squared'"):
        networks(percept=7)
