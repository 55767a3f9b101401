"""Nonlinear recurrences in parallel over time, by Newton's method on the whole trajectory."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seqjax.errors import InputError
from seqjax.ops import linear
from seqjax.ops.linear_scan import Method, linear_scan
from seqjax.ops.recurrence import (
    Affine,
    Cell,
    Step,
    Tree,
    advance,
    as_cell,
    time_major,
    zero_carry,
)

Jacobian = Literal["dense", "block", "diagonal"]


class NewtonInfo(NamedTuple):
    """How the iteration went."""

    iterations: Int[Array, ""]
    """Linear recurrences solved."""
    residual: Float[Array, ""]
    """``max_t |f(s_{t-1}, x_t) - s_t|`` of the last iterate; NaN where it left the finite numbers."""
    converged: Bool[Array, ""]
    """Whether the residual is within the tolerance. If not, what came back was computed step by step."""


def newton(
    cell: Cell | Step,
    params: Tree,
    carry: Tree | None,
    xs: Tree,
    *,
    lengths: Int[Array, "*B"] | None = None,
    mask: Bool[Array, "..."] | None = None,
    resets: Bool[Array, "..."] | None = None,
    steps: int | None = None,
    reverse: bool = False,
    time_axis: int = 1,
    jacobian: Jacobian = "dense",
    tolerance: float = 1e-5,
    max_iterations: int = 100,
    damping: float = 0.0,
    guess: Tree | None = None,
    method: Method | None = None,
) -> tuple[Tree, Tree, NewtonInfo]:
    """``unroll`` without its loop over time: ``s_t = f(s_{t-1}, x_t)`` solved for all t at once.

    From a guess ``s``, each iteration evaluates the residuals ``r_t = f(s_{t-1}, x_t) - s_t`` of all steps side by
    side, solves the linear recurrence of the corrections, and adds them::

        δ_t = A_t δ_{t-1} + r_t,    δ_0 = 0,    A_t = ∂f/∂s at s_{t-1}

    which is the recurrence ``s_t = A_t s_{t-1} + b_t`` of the paper, rounded at the size of the correction and not at
    that of the state. It ends when no residual exceeds the tolerance. Every ``A`` has the same solution, and after k
    iterations the first k states are exact; how many are needed depends on ``A`` and on how contractive the cell is.
    Where a correction overflows, as products of many expanding ``A`` do, that state takes ``f(s_{t-1}, x_t)`` instead.
    A trajectory that has not converged, or is not finite, is discarded: the cell is then run step by step, so the
    result is right in any case and ``info`` says which it was. Under ``vmap`` both are always computed.

    This pays for long sequences, small states and wide devices. A dense ``A`` takes ``O(T D²)`` memory and
    ``O(T D³)`` work per iteration for a row's state of D numbers.

    Rows must not influence each other: the carry's last axis is the state, all others are rows. For a convolutional
    cell each position counts as a row, which "block" and "diagonal" can use: what neighbours contribute is left out of
    ``A`` alone.

    The gradient is that of the solution, by the implicit function theorem, not of the iterations. The cotangents solve
    ``v_t = s̄_t + A_{t+1}ᵀ v_{t+1}`` with the true Jacobian, also when ``jacobian`` is not "dense": the same iteration,
    whose residuals are products with the true ``Aᵀ``, runs until every step agrees to ``tolerance`` relative to its
    own size, which takes one iteration with a dense ``A``, or else step by step. The gradient has no
    derivative of its own, and ``guess`` gets none.

    Args:
      cell: a ``Cell``, or any function ``(params, carry, x_t) -> (carry, y_t)``, which must read whatever is to be
        differentiated from its arguments.
      params: the cell's parameters.
      carry: initial state, leaves ``[*B, D]`` of one dtype, where D may differ; None for the cell's zero state.
      xs: as in ``unroll``, and so ``lengths``, ``mask``, ``resets``, ``steps``, ``reverse`` and ``time_axis``.
      jacobian: "dense" is the whole of ``A [D, D]`` (DEER). "diagonal" is its diagonal (quasi-DEER), ``O(T D)`` in
        memory. "block" couples the entries that the leaves of the carry have for one channel, such as the pair (h, c)
        of an LSTM; it needs a ``Cell`` whose carry's leaves have one shape. For a ``Cell`` these two differentiate
        every affine map as if its kernel had diagonal blocks: exact for the cells ``rnn``, ``lstm`` and ``gru``, an
        approximation of ``A`` (hence more iterations, the same solution) where channels also mix in other ways. A plain
        function's diagonal costs D products with ``A``, one after the other.
      tolerance: of the residual, absolute, for the states; choose it above the rounding error of the largest state. It
        bounds what is wrong at each step, not what a chaotic cell makes of it later: there, states that all agree with
        the step before can be as far from ``unroll``'s as those are from exact arithmetic. Such a cell takes almost as
        many iterations as steps, so a smaller ``max_iterations`` finds it out.
      max_iterations: converging in the last one counts.
      damping: ``λ ≥ 0``; replaces ``A`` by ``A/(1+λ)``. This is the transition ``(I-K)A`` of the Kalman filter
        that ELK runs for Levenberg-Marquardt steps, with its gain held at ``K = λ/(1+λ)``, the value for a predicted
        covariance of one; the residual itself is not shrunk, so that the first k states stay exact. For cells whose
        corrections overshoot; it slows down the others.
      guess: states to start from, such as those that ``with_carries`` gives at the previous training step: leaves as
        the carry's, with an axis of time. None repeats the initial carry.
      method: of the linear recurrence, see ``linear_scan``: None solves it by a loop on CPU, by a tree elsewhere.

    Returns:
      ``(carry, ys, info)``: carry and outputs as ``unroll`` gives them.

    Raises:
      InputError: for arguments that exclude each other or whose shapes disagree, each named.

    Source: Lim, Zhu, Selfridge and Kasim, *Parallelizing non-linear sequential models over the sequence length*, ICLR
    2024; Gonzalez, Warrington, Smith and Linderman, *Towards Scalable and Stable Parallelization of Nonlinear
    RNNs*, NeurIPS 2024 (convergence, diagonal, damping); Danieli et al., *ParaRNN*, ICLR 2026 (blocks).
    """
    _check(jacobian, tolerance, damping, isinstance(cell, Cell))
    whole = as_cell(cell)
    xs, flags, length = time_major(xs, lengths, mask, resets, steps, time_axis)
    if carry is None:
        carry = zero_carry(whole, params, xs)
    pack, unpack, widths = _packing(carry, jacobian, time_axis)
    zs = whole.project(params, xs, linear.affine)
    if xs is None:
        zs = jax.tree.map(lambda z: jnp.broadcast_to(z, (length, *z.shape)), zs)

    def step(affine: Affine, params: Tree, start: Array, before: Array, inputs: Tree) -> tuple[Array, Tree]:
        after, y_t = advance(whole, affine, params, unpack(start), unpack(before), *inputs)
        return pack(after), y_t

    true_step = functools.partial(step, linear.affine)
    by_channel = isinstance(cell, Cell) and jacobian != "dense"
    model_step = functools.partial(step, _own_channel) if by_channel else true_step
    groups = widths if by_channel else (1,) * sum(widths)
    start = pack(carry)
    initial = jnp.broadcast_to(start, (length, *start.shape))
    if guess is not None:
        initial = _packed_guess(guess, carry, pack, initial.shape, time_axis)
    system = _System(
        true_step, model_step, groups, jacobian, tolerance, max_iterations, damping, method, reverse, length
    )
    inputs = zs, flags
    states, info = _trajectory(system, params, start, inputs, initial)
    _, ys = system.all_steps(true_step, params, start, _before(states, start, reverse), inputs)
    last = states[0 if reverse else -1] if length else start
    return unpack(last), jax.tree.map(lambda y: jnp.moveaxis(y, 0, time_axis), ys), info


def _check(jacobian: str, tolerance: float, damping: float, is_cell: bool) -> None:
    if jacobian not in ("dense", "block", "diagonal"):
        raise InputError(f"newton: jacobian is {jacobian!r}; expected 'dense', 'block' or 'diagonal'.")
    if jacobian == "block" and not is_cell:
        raise InputError("newton: jacobian='block' needs a Cell; choose 'dense' or 'diagonal' for a plain function.")
    if not (tolerance > 0 and damping >= 0):
        raise InputError(f"newton: tolerance {tolerance} and damping {damping}; expected > 0 and >= 0.")


def _packing(carry: Tree, jacobian: str, time_axis: int) -> tuple[Callable, Callable, tuple[int, ...]]:
    """The carry as one array ``[..., D]`` and back, and how many of the D numbers each leaf has."""
    leaves, treedef = jax.tree.flatten(carry)
    shapes = [leaf.shape for leaf in leaves]
    if len({(*leaf.shape[:-1], leaf.dtype) for leaf in leaves}) != 1 or () in shapes:
        raise InputError(
            f"newton: the carry's leaves have shapes {shapes} and dtypes {[str(leaf.dtype) for leaf in leaves]}; "
            "expected [*B, D] with the same *B and one dtype."
        )
    if jacobian == "dense" and time_axis == 1 and len(shapes[0]) != 2:
        raise InputError(
            f"newton: jacobian='dense' and a carry of shapes {shapes}; expected [B, D]. Choose 'block' or 'diagonal' "
            "for a convolutional cell."
        )
    if jacobian == "block" and len(set(shapes)) != 1:
        raise InputError(f"newton: jacobian='block' and a carry of shapes {shapes}; expected one shape for all leaves.")
    widths = tuple(shape[-1] for shape in shapes)
    ends = [sum(widths[: i + 1]) for i in range(len(widths) - 1)]

    def pack(tree: Tree) -> Array:
        return jnp.concatenate(jax.tree.leaves(tree), axis=-1)

    def unpack(packed: Array) -> Tree:
        return jax.tree.unflatten(treedef, jnp.split(packed, ends, axis=-1))

    return pack, unpack, widths


def _packed_guess(guess: Tree, carry: Tree, pack: Callable, shape: tuple[int, ...], time_axis: int) -> Array:
    moved = [jnp.moveaxis(x, time_axis, 0) for x in jax.tree.leaves(guess)]
    if [x.shape for x in moved] != [(shape[0], *leaf.shape) for leaf in jax.tree.leaves(carry)]:
        raise InputError(
            f"newton: guess has shapes {jax.tree.map(jnp.shape, guess)}; expected the carry's, "
            f"{jax.tree.map(jnp.shape, carry)}, each with the {shape[0]} steps at axis {time_axis}."
        )
    return pack(moved)


def _own_channel(bias: Array, kernel: Array, inputs: Array) -> Array:
    """``affine`` in value, but differentiated as if channel j of each block of outputs read channel j alone."""
    outputs = linear.affine(bias, kernel, jax.lax.stop_gradient(inputs))
    features = inputs.shape[-1]
    if kernel.shape[-1] % features:
        return outputs
    centre = kernel[tuple((k - 1) // 2 for k in kernel.shape[:-2])]
    own = jnp.diagonal(centre.reshape(features, -1, features), axis1=0, axis2=2)
    change = inputs - jax.lax.stop_gradient(inputs)
    changes = change[..., None, :] * jnp.broadcast_to(own, (*change.shape[:-1], *own.shape))
    return outputs + changes.reshape(outputs.shape)


def _before(states: Array, start: Array, reverse: bool) -> Array:
    """The state that each step reads."""
    return jnp.concatenate([states, start[None]])[1:] if reverse else jnp.concatenate([start[None], states])[:-1]


def _jacobians(f: Callable[[Array], Array], before: Array, groups: tuple[int, ...], kind: Jacobian) -> Array:
    """``[T, *B, D, D]`` dense, ``[T, *B, D]`` diagonal, ``[T, *B, D/K, K, K]`` for a carry of K leaves.

    A group is so many neighbouring numbers of the state that do not influence each other: one product finds what they
    all do.
    """
    _, product = jax.linearize(f, before)
    identity = jnp.eye(len(groups), dtype=before.dtype)
    probes = jnp.repeat(identity, jnp.array(groups), axis=1, total_repeat_length=sum(groups))

    def column(probe: Array) -> Array:
        return product(jnp.broadcast_to(probe, before.shape))

    if kind == "diagonal":
        own = functools.partial(jnp.broadcast_to, shape=before.shape)
        return jax.lax.scan(lambda sum_, p: (sum_ + own(p) * column(p), None), jnp.zeros_like(before), probes)[0]
    columns = jax.vmap(column, out_axes=-1)(probes)
    return columns if kind == "dense" else _by_channel(columns, -2, len(groups))


def _by_channel(x: Array, axis: int, leaves: int) -> Array:
    """An axis of ``leaves`` x channels as channels x leaves."""
    axis += x.ndim
    x = x.reshape(*x.shape[:axis], leaves, -1, *x.shape[axis + 1 :])
    return x.swapaxes(axis, axis + 1)


def _recurrence(a: Array, b: Array, kind: Jacobian, method: Method | None, reverse: bool) -> Array:
    """``δ_t = A_t δ_{t-1} + b_t`` from ``δ_0 = 0``."""
    if kind == "block":
        deltas = _recurrence(a, _by_channel(b, -1, a.shape[-1]), "dense", method, reverse)
        return deltas.swapaxes(-1, -2).reshape(b.shape)
    return linear_scan(a, b, reverse=reverse, time_axis=0, method=method)[1]


class _System(NamedTuple):
    """The equations ``s_t = f(s_{t-1}, x_t)`` on packed states, and how they are to be solved."""

    true_step: Callable[[Tree, Array, Array, Tree], tuple[Array, Tree]]
    """``f``: ``(params, start, s_{t-1}, inputs of the step) -> (s_t, y_t)``."""
    model_step: Callable[[Tree, Array, Array, Tree], tuple[Array, Tree]]
    """The function that is differentiated for ``A``."""
    groups: tuple[int, ...]
    jacobian: Jacobian
    tolerance: float
    max_iterations: int
    damping: float
    method: Method | None
    reverse: bool
    length: int

    def all_steps(self, step: Callable, params: Tree, start: Array, before: Array, inputs: Tree) -> tuple[Array, Tree]:
        return jax.vmap(step, (None, None, 0, 0), axis_size=self.length)(params, start, before, inputs)

    def jacobians(self, params: Tree, start: Array, before: Array, inputs: Tree) -> Array:
        def f(before: Array) -> Array:
            return self.all_steps(self.model_step, params, start, before, inputs)[0]

        return _jacobians(f, before, self.groups, self.jacobian)


def _solve(
    every: Callable[[Array], Array],
    correction: Callable[[Array, Array], Array],
    sequential: Callable[[], Array],
    error: Callable[[Array, Array], Array],
    guess: Array,
    tolerance: float,
    cap: Int[Array, ""] | int,
) -> tuple[Array, NewtonInfo]:
    """The trajectory with ``every(states) == states``, by corrections or else step by step."""

    def residual_of(states: Array) -> tuple[Array, Array]:
        # A maximum over many numbers on CPU may drop a NaN, so finiteness is asked for. Every state enters a residual.
        residual = every(states) - states
        finite = jnp.all(jnp.isfinite(residual))
        return residual, jnp.where(finite, error(residual, states), jnp.nan)

    def proceed(loop: tuple) -> Array:
        _, _, worst, iterations = loop
        return (worst > tolerance) & (iterations < cap)

    def iterate(loop: tuple) -> tuple:
        states, residual, _, iterations = loop
        corrected = states + correction(states, residual)
        # Below this bound the step itself does not overflow.
        usable = jnp.abs(corrected) < jnp.finfo(corrected.dtype).max ** 0.5
        states = jnp.where(usable, corrected, states + residual)
        return states, *residual_of(states), iterations + 1

    loop = (guess, *residual_of(guess), jnp.int32(0))
    states, _, worst, iterations = jax.lax.while_loop(proceed, iterate, loop)
    converged = worst <= tolerance
    return jax.lax.cond(converged, lambda: states, sequential), NewtonInfo(iterations, worst, converged)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _trajectory(system: _System, params: Tree, start: Array, inputs: Tree, guess: Array) -> tuple[Array, NewtonInfo]:
    """All states, time leading."""
    reverse = system.reverse

    def every(states: Array) -> Array:
        return system.all_steps(system.true_step, params, start, _before(states, start, reverse), inputs)[0]

    def correction(states: Array, residual: Array) -> Array:
        a = system.jacobians(params, start, _before(states, start, reverse), inputs) / (1 + system.damping)
        return _recurrence(a, residual, system.jacobian, system.method, reverse)

    def sequential() -> Array:
        def body(state: Array, x: Tree) -> tuple[Array, Array]:
            state, _ = system.true_step(params, start, state, x)
            return state, state

        return jax.lax.scan(body, start, inputs, length=system.length, reverse=reverse)[1]

    def error(residual: Array, states: Array) -> Array:
        return jnp.max(jnp.abs(residual), initial=0.0)

    return _solve(every, correction, sequential, error, guess, system.tolerance, system.max_iterations)


def _trajectory_forward(system: _System, params: Tree, start: Array, inputs: Tree, guess: Array) -> tuple:
    states, info = _trajectory(system, params, start, inputs, guess)
    return (states, info), (params, start, inputs, states, info.converged)


def _trajectory_backward(system: _System, residuals: tuple, cotangents: tuple[Array, NewtonInfo]) -> tuple:
    params, start, (zs, flags), states, converged = residuals
    d_states, _ = cotangents
    kind, backwards = system.jacobian, not system.reverse
    before = _before(states, start, system.reverse)
    zero = jnp.zeros_like(start)

    def f(params: Tree, start: Array, before: Array, zs: Tree) -> Array:
        return system.all_steps(system.true_step, params, start, before, (zs, flags))[0]

    _, pull = jax.vjp(f, params, start, before, zs)
    a = system.jacobians(params, start, before, (zs, flags))
    a = a if kind == "diagonal" else a.swapaxes(-1, -2)

    # At the place of step t, w is what comes back from it to the state before: w_{t-1} = A_tᵀ (s̄_t + w_t).
    def every(w: Array) -> Array:
        return pull(d_states + _before(w, zero, backwards))[2]

    def correction(w: Array, residual: Array) -> Array:
        return _recurrence(a, residual, kind, system.method, backwards)

    def sequential() -> Array:
        def body(w: Array, at: tuple) -> tuple[Array, Array]:
            before, d_state, x = at
            _, vjp = jax.vjp(lambda s: system.true_step(params, start, s, x)[0], before)
            w = vjp(d_state + w)[0]
            return w, w

        return jax.lax.scan(body, zero, (before, d_states, (zs, flags)), reverse=backwards)[1]

    def error(residual: Array, w: Array) -> Array:
        return _relative(residual, w, jnp.abs(d_states) + jnp.abs(_before(w, zero, backwards)), system.tolerance)

    cap = jnp.where(converged, system.max_iterations, 0)
    # The barrier keeps the compiler from evaluating the first residual of a constant by itself, slowly.
    nothing = jax.lax.optimization_barrier(jnp.zeros_like(states))
    w, _ = _solve(every, correction, sequential, error, nothing, system.tolerance, cap)
    d_params, d_start, d_before, d_zs = pull(d_states + _before(w, zero, backwards))
    if system.length:
        d_start = d_start + d_before[-1 if system.reverse else 0]
    return d_params, d_start, (d_zs, None), None


_trajectory.defvjp(_trajectory_forward, _trajectory_backward)


def _relative(residual: Array, w: Array, terms: Array, tolerance: float) -> Array:
    """The largest residual relative to its own step's ``w``, so that a gradient which vanishes towards the first steps
    is right there too. What rounding leaves of the terms that ``w`` comes from is not held against it."""

    def size(x: Array) -> Array:
        return jnp.max(jnp.abs(x), axis=-1, initial=0.0)

    kind = jnp.finfo(w.dtype)
    rounding = 16 * kind.eps / tolerance * size(terms)
    return jnp.max(size(residual) / (size(w) + rounding + kind.tiny / kind.eps), initial=0.0)
