"""DRAW beyond the laws that every system joins (``tests/laws``)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from seqjax import compat
from seqjax.errors import InputError
from seqjax.models.generation import draw
from seqjax.models.generation.draw import Config
from seqjax.nn.split import initialise, merge, split

TINY, KEY = dataclasses.replace(Config.tiny(), features=8, latent=3, read=2, write=3), jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.random((2, 8, 8, 1)), jnp.float32)
NOISE = jnp.asarray(RNG.normal(size=(2, 2, 3)), jnp.float32)
ROADS = pytest.mark.parametrize("attention", [True, False])


def network(**changes):
    """With every parameter at random, for biases and first states start at zero."""
    config = dataclasses.replace(TINY, **changes)
    graphs, params, rest = split(initialise(functools.partial(draw.build, config), 0))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    moved = [x + jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype) for x in leaves]
    return merge(graphs, jax.tree.unflatten(tree, moved), rest)


def compiled(function, nets, *arguments):
    """``function(nets, *arguments)`` in one program, which is quicker than its operations one by one."""
    graphs, params, rest = split(nets)
    return jax.jit(lambda params, arguments: function(merge(graphs, params, rest), *arguments))(params, arguments)


def filters(number, log_variance, log_stride, taps):
    centre = 4.5 * (number + 1) - 1
    rows = []
    for i in range(taps):
        middle = centre + (i - (taps - 1) / 2) * 7 / (taps - 1) * np.exp(log_stride)
        row = np.exp(-((np.arange(8) - middle) ** 2) / 2 / np.exp(log_variance))
        rows.append(row / row.sum())
    return np.stack(rows)


def both(numbers, taps):
    x, y, log_variance, log_stride, log_intensity = numbers
    return *(filters(n, log_variance, log_stride, taps) for n in (x, y)), np.exp(log_intensity)


def lstm(params, h, c, x):
    i, f, g, o = np.split(x @ params.input + h @ params.recurrent + params.bias, 4)
    c = expit(f) * c + expit(i) * np.tanh(g)
    return expit(o) * np.tanh(c), c


def oracle(net, image, noise):
    """Equations 3 to 8 and 19 to 29 in NumPy float64, for one image."""
    weights = jax.tree.map(np.float64, compat.pure(net.weights))
    canvas, (h_e, c_e), (h_d, c_d) = weights.start
    kl = 0.0
    for epsilon in noise:
        error = image - expit(canvas)
        if weights.read is None:
            seen = np.concatenate([image, error], axis=-1).reshape(-1)
        else:
            f_x, f_y, gamma = both(h_d @ weights.read.kernel + weights.read.bias, 2)
            seen = np.stack([gamma * f_y @ part[..., 0] @ f_x.T for part in (image, error)], axis=-1).reshape(-1)
        h_e, c_e = lstm(weights.encoder, h_e, c_e, np.concatenate([seen, h_d]))
        mean, log_deviation = np.split(h_e @ weights.posterior.kernel + weights.posterior.bias, 2)
        kl += np.sum(mean**2 + np.exp(2 * log_deviation) - 2 * log_deviation - 1) / 2
        h_d, c_d = lstm(weights.decoder, h_d, c_d, mean + np.exp(log_deviation) * epsilon)
        patch = h_d @ weights.patch.kernel + weights.patch.bias
        if weights.write is None:
            canvas = canvas + patch.reshape(8, 8, 1)
        else:
            f_x, f_y, gamma = both(h_d @ weights.write.kernel + weights.write.bias, 3)
            canvas = canvas + (f_y.T @ patch.reshape(3, 3) @ f_x / gamma)[..., None]
    p = expit(canvas)
    return canvas, -np.sum(image * np.log(p) + (1 - image) * np.log(1 - p)), kl


@ROADS
def test_canvas_and_bound_against_loops(attention):
    nets = network(attention=attention)
    net, drawn = nets["draw"], jax.random.normal(KEY, (2, 2, 3))
    infer = lambda nets: (nets["draw"].infer(IMAGES, NOISE)[0], draw.bound(nets, IMAGES, key=KEY))  # noqa: E731
    canvases, parts = compiled(infer, nets)
    for i in range(2):
        image = np.float64(IMAGES[i])
        np.testing.assert_allclose(canvases[i], oracle(net, image, np.float64(NOISE[i]))[0], rtol=1e-3, atol=1e-4)
        _, reconstruction, kl = oracle(net, image, np.float64(drawn[i]))
        np.testing.assert_allclose(parts["reconstruction"][i], reconstruction, rtol=1e-4)
        np.testing.assert_allclose(parts["kl"][i], kl, rtol=1e-4)


@ROADS
def test_both_ways_paint_alike(attention):
    """What inference has painted, generation paints from the same latent vectors."""

    def both_ways(nets):
        canvas, steps = nets["draw"].infer(IMAGES, NOISE)
        return canvas, *nets["draw"].generate(steps.mean + jnp.exp(steps.log_deviation) * NOISE)

    canvas, painted, windows = compiled(both_ways, network(attention=attention))
    np.testing.assert_allclose(painted[:, -1], canvas, rtol=1e-4, atol=1e-5)
    assert (np.abs(windows).max() > 0) == attention


def test_noise_of_a_step_acts_from_then_on():
    noise = jnp.concatenate([NOISE, NOISE.at[:, 1].add(1.0)])
    first, second = jnp.split(compiled(lambda nets: nets["draw"].generate(noise)[0], network()), 2)
    np.testing.assert_array_equal(first[:, 0], second[:, 0])
    assert np.abs(first[:, 1] - second[:, 1]).max() > 1e-4


def test_the_prior_costs_nothing():
    """A posterior that is the prior, and a canvas of logits 0: log 2 for each pixel and no divergence."""
    graphs, params, rest = split(network())
    nets = merge(graphs, jax.tree.map(jnp.zeros_like, params), rest)
    found = compiled(draw.predict, nets, {"image": jnp.zeros((2, 8, 8, 1), jnp.uint8)})
    np.testing.assert_array_equal(found["kl"], 0)
    np.testing.assert_allclose(found["bound"], 64 * np.log(2), rtol=1e-6)


def test_gaussian_pixels():
    canvas = jnp.asarray(RNG.normal(size=(2, 8, 8, 1)), jnp.float32)
    found = draw.surprise(dataclasses.replace(TINY, deviation=0.3), canvas, IMAGES)
    expected = -norm(expit(np.float64(canvas)), 0.3).logpdf(np.float64(IMAGES)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_loss_is_the_mean_bound_and_pictures_are_probabilities():
    nets, batch = network(), {"image": jnp.asarray(IMAGES * 255, jnp.uint8), "z": NOISE}
    (loss, metrics), found = compiled(lambda nets: (draw.loss(nets, batch, key=KEY), draw.sample(nets, batch)), nets)
    np.testing.assert_allclose(loss, metrics["reconstruction"] + metrics["kl"], rtol=1e-6)
    assert found["painted"].shape == (2, 2, 8, 8, 1)
    assert found["again"].shape == (2, 8, 8, 1)
    assert min(x.min() for x in (found["painted"], found["again"])) > 0
    with pytest.raises(InputError, match="8x8x1 came, and the network takes 9x9x1"):
        draw.pixels(dataclasses.replace(TINY, size=9), batch)
