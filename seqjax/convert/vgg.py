"""Weights of VGG-16 and VGG-19, as torchvision publishes them; the classifier on top is passed over."""

import os
from typing import Literal

from flax import nnx

from seqjax.convert.files import read_weights
from seqjax.convert.table import CONV, Entry, Table, load
from seqjax.nn.vgg import VGG

KNOWN = {
    16: {"397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0": "vgg16-397923af.pth"},
    19: {"dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44": "vgg19-dcbb9e9d.pth"},
}
IGNORED = (r"^classifier\.",)


def load_vgg(path: str | os.PathLike[str], depth: Literal[16, 19] = 16, *, allow_unverified: bool = False) -> VGG:
    """VGG of a depth from a local file, its SHA-256 checked: see `seqjax.convert.files.read_weights`.

    Raises:
      InputError: the file cannot be read, is not known, or does not fit; what does not fit is listed.
    """
    file = read_weights(path, KNOWN[depth], allow_unverified=allow_unverified)
    abstract = nnx.eval_shape(lambda: VGG(depth, rngs=nnx.Rngs(0)))
    return load(abstract, file.weights, table(abstract), source=f"torchvision's VGG-{depth}", ignored=IGNORED)


def table(net: VGG) -> Table:
    """Names of the published weights: `features.N`, counted over convolutions, ReLUs and pools alike."""
    found = {}
    for k, name in enumerate(net.names()):
        if name.startswith("conv"):
            found[f"features.{k}.weight"] = Entry(f"{name}.kernel", CONV)
            found[f"features.{k}.bias"] = Entry(f"{name}.bias")
    return found
