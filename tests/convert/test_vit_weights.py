"""Published Vision Transformers against the layers of ``flax.linen``, which their authors built them of, put together
here by the papers' equations and the published names, with random weights that went through a file."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convert.random_weights import random_images
from flax import nnx
from nn.filled import run

from seqjax.convert.table import shapes_there
from seqjax.convert.vit import BIG_VISION, VISION_TRANSFORMER, load_vit, table
from seqjax.errors import InputError
from seqjax.models.recognition.vit import SIZES, Config, VisionTransformer

D, HEADS, PATCH, SIDE, LAYERS, CLASSES = 8, 2, 3, 4, 2, 5
CODES = "Transformer/posembed_input/pos_embedding"


def block_shapes(there, attention, norms, mlp):
    """As Flax lays them out."""
    shapes = {f"{there}/{norm}/{name}": (D,) for norm in norms for name in ("scale", "bias")}
    for part in ("query", "key", "value"):
        shapes |= {f"{there}/{attention}/{part}/kernel": (D, HEADS, D // HEADS)}
        shapes |= {f"{there}/{attention}/{part}/bias": (HEADS, D // HEADS)}
    shapes |= {f"{there}/{attention}/out/kernel": (HEADS, D // HEADS, D), f"{there}/{attention}/out/bias": (D,)}
    shapes |= {f"{there}/{mlp}/Dense_0/kernel": (D, 16), f"{there}/{mlp}/Dense_0/bias": (16,)}
    return shapes | {f"{there}/{mlp}/Dense_1/kernel": (16, D), f"{there}/{mlp}/Dense_1/bias": (D,)}


FIRST = ("MultiHeadDotProductAttention_1", ("LayerNorm_0", "LayerNorm_2"), "MlpBlock_3")
SECOND = ("MultiHeadDotProductAttention_0", ("LayerNorm_0", "LayerNorm_1"), "MlpBlock_0")
AROUND = {
    "embedding/kernel": (PATCH, PATCH, 3, D),
    "embedding/bias": (D,),
    "Transformer/encoder_norm/scale": (D,),
    "Transformer/encoder_norm/bias": (D,),
    "head/kernel": (D, CLASSES),
    "head/bias": (CLASSES,),
}
TOKEN, PRE_LOGITS = {"cls": (1, 1, D)}, {"pre_logits/kernel": (D, D), "pre_logits/bias": (D,)}
PROBE = {"MAPHead_0/probe": (1, 1, D), **block_shapes("MAPHead_0", SECOND[0], ("LayerNorm_0",), SECOND[2])}
# By what is special: names of a block, and what there is beside.
CASES = {
    "the first paper": (FIRST, TOKEN | {CODES: (1, 1 + SIDE**2, D)}),
    "as pre-trained": (FIRST, TOKEN | PRE_LOGITS | {CODES: (1, 1 + SIDE**2, D)}),
    "the mean, learned codes": (FIRST, {CODES: (1, SIDE**2, D)}),
    "the second paper": (SECOND, PRE_LOGITS),
    "a token without a code": (SECOND, TOKEN | {"pos_embedding": (1, SIDE**2, D)}),
    "a probe": (SECOND, PROBE | {"pos_embedding": (1, SIDE**2, D)}),
}


def draw(case):
    names, more = CASES[case]
    shapes = AROUND | more
    for i in range(LAYERS):
        shapes = shapes | block_shapes(f"Transformer/encoderblock_{i}", *names)
    rng = np.random.default_rng(0)
    return {name: (0.5 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


def tree(weights, prefix):
    """The parameters of one layer of Flax."""
    found = {}
    for name, array in weights.items():
        if name.startswith(f"{prefix}/"):
            *path, last = name.removeprefix(f"{prefix}/").split("/")
            inner = found
            for part in path:
                inner = inner.setdefault(part, {})
            inner[last] = array
    return {"params": found}


def mlp(weights, there, x):
    hidden = nn.Dense(16).apply(tree(weights, f"{there}/Dense_0"), x)
    return nn.Dense(D).apply(tree(weights, f"{there}/Dense_1"), nn.gelu(hidden))


def attend(weights, there, x, memory):
    return nn.MultiHeadDotProductAttention(num_heads=HEADS).apply(tree(weights, there), x, memory)


def norm(weights, there, x):
    return nn.LayerNorm().apply(tree(weights, there), x)


def sines(height, width):
    """Codes of the second paper, place by place: sin x, cos x, sin y, cos y."""
    found = np.zeros((height, width, D))
    for k in range(D // 4):
        turns = 10_000 ** -(k / (D // 4 - 1))
        for y in range(height):
            for x in range(width):
                found[y, x, k :: D // 4] = [f(p * turns) for p in (x, y) for f in (np.sin, np.cos)]
    return found.reshape(1, -1, D).astype(np.float32)


def logits(weights, names, images):
    attention, norms, feed_forward = names
    embed = nn.Conv(D, (PATCH, PATCH), (PATCH, PATCH), padding="VALID")
    maps = embed.apply(tree(weights, "embedding"), images)
    tokens = maps.reshape(len(images), -1, D)
    if names is SECOND:
        tokens = tokens + weights.get("pos_embedding", sines(*maps.shape[1:3]))
    if "cls" in weights:
        tokens = jnp.concatenate([jnp.repeat(weights["cls"], len(images), axis=0), tokens], axis=1)
    if names is FIRST:
        tokens = tokens + weights[CODES]
    for i in range(LAYERS):
        block = f"Transformer/encoderblock_{i}"
        normed = norm(weights, f"{block}/{norms[0]}", tokens)
        tokens = tokens + attend(weights, f"{block}/{attention}", normed, normed)
        tokens = tokens + mlp(weights, f"{block}/{feed_forward}", norm(weights, f"{block}/{norms[1]}", tokens))
    tokens = norm(weights, "Transformer/encoder_norm", tokens)
    if "MAPHead_0/probe" in weights:
        probe = jnp.repeat(weights["MAPHead_0/probe"], len(images), axis=0)
        found = attend(weights, f"MAPHead_0/{attention}", probe, tokens)[:, 0]
        found = found + mlp(weights, f"MAPHead_0/{feed_forward}", norm(weights, "MAPHead_0/LayerNorm_0", found))
    else:
        found = tokens[:, 0] if "cls" in weights else tokens.mean(axis=1)
    if "pre_logits/kernel" in weights:
        found = jnp.tanh(nn.Dense(D).apply(tree(weights, "pre_logits"), found))
    return nn.Dense(CLASSES).apply(tree(weights, "head"), found)


def saved(tmp_path, weights):
    np.savez(tmp_path / "vit.npz", **weights)
    return tmp_path / "vit.npz"


@pytest.mark.parametrize("case", CASES)
def test_logits_of_a_file(case, tmp_path):
    weights, images = draw(case), jnp.asarray(random_images(2, PATCH * SIDE, PATCH * SIDE, 3))
    net = load_vit(saved(tmp_path, weights), size=PATCH * SIDE)
    assert net.config.size == PATCH * SIDE
    found = run(net, lambda net, x: net(x), images)
    expected = jax.jit(lambda x: logits(weights, CASES[case][0], x))(images)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["params/", "opt/target/"])
def test_a_file_with_an_optimisers_state(prefix, tmp_path):
    weights, images = draw("the second paper"), jnp.asarray(random_images(1, 6, 9, 3))
    more = {"opt/state/step": np.zeros(()), "chrono/time": np.zeros(())}
    net = load_vit(saved(tmp_path, {f"{prefix}{name}": array for name, array in weights.items()} | more), size=225)
    assert net.config.size == 225
    found = run(net, lambda net, x: net(x), images)
    np.testing.assert_allclose(found, logits(weights, SECOND, images), rtol=1e-4, atol=1e-5)


def test_names_and_shapes_of_a_published_network():
    """ViT-B/16 as pre-trained on ImageNet-21k: 768 features, 12 heads, 14x14 patches, 21,843 classes."""
    config = Config(classes=21_843, representation=768)
    net = nnx.eval_shape(lambda: VisionTransformer(config, rngs=nnx.Rngs(0)))
    shapes = shapes_there(net, table(config))
    block = "Transformer/encoderblock_11"
    expected = {
        "cls": (1, 1, 768),
        "embedding/kernel": (16, 16, 3, 768),
        "Transformer/posembed_input/pos_embedding[:, :1]": (1, 1, 768),
        "Transformer/posembed_input/pos_embedding[:, 1:]": (1, 196, 768),
        f"{block}/LayerNorm_0/scale": (768,),
        f"{block}/MultiHeadDotProductAttention_1/query/kernel": (768, 12, 64),
        f"{block}/MultiHeadDotProductAttention_1/key/bias": (12, 64),
        f"{block}/MultiHeadDotProductAttention_1/out/kernel": (12, 64, 768),
        f"{block}/LayerNorm_2/bias": (768,),
        f"{block}/MlpBlock_3/Dense_0/kernel": (768, 3072),
        f"{block}/MlpBlock_3/Dense_1/kernel": (3072, 768),
        "Transformer/encoder_norm/scale": (768,),
        "pre_logits/kernel": (768, 768),
        "head/kernel": (768, 21_843),
    }
    assert {name: shapes[name] for name in expected} == expected
    assert len(shapes) == 12 * 16 + 11
    assert shapes.keys().isdisjoint(table(config, BIG_VISION).keys() - shapes.keys())
    config = Config(**SIZES["S"], classifier="gap", positions="sincos2d", representation=384)
    assert "pos_embedding" not in table(config, BIG_VISION)
    assert table(config, VISION_TRANSFORMER).keys() != table(config, BIG_VISION).keys()


BLOCK = "Transformer/encoderblock_1"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({f"{BLOCK}/LayerNorm_2/bias": None}, f"missing: {BLOCK}/LayerNorm_2/bias; not"),
        ({"Transformer/encoderblock_0/extra": np.zeros(3)}, "not understood: Transformer/encoderblock_0/extra; of"),
        ({f"{BLOCK}/MlpBlock_3/Dense_1/bias": np.zeros(9)}, r"Dense_1/bias \(9,\), expected \(8,\)"),
        ({CODES: np.zeros((1, 12, D))}, r"pos_embedding\[:, 1:\] \(1, 11, 8\), expected \(1, 9, 8\)"),
        ({CODES: np.zeros((17, D))}, r"pos_embedding \(17, 8\), expected 3 axes"),
        ({"embedding/kernel": None}, "embedding/kernel is missing.* hybrids"),
        ({"head/kernel": None, "head/bias": None}, "head/kernel is missing"),
        ({"conv_root/kernel": np.zeros((7, 7, 3, 64))}, "not understood: conv_root/kernel"),
    ],
)
def test_what_does_not_fit_is_named(change, named, tmp_path):
    weights = {name: array for name, array in (draw("the first paper") | change).items() if array is not None}
    with pytest.raises(InputError, match=named):
        load_vit(saved(tmp_path, weights))
