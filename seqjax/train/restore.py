"""Networks back from a run's directory, with nothing else at hand."""

from pathlib import Path
from typing import Any

import jax
from flax import nnx

from seqjax.nn.split import Nets, merge, split
from seqjax.train.checkpoint import read_config, read_state
from seqjax.train.config import from_dict


def restore(workdir: str | Path, recipe: Any) -> tuple[Any, Nets]:
    """The configuration of a run and its networks, with averaged parameters where it averages; reads only.

    Args:
      workdir: of the run, finished or still going: its newest intact checkpoint is used.
      recipe: what trained it, a module of ``experiments``: its ``Config``, ``build(config, rngs)`` and
        ``learner(config)``.

    Raises:
      InputError: there is no intact checkpoint, or it is not of this recipe.
    """
    directory = Path(workdir).expanduser() / "checkpoints"
    config = from_dict(recipe.Config, read_config(directory))

    def fresh(key: jax.Array) -> Any:
        return recipe.learner(config).init(recipe.build(config, nnx.Rngs(0)), key)

    state = read_state(directory, jax.eval_shape(fresh, jax.random.key(0)))
    graphs = split(nnx.eval_shape(lambda: recipe.build(config, nnx.Rngs(0)))).graphs
    return config, merge(graphs, state.params | state.ema, state.rest)
