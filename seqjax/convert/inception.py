"""Weights of FID's Inception, as github.com/mseitzer/pytorch-fid publishes them for PyTorch."""

import os
from typing import NamedTuple

from flax import nnx

from seqjax.convert.files import read_weights
from seqjax.convert.table import CONV, DENSE, Entry, Table, load
from seqjax.nn.inception import Inception
from seqjax.nn.split import split

KNOWN = {
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2": "pt_inception-2015-12-05-6726825d.pth",
}
IGNORED = (r"\.num_batches_tracked$",)
_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


class LoadedInception(NamedTuple):
    """The network, with the identity that `seqjax.metrics.inception.feature_net` wants."""

    net: Inception
    sha256: str
    verified: bool


def load_inception(path: str | os.PathLike[str], *, allow_unverified: bool = False) -> LoadedInception:
    """FID's Inception from a local file, its SHA-256 checked: see `seqjax.convert.files.read_weights`.

    Raises:
      InputError: the file cannot be read, is not known, or does not fit; what does not fit is listed.
    """
    file = read_weights(path, KNOWN, allow_unverified=allow_unverified)
    abstract = nnx.eval_shape(lambda: Inception(rngs=nnx.Rngs(0)))
    net = load(abstract, file.weights, table(abstract), source="FID's Inception", ignored=IGNORED)
    return LoadedInception(net, file.sha256, file.verified)


def table(net: Inception) -> Table:
    """Names of the published weights: ours with a capital, `conv.weight` for a kernel, `bn.*` for a BatchNorm."""
    found = {"fc.weight": Entry("fc.kernel", DENSE), "fc.bias": Entry("fc.bias")}
    for layer in _layers(split({"net": net}).params["net"]):
        theirs = layer[0].upper() + layer[1:]
        found[f"{theirs}.conv.weight"] = Entry(f"{layer}.conv.kernel", CONV)
        found |= {f"{theirs}.bn.{there}": Entry(f"{layer}.bn.{here}") for there, here in _NORM.items()}
    return found


def _layers(tree: dict, prefix: str = "") -> list[str]:
    """Every place of a convolution with its BatchNorm."""
    if "conv" in tree:
        return [prefix]
    inner = [(f"{prefix}.{name}".lstrip("."), sub) for name, sub in tree.items() if isinstance(sub, dict)]
    return [layer for place, sub in inner for layer in _layers(sub, place)]
