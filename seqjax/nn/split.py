"""The border between modules and pure functions: named networks to dictionaries of arrays, and back.

A system is `dict[str, nnx.Module]`, its named networks. Outside of a forward pass the library knows only three
dictionaries with the same names: `graphs` (structure, hashable, static), `params` (what an optimiser changes) and
`rest` (every other variable: BatchNorm statistics, an image pool, a moving baseline). No other file calls
`nnx.split`, `nnx.merge` or `nnx.state`.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.errors import InputError

DType = jax.typing.DTypeLike
Nets = dict[str, nnx.Module]
Trees = dict[str, Any]


class Split(NamedTuple):
    """Named networks as data; `params` and `rest` are nested dictionaries of the arrays themselves."""

    graphs: dict[str, nnx.GraphDef]
    params: Trees
    rest: Trees


def initialise(build: Callable[[nnx.Rngs], Nets], seed: int) -> Nets:
    """Networks with fresh parameters: ``build(nnx.Rngs(seed))`` in one compiled program.

    Called as it stands, `build` compiles every draw of every shape for itself, and into fast code that runs once:
    for small networks on CPU that takes longer than to compile their training step.
    """
    graphs: dict[str, nnx.GraphDef] = {}

    def arrays() -> tuple[Trees, Trees]:
        parts = split(build(nnx.Rngs(seed)))
        graphs.update(parts.graphs)
        return parts.params, parts.rest

    quickly = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return merge(graphs, *jax.jit(arrays, compiler_options=quickly)())


def split(nets: Nets) -> Split:
    """Takes networks apart. The arrays are the networks' own, not copies.

    Raises:
      InputError: two networks hold the same variable. Apart they would be trained as two: give the shared part
        a name of its own and pass it to the others as an argument.
    """
    _refuse_sharing(nets)
    return Split(
        graphs={name: nnx.graphdef(net) for name, net in nets.items()},
        params={name: nnx.to_pure_dict(nnx.state(net, nnx.Param)) for name, net in nets.items()},
        rest=rest_of(nets),
    )


def merge(graphs: dict[str, nnx.GraphDef], params: Trees, rest: Trees, *, dtype: DType | None = None) -> Nets:
    """Puts networks together again; what they write in a forward pass leaves `params` and `rest` untouched.

    Args:
      graphs: of `split`.
      params: of `split`, or others of the same structure.
      rest: as `params`.
      dtype: what the networks compute in: floating-point parameters are cast to it (the functions of ``seqjax.ops``
        compute in the dtype of their parameters), and layers of Flax whose own ``dtype`` was left open are told it.
        ``rest`` is not cast. None leaves everything as it is.
    """
    nets = {
        # Stated, because its default differs between versions of flax.
        name: nnx.merge(graph, nnx.State(cast(params[name], dtype)), nnx.State(rest[name]), copy=True)
        for name, graph in graphs.items()
    }
    for _, node in nnx.iter_graph(nets):
        if dtype is not None and isinstance(node, nnx.Module) and getattr(node, "dtype", dtype) is None:
            setattr(node, "dtype", dtype)  # noqa: B010
    return nets


def mixing(dtype: DType | None) -> contextlib.AbstractContextManager:
    """Where networks that compute in `dtype` are called: what it meets in float32 it becomes, as is jax's default.

    Layers of Flax count on it, also where promotion is strict.
    """
    return contextlib.nullcontext() if dtype is None else jax.numpy_dtype_promotion("standard")


def cast(tree: Any, dtype: DType | None) -> Any:
    """What is floating-point as `dtype`; whole numbers, keys and, for None, everything as it is."""
    if dtype is None:
        return tree
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def rest_of(nets: Nets) -> Trees:
    """The variables that are not parameters, as they stand now: read them after a forward pass to keep them."""
    return {name: nnx.to_pure_dict(nnx.state(net, nnx.Not(nnx.Param))) for name, net in nets.items()}


def count(nets: Nets) -> int:
    """Number of parameters (the entries of every `nnx.Param`); abstract networks of `nnx.eval_shape` will do."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(split(nets).params))


def _refuse_sharing(nets: Nets) -> None:
    owner: dict[int, str] = {}
    for name, net in nets.items():
        for path, node in nnx.iter_graph(net):
            if isinstance(node, nnx.Variable) and owner.setdefault(id(node), name) != name:
                raise InputError(
                    f"nets: networks {owner[id(node)]!r} and {name!r} hold the same variable "
                    f"({'.'.join(map(str, path))} of {name!r}). Every variable belongs to one network: make the "
                    "shared part a network with a name of its own and pass it to the others as an argument."
                )
