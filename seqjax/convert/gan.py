"""Weights of published adversarial networks in PyTorch: the players of pix2pix, CycleGAN and DCGAN.

The first two have the names of github.com/junyanz/pytorch-CycleGAN-and-pix2pix, whose options are these networks here:

    --netG unet_256        UNet(3, 3, dropout_at="port")
    --netG unet_128        UNet(3, 3, downs=7, dropout_at="port")
    --netG resnet_9blocks  ResidualGenerator(3, 3), which with dropout has other names than without
    --netG resnet_6blocks  ResidualGenerator(3, 3, blocks=6)
    --netD basic           PatchDiscriminator(3), or of 6 channels where it sees the input too
    --netD n_layers        PatchDiscriminator(3, layers=...)
    --netD pixel           PatchDiscriminator(3, layers=0)
    --norm, --ngf, --ndf   norm="batch" or "instance", base=...

DCGAN's players (`models.generation.dcgan.build`) have those of PyTorch's own example, github.com/pytorch/examples.
A file has one network. Images are in [-1, 1], as here; pix2pix's discriminators see the input's channels first.
"""

import os
from typing import TypeVar

import jax
from flax import nnx

from seqjax.convert.files import read_weights, write_weights
from seqjax.convert.table import CONV, SAME, Entry, Table, dump, load
from seqjax.errors import InputError
from seqjax.nn.global_discriminator import GlobalDiscriminator
from seqjax.nn.image_generator import ImageGenerator
from seqjax.nn.patch_discriminator import PatchDiscriminator
from seqjax.nn.residual_generator import ResidualGenerator
from seqjax.nn.split import split
from seqjax.nn.unet import UNet

Net = TypeVar("Net", bound=nnx.Module)

VARIABLES = {
    "kernel": ("weight", CONV),
    "scale": ("weight", SAME),
    "bias": ("bias", SAME),
    "mean": ("running_mean", SAME),
    "var": ("running_var", SAME),
}


def load_gan(path: str | os.PathLike[str], net: Net) -> Net:
    """A network like this one with the weights of a local file; the one given is left as it is.

    No file is on record by its hash: the publishers name none, and most are of the user's own training. Numbers of
    batches seen are passed over, and statistics where the network has none: old files have them for every instance
    normalisation, which never used them.

    Args:
      path: ``.safetensors``, ``.npz``, or with torch ``.pth``, read as `seqjax.convert.files.read_weights` does.
      net: the network, or its shapes from `flax.nnx.eval_shape`.

    Raises:
      InputError: the file cannot be read, or names or shapes do not fit; those are listed.
    """
    names = table(net)
    passed = "num_batches_tracked"
    if not any(name.endswith("running_mean") for name in names):
        passed += "|running_mean|running_var"
    weights = read_weights(path, {}, allow_unverified=True).weights
    return load(net, weights, names, source=f"this {type(net).__name__}", ignored=[rf"\.({passed})$"])


def save_gan(path: str | os.PathLike[str], net: nnx.Module) -> None:
    """Writes a network as ``.safetensors`` under the published names, for PyTorch's ``load_state_dict``.

    Raises:
      InputError: the name ends otherwise, or the network is of another kind.
    """
    write_weights(path, dump(net, table(net)))


def table(net: nnx.Module) -> Table:
    """Names of the published weights of this network.

    Raises:
      InputError: it is none of those that are published.
    """
    match net:
        case UNet():
            places = _unet(len(net.down))
        case ResidualGenerator():
            places = _residual(len(net.down), [block.dropout > 0 for block in net.blocks])
        case PatchDiscriminator():
            prefix = "net" if net.convs[0].kernel.shape[0] == 1 else "model"
            places = _discriminator(prefix, ("convs", len(net.convs)), "logits")
        case GlobalDiscriminator():
            places = _discriminator("main", ("downs", len(net.downs)), "logit")
        case ImageGenerator():
            places = _dcgan(len(net.ups))
        case _:
            raise InputError(
                f"net: a {type(net).__name__} came; expected UNet, ResidualGenerator, PatchDiscriminator, or DCGAN's "
                "Generator or GlobalDiscriminator: give the network itself, not what holds it."
            )
    return dict(_entry(name, places) for name in _variables(net))


def _entry(name: str, places: dict[str, str]) -> tuple[str, Entry]:
    layer, variable = name.rsplit(".", 1)
    there, layout = VARIABLES[variable]
    return f"{places[layer.removesuffix('.batch')]}.{there}", Entry(name, layout)


def _variables(net: nnx.Module) -> list[str]:
    parts = split({"net": net})
    leaves = jax.tree_util.tree_leaves_with_path((parts.params["net"], parts.rest["net"]))
    return [jax.tree_util.keystr(path[1:], simple=True, separator=".") for path, _ in leaves]


def _unet(downs: int) -> dict[str, str]:
    """Each level is inside of the one before: in the outermost at 1, in the others at 3."""
    level = "model.model"
    places = {"down.0": f"{level}.0", f"up.{downs - 1}": f"{level}.3"}
    for i in range(1, downs):
        level += ".1.model" if i == 1 else ".3.model"
        j, inner = downs - 1 - i, i == downs - 1
        places |= {f"down.{i}": f"{level}.1", f"down_norms.{i}": f"{level}.2"}
        places |= {f"up.{j}": f"{level}.{3 if inner else 5}", f"up_norms.{j}": f"{level}.{4 if inner else 6}"}
    return places


def _residual(downs: int, dropout: list[bool]) -> dict[str, str]:
    """One list, in which padding, ReLU and dropout count."""
    places = {"first": "model.1", "norms.0": "model.2"}
    blocks = 4 + 3 * downs
    ups = blocks + len(dropout)
    for i in range(downs):
        places |= {f"down.{i}": f"model.{4 + 3 * i}", f"norms.{i + 1}": f"model.{5 + 3 * i}"}
        places |= {f"up.{i}.conv": f"model.{ups + 3 * i}", f"norms.{downs + 1 + i}": f"model.{ups + 1 + 3 * i}"}
    for i, has in enumerate(dropout):
        for j, at in enumerate((1, 6 if has else 5)):
            block = f"model.{blocks + i}.conv_block"
            places |= {f"blocks.{i}.convs.{j}": f"{block}.{at}", f"blocks.{i}.norms.{j}": f"{block}.{at + 1}"}
    return places | {"last": f"model.{ups + 3 * downs + 1}"}


def _discriminator(prefix: str, convs: tuple[str, int], logits: str) -> dict[str, str]:
    """One list: the first convolution and its leaky ReLU, others with a normalisation between, and the last alone."""
    layers, number = convs
    places = {f"{layers}.{i}": f"{prefix}.{max(3 * i - 1, 0)}" for i in range(number)}
    places |= {f"norms.{i}": f"{prefix}.{3 * i}" for i in range(1, number)}
    return places | {logits: f"{prefix}.{3 * number - 1}"}


def _dcgan(ups: int) -> dict[str, str]:
    """One list, each transposed convolution but the last with its normalisation and ReLU."""
    places = {"stem": "main.0"} | {f"ups.{i}": f"main.{3 * i + 3}" for i in range(ups)}
    return places | {f"norms.{i}": f"main.{3 * i + 1}" for i in range(ups)}
