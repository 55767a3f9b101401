"""PatchGAN: how much a logit sees, by the support of its gradient; logits and parameters by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nn.filled import filled, run

from seqjax.nn.patch_discriminator import PatchDiscriminator
from seqjax.nn.split import count


def make(channels=1, **options):
    return PatchDiscriminator(channels, rngs=nnx.Rngs(0), **options)


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, size=shape), jnp.float32)


@pytest.mark.parametrize(("layers", "logits"), [(0, 256), (1, 126), (2, 62), (3, 30), (4, 14), (5, 6)])
def test_logits_of_an_image_of_256(layers, logits):
    found = jax.eval_shape(lambda: make(3, layers=layers)(jnp.zeros((2, 256, 256, 3))))
    assert found.shape == (2, logits, logits, 1)


@pytest.mark.parametrize(
    ("layers", "side", "size"), [(0, 1, 8), (1, 16, 32), (2, 34, 64), (3, 70, 128), (4, 142, 256), (5, 286, 512)]
)
def test_a_logit_sees_exactly_its_patch(layers, side, size):
    """Without normalisation, which looks at all of the image; the patch is a full square."""
    net = filled(lambda: make(layers=layers, base=1, norm="none"))
    for conv in [*net.convs, net.logits]:  # positive, so that no two paths cancel
        conv.kernel[...] = jnp.abs(conv.kernel[...])
    slope = run(net, lambda net, x: jax.grad(lambda x: net(x)[0, 7, 7, 0])(x), images(1, size, size, 1))
    rows, columns = np.nonzero(slope[0, :, :, 0])
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (side, side)
    assert len(rows) == side**2


def test_where_the_patches_of_three_layers_lie():
    """Logit i sees the pixels 8i - 23 to 8i + 46: with one zero row before each of the five convolutions."""
    x = images(1, 128, 128, 1)
    both = jnp.concatenate([x, x.at[0, 65, 30].add(9.0)])
    before, after = run(filled(lambda: make(base=2, norm="none")), lambda net, x: net(x), both)
    changed = np.nonzero((before != after)[:, :, 0])
    for axis, pixel in zip(changed, (65, 30), strict=True):
        assert sorted(set(axis.tolist())) == [i for i in range(14) if 8 * i - 23 <= pixel <= 8 * i + 46]
    assert len(changed[0]) == 9 * 7


@pytest.mark.parametrize(
    ("channels", "layers", "norm", "number"),
    [
        (6, 3, "batch", 2_768_705),
        (3, 3, "instance", 2_764_737),
        (6, 0, "batch", 6 * 64 + 64 + 64 * 128 + 2 * 128 + 128),
        (6, 0, "instance", 6 * 64 + 64 + 64 * 128 + 128 + 128 + 1),
        (6, 1, "batch", 16 * (6 * 64 + 64 * 128 + 128) + 64 + 2 * 128 + 1),
        (
            3,
            5,
            "batch",
            16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 2 * 512 * 512 + 512) + 64 + 2 * (128 + 256 + 3 * 512) + 1,
        ),
    ],
)
def test_parameters(channels, layers, norm, number):
    net = nnx.eval_shape(lambda: make(channels, layers=layers, norm=norm))
    assert count({"net": net}) == number


def test_first_and_last_are_not_normalised():
    net = nnx.eval_shape(lambda: make())
    assert [norm.kind for norm in net.norms] == ["none", "batch", "batch", "batch"]
    assert [conv.bias is not None for conv in [*net.convs, net.logits]] == [True, False, False, False, True]


def test_real_and_generated_batches_do_not_meet():
    """Each call has the statistics of its own batch; together they would be others."""
    real, fake = images(2, 16, 16, 1), 0.2 * images(2, 16, 16, 1, seed=1) + 0.8

    def scores(net, real, fake):
        return net(real), net(fake), net(real), net(jnp.concatenate([real, fake]))[:2]

    before, _, after, together = run(filled(lambda: make(layers=1, base=4)), scores, real, fake)
    np.testing.assert_array_equal(after, before)
    assert np.abs(together - before).max() > 1e-3
