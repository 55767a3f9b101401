"""Configured optimisers against their update rules in NumPy, and schedules against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.train.optim import Optimizer, learning_rate, make_optimizer

GRADIENTS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
STEPS = len(GRADIENTS)


def run(config, start=0.0):
    tx = make_optimizer(config, STEPS)
    x = jnp.full(5, start)
    state = tx.init(x)
    with jax.numpy_dtype_promotion("standard"):
        for gradient in GRADIENTS:
            updates, state = tx.update(jnp.asarray(gradient), state, x)
            x = x + updates
    return x


def test_adam_is_algorithm_1_of_kingma_and_ba():
    x, m, v = np.zeros(5), np.zeros(5), np.zeros(5)
    for t, g in enumerate(GRADIENTS, 1):
        m, v = 0.5 * m + 0.5 * g, 0.99 * v + 0.01 * g**2
        x -= 0.1 * (m / (1 - 0.5**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    np.testing.assert_allclose(run(Optimizer("adam", 0.1, b1=0.5, b2=0.99)), x, rtol=1e-5)


def test_adamw_decays_kernels_beside_the_rule_and_nothing_else():
    config, rng = Optimizer("adamw", 0.1, weight_decay=0.3), np.random.default_rng(2)
    kernel, bias = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((2, 3), (3,)))
    tx = make_optimizer(config, STEPS)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = tx.update([kernel, bias], tx.init([kernel, bias]), [kernel, bias])
    np.testing.assert_allclose(updates[0], -0.1 * (np.sign(kernel) + 0.3 * kernel), rtol=1e-4)
    np.testing.assert_allclose(updates[1], -0.1 * np.sign(bias), rtol=1e-4)


def test_rmsprop_divides_by_the_root_of_the_mean_square():
    x, v = np.zeros(5), np.zeros(5)
    for g in GRADIENTS:
        v = 0.7 * v + 0.3 * g**2
        x -= 0.1 * g / np.sqrt(v + 1e-8)
    np.testing.assert_allclose(run(Optimizer("rmsprop", 0.1, decay=0.7)), x, rtol=1e-5)


def test_adams_epsilon():
    x, m, v = np.zeros(5), np.zeros(5), np.zeros(5)
    for t, g in enumerate(GRADIENTS, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x -= 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 0.5)
    np.testing.assert_allclose(run(Optimizer("adam", 0.1, eps=0.5)), x, rtol=1e-4)


def test_sgd_and_adadelta():
    np.testing.assert_allclose(run(Optimizer("sgd", 0.1)), -0.1 * GRADIENTS.sum(axis=0), rtol=1e-5)
    x, v, u = np.zeros(5), np.zeros(5), np.zeros(5)
    for g in GRADIENTS:
        v = 0.95 * v + 0.05 * g**2
        step = np.sqrt(u + 1e-3) / np.sqrt(v + 1e-3) * g
        u = 0.95 * u + 0.05 * step**2
        x -= 0.7 * step
    np.testing.assert_allclose(run(Optimizer("adadelta", 0.7, decay=0.95, eps=1e-3)), x, rtol=1e-5)


@pytest.mark.parametrize("bound", [None, 0.12])
def test_momentum_keeps_a_share_of_the_update_within_its_bound(bound):
    """By hand, the rate within what is kept; what the bound cuts off does not come back."""
    x, v = np.full(5, 0.7), np.zeros(5)
    for step, g in enumerate(GRADIENTS):
        v = 0.8 * v - 0.1 * 0.5 ** (step // 2) * (g + 0.3 * x)
        v = v if bound is None else np.clip(v, -bound, bound)
        x = x + v
    config = {"momentum": 0.8, "weight_decay": 0.3, "schedule": "staircase", "epoch": 2, "factor": 0.5}
    np.testing.assert_allclose(run(Optimizer("momentum", 0.1, clip_updates=bound, **config), 0.7), x, rtol=1e-5)


def test_muon_makes_a_kernel_orthogonal_and_leaves_vectors_to_adam():
    """One step against the singular value decomposition: Newton-Schulz maps each singular value alone."""
    rng = np.random.default_rng(1)
    gradients = {name: rng.normal(size=size) for name, size in {"kernel": (3, 2, 4, 5), "bias": (5,)}.items()}
    params = {name: jnp.zeros(gradient.shape) for name, gradient in gradients.items()}
    tx = make_optimizer(Optimizer("muon", 0.1), STEPS)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = tx.update(jax.tree.map(jnp.float32, gradients), tx.init(params), params)
    u, s, vt = np.linalg.svd(gradients["kernel"].reshape(24, 5), full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5  # the coefficients of Jordan et al.
    assert np.all(abs(s - 1) < 0.35)
    expected = -0.1 * 0.2 * np.sqrt(24) * (u * s) @ vt
    np.testing.assert_allclose(updates["kernel"].reshape(24, 5), expected, rtol=1e-3, atol=1e-5)
    first_of_nadam = 0.9 * 0.1 / (1 - 0.9**2) + 1
    np.testing.assert_allclose(updates["bias"], -0.1 * first_of_nadam * np.sign(gradients["bias"]), rtol=1e-4)


def test_clipping_comes_before_the_rule():
    x, v = np.zeros(5), np.zeros(5)
    for g in GRADIENTS:
        g = g * min(1.0, 0.9 / np.linalg.norm(g))
        v = 0.9 * v + 0.1 * g**2
        x -= 0.1 * g / np.sqrt(v + 1e-8)
    np.testing.assert_allclose(run(Optimizer("rmsprop", 0.1, clip_norm=0.9)), x, rtol=1e-5)


@pytest.mark.parametrize("norm", [None, 0.9])
def test_every_number_is_clipped_before_the_norm(norm):
    x, v = np.zeros(5), np.zeros(5)
    for g in GRADIENTS:
        g = np.maximum(np.minimum(g, 0.5), -0.5)
        g = g if norm is None else g * min(1.0, norm / np.linalg.norm(g))
        v = 0.9 * v + 0.1 * g**2
        x -= 0.1 * g / np.sqrt(v + 1e-8)
    np.testing.assert_allclose(run(Optimizer("rmsprop", 0.1, clip_values=0.5, clip_norm=norm)), x, rtol=1e-5)


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_schedules_are_their_formulas(schedule, warmup):
    rate = learning_rate(Optimizer(learning_rate=0.2, schedule=schedule, warmup=warmup), 20)
    steps = np.arange(21)
    left = (steps - warmup) / (20 - warmup)
    after = np.full(21, 0.2) if schedule == "constant" else 0.1 * (1 + np.cos(np.pi * left))
    expected = np.where(steps < warmup, 0.2 * steps / max(warmup, 1), after)
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_allclose([float(rate(step)) for step in steps], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "halving", "staircase", "inverse_sqrt"])
def test_a_short_trial_ends_within_the_warm_up(schedule):
    rate = learning_rate(Optimizer(learning_rate=0.2, schedule=schedule, warmup=50), 4)
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_allclose([float(rate(step)) for step in range(4)], 0.2 * np.arange(4) / 50, rtol=1e-5)


@pytest.mark.parametrize("epoch", [1, 7])
def test_constant_then_linear_is_the_rule_of_pytorchs_cyclegan(epoch):
    """100 epochs at the rate, then 100 down a line; with n_epochs = n_epochs_decay = 100 and epochs counted from 1,
    1 - max(0, epoch + 1 - 100) / 101."""
    rate = learning_rate(Optimizer(learning_rate=0.2, schedule="linear", epoch=epoch), 200 * epoch)
    factors = np.array([float(rate(step)) for step in range(200 * epoch)]) / 0.2
    expected = [1 - max(0, e + 1 - 100) / 101 for e in range(200) for _ in range(epoch)]
    np.testing.assert_allclose(factors, expected, rtol=1e-4)
    np.testing.assert_allclose(factors[-1], 1 / 101, rtol=1e-4)


def test_inverse_square_root_is_the_transformers():
    """``d^-0.5 min(step^-0.5, step warmup^-1.5)``, whose peak is 6.99e-4 for 512 features and 4,000 steps."""
    peak = 512**-0.5 * 4000**-0.5
    assert peak == pytest.approx(6.99e-4, rel=1e-3)
    rate = learning_rate(Optimizer(learning_rate=peak, schedule="inverse_sqrt", warmup=4000), 100_000)
    steps = np.array([1, 400, 3999, 4000, 4001, 16_000, 99_999])
    expected = 512**-0.5 * np.minimum(steps**-0.5, steps * 4000**-1.5)
    np.testing.assert_allclose([float(rate(step)) for step in steps], expected, rtol=1e-4)


def test_halving_begins_after_a_share_and_goes_on_every_epoch():
    """Of ten epochs of 3 steps the first five at the rate, then half, a quarter, ..: Luong et al., section 4.1."""
    rate = learning_rate(Optimizer(learning_rate=1.0, schedule="halving", constant=0.5, epoch=3), 30)
    found = [float(rate(step)) for step in range(30)]
    np.testing.assert_allclose(found, [1.0] * 15 + [2.0**-n for n in range(1, 6) for _ in range(3)])


def test_staircase_is_that_of_srivastavas_code():
    """The rate times 0.9 to the power of the steps made, divided by 10,000 in whole numbers."""
    rate = learning_rate(Optimizer(learning_rate=1e-4, schedule="staircase", epoch=10_000), 100_000)
    found = [float(rate(step)) for step in (0, 9_999, 10_000, 35_000, 99_999)]
    np.testing.assert_allclose(found, [1e-4, 1e-4, 9e-5, 0.9**3 * 1e-4, 0.9**9 * 1e-4], rtol=1e-5)


def test_decay_is_a_penalty_and_not_decoupled():
    x, v = np.full(5, 0.7), np.zeros(5)
    for g in GRADIENTS:
        g = g + 0.3 * x
        v = 0.9 * v + 0.1 * g**2
        x = x - 0.1 * g / np.sqrt(v + 1e-8)
    np.testing.assert_allclose(run(Optimizer("rmsprop", 0.1, weight_decay=0.3), 0.7), x, rtol=1e-5)


def test_weights_are_kept_within_their_bound():
    x, v = np.zeros(5), np.zeros(5)
    for g in GRADIENTS:
        v = 0.9 * v + 0.1 * g**2
        x = np.clip(x - 0.1 * g / np.sqrt(v + 1e-8), -0.15, 0.15)
    assert np.abs(x).max() == 0.15
    np.testing.assert_allclose(run(Optimizer("rmsprop", 0.1, clip_weights=0.15)), x, rtol=1e-5)


def test_the_schedule_drives_the_rule():
    """RMSProp without memory moves by the learning rate, against the sign of the gradient."""
    config = Optimizer("rmsprop", 0.1, schedule="cosine", decay=0.0)
    x = -sum(0.05 * (1 + np.cos(np.pi * step / STEPS)) * np.sign(g) for step, g in enumerate(GRADIENTS))
    np.testing.assert_allclose(run(config), x, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Optimizer(learning_rate=0.0), "optimizer.learning_rate: got 0.0"),
        (Optimizer(warmup=-1), "optimizer.warmup: got -1"),
        (Optimizer(clip_norm=0.0), "optimizer.clip_norm: got 0.0"),
        (Optimizer(clip_values=-5.0), "optimizer.clip_values: got -5.0"),
        (Optimizer(clip_weights=-1.0), "optimizer.clip_weights: got -1.0"),
        (Optimizer("momentum", clip_updates=0.0), "optimizer.clip_updates: got 0.0"),
        (Optimizer(schedule="linear", constant=1.5), "optimizer.constant, optimizer.epoch: got 1.5 and 1"),
        (Optimizer(schedule="halving", epoch=0), "optimizer.constant, optimizer.epoch: got 0.5 and 0"),
        (Optimizer(schedule="staircase", factor=0.0), "optimizer.factor: got 0.0"),
        (Optimizer(schedule="inverse_sqrt"), "optimizer.warmup: got 0, and schedule='inverse_sqrt'"),
    ],
)
def test_bad_input_is_named(config, message):
    with pytest.raises(InputError, match=message):
        make_optimizer(config, STEPS)
