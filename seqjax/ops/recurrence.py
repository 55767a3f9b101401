"""What a recurrence is made of: the cell as data, time in front, masks and resets, one step of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from seqjax.errors import InputError
from seqjax.ops import linear

Tree = Any
"""A pytree of arrays: the parameters, the carry, the inputs or the outputs of a cell."""
Affine = Callable[[Array, Array, Array], Array]
"""``affine(bias, kernel, inputs)``: the map of ``seqjax.ops.linear``, handed to a cell by whoever runs it."""
Step = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
"""A plain step ``(params, carry, x_t) -> (carry, y_t)``."""


class Cell(NamedTuple):
    """A recurrent cell as data: four pure functions that the scan puts together.

    A step is ``step(params, carry, project(params, x_t, affine), affine)``. What does not read the carry belongs in
    ``project``, which can then be called once for all steps. Every product with a weight matrix goes through
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


class Flags(NamedTuple):
    """What happens at each step besides the cell, ``[T, *B]`` each, or None where nothing does."""

    valid: Bool[Array, "T ..."] | None
    reset: Bool[Array, "T ..."] | None


def advance(
    cell: Cell, affine: Affine, params: Tree, start: Tree, carry: Tree, z_t: Tree, flag: Flags
) -> tuple[Tree, Tree]:
    """One step, with what the flags of the step ``[*B]`` say."""
    new, y_t = cell.step(params, restart(flag, start, carry), z_t, affine)
    return where(flag.valid, new, carry), where(flag.valid, y_t, zeros_like(y_t))


def restart(flag: Flags, start: Tree, carry: Tree) -> Tree:
    """The carry that a step reads."""
    return carry if flag.reset is None else where(flag.reset, start, carry)


def affine_of_steps(bias: Array, kernel: Array, inputs: Array) -> Array:
    """``linear.affine`` of many steps at once, ``[T, B, ...]``, for a compiler that splits the batch over devices.

    Of dimensions that are folded into one, only the outermost can be split. With time outermost every device would
    gather the whole batch and compute all of it, so where there is an automatic mesh the batch is put there.
    """
    mesh = jax.sharding.get_abstract_mesh()
    split = jax.sharding.AxisType.Auto in mesh.axis_types and mesh.size > 1
    if not split or inputs.ndim <= kernel.ndim:
        return linear.affine(bias, kernel, inputs)
    product = jnp.swapaxes(linear.affine(jnp.zeros((), inputs.dtype), kernel, jnp.swapaxes(inputs, 0, 1)), 0, 1)
    return jnp.broadcast_to(bias, product.shape) + product


def as_cell(cell: Cell | Step) -> Cell:
    """The cell itself, or a plain step as a cell whose affine maps are its own business."""
    if isinstance(cell, Cell):
        return cell

    def no_carry(params: Tree, shape: tuple[int, ...]) -> Tree:
        raise InputError("unroll: carry is None; a plain step function has no zero state, so give its initial carry.")

    return Cell(no_carry, no_carry, lambda params, xs, affine: xs, lambda p, c, x_t, affine: cell(p, c, x_t))


def as_computed(params: Tree, arrays: Tree) -> Tree:
    """Floating-point arrays in the dtype of the parameters, if these have one."""
    dtypes = {p.dtype for p in jax.tree.leaves(params) if jnp.issubdtype(p.dtype, jnp.floating)}
    if len(dtypes) != 1:
        return arrays
    (dtype,) = dtypes
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, arrays)


def zero_carry(cell: Cell, params: Tree, xs: Tree) -> Tree:
    """The zero state for time-major inputs."""
    if xs is None:
        raise InputError("unroll: carry and xs are both None; give the initial carry of a cell without input.")
    z_t = jax.eval_shape(lambda p, x: cell.project(p, x, linear.affine), params, jax.tree.map(lambda x: x[0], xs))
    return cell.carry(params, jax.tree.leaves(z_t)[0].shape[:-1])


def time_major(
    xs: Tree,
    lengths: Array | None,
    mask: Array | None,
    resets: Array | None,
    steps: int | None,
    time_axis: int,
) -> tuple[Tree, Flags, int]:
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
        xs = where(valid, xs, zeros_like(xs))
    return xs, Flags(valid, flags["resets"]), length


def where(flag: Array | None, yes: Tree, no: Tree) -> Tree:
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


def zeros_like(tree: Tree) -> Tree:
    """Zeros, leaf by leaf."""
    return jax.tree.map(jnp.zeros_like, tree)


def add(a: Tree, b: Tree) -> Tree:
    """The sum, leaf by leaf."""
    return jax.tree.map(jnp.add, a, b)
