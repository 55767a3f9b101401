"""Oracles: NumPy and scikit-image in float64, with the arguments that its documentation gives per variant."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import metrics as skimage_metrics
from sklearn.datasets import load_digits

from seqjax.errors import InputError
from seqjax.ops import distances

SSIM = {
    "gauss11": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1},
    "uniform7": {"data_range": 1},
    "uint8": {"data_range": 255},
    "openstl": {"data_range": 2},
}


def _skimage_ssim(x, y, variant):
    if variant == "uint8":
        x, y = (np.uint8(255 * image.astype(np.float32)) for image in (x, y))
    return skimage_metrics.structural_similarity(x, y, channel_axis=-1, **SSIM[variant])


# As for a user: compiled as the other tests are, sums run over the pixels in order, and lose digits.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})


def _ssim(variant):
    return compiled(lambda x, y: distances.ssim(x, y, variant=variant))


# Each op, compiled, with its oracle for one image in float64.
OPS = {
    "squared_error": (compiled(distances.squared_error), lambda x, y: np.sum((x - y) ** 2)),
    "absolute_error": (compiled(distances.absolute_error), lambda x, y: np.sum(np.abs(x - y))),
    "psnr": (
        compiled(distances.psnr),
        lambda x, y: skimage_metrics.peak_signal_noise_ratio(y, x, data_range=1),
    ),
    **{f"ssim_{v}": (_ssim(v), lambda x, y, v=v: _skimage_ssim(x, y, v)) for v in SSIM},
}
every_op = pytest.mark.parametrize("name", OPS)


def _digits():
    """Blurred against sharp digits: [2, 2, 24, 32, 3] in [0, 1], with flat black parts, as video has them."""
    digits = load_digits().images[:12].reshape(2, 2, 3, 8, 8).transpose(0, 1, 3, 4, 2) / 16
    sharp = digits.repeat(3, axis=2).repeat(4, axis=3)
    blurred = (sharp + np.roll(sharp, 1, 2) + np.roll(sharp, (1, 2), (2, 3)) + np.roll(sharp, 3, 3)) / 4
    return blurred.astype(np.float32), sharp.astype(np.float32)


def _noise():
    return np.random.default_rng(0).random((2, 2, 2, 24, 32, 3), np.float32)


@every_op
@pytest.mark.parametrize("pair", [_digits, _noise])
def test_equals_oracle_frame_by_frame(name, pair):
    op, oracle = OPS[name]
    x, y = pair()
    result = op(jnp.asarray(x), jnp.asarray(y))
    assert result.dtype == jnp.float32
    expected = [oracle(a, b) for a, b in zip(_frames(x), _frames(y), strict=True)]
    np.testing.assert_allclose(result, np.reshape(expected, x.shape[:-3]), rtol=2e-6, atol=2e-6)


def _frames(x):
    return x.astype(np.float64).reshape(-1, *x.shape[-3:])


@every_op
def test_jit_equals_eager(name):
    op, _ = OPS[name]
    x, y = map(jnp.asarray, _digits())
    np.testing.assert_allclose(op(x, y), op.__wrapped__(x, y), rtol=1e-5)


@every_op
def test_vmap_equals_loop(name):
    op, _ = OPS[name]
    x, y = map(jnp.asarray, _noise())
    mapped = compiled(jax.vmap(op.__wrapped__))(x, y)
    np.testing.assert_allclose(mapped, [op(a, b) for a, b in zip(x, y, strict=True)], rtol=1e-5)


@every_op
def test_bfloat16_is_finite_and_computed_in_float32(name):
    op, _ = OPS[name]
    x, y = (jnp.asarray(image, jnp.bfloat16) for image in _digits())
    result = op(x, y)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, op(x.astype(jnp.float32), y.astype(jnp.float32)))
    assert np.isfinite(result).all()


@every_op
def test_gradient_equals_finite_differences_of_oracle(name):
    op, oracle = OPS[name]
    x, y = (image[0, 0] for image in (_noise() if name == "absolute_error" else _digits()))
    gradient = jax.jit(jax.grad(op.__wrapped__))(jnp.asarray(x), jnp.asarray(y))
    if name == "ssim_uint8":
        np.testing.assert_array_equal(gradient, 0)
        return
    x, y = x.astype(np.float64), y.astype(np.float64)
    for seed in range(3):
        direction = np.random.default_rng(seed).normal(size=x.shape)
        slope = (oracle(x + 1e-6 * direction, y) - oracle(x - 1e-6 * direction, y)) / 2e-6
        np.testing.assert_allclose(np.vdot(gradient, direction), slope, rtol=1e-4, atol=1e-6)


@every_op
@pytest.mark.parametrize("shape", [(1, 13, 14, 2), (3, 13, 14, 1), (13, 14, 2)])
@pytest.mark.usefixtures("unchecked")
def test_shapes_that_differ_are_refused(name, shape):
    op, _ = OPS[name]
    with pytest.raises(AssertionError, match="different shapes"):
        op(jnp.zeros((3, 13, 14, 2)), jnp.zeros(shape))


def test_known_errors():
    ones, zeros = jnp.ones((64, 64, 1)), jnp.zeros((64, 64, 1))
    assert distances.squared_error(ones, zeros) == 4096
    assert distances.absolute_error(zeros, ones) == 4096
    np.testing.assert_allclose(distances.psnr(0.3 * ones, 0.4 * ones), 20, rtol=1e-5)
    np.testing.assert_allclose(distances.psnr(0.3 * ones, 0.5 * ones, data_range=2.0), 20, rtol=1e-5)
    assert distances.psnr(ones, ones) == jnp.inf


def test_squared_error_of_a_large_frame_is_summed_accurately():
    x, y = np.random.default_rng(1).random((2, 512, 512, 3), np.float32)
    expected = np.sum((x.astype(np.float64) - y) ** 2)
    np.testing.assert_allclose(distances.squared_error(jnp.asarray(x), jnp.asarray(y)), expected, rtol=1e-6)


@pytest.mark.parametrize("variant", SSIM)
def test_ssim_of_equal_frames_is_one(variant):
    x, _ = map(jnp.asarray, _digits())
    np.testing.assert_allclose(OPS[f"ssim_{variant}"][0](x, x), np.ones((2, 2)), rtol=1e-6)


@pytest.mark.parametrize(("variant", "level_range"), [("gauss11", 1), ("uniform7", 1), ("openstl", 2)])
@pytest.mark.parametrize(("a", "b"), [(0.9, 0.8), (1.0, 0.0), (0.01, 0.02)])
def test_ssim_of_constant_frames_has_closed_form(variant, level_range, a, b):
    c1 = (0.01 * level_range) ** 2
    op, _ = OPS[f"ssim_{variant}"]
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    result = op(jnp.full((2, 2, 24, 32, 3), a), jnp.full((2, 2, 24, 32, 3), b))
    np.testing.assert_allclose(result, np.full((2, 2), expected), rtol=5e-6)


def test_ssim_is_accurate_where_frames_are_bright_and_flat():
    noise = 1e-3 * np.random.default_rng(2).normal(size=(2, 64, 64, 1))
    x, y = (0.9 + noise).astype(np.float32)
    result = _ssim("gauss11")(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(result, _skimage_ssim(*_frames(np.stack([x, y])), "gauss11"), rtol=5e-7)


@pytest.mark.parametrize("variant", SSIM)
def test_ssim_does_not_depend_on_the_unit_of_pixels(variant):
    x, y = map(jnp.asarray, _digits())
    scaled = compiled(lambda x, y: distances.ssim(x, y, variant=variant, data_range=4.0))(4 * x, 4 * y)
    np.testing.assert_allclose(scaled, OPS[f"ssim_{variant}"][0](x, y), rtol=1e-6)


def test_uint8_variant_keeps_every_grey_level_of_stored_frames():
    """k/255 must come back as level k: truncation would turn one rounding error into a whole level."""
    levels = np.tile(np.arange(256, dtype=np.uint8), 9).reshape(24, 32, 3)
    other = np.random.default_rng(3).permuted(levels, axis=1)
    x, y = levels.astype(np.float32) / 255, other.astype(np.float32) / 255
    expected = skimage_metrics.structural_similarity(levels, other, channel_axis=-1, data_range=255)
    op, _ = OPS["ssim_uint8"]
    np.testing.assert_allclose(op(jnp.asarray(x), jnp.asarray(y)), expected, atol=1e-6)
    np.testing.assert_allclose(op.__wrapped__(jnp.asarray(x), jnp.asarray(y)), expected, atol=1e-6)


@pytest.mark.parametrize(("variant", "size"), [("gauss11", 11), ("uniform7", 7)])
def test_ssim_refuses_frames_smaller_than_the_window(variant, size):
    fits = jnp.zeros((size, size, 1))
    assert _ssim(variant)(fits, fits) == 1
    for small in (fits[1:], fits[:, 1:]):
        with pytest.raises(InputError, match=f"at least {size} pixels"):
            distances.ssim(small, small, variant=variant)


@pytest.mark.usefixtures("unchecked")
def test_ssim_refuses_an_unknown_variant():
    with pytest.raises(InputError, match=r"'gauss'.*gauss11, uniform7, uint8, openstl"):
        distances.ssim(jnp.zeros((16, 16, 1)), jnp.zeros((16, 16, 1)), variant="gauss")


def gradient_difference_by_loop(x, y, exponent, border):
    """One image [H, W, C], pixel by pixel; a border pixel has a zero beyond it with "same"."""
    height, width, _ = x.shape
    totals, counts = [0.0, 0.0], [0, 0]
    for h, w, c in np.ndindex(x.shape):
        for axis, (below, right) in enumerate(((1, 0), (0, 1))):
            inside = h + below < height and w + right < width
            if not inside and border == "valid":
                continue
            steep = [abs((image[h + below, w + right, c] if inside else 0.0) - image[h, w, c]) for image in (x, y)]
            totals[axis] += abs(steep[0] - steep[1]) ** exponent
            counts[axis] += 1
    return totals[0] / counts[0] + totals[1] / counts[1]


@pytest.mark.parametrize("border", ["valid", "same"])
@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_gradient_difference_against_a_loop(exponent, border):
    x, y = (np.random.default_rng(seed).random((2, 3, 4, 5, 2)) for seed in (0, 1))
    found = compiled(lambda x, y: distances.gradient_difference(x, y, exponent=exponent, border=border))(
        jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    )
    assert found.shape == (2, 3)
    for i in np.ndindex(2, 3):
        np.testing.assert_allclose(found[i], gradient_difference_by_loop(x[i], y[i], exponent, border), rtol=1e-5)


def test_gradient_difference_at_known_points():
    """A constant added changes nothing; a step edge of height a in W columns is a / (W - 1) from black, by hand."""
    x = jnp.asarray(np.random.default_rng(0).random((3, 6, 7, 1)), jnp.float32)
    np.testing.assert_allclose(distances.gradient_difference(x + 0.25, x), 0, atol=1e-6)
    assert (distances.gradient_difference(x + 0.25, x, border="same") > 0.05).all()
    edge = jnp.zeros((1, 5, 9, 1)).at[:, :, 4:].set(0.6)
    np.testing.assert_allclose(distances.gradient_difference(jnp.zeros_like(edge), edge), 0.6 / 8, rtol=1e-6)
    np.testing.assert_allclose(distances.gradient_difference(0.6 - edge, edge), 0, atol=1e-7)


def test_gradient_difference_has_a_gradient_and_is_computed_in_float32():
    x, y = (jnp.asarray(np.random.default_rng(seed).random((2, 5, 5, 1)), jnp.float32) for seed in (0, 1))
    slope = jax.grad(lambda x: jnp.sum(distances.gradient_difference(x, y)))
    along = jnp.asarray(np.random.default_rng(2).normal(size=x.shape), jnp.float32)
    step = 1e-3
    ends = [float(jnp.sum(distances.gradient_difference(x + sign * step * along, y))) for sign in (1, -1)]
    np.testing.assert_allclose(jnp.sum(slope(x) * along), (ends[0] - ends[1]) / (2 * step), rtol=2e-2)
    assert np.isfinite(slope(y)).all()
    low = x.astype(jnp.bfloat16)
    np.testing.assert_array_equal(
        distances.gradient_difference(low, y), distances.gradient_difference(low.astype(jnp.float32), y)
    )
