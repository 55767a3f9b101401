"""Encoders and decoders of frames: parameters and sizes by hand, what the skips carry, which statistics are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nn.filled import filled, run

from seqjax.errors import InputError
from seqjax.nn.frame_codec import FrameDecoder, FrameEncoder
from seqjax.nn.split import count

# Kernels of the layers as (side, channels, features): the released code's at 64x64 with 128 features.
DCGAN_DOWN = ((4, 3, 64), (4, 64, 128), (4, 128, 256), (4, 256, 512), (4, 512, 128))
DCGAN_UP = ((4, 128, 512), (4, 1024, 256), (4, 512, 128), (4, 256, 64))
VGG_DOWN = (
    *((3, 3, 64), (3, 64, 64), (3, 64, 128), (3, 128, 128), (3, 128, 256), (3, 256, 256), (3, 256, 256)),
    *((3, 256, 512), (3, 512, 512), (3, 512, 512), (4, 512, 128)),
)
VGG_UP = (
    *((4, 128, 512), (3, 1024, 512), (3, 512, 512), (3, 512, 256), (3, 512, 256), (3, 256, 256), (3, 256, 128)),
    *((3, 256, 128), (3, 128, 64), (3, 128, 64)),
)


def by_hand(layers, last=0):
    """No biases before a normalisation, which has two numbers per feature."""
    return sum(k * k * c * d + 2 * d for k, c, d in layers) + last


@pytest.mark.parametrize(
    ("backbone", "down", "up", "last"),
    [("dcgan", DCGAN_DOWN, DCGAN_UP, 16 * 128 * 3 + 3), ("vgg", VGG_DOWN, VGG_UP, 9 * 64 * 3 + 3)],
)
def test_parameters_at_64(backbone, down, up, last):
    for net, expected in ((FrameEncoder, by_hand(down)), (FrameDecoder, by_hand(up, last))):
        abstract = nnx.eval_shape(lambda net=net: net(64, 3, 128, backbone=backbone, rngs=nnx.Rngs(0)))
        assert count({"net": abstract}) == expected


@pytest.mark.parametrize(
    ("backbone", "size", "sides"),
    [
        ("dcgan", 64, [32, 16, 8, 4]),
        ("vgg", 64, [64, 32, 16, 8]),
        ("dcgan", 128, [64, 32, 16, 8, 4]),
        ("vgg", 32, [32, 16, 8]),
        ("dcgan", 8, [4]),
    ],
)
def test_maps_on_the_way_and_a_frame_at_the_end(backbone, size, sides):
    def there_and_back():
        options = {"backbone": backbone, "base": 2, "rngs": nnx.Rngs(0)}
        h, skips = FrameEncoder(size, 1, 5, **options)(jnp.zeros((3, size, size, 1)))
        return h, skips, FrameDecoder(size, 1, 5, **options)(h, skips)

    h, skips, frames = jax.eval_shape(there_and_back)
    assert h.shape == (3, 5)
    assert [skip.shape[1:] for skip in skips] == [(s, s, 2 * min(2**i, 8)) for i, s in enumerate(sides)]
    assert frames.shape == (3, size, size, 1)


@pytest.mark.parametrize("size", [4, 24, 30])
def test_sizes_that_do_not_halve_are_refused(size):
    with pytest.raises(InputError, match=f"size: got {size}.*4·2ⁿ"):
        nnx.eval_shape(lambda: FrameEncoder(size, 1, 5, rngs=nnx.Rngs(0)))


def images(number=2, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((number, 8, 8, 1)), jnp.float32)


@pytest.mark.parametrize("backbone", ["dcgan", "vgg"])
def test_frames_depend_on_vector_and_on_every_skip(backbone):
    encode = filled(lambda: FrameEncoder(16, 1, 4, backbone=backbone, base=2, norm="none", rngs=nnx.Rngs(0)))
    decode = filled(lambda: FrameDecoder(16, 1, 4, backbone=backbone, base=2, norm="none", rngs=nnx.Rngs(0)))
    frames = jnp.asarray(np.random.default_rng(0).random((2, 16, 16, 1)), jnp.float32)
    h, skips = run(encode, lambda net, x: net(x), frames)

    def slopes(net, h, skips):
        return jax.grad(lambda h, skips: jnp.sum(net(h, skips)), argnums=(0, 1))(h, skips)

    assert all(np.abs(slope).max() > 0 for slope in jax.tree.leaves(run(decode, slopes, h, skips)))
    out = run(decode, lambda net, h, skips: net(h, skips), h, skips)
    assert out.min() > 0
    assert out.max() < 1
    assert np.abs(h).max() < 1


def test_running_averages_make_frames_independent():
    net, x = filled(lambda: FrameEncoder(8, 1, 4, base=2, rngs=nnx.Rngs(0))), images()

    def alone_and_among(net, x, running):
        return net(x[:1], running=running)[0], net(x, running=running)[0][:1]

    same = run(net, lambda net, x: alone_and_among(net, x, True), x)
    other = run(net, lambda net, x: alone_and_among(net, x, False), x)
    np.testing.assert_allclose(*same, rtol=1e-5, atol=1e-6)
    assert np.abs(other[0] - other[1]).max() > 1e-3


def test_a_mirror_of_the_layers_as_pytorch_pads_them():
    """A 4x4 convolution of stride 2 with one row of zeros: its first output by hand, leaky and unnormalised."""
    net, x = filled(lambda: FrameEncoder(8, 1, 4, base=2, norm="none", rngs=nnx.Rngs(0))), images(1)
    (skip,) = run(net, lambda net, x: net(x)[1], x)
    layer = net.levels[0][0].conv
    kernel, padded = np.asarray(layer.kernel[...]), np.pad(np.asarray(x)[0, ..., 0], 1)
    for i, j in ((0, 0), (1, 3), (3, 3)):
        window = padded[2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
        pre = (window[..., None] * kernel[:, :, 0]).sum((0, 1))
        np.testing.assert_allclose(skip[0, i, j], np.where(pre > 0, pre, 0.2 * pre), rtol=1e-4, atol=1e-6)
