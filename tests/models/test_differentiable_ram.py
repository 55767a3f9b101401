"""Differentiable RAM beyond the laws that every system joins (``tests/laws``)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

from seqjax import compat
from seqjax.errors import InputError
from seqjax.models.recognition import differentiable_ram as system
from seqjax.nn.split import initialise, merge, split

TINY = dataclasses.replace(system.Config.tiny(), channels=2, glimpses=3, read=3, features=6)
RNG = np.random.default_rng(0)
BATCH = {"image": jnp.asarray(RNG.integers(0, 256, (4, 8, 8, 2), np.uint8)), "label": jnp.arange(4)}
IMAGES = np.float64(BATCH["image"]) / 255
WINDOWS = jnp.asarray(0.5 * RNG.normal(size=(4, 3, 5)), jnp.float32)


@functools.cache
def network():
    """With every parameter at random, for biases start at zero."""
    graphs, params, rest = split(initialise(functools.partial(system.build, TINY), 0))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    moved = [x + jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype) for x in leaves]
    return merge(graphs, jax.tree.unflatten(tree, moved), rest)


def compiled(function):
    """``function(nets)`` in one program, which is quicker than its operations one by one."""
    graphs, params, rest = split(network())
    return jax.jit(lambda params: function(merge(graphs, params, rest)))(params)


def see(image, numbers):
    """What three filters an axis see of 8 x 8 pixels, by the paper's formulas counted from 0."""
    x, y, *logarithms = numbers
    variance, stride, intensity = np.exp(logarithms)
    axes = []
    for number in (y, x):
        centre = 4.5 * (number + 1) - 1
        rows = [np.exp(-((np.arange(8) - centre - i * 3.5 * stride) ** 2) / 2 / variance) for i in (-1, 0, 1)]
        axes.append(np.stack([row / row.sum() for row in rows]))
    channels = [intensity * axes[0] @ image[..., c] @ axes[1].T for c in range(2)]
    return np.stack(channels, axis=-1).reshape(-1)


def oracle(net, image, windows=None):
    """Windows, states and logits of one image in NumPy float64; through the windows given, or its own."""
    params = jax.tree.map(np.float64, split({"net": net}).params["net"])
    core = jax.tree.map(np.float64, compat.pure(net.core))
    h, c, path = np.zeros(6), np.zeros(6), []
    for t in range(3):
        numbers = h @ params["window"]["kernel"] + params["window"]["bias"] if windows is None else windows[t]
        gates = see(image, numbers) @ core.input + h @ core.recurrent + core.bias
        i, f, g, o = np.split(gates, 4)
        c = expit(f) * c + expit(i) * np.tanh(g)
        h = expit(o) * np.tanh(c)
        path.append((numbers, h))
    return *(np.stack(x) for x in zip(*path, strict=True)), h @ params["head"]["kernel"] + params["head"]["bias"]


@pytest.mark.parametrize("given", [None, WINDOWS], ids=["own", "given"])
def test_path_and_answer_against_loops(given):
    """Section 4.1 and Eq. 19 to 27 of the paper, glimpse by glimpse."""

    def all_of(nets):
        path = nets["recognizer"].look(jnp.asarray(IMAGES, jnp.float32), given)
        return path, nets["recognizer"].answer(path)

    path, logits = compiled(all_of)
    for b, image in enumerate(IMAGES):
        windows, states, answer = oracle(
            network()["recognizer"], image, None if given is None else np.float64(given[b])
        )
        np.testing.assert_allclose(path.windows[b], windows, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(path.states[b], states, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(logits[b], answer, rtol=1e-4, atol=1e-4)


def test_loss_is_cross_entropy_of_what_is_told():
    loss, metrics = compiled(lambda nets: system.loss(nets, BATCH, key=jax.random.key(0)))
    logits = np.stack([oracle(network()["recognizer"], image)[-1] for image in IMAGES])
    np.testing.assert_allclose(loss, -log_softmax(logits, axis=-1).diagonal().mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["accuracy"], (logits.argmax(axis=-1) == np.arange(4)).mean())
    assert float(metrics["cross_entropy"]) == float(loss)


def test_shuffled_answers_are_through_the_windows_of_the_image_before():
    found, net = compiled(lambda nets: system.predict(nets, BATCH)), network()["recognizer"]
    own = [oracle(net, image) for image in IMAGES]
    np.testing.assert_allclose(found["logits"], [path[-1] for path in own], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["windows"], [path[0] for path in own], rtol=1e-4, atol=1e-4)
    shuffled = [oracle(net, image, own[b - 1][0])[-1] for b, image in enumerate(IMAGES)]
    np.testing.assert_allclose(found["shuffled"], shuffled, rtol=1e-4, atol=1e-4)


def test_the_first_window_is_the_same_for_all_and_the_last_decides():
    """What is told has a gradient in every window; a window depends on what was seen before it alone."""

    def gradients(nets):
        net, images = nets["recognizer"], jnp.asarray(IMAGES, jnp.float32)
        told = jax.grad(lambda windows: jnp.sum(net.answer(net.look(images, windows)) ** 2))(WINDOWS)
        return told, net.look(images).windows

    told, windows = compiled(gradients)
    assert (np.abs(told).max(axis=(0, 2)) > 1e-5).all()
    assert np.ptp(windows[:, 0], axis=0).max() == 0
    assert np.ptp(windows[:, 1], axis=0).min() > 1e-4


def test_at_first_it_sees_all_of_the_image_through_filters_that_overlap():
    """Four filters an axis on 8 pixels are 7/3 apart: a variance of (7/6)², and all else as for the whole image."""
    fresh = initialise(functools.partial(system.build, system.Config.tiny()), 0)["recognizer"]
    numbers = fresh.look(jnp.zeros((1, 8, 8, 1))).windows[0, 0]
    np.testing.assert_allclose(numbers, [0, 0, np.log(49 / 36), 0, 0], rtol=1e-5)


def test_another_image_is_refused():
    with pytest.raises(InputError, match="8x8x2 came, and the network takes 9x9x2"):
        system.pixels(dataclasses.replace(TINY, size=9), BATCH)
