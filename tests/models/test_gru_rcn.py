"""GRU-RCN beyond the laws that every system joins (``tests/laws``)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.signal import correlate2d
from scipy.special import expit, log_softmax, logsumexp

from seqjax import compat
from seqjax.errors import InputError
from seqjax.models.recognition import gru_rcn
from seqjax.models.recognition.gru_rcn import Config
from seqjax.nn.split import initialise, merge, split
from seqjax.ops.cells import GRURCNParams, gru_reset_before
from seqjax.ops.scan import unroll

TINY = dataclasses.replace(Config.tiny(), stacked=False, foresight=0.0)
KEY = jax.random.key(0)
LEVELS = jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, 4, 8, 8, 1), np.uint8))
BATCH = {"video": LEVELS, "label": jnp.array([2, 0, 3])}


def network(**changes):
    """With every parameter at random, for biases start at zero."""
    config = dataclasses.replace(TINY, **changes)
    graphs, params, rest = split(initialise(functools.partial(gru_rcn.build, config), 0))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    moved = [x + jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype) for x in leaves]
    return merge(graphs, jax.tree.unflatten(tree, moved), rest)


def compiled(function, nets, *arguments):
    """``function(nets, *arguments)`` in one program, which is quicker than its operations one by one."""
    graphs, params, rest = split(nets)
    return jax.jit(lambda params, arguments: function(merge(graphs, params, rest), *arguments))(params, arguments)


def watched(nets, batch=BATCH, way=0):
    return nets["recogniser"].watch(nets["backbone"](gru_rcn.signed_video(TINY, batch["video"])), way)


def convolved(image, kernel):
    """Zero-padded cross-correlation, channel by channel, by SciPy."""
    out = np.zeros((*image.shape[:2], kernel.shape[-1]))
    for c in range(kernel.shape[2]):
        for d in range(kernel.shape[3]):
            out[..., d] += correlate2d(image[..., c], kernel[..., c, d], mode="same")
    return out


def maxima(image):
    rows, columns, depth = image.shape
    return image.reshape(rows // 2, 2, columns // 2, 2, depth).max(axis=(1, 3))


def step(params, x, h, below=None):
    """One step of the paper's equations, whose z takes the new state: ours, of one sign, keeps the old."""
    gru = params.gru if below is not None else params
    r, z, n = np.split(convolved(x, gru.input) + gru.bias, 3, axis=-1)
    u_r, u_z, u_n = np.split(gru.recurrent, 3, axis=-1)
    if below is not None:
        of_r, of_z = np.split(convolved(maxima(below), params.below), 2, axis=-1)
        r, z = r + of_r, z + of_z
    r, z = expit(r + convolved(h, u_r)), expit(-(z + convolved(h, u_z)))
    candidate = np.tanh(n + convolved(r * h, u_n) + gru.candidate_bias)
    return (1 - z) * h + z * candidate


@pytest.mark.parametrize(("stacked", "bidirectional"), [(False, False), (True, False), (True, True)])
def test_probabilities_against_loops(stacked, bidirectional):
    """Frame by frame, level by level in NumPy float64; the loss is of the mean of probabilities, not of logits."""
    nets = network(stacked=stacked, bidirectional=bidirectional)
    backbone, recogniser = (jax.tree.map(np.float64, split(nets).params[name]) for name in nets)
    levels = jax.tree.map(np.float64, compat.pure(nets["recogniser"].levels))
    assert len(levels) == 1 + bidirectional
    expected = []
    for video in np.float64(LEVELS) / 255:
        percepts = []
        for x in video:
            found = []
            for name in range(2):
                conv = backbone["convs"][name]
                x = maxima(np.maximum(convolved(x, conv["kernel"]) + conv["bias"], 0))
                found.append(x)
            percepts.append(found)
        pooled = [[], []]
        for way, params in enumerate(levels):
            states = [np.zeros((4, 4, 3)), np.zeros((2, 2, 5))]
            for lower, upper in percepts[::-1] if way else percepts:
                states[0] = step(params[0], lower, states[0])
                states[1] = step(params[1], upper, states[1], states[0] if stacked else None)
            for of_level, h in zip(pooled, states, strict=True):
                of_level.append(h.mean(axis=(0, 1)))
        heads = [recogniser["heads"][level] for level in range(2)]
        logits = [np.concatenate(p) @ h["kernel"] + h["bias"] for p, h in zip(pooled, heads, strict=True)]
        expected.append(logsumexp([log_softmax(row) for row in logits], axis=0) - np.log(2))
    found, (value, _) = compiled(lambda nets: (gru_rcn.predict(nets, BATCH), gru_rcn.loss(nets, BATCH, key=KEY)), nets)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(value, -np.mean(np.array(expected)[range(3), BATCH["label"]]), rtol=1e-4)


def test_with_kernels_of_one_pixel_every_place_has_a_dense_gru():
    nets = network(kernel=1)
    percepts = compiled(lambda nets: nets["backbone"](gru_rcn.signed_video(TINY, LEVELS)), nets)
    _, states = compiled(watched, nets)
    for params, xs, hs in zip(compat.pure(nets["recogniser"].levels)[0], percepts, states, strict=True):
        dense = params._replace(input=params.input[0, 0], recurrent=params.recurrent[0, 0])
        for i, j in [(0, 0), (1, 0), (0, 1)]:
            expected = unroll(gru_reset_before, dense, None, xs[:, :, i, j])[1]
            np.testing.assert_allclose(hs[:, :, i, j], expected, rtol=1e-4, atol=1e-5)


def test_stacked_on_weights_of_zero_is_plain_and_else_is_not():
    nets, plain = network(stacked=True), network()
    (lower, upper) = compat.pure(nets["recogniser"].levels)[0]
    assert isinstance(upper, GRURCNParams)
    plain["backbone"], plain["recogniser"].heads = nets["backbone"], nets["recogniser"].heads
    plain["recogniser"].levels = nnx.Param(((lower, upper.gru),))
    expected = compiled(gru_rcn.predict, plain, BATCH)
    assert np.abs(compiled(gru_rcn.predict, nets, BATCH) - expected).max() > 1e-3
    nets["recogniser"].levels = nnx.Param(((lower, upper._replace(below=jnp.zeros_like(upper.below))),))
    np.testing.assert_allclose(compiled(gru_rcn.predict, nets, BATCH), expected, rtol=1e-5, atol=1e-6)


def test_backwards_the_directions_change_places():
    """A clip backwards in a network whose ways are swapped: each way's states are those of the other, in turn."""
    nets, turned = network(bidirectional=True, stacked=True), network(bidirectional=True, stacked=True)
    levels = compat.pure(nets["recogniser"].levels)
    turned["recogniser"].levels = nnx.Param(levels[::-1])
    backwards = BATCH | {"video": LEVELS[:, ::-1]}
    for way in range(2):
        here = compiled(functools.partial(watched, way=way), nets)
        there = compiled(functools.partial(watched, way=1 - way), turned, backwards)
        for level in range(2):
            np.testing.assert_allclose(here[0][level], there[0][level], rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(here[1][level], there[1][level][:, ::-1], rtol=1e-4, atol=1e-6)
            last = here[1][level][:, -1 if way == 0 else 0]
            np.testing.assert_allclose(here[0][level], last, rtol=1e-5, atol=1e-6)
    for head, other in zip(nets["recogniser"].heads, turned["recogniser"].heads, strict=True):
        first, second = jnp.split(head.kernel[...], 2)
        other.kernel = nnx.Param(jnp.concatenate([second, first]))
    found = compiled(gru_rcn.predict, turned, backwards)
    np.testing.assert_allclose(found, compiled(gru_rcn.predict, nets, BATCH), rtol=1e-4, atol=1e-5)


def test_the_next_frame_is_foretold_from_those_before_it():
    """The loss has its mean squared error; no later frame is seen, not even by a network that reads both ways."""
    nets = network(foresight=0.3, bidirectional=True)

    def all_of(nets):
        changed = BATCH | {"video": LEVELS.at[:, 2:].set(0)}
        return gru_rcn.foretell(nets, BATCH), gru_rcn.foretell(nets, changed), gru_rcn.loss(nets, BATCH, key=KEY)

    found, changed, (value, metrics) = compiled(all_of, nets)
    assert found.shape == LEVELS.shape
    np.testing.assert_allclose(found[:, :2], changed[:, :2], rtol=1e-5, atol=1e-6)
    assert np.abs(found[:, 2] - changed[:, 2]).max() > 1e-3
    error = np.mean((np.float64(found[:, :-1]) - (np.float64(LEVELS[:, 1:]) / 127.5 - 1)) ** 2)
    np.testing.assert_allclose(metrics["next_frame"], error, rtol=1e-4)
    np.testing.assert_allclose(value, metrics["nll"] + 0.3 * error, rtol=1e-4)
    assert split(nets).params["recogniser"]["frame"]["kernel"].shape == (3, 4)


def test_dropout_is_of_training_alone():
    nets = network(dropout=0.7)

    def all_of(nets):
        return [gru_rcn.loss(nets, BATCH, key=jax.random.key(seed))[0] for seed in range(3)]

    assert len(set(map(float, compiled(all_of, nets)))) == 3
    np.testing.assert_allclose(
        compiled(gru_rcn.predict, nets, BATCH), compiled(gru_rcn.predict, network(), BATCH), rtol=1e-5
    )


def test_probabilities_of_several_clips_are_averaged():
    nets = network()
    clips = {"video": jnp.stack([LEVELS, LEVELS[::-1]], axis=1)}
    one = np.exp(compiled(gru_rcn.predict, nets, BATCH))
    np.testing.assert_allclose(np.exp(compiled(gru_rcn.predict, nets, clips)), (one + one[::-1]) / 2, rtol=1e-5)


def test_published_network_on_vgg():
    """Abstractly: the maps of the paper's table, its states, and a dense GRU on the one place of fc7."""

    def run():
        nets = gru_rcn.build(Config(stacked=True, bidirectional=True), nnx.Rngs(0))
        video = jnp.zeros((1, 2, 224, 224, 3))
        lasts, _ = nets["recogniser"].watch(nets["backbone"](video))
        batch = {"video": jnp.zeros(video.shape, jnp.uint8)}
        return lasts, gru_rcn.predict(nets, batch), compat.pure(nets["recogniser"].levels)[0]

    lasts, log_p, levels = nnx.eval_shape(run)
    assert [h.shape[1:] for h in lasts] == [(56, 56, 64), (28, 28, 128), (14, 14, 256), (7, 7, 256), (1, 1, 512)]
    assert log_p.shape == (1, 101)
    assert [level.below.shape for level in levels[1:]] == [
        *((3, 3, 64, 256), (3, 3, 128, 512), (3, 3, 256, 512), (1, 1, 256, 1024))
    ]
    assert levels[-1].gru.recurrent.shape == (1, 1, 512, 1536)


def test_percepts_are_those_of_vgg():
    """Frame by frame, through the network that the weights of torchvision fill; without its dense layers on top."""
    config = dataclasses.replace(TINY, net="vgg16", channels=3, size=16, layers=("pool1", "pool2"), kernel=3)
    nets = initialise(functools.partial(gru_rcn.build, config), 0)
    video = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 2, 16, 16, 3)), jnp.float32)
    pool1, pool2 = compiled(lambda nets: nets["backbone"](video), nets)
    expected = compiled(lambda nets: nets["backbone"].vgg(video[1], ["pool1", "pool2"]), nets)
    np.testing.assert_allclose(pool1[1], expected["pool1"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pool2[1], expected["pool2"], rtol=1e-4, atol=1e-5)
    assert pool2.shape == (2, 2, 4, 4, 128)
    assert "fc6" not in split(nets).params["backbone"]["vgg"]


def test_what_does_not_fit_is_described():
    with pytest.raises(InputError, match="hidden: \\(3,\\) came, for 2 levels"):
        gru_rcn.build(dataclasses.replace(TINY, hidden=(3,)), nnx.Rngs(0))
    for shape in ((1, 4, 6, 8, 1), (1, 4, 8, 8, 3)):
        with pytest.raises(InputError, match=f"video: frames of {'x'.join(map(str, shape[2:]))}"):
            gru_rcn.predict(network(), {"video": jnp.zeros(shape, jnp.uint8)})
