"""Optimisers as plain data: what a recipe nests in its configuration, and the optax transformation that it means."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from seqjax.errors import InputError


@dataclass(frozen=True)
class Optimizer:
    """An optimiser and its learning rate schedule.

    Adam is of Kingma and Ba, *Adam: A Method for Stochastic Optimization*, 2015, Algorithm 1; RMSProp of Tieleman
    and Hinton, Lecture 6.5 of *Neural Networks for Machine Learning*, 2012, v ← decay · v + (1 - decay) · g²,
    θ ← θ - learning_rate · g / √(v + 1e-8). Muon (Jordan et al., *Muon: An optimizer for hidden layers in neural
    networks*, 2024) makes the running mean of each kernel's gradient, as a matrix of inputs by outputs, nearly
    orthogonal, scaled by 0.2 √max(inputs, outputs) (Liu et al., *Muon is Scalable for LLM Training*, 2025, equation
    4), so that one learning rate serves it and the rule of every vector: Adam with Nesterov's momentum (Dozat, 2016).
    AdamW is Adam whose decay stands beside the gradient's mean, θ ← θ - learning_rate · (m̂ / (√v̂ + ε) + weight_decay ·
    θ), for kernels alone (Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, 2019, Algorithm 2).
    SGD subtracts the gradient times the rate; with momentum (Polyak, *Some methods of speeding up the convergence of
    iteration methods*, 1964) v ← momentum · v - learning_rate · g, θ ← θ + v. Adadelta is of Zeiler, *ADADELTA: An
    Adaptive Learning Rate Method*, 2012, Algorithm 1, times the rate, which is 1 there.
    """

    name: Literal["adam", "adamw", "rmsprop", "muon", "sgd", "momentum", "adadelta"] = "adam"
    """The update rule."""
    learning_rate: float = 1e-3
    """The highest learning rate of the schedule."""
    schedule: Literal["constant", "cosine", "linear", "inverse_sqrt", "halving", "staircase"] = "constant"
    """What follows the warm-up: the same rate to the end; half a cosine down to zero at the last step; the same rate
    for a share of the run, ``constant``, and a straight line to zero one update (or epoch) after the last; the rate
    times √(warmup / step), the Transformer's; the same rate for that share, and half of it after every epoch; or the
    rate times ``factor`` after every epoch from the first on."""
    constant: float = 0.5
    """Linear and halving schedules: share of the run at the highest rate."""
    epoch: int = 1
    """Linear, halving and staircase schedules: steps over which the rate stays as it is, such as those of an epoch."""
    factor: float = 0.9
    """Staircase schedule: what the rate is multiplied by."""
    warmup: int = 0
    """Steps over which the learning rate rises linearly from zero; a run that is not longer ends while it rises."""
    clip_values: float | None = None
    """Every number of the gradients is kept in [-clip_values, clip_values], before their norm is looked at."""
    clip_norm: float | None = None
    """Gradients whose global norm is larger are scaled down to it."""
    weight_decay: float = 0.0
    """L2 penalty: times the parameters, this is added to their gradient. Of AdamW: see there."""
    clip_weights: float | None = None
    """Parameters are kept in [-clip_weights, clip_weights], as those of a Wasserstein critic."""
    b1: float = 0.9
    """Adam (Muon's vectors too): decay of the mean of the gradients."""
    b2: float = 0.999
    """Adam (Muon's vectors too): decay of the mean of their squares."""
    eps: float = 1e-8
    """Adam and Adadelta: what is added to a root that is divided by (Adadelta: within the root)."""
    decay: float = 0.9
    """RMSProp and Adadelta: decay of the mean of the squared gradients."""
    momentum: float = 0.95
    """Muon: decay of the mean of the gradients of kernels. Momentum: share of v that is kept."""
    clip_updates: float | None = None
    """Momentum: every number of v is kept in [-clip_updates, clip_updates]; what is cut off is forgotten."""


def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """The transformation for a run of `steps` updates: clipping first, then the rule at the scheduled rate.

    Raises:
      InputError: a rate, norm or warm-up that makes no sense, or an unknown name.
    """
    rate = learning_rate(config, steps)
    match config.name:
        case "adam":
            rule = optax.adam(rate, config.b1, config.b2, config.eps)
        case "adamw":
            decay = config.weight_decay
            rule = optax.adamw(rate, config.b1, config.b2, config.eps, weight_decay=decay, mask=_are_kernels)
        case "rmsprop":
            rule = optax.rmsprop(rate, config.decay)
        case "muon":
            rule = muon(
                rate,
                beta=config.momentum,
                adam_b1=config.b1,
                adam_b2=config.b2,
                muon_weight_dimension_numbers=_kernels,
                consistent_rms=0.2,
            )
        case "sgd":
            rule = optax.sgd(rate)
        case "momentum":
            rule = optax.chain(optax.scale_by_learning_rate(rate), _velocity(config.momentum, config.clip_updates))
        case "adadelta":
            rule = optax.adadelta(rate, config.decay, config.eps)
        case _:
            raise InputError(f"optimizer.name: got {config.name!r}, expected one of {_names('name')}.")
    around = [rule]
    if config.weight_decay and config.name != "adamw":
        around.insert(0, optax.add_decayed_weights(config.weight_decay))
    if config.clip_norm is not None:
        around.insert(0, optax.clip_by_global_norm(_positive("clip_norm", config.clip_norm)))
    if config.clip_values is not None:
        around.insert(0, optax.clip(_positive("clip_values", config.clip_values)))
    if config.clip_weights is not None:
        around.append(_clip_weights(_positive("clip_weights", config.clip_weights)))
    return optax.chain(*around) if len(around) > 1 else rule


def _positive(name: str, value: float) -> float:
    if value <= 0:
        raise InputError(f"optimizer.{name}: got {value}, expected a positive number. Leave it out for no clipping.")
    return value


def _clip_weights(bound: float) -> optax.GradientTransformation:
    """The update that ends within the bound."""

    def clip(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, p: jnp.clip(p + u, -bound, bound) - p, updates, params)

    return optax.stateless(clip)


def _velocity(decay: float, bound: float | None) -> optax.GradientTransformation:
    """What is left of all updates before, this one added; not optax.trace, which would keep what is cut off."""

    def update(updates: Any, velocity: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        velocity = jax.tree.map(lambda v, u: decay * v + u, velocity, updates)
        if bound is not None:
            velocity = jax.tree.map(lambda v: jnp.clip(v, -bound, bound), velocity)
        return velocity, velocity

    if bound is not None:
        _positive("clip_updates", bound)
    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def _kernels(params: Any) -> Any:
    """For Muon: kernels, dense or convolutional, have their outputs last."""
    return jax.tree.map(
        lambda x: MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1) if x.ndim > 1 else None, params
    )


def _are_kernels(params: Any) -> Any:
    """For AdamW: neither biases nor scales of normalisations decay."""
    return jax.tree.map(lambda x: x.ndim > 1, params)


def learning_rate(config: Optimizer, steps: int) -> optax.Schedule:
    """The learning rate as a function of the number of updates already made, for a run of `steps` updates."""
    if config.learning_rate <= 0:
        raise InputError(f"optimizer.learning_rate: got {config.learning_rate}, expected a positive rate.")
    if config.warmup < 0:
        raise InputError(f"optimizer.warmup: got {config.warmup}, expected a number of steps, or 0 for no warm-up.")
    left = max(1, steps - config.warmup)  # a short trial of a long run may end within its warm-up
    match config.schedule:
        case "constant":
            after = optax.constant_schedule(config.learning_rate)
        case "cosine":
            after = optax.cosine_decay_schedule(config.learning_rate, left)
        case "linear":
            after = _constant_then_linear(config, left)
        case "inverse_sqrt":
            after = _inverse_square_root(config)
        case "halving":
            after = _constant_then_half(config, left)
        case "staircase":
            after = _staircase(config)
        case _:
            raise InputError(f"optimizer.schedule: got {config.schedule!r}, expected one of {_names('schedule')}.")
    # Not optax.warmup_constant_schedule, whose rate stays zero where there are no warm-up steps.
    return optax.join_schedules(
        [optax.linear_schedule(0.0, config.learning_rate, config.warmup), after], [config.warmup]
    )


def _inverse_square_root(config: Optimizer) -> optax.Schedule:
    """``rate √(warmup / step)``, the step counted from the first of the run."""
    if not config.warmup:
        raise InputError("optimizer.warmup: got 0, and schedule='inverse_sqrt' is measured by it: give some steps.")
    return lambda count: (
        config.learning_rate * jnp.sqrt(config.warmup / (config.warmup + jnp.asarray(count, jnp.float32)))
    )


def _constant_then_half(config: Optimizer, steps: int) -> optax.Schedule:
    """Half of the rate as soon as the share of the run is over, and half again after every epoch."""
    _check_epochs(config)
    level = round(config.constant * steps)

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        halvings = jnp.maximum((jnp.asarray(count, jnp.float32) - level) // config.epoch + 1, 0)
        return config.learning_rate * jnp.exp2(-halvings)

    return rate


def _staircase(config: Optimizer) -> optax.Schedule:
    """``rate · factor^(step // epoch)``."""
    _check_epochs(config)
    if config.factor <= 0:
        raise InputError(f"optimizer.factor: got {config.factor}, expected a positive number, such as 0.9.")
    return lambda count: config.learning_rate * config.factor ** (jnp.asarray(count, jnp.float32) // config.epoch)


def _names(field: str) -> list[str]:
    return list(get_args(Optimizer.__annotations__[field]))


def _check_epochs(config: Optimizer) -> None:
    if not 0 <= config.constant <= 1 or config.epoch < 1:
        raise InputError(
            f"optimizer.constant, optimizer.epoch: got {config.constant} and {config.epoch}, expected a share from 0 "
            "to 1 and at least one step."
        )


def _constant_then_linear(config: Optimizer, steps: int) -> optax.Schedule:
    """In epoch e of n, the first c at the highest rate: times ``1 - max(0, e + 1 - c) / (n - c + 1)``.

    With epochs counted from 0, the rule of PyTorch's CycleGAN.
    """
    _check_epochs(config)
    epochs = -(-steps // config.epoch)
    level = round(config.constant * epochs)

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        epoch = jnp.asarray(count, jnp.float32) // config.epoch
        return config.learning_rate * (1 - jnp.maximum(epoch + 1 - level, 0) / (epochs - level + 1))

    return rate
