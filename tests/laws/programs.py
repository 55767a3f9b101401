"""The compiled training step of every system at its tiny size: several files run it, and read it."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from laws.systems import SYSTEMS, batches

from seqjax.nn.split import initialise, split
from seqjax.train.mesh import compile_step, make_mesh, place, shard_batch
from seqjax.train.sharding import state_shardings
from seqjax.train.state import State
from seqjax.train.step import Learner, Player, alternate


class Traced(NamedTuple):
    """A step that is not compiled yet."""

    begin: Callable[[], State]
    """The first state, a new one each time, since a step consumes it."""
    given: list[Any]
    """Three batches, on the devices."""
    step: jax.stages.Traced


class Program(NamedTuple):
    """What `Traced` becomes."""

    begin: Callable[[], State]
    given: list[Any]
    step: jax.stages.Compiled


@functools.cache
def tiny(name: str) -> tuple[Any, Any]:
    """The configuration, and its networks."""
    module = SYSTEMS[name].module
    config = module.Config.tiny()
    return config, initialise(functools.partial(module.build, config), 0)


@functools.cache
def learning(name: str, alone: str) -> Learner:
    """Of all players, or of one."""
    system, tx = SYSTEMS[name], optax.adam(2e-2)
    playing = {player: own for player, own in system.losses.items() if alone in ("", player)}
    players = {player: Player(getattr(system.module, player), own, tx) for player, own in playing.items()}
    return alternate(players, ema=dict.fromkeys(tiny(name)[1], 0.9))


def divisible(params: Any) -> list[str]:
    """For each parameter that four devices can hold in parts an expression that it alone matches."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    paths = [jax.tree_util.keystr(p, simple=True, separator="/") for p, x in leaves if any(n % 4 == 0 for n in x.shape)]
    return [f"^{re.escape(path)}$" for path in paths]


def traced(
    name: str, devices: int = 1, parallel: str = "jit", *, in_parts: bool = False, alone: str = "", dtype: Any = None
) -> Traced:
    """The step, with averages of every network, of all players or of one, `alone`; parameters whole or `in_parts`."""
    (config, nets), learner, mesh = tiny(name), learning(name, alone), make_mesh(jax.devices()[:devices])
    graphs, params, _ = split(nets)
    first = functools.partial(learner.init, nets, jax.random.key(0))
    shardings = state_shardings(jax.eval_shape(first), mesh, divisible(params) if in_parts else ())
    step = compile_step(learner, graphs, mesh, parallel, dtype=dtype, shardings=shardings)

    def begin() -> State:
        return place(first(), shardings)

    given = [shard_batch(batch, mesh) for batch in batches(name, config, 8, 3)]
    return Traced(begin, given, step.trace(begin(), given[0]))


def program(name: str, devices: int = 1, parallel: str = "jit", *, in_parts: bool = False, alone: str = "") -> Program:
    """As `traced`, and compiled: once for all tests of a system."""
    return _compiled(name, devices, parallel, in_parts, alone)


@functools.cache
def _compiled(name: str, devices: int, parallel: str, in_parts: bool, alone: str) -> Program:
    begin, given, step = traced(name, devices, parallel, in_parts=in_parts, alone=alone)
    return Program(begin, given, step.lower().compile())
