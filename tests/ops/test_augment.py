"""``ops.augment``: each kind against what its draws must have been, found from the outputs by NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from seqjax.errors import InputError
from seqjax.ops.augment import augment

KEY = jax.random.key(0)
B, H, W = 64, 10, 17
KINDS = ("color", "translation", "cutout")
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


compiled = jax.jit(augment, static_argnames="policy")


def run(images, *policy, key=KEY):
    return np.asarray(compiled(images, policy=policy, key=key))


def noise(seed=0, shape=(B, H, W, 3)):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, size=shape), jnp.float32)


def spread_evenly(draws, low, high):
    assert low <= np.min(draws)
    assert np.max(draws) <= high
    return stats.kstest(draws, "uniform", (low, high - low)).pvalue > 1e-3


def test_color_is_brightness_saturation_and_contrast_within_their_ranges():
    """The two slopes and the offset are found by regression; what remains must be nothing."""
    images, changed = np.asarray(noise(), np.float64), run(noise(), "color")
    found = []
    for x, y in zip(images, changed, strict=True):
        grey, mean = x.mean(axis=-1, keepdims=True), x.mean()
        # Contrast alone acts on the grey part, contrast times saturation on what differs from grey.
        columns = np.stack([(x - grey).ravel(), np.broadcast_to(grey - mean, x.shape).ravel(), np.ones(x.size)], axis=1)
        (both, contrast, level), residual, *_ = np.linalg.lstsq(columns, y.ravel(), rcond=None)
        assert residual[0] < 1e-8
        found.append([level - mean, both / contrast, contrast])
    brightness, saturation, contrast = np.transpose(found)
    assert spread_evenly(brightness, -0.5, 0.5)
    assert spread_evenly(saturation, 0, 2)
    assert spread_evenly(contrast, 0.5, 1.5)
    assert np.abs(np.corrcoef(found, rowvar=False)[np.triu_indices(3, 1)]).max() < 0.5


def test_translation_moves_by_whole_pixels_and_lets_zeros_in():
    images, moved = np.asarray(noise()), run(noise(), "translation")
    found = []
    for x, y in zip(images, moved, strict=True):
        matches = []
        for down in range(-3, 4):
            for right in range(-3, 4):
                expected = np.zeros_like(x)
                for h in range(max(down, 0), min(H, H + down)):
                    for w in range(max(right, 0), min(W, W + right)):
                        expected[h, w] = x[h - down, w - right]
                if np.array_equal(expected, y):
                    matches.append((down, right))
        assert len(matches) == 1
        found += matches
    down, right = np.transpose(found)
    # An eighth of 10 and of 17, rounded.
    assert set(down) == {-1, 0, 1}
    assert set(right) == {-2, -1, 0, 1, 2}


def test_cutout_zeroes_a_rectangle_of_half_the_sides():
    images, cut = np.asarray(noise()), run(noise(), "cutout")
    tops, lefts = set(), set()
    for x, y in zip(images, cut, strict=True):
        hole = (y == 0).all(axis=-1)
        np.testing.assert_array_equal(y[~hole], x[~hole])
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        # 5 of 10 rows and 9 of 17 columns, rounded up, or what of them is inside.
        tops.add((rows[0], len(rows)))
        lefts.add((columns[0], len(columns)))
    assert tops == {(max(m - 2, 0), min(m + 3, 10) - max(m - 2, 0)) for m in range(10)}
    assert lefts == {(max(m - 4, 0), min(m + 5, 17) - max(m - 4, 0)) for m in range(17)}


def test_cutout_of_even_length_may_stand_half_outside_at_either_end():
    cut = run(jnp.ones((400, 4, 8, 1)), "cutout")
    columns = {tuple(np.flatnonzero((image == 0).any(axis=(0, 2)))) for image in cut}
    assert columns == {tuple(range(max(m - 2, 0), min(m + 2, 8))) for m in range(9)}


@pytest.mark.parametrize("kind", ["translation", "cutout"])
def test_sides_have_draws_of_their_own(kind):
    """A square image of ones that moves as far down as right is its own transpose."""
    changed = run(jnp.ones((64, 8, 8, 1)), kind)[..., 0]
    symmetric = [np.array_equal(image, image.T) for image in changed]
    assert 0 < np.mean(symmetric) < 0.6


@EVERY_KIND
def test_one_key_makes_one_change_of_two_batches(kind):
    """All kinds are linear but for colour's offset, so that equal draws leave the difference of batches linear too."""
    x, y = noise(1), noise(2)
    middle = run((x + y) / 2, kind)
    np.testing.assert_allclose((run(x, kind) + run(y, kind)) / 2, middle, atol=1e-6)
    other = run((x + y) / 2, kind, key=jax.random.key(1))
    assert np.abs(other - middle).max() > 0.1


def test_kinds_follow_each_other_with_the_draws_that_they_have_alone():
    x = one_by_one = noise(shape=(4, 6, 8, 3))
    for kind in KINDS:
        one_by_one = jnp.asarray(run(one_by_one, kind))
    np.testing.assert_allclose(run(x, *KINDS), one_by_one, atol=1e-6)
    np.testing.assert_array_equal(compiled(x, key=KEY), run(x, *KINDS))
    np.testing.assert_array_equal(run(x), x)


@EVERY_KIND
def test_gradient_comes_back_through_every_change(kind):
    """The adjoint: ``⟨A x - A 0, y⟩ = ⟨x, Aᵀ y⟩``."""
    x, y = noise(1), noise(2)
    pulled = jax.jit(jax.grad(lambda x: jnp.vdot(augment(x, policy=(kind,), key=KEY), y)))(x)
    linear = run(x, kind) - run(jnp.zeros_like(x), kind)
    np.testing.assert_allclose(np.vdot(linear, y), np.vdot(x, pulled), rtol=1e-3)


@EVERY_KIND
def test_jit_equals_eager_and_dtype_is_kept(kind):
    x = noise(shape=(4, 6, 8, 3))
    np.testing.assert_allclose(run(x, kind), augment(x, policy=(kind,), key=KEY), atol=1e-6)
    half = augment(x.astype(jnp.bfloat16), policy=(kind,), key=KEY)
    assert half.dtype == jnp.bfloat16
    assert np.isfinite(np.float32(half)).all()


@pytest.mark.usefixtures("unchecked")
def test_unknown_kind_is_refused():
    with pytest.raises(InputError, match="got 'flip', 'colour', expected names among color, translation, cutout"):
        augment(noise(), policy=("flip", "color", "colour"), key=KEY)
