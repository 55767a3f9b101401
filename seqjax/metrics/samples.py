"""How good the best of several sampled futures is, and how different they are: the protocol of stochastic prediction.

A model that samples is not to be blamed for another future than the one that came: of N samples the best counts, by
each figure on its own. A noisier model gains by that, so one sample alone and the distances between samples belong
beside it.
"""

from collections.abc import Callable, Collection, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax.errors import InputError
from seqjax.metrics.average import Totals, add, means, zeros
from seqjax.metrics.frames import by_frame, frame_figures
from seqjax.metrics.metric import Figures, Metric
from seqjax.ops.distances import squared_error

HIGHER_IS_BETTER = ("psnr", "ssim")


def best_of(
    draw: Callable[[PRNGKeyArray], Float[Array, "B T H W C"]],
    target: Float[Array, "B T H W C"],
    *,
    number: int,
    key: PRNGKeyArray,
    names: Collection[str] = ("mse", "psnr", "ssim"),
) -> dict[str, Float[Array, "B T"]]:
    """Figures of `frames.frame_figures` by frame, of the sample that is best on average over the frames.

    Under each name the curve of the clip's best sample by that figure; "diversity" is the squared distance between two
    of the samples, summed over pixels, on average over all pairs, and 0 for a single one. Sample i is drawn from
    ``fold_in(key, i)``, so that the samples of a smaller number are among those of a larger one, whose best is never
    worse. They are drawn one after another: memory does not grow with their number.

    Args:
      draw: ``draw(key)``, one sampled future of every clip.
      target: what came.
      number: N.
      key: of the samples.
      names: the figures.

    Raises:
      InputError: a number below 1.

    Source: Denton and Fergus, *Stochastic Video Generation with a Learned Prior*, 2018, section 4, with N = 100.
    """
    if number < 1:
        raise InputError(f"best_of: number={number}; expected 1 sample or more.")
    first = draw(jax.random.fold_in(key, 0))

    def one_more(carry: tuple[dict, Array, Array], i: Array) -> tuple[tuple[dict, Array, Array], None]:
        best, total, squares = carry
        frames = draw(jax.random.fold_in(key, i))
        found = frame_figures(frames, target, names)
        best = {name: _better(name, found[name], best[name]) for name in names}
        # Distances from the first sample, not from black: small numbers, of which little is lost to rounding.
        return (best, total + (frames - first), squares + squared_error(frames, first)), None

    start = (frame_figures(first, target, names), jnp.zeros_like(first), jnp.zeros(first.shape[:2]))
    (best, total, squares), _ = jax.lax.scan(one_more, start, jnp.arange(1, number))
    spread = squares - squared_error(total, jnp.zeros_like(total)) / number
    return best | {"diversity": 2 * spread / max(1, number - 1)}


def _better(name: str, found: Float[Array, "B T"], best: Float[Array, "B T"]) -> Float[Array, "B T"]:
    """Of each clip the curve that is better on average; one that is not a number wins, so that it is seen."""
    new, old = jnp.mean(found, axis=1), jnp.mean(best, axis=1)
    gains = new > old if name in HIGHER_IS_BETTER else new < old
    return jnp.where((gains | jnp.isnan(new))[:, None], found, best)


def curves(names: Collection[str], *, frames: int) -> Metric:
    """Averages over clips of outputs that are curves by name, ``[B, T]``, with T = ``frames``.

    `finish` gives by name the average over clips and frames, under the name with "_by_frame" the averages over clips,
    and with "_band" how far these may be off: half the width of a 95 % confidence interval, 1.96 standard errors.
    """
    both = [*names, *(f"{name}²" for name in names)]

    def accumulate(acc: Totals, outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Totals:
        values = {name: outputs[name] for name in names}
        values |= {f"{name}²": jnp.square(curve) for name, curve in values.items()}
        return add(acc, values, batch.get("weight", jnp.ones(len(next(iter(values.values()))))))

    def finish(acc: Totals) -> Figures:
        found, number = means(acc, "curves"), float(acc.total["weight"])
        figures = by_frame({name: found[name] for name in names})
        for name in names:
            variance = np.maximum(found[f"{name}²"] - found[name] ** 2, 0)
            figures[f"{name}_band"] = (1.96 * np.sqrt(variance / max(1.0, number - 1))).tolist()
        return figures

    return Metric(lambda: zeros(dict.fromkeys(both, (frames,))), accumulate, finish)
