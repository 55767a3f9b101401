"""How well a future is predicted before something happens in it that nobody could foresee, and after."""

from collections.abc import Collection, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from seqjax.metrics.average import Totals, add, means, zeros
from seqjax.metrics.metric import Figures, Metric


def around_event(names: Collection[str], *, frames: int) -> Metric:
    """Averages over frames of outputs that are curves by name, ``[B, T]``, told apart by the first event of the clip.

    ``batch["event"]``, ``[B, T]`` with T = ``frames``, is above 0 at frames that show something new, which the frames
    before them did not decide. `finish` gives by name, every frame counted alike, the average under the name with

        _before   over frames before the clip's first event; all frames of a clip without one
        _after    over that event's frame and all that follow
        _since    over the frames k after that event's, for k = 1 - T, ..., T - 1: a list

    NaN where there is no such frame.
    """
    groups = 2 * frames + 1

    def accumulate(acc: Totals, outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Totals:
        belongs = _groups(batch["event"] > 0)
        values = {name: jnp.sum(jnp.where(belongs, outputs[name][..., None], 0.0), axis=1) for name in names}
        values["frames"] = jnp.sum(belongs, axis=1, dtype=jnp.float32)
        return add(acc, values, batch.get("weight", jnp.ones(len(belongs))))

    def finish(acc: Totals) -> Figures:
        found = means(acc, "around_event")
        seen = np.where(found["frames"] > 0, found["frames"], np.nan)
        figures: Figures = {}
        for name in names:
            before, after, *since = (found[name] / seen).tolist()
            figures |= {f"{name}_before": before, f"{name}_after": after, f"{name}_since": since}
        return figures

    return Metric(lambda: zeros(dict.fromkeys([*names, "frames"], (groups,))), accumulate, finish)


def _groups(events: Bool[Array, "B T"]) -> Bool[Array, "B T G"]:
    """Which averages each frame belongs to: before, after, and the 2T - 1 distances."""
    after, first, frames = jnp.cumsum(events, axis=1) > 0, jnp.argmax(events, axis=1), events.shape[1]
    frame, distance = np.arange(frames)[None, :, None], np.arange(1 - frames, frames)[None, None]
    apart = (frame - first[:, None, None] == distance) & jnp.any(events, axis=1)[:, None, None]
    return jnp.concatenate([~after[..., None], after[..., None], apart], axis=-1)
