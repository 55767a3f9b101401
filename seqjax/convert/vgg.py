"""Weights of VGG-16 and VGG-19, as torchvision publishes them; of the classifier on top what the network has."""

import os
from typing import Any, Literal

from flax import nnx

from seqjax.convert.files import read_weights
from seqjax.convert.table import CONV, Entry, Layout, Table, load
from seqjax.errors import InputError
from seqjax.nn.vgg import VGG

KNOWN = {
    16: {"397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0": "vgg16-397923af.pth"},
    19: {"dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44": "vgg19-dcbb9e9d.pth"},
}
IGNORED = {False: (r"^classifier\.",), True: (r"^classifier\.6\.",)}
"""By whether the network has the dense layers."""
_SIDE = 7
FC6 = Layout(lambda w: CONV.read(w.reshape(len(w), -1, _SIDE, _SIDE)), lambda w: CONV.write(w).reshape(w.shape[-1], -1))
"""PyTorch's dense layer ``[D, C · 7 · 7]`` on maps laid out channel by channel; ours is ``[7, 7, C, D]``."""
FC7 = Layout(lambda w: CONV.read(w[..., None, None]), lambda w: CONV.write(w)[..., 0, 0])
"""PyTorch's ``[D, C]``; ours is ``[1, 1, C, D]``."""


def load_vgg(
    path: str | os.PathLike[str], depth: Literal[16, 19] = 16, *, top: bool = False, allow_unverified: bool = False
) -> VGG:
    """VGG of a depth from a local file, its SHA-256 checked: see `seqjax.convert.files.read_weights`.

    Raises:
      InputError: the file cannot be read, is not known, or does not fit; what does not fit is listed.
    """
    file = read_weights(path, KNOWN[depth], allow_unverified=allow_unverified)
    abstract = nnx.eval_shape(lambda: VGG(depth, top=top, rngs=nnx.Rngs(0)))
    return load(abstract, file.weights, table(abstract), source=f"torchvision's VGG-{depth}", ignored=IGNORED[top])


def load_published(encoder: Any, path: str | None, *, frozen: bool) -> None:
    """Give a network that reads images by VGG the published weights, from a local file, if there is one.

    Args:
      encoder: a module with VGG as ``vgg`` and its name in ``config.net``, as `nn.image_encoder.ImageEncoder`.
      path: of the file, if there is one.
      frozen: whether the network is not to be trained.

    Raises:
      InputError: no file for a network that is to stay as it is.
    """
    if path is not None:
        encoder.vgg = load_vgg(path, encoder.vgg.depth, top=encoder.vgg.top)
    elif frozen:
        files = " or ".join(file for of_depth in KNOWN.values() for file in of_depth.values())
        raise InputError(
            f"vgg: none came, and the network that reads the image, {encoder.config.net}, is to stay as it is: at "
            f"random weights. Give the file with torchvision's, {files}, or train it with --no-frozen."
        )


def table(net: VGG) -> Table:
    """Names of the published weights: `features.N`, counted over convolutions, ReLUs and pools alike, and on top
    `classifier.N`, counted over dense layers, ReLUs and dropouts."""
    found = {}
    for name, place, layout in (("fc6", 0, FC6), ("fc7", 3, FC7)) if net.top else ():
        found[f"classifier.{place}.weight"] = Entry(f"{name}.kernel", layout)
        found[f"classifier.{place}.bias"] = Entry(f"{name}.bias")
    for k, name in enumerate(net.names()):
        if name.startswith("conv"):
            found[f"features.{k}.weight"] = Entry(f"{name}.kernel", CONV)
            found[f"features.{k}.bias"] = Entry(f"{name}.bias")
    return found
