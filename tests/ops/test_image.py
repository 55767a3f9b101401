"""Oracles: NumPy loops over single pixels and NumPy's own arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqjax.errors import InputError
from seqjax.ops import image


def _video(shape=(2, 3, 4, 6, 2)):
    return np.arange(np.prod(shape), dtype=np.int32).reshape(shape)


def _patches_by_loop(x, block):
    height, width, channels = x.shape
    out = np.empty((height // block, width // block, channels * block**2), x.dtype)
    for h, w, c in np.ndindex(x.shape):
        out[h // block, w // block, (h % block * block + w % block) * channels + c] = x[h, w, c]
    return out


def test_space_to_depth_equals_pixel_loop():
    x = _video()
    expected = np.stack([[_patches_by_loop(frame, 2) for frame in video] for video in x])
    np.testing.assert_array_equal(image.space_to_depth(jnp.asarray(x), block=2), expected)
    np.testing.assert_array_equal(image.space_to_depth(jnp.asarray(x[0, 0]), block=2), expected[0, 0])


def test_space_to_depth_gives_the_size_of_the_paper():
    assert image.space_to_depth(jnp.zeros((10, 64, 64, 1)), block=4).shape == (10, 16, 16, 16)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.bfloat16])
@pytest.mark.parametrize(
    ("shape", "block"), [((6, 12, 5), 3), ((6, 12, 5), 1), ((2, 3, 12, 6, 1), 2), ((0, 6, 6, 2), 2)]
)
def test_depth_to_space_undoes_space_to_depth(shape, block, dtype):
    x = jnp.asarray(_video(shape)).astype(dtype)
    back = image.depth_to_space(image.space_to_depth(x, block=block), block=block)
    assert back.dtype == x.dtype
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("shape", [(5, 6, 1), (6, 5, 1)])
def test_space_to_depth_refuses_a_size_that_is_no_multiple(shape):
    with pytest.raises(InputError, match=f"height {shape[0]} and width {shape[1]}.*block=2"):
        image.space_to_depth(jnp.zeros(shape), block=2)


def test_depth_to_space_refuses_channels_that_are_no_multiple():
    with pytest.raises(InputError, match=r"6 channels.*multiple of 4"):
        image.depth_to_space(jnp.zeros((2, 2, 6)), block=2)


def test_fold_time_lines_frames_up_video_by_video():
    x = _video()
    folded = image.fold_time(jnp.asarray(x))
    np.testing.assert_array_equal(folded, [frame for video in x for frame in video])
    np.testing.assert_array_equal(image.unfold_time(folded, frames=3), x)


def test_fold_time_works_on_vectors_and_on_empty_batches():
    assert image.fold_time(jnp.zeros((2, 3))).shape == (6,)
    assert image.unfold_time(jnp.zeros((0, 5)), frames=3).shape == (0, 3, 5)


def test_fold_time_leaves_a_sharded_batch_where_it_is():
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    x = jax.device_put(_video((8, 3, 2, 2, 1)), sharding)
    folded = jax.jit(image.fold_time)(x)
    assert folded.sharding.is_equivalent_to(sharding, folded.ndim)
    np.testing.assert_array_equal(folded, _video((8, 3, 2, 2, 1)).reshape(24, 2, 2, 1))


def test_unfold_time_refuses_a_broken_video():
    with pytest.raises(InputError, match=r"7 images.*frames=3"):
        image.unfold_time(jnp.zeros((7, 2)), frames=3)


LEVELS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


def test_every_grey_level_survives_the_round_trip():
    unit = image.uint8_to_unit(jnp.asarray(LEVELS))
    assert unit.dtype == jnp.float32
    np.testing.assert_allclose(unit, LEVELS / 255, rtol=1e-6)
    np.testing.assert_array_equal(image.unit_to_uint8(unit), LEVELS)
    signed = image.unit_to_signed(unit)
    np.testing.assert_array_equal(image.unit_to_uint8(image.signed_to_unit(signed)), LEVELS)


def test_unit_to_uint8_rounds_and_clips():
    unit = jnp.asarray([-3.0, -0.001, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1.001, jnp.inf]).reshape(1, 7, 1)
    levels = image.unit_to_uint8(unit)
    assert levels.dtype == jnp.uint8
    np.testing.assert_array_equal(levels.ravel(), [0, 0, 0, 1, 254, 255, 255])


def test_signed_range_ends_where_it_should():
    unit = jnp.asarray([0.0, 0.5, 1.0]).reshape(1, 3, 1)
    np.testing.assert_array_equal(image.unit_to_signed(unit).ravel(), [-1, 0, 1])
    np.testing.assert_array_equal(image.signed_to_unit(2 * unit - 1), unit)


OPS = {
    "space_to_depth": (lambda x: image.space_to_depth(x, block=2), _video(), 0),
    "depth_to_space": (lambda x: image.depth_to_space(x, block=2), _video((3, 2, 3, 8)), 0),
    "fold_time": (image.fold_time, _video((2, 2, 3, 2)), 0),
    "unfold_time": (lambda x: image.unfold_time(x, frames=2), _video((2, 4, 3)), 0),
    "uint8_to_unit": (image.uint8_to_unit, LEVELS, 1e-7),
    "unit_to_uint8": (image.unit_to_uint8, LEVELS.astype(np.float32) / 250, 0),
    "unit_to_signed": (image.unit_to_signed, LEVELS.astype(np.float32) / 250, 1e-7),
    "signed_to_unit": (image.signed_to_unit, LEVELS.astype(np.float32) / 120, 1e-7),
}


@pytest.mark.parametrize("name", OPS)
def test_jit_equals_eager_and_vmap_equals_loop(name):
    op, x, tolerance = OPS[name]
    x = jnp.asarray(x)
    if name != "fold_time" and name != "unfold_time":
        np.testing.assert_allclose(jax.jit(op)(x), op(x), atol=tolerance)
    np.testing.assert_allclose(jax.vmap(op)(x), jnp.stack([op(row) for row in x]), atol=tolerance)


@pytest.mark.parametrize("name", ["unit_to_signed", "signed_to_unit"])
def test_range_changes_keep_the_dtype_and_have_constant_slope(name):
    op, x, _ = OPS[name]
    low = op(jnp.asarray(x, jnp.bfloat16))
    assert low.dtype == jnp.bfloat16
    assert np.isfinite(low.astype(np.float32)).all()
    slope = np.mean(np.diff(op(jnp.asarray(x)).ravel())) / np.mean(np.diff(x.ravel()))
    np.testing.assert_allclose(jax.grad(lambda x: op(x).sum())(jnp.asarray(x)), slope, rtol=1e-5)


def test_unpool_equals_pixel_loop():
    x = _video()
    out = np.asarray(image.unpool(jnp.asarray(x)))
    expected = np.zeros((2, 3, 8, 12, 2), np.int32)
    for b, t, h, w, c in np.ndindex(x.shape):
        expected[b, t, 2 * h, 2 * w, c] = x[b, t, h, w, c]
    np.testing.assert_array_equal(out, expected)
    assert out.dtype == x.dtype


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_pooling_undoes_unpool_where_nothing_is_negative(dtype):
    x = jnp.asarray(np.random.default_rng(0).random((2, 3, 4, 5)), dtype)
    pooled = image.unpool(x).reshape(2, 3, 2, 4, 2, 5).max(axis=(2, 4))
    np.testing.assert_array_equal(pooled, x)
    gradient = jax.grad(lambda x: jnp.sum(jnp.square(image.unpool(x)).astype(jnp.float32)))(x)
    np.testing.assert_allclose(gradient.astype(jnp.float32), 2 * x.astype(jnp.float32))
