"""One scan for every cell: masks, lengths, resets, reverse, bounded memory, and the weight gradient after the loop."""

import functools
import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from seqjax.errors import InputError
from seqjax.ops import linear
from seqjax.ops.deferred import Loop, Run, Saved, autodiff, deferred
from seqjax.ops.linear_scan import LinearStep
from seqjax.ops.newton import newton
from seqjax.ops.recurrence import Cell, Flags, Step, Tree, as_cell, as_computed, time_major, zero_carry

Method = Literal["sequential", "associative", "newton"]
WeightGradient = Literal["deferred", "autodiff"]


def unroll(
    cell: Cell | Step,
    params: Tree,
    carry: Tree | None,
    xs: Tree,
    *,
    lengths: Int[Array, "*B"] | None = None,
    mask: Bool[Array, "..."] | None = None,
    resets: Bool[Array, "..."] | None = None,
    reset_carry: Tree | None = None,
    steps: int | None = None,
    reverse: bool = False,
    time_axis: int = 1,
    method: Method | None = None,
    remat: int | Literal["sqrt"] | None = None,
    unroll: int = 1,
    hoist: bool | None = None,
    weight_gradient: WeightGradient = "deferred",
    saved: Saved = "products",
) -> tuple[Tree, Tree]:
    """Run a cell over time: ``h_t, y_t = f(θ, h_{t-1}, x_t)``; returns the last carry and all outputs.

    A step that is not valid (past its row's length, or masked out) leaves the carry as it was and has output zero;
    what its input holds, even NaN, changes neither values nor gradients. So the carry that comes back is the one
    after each row's last valid step, and a row of length 0 returns its initial carry.

    Args:
      cell: a ``Cell``, or any function ``(params, carry, x_t) -> (carry, y_t)``; a plain function is differentiated
        by autodiff and needs ``carry``.
      params: the cell's parameters. Where a ``Cell``'s have one floating-point dtype, floating-point inputs and states
        are cast to it, and so it is what everything is computed in.
      carry: initial state, leaves ``[*B, ...]``; None for the cell's zero state.
      xs: inputs, leaves ``[*B, T, ...]`` with one leading dimension before time when ``time_axis`` is 1, or
        ``[T, *B, ...]`` when it is 0. None for a cell without input, with ``steps`` and ``carry`` given.
      lengths: ``[*B]``: step t of a row is valid when t < its length. Excludes ``mask``.
      mask: ``[*B, T]`` or ``[T, *B]`` as ``time_axis`` says: True where a step is valid; holes are allowed.
      resets: as ``mask``: where True and valid, the row starts this step from ``reset_carry``.
      reset_carry: leaves ``[*B, ...]``; the initial carry unless given. A sequence that goes on from the carry of an
        earlier call wants the state of a new sequence here.
      steps: the number of steps T, needed only when ``xs`` is None.
      reverse: run from the last step to the first; outputs stay at the places of their inputs, so padding stays at
        the end, and the carry that comes back is the one after each row's first valid step.
      time_axis: the axis of time in ``xs``, ``mask``, ``resets`` and the outputs: 0 or 1.
      method: "sequential" loops over the steps. "associative" is for cells whose state is linear, those with a
        ``LinearStep``: all states from one tree of ``O(log T)`` dependent steps, everything else for all steps at
        once. "newton" is for any cell: ``seqjax.ops.newton.newton`` with its defaults, which says more if called
        itself; it has no ``remat`` and no ``reset_carry``, and the options after ``remat`` mean nothing to it. None
        loops; linear cells with a deferred gradient it runs as ``linear_scan`` chooses.
      remat: None stores every step for the gradient; a chunk length stores one carry per chunk and recomputes the
        rest, chunk by chunk; "sqrt" chooses ⌈√T⌉, for O(√T) memory at the price of one more forward pass.
      unroll: how many steps the compiled loop holds in its body.
      hoist: True projects the inputs of all steps before the loop, in one product whose result is as large as all
        gates of all steps; False projects each step's inside the loop. None chooses: inside on CPU, from 8 rows of
        dense inputs, or from 1,024 positions of convolutional ones.
      weight_gradient: "deferred" forms each weight's gradient in one contraction over all steps after the backward
        loop; "autodiff" adds it up step by step, as differentiating ``jax.lax.scan`` does, and saves all that the
        step's operations want, gate activations too. Equal to rounding; forward-mode differentiation needs "autodiff".
      saved: what the deferred gradient keeps of each step: "products" keeps the carry and the values of the affine
        maps, and computes the gates' activations again; "carries" keeps the carry alone and computes the products
        again too, those of all steps at once: less is kept between the passes, as a stack of layers feels, while the
        peak of a single one grows (``experiments.bench.long_sequences``). ``remat`` bounds both.

    Returns:
      ``(carry, ys)``: leaves ``[*B, ...]`` and ``[*B, T, ...]`` (or ``[T, *B, ...]``). No history of carries is
      kept: a cell whose output is its carry gives one (``with_carries``).

    Raises:
      InputError: for arguments that exclude each other or whose shapes disagree, each named.
    """
    _one_of("method", method, (None, *get_args(Method)))
    _one_of("weight_gradient", weight_gradient, get_args(WeightGradient))
    _one_of("saved", saved, get_args(Saved))
    if isinstance(cell, Cell):
        xs, carry, reset_carry = as_computed(params, (xs, carry, reset_carry))
    if method == "newton":
        _refuse("newton", remat=remat, reset_carry=reset_carry)
        solve = functools.partial(newton, lengths=lengths, mask=mask, resets=resets, steps=steps)
        return solve(cell, params, carry, xs, reverse=reverse, time_axis=time_axis)[:2]
    whole = as_cell(cell)
    if method == "associative" and not isinstance(whole.step, LinearStep):
        raise InputError(
            "unroll: method is 'associative', and the cell's step is no LinearStep, so its next state may not be "
            "linear in its state; give min_gru, min_lstm, lru or a cell of your own with a LinearStep, or choose "
            "'newton'."
        )
    xs, flags, length = time_major(xs, lengths, mask, resets, steps, time_axis)
    if carry is None:
        carry = zero_carry(whole, params, xs)
    start = carry if reset_carry is None else reset_carry
    if remat is not None and xs is None:
        raise InputError("unroll: remat needs inputs; a cell without input (xs=None) stores one carry per step.")
    chunk = length if remat is None else _chunk_length(remat, length)
    in_autodiff = weight_gradient == "autodiff" or not isinstance(cell, Cell)

    loop = Loop(chunk, reverse, unroll, _hoists(xs) if hoist is None else hoist or xs is None)
    run = autodiff(whole, loop)
    if isinstance(whole.step, LinearStep) and (method == "associative" or (method is None and not in_autodiff)):
        run = _over_time(whole, whole.step, method, loop)
    elif not in_autodiff:
        run = deferred(whole, loop, saved, run)
    if remat is not None:
        run = _in_chunks(run, chunk, length, reverse)
    carry, ys = run(params, start, carry, xs, flags)
    return carry, jax.tree.map(lambda y: jnp.moveaxis(y, 0, time_axis), ys)


def _one_of(name: str, value: object, choices: tuple) -> None:
    if value not in choices:
        raise InputError(f"unroll: {name} is {value!r}; expected one of {', '.join(map(repr, choices))}.")


def _refuse(method: str, **arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise InputError(f"unroll: method is {method!r}, which takes no {name}; {name} is {value!r}.")


def _hoists(xs: Tree) -> bool:
    """On CPU a projected sequence that leaves the cache costs more than one large product saves, unless a step's own
    product is very small: measured on two cores, see ``experiments.bench.recurrent``."""
    if jax.default_backend() != "cpu" or xs is None:
        return True

    def gains(x: Array) -> bool:
        positions = math.prod(x.shape[1:-1])
        return positions < (8 if x.ndim <= 3 else 1024)

    return any(gains(x) for x in jax.tree.leaves(xs))


def _over_time(cell: Cell, step: LinearStep, method: Literal["associative"] | None, loop: Loop) -> Run:
    """All steps of a linear cell at once."""

    def run(params: Tree, start: Tree, carry: Tree, xs: Tree, flags: Flags) -> tuple[Tree, Tree]:
        zs = loop.project(cell, params, xs)
        return step.over_time(params, start, carry, zs, flags, linear.affine, reverse=loop.reverse, method=method)

    return run


def _chunk_length(remat: int | str, length: int) -> int:
    chunk = math.ceil(math.sqrt(length)) if remat == "sqrt" else remat
    if not isinstance(chunk, int) or chunk < 1:
        raise InputError(f"unroll: remat is {remat!r}; expected None, 'sqrt' or a chunk length of at least 1.")
    return chunk


def _in_chunks(run: Run, chunk: int, length: int, reverse: bool) -> Run:
    """``run`` over chunks of time, each recomputed in the backward pass from the carry at its start."""
    count = -(-length // chunk)
    extra = count * chunk - length

    def split(x: Array) -> Array:
        padded = jnp.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1))
        return padded.reshape(count, chunk, *x.shape[1:])

    def whole(params: Tree, start: Tree, carry: Tree, xs: Tree, flags: Flags) -> tuple[Tree, Tree]:
        if extra and flags.valid is None:
            batch = jax.tree.leaves(carry)[0].shape[:1]
            flags = flags._replace(valid=jnp.ones((length, *batch), bool))

        def body(carry: Tree, inputs: tuple[Tree, Flags]) -> tuple[Tree, Tree]:
            return jax.checkpoint(run, prevent_cse=False)(params, start, carry, *inputs)

        carry, ys = jax.lax.scan(body, carry, jax.tree.map(split, (xs, flags)), reverse=reverse)
        return carry, jax.tree.map(lambda y: y.reshape(count * chunk, *y.shape[2:])[:length], ys)

    return whole
