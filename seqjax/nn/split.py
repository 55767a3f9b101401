"""The border between modules and pure functions: named networks to dictionaries of arrays, and back.

A system is `dict[str, nnx.Module]`, its named networks. Outside of a forward pass the library knows only three
dictionaries with the same names: `graphs` (structure, hashable, static), `params` (what an optimiser changes) and
`rest` (every other variable: BatchNorm statistics, an image pool, a moving baseline). No other file calls
`nnx.split`, `nnx.merge` or `nnx.state`.
"""

import math
from typing import Any, NamedTuple

import jax
from flax import nnx

from seqjax.errors import InputError

Nets = dict[str, nnx.Module]
Trees = dict[str, Any]


class Split(NamedTuple):
    """Named networks as data; `params` and `rest` are nested dictionaries of the arrays themselves."""

    graphs: dict[str, nnx.GraphDef]
    params: Trees
    rest: Trees


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


def merge(graphs: dict[str, nnx.GraphDef], params: Trees, rest: Trees) -> Nets:
    """Puts networks together again; what they write in a forward pass leaves `params` and `rest` untouched."""
    return {
        # Stated, because its default differs between versions of flax.
        name: nnx.merge(graph, nnx.State(params[name]), nnx.State(rest[name]), copy=True)
        for name, graph in graphs.items()
    }


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
