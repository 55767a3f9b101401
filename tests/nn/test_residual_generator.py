"""The residual generator of CycleGAN: sizes and parameters by hand, blocks that add, dropout inside of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nn.filled import filled, run

from seqjax.errors import InputError
from seqjax.nn import residual_generator
from seqjax.nn.residual_generator import ResidualBlock, ResidualGenerator, Upsample
from seqjax.nn.split import count


def make(**options):
    return ResidualGenerator(2, 3, rngs=nnx.Rngs(0), **{"base": 2, "blocks": 2, **options})


def translate(x, key=None, **options):
    return run(filled(lambda: make(**options)), lambda net, x, key: net(x, key=key), x, key)


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, size=shape), jnp.float32)


@pytest.mark.parametrize(("blocks", "number"), [(9, 11_378_179), (6, 7_837_699)])
def test_parameters(blocks, number):
    """Biases everywhere, and no parameters in the normalisation."""
    around = 49 * 3 * 64 + 64 + 9 * (64 * 128 + 128 * 256) * 2 + 128 + 256 + 128 + 64 + 49 * 64 * 3 + 3
    assert around + blocks * 2 * (9 * 256 * 256 + 256) == number
    net = nnx.eval_shape(lambda: ResidualGenerator(3, 3, blocks=blocks, rngs=nnx.Rngs(0)))
    assert count({"net": net}) == number


def test_parameters_with_batch_normalisation():
    """No bias but the last one's; a scale and a bias for each of 23 normalisations, in 9 blocks and 5 places."""
    kernels = 49 * 3 * 64 * 2 + 9 * (64 * 128 + 128 * 256) * 2 + 9 * 2 * 9 * 256 * 256
    norms = 2 * (64 + 128 + 256 + 128 + 64 + 18 * 256)
    net = nnx.eval_shape(lambda: ResidualGenerator(3, 3, norm="batch", rngs=nnx.Rngs(0)))
    assert count({"net": net}) == kernels + norms + 3


@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 20), (28, 8)])
@pytest.mark.parametrize("upsample", ["transposed", "nearest"])
def test_the_output_has_the_size_of_the_input(height, width, upsample):
    out = jax.eval_shape(lambda: make(upsample=upsample)(images(2, height, width, 2)))
    assert out.shape == (2, height, width, 3)


@pytest.mark.parametrize(("height", "width"), [(8, 10), (9, 8)])
def test_refuses_sizes_that_the_halvings_do_not_divide(height, width):
    with pytest.raises(InputError, match=rf"images: {height}x{width} came.* 2 halvings takes multiples of 4"):
        jax.eval_shape(lambda: make()(images(1, height, width, 2)))


def test_a_block_of_zeros_changes_nothing():
    """The sum is not rectified."""
    block = filled(lambda: ResidualBlock(3, norm="none", rngs=nnx.Rngs(0)))
    block.convs[1].kernel[...] = jnp.zeros_like(block.convs[1].kernel[...])
    x = images(2, 5, 5, 3)
    np.testing.assert_array_equal(block(x), x)


def test_dropout_is_drawn_from_the_key_and_from_nothing_else():
    x = images(1, 8, 8, 2)
    keys = [jax.random.key(seed) for seed in (0, 0, 1)]
    net = filled(lambda: make(blocks=1, downs=1, dropout=0.5))
    one, again, other, without = run(net, lambda net, x, keys: [net(x, key=key) for key in [*keys, None]], x, keys)
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3
    assert np.abs(one - without).max() > 1e-3
    never = translate(x, keys[0], blocks=1, downs=1)
    np.testing.assert_allclose(never, without, atol=1e-6)
    assert np.all(np.abs(one) < 1)


def test_dropout_is_between_the_two_convolutions(monkeypatch):
    """All dropped, the second one meets zeros and the block adds its bias, 0."""
    monkeypatch.setattr(residual_generator, "dropout_mask", lambda key, rate, shape, dtype: jnp.zeros(shape, dtype))
    block = filled(lambda: ResidualBlock(3, norm="none", dropout=0.5, rngs=nnx.Rngs(0)))
    x = images(1, 5, 5, 3)
    np.testing.assert_array_equal(block(x, key=jax.random.key(0)), x)
    assert np.any(block(x) != x)


def test_blocks_draw_apart(monkeypatch):
    keys = []
    monkeypatch.setattr(ResidualBlock, "__call__", lambda self, x, key, running: keys.append(key) or x)
    x = images(1, 4, 4, 2)
    filled(lambda: make(blocks=3, downs=0, dropout=0.5))(x, key=jax.random.key(0))
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 3


def test_nearest_neighbours_repeat_each_pixel_four_times():
    up = filled(lambda: Upsample(1, 1, "nearest", False, nnx.Rngs(0)))
    up.conv.kernel[...] = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    found = up(jnp.arange(6.0).reshape(1, 2, 3, 1))[0, :, :, 0]
    np.testing.assert_array_equal(found, np.kron(np.arange(6).reshape(2, 3), np.ones((2, 2))))
