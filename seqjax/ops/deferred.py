"""Recurrences in one loop, differentiated by autodiff or with every weight gradient formed after the backward loop."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from seqjax.ops import linear
from seqjax.ops.recurrence import Cell, Flags, Tree, add, advance, affine_of_steps, restart, where, zeros_like

Saved = Literal["products", "carries"]
Run = Callable[[Tree, Tree, Tree, Tree, Flags], tuple[Tree, Tree]]
"""``run(params, start, carry, xs, flags) -> (carry, ys)``, time leading; resets go to ``start``."""


class Loop(NamedTuple):
    """How a recurrence is looped over."""

    length: int
    """Steps."""
    reverse: bool
    """Whether the last step is the first to run."""
    unroll: int
    """Steps in the body of the compiled loop."""
    hoist: bool
    """Whether the inputs of all steps are projected before the loop, or each step's inside it."""

    def over(self, body: Callable, carry: Tree, inputs: Tree, *, backwards: bool = False) -> tuple[Tree, Tree]:
        """``lax.scan`` in this loop's order, or in the opposite one."""
        return jax.lax.scan(
            body, carry, inputs, length=self.length, reverse=self.reverse is not backwards, unroll=self.unroll
        )

    def project(self, cell: Cell, params: Tree, xs: Tree) -> Tree:
        """The projected inputs of all steps."""
        zs = cell.project(params, xs, affine_of_steps)
        return zs if xs is not None else jax.tree.map(lambda z: jnp.broadcast_to(z, (self.length, *z.shape)), zs)

    def enter(self, cell: Cell, params: Tree, x_t: Tree) -> Tree:
        """A step's projected input."""
        return x_t if self.hoist else cell.project(params, x_t, linear.affine)


def autodiff(cell: Cell, loop: Loop) -> Run:
    """One ``lax.scan``, differentiated as such: it saves what each operation of the step needs for its derivative."""

    def run(params: Tree, start: Tree, carry: Tree, xs: Tree, flags: Flags) -> tuple[Tree, Tree]:
        def body(carry: Tree, inputs: tuple[Tree, Flags]) -> tuple[Tree, Tree]:
            x_t, flag = inputs
            z_t = loop.enter(cell, params, x_t)
            return advance(cell, linear.affine, params, start, carry, z_t, flag)

        return loop.over(body, carry, (loop.project(cell, params, xs) if loop.hoist else xs, flags))

    return run


def deferred(cell: Cell, loop: Loop, saved: Saved, evaluate: Run) -> Run:
    """The values of ``evaluate``, which runs where no gradient is asked for, with no weight gradient in the loops.

    The forward loop stores, per step, the carry that the cell read and the value of each of its affine maps; or the
    carry alone, and the values of all steps are computed again side by side before the backward loop. This one replays
    the step around those values and emits the cotangent ``ā_t`` of each. After the loop ``W̄ = Σ_t ā_t x_tᵀ`` is one
    contraction over time and batch.
    """
    return functools.partial(_run, _Plan(cell, loop, saved, evaluate))


class _Plan(NamedTuple):
    cell: Cell
    loop: Loop
    saved: Saved
    evaluate: Run


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(plan: _Plan, params: Tree, start: Tree, carry: Tree, xs: Tree, flags: Flags) -> tuple[Tree, Tree]:
    return plan.evaluate(params, start, carry, xs, flags)


def _forward(plan: _Plan, params: Tree, start: Tree, carry: Tree, xs: Tree, flags: Flags) -> tuple[Tree, Tree]:
    cell, loop, saved, _ = plan

    def body(carry: Tree, inputs: tuple[Tree, Flags]) -> tuple[Tree, Tree]:
        x_t, flag = inputs
        z_t = loop.enter(cell, params, x_t)
        before = restart(flag, start, carry)
        tape = _Tape()
        new, y_t = cell.step(params, before, z_t, tape.record)
        kept = (tuple(tape.values), None if loop.hoist else z_t) if saved == "products" else None
        return where(flag.valid, new, carry), (where(flag.valid, y_t, zeros_like(y_t)), before, kept)

    zs = loop.project(cell, params, xs) if loop.hoist else xs
    carry, (ys, befores, kept) = loop.over(body, carry, (zs, flags))
    if kept is not None and loop.hoist:
        kept = kept[0], zs
    return (carry, ys), (params, xs, befores, flags, kept)


def _backward(plan: _Plan, residuals: Tree, cotangents: tuple[Tree, Tree]) -> tuple[Tree, ...]:
    cell, loop, _, _ = plan
    params, xs, befores, flags, kept = residuals
    d_carry, d_ys = cotangents
    projected, project_vjp = jax.vjp(functools.partial(loop.project, cell), params, xs)
    if kept is None:
        again = functools.partial(_values, cell, params)
        kept = jax.vmap(again)(befores, projected), projected
    values, zs = kept
    one_step = jax.tree.map(lambda x: x[0], (befores, zs))
    kernels, kernels_vjp = jax.vjp(lambda p: _kernels(cell, p, *one_step), params)
    direct = _bias_alone(cell, params, *one_step)

    def body(sums: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        d_carry, d_start, d_params = sums
        before, z_t, flag, value, d_y = inputs

        def replay(params: Tree, before: Tree, z_t: Tree, taps: list[Array]) -> tuple[Tree, Tree]:
            return cell.step(params, before, z_t, _Tape(kernels, value, taps).replay)

        _, step_vjp = jax.vjp(replay, params, before, z_t, [jnp.zeros_like(v) for v in value])
        zeros = zeros_like(d_carry)
        d_new, d_kept = where(flag.valid, d_carry, zeros), where(flag.valid, zeros, d_carry)
        d_p, d_before, d_z, d_value = step_vjp((d_new, where(flag.valid, d_y, zeros_like(d_y))))
        if flag.reset is not None:
            d_start = add(d_start, where(flag.reset, d_before, zeros))
            d_before = where(flag.reset, zeros, d_before)
        d_carry = d_before if flag.valid is None else add(d_before, d_kept)
        return (d_carry, d_start, add(d_params, d_p)), (d_z if direct is None else None, d_value)

    sums = (d_carry, zeros_like(d_carry), zeros_like(params))
    inputs = (befores, zs, flags, values, d_ys)
    (d_carry, d_start, d_params), (d_zs, d_values) = loop.over(body, sums, inputs, backwards=True)

    reads = jax.vmap(functools.partial(_inputs, cell, params, kernels))(befores, zs, values)
    d_kernels = [_kernel_gradient(*map_) for map_ in zip(kernels, reads, d_values, strict=True)]
    d_projected, d_xs = project_vjp(d_zs if direct is None else d_values[direct])
    d_params = add(add(d_params, kernels_vjp(d_kernels)[0]), d_projected)
    return d_params, d_start, d_carry, d_xs, None


_run.defvjp(_forward, _backward)


class _Tape:
    """What a cell's affine maps do in one step: their inputs, in call order, and their values on replay."""

    def __init__(self, kernels: Any = (), values: Any = (), taps: Any = ()):
        self.recorded = list(zip(kernels, values, taps, strict=True))
        self.kernels: list[Array] = []
        self.inputs: list[Array] = []
        self.values: list[Array] = []

    def record(self, bias: Array, kernel: Array, inputs: Array) -> Array:
        self.kernels.append(kernel)
        self.values.append(linear.affine(bias, kernel, inputs))
        return self.values[-1]

    def replay(self, bias: Array, kernel: Array, inputs: Array) -> Array:
        """The recorded value, with the map's own gradient. The kernel recorded outside the loop stands in for the
        argument, so that the step's gradient with respect to its parameters leaves the kernel out."""
        kernel, value, tap = self.recorded[len(self.inputs)]
        self.inputs.append(inputs)
        return _replayed(bias, kernel, inputs, value, tap)


@jax.custom_vjp
def _replayed(bias: Array, kernel: Array, inputs: Array, value: Array, tap: Array) -> Array:
    """``value``, known to equal ``affine(bias, kernel, inputs)``, differentiated as that; ``tap`` has its cotangent."""
    return value


def _replayed_forward(bias: Array, kernel: Array, inputs: Array, value: Array, tap: Array) -> tuple:
    return value, (bias, kernel, inputs)


def _replayed_backward(residuals: tuple, cotangent: Array) -> tuple:
    _, vjp = jax.vjp(linear.affine, *residuals)
    return *vjp(cotangent), jnp.zeros_like(cotangent), cotangent


_replayed.defvjp(_replayed_forward, _replayed_backward)


def _kernels(cell: Cell, params: Tree, carry: Tree, z_t: Tree) -> list[Array]:
    """The kernels of the step's affine maps, in call order, as functions of the parameters alone."""
    tape = _Tape()
    cell.step(params, jax.lax.stop_gradient(carry), jax.lax.stop_gradient(z_t), tape.record)
    return tape.kernels


def _values(cell: Cell, params: Tree, carry: Tree, z_t: Tree) -> tuple[Array, ...]:
    """The values of the step's affine maps, in call order."""
    tape = _Tape()
    cell.step(params, carry, z_t, tape.record)
    return tuple(tape.values)


def _inputs(
    cell: Cell, params: Tree, kernels: list[Array], carry: Tree, z_t: Tree, values: tuple[Array, ...]
) -> list[Array]:
    """What the step's affine maps read, in call order, around their values."""
    tape = _Tape(kernels, values, values)
    cell.step(params, carry, z_t, tape.replay)
    return tape.inputs


def _bias_alone(cell: Cell, params: Tree, carry: Tree, z_t: Tree) -> int | None:
    """Which affine map of the step, in call order, has ``z_t`` for its bias, if nothing else reads it: the cotangent of
    that map's value is then that of ``z_t`` too."""
    if not isinstance(z_t, jax.Array):
        return None
    places: list[int | None] = []

    def step(z_t: Array) -> tuple[Tree, Tree]:
        tape = _Tape()

        def watch(bias: Array, kernel: Array, inputs: Array) -> Array:
            value = tape.record(jnp.zeros_like(bias) if bias is z_t else bias, kernel, inputs)
            if bias is z_t:
                places.append(len(tape.values) - 1 if value.shape == z_t.shape else None)
            return value

        return cell.step(params, carry, z_t, watch)

    jaxpr = jax.make_jaxpr(step)(z_t).jaxpr
    read = {id(v) for eqn in jaxpr.eqns for v in eqn.invars} | {id(v) for v in jaxpr.outvars}
    return places[0] if len(places) == 1 and id(jaxpr.invars[0]) not in read else None


def _kernel_gradient(kernel: Array, xs: Array, d_values: Array) -> Array:
    zero = jnp.zeros((), d_values.dtype)
    _, vjp = jax.vjp(lambda kernel: affine_of_steps(zero, kernel, xs), kernel)
    return vjp(d_values)[0]
