"""Feature networks: what turns images into the features that the distances between sets of images are taken of."""

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Features(NamedTuple):
    """What a feature network makes of images."""

    features: Float[Array, "B D"]
    probabilities: Float[Array, "B K"]
    """Of its classes; rows sum to 1."""


class FeatureNet(NamedTuple):
    """A frozen network with its identity, without which a distance between features means nothing."""

    name: str
    """Stands in the name of every figure."""
    sha256: str
    """Of the weights."""
    protocol: str
    """What is done to the images before and to the outputs after, in words."""
    dimension: int
    """``D`` of its features."""
    classes: int
    """``K`` of its probabilities."""
    params: Any
    """Its weights, a tree of arrays: an argument of the compiled program, not a constant in it."""
    extract: Callable[[Any, Float[Array, "B H W C"]], Features]
    """``extract(params, images)``: images in [-1, 1] to features; pure."""
    accuracy: float | None = None
    """Share of held-out images that it classifies rightly, if it was trained here."""
    published: Mapping[str, str] = MappingProxyType({})
    """Names that the field has for figures of this network with these weights, as "fid" for "fd"."""

    def figure(self, kind: str) -> str:
        """The name under which a figure of this network is reported: the field's, or "name-kind"."""
        return self.published.get(kind, f"{self.name}-{kind}")

    def row(self) -> dict[str, jax.ShapeDtypeStruct]:
        """What it gives for one image, for `seqjax.metrics.rows`."""
        shapes = {"features": (self.dimension,), "probabilities": (self.classes,)}
        return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}

    def record(self) -> dict[str, str | float | None]:
        """The identity, for a metric's record."""
        return {
            "feature_net": self.name,
            "feature_net_sha256": self.sha256,
            "feature_net_accuracy": self.accuracy,
            "protocol": self.protocol,
        }


def extract(
    net: FeatureNet, images: Float[np.ndarray, "N *S"], *, batch: int = 250
) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N K"]]:
    """Features and probabilities of images, or of clips if the network takes them, on the host, N at least 1."""
    run, parts = jax.jit(net.extract), []
    for start in range(0, len(images), batch):
        rows = images[start : start + batch]
        # Filled up to one length, so that one program serves all batches.
        filled = np.concatenate([rows, np.repeat(rows[-1:], batch - len(rows), axis=0)])
        parts.append([np.asarray(array)[: len(rows)] for array in run(net.params, jnp.asarray(filled, jnp.float32))])
    features, probabilities = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return features, probabilities


def hash_weights(tree: Any) -> str:
    """SHA-256 over every array of a tree, with its place in the tree and its shape."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
