"""How close translations between two domains come, where no pairs train them: measures, classifiers, baselines."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax.metrics.average import average
from seqjax.metrics.digits_cnn import train_digits_cnn
from seqjax.metrics.features import FeatureNet
from seqjax.metrics.metric import Metric
from seqjax.ops.cycle import there_and_back
from seqjax.ops.image import uint8_to_unit, unit_to_signed


@runtime_checkable
class Records(Protocol):
    """A set of images that fits in memory."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int, /) -> Mapping[str, np.ndarray]:
        """One, by its place."""
        ...


def classifiers(train: Mapping[str, Records], test: Mapping[str, Records]) -> dict[str, FeatureNet]:
    """A `digits-cnn` for each domain, trained on its images alone: whether it is a digit still, and which.

    Args:
      train: records with ``image`` and ``label`` of both domains.
      test: held-out ones, for their accuracy.
    """

    def arrays(records: Records) -> tuple[np.ndarray, np.ndarray]:
        found = [records[i] for i in range(len(records))]
        return np.stack([r["image"] for r in found]).astype(np.float32) / 127.5 - 1, np.array(
            [r["label"] for r in found]
        )

    return {d: train_digits_cnn(*arrays(train[d]), *arrays(test[d]), name=f"digits-cnn-{d}") for d in train}


def two_way_metrics(classifiers: Mapping[str, FeatureNet] | None) -> Metric:
    """Figures of translations both ways between domains ``a`` and ``b``.

    Outputs are images in [-1, 1] by name: ``a`` and ``b`` translated to that domain, ``cycle_a`` and ``cycle_b`` come
    back to it. Where the true translations of ``batch["a"]`` are ``batch["b"]`` (uint8):

        to_a, to_b                    mean absolute difference from the truth, in [-1, 1]
        accuracy_to_a, accuracy_to_b  share that a classifier of the domain takes for their true class ``a_label``

    Args:
      classifiers: by domain, trained on its real images; None where there are no pairs, and then the figures are

        cycle_a, cycle_b              mean absolute difference after there and back
    """
    if classifiers is None:
        return average(
            ("cycle_a", "cycle_b"),
            lambda outputs, batch: {f"cycle_{d}": _difference(outputs[f"cycle_{d}"], batch[d]) for d in "ab"},
        )

    def values(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> dict[str, Float[Array, " B"]]:
        found = {f"to_{domain}": _difference(outputs[domain], batch[domain]) for domain in "ab"}
        for domain, net in classifiers.items():
            classes = jnp.argmax(net.extract(net.params, outputs[domain]).probabilities, axis=-1)
            found[f"accuracy_to_{domain}"] = (classes == batch["a_label"]).astype(jnp.float32)
        return found

    metric = average(("to_a", "to_b", "accuracy_to_a", "accuracy_to_b"), values)
    record = {f"{d}_{key}": value for d, net in classifiers.items() for key, value in net.record().items()}
    return metric._replace(record=record)


def two_way_baselines(
    train: Mapping[str, Records],
) -> dict[str, Callable[[Any, Mapping[str, Array]], dict[str, Float[Array, "B H W C"]]]]:
    """Translations that need no training, or only statistics of it, as predictions of uint8 batches.

    Args:
      train: training records with ``image`` of both domains, ``a`` and ``b``.
    """
    known = {
        domain: np.stack([records[i]["image"] for i in range(len(records))]).astype(np.float32) / 127.5 - 1
        for domain, records in train.items()
    }
    means = {domain: jnp.asarray(images.mean(axis=0)) for domain, images in known.items()}
    moments = {d: [jnp.asarray(m((0, 1, 2))) for m in (images.mean, images.std)] for d, images in known.items()}

    def both_ways(translate: Callable[[str, str, Array], Array]) -> Callable[..., dict[str, Array]]:
        def predict(nets: Any, batch: Mapping[str, Array]) -> dict[str, Array]:
            real = {domain: unit_to_signed(uint8_to_unit(batch[domain])) for domain in "ab"}
            return there_and_back(
                functools.partial(translate, "b", "a"), functools.partial(translate, "a", "b"), **real
            )

        return predict

    def matched(here: str, there: str, images: Array) -> Array:
        (mean, sd), (new_mean, new_sd) = (
            [jnp.broadcast_to(x, images.shape) for x in moments[d]] for d in (here, there)
        )
        return (images - mean) / jnp.maximum(sd, 1e-6) * new_sd + new_mean

    return {
        "image as it is": both_ways(lambda here, there, images: images),
        "mean image": both_ways(lambda here, there, images: jnp.broadcast_to(means[there][None], images.shape)),
        "mean and contrast": both_ways(matched),
    }


def _difference(outputs: Array, images: Array) -> Array:
    return jnp.mean(jnp.abs(outputs - unit_to_signed(uint8_to_unit(images))), axis=(1, 2, 3))
