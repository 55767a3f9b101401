"""Cells made of cells: layers, feedback, residuals, both directions, dropout, learned initial states."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax.errors import InputError
from seqjax.ops.recurrence import Affine, Cell
from seqjax.ops.scan import unroll

Tree = Any


def stack(cells: Sequence[Cell], *, outputs: Literal["last", "all"] = "last") -> Cell:
    """Layers in one cell: layer l reads the output that layer l-1 gives in the same step.

    Parameters, carries (and with ``outputs="all"`` the output) are tuples, one entry per layer. Unrolling a stack
    equals unrolling its layers one after the other; the latter projects the inputs of every layer outside its loop
    and is the faster, the former is what feedback from the top to the bottom needs.
    """

    def init(key: PRNGKeyArray, in_features: int | None, features: Sequence[int], **options: Any) -> tuple:
        if len(features) != len(cells):
            raise InputError(
                f"stack.init: features {tuple(features)} names {len(features)} layers; expected {len(cells)}."
            )
        keys = jax.random.split(key, len(cells))
        sizes = [in_features, *features[:-1]]
        layers = zip(cells, keys, sizes, features, strict=True)
        return tuple(cell.init(k, size, width, **options) for cell, k, size, width in layers)

    def carry(params: tuple, shape: tuple[int, ...]) -> tuple:
        return tuple(cell.carry(p, shape) for cell, p in zip(cells, params, strict=True))

    def project(params: tuple, xs: Tree, affine: Affine) -> Tree:
        return cells[0].project(params[0], xs, affine)

    def step(params: tuple, carry: tuple, z_t: Tree, affine: Affine) -> tuple[tuple, Tree]:
        after: list[Tree] = []
        ys: list[Tree] = []
        for cell, p, c in zip(cells, params, carry, strict=True):
            z = cell.project(p, ys[-1], affine) if ys else z_t
            c, y = cell.step(p, c, z, affine)
            after.append(c)
            ys.append(y)
        return tuple(after), ys[-1] if outputs == "last" else tuple(ys)

    return Cell(init, carry, project, step)


class FeedbackParams(NamedTuple):
    """Parameters of ``feedback``."""

    cell: Tree
    """The parameters of the cell inside."""
    readout: Tree
    """The parameters of the readout."""


class FeedbackCarry(NamedTuple):
    """State of ``feedback``."""

    cell: Tree
    """The state of the cell inside."""
    x: Float[Array, "..."]
    """The next input, unless a teacher gives another."""


class Teacher(NamedTuple):
    """Inputs of ``feedback``: what the next input should have been, and where to use it."""

    xs: Float[Array, "B T ..."]
    """The true input of each step."""
    use: Float[Array, "B T"]
    """1 where the step reads the true input (teacher forcing), 0 where it reads the cell's own (free running)."""


def feedback(cell: Cell, readout: Callable[[Tree, Tree, Affine], tuple[Array, Tree]]) -> Cell:
    """A cell whose output becomes its next input: free running, teacher forcing and scheduled sampling in one.

    ``y_t = f(x_{t-1})``, ``(x_t, out_t) = readout(y_t)``, with ``x_{t-1}`` replaced by a teacher's where it says so
    (Bengio et al., *Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks*, 2015, draws ``use``
    at random). Unroll it over a ``Teacher``, or over ``xs=None`` with ``steps`` to run freely, from a
    ``FeedbackCarry`` that holds the first input.

    Args:
      cell: the cell inside; its inputs are what the readout gives.
      readout: ``readout(params.readout, y_t, affine) -> (x_t, out_t)``: the next input and the step's output.
    """

    def init(*args: Any, **options: Any) -> Tree:
        raise InputError("feedback.init: build FeedbackParams from the parameters of the cell and of the readout.")

    def project(params: FeedbackParams, xs: Teacher | None, affine: Affine) -> Teacher | None:
        return xs

    def step(params: FeedbackParams, carry: FeedbackCarry, z_t: Teacher | None, affine: Affine) -> tuple:
        x = carry.x
        if z_t is not None:
            use = z_t.use.reshape(*z_t.use.shape, *[1] * (x.ndim - z_t.use.ndim))
            x = jnp.where(use > 0.5, z_t.xs, x)
        inner, y_t = cell.step(params.cell, carry.cell, cell.project(params.cell, x, affine), affine)
        x, out_t = readout(params.readout, y_t, affine)
        return FeedbackCarry(inner, x), out_t

    return Cell(init, init, project, step)


def with_carries(cell: Cell) -> Cell:
    """The same cell whose output is ``(y_t, carry_t)``: unrolling it keeps the history of carries."""

    def step(params: Tree, carry: Tree, z_t: Tree, affine: Affine) -> tuple[Tree, Tree]:
        carry, y_t = cell.step(params, carry, z_t, affine)
        return carry, (y_t, carry)

    return cell._replace(step=step)


class Directions(NamedTuple):
    """Parameters, or states, of both directions of ``bidirectional``."""

    forward: Tree
    """From the first step to the last."""
    backward: Tree
    """From the last valid step to the first."""


def bidirectional(
    cell: Cell, params: Directions, carry: Directions | None, xs: Tree, **options: Any
) -> tuple[Directions, Float[Array, "... D"]]:
    """Both directions over one sequence, outputs side by side: ``y_t = [y→_t ; y←_t]`` along the last axis.

    Padding stays at the end of each row: the backward direction starts at the row's last valid step.

    Args:
      cell: of both directions.
      params: of each, from ``cell.init`` twice.
      carry: where each direction starts; None for zero states.
      xs: as in ``unroll``.
      options: of ``unroll``, but for ``reverse``.

    Source: Schuster and Paliwal, *Bidirectional Recurrent Neural Networks*, 1997.
    """
    start = Directions(None, None) if carry is None else carry
    forward, ys = unroll(cell, params.forward, start.forward, xs, **options)
    backward, ys_backward = unroll(cell, params.backward, start.backward, xs, reverse=True, **options)
    return Directions(forward, backward), jnp.concatenate([ys, ys_backward], axis=-1)


def residual(cell: Cell) -> Cell:
    """The same cell with its input added to its output: ``y_t = f(x_t, h_{t-1}) + x_t``, for equal shapes.

    Source: Wu et al., *Google's Neural Machine Translation System*, 2016, Eq. 6.
    """

    def project(params: Tree, xs: Array, affine: Affine) -> tuple[Tree, Array]:
        return cell.project(params, xs, affine), xs

    def step(params: Tree, carry: Tree, z_t: tuple[Tree, Array], affine: Affine) -> tuple[Tree, Array]:
        inner, x_t = z_t
        carry, y_t = cell.step(params, carry, inner, affine)
        if y_t.shape != x_t.shape:
            raise InputError(
                f"residual: the output {y_t.shape} and the input {x_t.shape} are added; expected equal shapes."
            )
        return carry, y_t + x_t

    return cell._replace(project=project, step=step)


class Dropped(NamedTuple):
    """Parameters of a cell and the mask of this batch of sequences, for ``recurrent_dropout``."""

    params: Tree
    """Of the cell."""
    mask: Float[Array, "... D"]
    """From ``dropout_mask``, of the state's shape, or 1 for a spatial dimension."""


def recurrent_dropout(cell: Cell) -> Cell:
    """The same cell whose weights see the state through one mask for the whole sequence: ``W_h (m⊙h_{t-1})``.

    The mask is on the inputs of the step's affine maps, so the state itself (and an LSTM's memory) is whole.
    Unroll it with ``Dropped(params, dropout_mask(...))``, drawn anew for each batch; without dropout, unroll the
    cell itself.

    Source: Gal and Ghahramani, *A Theoretically Grounded Application of Dropout in Recurrent Neural Networks*, 2016.
    """

    def init(*args: Any, **options: Any) -> Tree:
        raise InputError("recurrent_dropout.init: build Dropped from the cell's own parameters and a dropout_mask.")

    def step(params: Dropped, carry: Tree, z_t: Tree, affine: Affine) -> tuple[Tree, Tree]:
        mask = jax.lax.stop_gradient(params.mask)

        def masked(bias: Array, kernel: Array, inputs: Array) -> Array:
            return affine(bias, kernel, inputs * jnp.broadcast_to(mask, inputs.shape))

        return cell.step(params.params, carry, z_t, masked)

    return Cell(
        init=init,
        carry=lambda params, shape: cell.carry(params.params, shape),
        project=lambda params, xs, affine: cell.project(params.params, xs, affine),
        step=step,
    )


def dropout_mask(
    key: PRNGKeyArray, rate: float, shape: Sequence[int], dtype: jnp.dtype = jnp.float32
) -> Float[Array, "..."]:
    """``m ~ Bernoulli(1 - rate) / (1 - rate)``: multiply by it to drop a share ``rate`` and keep the mean.

    A dimension of size 1 shares its draw. So ``[B, T, D]`` is dropout between layers, and ``[B, 1, D]`` the variational
    dropout of Gal and Ghahramani (2016), one draw per sequence.

    Raises:
      InputError: for a rate outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise InputError(f"dropout_mask: rate is {rate}; expected 0 <= rate < 1, the share that is dropped.")
    return jax.random.bernoulli(key, 1 - rate, tuple(shape)).astype(dtype) / jnp.asarray(1 - rate, dtype)


def dropped(xs: Float[Array, "..."], rate: float, key: PRNGKeyArray | None) -> Float[Array, "..."]:
    """``m ⊙ x`` with a `dropout_mask` of the inputs' shape; the inputs themselves without a key, as at test time."""
    return xs * dropout_mask(key, rate, xs.shape, xs.dtype) if rate and key is not None else xs


def learned_carry(start: Tree, shape: tuple[int, ...]) -> Tree:
    """Learned initial states for a batch: each leaf ``[..., D]`` of one state, broadcast to ``[*shape, ..., D]``."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*shape, *leaf.shape)), start)
