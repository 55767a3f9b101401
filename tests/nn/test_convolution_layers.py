"""Convolutions with parameters: padding against XLA's "SAME" and NumPy's mirror, transposition as an adjoint."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.errors import InputError
from seqjax.nn.convolution import Conv, ConvTranspose
from seqjax.nn.split import split


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def xla(kernel, x, stride, padding):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=numbers)


@pytest.mark.parametrize(("kernel", "stride"), itertools.product([1, 2, 3, 4, 5, 7], [1, 2]))
def test_default_padding_is_xlas_same_on_even_images(kernel, stride):
    x = images(2, 8, 12, 3)
    layer = Conv(3, 5, kernel, stride=stride, rngs=nnx.Rngs(0))
    assert layer(x).shape == (2, 8 // stride, 12 // stride, 5)
    np.testing.assert_allclose(layer(x), xla(layer.kernel[...], x, stride, "SAME"), atol=1e-6)


def test_padding_by_number_goes_on_both_sides():
    """3x3 at stride 2 over even images, as PyTorch pads it: one row before, where "SAME" has none."""
    x = images(1, 8, 8, 3)
    layer = Conv(3, 5, 3, stride=2, padding=1, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(layer(x), xla(layer.kernel[...], x, 2, [(1, 1), (1, 1)]), atol=1e-6)
    assert np.abs(layer(x) - xla(layer.kernel[...], x, 2, "SAME")).max() > 1e-3


def test_mirrored_border():
    x = images(2, 6, 7, 3)
    layer = Conv(3, 5, 7, padding=3, border="reflect", rngs=nnx.Rngs(0))
    padded = np.pad(x, [(0, 0), (3, 3), (3, 3), (0, 0)], mode="reflect")
    np.testing.assert_allclose(layer(x), xla(layer.kernel[...], jnp.asarray(padded), 1, "VALID"), atol=1e-6)
    with pytest.raises(InputError, match="padding=3"):
        layer(x[:, :3])


@pytest.mark.parametrize(
    ("kernel", "options", "back"),
    [
        (4, {}, {}),
        (2, {}, {}),
        (5, {}, {}),
        (3, {}, {}),
        (3, {"padding": 1, "output_padding": 1}, {"padding": 1}),
        (4, {"stride": 1, "padding": 0}, {"padding": 0}),
    ],
)
def test_transposed_convolution_is_the_adjoint_of_the_convolution(kernel, options, back):
    """``⟨W * x, y⟩ = ⟨x, Wᵀ * y⟩``, and n rows become n times the stride."""
    up = ConvTranspose(5, 3, kernel, bias=False, rngs=nnx.Rngs(0), **options)
    down = Conv(3, 5, kernel, stride=options.get("stride", 2), bias=False, rngs=nnx.Rngs(0), **back)
    down.kernel[...] = up.kernel[...]
    y = images(2, 6, 4, 5)
    larger = up(y)
    assert larger.shape == ((2, 12, 8, 3) if options.get("stride", 2) == 2 else (2, 9, 7, 3))
    x = images(*larger.shape, seed=1)
    assert jnp.vdot(down(x), y) == pytest.approx(float(jnp.vdot(x, larger)), rel=1e-4)


@pytest.mark.parametrize("layer", [Conv, ConvTranspose])
def test_start_and_bias(layer):
    """Kernels from N(0, 0.02²), biases 0 or none: 65,536 draws, whose deviation is known to 0.3 %."""
    net = layer(64, 64, 4, rngs=nnx.Rngs(0))
    assert float(net.kernel[...].std()) == pytest.approx(0.02, rel=0.02)
    assert abs(float(net.kernel[...].mean())) < 4 * 0.02 / 256
    np.testing.assert_array_equal(net.bias[...], np.zeros(64))
    x = images(1, 4, 4, 64)
    without = net(x)
    net.bias[...] = jnp.arange(64.0)
    np.testing.assert_allclose(net(x) - without, np.broadcast_to(np.arange(64.0), without.shape), atol=1e-4)
    assert set(split({"net": layer(2, 2, 4, bias=False, rngs=nnx.Rngs(0))}).params["net"]) == {"kernel"}
