"""``ops.bptt.truncated`` against its definition, one window at a time, and against ``unroll``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.ops.bptt import truncated
from seqjax.ops.cells import gru
from seqjax.ops.scan import unroll

BATCH, STEPS = 3, 7
RESETS = np.array([[0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1], [0] * 7], bool)
LENGTHS = np.array([7, 0, 5], np.int32)


def arguments():
    rng = np.random.default_rng(0)
    shapes = gru.init(jax.random.key(0), 2, 4), jnp.zeros((BATCH, 4)), jnp.zeros((BATCH, STEPS, 2))
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.5, jnp.float32), shapes)


def whole(params, carry, xs):
    return unroll(gru, params, carry, xs, lengths=jnp.asarray(LENGTHS), resets=jnp.asarray(RESETS))


def by_definition(stride, window):
    """Each stride's outputs, run again from the stopped carry at the start of its window."""

    def run(params, carry, xs):
        outputs = []
        for end in range(stride, STEPS + stride, stride):
            begin, stop = max(0, end - window), min(end, STEPS)
            start = carry
            if begin:
                earlier = np.clip(LENGTHS, 0, begin)
                start, _ = unroll(
                    gru,
                    params,
                    carry,
                    xs[:, :begin],
                    lengths=jnp.asarray(earlier),
                    resets=jnp.asarray(RESETS[:, :begin]),
                )
                start = jax.lax.stop_gradient(start)
            last, ys = unroll(
                gru,
                params,
                start,
                xs[:, begin:stop],
                lengths=jnp.asarray(np.clip(LENGTHS - begin, 0, None)),
                resets=jnp.asarray(RESETS[:, begin:stop]),
                reset_carry=carry,
            )
            outputs.append(ys[:, end - stride - begin :])
        return last, jnp.concatenate(outputs, axis=1)

    return run


def gradients(run):
    def value(*arguments):
        carry, ys = run(*arguments)
        return jnp.sum(jnp.sin(ys) * jnp.arange(1.0, STEPS + 1)[None, :, None]) + jnp.sum(carry**2)

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))(*arguments())


def assert_close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def ours(**options):
    return lambda *a: truncated(gru, *a, lengths=jnp.asarray(LENGTHS), resets=jnp.asarray(RESETS), **options)


@pytest.mark.parametrize(("stride", "window"), [(2, None), (1, 3), (2, 4), (3, 3)])
def test_gradient_is_the_definition_and_values_are_those_of_unroll(stride, window):
    assert_close(ours(stride=stride, window=window)(*arguments()), whole(*arguments()))
    assert_close(gradients(ours(stride=stride, window=window)), gradients(by_definition(stride, window or stride)))


def test_window_as_long_as_the_sequence_truncates_nothing():
    assert_close(gradients(ours(stride=1, window=7)), gradients(whole))


def test_shorter_windows_change_the_gradient():
    full, short = (gradients(run)[1][0].recurrent for run in (whole, ours(stride=1)))
    assert np.abs(full - short).max() > 1e-2


@pytest.mark.parametrize("options", [{"stride": 0}, {"stride": 2, "window": 3}, {"stride": 4, "window": 2}])
def test_windows_that_make_no_sense_are_named(options):
    with pytest.raises(InputError, match=f"stride is {options['stride']}"):
        truncated(gru, *arguments(), **options)
