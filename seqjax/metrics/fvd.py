"""Fréchet video distance: how close generated clips are to real ones, as sets, by the features of a video network.

The network is the caller's (`metrics.features.FeatureNet`, whose `extract` takes clips ``[B, T, H, W, C]`` in [-1, 1]),
and only figures of the field's, I3D with its published weights, may be called FVD: one that publishes
``{"fd": "fvd"}``. A figure is biased upwards by few clips, and towards what single frames look like (Ge et al., *On the
Content Bias in Fréchet Video Distance*, 2024), so it means something beside others of one record alone.

Source: Unterthiner, van Steenkiste, Kurach, Marinier, Michalski, Gelly, *Towards Accurate Generative Models of Video: A
New Metric & Challenges*, 2018.
"""

import numpy as np
from jaxtyping import UInt8

from seqjax.errors import InputError
from seqjax.metrics.features import FeatureNet, extract
from seqjax.metrics.frechet import Gaussian, fit
from seqjax.metrics.generation import frechet_metric
from seqjax.metrics.metric import Metric


def clip_statistics(net: FeatureNet, clips: UInt8[np.ndarray, "N T H W C"], *, batch: int = 50) -> Gaussian:
    """The Gaussian of real clips' features, grey levels 0..255; so many clips are floating-point at a time."""
    parts = (clips[start : start + batch] for start in range(0, len(clips), batch))
    return fit(np.concatenate([extract(net, part.astype(np.float32) / 127.5 - 1, batch=batch)[0] for part in parts]))


def fvd_metric(
    net: FeatureNet, reference: Gaussian, *, split: str, frames: int, context: int = 0, resize: str = "none"
) -> Metric:
    """The Fréchet distance of clips to a reference, with all that a reader needs to compare it in the record.

    The outputs are clips ``[B, T, H, W, C]`` in [-1, 1]. `finish` gives the distance under `net.figure("fd")` and the
    number of clips as "samples".

    Args:
      net: the feature network.
      reference: of real clips, from `clip_statistics`.
      split: which real clips these are.
      frames: T, of both.
      context: how many of these are given frames, which are real in both.
      resize: how frames were brought to the network's size.

    Raises:
      InputError: no frame is left to be judged.
    """
    if not 0 <= context < frames:
        raise InputError(f"context={context} given frames of frames={frames}: give fewer, or none.")
    metric = frechet_metric(net, reference)
    facts: dict[str, str | float] = {
        "reference_split": split,
        "clip_frames": frames,
        "context_frames": context,
        "resize": resize,
    }
    return metric._replace(record={**metric.record, **facts})
