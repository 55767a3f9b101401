"""Named weights, taken from a mapping without silence about what is missing or left over."""

from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from seqjax.errors import InputError

Weights = Mapping[str, Array | np.ndarray | None]
"""Arrays by name."""


def take(source: str, weights: Weights, names: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Array]:
    """The named arrays, all of them and no others; a name whose value is None counts as absent.

    Args:
      source: what the weights belong to, for the message.
      weights: arrays by name.
      names: names that must be there.
      optional: names that may be there.

    Raises:
      InputError: a name is missing, or there is one that ``source`` does not have.
    """
    names, optional = set(names), set(optional)
    found = {name: jnp.asarray(array) for name, array in weights.items() if array is not None}
    missing, unknown = names - found.keys(), found.keys() - names - optional
    if missing or unknown:
        raise InputError(
            f"weights: missing {sorted(missing)}, not understood {sorted(unknown)}. {source} has exactly "
            f"{sorted(names)}{f' and, unless built without, {sorted(optional)}' if optional else ''}; "
            "give the weights of that one cell or layer, with the names that its library gives them."
        )
    return found
