"""Plots as pictures of a run."""

import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def picture(figure: Figure) -> UInt8[np.ndarray, "H W 3"]:
    """The figure as `train.media.write_png` and the logs take it; drawn in memory, so that no screen is needed."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
