"""Average content distance (ACD): how much of what a clip shows changes from frame to frame, beside how it moves.

A frame's content is a vector that says what it shows and not where: the mean colour of a shape, an embedding of a face.
A clip that stands still has a distance of 0, so that the figure means nothing without the amplitude of the motion; and
a generator of one content has a small one, so that the spread of contents and the distance between frames of different
clips belong beside it.

Source: Tulyakov, Liu, Yang, Kautz, *MoCoGAN: Decomposing Motion and Content for Video Generation*, 2018, section 4.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax.metrics.metric import Figures, Metric
from seqjax.metrics.rows import Rows, add_rows, no_rows, rows_of

HIGHER_IS_BETTER = ("amplitude", "content_spread", "path_distance")
"""Of the figures of `content_metric`."""


def mean_distance(vectors: Float[np.ndarray, "*B T D"]) -> Float[np.ndarray, "*B"]:
    """The mean Euclidean distance over all pairs of T vectors, which at T = 1 is 0; of a clip's contents its ACD."""
    number = vectors.shape[-2]
    distances = np.linalg.norm(vectors[..., :, None, :] - vectors[..., None, :, :], axis=-1)
    return distances.sum(axis=(-2, -1)) / max(1, number * (number - 1))


def mean_colour(clips: Float[Array, "*B H W C"]) -> Float[Array, "*B C"]:
    """The mean colour of what is bright on black, in [0, 1]: ``Σ w x / Σ w``, ``w`` the largest channel of a pixel.

    Args:
      clips: in [0, 1].
    """
    weights = jnp.max(clips, axis=-1, keepdims=True)
    return jnp.sum(weights * clips, axis=(-3, -2)) / (jnp.sum(weights, axis=(-3, -2)) + 1e-6)


def centroid(clips: Float[Array, "*B H W C"]) -> Float[Array, "*B 2"]:
    """Row and column, in pixels, of the middle of what is bright on black: weights as of `mean_colour`, squared, so
    that a faint ground counts little."""
    weights = jnp.square(jnp.max(clips, axis=-1))
    total = jnp.sum(weights, axis=(-2, -1)) + 1e-6
    rows, columns = (jnp.arange(n, dtype=clips.dtype) for n in clips.shape[-3:-1])
    row = jnp.einsum("...hw,h->...", weights, rows, precision="highest")
    column = jnp.einsum("...hw,w->...", weights, columns, precision="highest")
    return jnp.stack([row / total, column / total], axis=-1)


def content_metric(*, frames: int, content: int, place: int = 2, capacity: int, motions: int = 1) -> Metric:
    """How clips keep what they show and how they move; outputs ``{"content": [B, T, D], "place": [B, T, M]}``.

        acd              mean distance between the contents of a clip's frames
        acd_shuffled     the same after all frames have changed places among all clips
        acd_ratio        the first over the second
        content_spread   standard deviation over the clips of their mean contents, on average over D
        amplitude        root mean square deviation of the place from its mean over the clip, in its longest direction,
                         on average over the clips

    and where ``motions`` consecutive clips have one content code and differ in motion alone:

        acd_motions      mean distance between the mean contents of these clips
        path_distance    root mean square distance between the places of two of them at one time, on average over pairs

    Args:
      frames: T.
      content: D.
      place: M, coordinates of what moves.
      capacity: how many clips there will be at most.
      motions: clips to a content code.
    """
    row = {"content": (frames, content), "place": (frames, place)}
    shapes = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in row.items()}

    def accumulate(acc: Rows, outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Rows:
        weight = batch.get("weight", jnp.ones(len(outputs["content"])))
        return add_rows(acc, {name: outputs[name] for name in row}, weight)

    def finish(acc: Rows) -> Figures:
        seen = {name: values.astype(np.float64) for name, values in rows_of(acc).items()}
        figures = _content_figures(seen["content"]) | {"amplitude": float(amplitude(seen["place"]).mean())}
        return figures | (_motion_figures(seen, motions) if motions > 1 else {})

    return Metric(lambda: no_rows(shapes, capacity), accumulate, finish)


def amplitude(places: Float[np.ndarray, "*B T M"]) -> Float[np.ndarray, "*B"]:
    """Root mean square deviation over time, along the direction in which it is the largest (the first principal
    component)."""
    centred = places - places.mean(axis=-2, keepdims=True)
    covariance = np.einsum("...ti,...tj->...ij", centred, centred) / places.shape[-2]
    finite = np.isfinite(covariance).all(axis=(-2, -1), keepdims=True)
    largest = np.linalg.eigvalsh(np.where(finite, covariance, 0))[..., -1].clip(0)
    return np.where(finite[..., 0, 0], np.sqrt(largest), np.nan)


def _content_figures(contents: np.ndarray) -> Figures:
    order = np.random.default_rng(0).permutation(contents.shape[0] * contents.shape[1])
    shuffled = contents.reshape(len(order), -1)[order].reshape(contents.shape)
    own, other = float(mean_distance(contents).mean()), float(mean_distance(shuffled).mean())
    spread = float(contents.mean(axis=1).std(axis=0).mean())
    return {"acd": own, "acd_shuffled": other, "acd_ratio": own / other if other else 0.0, "content_spread": spread}


def _motion_figures(seen: Mapping[str, np.ndarray], motions: int) -> Figures:
    whole = len(seen["content"]) // motions * motions

    def grouped(values: np.ndarray) -> np.ndarray:
        return values[:whole].reshape(-1, motions, *values.shape[1:])

    contents, paths = grouped(seen["content"].mean(axis=1)), grouped(seen["place"])
    # As one vector a path's distance is a sum over time; over √T it is a root mean square.
    flat = paths.reshape(*paths.shape[:2], -1) / np.sqrt(paths.shape[2])
    return {"acd_motions": float(mean_distance(contents).mean()), "path_distance": float(mean_distance(flat).mean())}
