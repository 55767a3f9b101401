"""The U-Net of pix2pix: sizes and parameters by hand, dropout where the paper and PyTorch's version have it, skips."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nn.filled import filled, run

from seqjax.errors import InputError
from seqjax.nn import unet
from seqjax.nn.split import count
from seqjax.nn.unet import UNet


def make(downs=3, **options):
    return UNet(2, 3, downs=downs, rngs=nnx.Rngs(0), **{"base": 2, **options})


def translate(x, key=None, **options):
    return run(filled(lambda: make(**options)), lambda net, x, key: net(x, key=key), x, key)


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, size=shape), jnp.float32)


def by_hand(down, up):
    """4x4 kernels, no biases but the last one's, two numbers per feature of a batch normalisation."""
    normalised = sum(down[2:-1]) + sum(d for _, d in up[:-1])
    kernels = sum(c * d for c, d in itertools.pairwise(down)) + sum(c * d for c, d in up)
    return 16 * kernels + 2 * normalised + up[-1][1]


@pytest.mark.parametrize(
    ("downs", "down", "up", "number"),
    [
        (
            8,
            (3, 64, 128, 256, 512, 512, 512, 512, 512),
            ((512, 512), *((1024, 512),) * 3, (1024, 256), (512, 128), (256, 64), (128, 3)),
            54_413_955,
        ),
        (
            7,
            (3, 64, 128, 256, 512, 512, 512, 512),
            ((512, 512), *((1024, 512),) * 2, (1024, 256), (512, 128), (256, 64), (128, 3)),
            41_828_995,
        ),
    ],
)
def test_parameters_of_unet_256_and_128(downs, down, up, number):
    net = nnx.eval_shape(lambda: UNet(3, 3, downs=downs, rngs=nnx.Rngs(0)))
    assert count({"net": net}) == by_hand(down, up) == number


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 24), (32, 8)])
@pytest.mark.parametrize("skips", [True, False])
def test_the_output_has_the_size_of_the_input(height, width, skips):
    out = jax.eval_shape(lambda: make(skips=skips)(images(2, height, width, 2)))
    assert out.shape == (2, height, width, 3)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 8), (4, 4)])
def test_refuses_sizes_that_the_halvings_do_not_divide(height, width):
    with pytest.raises(InputError, match=rf"images: {height}x{width} came.* 3 halvings takes multiples of 8"):
        jax.eval_shape(lambda: make()(images(1, height, width, 2)))


def test_one_pixel_at_the_bottom_and_no_normalisation_there():
    def bottom():
        return functools.reduce(lambda x, conv: conv(x), UNet(3, 3, base=1, rngs=nnx.Rngs(0)).down, jnp.ones(shape))

    shape = (1, 256, 256, 3)
    assert jax.eval_shape(bottom).shape == (1, 1, 1, 8)
    net = nnx.eval_shape(lambda: UNet(3, 3, base=1, rngs=nnx.Rngs(0)))
    assert [net.down_norms[i].kind for i in (0, 1, -2, -1)] == ["none", "batch", "batch", "none"]
    assert [net.up_norms[i].kind for i in (0, -2, -1)] == ["batch", "batch", "none"]


@pytest.mark.parametrize(
    ("downs", "place", "sizes"),
    [(8, "paper", [2, 4, 8]), (8, "port", [4, 8, 16]), (7, "paper", [2, 4, 8]), (7, "port", [4, 8])],
)
def test_dropout_where_it_is_published(downs, place, sizes, monkeypatch):
    """Torch's version: the first three layers up; PyTorch's: the ``downs - 5`` after the innermost."""
    met = []

    def mask(key, rate, shape, dtype):
        met.append((rate, shape[1:]))
        return jnp.ones(shape, dtype)

    monkeypatch.setattr(unet, "dropout_mask", mask)
    x = jnp.zeros((1, 2**downs, 2**downs, 2))
    jax.eval_shape(lambda: make(downs, base=1, dropout_at=place)(x, key=jax.random.key(0)))
    assert met == [(0.5, (size, size, 8)) for size in sizes]


def test_dropout_is_drawn_from_the_key_and_from_nothing_else():
    x, keys = images(2, 16, 16, 2), [jax.random.key(seed) for seed in (0, 0, 1)]
    net = filled(lambda: make(2))
    one, again, other, without = run(net, lambda net, x, keys: [net(x, key=key) for key in [*keys, None]], x, keys)
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3
    assert np.abs(one - without).max() > 1e-3
    np.testing.assert_allclose(translate(x, keys[0], downs=2, dropout=0.0), without, atol=1e-6)
    assert np.all(np.abs(one) < 1)


@pytest.mark.parametrize("skips", [True, False])
def test_detail_passes_the_bottleneck_by_the_skips_alone(skips):
    net = filled(lambda: make(2, skips=skips, norm="none"))
    net.up[0].kernel[...] = jnp.zeros_like(net.up[0].kernel[...])
    slope = run(net, lambda net, x: jax.grad(lambda x: jnp.sum(net(x)))(x), images(1, 8, 8, 2))
    assert bool(np.any(slope)) == skips


@pytest.mark.parametrize("norm", ["batch", "instance", "affine_instance", "none"])
def test_a_bias_wherever_no_normalisation_has_one(norm):
    net = nnx.eval_shape(lambda: make(4, norm=norm))
    assert [conv.bias is not None for conv in [*net.down, *net.up]] == [norm in ("instance", "none")] * 7 + [True]


def test_batch_normalisation_is_by_this_batch():
    """An image beside itself is translated as alone, beside another one otherwise; the averages follow."""

    def translations(net, x):
        pair = net(jnp.concatenate([x[:1], x[:1]]))[0]
        return net(x[:1])[0], pair, net(x)[0], net.down_norms[1].batch.mean[...]

    alone, beside_itself, beside_another, average = run(filled(make), translations, images(2, 16, 16, 2))
    np.testing.assert_allclose(beside_itself, alone, atol=1e-5)
    assert np.abs(beside_another - alone).max() > 1e-3
    assert np.any(average)


def test_outer_kernels_of_dualgan():
    net = nnx.eval_shape(lambda: make(kernel=3, outer_kernel=5))
    assert [conv.kernel.shape[0] for conv in [*net.down, *net.up]] == [5, 3, 3, 3, 3, 5]
    out = jax.eval_shape(lambda: make(kernel=3, outer_kernel=5)(images(1, 8, 8, 2)))
    assert out.shape == (1, 8, 8, 3)
