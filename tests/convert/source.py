"""Tiny weights and inputs for another library, and what one written in JAX computes with them."""

import jax
import jax.numpy as jnp
import numpy as np

B, T, C, D = 3, 5, 2, 3
LENGTHS = np.array([3, 5, 1])


def draw(rng, shape):
    """Kernels and biases of a size that matters; biases below 0.5, so that 1 can be added and taken away again."""
    return (rng.normal(size=shape) * 0.6 if len(shape) > 1 else rng.uniform(-0.4, 0.4, size=shape)).astype("float32")


def draw_inputs(rng, lengths, shape=(B, T, C)):
    xs = rng.normal(size=shape).astype("float32")
    if lengths is not None:
        xs[np.arange(shape[1]) >= lengths[:, None]] = 9.0
    return xs


def jax_case(apply, weights, xs, lengths):
    """``apply(weights, xs) -> (outputs, {"h": [layers·directions, ...], ...})``; weights as ``{name: array}``."""
    valid = np.arange(xs.shape[1]) < (xs.shape[1] if lengths is None else lengths[:, None])
    valid = np.broadcast_to(valid, xs.shape[:2]).reshape(*xs.shape[:2], *[1] * (xs.ndim - 2))

    def loss(weights, xs):
        ys, states = apply(weights, xs)
        ys = jnp.where(valid, ys, 0.0)
        return jnp.sum(ys**2) / 2 + sum(jnp.sum(s**2) for s in states.values()), (ys, states)

    (d_weights, d_xs), (ys, states) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(weights, xs)
    case = {"weights": weights, "gradients": d_weights, "inputs": xs, "inputs_gradient": d_xs}
    case |= {"outputs": ys, "states": states}
    return case if lengths is None else case | {"lengths": lengths}
