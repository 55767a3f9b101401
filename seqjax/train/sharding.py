"""Where each leaf of the state lives: whole on every device, or, for parameters that an expression names, in parts."""

import re
from collections.abc import Iterable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqjax.errors import InputError
from seqjax.train.mesh import AXIS
from seqjax.train.state import State


def state_shardings(state: State, mesh: Mesh, expressions: Iterable[str] = ()) -> State:
    """A sharding for every leaf of a state.

    A parameter whose path, such as "forecaster/encoder/0/recurrent", has a match for one of the expressions is split
    over all devices along its largest axis that they divide; so are its averages and whatever its optimisers keep of
    its shape. Everything else is whole on every device. Splitting changes what a device stores, not what is computed:
    the compiler gathers parameters where they are used.

    Args:
      state: a state, or its shapes as `jax.eval_shape` gives them.
      mesh: from `make_mesh`.
      expressions: regular expressions, searched for in the paths of the parameters.

    Raises:
      InputError: an expression that cannot be read or that no path matches; a parameter that cannot be split.
    """
    parameters = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)}
    specs = {
        path: _spec(path, parameters[path].shape, mesh)
        for expression in expressions
        for path in _matches(expression, parameters)
    }

    def place(path: Any, leaf: Any) -> NamedSharding:
        parts = _path(path).split("/")
        owners = ("/".join(parts[i:]) for i in range(len(parts)))
        owner = next((o for o in owners if o in specs and parameters[o].shape == leaf.shape), None)
        return NamedSharding(mesh, PartitionSpec() if owner is None else specs[owner])

    return jax.tree_util.tree_map_with_path(place, state)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _matches(expression: str, paths: Iterable[str]) -> list[str]:
    try:
        found = [path for path in paths if re.search(expression, path)]
    except re.error as error:
        raise InputError(f"loop.shard: {expression!r} is no regular expression ({error}).") from error
    if not found:
        raise InputError(
            f"loop.shard: {expression!r} matches none of the parameters, which are {', '.join(paths)}. Correct the "
            "expression or leave it out."
        )
    return found


def _spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    sizes = [size if size % mesh.size == 0 else 0 for size in shape]
    if not any(sizes):
        raise InputError(
            f"loop.shard: the parameter {path} of shape {shape} has no axis that {mesh.size} devices divide. Leave it "
            "out of the expressions, or use another number of devices."
        )
    axis = sizes.index(max(sizes))
    return PartitionSpec(*[AXIS if i == axis else None for i in range(len(shape))])
