"""The discriminator of whole images: DCGAN's parameters by hand, one logit an image, labels as maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nn.filled import filled, run

from seqjax.nn.global_discriminator import GlobalDiscriminator, with_label
from seqjax.nn.split import count

DCGAN = {"widths": (64, 128, 256, 512), "kernels": (4, 4, 4, 4), "stem": 4, "bias": False}
SMALL = {"widths": (2, 4), "kernels": (4, 4), "stem": 2}


def make(channels=1, **options):
    return GlobalDiscriminator(channels, rngs=nnx.Rngs(0), **(SMALL | options))


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, size=shape), jnp.float32)


def test_parameters_of_dcgan():
    """4x4 kernels without biases, two numbers per normalised feature."""
    kernels = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512)
    net = nnx.eval_shape(lambda: GlobalDiscriminator(3, rngs=nnx.Rngs(0), **DCGAN))
    assert count({"net": net}) == kernels + 2 * (128 + 256 + 512) == 2_765_568


@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_one_logit_for_each_image_from_maps_of_half_the_size(kernel):
    net = filled(lambda: make(kernels=(kernel, kernel)))
    maps, logits, again = run(
        net, lambda net, x: (net.features(x), net.score(net.features(x)), net(x)), images(3, 8, 8, 1)
    )
    assert [m.shape for m in maps] == [(3, 4, 4, 2), (3, 2, 2, 4)]
    assert logits.shape == (3,)
    np.testing.assert_array_equal(again, logits)


def test_the_logit_depends_on_every_pixel():
    net = filled(lambda: make(norm="none"))
    slope = run(net, lambda net, x: jax.grad(lambda x: net(x)[0])(x), images(1, 8, 8, 1))
    assert np.all(slope != 0)


def test_real_and_generated_batches_do_not_meet():
    real, fake = images(3, 8, 8, 1), 0.2 * images(3, 8, 8, 1, seed=1) + 0.8

    def scores(net, real, fake):
        return net(real), net(fake), net(real), net(jnp.concatenate([real, fake]))[:3]

    before, _, after, together = run(filled(make), scores, real, fake)
    np.testing.assert_array_equal(after, before)
    assert np.abs(together - before).max() > 1e-4


def test_labels_are_constant_maps_beside_every_layers_inputs():
    labels = jnp.eye(3)[jnp.asarray([2, 0])]
    maps = with_label(images(2, 4, 5, 1), labels)
    assert maps.shape == (2, 4, 5, 4)
    np.testing.assert_array_equal(maps[..., 1:], np.broadcast_to(labels[:, None, None], (2, 4, 5, 3)))
    net = filled(lambda: make(classes=3))
    assert [conv.kernel.shape[2] for conv in [*net.downs, net.logit]] == [4, 5, 7]
    x = jnp.tile(images(1, 8, 8, 1), (2, 1, 1, 1))
    one, other = run(net, lambda net, x, labels: net(x, labels), x, labels)
    assert abs(one - other) > 1e-3
