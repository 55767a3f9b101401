"""The grid of annotations: convolutions in NumPy, places, VGG's sizes."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nn.filled import filled, run

from seqjax.errors import InputError
from seqjax.nn.image_encoder import EncoderConfig, ImageEncoder

CONFIG = EncoderConfig(net="conv", size=8, widths=(3, 2))
IMAGES = np.random.default_rng(0).integers(256, size=(2, 8, 8, 3), dtype=np.uint8)


def halved(kernel, x):
    """A 3x3 convolution of stride 2 with one row of zeros at the end, then what is above 0."""
    padded = np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])
    side = x.shape[1] // 2
    found = np.zeros((len(x), side, side, kernel.shape[-1]))
    for i in range(side):
        for j in range(side):
            found[:, i, j] = np.einsum("brsc,rscd->bd", padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel)
    return np.maximum(found, 0)


def test_convolutions_of_stride_two_and_a_vector_for_each_place():
    net = filled(lambda: ImageEncoder(CONFIG, rngs=nnx.Rngs(0)))
    found = run(net, lambda net, x: net(x), jnp.asarray(IMAGES))
    x = IMAGES / 127.5 - 1
    for conv in net.convs:
        x = halved(np.asarray(conv.kernel[...]), x)
    assert net.shape == found.shape[1:] == (2, 2, 2)
    np.testing.assert_allclose(found, x + np.asarray(net.places[...]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("net", "layer", "shape"), [("vgg19", "relu5_4", (14, 14, 512)), ("vgg16", "relu7", (1, 1, 4096))]
)
def test_layers_of_vgg(net, layer, shape):
    assert nnx.eval_shape(lambda: ImageEncoder(EncoderConfig(net=net, layer=layer), rngs=nnx.Rngs(0))).shape == shape


def test_images_of_another_size_are_refused():
    net = filled(lambda: ImageEncoder(CONFIG, rngs=nnx.Rngs(0)))
    with pytest.raises(InputError, match="image: images of 4x4x3 came"):
        net(jnp.zeros((1, 4, 4, 3), jnp.uint8))
