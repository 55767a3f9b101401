"""Writes ``golden/convolution.npz``: what PyTorch computes. Run by hand: ``python golden_convolution.py``.

Needs torch, which the tests do not. Every case holds PyTorch's weight, bias and inputs ``[B, C, *space]``, the outputs,
and the gradients of ``Σ sin(outputs)`` with respect to the three; a key is ``case:field``. The arguments of each case
are in ``arguments``, as JSON.
"""

import json
from pathlib import Path

import numpy as np
import torch

# name: (kind, spatial dimensions, arguments); the layers of the published translation networks come first.
CASES = {
    "unet_down": ("conv", (8, 6), {"k": 4, "stride": 2, "padding": 1}),
    "resnet_down": ("conv", (8, 6), {"k": 3, "stride": 2, "padding": 1}),
    "patch_tail": ("conv", (6, 5), {"k": 4, "stride": 1, "padding": 1}),
    "wide_down": ("conv", (8, 6), {"k": 5, "stride": 2, "padding": 2}),
    "odd_down": ("conv", (7, 5), {"k": 3, "stride": 2, "padding": 1}),
    "valid": ("conv", (4, 4), {"k": 4, "stride": 1, "padding": 0}),
    "line": ("conv", (9,), {"k": 3, "stride": 2, "padding": 1}),
    "volume": ("conv", (4, 5, 4), {"k": 3, "stride": 2, "padding": 1}),
    "unet_up": ("conv_transpose", (4, 3), {"k": 4, "stride": 2, "padding": 1}),
    "resnet_up": ("conv_transpose", (4, 3), {"k": 3, "stride": 2, "padding": 1, "output_padding": 1}),
    "first_up": ("conv_transpose", (1, 1), {"k": 4, "stride": 1, "padding": 0}),
    "wide_up": ("conv_transpose", (4, 3), {"k": 5, "stride": 2, "padding": 2, "output_padding": 1}),
    "far_up": ("conv_transpose", (3, 4), {"k": 5, "stride": 3, "padding": 1, "output_padding": 2}),
    "line_up": ("conv_transpose", (5,), {"k": 4, "stride": 2, "padding": 1}),
    "volume_up": ("conv_transpose", (2, 3, 2), {"k": 3, "stride": 2, "padding": 1, "output_padding": 1}),
    "reflect_1": ("reflect_pad", (4, 5), {"padding": 1}),
    "reflect_3": ("reflect_pad", (4, 5), {"padding": 3}),
}
B, C, D = 2, 3, 2


def draw(rng, *shape):
    return torch.tensor(rng.normal(size=shape).astype("float32"), requires_grad=True)


def case(rng, kind, space, arguments):
    functional = torch.nn.functional
    options, inputs = dict(arguments), draw(rng, B, C, *space)
    leaves = {"inputs": inputs}
    if kind == "reflect_pad":
        outputs = functional.pad(inputs, (options["padding"],) * 4, mode="reflect")
    else:
        window = (options.pop("k"),) * len(space)
        weight = draw(rng, *((D, C) if kind == "conv" else (C, D)), *window)
        leaves |= {"weight": weight, "bias": draw(rng, D)}
        layer = getattr(functional, f"{kind}{len(space)}d")
        outputs = layer(inputs, weight, leaves["bias"], **options)
    outputs.sin().sum().backward()
    fields = {name: leaf.detach().numpy() for name, leaf in leaves.items()}
    return (
        fields
        | {f"{name}_gradient": leaf.grad.numpy() for name, leaf in leaves.items()}
        | {"outputs": outputs.detach().numpy()}
    )


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    arrays = {"arguments": json.dumps({name: (kind, options) for name, (kind, _, options) in CASES.items()})}
    for name, (kind, space, options) in CASES.items():
        arrays |= {f"{name}:{field}": array for field, array in case(rng, kind, space, options).items()}
    path = Path(__file__).parent / "golden" / "convolution.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, versions=f"torch {torch.__version__}, numpy {np.__version__}", **arrays)
    print(path.name, path.stat().st_size)
