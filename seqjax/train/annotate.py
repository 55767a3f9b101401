"""Pictures with words: captions under images, and where the image was looked at before each word."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqjax.train.plot import picture


def captioned(
    images: UInt8[np.ndarray, "N H W 3"], captions: Sequence[str], *, columns: int = 4
) -> UInt8[np.ndarray, "h w 3"]:
    """Images in rows, each with its caption below; a caption may have several lines."""
    columns = min(columns, len(images))
    figure = Figure(figsize=(2.6 * columns, 3.1 * -(-len(images) // columns)), layout="constrained")
    for axes in (every := figure.subplots(-(-len(images) // columns), columns, squeeze=False).ravel()):
        axes.axis("off")
    for axes, image, caption in zip(every, images, captions, strict=False):
        _show(axes, image)
        axes.set_title(caption, y=-0.06, va="top", fontsize=9, wrap=True)
    return picture(figure)


def attended(
    images: UInt8[np.ndarray, "N H W 3"], words: Sequence[Sequence[str]], weights: Float[np.ndarray, "N T h w"]
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """A row for each image: the image, then under each word the image as bright as it was looked at before it.

    Brightest is the place of most attention for this word; where there was none a fifth is left.

    Args:
      images: any size that the maps' places tile.
      words: of each caption.
      weights: the maps, by word; those past a caption's end are not shown.
    """
    columns = 1 + max(map(len, words))
    figure = Figure(figsize=(1.1 * columns, 1.3 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, image, caption, maps in zip(grid, images, words, weights, strict=True):
        for axes in row:
            axes.axis("off")
        _show(row[0], image)
        for axes, word, seen in zip(row[1:], caption, maps, strict=False):
            _show(axes, _lit(image, seen))
            axes.set_title(word, fontsize=8)
    return picture(figure)


def _lit(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    tiles = [-(-pixels // places) for pixels, places in zip(image.shape, weights.shape, strict=False)]
    bright = np.kron(weights / max(weights.max(), 1e-9), np.ones(tiles))[: image.shape[0], : image.shape[1]]
    return (image * (0.2 + 0.8 * bright[..., None])).astype(np.uint8)


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, interpolation="nearest")
