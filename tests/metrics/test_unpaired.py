"""Measures of translation between domains against NumPy, and the baselines against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.metrics.features import FeatureNet, Features
from seqjax.metrics.unpaired import two_way_baselines, two_way_metrics

RNG = np.random.default_rng(0)
REAL = {domain: RNG.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8) for domain in "ab"}
SIGNED = {domain: images / 127.5 - 1 for domain, images in REAL.items()}
OUTPUTS = {name: RNG.normal(size=(6, 4, 4, 3)).astype(np.float32) for name in ("a", "b", "cycle_a", "cycle_b")}


def brightest(name):
    """Takes the brightest channel for the class."""

    def extract(params, images):
        means = jnp.mean(images, axis=(1, 2))
        return Features(means, jax.nn.softmax(means))

    return FeatureNet(name, "0", "as it is", 3, 3, (), extract)


def measured(metric, batch):
    acc, add = metric.init(), jax.jit(metric.accumulate)
    for rows in (slice(0, 4), slice(4, 6)):
        part = {name: jnp.asarray(x[rows]) for name, x in OUTPUTS.items()}
        acc = add(acc, part, {name: jnp.asarray(x[rows]) for name, x in batch.items()})
    return metric.finish(acc)


def test_differences_from_the_truth_and_recognition():
    labels = RNG.integers(0, 3, 6)
    found = measured(two_way_metrics({d: brightest(f"net-{d}") for d in "ab"}), REAL | {"a_label": labels})
    for domain in "ab":
        assert found[f"to_{domain}"] == pytest.approx(np.abs(OUTPUTS[domain] - SIGNED[domain]).mean(), rel=1e-5)
        right = OUTPUTS[domain].mean(axis=(1, 2)).argmax(axis=1) == labels
        assert found[f"accuracy_to_{domain}"] == pytest.approx(right.mean())
    assert two_way_metrics({"a": brightest("net-a")}).record["a_feature_net"] == "net-a"


def test_without_pairs_there_and_back_is_all_that_is_known():
    found = measured(two_way_metrics(None), REAL)
    assert found == {
        name: pytest.approx(np.abs(OUTPUTS[name] - SIGNED[name[-1]]).mean(), rel=1e-5)
        for name in ("cycle_a", "cycle_b")
    }


def test_baselines_are_what_they_are_called():
    train = {d: [{"image": image} for image in images] for d, images in REAL.items()}
    found = {name: predict({}, jax.tree.map(jnp.asarray, REAL)) for name, predict in two_way_baselines(train).items()}
    np.testing.assert_allclose(found["image as it is"]["b"], SIGNED["a"], atol=1e-6)
    np.testing.assert_allclose(found["mean image"]["b"][2], SIGNED["b"].mean(axis=0), atol=1e-6)
    matched = np.asarray(found["mean and contrast"]["b"])
    np.testing.assert_allclose(matched.mean((0, 1, 2)), SIGNED["b"].mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(matched.std((0, 1, 2)), SIGNED["b"].std((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(found["mean and contrast"]["cycle_a"], SIGNED["a"], atol=1e-5)
