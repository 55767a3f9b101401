"""Training steps as pure functions: one loss, several players, several steps in one call.

A learner is a pair of pure functions, as an optax transformation is. Nothing here is compiled or placed on devices:
see `mesh.compile_step`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from seqjax.errors import InputError
from seqjax.nn.split import DType, Nets, cast, merge, mixing, rest_of, split
from seqjax.train.state import State

# loss(nets, batch, *, key) -> (scalar loss, metrics: dict of scalars)
Objective = Callable[..., tuple[Array, dict[str, Array]]]
Graphs = dict[str, nnx.GraphDef]
Metrics = dict[str, Array]


class Learner(NamedTuple):
    """How a state begins and how it advances.

    `init(nets, key)` copies every array into a first `State`, which may therefore be donated.
    `step(graphs, state, batch, *, axis_name=None, dtype=None)` returns the next state and the step's metrics. With an
    `axis_name` it is one device's part of a step under `jax.shard_map`: the key is folded with the device's index,
    and gradients, metrics and the floating-point part of `rest` are averaged over the axis (right for statistics;
    for a pool of images train without `axis_name`). What is not floating point must not depend on the device's
    part of the batch. With a `dtype` the networks compute in it (`nn.split.merge`); the state keeps its own dtypes,
    float32 for parameters, averages and optimisers, and so do gradients and losses.
    """

    init: Callable[[Nets, Key[Array, ""]], State]
    step: Callable[..., tuple[State, Metrics]]


class Player(NamedTuple):
    """One of those who train: its objective, the networks that it changes, its optimiser, and its turns."""

    loss: Objective
    nets: tuple[str, ...] | None
    """Networks by name; `None` for all of them."""
    tx: optax.GradientTransformation
    when: Callable[[State], Array] | None = None
    """``when(state)``: whether it plays in the step that follows the state, as `state.step` tells, or what a network
    keeps in `state.rest`; `None` for always. Where it does not, nothing of its own changes, and its metrics are zero
    beside a ``turn`` of 0."""


def minimise(loss: Objective, tx: optax.GradientTransformation, *, ema: Mapping[str, float] | None = None) -> Learner:
    """One objective over all networks: `alternate` with one player, and its metrics without a prefix."""
    learner = alternate({"all": Player(loss, None, tx)}, ema=ema)

    def step(graphs: Graphs, state: State, batch: Any, **options: Any) -> tuple[State, Metrics]:
        state, metrics = learner.step(graphs, state, batch, **options)
        return state, {name.removeprefix("all/"): value for name, value in metrics.items()}

    return Learner(learner.init, step)


def alternate(players: Mapping[str, Player], *, ema: Mapping[str, float] | None = None) -> Learner:
    """Players who take turns, in the order of the dictionary, on the same batch.

    In step n, player p with networks θ_p updates, if it plays, at the parameters that those before it left behind
    (who plays is told from the state before the step),

        θ_p ← θ_p + tx_p(∇_{θ_p} loss_p(nets, batch, key = fold_in(fold_in(state.key, n), index of p)))

    and every non-parameter variable that any network wrote in that forward pass is kept. After the last player
    θ̄ ← decay · θ̄ + (1 - decay) · θ for the networks in `ema`.

    Args:
      players: by name; a network may have several players, each with its own optimiser state for it.
      ema: decay in [0, 1) by network; the averages are `state.ema`.

    Returns:
      A learner. Its metrics are each objective's own and its `loss` and `gradient_norm`, named "player/metric", and
      for players with turns `turn`, 1 or 0.

    Raises:
      InputError: no players; a decay out of range; at `init`, a network that does not exist; in a step, a loss
        that is not a scalar.
    """
    averaged = dict(ema or {})
    _check(players, averaged)

    def init(nets: Nets, key: Key[Array, ""]) -> State:
        _check_names(players, averaged, nets)
        _, params, rest = split(nets)
        return first(params, rest, key)

    @jax.jit
    def first(params: dict[str, Any], rest: dict[str, Any], key: Key[Array, ""]) -> State:
        state = State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            rest=rest,
            opt={name: player.tx.init(_trained(player, params)) for name, player in players.items()},
            ema={name: params[name] for name in averaged},
            key=key,
        )
        return jax.tree.map(jnp.copy, state)

    def step(
        graphs: Graphs, state: State, batch: Any, *, axis_name: str | None = None, dtype: DType | None = None
    ) -> tuple[State, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        key = key if axis_name is None else jax.random.fold_in(key, lax.axis_index(axis_name))
        metrics: Metrics = {}
        turns = {name: player.when(state) for name, player in players.items() if player.when is not None}
        for index, (name, player) in enumerate(players.items()):
            turn = jax.random.fold_in(key, index)
            play = functools.partial(_update, name, player, graphs, batch, turn, axis_name, dtype)
            state, measured = _in_turn(turns[name], play, state) if name in turns else play(state)
            metrics |= {f"{name}/{metric}": value for metric, value in measured.items()}
        mean = {
            name: optax.incremental_update(state.params[name], state.ema[name], 1 - decay)
            for name, decay in averaged.items()
        }
        return state._replace(step=state.step + 1, ema=mean), metrics

    return Learner(init, step)


def repeat(learner: Learner, n: int) -> Learner:
    """n steps in one call: every leaf of the batch and every metric gets a leading axis of n."""

    def step(graphs: Graphs, state: State, batch: Any, **options: Any) -> tuple[State, Metrics]:
        lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
        if lengths != {(n,)}:
            raise InputError(
                f"batch: {n} steps in one call need a leading axis of {n} on every leaf, found {sorted(lengths)}. "
                "Stack as many batches as there are steps."
            )
        return lax.scan(lambda state, part: learner.step(graphs, state, part, **options), state, batch)

    return Learner(learner.init, step)


def _in_turn(turn: Array, play: Callable[[State], tuple[State, Metrics]], state: State) -> tuple[State, Metrics]:
    shapes = jax.eval_shape(play, state)[1]

    def rest(state: State) -> tuple[State, Metrics]:
        return state, jax.tree.map(lambda metric: jnp.zeros(metric.shape, metric.dtype), shapes)

    state, metrics = lax.cond(turn, play, rest, state)
    return state, metrics | {"turn": turn.astype(jnp.float32)}


def _update(
    name: str,
    player: Player,
    graphs: Graphs,
    batch: Any,
    key: Key[Array, ""],
    axis_name: str | None,
    dtype: DType | None,
    state: State,
) -> tuple[State, Metrics]:
    def objective(trained):
        nets = merge(graphs, _whole(state.params | trained), state.rest, dtype=dtype)
        with mixing(dtype):
            loss, metrics = player.loss(nets, batch, key=key)
        _check_loss(name, loss)
        # What networks keep stays in its own dtype, whatever they compute in.
        rest = jax.tree.map(lambda new, old: new.astype(old.dtype), rest_of(nets), state.rest)
        return loss, (cast(metrics, dtype and jnp.float32), rest)

    trained = _trained(player, state.params)
    (loss, (metrics, rest)), gradients = jax.value_and_grad(objective, has_aux=True)(trained)
    if axis_name is not None:
        gradients, loss, metrics, rest = _mean((gradients, loss, metrics, rest), axis_name)
    # optax divides by powers of its integer step count, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt = player.tx.update(gradients, state.opt[name], trained)
    state = state._replace(
        params=state.params | optax.apply_updates(trained, updates), rest=rest, opt=state.opt | {name: opt}
    )
    return state, metrics | {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}


def _trained(player: Player, params: dict[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in (params if player.nets is None else player.nets)}


def _whole(params: Any) -> Any:
    """Parameters that devices hold in parts, gathered before they are used: left to itself the compiler would rather
    exchange activations, in every step of a loop over time."""
    mesh = jax.sharding.get_abstract_mesh()
    if AxisType.Auto not in mesh.axis_types or mesh.size == 1:
        return params
    return lax.with_sharding_constraint(params, NamedSharding(mesh, PartitionSpec()))


def _mean(tree: Any, axis_name: str) -> Any:
    """What is floating-point averaged over the axis, all of it in one collective; the rest as it is."""
    leaves, structure = jax.tree.flatten(tree)
    places = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    means = dict(zip(places, lax.pmean([leaves[i] for i in places], axis_name), strict=True))
    return jax.tree.unflatten(structure, [means.get(i, leaf) for i, leaf in enumerate(leaves)])


def _check_loss(name: str, loss: Array) -> None:
    if jnp.shape(loss) != ():
        raise InputError(
            f"players[{name!r}].loss: the objective returned a loss of shape {jnp.shape(loss)}, expected a "
            "scalar. Reduce the per-example values, for example with their mean."
        )
    if jnp.finfo(loss.dtype).bits < 32:
        raise InputError(
            f"players[{name!r}].loss: the objective returned a loss in {loss.dtype}, expected float32. Bring what the "
            "networks return to float32 before losses are taken of it: outputs.astype(jnp.float32)."
        )


def _check(players: Mapping[str, Player], ema: dict[str, float]) -> None:
    if not players:
        raise InputError("players: got none, expected at least one. Give a dictionary of Player by name.")
    for name, decay in ema.items():
        if not 0 <= decay < 1:
            raise InputError(f"ema[{name!r}]: got a decay of {decay}, expected 0 <= decay < 1, for example 0.999.")


def _check_names(players: Mapping[str, Player], ema: dict[str, float], nets: Nets) -> None:
    asked = {f"players[{name!r}].nets": player.nets or () for name, player in players.items()} | {"ema": tuple(ema)}
    for argument, names in asked.items():
        if unknown := [name for name in names if name not in nets]:
            raise InputError(
                f"{argument}: got {', '.join(map(repr, unknown))}, which is not among the networks "
                f"({', '.join(map(repr, nets))}). Name networks that the system's `build` returns."
            )
