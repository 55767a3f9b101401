"""The Vision Transformer beyond the laws that every system joins (``tests/laws``)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax import compat
from seqjax.errors import InputError
from seqjax.models.recognition import vit
from seqjax.models.recognition.vit import Config
from seqjax.nn.split import count, initialise, merge, split
from seqjax.ops.image import signed_images

TINY, KEY = Config.tiny(), jax.random.key(0)
LEVELS = jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8))
BATCH = {"image": LEVELS, "label": jnp.arange(3)}


def network(**changes):
    """With every parameter at random, for heads and tokens start at zero."""
    config = dataclasses.replace(TINY, **changes)
    graphs, params, rest = split(initialise(functools.partial(vit.build, config), 0))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    moved = [x + jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype) for x in leaves]
    return merge(graphs, jax.tree.unflatten(tree, moved), rest)


def compiled(function, nets, *arguments):
    """``function(nets, *arguments)`` in one program, which is quicker than its operations one by one."""
    graphs, params, rest = split(nets)
    return jax.jit(lambda params, arguments: function(merge(graphs, params, rest), *arguments))(params, arguments)


def test_at_first_all_classes_are_alike():
    config = dataclasses.replace(TINY, classes=7, classifier="map", positions="sincos2d")
    nets = initialise(functools.partial(vit.build, config), 0)
    np.testing.assert_allclose(compiled(functools.partial(vit.loss, key=KEY), nets, BATCH)[0], np.log(7), rtol=1e-6)


def layer_norm(norm, x):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * norm["scale"] + norm["bias"]


def attend(params, x):
    out = np.zeros_like(x)
    for n in range(2):
        q, k, v = (
            x @ kernel[:, n] + bias[n]
            for kernel, bias in zip(params[:3], (params.bias.query, params.bias.key, params.bias.value), strict=True)
        )
        weights = np.exp(q @ k.T / 2)
        out += weights / weights.sum(axis=-1, keepdims=True) @ v @ params.output[n]
    return out + params.bias.output


def think(network, x):
    h = x @ network["input"]["kernel"] + network["input"]["bias"]
    h = h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    return h @ network["output"]["kernel"] + network["output"]["bias"]


def test_logits_against_loops():
    """The equations of the paper's section 3.1, image by image in NumPy float64, on parameters at random."""
    nets = network()
    params = jax.tree.map(np.float64, split(nets).params["classifier"])
    block = params["blocks"][0]
    attention = jax.tree.map(np.float64, compat.pure(nets["classifier"].blocks[0].attention))
    found = compiled(vit.predict, nets, BATCH)
    for image, logits in zip(np.asarray(LEVELS, np.float64) / 127.5 - 1, found, strict=True):
        tokens = [params["token"][0] + params["token_position"][0]]
        for i in range(2):
            for j in range(2):
                patch = image[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].reshape(-1)
                embedded = patch @ params["patches"]["kernel"] + params["patches"]["bias"]
                tokens.append(embedded + params["positions"][i, j])
        x = np.stack(tokens)
        x = x + attend(attention, layer_norm(block["attention_norm"], x))
        x = x + think(block["feed_forward"], layer_norm(block["feed_forward_norm"], x))
        expected = layer_norm(params["norm"], x)[0] @ params["head"]["kernel"] + params["head"]["bias"]
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("classifier", ["gap", "map", "token"])
def test_without_codes_the_order_of_the_patches_does_not_matter(classifier):
    """And where they are told it does; attention goes with the patches."""
    nets = network(classifier=classifier)
    turned = BATCH | {"image": jnp.roll(LEVELS, 4, axis=1)}

    def all_of(nets):
        logits = vit.predict(nets, turned), vit.predict(nets, BATCH)
        nets["classifier"].positions = nnx.Param(jnp.zeros((2, 2, 8)))
        return logits, vit.look(nets, turned), vit.look(nets, BATCH)

    logits, there, here = compiled(all_of, nets)
    assert np.abs(logits[0] - logits[1]).max() > 1e-3
    np.testing.assert_allclose(there["logits"], here["logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(there["attention"], jnp.roll(here["attention"], 1, axis=1), rtol=1e-4, atol=1e-6)
    total = here["attention"].sum(axis=(1, 2))
    if classifier == "token":
        assert ((total > 0.3) & (total < 1)).all()  # some goes to the token itself
    else:
        np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_what_the_head_reads():
    """The mean of all tokens, or one; through a layer with tanh where there is one."""
    net = network(classifier="gap", representation=5)["classifier"]
    images = signed_images("image", LEVELS, (8, 8, 1))
    tokens, logits = compiled(
        lambda nets: (nets["classifier"].encode(images), nets["classifier"](images)), {"classifier": net}
    )
    found = np.asarray(tokens).mean(axis=1)
    (w, b), (v, c) = (map(np.asarray, (x.kernel[...], x.bias[...])) for x in (net.representation, net.head))
    np.testing.assert_allclose(logits, np.tanh(found @ w + b) @ v + c, rtol=1e-4, atol=1e-5)


def test_images_of_another_size():
    """A finer grid takes codes between those that were learned; the same size takes them as they are."""
    nets, large = network(), {"image": jnp.repeat(jnp.repeat(LEVELS, 2, axis=1), 2, axis=2)}
    config = dataclasses.replace(TINY, size=16)
    tuned = vit.resized(network(), config, nnx.Rngs(3))
    codes = nets["classifier"].positions[...]
    between = np.asarray(tuned["classifier"].positions[...])
    assert between.shape == (4, 4, 8)
    np.testing.assert_allclose(between[0, 0], codes[0, 0], rtol=1e-5)  # outside of the middles of the old patches
    np.testing.assert_allclose(between[0, 1], 0.75 * codes[0, 0] + 0.25 * codes[0, 1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(tuned["classifier"].head.kernel[...], 0)
    tuned["classifier"].head = nets["classifier"].head
    logits = [compiled(vit.predict, either, large) for either in (tuned, nets)]
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)
    same = vit.resized(network(), TINY, nnx.Rngs(3))
    np.testing.assert_array_equal(same["classifier"].positions[...], codes)


def test_a_new_head_for_other_classes():
    tuned = vit.resized(network(representation=5), dataclasses.replace(TINY, classes=3), nnx.Rngs(3))
    assert jax.eval_shape(lambda: vit.predict(tuned, BATCH)).shape == (3, 3)
    assert count(tuned) == count(vit.build(dataclasses.replace(TINY, classes=3), nnx.Rngs(0)))


def test_fine_tuning_has_options_of_its_own():
    """Dropout of the new configuration, not of the one that was trained."""
    tuned = vit.resized(network(), dataclasses.replace(TINY, dropout=0.5), nnx.Rngs(3))
    assert tuned["classifier"].blocks[0].config.dropout == 0.5
    plain = vit.resized(network(dropout=0.5), TINY, nnx.Rngs(3))
    tokens = [split(nets).params["classifier"]["blocks"][0] for nets in (tuned, plain, network())]
    for other in tokens[1:]:
        jax.tree.map(np.testing.assert_array_equal, tokens[0], other)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"heads": 4, "hidden": 8}, "heads=2, hidden=16 came, expected heads=4, hidden=8"),
        ({"classifier": "gap"}, "classifier='token' came, expected classifier='gap'"),
        ({"positions": "sincos2d"}, "positions='learned' came"),
        ({"patch": 2}, "patch=4 came"),
        ({"representation": 5}, "config.representation: 5 came; expected 0"),
    ],
)
def test_what_fine_tuning_cannot_change_is_refused(changes, named):
    with pytest.raises(InputError, match=named):
        vit.resized(network(), dataclasses.replace(TINY, **changes), nnx.Rngs(3))


def test_mixed_images_have_mixed_targets():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 2, 1)), jnp.float32)
    shares, mixup = [], jax.jit(functools.partial(vit.mixup, alpha=0.2))
    for seed in range(20):
        mixed, targets = mixup(images, jnp.eye(4), key=jax.random.key(seed))
        share = float(targets[0, 0])
        shares.append(share)
        np.testing.assert_allclose(targets, share * np.eye(4) + (1 - share) * np.roll(np.eye(4), 1, axis=0), atol=1e-6)
        np.testing.assert_allclose(mixed, np.einsum("ij,jhwc->ihwc", targets, images), rtol=1e-5, atol=1e-6)
    assert 0.5 <= min(shares) < 0.95 < max(shares) <= 1  # Beta(0.2, 0.2) is mostly near its ends


def test_loss_of_smoothed_labels():
    nets = network(label_smoothing=0.1)
    logits, (loss, _) = compiled(lambda nets: (vit.predict(nets, BATCH), vit.loss(nets, BATCH, key=KEY)), nets)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    expected = -np.mean(0.9 * log_p[np.arange(3), np.arange(3)] + 0.1 * log_p.mean(axis=-1))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_dropout_is_of_training_alone():
    nets = network(dropout=0.5, attention_dropout=0.5, classifier="map")

    def all_of(nets):
        losses = [vit.loss(nets, BATCH, key=jax.random.key(seed))[0] for seed in range(3)]
        return losses, vit.predict(nets, BATCH)

    losses, logits = compiled(all_of, nets)
    assert len(set(map(float, losses))) == 3
    np.testing.assert_allclose(logits, compiled(vit.predict, network(classifier="map"), BATCH), rtol=1e-5)


def test_blocks_computed_again_have_the_same_gradient():
    def gradient(remat):
        graphs, params, rest = split(network(remat=remat, dropout=0.5))
        return jax.jit(jax.grad(lambda p: vit.loss(merge(graphs, p, rest), BATCH, key=KEY)[0]))(params)

    for a, b in zip(*(jax.tree.leaves(gradient(remat)) for remat in (False, True)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_attention_in_blocks_gives_the_same_loss_and_gradient():
    def gradient(implementation):
        graphs, params, rest = split(network(implementation=implementation))
        return jax.value_and_grad(lambda p: vit.loss(merge(graphs, p, rest), BATCH, key=KEY)[0]), params

    runs = [gradient(name) for name in ("xla", "flash")]
    assert len({str(jax.make_jaxpr(run)(params)) for run, params in runs}) == 2
    for a, b in zip(*(jax.tree.leaves(jax.jit(run)(params)) for run, params in runs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(InputError, match="size=10"):
        vit.build(dataclasses.replace(TINY, size=10), nnx.Rngs(0))
    for shape, named in (((2, 6, 8, 1), "6x8"), ((2, 8, 8, 3), "8x8x3")):
        with pytest.raises(InputError, match=named):
            vit.predict(network(), {"image": jnp.zeros(shape, jnp.uint8)})
