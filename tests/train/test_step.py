"""Training steps against loops written by hand: order, keys, sharing, statistics, averages, several steps in a call."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from seqjax.errors import InputError
from seqjax.nn.split import split
from seqjax.train.step import Player, alternate, minimise, repeat

KEY = jax.random.key(7)


class Scalar(nnx.Module):
    def __init__(self, value: float):
        self.value = nnx.Param(jnp.float32(value))

    def __call__(self):
        return self.value[...]


def saddle():
    return {"x": Scalar(1.0), "y": Scalar(-2.0), "z": Scalar(5.0)}


def down(nets, batch, *, key):
    """The minimiser of f(x, y) = c·x²/2 + x·y - y²/2, c the mean of the batch: df/dx = c·x + y."""
    x, y = nets["x"](), nets["y"]()
    return (batch * x**2 / 2).mean() + x * y - y**2 / 2, {"x": x}


def up(nets, batch, *, key):
    """The maximiser: d(-f)/dy = y - x."""
    return -down(nets, batch, key=key)[0], {"y": nets["y"]()}


def players(**order):
    tx = optax.sgd(0.1, momentum=0.5)
    known = {"down": Player(down, ("x",), tx), "up": Player(up, ("y",), tx)}
    return {name: known[name] for name in order or known}


def run(learner, nets, batches):
    graphs = split(nets).graphs
    step = jax.jit(lambda state, batch: learner.step(graphs, state, batch))
    state, metrics = learner.init(nets, KEY), []
    for batch in batches:
        state, measured = step(state, batch)
        metrics.append(measured)
    return state, metrics


BATCHES = np.random.default_rng(0).normal(1, 1, size=(6, 4)).astype(np.float32)


@pytest.mark.parametrize("order", [("down", "up"), ("up", "down")])
def test_players_update_in_order_each_seeing_the_one_before(order):
    """Oracle: gradient descent with momentum in NumPy, gradients of the saddle derived by hand."""
    state, metrics = run(alternate({name: players()[name] for name in order}), saddle(), BATCHES)
    at, speed, losses = {"x": 1.0, "y": -2.0}, {"x": 0.0, "y": 0.0}, []
    for batch in BATCHES:
        for name in order:
            c, (x, y) = batch.mean(), at.values()
            losses.append((1 if name == "down" else -1) * (c * x**2 / 2 + x * y - y**2 / 2))
            axis, slope = ("x", c * x + y) if name == "down" else ("y", y - x)
            speed[axis] = 0.5 * speed[axis] + slope
            at[axis] -= 0.1 * speed[axis]
            if batch is BATCHES[-1]:
                np.testing.assert_allclose(metrics[-1][f"{name}/gradient_norm"], abs(slope), rtol=1e-5)
    np.testing.assert_allclose(state.params["x"]["value"], at["x"], rtol=1e-5)
    np.testing.assert_allclose(state.params["y"]["value"], at["y"], rtol=1e-5)
    np.testing.assert_allclose([float(m[f"{n}/loss"]) for m in metrics for n in order], losses, rtol=1e-5, atol=1e-6)
    assert state.params["z"]["value"] == 5
    assert state.step == len(BATCHES)
    assert state.step.dtype == jnp.int32
    assert set(metrics[0]) == {f"down/{m}" for m in ("loss", "gradient_norm", "x")} | {
        f"up/{m}" for m in ("loss", "gradient_norm", "y")
    }


def test_a_network_of_two_players_has_an_optimiser_state_with_each():
    """Oracle: NumPy. Both players own x; each has a momentum of its own for it."""
    both = {
        "first": Player(down, ("x",), optax.sgd(0.1, momentum=0.5)),
        "second": Player(lambda nets, batch, *, key: (nets["x"]() ** 2, {}), ("x",), optax.sgd(0.2, momentum=0.9)),
    }
    state, _ = run(alternate(both), saddle(), BATCHES[:3])
    x, y, first, second = 1.0, -2.0, 0.0, 0.0
    for batch in BATCHES[:3]:
        first = 0.5 * first + batch.mean() * x + y
        x -= 0.1 * first
        second = 0.9 * second + 2 * x
        x -= 0.2 * second
    np.testing.assert_allclose(state.params["x"]["value"], x, rtol=1e-5)
    assert state.params["y"]["value"] == -2
    assert set(state.opt) == {"first", "second"}


def test_minimise_is_adam_written_out():
    """Oracle: Algorithm 1 of Kingma and Ba (2015) in NumPy, on a quadratic."""

    def loss(nets, batch, *, key):
        return ((nets["x"]() - batch) ** 2).mean() + nets["y"]() ** 2, {"y": nets["y"]()}

    state, metrics = run(minimise(loss, optax.adam(0.1)), saddle(), BATCHES)
    x, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for t, batch in enumerate(BATCHES, 1):
        g = np.array([2 * (x[0] - batch.mean()), 2 * x[1]])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x -= 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose([state.params[n]["value"] for n in "xy"], x, rtol=1e-5)
    np.testing.assert_allclose(metrics[-1]["gradient_norm"], np.linalg.norm(g), rtol=1e-5)
    assert set(metrics[0]) == {"loss", "gradient_norm", "y"}


def test_a_generator_learns_the_mean_of_the_data():
    """A Wasserstein game with a known solution: shift 3 for data of N(3, 1), where the critic's slope is zero."""

    def fakes(nets, batch, key):
        return jax.random.normal(key, batch.shape) + nets["generator"]()

    def critic(nets, batch, *, key):
        slope = nets["critic"]()
        return slope * (fakes(nets, batch, key).mean() - batch.mean()) + slope**2 / 2, {}

    def generator(nets, batch, *, key):
        return -nets["critic"]() * fakes(nets, batch, key).mean(), {}

    nets = {"generator": Scalar(0.0), "critic": Scalar(0.0)}
    game = alternate(
        {
            "critic": Player(critic, ("critic",), optax.sgd(0.5)),
            "generator": Player(generator, ("generator",), optax.sgd(0.1)),
        }
    )
    data = np.random.default_rng(1).normal(3, 1, size=(1, 200, 256)).astype(np.float32)
    state, _ = run(repeat(game, 200), nets, data)
    np.testing.assert_allclose(state.params["generator"]["value"], 3, atol=0.1)
    np.testing.assert_allclose(state.params["critic"]["value"], 0, atol=0.1)


class Stateful(nnx.Module):
    def __init__(self):
        self.scale = nnx.Param(jnp.ones(3))
        self.norm = nnx.BatchNorm(3, momentum=0.75, use_scale=False, use_bias=False, rngs=nnx.Rngs(0))
        self.pool = nnx.Variable(jnp.zeros((2, 3)))

    def __call__(self, x):
        self.pool[...] = jnp.stack([self.pool[...][1], x[0]])
        return self.norm(x) * self.scale[...][None]


def test_what_any_network_writes_in_any_forward_pass_is_kept():
    """Oracle: the moving average by hand. The second player's forward pass also goes through the first's network."""

    def one(nets, batch, *, key):
        return (nets["net"](batch) ** 2).mean(), {}

    def two(nets, batch, *, key):
        return (nets["net"](batch + 1) * nets["other"]()).mean(), {}

    game = alternate({"one": Player(one, ("net",), optax.sgd(0.1)), "two": Player(two, ("other",), optax.sgd(0.1))})
    batches = np.random.default_rng(2).normal(size=(2, 5, 3)).astype(np.float32)
    state, _ = run(game, {"net": Stateful(), "other": Scalar(1.0)}, batches)
    mean = np.zeros(3)
    for batch in batches:
        for shift in (0, 1):
            mean = 0.75 * mean + 0.25 * (batch + shift).mean(0)
    np.testing.assert_allclose(state.rest["net"]["norm"]["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state.rest["net"]["pool"], [batches[1, 0], batches[1, 0] + 1])


def test_averages_follow_the_last_player():
    game = alternate(players(), ema={"x": 0.9, "z": 0.0})
    state, mean = game.init(saddle(), KEY), 1.0
    graphs = split(saddle()).graphs
    assert set(state.ema) == {"x", "z"}
    for batch in BATCHES:
        state, _ = game.step(graphs, state, batch)
        mean = 0.9 * mean + 0.1 * float(state.params["x"]["value"])
    np.testing.assert_allclose(state.ema["x"]["value"], mean, rtol=1e-6)
    assert state.ema["z"]["value"] == 5
    assert alternate(players()).init(saddle(), KEY).ema == {}


def noisy(nets, batch, *, key):
    draw = jax.random.normal(key)
    return (nets["x"]() - draw) ** 2, {"draw": draw}


def test_random_numbers_are_a_function_of_key_step_and_player():
    game = alternate({name: Player(noisy, ("x",), optax.sgd(0.1)) for name in ("a", "b")})
    state, metrics = run(game, saddle(), BATCHES[:3])
    for step, measured in enumerate(metrics):
        for index, name in enumerate("ab"):
            turn = jax.random.fold_in(jax.random.fold_in(KEY, step), index)
            assert measured[f"{name}/draw"] == jax.random.normal(turn)
    np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(KEY))
    again, _ = run(game, saddle(), BATCHES[:3])
    assert again.params["x"]["value"] == state.params["x"]["value"]


def test_repeat_is_the_loop():
    game = alternate(players() | {"noisy": Player(noisy, ("z",), optax.adam(0.1))}, ema={"x": 0.5})
    state, metrics = run(game, saddle(), BATCHES)
    at_once, (stacked,) = run(repeat(game, len(BATCHES)), saddle(), BATCHES[None])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        (state._replace(key=0), jax.tree.map(lambda *values: np.stack(values), *metrics)),
        (at_once._replace(key=0), stacked),
    )


def test_a_state_may_be_donated_without_harm_to_the_networks():
    nets, game = saddle(), alternate(players(), ema={"x": 0.9})
    graphs = split(nets).graphs
    state = game.init(nets, KEY)
    jax.jit(lambda state: game.step(graphs, state, BATCHES[0]), donate_argnums=0)(state)
    assert state.params["x"]["value"].is_deleted()
    assert nets["x"]() == 1
    assert jax.random.normal(KEY).shape == ()


def test_bad_input_is_named():
    tx = optax.sgd(0.1)
    with pytest.raises(InputError, match="players: got none"):
        alternate({})
    with pytest.raises(InputError, match=r"ema\['x'\]: got a decay of 1.5"):
        minimise(down, tx, ema={"x": 1.5})
    with pytest.raises(InputError, match=r"players\['a'\].nets: got 'w', which is not among .* \('x', 'y', 'z'\)"):
        alternate({"a": Player(down, ("x", "w"), tx)}).init(saddle(), KEY)
    with pytest.raises(InputError, match="ema: got 'w'"):
        minimise(down, tx, ema={"w": 0.5}).init(saddle(), KEY)
    per_example = alternate({"a": Player(lambda nets, batch, *, key: (batch * nets["x"](), {}), ("x",), tx)})
    with pytest.raises(InputError, match=r"players\['a'\].loss: .* shape \(4,\), expected a scalar"):
        run(per_example, saddle(), BATCHES)
    with pytest.raises(InputError, match=r"a leading axis of 3 .* found \[\(6,\)\]"):
        run(repeat(alternate(players()), 3), saddle(), BATCHES[None])


def test_a_player_plays_in_its_turns_alone():
    """One plays in every third step, the other in the others; oracle: the same two by hand, each with its optimiser."""
    first, second = players().values()
    turns = {
        "down": first._replace(when=lambda state: state.step % 3 == 0),
        "up": second._replace(when=lambda state: state.step % 3 != 0),
    }
    state, metrics = run(alternate(turns), saddle(), BATCHES)
    at, speed = {"x": 1.0, "y": -2.0}, {"x": 0.0, "y": 0.0}
    for step, batch in enumerate(BATCHES):
        axis, slope = ("x", batch.mean() * at["x"] + at["y"]) if step % 3 == 0 else ("y", at["y"] - at["x"])
        speed[axis] = 0.5 * speed[axis] + slope
        at[axis] -= 0.1 * speed[axis]
        playing, waiting = ("down", "up") if step % 3 == 0 else ("up", "down")
        assert metrics[step][f"{playing}/turn"] == 1
        np.testing.assert_allclose(metrics[step][f"{playing}/gradient_norm"], abs(slope), rtol=1e-5)
        assert {float(v) for name, v in metrics[step].items() if name.startswith(f"{waiting}/")} == {0.0}
    np.testing.assert_allclose([state.params[n]["value"] for n in "xy"], list(at.values()), rtol=1e-5)
