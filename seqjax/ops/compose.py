"""Cells made of cells: layers within one step, and outputs fed back as inputs."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax.errors import InputError
from seqjax.ops.scan import Affine, Cell

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
