"""``ops.convolution_cpu``: every road against XLA's own convolution and its derivatives, and where each is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.ops import convolution_cpu
from seqjax.ops.convolution import conv, conv_transpose
from seqjax.ops.convolution_cpu import Geometry, correlated, road, strided, transposed

GEOMETRIES = {
    "image smaller than the kernel": ("windows", Geometry((2, 3, 2, 5), (4, 4, 5, 3), (2, 2), ((1, 2), (2, 1)))),
    "no more positions than features": ("windows", Geometry((1, 5, 6, 6), (3, 3, 6, 24), (2, 2), ((1, 1), (1, 1)))),
    "few channels": ("windows", Geometry((2, 9, 8, 3), (3, 5, 3, 6), (1, 1), ((1, 1), (2, 0)))),
    "few features": ("taps", Geometry((2, 9, 8, 6), (3, 5, 6, 2), (1, 1), ((1, 1), (2, 0)))),
    "few features, one dimension": ("taps", Geometry((2, 40, 6), (5, 6, 1), (1,), ((0, 4),))),
    "few features, three dimensions": (
        "taps",
        Geometry((1, 4, 5, 6, 6), (2, 3, 2, 6, 2), (1, 1, 1), ((0, 1), (1, 1), (0, 0))),
    ),
    "videos": ("xla", Geometry((2, 7, 8, 9, 3), (4, 3, 4, 3, 5), (1, 2, 2), ((0, 0), (1, 1), (1, 0)))),
    "videos, every other frame": (
        "xla",
        Geometry((2, 8, 7, 8, 3), (3, 2, 3, 3, 5), (2, 1, 2), ((1, 1), (0, 1), (1, 1))),
    ),
    "videos of one position": ("windows", Geometry((3, 4, 4, 4, 5), (4, 4, 4, 5, 2), (1, 1, 1), ((0, 0),) * 3)),
    "fewer zeros than none": ("windows", Geometry((2, 9, 8, 3), (3, 3, 3, 6), (1, 1), ((-1, 0), (2, -2)))),
    "strides that differ": ("xla", Geometry((2, 11, 10, 6), (4, 5, 6, 5), (3, 1), ((1, 0), (2, 2)))),
    "strides, fewer zeros than none": ("xla", Geometry((2, 12, 11, 6), (3, 4, 6, 5), (2, 2), ((-1, 0), (3, -1)))),
    "strides, one dimension": ("xla", Geometry((2, 40, 6), (5, 6, 7), (3,), ((2, 1),))),
    "strides beyond the kernel": ("xla", Geometry((2, 12, 11, 6), (2, 2, 6, 5), (3, 3), ((0, 0), (0, 0)))),
    "rows left over": ("xla", Geometry((2, 10, 9, 6), (3, 3, 6, 5), (2, 2), ((1, 0), (0, 0)))),
}


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_all_roads_are_one_sum(name):
    """XLA's convolution, and its transposes by inputs and by kernel as jax derives them."""
    expected_road, geometry = GEOMETRIES[name]
    assert road(geometry) == expected_road
    axes = "XYZ"[: len(geometry.pads)]

    def convolve(kernel, inputs):
        return jax.lax.conv_general_dilated(
            inputs,
            kernel,
            geometry.stride,
            geometry.pads,
            dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        )

    @jax.jit
    def both(kernel, inputs):
        outputs, pull_back = jax.vjp(convolve, kernel, inputs)
        cotangent = jnp.sin(outputs)
        ours = (
            strided(kernel, inputs, geometry=geometry),
            correlated(inputs, cotangent, geometry=geometry),
            transposed(kernel, cotangent, geometry=geometry),
        )
        return ours, (outputs, *pull_back(cotangent))

    for found, expected in zip(*both(normal(0, geometry.kernel), normal(1, geometry.inputs)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_kernels_of_many_images_are_added_up(name, monkeypatch):
    """With a cache of one image and a half, image by image; in half precision rounded once."""
    _, geometry = GEOMETRIES[name]
    inputs, kernel = normal(0, geometry.inputs), normal(1, geometry.kernel)
    outputs = strided(kernel, inputs, geometry=geometry)
    whole = np.asarray(correlated(inputs, outputs, geometry=geometry))
    half = correlated(*(x.astype(jnp.bfloat16) for x in (inputs, outputs)), geometry=geometry)
    monkeypatch.setattr(convolution_cpu, "CACHE", 3 * (inputs.nbytes + outputs.nbytes) // len(inputs) // 2)
    if len(inputs) > 1:
        traced = jax.make_jaxpr(lambda x, y: correlated(x, y, geometry=geometry))(inputs, outputs)
        assert [str(e.primitive) for e in traced.eqns if str(e.primitive) == "scan"]
    np.testing.assert_allclose(correlated(inputs, outputs, geometry=geometry), whole, rtol=1e-5, atol=2e-5)
    monkeypatch.setattr(convolution_cpu, "CACHE", 3 * (inputs.nbytes + outputs.nbytes) // len(inputs) // 4)
    pieces = correlated(*(x.astype(jnp.bfloat16) for x in (inputs, outputs)), geometry=geometry)
    scale = np.abs(whole).max()
    np.testing.assert_allclose(*(x.astype(jnp.float32) for x in (pieces, half)), rtol=2**-7, atol=1e-4 * scale)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_half_precision_is_rounded_once(name):
    """As the float32 sums of the same numbers are, to half of the last of bfloat16's eight bits."""
    _, geometry = GEOMETRIES[name]
    kernel, inputs = (normal(seed, shape).astype(jnp.bfloat16) for seed, shape in enumerate((geometry[1], geometry[0])))
    outputs = strided(kernel, inputs, geometry=geometry)
    for op, pair in ((strided, (kernel, inputs)), (correlated, (inputs, outputs)), (transposed, (kernel, outputs))):
        found = op(*pair, geometry=geometry)
        exact = np.asarray(op(*(x.astype(jnp.float32) for x in pair), geometry=geometry))
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=2**-8, atol=1e-4 * np.abs(exact).max())


def test_the_public_functions_take_them():
    """Counted in the lowered program: a road of matrices has no convolution."""
    few = lambda op: jax.jit(lambda k, x: op(None, k, x, padding=1))  # noqa: E731
    images = jnp.ones((2, 8, 8, 3))
    assert "stablehlo.convolution" not in few(conv).lower(jnp.ones((3, 3, 3, 8)), images).as_text()
    assert "stablehlo.convolution" in few(conv).lower(jnp.ones((3, 3, 8, 8)), jnp.ones((2, 8, 8, 8))).as_text()
    assert (
        "stablehlo.convolution"
        not in few(conv_transpose).lower(jnp.ones((4, 4, 8, 3)), jnp.ones((2, 3, 3, 3))).as_text()
    )
