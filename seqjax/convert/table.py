"""Networks filled with weights of another source, by a table of names; and their weights under the source's names.

A table has, for each name there, the name here and how the array is laid out there:

    {"conv1.weight": Entry("conv1.kernel", CONV), "conv1.bias": Entry("conv1.bias")}

A name here is the path to the variable through the network's attributes, joined by dots: parameters and statistics
alike.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.errors import InputError
from seqjax.nn.split import merge, split


class Layout(NamedTuple):
    """How an array is laid out at the source, as functions to our layout and back; both return views."""

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda w: w, lambda w: w)
DENSE = Layout(np.transpose, np.transpose)
"""PyTorch's ``[D, C]``; ours is ``[C, D]``."""
CONV = Layout(lambda w: np.moveaxis(w, (0, 1), (-1, -2)), lambda w: np.moveaxis(w, (-1, -2), (0, 1)))
"""PyTorch's ``[D, C, *K]``; ours is ``[*K, C, D]``.

A transposed convolution from D to C is laid out the same, here and there: as the convolution which it transposes.
"""


class Entry(NamedTuple):
    """Where an array of the source belongs."""

    ours: str
    layout: Layout = SAME


Table = Mapping[str, Entry]
"""By the name at the source."""

Net = TypeVar("Net", bound=nnx.Module)


def load(net: Net, weights: Mapping[str, np.ndarray], table: Table, *, source: str, ignored: Iterable[str] = ()) -> Net:
    """A network like this one that holds the weights; the one given is left as it is, and may be abstract.

    Args:
      net: the network, or its shapes from `flax.nnx.eval_shape`.
      weights: arrays by the source's names. They take on the types of ours.
      table: every name that is read, and every variable of the network.
      source: what the weights are, for messages.
      ignored: regular expressions of names that are passed over.

    Raises:
      InputError: names are missing or left over, or shapes differ: all of them are listed.
    """
    ours = _variables(net)
    patterns = [re.compile(pattern) for pattern in ignored]
    given = {name: array for name, array in weights.items() if not any(p.search(name) for p in patterns)}
    shapes = _shapes_there(ours, table)
    wrong = {n: given[n].shape for n in shapes if n in given and given[n].shape != shapes[n]}
    missing, extra = [n for n in shapes if n not in given], [n for n in given if n not in shapes]
    if missing or extra or wrong:
        misshapen = [f"{name} {shape}, expected {shapes[name]}" for name, shape in wrong.items()]
        raise InputError(
            f"weights do not fit {source}: missing: {_listed(missing)}; not understood: {_listed(extra)}; of another "
            f"shape: {_listed(misshapen)}. Nothing was changed. Are they of another network, or of other options?"
        )
    arrays = {e.ours: jnp.asarray(e.layout.read(given[n]), ours[e.ours].dtype) for n, e in table.items()}
    parts = split({"net": net})
    params, rest = (_map(lambda name, _: arrays[name], tree["net"]) for tree in (parts.params, parts.rest))
    return merge(parts.graphs, {"net": params}, {"net": rest})["net"]  # type: ignore[return-value]


def dump(net: nnx.Module, table: Table) -> dict[str, np.ndarray]:
    """The network's weights under the source's names and in its layout: what `load` reads."""
    ours = _variables(net)
    _shapes_there(ours, table)
    return {name: np.array(entry.layout.write(np.asarray(ours[entry.ours]))) for name, entry in table.items()}


def shapes_there(net: nnx.Module, table: Table) -> dict[str, tuple[int, ...]]:
    """Shapes of the source's arrays, by its names; an abstract network will do."""
    return _shapes_there(_variables(net), table)


def _shapes_there(ours: Mapping[str, Any], table: Table) -> dict[str, tuple[int, ...]]:
    if (places := sorted(entry.ours for entry in table.values())) != sorted(ours):
        odd = sorted(set(places) ^ set(ours)) or sorted({place for place in places if places.count(place) > 1})
        raise InputError(
            f"table: {_listed(odd)} stand in the table or in the network alone, or twice; expected one entry for every "
            "variable of the network."
        )
    # Without memory: a view of one zero is moved about as the array would be.
    return {n: e.layout.write(np.broadcast_to(np.float32(0), ours[e.ours].shape)).shape for n, e in table.items()}


def _variables(net: nnx.Module) -> dict[str, Any]:
    parts = split({"net": net})
    found: dict[str, Any] = {}
    for tree in (parts.params["net"], parts.rest["net"]):
        _map(found.__setitem__, tree)
    return found


def _map(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """`function(name, leaf)` over a tree, the name being the path to the leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(_name(path), leaf), tree)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _listed(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more if names else "none"
