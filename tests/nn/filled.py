"""Networks with kernels drawn by NumPy, and calls compiled as a whole: both for speed."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.nn.split import merge, split


def filled(make):
    """The network of ``make`` with kernels that keep variances, biases of 0 and scales of 1."""
    random, parts = np.random.default_rng(0), split({"net": nnx.eval_shape(make)})

    def draw(path, leaf):
        if leaf.ndim > 1:
            array = random.normal(size=leaf.shape) * np.prod(leaf.shape[:-1]) ** -0.5
        else:
            array = np.full(leaf.shape, path[-1].key in ("scale", "var"))
        return jnp.asarray(array, leaf.dtype)

    params, rest = (jax.tree_util.tree_map_with_path(draw, tree) for tree in (parts.params, parts.rest))
    return merge(parts.graphs, params, rest)["net"]


def run(net, call, *inputs):
    """``call(net, *inputs)`` as one program; what the network writes stays in there."""
    return run_all({"net": net}, lambda nets, *inputs: call(nets["net"], *inputs), *inputs)


def run_all(nets, call, *inputs):
    """The same of several networks by name."""
    parts = split(nets)
    program = jax.jit(lambda params, rest, *inputs: call(merge(parts.graphs, params, rest), *inputs))
    return program(parts.params, parts.rest, *inputs)
