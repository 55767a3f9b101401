"""What happens to a gradient on its way back through time, measured on any cell.

With ``|φ'| ≤ γ`` (γ = 1 for tanh, 1/4 for the logistic function) the state Jacobian of an Elman network obeys
``‖∂h_t/∂h_{t-1}‖ ≤ γ σ_max(U)``. So ``σ_max(U) < 1/γ`` is *sufficient* for gradients to vanish with the lag, while
``σ_max(U) > 1/γ`` is only *necessary* for them to explode: saturated units, or a ``U`` whose large directions do not
follow one another, may still make them vanish. What a network does, as opposed to what it may do, is seen along its
trajectories: ``gradient_norm_by_lag``, ``largest_singular_values``, ``lyapunov_exponent``. The bound's own
``σ_max(U)`` is ``jnp.linalg.norm(U, 2)``.

A state is the whole carry, all leaves as one vector. Sequences here have every step valid; rows are independent.

Source: Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural networks*, ICML 2013, section 2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax.errors import InputError
from seqjax.ops import linear
from seqjax.ops.compose import with_carries
from seqjax.ops.recurrence import Affine, Cell
from seqjax.ops.scan import unroll

Tree = Any


def gradient_norm_by_lag(
    cell: Cell, params: Tree, carry: Tree, xs: Tree, loss: Callable[[Tree], Float[Array, " B"]]
) -> Float[Array, "B T"]:
    """``‖∂L_T/∂h_{T-k}‖`` for every lag k = 1 .. T, from one backward pass; ``h_0`` is the initial carry.

    A zero ``δ_t`` is added to the state that step t reads; the gradient of the last step's loss with respect to all
    ``δ`` is what is asked for. Norms keep their precision down to the smallest normal number, since vanishing ones
    are the point; smaller gradients are zero.

    Args:
      cell: the cell.
      params: its parameters.
      carry: ``h_0``, leaves ``[B, ...]``, such as ``cell.carry(params, (B,))``.
      xs: inputs, leaves ``[B, T, ...]``.
      loss: ``loss(y_T) -> [B]``: the loss of each row from the output of the last step.

    Returns:
      ``norms[:, k - 1]`` belongs to lag k.
    """

    def project(params: Tree, inputs: Tree, affine: Affine) -> Tree:
        return cell.project(params, inputs[0], affine), inputs[1]

    def step(params: Tree, carry: Tree, inputs: Tree, affine: Affine) -> tuple[Tree, Tree]:
        z_t, delta = inputs
        return cell.step(params, jax.tree.map(jnp.add, carry, delta), z_t, affine)

    def last_loss(deltas: Tree) -> Float[Array, ""]:
        _, ys = unroll(cell._replace(project=project, step=step), params, carry, (xs, deltas))
        return jnp.sum(loss(jax.tree.map(lambda y: y[:, -1], ys)))

    steps = jax.tree.leaves(xs)[0].shape[1]
    deltas = jax.tree.map(lambda h: jnp.zeros((h.shape[0], steps, *h.shape[1:]), h.dtype), carry)
    return jnp.flip(_norm(jax.grad(last_loss)(deltas), 2), axis=1)


def log_gain(norms: Float[Array, "*B T"]) -> Float[Array, "*B"]:
    """Slope of the line fitted to ``log ‖∂L_T/∂h_{T-k}‖`` over k by least squares: the gain of a step, as a logarithm.

    ``exp(log_gain)`` is the factor by which a gradient changes per step back: below 0 it vanishes, above 0 it
    explodes. Lags whose norm is zero are left out; with fewer than two others the slope is NaN.

    Args:
      norms: from ``gradient_norm_by_lag``; lags are consecutive along the last axis.
    """
    lags = jnp.broadcast_to(jnp.arange(norms.shape[-1], dtype=norms.dtype), norms.shape)
    seen = norms > 0
    logs = jnp.log(jnp.where(seen, norms, 1))

    def centred(x: Array) -> Array:
        return jnp.where(seen, x - jnp.mean(x, axis=-1, keepdims=True, where=seen), 0)

    return jnp.sum(centred(lags) * centred(logs), axis=-1) / jnp.sum(jnp.square(centred(lags)), axis=-1)


def largest_singular_values(
    cell: Cell,
    params: Tree,
    carry: Tree,
    xs: Tree,
    *,
    iterations: int | None = None,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "B T"]:
    """``σ_max(∂h_t/∂h_{t-1})`` at every step of a trajectory: the most that one step can amplify a gradient.

    Args:
      cell: the cell.
      params: its parameters.
      carry: ``h_0``, leaves ``[B, ...]``.
      xs: inputs, leaves ``[B, T, ...]``.
      iterations: None forms each Jacobian, of ``n²`` entries per row for a state of ``n`` numbers, and is exact. A
        number of power iterations ``v ← JᵀJv / ‖JᵀJv‖`` holds a few states only, for convolutional states; what it
        gives is a lower bound, whose error shrinks by ``(σ_2/σ_1)⁴`` each time.
      key: of the first ``v``; needed with ``iterations``.

    Raises:
      InputError: ``iterations`` without ``key`` or below 1.
    """
    if iterations is not None and (key is None or iterations < 1):
        raise InputError(
            f"largest_singular_values: iterations is {iterations} and key is {'None' if key is None else 'given'}; "
            "expected at least one iteration and a key for its first vector, or neither for the exact values."
        )
    _, (_, afters) = unroll(with_carries(cell), params, carry, xs)
    befores = jax.tree.map(lambda h, hs: jnp.concatenate([h[:, None], hs[:, :-1]], axis=1), carry, afters)
    zs = cell.project(params, xs, linear.affine)

    def one(inputs: tuple[Tree, Tree]) -> Float[Array, ""]:
        before, z_t = inputs
        h, unravel = ravel_pytree(before)

        def advance(h: Float[Array, " n"]) -> Float[Array, " n"]:
            return ravel_pytree(cell.step(params, unravel(h), z_t, linear.affine)[0])[0]

        if iterations is None or key is None:
            return jnp.linalg.norm(jax.jacfwd(advance)(h), 2)
        return _power_iteration(advance, h, iterations, key)

    return jax.vmap(lambda *row: jax.lax.map(one, row))(befores, zs)


def lyapunov_exponent(
    cell: Cell, params: Tree, carry: Tree, xs: Tree, *, key: PRNGKeyArray, burn_in: int = 0
) -> Float[Array, " B"]:
    """Largest Lyapunov exponent along a trajectory, ``λ = mean_t log ‖J_t v_t‖``, ``v_{t+1} = J_t v_t / ‖J_t v_t‖``.

    Two states that differ by a little are ``exp(λ)`` times as far apart one step later, on average and in the long
    run; gradients go back along the same Jacobians ``J_t = ∂h_t/∂h_{t-1}``. Below 0 the initial state is forgotten.

    Args:
      cell: the cell.
      params: its parameters.
      carry: ``h_0``, leaves ``[B, ...]``.
      xs: inputs, leaves ``[B, T, ...]``.
      key: of the first direction ``v_1``.
      burn_in: steps left out of the mean, while ``v`` turns to the direction that grows fastest.

    Returns:
      ``[B]``, in nats per step; -inf where the state no longer depends on the initial one at all.

    Source: Benettin, Galgani, Giorgilli and Strelcyn, *Lyapunov Characteristic Exponents for smooth dynamical
    systems*, Meccanica 15, 1980.
    """
    if not 0 <= burn_in < jax.tree.leaves(xs)[0].shape[1]:
        raise InputError(
            f"lyapunov_exponent: burn_in is {burn_in}, and the sequences have {jax.tree.leaves(xs)[0].shape[1]} "
            "steps; expected at least one step after it."
        )
    zs = jax.tree.map(lambda z: jnp.moveaxis(z, 1, 0), cell.project(params, xs, linear.affine))
    flat, unravel = ravel_pytree(carry)

    def body(state: tuple[Tree, Tree], z_t: Tree) -> tuple[tuple[Tree, Tree], Float[Array, " B"]]:
        def advance(h: Tree) -> Tree:
            return cell.step(params, h, z_t, linear.affine)[0]

        h, v = jax.jvp(advance, state[:1], state[1:])
        growth = _norm(v, 1)
        return (h, _divide(v, growth)), jnp.log(growth)

    v = unravel(jax.random.normal(key, flat.shape, flat.dtype))
    _, logs = jax.lax.scan(body, (carry, _divide(v, _norm(v, 1))), zs)
    return jnp.mean(logs[burn_in:], axis=0)


def spectral_radius(matrix: Float[Array, "*B D D"]) -> Float[Array, "*B"]:
    """``max |λ_i(U)|``: at most ``σ_max(U)``, and what ``‖U^k‖^{1/k}`` tends to.

    Below 1 a linear recurrence forgets in the long run, though it may amplify at first. For a nonlinear one it bounds
    nothing but what happens near ``h = 0``. The backends are those of ``jnp.linalg.eigvals``, CPU among them.
    """
    return jnp.max(jnp.abs(jnp.linalg.eigvals(matrix)), axis=-1)


class Saturation(NamedTuple):
    """How often each gate was nearly shut and nearly open."""

    left: Float[Array, " D"]
    """Fraction of activations below the margin."""
    right: Float[Array, " D"]
    """Fraction above one minus the margin."""


def saturation(gates: Float[Array, "*B D"], *, margin: float = 0.1) -> Saturation:
    """Fractions of time that each gate spends saturated: below ``margin``, above ``1 - margin``.

    A forget gate that is right-saturated much of the time keeps its memory (and its gradient); left-saturated, it is
    no memory at all. ``with_affine_values`` gives the gates of a cell::

        _, (a,) = unroll(with_affine_values(lstm), params, None, xs)
        i, f, g, o = jnp.split(a, 4, axis=-1)
        saturation(jax.nn.sigmoid(f))

    Args:
      gates: activations in [0, 1]; for a tanh unit ``a``, ``(1 + a) / 2``. All axes but the last are averaged over.
      margin: what counts as saturated, in (0, 1/2].

    Source: Karpathy, Johnson and Fei-Fei, *Visualizing and Understanding Recurrent Networks*, 2015, section 4.2.
    """
    if not 0 < margin <= 0.5:
        raise InputError(f"saturation: margin is {margin}; expected a part of [0, 1] at either end, such as 0.1.")
    axes = tuple(range(gates.ndim - 1))
    return Saturation(jnp.mean(gates < margin, axis=axes), jnp.mean(gates > 1 - margin, axis=axes))


def with_affine_values(cell: Cell) -> Cell:
    """The same cell whose output is the values of its step's affine maps, in the order of the calls.

    For ``lstm`` and ``rnn`` that is one array, the sums that the activations are taken of (before peepholes or layer
    normalisation). ``gru`` adds what comes from the input later: its value is ``U h`` alone. A cell of one's own
    decides what passes through ``affine``.
    """

    def step(params: Tree, carry: Tree, z_t: Tree, affine: Affine) -> tuple[Tree, tuple[Array, ...]]:
        values: list[Array] = []

        def record(bias: Array, kernel: Array, inputs: Array) -> Array:
            values.append(affine(bias, kernel, inputs))
            return values[-1]

        carry, _ = cell.step(params, carry, z_t, record)
        return carry, tuple(values)

    return cell._replace(step=step)


def _norm(tree: Tree, lead: int) -> Array:
    """Euclidean norm over all leaves and all but ``lead`` axes, scaled so that small entries do not underflow."""
    flat = jnp.concatenate([x.reshape(*x.shape[:lead], -1) for x in jax.tree.leaves(tree)], axis=-1)
    largest = jnp.max(jnp.abs(flat), axis=-1, keepdims=True)
    scaled = flat / jnp.where(largest > 0, largest, 1)
    return largest[..., 0] * jnp.sqrt(jnp.sum(jnp.square(scaled), axis=-1))


def _divide(tree: Tree, norm: Array) -> Tree:
    """Each row by its norm; a row of zeros stays."""
    norm = jnp.where(norm > 0, norm, 1)
    return jax.tree.map(lambda x: x / norm.reshape(*norm.shape, *[1] * (x.ndim - norm.ndim)), tree)


def _power_iteration(advance: Callable[[Array], Array], h: Array, iterations: int, key: PRNGKeyArray) -> Array:
    _, push = jax.linearize(advance, h)
    _, pull = jax.vjp(advance, h)

    def iterate(_: Array, v: Array) -> Array:
        (v,) = pull(push(v))
        return _divide(v, _norm(v, 0))

    v = jax.random.normal(key, h.shape, h.dtype)
    return _norm(push(jax.lax.fori_loop(0, iterations, iterate, _divide(v, _norm(v, 0)))), 0)
