"""The recurrent attention model beyond the laws that every system joins (``tests/laws``)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from seqjax import compat
from seqjax.errors import InputError
from seqjax.models.recognition import ram
from seqjax.models.recognition.ram import Config
from seqjax.nn.split import initialise, merge, split

TINY = dataclasses.replace(
    Config.tiny(), glimpses=3, hidden=8, features=12, deviation=0.15, first="random", baseline_weight=1.0
)
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
BATCH = {"image": jnp.asarray(RNG.integers(0, 256, (4, 8, 8, 1), np.uint8)), "label": jnp.arange(4)}
IMAGES = ram.pixels(TINY, BATCH)
FIRST = jnp.asarray(RNG.uniform(-1, 1, (4, 2)), jnp.float32)
NOISE = jnp.asarray(RNG.normal(size=(4, 3, 2)), jnp.float32)


def network(**changes):
    """With every parameter at random, for biases start at zero."""
    config = dataclasses.replace(TINY, **changes)
    graphs, params, rest = split(initialise(functools.partial(ram.build, config), 0))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    moved = [x + jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype) for x in leaves]
    return merge(graphs, jax.tree.unflatten(tree, moved), rest)


def compiled(function, nets, *arguments):
    """``function(nets, *arguments)`` in one program, which is quicker than its operations one by one."""
    graphs, params, rest = split(nets)
    return jax.jit(lambda params, arguments: function(merge(graphs, params, rest), *arguments))(params, arguments)


def see(image, place):
    """Two patches around a place, 4 x 4 pixels and the means of 8 x 8, zeros around the image."""
    large = np.pad(image[..., 0], 16)
    patches = []
    for side in (4, 8):
        column, row = (int(np.floor((np.clip(x, -1, 1) + 1) / 2 * 8 - side / 2 + 0.5)) + 16 for x in place)
        patch = large[row : row + side, column : column + side]
        patches.append(patch.reshape(4, side // 4, 4, side // 4).mean(axis=(1, 3)).reshape(-1))
    return np.concatenate(patches)


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize("locator", ["tanh", "linear"])
def test_path_and_answer_against_loops(locator):
    """The definitions of the paper's section 3.1, image by image in NumPy float64."""
    nets = network(locator=locator)
    net, params = nets["recognizer"], jax.tree.map(np.float64, split(nets).params["recognizer"])
    core = jax.tree.map(np.float64, compat.pure(net.core))

    def all_of(nets):
        path = nets["recognizer"].look(IMAGES, FIRST, noise=NOISE)
        return path, nets["recognizer"].answer(path), nets["recognizer"].expect(path)

    path, answers, expected = compiled(all_of, nets)

    def linear(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    for b in range(4):
        place, h = np.float64(FIRST[b]), np.zeros(12)
        for t in range(3):
            np.testing.assert_allclose(path.places[b, t], place, rtol=1e-4, atol=1e-5)
            what = relu(linear("what", see(np.float64(IMAGES[b]), place)))
            g = relu(linear("of_what", what) + linear("of_where", relu(linear("where", place))))
            h = relu(g @ core.input + h @ core.recurrent + core.bias)
            np.testing.assert_allclose(path.states[b, t], h, rtol=1e-3, atol=1e-4)
            mean = linear("mean", h) if locator == "linear" else np.tanh(linear("mean", relu(linear("before_mean", h))))
            place = mean + 0.15 * np.float64(NOISE[b, t])
        np.testing.assert_allclose(answers[b], linear("head", h), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(expected[b, 1], linear("worth", np.float64(path.states[b, 1]))[0], rtol=1e-3)


def test_loss_is_cross_entropy_reward_and_baseline():
    """From the path, whose log-densities are SciPy's; the places after the last glimpse are left out."""
    nets = network(policy_weight=0.3)

    def all_of(nets):
        net = nets["recognizer"]
        path = ram.wander(net, IMAGES, key=KEY)
        return ram.loss(nets, BATCH, key=KEY), path, net.answer(path), net.expect(path)

    (loss, metrics), path, *known = compiled(all_of, nets)
    logits, baseline = map(np.float64, known)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    reward = logits.argmax(axis=-1) == np.arange(4)
    places, means = np.float64(path.places[:, 1:]), np.float64(path.means[:, :2])
    advantage = reward[:, None] - baseline
    policy = -(advantage * norm(means, 0.15).logpdf(places).sum(axis=-1)).sum(axis=-1)
    guessed = (advantage**2).mean(axis=-1)
    expected = (-log_p[np.arange(4), np.arange(4)] + 0.3 * policy + guessed).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["reward"], reward.mean())
    np.testing.assert_allclose(metrics["baseline"], guessed.mean(), rtol=1e-4)


LOCATOR, WORTH = ("before_mean", "mean"), ("worth",)


def test_who_learns_from_what():
    """Cross-entropy shapes neither the choice of places nor the baseline; these shape nothing else."""

    graphs, params, rest = split(network())

    def objectives(params):
        net = merge(graphs, params, rest)["recognizer"]
        path = net.look(IMAGES, FIRST, noise=NOISE)
        entropy = jnp.sum(jax.nn.log_softmax(net.answer(path))[:, 0])
        return jnp.stack([entropy, jnp.sum(path.means[:, :-1] ** 2), jnp.sum(net.expect(path))])

    found = jax.jit(jax.jacrev(objectives))(params)["recognizer"]
    entropy, means, worth = (
        {name: max(np.abs(x[i]).max() for x in jax.tree.leaves(found[name])) for name in found} for i in range(3)
    )
    for name in entropy:
        assert (entropy[name] > 0) == (name not in LOCATOR + WORTH), name
        assert (means[name] > 0) == (name in LOCATOR), name
        assert (worth[name] > 0) == (name in WORTH), name


def test_places_that_are_given_are_looked_at():
    places = jnp.asarray(RNG.uniform(-1, 1, (4, 3, 2)), jnp.float32)
    path = compiled(lambda nets: nets["recognizer"].look(IMAGES, FIRST, places=places), network())
    np.testing.assert_array_equal(path.places, jnp.concatenate([FIRST[:, None], places[:, :-1]], axis=1))


def test_places_at_random_are_all_over_and_never_scored():
    nets = network(random=True)
    many = jnp.repeat(IMAGES, 200, axis=0)
    wander, loss = (lambda nets: ram.wander(nets["recognizer"], many, key=KEY)), functools.partial(ram.loss, key=KEY)
    path, (value, metrics) = compiled(lambda nets: (wander(nets), loss(nets, BATCH)), nets)
    assert np.abs(np.asarray(path.places).mean(axis=0)).max() < 0.1
    np.testing.assert_allclose(np.asarray(path.places).std(axis=0), 1 / np.sqrt(3), atol=0.05)
    assert float(value) == float(metrics["cross_entropy"])


def test_where_paths_begin_and_stand_still():
    def wander(nets, still):
        return ram.wander(nets["recognizer"], IMAGES, key=KEY, still=still)

    path = compiled(functools.partial(wander, still=True), network(first="centre"))
    np.testing.assert_array_equal(path.places[:, 0], 0)
    np.testing.assert_array_equal(path.places[:, 1:], path.means[:, :-1])
    anywhere = compiled(functools.partial(wander, still=False), network()).places[:, 0]
    assert np.unique(anywhere).size == 8


def test_probabilities_are_averaged_over_episodes_and_shuffled_places_are_of_others():
    def all_of(nets):
        net = nets["recognizer"]
        still = [ram.wander(net, IMAGES, key=jax.random.key(m), still=True) for m in range(2)]
        places = jnp.roll(still[0].places, 1, axis=0)
        shuffled = net.look(IMAGES, places[:, 0], places=jnp.roll(places, -1, axis=1))
        one, other, elsewhere = (jax.nn.softmax(net.answer(path)) for path in (*still, shuffled))
        expected = {"still": one, "averaged": (one + other) / 2, "shuffled": elsewhere}
        return ram.predict(nets, BATCH), still[0].places, expected, ram.loss(nets, BATCH, key=KEY)[0]

    found, places, expected, loss = compiled(all_of, network(episodes=2))
    for name, probabilities in expected.items():
        np.testing.assert_allclose(jnp.exp(found[name]), probabilities, rtol=1e-4)
    np.testing.assert_allclose(found["places"], places, rtol=1e-5, atol=1e-6)
    assert np.isfinite(loss)


def test_another_core_and_another_image():
    remembering = network(core="lstm")["recognizer"]
    assert jax.eval_shape(lambda: remembering.look(IMAGES, FIRST, noise=NOISE).states).shape == (4, 3, 12)
    with pytest.raises(InputError, match="8x8x1 came, and the network takes 9x9x1"):
        ram.predict(network(size=9), BATCH)


def test_a_single_glimpse_is_of_the_first_place_and_no_policy_is_learned():
    value, metrics = compiled(lambda nets: ram.loss(nets, BATCH, key=KEY), network(glimpses=1))
    np.testing.assert_allclose(value, metrics["cross_entropy"], rtol=1e-6)
