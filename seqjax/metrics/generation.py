"""How close generated images are to real ones, as sets: Fréchet and kernel distance, score, precision and recall.

The figures are named for their feature network: "digits-cnn-fd" of a network trained here, "fid" of the field's
Inception with its published weights alone. They depend on the number of images on both sides; set beside them the same
figures of held-out real images (the floor) and of a trivial generator (`seqjax.metrics.baselines`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax.metrics.features import FeatureNet
from seqjax.metrics.frechet import Gaussian, add_moments, fit, frechet_distance, gaussian_of, no_moments
from seqjax.metrics.inception_score import inception_score
from seqjax.metrics.kid import kernel_distance
from seqjax.metrics.metric import Figures, Metric
from seqjax.metrics.precision_recall import density_coverage, precision_recall
from seqjax.metrics.rows import add_rows, no_rows, rows_of


class _Acc(NamedTuple):
    """The network's weights travel with the sums, as arguments of the compiled evaluation."""

    params: Any
    seen: Any


def frechet_metric(net: FeatureNet, reference: Gaussian) -> Metric:
    """The Fréchet distance of generated images to a reference, of any number of them: moments alone are kept.

    The outputs are images ``[B, H, W, C]`` in [-1, 1], as the network takes them. `finish` gives the distance under
    `net.figure("fd")` and the number of images as "samples".
    """

    def accumulate(acc: _Acc, outputs: Float[Array, "B *S"], batch: Mapping[str, Array]) -> _Acc:
        features = net.extract(acc.params, outputs).features
        return acc._replace(seen=add_moments(acc.seen, features, _weight(outputs, batch)))

    def finish(acc: _Acc) -> Figures:
        found = gaussian_of(acc.seen)
        return {net.figure("fd"): frechet_distance(found, reference), "samples": found.n}

    record = net.record() | {"reference_samples": reference.n}
    return Metric(lambda: _Acc(net.params, no_moments(net.dimension)), accumulate, finish, record)


def generation_metrics(
    net: FeatureNet,
    reference: Float[np.ndarray, "N D"],
    *,
    capacity: int,
    subsets: int = 100,
    splits: int = 10,
) -> Metric:
    """All figures of a set of generated images against the features of real ones.

    The outputs are images ``[B, H, W, C]`` in [-1, 1], as the network takes them; their features are kept until
    `finish`, which gives, each under `net.figure(kind)`, and "samples", how many images there were:

        fd                     Fréchet distance                                    `seqjax.metrics.frechet`
        kid, kid_sd            kernel distance over subsets of at most 1,000       `seqjax.metrics.kid`
        score, score_sd        inception score over splits                         `seqjax.metrics.inception_score`
        rarest_class           share of the images in the class that is told least often; 0 where one is never
        precision, recall      of nearest-neighbour regions                        `seqjax.metrics.precision_recall`
        density, coverage      likewise

    Before the kernel distance, features of any but the published networks are divided by the standard deviation of
    all entries of the reference; the record says so.

    Args:
      net: the feature network.
      reference: features of real images by the same network, from `seqjax.metrics.features.extract`.
      capacity: how many images there will be at most.
      subsets: how many the kernel distance is averaged over.
      splits: of the images, for the inception score.
    """
    known, scale = fit(reference), 1.0 if "kid" in net.published else max(float(reference.std()), 1e-12)

    def accumulate(acc: _Acc, outputs: Float[Array, "B H W C"], batch: Mapping[str, Array]) -> _Acc:
        found = net.extract(acc.params, outputs)
        return acc._replace(seen=add_rows(acc.seen, found._asdict(), _weight(outputs, batch)))

    def finish(acc: _Acc) -> Figures:
        seen = rows_of(acc.seen)
        features, probabilities = seen["features"], seen["probabilities"]
        figures: Figures = {"fd": frechet_distance(fit(features), known)}
        figures["kid"], figures["kid_sd"] = kernel_distance(features, reference, subsets=subsets, scale=scale)
        figures["score"], figures["score_sd"] = inception_score(probabilities, splits=min(splits, len(probabilities)))
        told = np.bincount(probabilities.argmax(axis=-1), minlength=probabilities.shape[-1])
        figures["rarest_class"] = float(told.min() / told.sum())
        figures |= precision_recall(reference, features)._asdict()
        figures |= density_coverage(reference, features)._asdict()
        return {**{net.figure(kind): value for kind, value in figures.items()}, "samples": len(features)}

    record = net.record() | {"reference_samples": len(reference), "kid_feature_scale": scale}
    return Metric(lambda: _Acc(net.params, no_rows(net.row(), capacity)), accumulate, finish, record)


def _weight(outputs: Array, batch: Mapping[str, Array]) -> Array:
    return batch.get("weight", jnp.ones(len(outputs)))
