"""Optimisers as plain data: what a recipe nests in its configuration, and the optax transformation that it means."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
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
    """

    name: Literal["adam", "rmsprop", "muon"] = "adam"
    """The update rule."""
    learning_rate: float = 1e-3
    """The highest learning rate of the schedule."""
    schedule: Literal["constant", "cosine"] = "constant"
    """What follows the warm-up: the same rate to the end, or half a cosine down to zero at the last step."""
    warmup: int = 0
    """Steps over which the learning rate rises linearly from zero."""
    clip_norm: float | None = None
    """Gradients whose global norm is larger are scaled down to it."""
    b1: float = 0.9
    """Adam (Muon's vectors too): decay of the mean of the gradients."""
    b2: float = 0.999
    """Adam (Muon's vectors too): decay of the mean of their squares."""
    decay: float = 0.9
    """RMSProp: decay of the mean of the squared gradients."""
    momentum: float = 0.95
    """Muon: decay of the mean of the gradients of kernels."""


def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """The transformation for a run of `steps` updates: clipping first, then the rule at the scheduled rate.

    Raises:
      InputError: a rate, norm or warm-up that makes no sense, or an unknown name.
    """
    rate = learning_rate(config, steps)
    match config.name:
        case "adam":
            rule = optax.adam(rate, config.b1, config.b2)
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
        case _:
            raise InputError(f"optimizer.name: got {config.name!r}, expected 'adam', 'rmsprop' or 'muon'.")
    if config.clip_norm is None:
        return rule
    if config.clip_norm <= 0:
        raise InputError(
            f"optimizer.clip_norm: got {config.clip_norm}, expected a positive norm. Leave it out for no clipping."
        )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), rule)


def _kernels(params: Any) -> Any:
    """For Muon: kernels, dense or convolutional, have their outputs last."""
    return jax.tree.map(
        lambda x: MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1) if x.ndim > 1 else None, params
    )


def learning_rate(config: Optimizer, steps: int) -> optax.Schedule:
    """The learning rate as a function of the number of updates already made, for a run of `steps` updates."""
    if config.learning_rate <= 0:
        raise InputError(f"optimizer.learning_rate: got {config.learning_rate}, expected a positive rate.")
    if not 0 <= config.warmup < steps:
        raise InputError(
            f"optimizer.warmup: got {config.warmup} steps of warm-up in a run of {steps} steps, expected "
            "0 <= warmup < steps. Shorten the warm-up or lengthen the run."
        )
    match config.schedule:
        case "constant":
            after = optax.constant_schedule(config.learning_rate)
        case "cosine":
            after = optax.cosine_decay_schedule(config.learning_rate, steps - config.warmup)
        case _:
            raise InputError(f"optimizer.schedule: got {config.schedule!r}, expected 'constant' or 'cosine'.")
    # Not optax.warmup_constant_schedule, whose rate stays zero where there are no warm-up steps.
    return optax.join_schedules(
        [optax.linear_schedule(0.0, config.learning_rate, config.warmup), after], [config.warmup]
    )
