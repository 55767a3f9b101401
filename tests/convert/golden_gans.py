"""Writes ``golden/gans.npz``: published adversarial networks in PyTorch. Run by hand.

Needs torch: ``PYTHONPATH=. python tests/convert/golden_gans.py`` in the root. The networks are those of
``experiments.bench.gan_torch``. Their widths are small; weights and images are drawn by ``random_weights.py`` on both
sides, so the file holds outputs, without dropout and by the statistics of the batch ("running": of the file), and names
and shapes of all arrays at full width.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from random_weights import random_images, random_weights
from torch import nn

from experiments.bench.gan_torch import dcgan_discriminator, dcgan_generator, patch, pixel, resnet, unet

# Name, the network at a width, the side of its images, their channels, and which rows and columns of outputs are kept.
KINDS = ("batch", "instance")
CASES = [(f"unet_256:{k}", lambda b, k=k: unet(k, 8, b), 256, 3, 13) for k in KINDS]
CASES += [(f"unet_128:{k}", lambda b, k=k: unet(k, 7, b), 128, 3, 7) for k in KINDS]
CASES += [(f"resnet_9blocks:{k}", lambda b, k=k: resnet(k, 9, b), 32, 3, 1) for k in KINDS]
CASES += [(f"resnet_6blocks:{k}", lambda b, k=k: resnet(k, 6, b), 32, 3, 1) for k in KINDS]
CASES += [("resnet_6blocks:dropout", lambda b: resnet("batch", 6, b, dropout=True), 32, 3, 1)]
CASES += [("unet_128:running", lambda b: unet("batch", 7, b), 128, 3, 7)]
CASES += [("resnet_6blocks:running", lambda b: resnet("batch", 6, b), 32, 3, 1)]
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
