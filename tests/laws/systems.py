"""Every system, with what the laws need to know about it. A new system adds one entry."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from seqjax.models.generation import dcgan
from seqjax.models.prediction import convlstm
from seqjax.models.recurrent import memory_tasks
from seqjax.models.translation import cyclegan, discogan, pix2pix


class System(NamedTuple):
    """A file of ``seqjax.models``."""

    module: ModuleType
    """With ``Config``, ``build`` and the objectives."""
    losses: dict[str, tuple[str, ...]]
    """Objective by name, and the networks that it trains."""
    batch: Callable[[Any, int], dict[str, np.ndarray]]
    """``batch(config, size)``: random host data of the shape that the tiny configuration takes."""
    published: dict[int, dict[str, Any]]
    """Parameter counts from the paper or the released code, and the configuration of each."""
    falls: str = "loss/loss"
    """A metric that falls to a third of what it was when one batch is learned by heart."""
    rounding: float = 0.0
    """How far apart one device and four may be, beside a relative 2e-5."""
    by_parts: bool = True
    """Whether devices that see their own part of a batch alone make the step of one: not with statistics of the batch,
    nor with draws for each example."""


def clips(config: Any, size: int) -> dict[str, np.ndarray]:
    """Bright squares that move one pixel per frame, so that there is something to learn."""
    frames, side = config.context + config.future, 8
    video = np.zeros((size, frames, side, side, config.channels), np.uint8)
    for b in range(size):
        for t in range(frames):
            video[b, t, b % 4 : b % 4 + 3, (t + b) % 6 : (t + b) % 6 + 3] = 255
    return {"video": video}


def marked_numbers(config: Any, size: int) -> dict[str, np.ndarray]:
    """Two of six numbers are marked; the target is their sum."""
    rng = np.random.default_rng(0)
    numbers, marks = rng.random((size, 6)), np.zeros((size, 6))
    for b in range(size):
        marks[b, [b % 3, 3 + b % 2]] = 1
    targets = (numbers * marks).sum(axis=1, keepdims=True)
    return {"inputs": np.float32(np.stack([numbers, marks], axis=-1)), "targets": np.float32(targets)}


def stills(channels: dict[str, int], side: int) -> Callable[[Any, int], dict[str, np.ndarray]]:
    """Images by name, each a bright square on dark ground."""

    def batch(config: Any, size: int) -> dict[str, np.ndarray]:
        images = {name: np.zeros((size, side, side, depth), np.uint8) for name, depth in channels.items()}
        for k, image in enumerate(images.values()):
            for b in range(size):
                image[b, (b + k) % 4 : (b + k) % 4 + 3, 2 * b % 5 : 2 * b % 5 + 3] = 255 - 40 * k
        return images

    return batch


SYSTEMS = {
    "generation/dcgan": System(
        dcgan,
        losses={"loss_discriminator": ("discriminator",), "loss_generator": ("generator",)},
        batch=stills({"image": 1}, 8),
        # The Torch version at 64x64, and the paper's: by hand from the layer tables, normalisations two a channel.
        falls="loss_discriminator/loss",
        published={3_576_704 + 2_765_568: {}, 18_855_040 + 17_232_768: {"base": 128, "kernel": 5}},
        by_parts=False,
    ),
    "translation/pix2pix": System(
        pix2pix,
        losses={"loss_discriminator": ("discriminator",), "loss_generator": ("generator",)},
        batch=stills({"input": 1, "target": 3}, 8),
        falls="loss_generator/distance",
        # The U-Net and the 70x70 discriminator of the released code, and its residual generators.
        published={
            54_413_955 + 2_768_705: {},
            11_383_427 + 2_768_705: {"generator": "residual", "downs": 2},
        },
        by_parts=False,
    ),
    "translation/cyclegan": System(
        cyclegan,
        losses={"loss_generators": ("to_a", "to_b"), "loss_discriminators": ("of_a", "of_b")},
        batch=stills({"a": 3, "b": 3}, 8),
        falls="loss_generators/cycle",
        # Residual generators of 9 and of 6 blocks and the discriminator of the released code, two of each.
        published={2 * (11_378_179 + 2_764_737): {}, 2 * (7_837_699 + 2_764_737): {"blocks": 6, "size": 128}},
        by_parts=False,
    ),
    "translation/discogan": System(
        discogan,
        losses={"loss_generators": ("to_a", "to_b"), "loss_discriminators": ("of_a", "of_b")},
        batch=stills({"a": 3, "b": 3}, 8),
        falls="loss_generators/reconstruction",
        rounding=1e-6,
        # No one prints them. By hand: four 4x4 convolutions of 64 to 512 features, their mirror, normalisations.
        published={2 * (5_513_856 + 2_765_568): {}},
        by_parts=False,
    ),
    "prediction/convlstm": System(
        convlstm,
        losses={"loss": ("forecaster",)},
        batch=clips,
        # Shi et al. 2015, Table 1 (Moving MNIST): the number of parameters column.
        published={
            142_667_776: {"patch": 64, "kernel": 1, "features": (2048, 2048), "readout": "last"},
            13_524_496: {"features": (256,)},
            10_042_896: {"features": (128, 128)},
            7_585_296: {},
            11_550_224: {"features": (128, 128), "kernel": 1, "input_kernel": 9},
            8_830_480: {"kernel": 1, "input_kernel": 9},
        },
    ),
    "recurrent/memory_tasks": System(
        memory_tasks,
        losses={"loss": ("reader",)},
        batch=marked_numbers,
        # No paper prints the counts of these networks. By hand, gates · D (C + D + 1) + readout; torch's second bias of
        # the candidate (D) is part of its GRU, and so of ours.
        published={
            4 * 128 * (2 + 128 + 1) + 128 + 1: {},
            64 * (2 + 64 + 1) + 64 + 1: {"cell": "rnn", "features": 64},
            3 * 64 * (2 + 64 + 1) + 64 + 64 + 1: {"cell": "gru", "features": 64},
            4 * 64 * (10 + 64 + 1) + 4 * 64 * (64 + 64 + 1) + 64 * 9 + 9: {"task": "copy", "features": 64, "layers": 2},
        },
    ),
}
