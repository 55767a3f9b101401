"""Every system, with what the laws need to know about it. A new system adds one entry."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from seqjax.models.prediction import convlstm
from seqjax.models.recurrent import memory_tasks


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


SYSTEMS = {
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
