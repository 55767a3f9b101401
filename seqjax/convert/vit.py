"""Weights of Vision Transformers, as their authors publish them for Flax, in ``.npz`` files.

Of two sources, told apart by how they count the layers of a block:

    github.com/google-research/vision_transformer   of the first paper and of its successors, such as ViT-B_16.npz;
                                                     the first row of the codes is the additional token's
    github.com/google-research/big_vision           of the second paper, such as vit_s16_i1k_90ep.npz; the additional
                                                     token has no code, and a probe is ``MAPHead_0``

Images are in [-1, 1], as here, and the activation is the one by tanh. The sizes are those of the arrays: what a network
is, its file says. Hybrids, whose patches come from a convolutional network, are not understood.
"""

import math
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from flax import nnx

from seqjax.convert.files import read_weights
from seqjax.convert.table import Entry, Layout, Table, load
from seqjax.errors import InputError
from seqjax.models.recognition.vit import Config, VisionTransformer


class Names(NamedTuple):
    """What a source calls the parts of a block, and the codes of the places."""

    attention_norm: str
    attention: str
    feed_forward_norm: str
    feed_forward: str
    positions: str


VISION_TRANSFORMER = Names(
    "LayerNorm_0",
    "MultiHeadDotProductAttention_1",
    "LayerNorm_2",
    "MlpBlock_3",
    "Transformer/posembed_input/pos_embedding",
)
BIG_VISION = Names("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0", "pos_embedding")

PREFIXES = ("opt/target/", "params/")
"""Of the parameters, in files that hold an optimiser's state too."""
FIRST = Layout(lambda w: w[0], lambda w: w[None])
"""``[1, ..]`` there."""
ROWS = Layout(lambda w: w[0].reshape(math.isqrt(w.shape[1]), -1, w.shape[2]), lambda w: w.reshape(1, -1, w.shape[-1]))
"""Codes of a square grid row by row, ``[1, H W, D]``; ours are ``[H, W, D]``."""
NO_CODE = "code of the additional token"
"""In no file: 0 where the additional token has none."""


def load_vit(path: str | os.PathLike[str], *, size: int = 224) -> VisionTransformer:
    """The network of a local file, read as `seqjax.convert.files.read_weights` does; no file is on record by its hash.

    Its ``config`` says what it is.

    Args:
      path: the file.
      size: of the images that it was trained on, where no codes tell: they are fixed sines and cosines.

    Raises:
      InputError: the file cannot be read, or is of no Vision Transformer; names or shapes that do not fit are listed.
    """
    weights = _parameters(read_weights(path, {}, allow_unverified=True).weights)
    names = (
        VISION_TRANSFORMER if any(f"/{VISION_TRANSFORMER.feed_forward}/" in name for name in weights) else BIG_VISION
    )
    config = _config(weights, names, size)
    abstract = nnx.eval_shape(lambda: VisionTransformer(config, rngs=nnx.Rngs(0)))
    parts = _codes_apart(weights, config, names)
    return load(abstract, parts, table(config, names), source=f"the Vision Transformer that {path} begins")


def table(config: Config, names: Names = VISION_TRANSFORMER) -> Table:
    """Names of the published weights; of codes that begin with the additional token's, the two parts as slices."""
    side = config.patch
    patches = Layout(lambda w: w.reshape(-1, w.shape[-1]), lambda w: w.reshape(side, side, -1, w.shape[-1]))
    found = {"embedding/kernel": Entry("patches.kernel", patches), "embedding/bias": Entry("patches.bias")}
    if config.classifier == "token":
        found["cls"] = Entry("token", FIRST)
    if config.positions == "learned":
        grid, token = _codes(config, names)
        found[grid] = Entry("positions", ROWS)
        found |= {token: Entry("token_position", FIRST)} if config.classifier == "token" else {}
    for i in range(config.layers):
        there, here = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        found |= _norm(f"{there}/{names.attention_norm}", f"{here}.attention_norm")
        found |= _attention(f"{there}/{names.attention}", f"{here}.attention")
        found |= _norm(f"{there}/{names.feed_forward_norm}", f"{here}.feed_forward_norm")
        found |= _feed_forward(f"{there}/{names.feed_forward}", f"{here}.feed_forward")
    found |= _norm("Transformer/encoder_norm", "norm")
    if config.classifier == "map":
        found["MAPHead_0/probe"] = Entry("probe.query", FIRST)
        found |= _attention("MAPHead_0/MultiHeadDotProductAttention_0", "probe.attention")
        found |= _norm("MAPHead_0/LayerNorm_0", "probe.norm")
        found |= _feed_forward("MAPHead_0/MlpBlock_0", "probe.feed_forward")
    found |= _linear("pre_logits", "representation") if config.representation else {}
    return found | _linear("head", "head")


def _parameters(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without what an optimiser keeps."""
    prefix = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in weights)), "")
    return {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}


def _config(weights: Mapping[str, np.ndarray], names: Names, size: int) -> Config:
    """What the shapes say; whether they agree with each other is not looked at."""
    (patch, _, channels, features), (_, heads, _), (_, hidden), (_, classes), codes = _shapes(weights, names)
    blocks = [int(found[1]) for name in weights if (found := re.match(r"Transformer/encoderblock_(\d+)/", name))]
    token = "cls" in weights
    places = codes[1] - (token and names is VISION_TRANSFORMER)
    return Config(
        size=math.isqrt(places) * patch if codes[1] else size,
        channels=channels,
        patch=patch,
        features=features,
        layers=max(blocks) + 1,
        heads=heads,
        hidden=hidden,
        classes=classes,
        classifier="token" if token else "map" if "MAPHead_0/probe" in weights else "gap",
        positions="learned" if codes[1] else "sincos2d",
        representation=weights["pre_logits/bias"].size if "pre_logits/bias" in weights else 0,
    )


def _shapes(weights: Mapping[str, np.ndarray], names: Names) -> list[tuple[int, ...]]:
    """Of the patches' kernel, a query's, a hidden layer's and the head's; and of the codes, with 0 rows for none."""
    block = "Transformer/encoderblock_0"
    query, dense = f"{block}/{names.attention}/query/kernel", f"{block}/{names.feed_forward}/Dense_0/kernel"
    ranks = {"embedding/kernel": 4, query: 3, dense: 2, "head/kernel": 2, names.positions: 3}
    found = {name: weights[name].shape if name in weights else () for name in ranks}
    found[names.positions] = found[names.positions] or (1, 0, 0)
    if wrong := [name for name, rank in ranks.items() if len(found[name]) != rank]:
        told = "; ".join(f"{name} {found[name] or 'is missing'}, expected {ranks[name]} axes" for name in wrong)
        raise InputError(
            f"weights: {told}. Give a file of google-research/vision_transformer or google-research/big_vision, of a "
            "Vision Transformer that cuts its patches itself and has a head: hybrids are not understood."
        )
    return list(found.values())


def _codes(config: Config, names: Names) -> tuple[str, str]:
    """Names of the codes of the patches and of the additional token."""
    if config.classifier != "token" or names is BIG_VISION:
        return names.positions, NO_CODE
    return f"{names.positions}[:, 1:]", f"{names.positions}[:, :1]"


def _codes_apart(weights: dict[str, np.ndarray], config: Config, names: Names) -> dict[str, np.ndarray]:
    """The additional token's code apart from those of the patches."""
    if config.classifier != "token" or config.positions != "learned":
        return weights
    rest = {name: array for name, array in weights.items() if name != names.positions}
    codes, (grid, token) = weights[names.positions], _codes(config, names)
    if names is BIG_VISION:
        return rest | {grid: codes, token: np.zeros((1, 1, config.features), np.float32)}
    return rest | {grid: codes[:, 1:], token: codes[:, :1]}


def _attention(there: str, here: str) -> dict[str, Entry]:
    """Kernels ``[D, N, H]``, and of the outputs ``[N, H, D]``: as ours."""
    parts = {"query": "query", "key": "key", "value": "value", "out": "output"}
    kernels = {f"{there}/{part}/kernel": Entry(f"{here}.{ours}") for part, ours in parts.items()}
    return kernels | {f"{there}/{part}/bias": Entry(f"{here}.bias.{ours}") for part, ours in parts.items()}


def _feed_forward(there: str, here: str) -> dict[str, Entry]:
    return {**_linear(f"{there}/Dense_0", f"{here}.input"), **_linear(f"{there}/Dense_1", f"{here}.output")}


def _linear(there: str, here: str) -> dict[str, Entry]:
    return {f"{there}/{name}": Entry(f"{here}.{name}") for name in ("kernel", "bias")}


def _norm(there: str, here: str) -> dict[str, Entry]:
    return {f"{there}/{name}": Entry(f"{here}.{name}") for name in ("scale", "bias")}
