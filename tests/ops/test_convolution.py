"""``ops.convolution`` against PyTorch, values and gradients (``golden_convolution.py``)."""

import functools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.ops.convolution import conv, conv_transpose, reflect_pad

GOLDEN = np.load(Path(__file__).parent / "golden" / "convolution.npz")
CASES = json.loads(str(GOLDEN["arguments"]))
OPS = {"conv": conv, "conv_transpose": conv_transpose}


def channels_last(array):
    return jnp.asarray(np.moveaxis(array, 1, -1))


def our_kernel(weight):
    """PyTorch's ``[D, C, *K]``, or ``[C, D, *K]`` of a transposed convolution, as ``[*K, C, D]`` or ``[*K, D, C]``."""
    return jnp.asarray(weight.transpose(*range(2, weight.ndim), 1, 0))


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_pytorch(name):
    kind, arguments = CASES[name]
    arguments = {argument: value for argument, value in arguments.items() if argument != "k"}
    get = lambda field: GOLDEN[f"{name}:{field}"]  # noqa: E731
    if kind == "reflect_pad":
        run = lambda inputs: reflect_pad(inputs, **arguments)  # noqa: E731
        leaves, expected = [channels_last(get("inputs"))], [channels_last(get("inputs_gradient"))]
    else:
        run = lambda *leaves: OPS[kind](*leaves, **arguments)  # noqa: E731
        leaves, expected = (
            [jnp.asarray(get("bias" + f)), our_kernel(get("weight" + f)), channels_last(get("inputs" + f))]
            for f in ("", "_gradient")
        )

    def total(leaves):
        outputs = run(*leaves)
        return jnp.sum(jnp.sin(outputs)), outputs

    gradients, outputs = jax.jit(jax.grad(total, has_aux=True))(leaves)
    np.testing.assert_allclose(outputs, channels_last(get("outputs")), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def as_jax_has_it(kind, bias, kernel, inputs):
    """Stride 2 and padding 1 by the operation of jax, and by its own transposition."""

    def convolve(x):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    if kind == "conv":
        return convolve(inputs) + bias[None, None, None]
    n, h, w, _ = inputs.shape
    larger = jax.ShapeDtypeStruct((n, 2 * h, 2 * w - 1, 3), inputs.dtype)
    return jax.linear_transpose(convolve, larger)(inputs)[0] + bias[None, None, None]


def ours(kind, bias, kernel, inputs):
    return OPS[kind](bias, kernel, inputs, stride=2, padding=1)


def forward(run, kernel, inputs):
    return jax.jvp(run, (kernel, inputs), (jnp.cos(kernel), jnp.sin(inputs)))


def penalty(run, kernel, inputs):
    """As one on the slope of a strided network: the gradient of kernel and inputs, after that of the inputs."""
    value = lambda k, x: jnp.sum(jnp.square(jax.grad(lambda x: jnp.sum(jnp.tanh(run(k, x))))(x)))  # noqa: E731
    return jax.grad(value, argnums=(0, 1))(kernel, inputs)


def of_each_example(run, kernel, inputs):
    """The gradient that each example alone gives to the kernel."""
    one = jax.grad(lambda k, x: jnp.sum(jnp.tanh(run(k, x[None]))))
    return jax.vmap(one, in_axes=(None, 0))(kernel, inputs)


def in_a_branch(run, kernel, inputs):
    gradient = jax.grad(lambda k, x: jnp.sum(jnp.tanh(run(k, x))), argnums=(0, 1))
    return jax.jit(lambda *a: jax.lax.cond(True, gradient, lambda k, x: (k, x), *a))(kernel, inputs)


@pytest.mark.parametrize("derivative", [forward, penalty, of_each_example, in_a_branch])
@pytest.mark.parametrize("kind", OPS)
def test_derivatives_equal_those_of_jax(kind, derivative):
    kernel, inputs, bias = normal(4, 3, 3, 3), normal(2, 8, 7, 3, seed=1), normal(3, seed=2)
    found, expected = (derivative(functools.partial(run, kind, bias), kernel, inputs) for run in (ours, as_jax_has_it))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_every_derivative_has_the_layout_with_a_fast_path():
    """On CPU, before XLA puts any right: batch, space, channels; space, inputs, outputs."""
    kernel, inputs = normal(4, 4, 3, 5), normal(2, 8, 8, 3)
    program = jax.jit(functools.partial(penalty, lambda k, x: conv(None, k, x, stride=2, padding=1)))
    text = program.lower(kernel, inputs).as_text()
    layouts = re.findall(r"dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\])", text)
    assert len(layouts) >= 5
    assert set(layouts) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


def test_transposed_convolution_is_the_adjoint_of_the_convolution():
    """``⟨conv(x), y⟩ = ⟨x, convᵀ(y)⟩``."""
    kernel, x, y = normal(3, 3, 2, 4), normal(1, 8, 6, 2, seed=1), normal(1, 4, 3, 4, seed=2)
    forth = conv(None, kernel, x, stride=2, padding=1)
    back = conv_transpose(None, kernel, y, stride=2, padding=1, output_padding=1)
    np.testing.assert_allclose(jnp.vdot(forth, y), jnp.vdot(x, back), rtol=1e-5)


def test_each_dimension_may_have_its_own_stride():
    """Videos, every frame and every other pixel: values and gradients of jax's own convolution."""
    kernel, videos = normal(4, 3, 4, 3, 5), normal(2, 6, 8, 7, 3, seed=1)
    pads = ((0, 0), (1, 1), (1, 2))

    def plain(kernel, videos):
        layout = ("NXYZC", "XYZIO", "NXYZC")
        return jax.lax.conv_general_dilated(videos, kernel, (1, 2, 2), pads, dimension_numbers=layout)

    def ours(kernel, videos):
        return conv(None, kernel, videos, stride=(1, 2, 2), padding=pads)

    for run in (
        lambda f: f(kernel, videos),
        lambda f: jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a))), (0, 1))(kernel, videos),
    ):
        for found, expected in zip(*(jax.tree.leaves(run(f)) for f in (ours, plain)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_leading_dimensions_are_independent_and_dtype_is_kept():
    bias, inputs = normal(2), normal(2, 3, 6, 5, 3)
    for kind, op in OPS.items():
        kernel = normal(3, 3, 3, 2) if kind == "conv" else normal(3, 3, 2, 3)
        looped = jnp.stack([op(bias, kernel, x, stride=2, padding=1) for x in inputs])
        np.testing.assert_allclose(op(bias, kernel, inputs, stride=2, padding=1), looped, rtol=1e-5, atol=1e-6)
        half = [a.astype(jnp.bfloat16) for a in (bias, kernel, inputs)]
        assert op(*half).dtype == jnp.bfloat16
    single = reflect_pad(inputs[0, 0], 2)
    np.testing.assert_array_equal(reflect_pad(inputs, 2)[0, 0], single)


@pytest.mark.parametrize("kind", OPS)
def test_half_precision_sums_the_gradient_of_a_bias_over_all_pixels(kind):
    """Of the sum of all outputs it is their number, 2,048, a power of two; bfloat16 counts in ones to 256."""
    operands = jnp.zeros(1), jnp.zeros((1, 1, 1, 1)), jnp.zeros((2, 32, 32, 1))
    half = [a.astype(jnp.bfloat16) for a in operands]
    assert jax.grad(lambda b: jnp.sum(OPS[kind](b, *half[1:]).astype(jnp.float32)))(half[0]) == 2048


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused():
    kernel, images = jnp.zeros((3, 3, 4, 4)), jnp.zeros((1, 4, 5, 3))
    for op in OPS.values():
        with pytest.raises(InputError, match=r"do not fit; expected a kernel \[\*K, C, D\]"):
            op(None, kernel, images)
        with pytest.raises(InputError, match="do not fit"):
            op(None, jnp.zeros((3, 4)), images)
    with pytest.raises(InputError, match="output_padding=2 with stride=2"):
        conv_transpose(None, kernel[:, :, :3, :3], images, stride=2, output_padding=2)
    with pytest.raises(InputError, match="padding=4 for images of height and width"):
        reflect_pad(images, 4)
