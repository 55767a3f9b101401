"""SVG beyond the laws that every system joins (``tests/laws``)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nn.filled import run_all

from seqjax.errors import InputError
from seqjax.models.prediction import svg
from seqjax.models.prediction.svg import Config
from seqjax.nn.split import initialise, merge, split

TINY = Config.tiny()
P, S, Z = TINY.context, 4, TINY.latent
NOISE = (2, P - 1 + S, Z)


def configured(**changes):
    return dataclasses.replace(TINY, **changes)


@functools.cache
def networks(**changes):
    """With decoders so steep that what latents and vectors say shows in the frames."""
    nets = initialise(functools.partial(svg.build, configured(**changes)), 0)
    layers = [nets[name].head.kernel for name in ("predictor", "posterior") if name in nets]
    if changes.get("backbone") != "dense":
        layers += [nets["decoder"].stem.conv.kernel, nets["decoder"].frame.kernel]
    for kernel in layers:
        kernel[...] = 10 * kernel[...]
    return nets


def clip(seed=0, frames=P + S, height=8, width=8):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (2, frames, height, width, 1), np.uint8))


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def loss_of(nets, video):
    return run_all(nets, lambda nets, video: svg.loss(nets, {"video": video}, key=jax.random.key(0)), video)


def roll(nets, video, noise, context=P):
    def call(nets, video, noise):
        return svg.rollout(nets, svg.observe(nets, video[:, :context]), noise)

    return np.asarray(run_all(nets, call, video, noise))


@pytest.mark.parametrize("beta", [TINY.beta, 0.5])
def test_loss_is_squared_error_and_divergence_by_their_definitions(beta):
    """In NumPy, from the frames and the distributions: sums over steps, the error a mean over pixels."""
    nets, video = networks(beta=beta), clip()
    total, metrics = loss_of(nets, video)

    def parts(nets, video):
        return svg.reconstruct(nets, video, jax.random.normal(jax.random.key(0), (2, P + TINY.future - 1, Z)))

    frames = np.asarray(video[:, : P + TINY.future], np.float64) / 255
    found = run_all(nets, parts, jnp.asarray(frames, jnp.float32))
    predicted, q, p = jax.tree.map(lambda x: np.asarray(x, np.float64), found)
    errors, (s_q, s_p) = np.square(predicted - frames[:, 1:]), np.exp([q.log_deviation, p.log_deviation])
    kl = (np.log(s_p / s_q) + (s_q**2 + (q.mean - p.mean) ** 2) / (2 * s_p**2) - 0.5).sum(axis=-1)
    expected = errors.mean(axis=(2, 3, 4)).sum(axis=1) + beta * kl.sum(axis=1)
    np.testing.assert_allclose(total, expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["mse"], errors.sum(axis=(2, 3, 4)).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], kl.mean(), rtol=1e-4, atol=1e-6)


def test_gradients_flow_as_published():
    """The error of frames reaches every network but the prior; the divergence reaches the prior, the posterior and the
    encoder, and neither what predicts nor what draws."""
    parts = split(networks())

    def of(metric):
        def value(params):
            nets = merge(parts.graphs, params, parts.rest)
            return svg.loss(nets, {"video": clip()}, key=jax.random.key(0))[1][metric]

        grads = jax.jit(jax.grad(value))(parts.params)
        return {name: max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(tree)) for name, tree in grads.items()}

    error, divergence = of("mse"), of("kl")
    assert {name for name, largest in error.items() if largest == 0} == {"prior"}
    assert {name for name, largest in divergence.items() if largest == 0} == {"predictor", "decoder"}


def test_a_learned_prior_that_says_nothing_is_the_fixed_one_bit_for_bit():
    learned, video = dict(networks()), clip()
    learned["prior"] = initialise(functools.partial(svg.build, TINY), 0)["prior"]
    for parameter in (learned["prior"].head.kernel, learned["prior"].head.bias):
        parameter[...] = jnp.zeros_like(parameter[...])
    encoder = initialise(functools.partial(svg.build, configured(prior="fixed")), 0)["encoder"]
    fixed = {name: net for name, net in learned.items() if name != "prior"} | {"encoder": encoder}
    for ours, theirs in zip(
        jax.tree.leaves(loss_of(learned, video)), jax.tree.leaves(loss_of(fixed, video)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(*(roll(nets, video / 255, normal(*NOISE)) for nets in (learned, fixed)))


def silent():
    """Learned, but all latents are zero where no noise is drawn: what tells them says so, and the prior likewise."""
    nets = dict(networks())
    for name in ("posterior", "prior"):
        nets[name] = initialise(functools.partial(svg.build, TINY), 0)[name]
        for parameter in (nets[name].head.kernel, nets[name].head.bias):
            parameter[...] = jnp.zeros_like(parameter[...])
    return nets


def test_without_a_prior_it_is_the_model_whose_latents_are_zero_their_weights_cut_away():
    """In training and in sampling, with parameters of the stochastic networks."""
    stochastic, video = silent(), clip()
    deterministic = initialise(functools.partial(svg.build, configured(prior="none")), 0)
    assert deterministic.keys() == {"encoder", "decoder", "predictor"}
    for name, net in deterministic.items():
        theirs = nnx.state(stochastic[name], nnx.Param)
        if name == "predictor":
            kernel = theirs["embed"]["kernel"]
            theirs["embed"]["kernel"] = kernel.replace(kernel[: TINY.features])
        nnx.update(net, theirs)

    def frames(nets, video, z):
        return svg.reconstruct(nets, video, jnp.zeros((2, P + S - 1, z)))[0]

    expected, found = (
        run_all(nets, functools.partial(frames, z=z), video / 255) for nets, z in ((stochastic, Z), (deterministic, 0))
    )
    assert np.std(expected, axis=1).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    batch = {"video": video}
    expected, found = (
        run_all(nets, lambda nets, batch: svg.predict(nets, batch, steps=S), batch)
        for nets in (stochastic, deterministic)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_without_a_prior_there_is_one_future_and_no_divergence():
    nets, batch = networks(prior="none"), {"video": clip()}
    total, metrics = loss_of(nets, clip())
    assert metrics["kl"] == 0
    np.testing.assert_allclose(total, (P + TINY.future - 1) * metrics["mse"] / 64, rtol=1e-6)
    one, other = (
        run_all(nets, lambda nets, batch, seed=seed: svg.sample(nets, batch, key=jax.random.key(seed)), batch)
        for seed in (0, 1)
    )
    assert np.std(one, axis=1).max() > 1e-3
    np.testing.assert_array_equal(one, other)
    for values in run_all(nets, svg.surprise, batch).values():
        np.testing.assert_array_equal(values, np.zeros((2, P + S - 1)))


@pytest.mark.parametrize(
    "changes", [{"norm": "batch"}, {"backbone": "vgg"}, {"skips": "last"}, {"skips": "repository"}, {"layers": 2}]
)
def test_sampling_is_the_training_pass_on_its_own_predictions(changes):
    """Frame after frame by the pass that training makes, whose latents are put in the prior's place."""
    nets, video, noise = networks(**changes), clip() / 255, normal(*NOISE)
    config = nets["encoder"].config

    def one_more(nets, seen, noise):
        hs, maps = nets["encoder"](seen, running=True)
        posterior, prior = svg.beliefs(nets, jnp.concatenate([hs, hs[:, -1:]], axis=1))
        z = jnp.concatenate([posterior.at(noise)[:, : P - 1], prior.at(noise)[:, P - 1 :]], axis=1)
        g = nets["predictor"](jnp.concatenate([hs, z], axis=-1))[1][:, -1]
        source = svg.skip_sources(config, seen.shape[1] + 1)[-1]
        return nets["decoder"](jnp.tanh(g), tuple(level[:, source] for level in maps), running=True)

    def by_hand(nets, video, noise):
        seen = video[:, :P]
        for t in range(P, P + S):
            frame = one_more(nets, seen, noise[:, :t])
            seen = jnp.concatenate([seen, frame[:, None]], axis=1)
        return seen[:, P:]

    expected = run_all(nets, by_hand, video, noise)
    assert np.std(expected, axis=1).max() > 1e-3
    np.testing.assert_allclose(roll(nets, video, noise), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("skips", ["context", "repository", "last"])
def test_the_future_is_not_read(skips):
    """Frames after the context hold NaN."""
    nets = networks(skips=skips)
    poisoned = (clip() / 255).at[:, P:].set(jnp.nan)
    assert np.isfinite(roll(nets, poisoned, normal(*NOISE))).all()


def test_where_skips_come_from():
    """Frames 1 to 7 after a context of four: one true frame back until it ends; the code stops one earlier."""
    config = Config(context=4)
    assert svg.skip_sources(config, 8).tolist() == [0, 1, 2, 3, 3, 3, 3]
    assert svg.skip_sources(dataclasses.replace(config, skips="repository"), 8).tolist() == [0, 1, 2, 2, 2, 2, 2]
    assert svg.skip_sources(dataclasses.replace(config, skips="last"), 8).tolist() == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("prior", ["learned", "fixed"])
def test_noise_alone_makes_futures_differ(prior):
    nets, video = networks(prior=prior), clip() / 255
    one, again, other = (roll(nets, video, normal(*NOISE, seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-4
    batch = {"video": clip()}
    means = run_all(nets, lambda nets, batch: svg.predict(nets, batch, steps=S), batch)
    np.testing.assert_allclose(means, roll(nets, video, jnp.zeros(NOISE)), rtol=1e-5, atol=1e-6)


def test_samples_are_drawn_from_the_key():
    nets, batch = networks(), {"video": clip()}
    one, again, other = (
        run_all(nets, lambda nets, batch, seed=seed: svg.sample(nets, batch, key=jax.random.key(seed), steps=6), batch)
        for seed in (0, 0, 1)
    )
    assert one.shape == (2, 6, 8, 8, 1)
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-4


def test_a_longer_future_begins_with_the_shorter():
    nets, video, noise = networks(), clip() / 255, normal(2, P - 1 + 7, Z)
    np.testing.assert_allclose(roll(nets, video, noise)[:, :S], roll(nets, video, noise[:, : P - 1 + S]), rtol=1e-5)


def test_one_frame_of_context_is_enough():
    nets = networks(context=1)
    assert roll(nets, clip() / 255, normal(2, S, Z), context=1).shape == (2, S, 8, 8, 1)
    assert np.isfinite(loss_of(nets, clip())[0])


def test_no_clip_sees_its_neighbour_in_sampling():
    """Normalisation is by running averages."""
    nets, video, noise = networks(norm="batch"), clip() / 255, normal(*NOISE)
    np.testing.assert_allclose(roll(nets, video[:1], noise[:1]), roll(nets, video, noise)[:1], rtol=1e-4, atol=1e-6)


def test_logarithms_of_variances_are_kept_within_bounds():
    nets = initialise(functools.partial(svg.build, configured(log_variance=(-8.0, 4.0))), 0)
    for name, size in (("posterior", -1e6), ("prior", 1e6)):
        bias = nets[name].head.bias
        bias[...] = jnp.concatenate([jnp.zeros(Z), jnp.full(Z, size)])
    total, _ = loss_of(nets, clip())
    assert np.isfinite(total)
    posterior, prior = run_all(nets, lambda nets, v: svg.beliefs(nets, nets["encoder"](v)[0]), clip() / 255)
    np.testing.assert_allclose(posterior.log_deviation, -4)
    np.testing.assert_allclose(prior.log_deviation, 2)


@pytest.mark.parametrize("prior", ["learned", "fixed"])
def test_surprise_is_the_divergence_by_frame(prior):
    """And says what the prior knew: with a fixed one always 1."""
    nets, video = networks(prior=prior), clip()
    found = run_all(nets, lambda nets, video: svg.surprise(nets, {"video": video}), video)
    q, p = run_all(nets, lambda nets, v: svg.beliefs(nets, nets["encoder"](v, running=True)[0]), video / 255)
    s_q, s_p = np.exp(q.log_deviation), np.exp(p.log_deviation)
    kl = (np.log(s_p / s_q) + (s_q**2 + (q.mean - p.mean) ** 2) / (2 * s_p**2) - 0.5).sum(axis=-1)
    np.testing.assert_allclose(found["kl"], kl, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["deviation"], s_p.mean(axis=-1), rtol=1e-6)
    assert found["kl"].shape == (2, P + S - 1)
    if prior == "fixed":
        np.testing.assert_array_equal(found["deviation"], 1)


def test_dense_networks_take_strips():
    nets, video = networks(backbone="dense", height=1, width=12), clip(height=1, width=12)
    assert np.isfinite(loss_of(nets, video)[0])
    assert roll(nets, video / 255, normal(*NOISE)).shape == (2, S, 1, 12, 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"height": 9}, "height, width: got 9 and 8.*dense"),
        ({"height": 12, "width": 12}, "size: got 12.*4·2ⁿ"),
        ({"context": 0}, "context: got 0"),
        ({"context": 1, "skips": "repository"}, "context: got 1.*2 or more.*repository"),
    ],
)
def test_networks_that_cannot_be(fields, words):
    with pytest.raises(InputError, match=words):
        nnx.eval_shape(lambda: svg.build(configured(**fields), nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("shape", "named"),
    [({"frames": 4}, "4 frames of 8x8x1.*at least 5"), ({"height": 7}, "7x8x1.*8x8x1.*model.height")],
)
def test_a_clip_that_the_networks_cannot_take_is_described(shape, named):
    with pytest.raises(InputError, match=named):
        svg.loss(networks(), {"video": clip(**shape)}, key=jax.random.key(0))
