"""Everything about a run that changes from step to step and must survive a restart."""

from typing import Any, NamedTuple

from jaxtyping import Array, Int, Key


class State(NamedTuple):
    """The training state: a pytree of arrays, and of nothing else.

    The key never changes: a step draws from `fold_in(key, step)`, so a resumed run draws what the unbroken one
    would have drawn.
    """

    step: Int[Array, ""]  # steps made, int32
    params: dict[str, Any]  # by network
    rest: dict[str, Any]  # by network: BatchNorm statistics and whatever else a module keeps
    opt: dict[str, Any]  # by player: the state of its optax transformation
    ema: dict[str, Any]  # by network, the averaged ones only
    key: Key[Array, ""]
