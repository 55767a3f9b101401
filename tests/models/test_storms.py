"""The tracker and the forecaster of storms beyond the laws that every system joins (``tests/laws``)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from laws.systems import storm_clips

from seqjax.errors import InputError
from seqjax.models.prediction import storms
from seqjax.nn.split import initialise

TINY = storms.Config.tiny()
FORECAST = dataclasses.replace(TINY, task="forecast")


def nets(config):
    return initialise(lambda rngs: storms.build(config, rngs), 0)


def batch(height=8, width=8):
    rng = np.random.default_rng(0)
    return {
        "fields": jnp.asarray(rng.random((2, 6, height, width, 3)), jnp.float32),
        "density": jnp.asarray(rng.random((2, 6, height, width, 1)), jnp.float32),
    }


@pytest.mark.parametrize("config", [TINY, FORECAST], ids=["track", "forecast"])
def test_loss_is_the_weighted_cross_entropy_of_the_predictions(config):
    """Against the definition in NumPy, from the probabilities that ``predict`` gives."""
    network, given = nets(config), batch()
    loss, metrics = storms.loss(network, given, key=jax.random.key(0))
    p = np.asarray(storms.predict(network, given), np.float64)
    d = np.asarray(given["density"] if config is TINY else given["density"][:, 3:], np.float64)
    entropy = -(d * np.log(p) + (1 - d) * np.log(1 - p))
    np.testing.assert_allclose(loss, ((1 + 9 * d) * entropy).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["cross_entropy"], entropy.mean(), rtol=1e-5)
    found = (p * d).sum((1, 2, 3, 4)) / (d * d).sum((1, 2, 3, 4))
    np.testing.assert_allclose(metrics["found"], found.mean(), rtol=1e-5)


def test_the_tracker_reads_the_fields_up_to_a_step_and_no_density():
    network, given = nets(TINY), batch()
    before = storms.predict(network, given)
    later = given["fields"].at[:, 4:].set(0.0)
    after = storms.predict(network, {"fields": later, "density": 0 * given["density"]})
    np.testing.assert_allclose(after[:, :4], before[:, :4], rtol=1e-6)
    assert np.abs(after[:, 4:] - before[:, 4:]).max() > 1e-4
    past = storms.predict(network, given | {"fields": given["fields"].at[:, 0].set(0.0)})
    assert np.abs(past[:, 5] - before[:, 5]).max() > 1e-6  # it remembers


def test_the_forecaster_reads_the_past_density_alone():
    network, given = nets(FORECAST), batch()
    before = storms.predict(network, given)
    after = storms.predict(network, {"density": given["density"].at[:, 3:].set(0.0)})
    np.testing.assert_array_equal(after, before)
    assert np.abs(storms.predict(network, {"density": 0 * given["density"]}) - before).max() > 1e-4


@pytest.mark.parametrize("config", [TINY, FORECAST], ids=["track", "forecast"])
def test_odd_sizes_are_filled_up_with_zeros_and_cut_off(config):
    """As 128 x 257 of the published fields are; what stands in the filling is what zeros there would give."""
    network, given = nets(config), batch(6, 9)
    filled = {key: jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 0))) for key, x in given.items()}
    if config is TINY:
        filled["fields"] = filled["fields"].at[..., 9:, :].set(0.0)
    predicted = storms.predict(network, given)
    assert predicted.shape[2:] == (6, 9, 1)
    np.testing.assert_allclose(predicted, storms.predict(network, filled)[:, :, :, :9], rtol=1e-5)


def test_forecasts_learn_one_batch_by_heart():
    """As the law asks of the tracker: every parameter gets gradient, and the loss falls to a third in forty steps."""
    network = nets(FORECAST)["predictor"]
    given = {key: jnp.asarray(x) for key, x in storm_clips(FORECAST, 4).items()}
    graph, params = nnx.split(network)

    @jax.jit
    def step(params, means):
        value, slope = jax.value_and_grad(
            lambda p: storms.loss({"predictor": nnx.merge(graph, p)}, given, key=jax.random.key(0))[0]
        )(params)
        means = jax.tree.map(lambda m, g: 0.9 * m + g, means, slope)
        return jax.tree.map(lambda p, m: p - 0.3 * m, params, means), means, value

    means, values = jax.tree.map(jnp.zeros_like, params), []
    for _ in range(60):
        params, means, value = step(params, means)
        values.append(float(value))
    assert values[-1] < 0.35 * values[0]
    assert all(np.abs(mean).max() > 0 for mean in jax.tree.leaves(means))


def test_what_the_network_cannot_take_is_described():
    given = batch()
    with pytest.raises(InputError, match="3 channels"):
        storms.predict(nets(dataclasses.replace(TINY, channels=6)), given)
    with pytest.raises(InputError, match=r"6 steps.*model\.future"):
        storms.predict(nets(dataclasses.replace(FORECAST, future=4)), given)


def test_another_task_is_refused(unchecked):
    with pytest.raises(InputError, match="'guess'"):
        storms.build(dataclasses.replace(TINY, task="guess"), nnx.Rngs(0))
