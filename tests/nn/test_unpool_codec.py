"""Encoders that pool and decoders that unpool: parameters and sizes by hand, residual maps, clips' logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nn.filled import filled, run

from seqjax.errors import InputError
from seqjax.nn.split import count
from seqjax.nn.unpool_codec import Decoder, Encoder, SequenceDiscriminator

SMALL = {"widths": (4, 6), "convolutions": (1, 2)}


def array(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), jnp.float32)


# Kernels as (side, channels, features), from the released code.
MOTION = ((5, 1, 64), (5, 64, 128), (7, 128, 256))
CONTENT = (
    *((3, 3, 64), (3, 64, 64), (3, 64, 128), (3, 128, 128)),
    *((3, 128, 256), (3, 256, 256), (3, 256, 256)),
)
DECODER = ((3, 256, 256), (3, 256, 256), (3, 256, 128), (3, 128, 128), (3, 128, 64), (3, 64, 64), (3, 64, 3))


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (lambda: Encoder(1, convolutions=(1, 1, 1), kernels=(5, 5, 7), rngs=nnx.Rngs(0)), MOTION),
        (lambda: Encoder(3, rngs=nnx.Rngs(0)), CONTENT),
        (lambda: Decoder(3, rngs=nnx.Rngs(0)), DECODER),
    ],
    ids=["motion", "content", "decoder"],
)
def test_parameters_of_the_released_code(make, layers):
    assert count({"net": nnx.eval_shape(make)}) == sum(k * k * c * d + d for k, c, d in layers)


def test_parameters_of_the_discriminator():
    """5x5 kernels, biases where nothing is normalised, two numbers a normalised feature, 8 x 8 maps to one logit."""
    net = nnx.eval_shape(lambda: SequenceDiscriminator(20, (128, 128), rngs=nnx.Rngs(0)))
    kernels = 25 * (20 * 64 + 64 * 128 + 128 * 256 + 256 * 512)
    assert count({"net": net}) == kernels + 64 + 2 * (128 + 256 + 512) + 8 * 8 * 512 + 1


def test_maps_before_each_pool_and_above_the_last():
    encode = filled(lambda: Encoder(2, **SMALL, kernels=(5, 3), rngs=nnx.Rngs(0)))
    top, skips = run(encode, lambda net, x: net(x), array(3, 8, 12, 2))
    assert [skip.shape for skip in skips] == [(3, 8, 12, 4), (3, 4, 6, 6)]
    pooled = np.asarray(skips[1]).reshape(3, 2, 2, 3, 2, 6).max(axis=(2, 4))
    np.testing.assert_array_equal(top, pooled)


@pytest.mark.parametrize("size", [(6, 8), (8, 10)])
def test_sizes_that_do_not_halve_are_refused(size):
    with pytest.raises(InputError, match=f"images: {size[0]}x{size[1]} came.*multiples of 4"):
        jax.eval_shape(lambda: Encoder(1, **SMALL, kernels=(3, 3), rngs=nnx.Rngs(0))(jnp.zeros((1, *size, 1))))


def test_images_depend_on_the_top_and_on_every_residual_map():
    decode = filled(lambda: Decoder(3, **SMALL, rngs=nnx.Rngs(0)))
    top, residuals = array(2, 2, 3, 6), (array(2, 8, 12, 4, seed=1), array(2, 4, 6, 6, seed=2))

    def gradients(net, *inputs):
        return jax.grad(lambda inputs: jnp.sum(jnp.square(net(*inputs))))(inputs)

    images = run(decode, lambda net, *inputs: net(*inputs), top, residuals)
    assert images.shape == (2, 8, 12, 3) and np.abs(images).max() < 1
    for gradient in jax.tree.leaves(run(decode, gradients, top, residuals)):
        assert np.abs(gradient).max() > 0
    alone = run(decode, lambda net, top: net(top), jnp.abs(top))
    zeros = jax.tree.map(jnp.zeros_like, residuals)
    np.testing.assert_array_equal(run(decode, lambda net, *inputs: net(*inputs), jnp.abs(top), zeros), alone)
    assert np.abs(alone - images).max() > 1e-2


def test_kernels_start_glorot_uniform():
    def deviations():
        net = Encoder(64, widths=(64,), convolutions=(1,), kernels=(3,), rngs=nnx.Rngs(0))
        return jnp.std(net.scales[0][0].kernel[...]), jnp.max(jnp.abs(net.scales[0][0].kernel[...]))

    deviation, most = jax.jit(deviations)()
    bound = (6 / (9 * 64 + 9 * 64)) ** 0.5
    np.testing.assert_allclose(deviation, bound / 3**0.5, rtol=0.02)
    assert 0.99 * bound < most <= bound


def test_a_logit_for_a_clip_of_any_height_and_width():
    judge = filled(lambda: SequenceDiscriminator(6, (24, 40), widths=(4, 6), norm="none", rngs=nnx.Rngs(0)))
    clips = array(2, 3, 24, 40, 2)
    logits = run(judge, lambda net, x: net(x), clips)
    assert logits.shape == (2,)
    gradient = run(judge, lambda net, x: jax.grad(lambda x: jnp.sum(net(x)))(x), clips)
    assert (np.abs(gradient).max(axis=(2, 3, 4)) > 0).all(), "every frame is seen"


def test_what_it_remembers():
    """``-log D`` and ``-log(1 - D)``, here written with probabilities."""
    judge = filled(lambda: SequenceDiscriminator(1, (8, 8), widths=(2,), rngs=nnx.Rngs(0)))
    real, fake = array(5), array(5, seed=1)

    def remembered(net, real, fake):
        net.remember(real, fake)
        return net.errors[...]

    def probability(logits):
        return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))

    expected = [-np.log(probability(real)).mean(), -np.log(1 - probability(fake)).mean()]
    np.testing.assert_allclose(run(judge, remembered, real, fake), expected, rtol=1e-6)
