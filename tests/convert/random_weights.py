"""Weights and images that two libraries can draw alike: NumPy's legacy generator keeps its stream for good."""

import numpy as np


def random_weights(shapes):
    """``{name: array}`` for ``{name: shape}`` of a PyTorch network: He-normal kernels, statistics that matter."""
    random, weights = np.random.RandomState(0), {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        if len(shape) > 1:
            array = random.normal(size=shape) * (2 / np.prod(shape[1:])) ** 0.5
        else:
            array = (
                random.uniform(0.5, 1.5, size=shape)
                if name.endswith(("var", "bn.weight"))
                else random.normal(size=shape) / 5
            )
        weights[name] = array.astype(np.float32)
    return weights


def random_images(*shape):
    """Smooth enough for a resize to show its filter, in [-1, 1]: uint8 levels that every library can hold."""
    levels = np.random.RandomState(1).uniform(0, 255, size=shape).astype(np.uint8)
    return (levels / np.float32(127.5) - 1).astype(np.float32)
