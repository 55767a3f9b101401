"""``ops.linear`` against scipy."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from seqjax.errors import InputError
from seqjax.ops.linear import affine


def arrays(*shapes, dtype=np.float32):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize("window", [(3,), (3, 3), (5, 3), (2, 4), (1, 1), (3, 2, 3)])
def test_convolution_equals_scipy_correlate(window):
    space = (6, 5, 4)[: len(window)]
    bias, kernel, inputs = arrays((2,), (*window, 3, 2), (2, *space, 3))
    outputs = affine(bias, kernel, inputs)
    for b in range(2):
        for d in range(2):
            expected = float(bias[d])
            for c in range(3):
                # Zero padding with the surplus of an even window after the image, as "SAME" has it.
                padded = np.pad(inputs[b, ..., c], [((k - 1) // 2, k // 2) for k in window])
                expected = expected + scipy.signal.correlate(padded, np.asarray(kernel[..., c, d]), mode="valid")
            np.testing.assert_allclose(outputs[b, ..., d], expected, rtol=1e-4, atol=1e-5)


def test_dense_kernel_is_a_matrix_product():
    bias, kernel, inputs = arrays((4,), (3, 4), (2, 5, 3))
    expected = np.einsum("btc,cd->btd", inputs, kernel) + np.asarray(bias)
    np.testing.assert_allclose(affine(bias, kernel, inputs), expected, rtol=1e-5, atol=1e-6)


def test_leading_dimensions_are_independent():
    bias, kernel, inputs = arrays((2,), (3, 3, 3, 2), (2, 4, 6, 5, 3))
    looped = jnp.stack([affine(bias, kernel, x) for x in inputs])
    np.testing.assert_allclose(affine(bias, kernel, inputs), looped, rtol=1e-5, atol=1e-6)


def test_preactivations_stand_in_for_the_bias():
    added, kernel, inputs = arrays((2, 5, 4), (3, 4), (2, 5, 3))
    expected = added + affine(jnp.zeros(4), kernel, inputs)
    np.testing.assert_allclose(affine(added, kernel, inputs), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 6, 6, 4), (6, 3), (3,)])
def test_mismatched_inputs_are_named(shape):
    bias, kernel, inputs = arrays((2,), (3, 3, 3, 2), shape)
    with pytest.raises(InputError, match=r"\(3, 3, 3, 2\).*\(" + ", ".join(map(str, shape))):
        affine(bias, kernel, inputs)
