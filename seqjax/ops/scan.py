"""One scan for every cell: masks, lengths, resets, reverse, bounded memory, and the weight gradient after the loop."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from seqjax.errors import InputError
from seqjax.ops import linear

Tree = Any
"""A pytree of arrays: the parameters, the carry, the inputs or the outputs of a cell."""
Affine = Callable[[Array, Array, Array], Array]
"""``affine(bias, kernel, inputs)``: the map of ``seqjax.ops.linear``, handed to a cell by whoever runs it."""
Step = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
"""A plain step ``(params, carry, x_t) -> (carry, y_t)``."""

WeightGradient = Literal["deferred", "autodiff"]


class Cell(NamedTuple):
    """A recurrent cell as data: four pure functions that the scan puts together.

    A step is ``step(params, carry, project(params, x_t, affine), affine)``. What does not read the carry belongs in
    ``project``, which the scan calls once for all steps. Every product with a weight matrix goes through
    ``affine``, so that whoever runs the cell can choose how it is computed and form its weight gradient in one
    contraction over all steps, after the backward loop.
    """

    init: Callable[..., Tree]
    """``init(key, in_features, features, **options) -> params``."""
    carry: Callable[[Tree, tuple[int, ...]], Tree]
    """``carry(params, shape) -> carry``: the zero state for leading and spatial dimensions ``shape``."""
    project: Callable[[Tree, Tree, Affine], Tree]
    """``project(params, xs, affine) -> zs``, for any leading dimensions; ``xs`` is None for a cell without input."""
    step: Callable[[Tree, Tree, Tree, Affine], tuple[Tree, Tree]]
    """``step(params, carry, z_t, affine) -> (carry, y_t)``."""


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
    remat: int | Literal["sqrt"] | None = None,
    unroll: int = 1,
    weight_gradient: WeightGradient = "deferred",
    implementation: linear.Implementation | None = None,
) -> tuple[Tree, Tree]:
    """Run a cell over time: ``h_t, y_t = f(θ, h_{t-1}, x_t)``; returns the last carry and all outputs.

    A step that is not valid (past its row's length, or masked out) leaves the carry as it was and has output zero;
    what its input holds, even NaN, changes neither values nor gradients. So the carry that comes back is the one
    after each row's last valid step, and a row of length 0 returns its initial carry.

    Args:
      cell: a ``Cell``, or any function ``(params, carry, x_t) -> (carry, y_t)``; a plain function is differentiated
        by autodiff and needs ``carry``.
      params: the cell's parameters.
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
      remat: None stores every step for the gradient; a chunk length stores one carry per chunk and recomputes the
        rest, chunk by chunk; "sqrt" chooses ⌈√T⌉, for O(√T) memory at the price of one more forward pass.
      unroll: how many steps the compiled loop holds in its body.
      weight_gradient: "deferred" forms each weight's gradient in one contraction over all steps after the backward
        loop; "autodiff" adds it up step by step, as differentiating ``jax.lax.scan`` does. Equal to rounding;
        forward-mode differentiation needs "autodiff".
      implementation: of the convolutions inside the loop, see ``seqjax.ops.linear.affine``; None chooses "patches"
        on CPU for small kernels and "xla" elsewhere.

    Returns:
      ``(carry, ys)``: leaves ``[*B, ...]`` and ``[*B, T, ...]`` (or ``[T, *B, ...]``). No history of carries is
      kept: a cell whose output is its carry gives one (``with_carries``).

    Raises:
      InputError: for arguments that exclude each other or whose shapes disagree, each named.
    """
    cell, weight_gradient = _as_cell(cell, weight_gradient)
    xs, valid, resets, length = _time_major(xs, lengths, mask, resets, steps, time_axis)
    in_loop = functools.partial(_affine, implementation)
    after = in_loop if remat is not None else linear.affine
    if carry is None:
        carry = _zero_carry(cell, params, xs)
    start = carry if reset_carry is None else reset_carry

    def segment(params: Tree, start: Tree, carry: Tree, xs: Tree, flags: Tree) -> tuple[Tree, Tree]:
        zs = cell.project(params, xs, after)
        if xs is None:
            zs = jax.tree.map(lambda z: jnp.broadcast_to(z, (length, *z.shape)), zs)
        run = _deferred if weight_gradient == "deferred" else _scan
        scan = functools.partial(jax.lax.scan, length=length if remat is None else None, unroll=unroll)
        return run(cell, in_loop, after, scan, reverse)(params, start, carry, zs, flags)

    flags = Flags(valid, resets)
    if remat is None:
        carry, ys = segment(params, start, carry, xs, flags)
    else:
        if xs is None:
            raise InputError("unroll: remat needs inputs; a cell without input (xs=None) stores one carry per step.")
        carry, ys = _in_chunks(segment, params, start, carry, xs, flags, length, remat, reverse)
    return carry, jax.tree.map(lambda y: jnp.moveaxis(y, 0, time_axis), ys)


def with_carries(cell: Cell) -> Cell:
    """The same cell whose output is ``(y_t, carry_t)``: unrolling it keeps the history of carries."""

    def step(params: Tree, carry: Tree, z_t: Tree, affine: Affine) -> tuple[Tree, Tree]:
        carry, y_t = cell.step(params, carry, z_t, affine)
        return carry, (y_t, carry)

    return cell._replace(step=step)


class Flags(NamedTuple):
    """What happens at each step besides the cell, ``[T, *B]`` each, or None where nothing does."""

    valid: Bool[Array, "T ..."] | None
    reset: Bool[Array, "T ..."] | None


def _affine(implementation: linear.Implementation | None, bias: Array, kernel: Array, inputs: Array) -> Array:
    if implementation is None:
        small = math.prod(kernel.shape[:-2]) <= 25
        implementation = "patches" if small and jax.default_backend() == "cpu" else "xla"
    return linear.affine(bias, kernel, inputs, implementation=implementation)


def _as_cell(cell: Cell | Step, weight_gradient: WeightGradient) -> tuple[Cell, WeightGradient]:
    if isinstance(cell, Cell):
        return cell, weight_gradient

    def no_carry(params: Tree, shape: tuple[int, ...]) -> Tree:
        raise InputError("unroll: carry is None; a plain step function has no zero state, so give its initial carry.")

    plain = Cell(no_carry, no_carry, lambda params, xs, affine: xs, lambda p, c, x_t, affine: cell(p, c, x_t))
    return plain, "autodiff"


def _zero_carry(cell: Cell, params: Tree, xs: Tree) -> Tree:
    if xs is None:
        raise InputError("unroll: carry and xs are both None; give the initial carry of a cell without input.")
    z_t = jax.eval_shape(lambda p, x: cell.project(p, x, linear.affine), params, jax.tree.map(lambda x: x[0], xs))
    return cell.carry(params, jax.tree.leaves(z_t)[0].shape[:-1])


def _time_major(
    xs: Tree,
    lengths: Array | None,
    mask: Array | None,
    resets: Array | None,
    steps: int | None,
    time_axis: int,
) -> tuple[Tree, Array | None, Array | None, int]:
    """Inputs and flags with time leading, padded inputs made harmless, and the number of steps."""
    if time_axis not in (0, 1):
        raise InputError(f"unroll: time_axis is {time_axis}; expected 0 ([T, *B, ...]) or 1 ([B, T, ...]).")
    if lengths is not None and mask is not None:
        raise InputError("unroll: both lengths and mask are given; give one (a mask can say all that lengths say).")
    xs = jax.tree.map(lambda x: jnp.moveaxis(x, time_axis, 0), xs)
    found = {f"xs{jax.tree_util.keystr(path)}": x.shape[0] for path, x in jax.tree_util.tree_leaves_with_path(xs)}
    if steps is not None:
        found["steps"] = steps
    flags = {}
    for name, flag in {"mask": mask, "resets": resets}.items():
        if flag is not None and flag.ndim <= time_axis:
            raise InputError(f"unroll: {name} has shape {flag.shape}; expected one flag per row and step, [*B, T].")
        flags[name] = None if flag is None else jnp.moveaxis(flag, time_axis, 0)
        if flag is not None:
            found[name] = flag.shape[time_axis]
    if len(set(found.values())) != 1:
        raise InputError(
            f"unroll: the number of steps, read from axis {time_axis}, is {found or 'unknown'}; expected one number "
            "for all of xs, mask and resets, or steps alone for a cell without input (xs=None)."
        )
    length = next(iter(found.values()))
    valid = flags["mask"]
    if lengths is not None:
        valid = jnp.arange(length, dtype=lengths.dtype).reshape(-1, *[1] * lengths.ndim) < lengths[None]
    if valid is not None:
        xs = _where(valid, xs, jax.tree.map(jnp.zeros_like, xs))
    return xs, valid, flags["resets"], length


def _where(flag: Array | None, yes: Tree, no: Tree) -> Tree:
    """``yes`` where the flag holds, leaf by leaf; the flag's dimensions are the leading ones of every leaf."""
    if flag is None:
        return yes

    def choose(a: Array, b: Array) -> Array:
        if a.shape[: flag.ndim] != flag.shape:
            raise InputError(
                f"unroll: lengths, mask or resets have batch shape {flag.shape}, which the carry, inputs or outputs "
                f"of shape {a.shape} do not lead with; expected lengths [*B], mask and resets [*B, T] for leaves "
                "[*B, ...]."
            )
        return jnp.where(flag.reshape(*flag.shape, *[1] * (a.ndim - flag.ndim)), a, b)

    return jax.tree.map(choose, yes, no)


def _zeros_like(tree: Tree) -> Tree:
    return jax.tree.map(jnp.zeros_like, tree)


def _add(a: Tree, b: Tree) -> Tree:
    return jax.tree.map(jnp.add, a, b)


def _scan(cell: Cell, in_loop: Affine, after: Affine, scan: Callable, reverse: bool) -> Callable:
    """``run(params, start, carry, zs, flags) -> (carry, ys)`` as one ``lax.scan``."""

    def run(params: Tree, start: Tree, carry: Tree, zs: Tree, flags: Flags) -> tuple[Tree, Tree]:
        def body(carry: Tree, inputs: tuple[Tree, Flags]) -> tuple[Tree, Tree]:
            z_t, flag = inputs
            before = carry if flag.reset is None else _where(flag.reset, start, carry)
            new, y_t = cell.step(params, before, z_t, in_loop)
            return _where(flag.valid, new, carry), _where(flag.valid, y_t, _zeros_like(y_t))

        return scan(body, carry, (zs, flags), reverse=reverse)

    return run


def _deferred(cell: Cell, in_loop: Affine, after: Affine, scan: Callable, reverse: bool) -> Callable:
    """As ``_scan``, with a gradient whose loop carries no weight gradient.

    The forward loop stores, per step, the carry that the cell read and the value of each of its affine maps. The
    backward loop replays the step around those values (no product is computed twice) and emits the cotangent ``ā_t``
    of each map's value. After the loop ``W̄ = Σ_t ā_t x_tᵀ`` is one contraction over time and batch.
    """

    @jax.custom_vjp
    def run(params: Tree, start: Tree, carry: Tree, zs: Tree, flags: Flags) -> tuple[Tree, Tree]:
        return _scan(cell, in_loop, after, scan, reverse)(params, start, carry, zs, flags)

    def forward(params: Tree, start: Tree, carry: Tree, zs: Tree, flags: Flags) -> tuple[Tree, Tree]:
        def body(carry: Tree, inputs: tuple[Tree, Flags]) -> tuple[Tree, Tree]:
            z_t, flag = inputs
            before = carry if flag.reset is None else _where(flag.reset, start, carry)
            tape = _Tape(in_loop)
            new, y_t = cell.step(params, before, z_t, tape.record)
            y_t = _where(flag.valid, y_t, _zeros_like(y_t))
            return _where(flag.valid, new, carry), (y_t, before, tuple(tape.values))

        carry, (ys, befores, values) = scan(body, carry, (zs, flags), reverse=reverse)
        return (carry, ys), (params, befores, zs, flags, values)

    def backward(residuals: Tree, cotangents: tuple[Tree, Tree]) -> tuple[Tree, ...]:
        params, befores, zs, flags, values = residuals
        d_carry, d_ys = cotangents
        one_step = jax.tree.map(lambda x: x[0], (befores, zs))
        kernels, kernels_vjp = jax.vjp(lambda p: _kernels(cell, in_loop, p, *one_step), params)

        def body(sums: tuple, inputs: tuple) -> tuple[tuple, tuple]:
            d_carry, d_start, d_params = sums
            before, z_t, flag, value, d_y = inputs

            def replay(params: Tree, before: Tree, z_t: Tree, taps: list[Array]) -> tuple[Tree, Tree]:
                return cell.step(params, before, z_t, _Tape(in_loop, kernels, value, taps).replay)

            _, step_vjp = jax.vjp(replay, params, before, z_t, [jnp.zeros_like(v) for v in value])
            zeros = _zeros_like(d_carry)
            d_new, d_kept = _where(flag.valid, d_carry, zeros), _where(flag.valid, zeros, d_carry)
            d_p, d_before, d_z, d_value = step_vjp((d_new, _where(flag.valid, d_y, _zeros_like(d_y))))
            if flag.reset is not None:
                d_start = _add(d_start, _where(flag.reset, d_before, zeros))
                d_before = _where(flag.reset, zeros, d_before)
            d_carry = d_before if flag.valid is None else _add(d_before, d_kept)
            return (d_carry, d_start, _add(d_params, d_p)), (d_z, d_value)

        sums = (d_carry, _zeros_like(d_carry), _zeros_like(params))
        inputs = (befores, zs, flags, values, d_ys)
        (d_carry, d_start, d_params), (d_zs, d_values) = scan(body, sums, inputs, reverse=not reverse)

        def map_inputs(before: Tree, z_t: Tree, value: tuple[Array, ...]) -> list[Array]:
            tape = _Tape(in_loop, kernels, value, value)
            cell.step(params, before, z_t, tape.replay)
            return tape.inputs

        xs = jax.vmap(map_inputs)(befores, zs, values)
        d_kernels = [_kernel_gradient(after, *map_) for map_ in zip(kernels, xs, d_values, strict=True)]
        return _add(d_params, kernels_vjp(d_kernels)[0]), d_start, d_carry, d_zs, None

    run.defvjp(forward, backward)
    return run


class _Tape:
    """What a cell's affine maps do in one step: their inputs, in call order, and their values on replay."""

    def __init__(self, affine: Affine, kernels: Any = (), values: Any = (), taps: Any = ()):
        self.affine = affine
        self.recorded = list(zip(kernels, values, taps, strict=True))
        self.kernels: list[Array] = []
        self.inputs: list[Array] = []
        self.values: list[Array] = []

    def record(self, bias: Array, kernel: Array, inputs: Array) -> Array:
        self.kernels.append(kernel)
        self.values.append(self.affine(bias, kernel, inputs))
        return self.values[-1]

    def replay(self, bias: Array, kernel: Array, inputs: Array) -> Array:
        """The recorded value, with the map's own gradient. The kernel recorded outside the loop stands in for the
        argument, so that the step's gradient with respect to its parameters leaves the kernel out."""
        kernel, value, tap = self.recorded[len(self.inputs)]
        self.inputs.append(inputs)
        return _replayed(self.affine, bias, kernel, inputs, value, tap)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _replayed(affine: Affine, bias: Array, kernel: Array, inputs: Array, value: Array, tap: Array) -> Array:
    """``value``, known to equal ``affine(bias, kernel, inputs)``, differentiated as that; ``tap`` has its cotangent."""
    return value


def _replayed_forward(affine: Affine, bias: Array, kernel: Array, inputs: Array, value: Array, tap: Array) -> tuple:
    return value, (bias, kernel, inputs)


def _replayed_backward(affine: Affine, residuals: tuple, cotangent: Array) -> tuple:
    _, vjp = jax.vjp(affine, *residuals)
    return *vjp(cotangent), jnp.zeros_like(cotangent), cotangent


_replayed.defvjp(_replayed_forward, _replayed_backward)


def _kernels(cell: Cell, affine: Affine, params: Tree, carry: Tree, z_t: Tree) -> list[Array]:
    """The kernels of the step's affine maps, in call order, as functions of the parameters alone."""
    tape = _Tape(affine)
    cell.step(params, jax.lax.stop_gradient(carry), jax.lax.stop_gradient(z_t), tape.record)
    return tape.kernels


def _kernel_gradient(affine: Affine, kernel: Array, xs: Array, d_values: Array) -> Array:
    zero = jnp.zeros((), d_values.dtype)
    _, vjp = jax.vjp(lambda kernel: affine(zero, kernel, xs), kernel)
    return vjp(d_values)[0]


def _in_chunks(
    segment: Callable,
    params: Tree,
    start: Tree,
    carry: Tree,
    xs: Tree,
    flags: Flags,
    length: int,
    remat: int | str,
    reverse: bool,
) -> tuple[Tree, Tree]:
    """``segment`` over chunks of time, each recomputed in the backward pass from the carry at its start."""
    chunk = math.ceil(math.sqrt(length)) if remat == "sqrt" else remat
    if not isinstance(chunk, int) or chunk < 1:
        raise InputError(f"unroll: remat is {remat!r}; expected None, 'sqrt' or a chunk length of at least 1.")
    count = -(-length // chunk)
    extra = count * chunk - length
    if extra and flags.valid is None:
        batch = jax.tree.leaves(carry)[0].shape[:1]
        flags = flags._replace(valid=jnp.ones((length, *batch), bool))

    def split(x: Array) -> Array:
        padded = jnp.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1))
        return padded.reshape(count, chunk, *x.shape[1:])

    def body(carry: Tree, inputs: tuple[Tree, Flags]) -> tuple[Tree, Tree]:
        return jax.checkpoint(segment, prevent_cse=False)(params, start, carry, *inputs)

    carry, ys = jax.lax.scan(body, carry, jax.tree.map(split, (xs, flags)), reverse=reverse)
    return carry, jax.tree.map(lambda y: y.reshape(count * chunk, *y.shape[2:])[:length], ys)
