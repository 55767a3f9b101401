"""Writes ``golden/gans.npz``: published adversarial networks in PyTorch. Run by hand.

Needs torch. The networks are written here from the published layer tables, with the names that the checkpoints of
github.com/junyanz/pytorch-CycleGAN-and-pix2pix have, and those of DCGAN with the names of PyTorch's example. Their
widths are small; weights and images are drawn by ``random_weights.py`` on both sides, so the file holds outputs,
without dropout and by the statistics of the batch ("running": of the file), and names and shapes of all arrays at full
width.
"""

import itertools
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from random_weights import random_images, random_weights
from torch import nn


def norm(kind, width):
    return nn.BatchNorm2d(width) if kind == "batch" else nn.InstanceNorm2d(width)


class Holder(nn.Module):
    """A network whose layers stand under one name."""

    def __init__(self, name, *layers):
        super().__init__()
        self.add_module(name, nn.Sequential(*layers))

    def forward(self, x):
        (layers,) = self.children()
        return layers(x)


class Whole(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


class Level(Holder):
    """What is inside of one halving and one doubling, beside the skip."""

    def forward(self, x):
        return torch.cat([x, super().forward(x)], 1)


def unet(kind, downs, base, channels=3):
    bias, widths = kind == "instance", [base * min(2**i, 8) for i in range(downs)]

    def down(c, d):
        return nn.Conv2d(c, d, 4, 2, 1, bias=bias)

    def up(c, d):
        return nn.ConvTranspose2d(c, d, 4, 2, 1, bias=bias)

    *outer, wide, inner = widths
    ahead = [nn.LeakyReLU(0.2), down(wide, inner), nn.ReLU(), up(inner, wide), norm(kind, wide)]
    level = Level("model", *ahead)
    for c, d in reversed(list(itertools.pairwise([*outer, wide]))):
        dropout = [nn.Dropout(0.5)] if c == d == 8 * base else []
        down_part = [nn.LeakyReLU(0.2), down(c, d), norm(kind, d)]
        level = Level("model", *down_part, level, nn.ReLU(), up(2 * d, c), norm(kind, c), *dropout)
    first, last = down(channels, base), nn.ConvTranspose2d(2 * base, channels, 4, 2, 1)
    return Whole(Holder("model", first, level, nn.ReLU(), last, nn.Tanh()))


class Block(Holder):
    def forward(self, x):
        return x + super().forward(x)


def block(kind, width, dropout):
    bias = kind == "instance"
    first = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), norm(kind, width), nn.ReLU()]
    between = [nn.Dropout(0.5)] if dropout else []
    second = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), norm(kind, width)]
    return Block("conv_block", *first, *between, *second)


def resnet(kind, blocks, base, channels=3, dropout=False):
    bias = kind == "instance"
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(channels, base, 7, bias=bias), norm(kind, base), nn.ReLU()]
    for c in (base, 2 * base):
        layers += [nn.Conv2d(c, 2 * c, 3, 2, 1, bias=bias), norm(kind, 2 * c), nn.ReLU()]
    layers += [block(kind, 4 * base, dropout) for _ in range(blocks)]
    for c in (4 * base, 2 * base):
        up = nn.ConvTranspose2d(c, c // 2, 3, 2, 1, output_padding=1, bias=bias)
        layers += [up, norm(kind, c // 2), nn.ReLU()]
    return Holder("model", *layers, nn.ReflectionPad2d(3), nn.Conv2d(base, channels, 7), nn.Tanh())


def patch(kind, base, layers=3, channels=6):
    bias, widths = kind == "instance", [base * min(2**i, 8) for i in range(layers + 1)]
    found = [nn.Conv2d(channels, base, 4, 2, 1), nn.LeakyReLU(0.2)]
    for i, (c, d) in enumerate(itertools.pairwise(widths), 1):
        found += [nn.Conv2d(c, d, 4, 2 if i < layers else 1, 1, bias=bias), norm(kind, d), nn.LeakyReLU(0.2)]
    return Holder("model", *found, nn.Conv2d(widths[-1], 1, 4, 1, 1))


def pixel(kind, base, channels=6):
    bias = kind == "instance"
    first, second = nn.Conv2d(channels, base, 1), nn.Conv2d(base, 2 * base, 1, bias=bias)
    third = nn.Conv2d(2 * base, 1, 1, bias=bias)
    return Holder("net", first, nn.LeakyReLU(0.2), second, norm(kind, 2 * base), nn.LeakyReLU(0.2), third)


def dcgan_generator(base, latent=100, channels=3):
    layers = [nn.ConvTranspose2d(latent, 8 * base, 4, 1, 0, bias=False), nn.BatchNorm2d(8 * base), nn.ReLU()]
    for c in (8 * base, 4 * base, 2 * base):
        layers += [nn.ConvTranspose2d(c, c // 2, 4, 2, 1, bias=False), nn.BatchNorm2d(c // 2), nn.ReLU()]
    return Holder("main", *layers, nn.ConvTranspose2d(base, channels, 4, 2, 1, bias=False), nn.Tanh())


def dcgan_discriminator(base, channels=3):
    """Without the sigmoid at the end: logits."""
    layers = [nn.Conv2d(channels, base, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for c in (base, 2 * base, 4 * base):
        layers += [nn.Conv2d(c, 2 * c, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * c), nn.LeakyReLU(0.2)]
    return Holder("main", *layers, nn.Conv2d(8 * base, 1, 4, 1, 0, bias=False))


# Name, the network at a width, the side of its images, their channels, and which rows and columns of outputs are kept.
KINDS = ("batch", "instance")
CASES = [(f"unet_256:{k}", lambda b, k=k: unet(k, 8, b), 256, 3, 13) for k in KINDS]
CASES += [(f"unet_128:{k}", lambda b, k=k: unet(k, 7, b), 128, 3, 7) for k in KINDS]
CASES += [(f"resnet_9blocks:{k}", lambda b, k=k: resnet(k, 9, b), 32, 3, 1) for k in KINDS]
CASES += [(f"resnet_6blocks:{k}", lambda b, k=k: resnet(k, 6, b), 32, 3, 1) for k in KINDS]
CASES += [("resnet_6blocks:dropout", lambda b: resnet("batch", 6, b, dropout=True), 32, 3, 1)]
CASES += [(f"basic:{k}", lambda b, k=k: patch(k, b), 64, 6, 1) for k in KINDS]
CASES += [("n_layers_1:batch", lambda b: patch("batch", b, 1), 32, 6, 1)]
CASES += [("n_layers_5:instance", lambda b: patch("instance", b, 5), 128, 6, 1)]
CASES += [(f"pixel:{k}", lambda b, k=k: pixel(k, b), 16, 6, 1) for k in KINDS]
CASES += [(f"dcgan_generator{k}", dcgan_generator, 1, 100, 3) for k in ("", "_running")]
CASES += [("dcgan_discriminator", dcgan_discriminator, 64, 3, 1)]


def shapes(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def arrays():
    names = {}
    for name, make, side, channels, step in CASES:
        with torch.device("meta"):
            names[name] = shapes(make(64))
        net = make(2)
        weights = random_weights({n: s for n, s in shapes(net).items() if not n.endswith("num_batches_tracked")})
        net.load_state_dict({n: torch.tensor(w) for n, w in weights.items()}, strict=False)
        for layer in net.modules():
            layer.training = not (isinstance(layer, nn.Dropout) or name.endswith("running"))
        with torch.no_grad():
            out = net(torch.tensor(random_images(2, side, side, channels)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        yield name, out[:, ::step, ::step].numpy()
    yield "shapes", json.dumps(names)


if __name__ == "__main__":
    path = Path(__file__).parent / "golden" / "gans.npz"
    versions = json.dumps({name: version(name) for name in ("torch", "numpy")})
    np.savez_compressed(path, versions=versions, **{name: np.asarray(array) for name, array in arrays()})
    print(path.name, path.stat().st_size, versions)
