"""Every system, with what the laws need to know about it. A new system adds one entry."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from seqjax.models.prediction import convlstm


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
}
