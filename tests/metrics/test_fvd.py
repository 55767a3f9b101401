"""Closed forms of the distance, its record, and a classifier of clips that sees what moves and what it shows."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.data.moving_discs import render, swing
from seqjax.errors import InputError
from seqjax.metrics.clip_classifier import control_metric, train_clip_classifier
from seqjax.metrics.features import FeatureNet, Features, extract
from seqjax.metrics.frechet import Gaussian, fit, frechet_distance
from seqjax.metrics.fvd import clip_statistics, fvd_metric

D, SHAPE = 4, (3, 2, 2, 1)
"""Features, and clips ``[T, H, W, C]`` of a network that projects them, at random, as by a fixed convolution over all
frames and pixels."""
W = np.random.default_rng(0).normal(size=(12, D)).astype(np.float32) / 12


def projected(weights, clips):
    features = jnp.matmul(clips.reshape(len(clips), -1), weights, precision="highest")
    return Features(features, jax.nn.softmax(features))


NET = FeatureNet("random-3d", "0" * 64, "as given", D, D, jnp.asarray(W), projected)


def clips(n, seed=0, shift=0.0, scale=1.0):
    return (shift + scale * np.random.default_rng(seed).normal(size=(n, *SHAPE))).astype(np.float32)


def distance(found, reference, **options):
    metric = fvd_metric(NET, reference, split="test", frames=3, **options)
    acc = metric.init()
    for k in range(0, len(found), 50):
        acc = jax.jit(metric.accumulate)(acc, jnp.asarray(found[k : k + 50]), {"weight": jnp.ones(50)})
    return metric.finish(acc)


def reference_of(found):
    return fit(extract(NET, found)[0])


def test_equal_sets_have_none():
    same = clips(200)
    assert abs(distance(same, reference_of(same))["random-3d-fd"]) < 1e-6


def test_a_shift_counts_by_its_square():
    same = clips(200)
    moved = (same + 0.5).astype(np.float32)
    expected = ((0.5 * W.sum(axis=0)) ** 2).sum()
    assert distance(moved, reference_of(same))["random-3d-fd"] == pytest.approx(expected, rel=1e-3)


def test_gaussians_that_are_known():
    """``N(0, I)`` and ``N(m, I)``: |m|²; diagonal ones: Σ(√a - √b)²."""
    m, a, b = np.arange(4.0), np.array([1.0, 4.0, 9.0, 0.25]), np.array([4.0, 1.0, 9.0, 1.0])
    unit = Gaussian(np.zeros(4), np.eye(4), 100)
    assert frechet_distance(unit, unit) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(unit, unit._replace(mean=m)) == pytest.approx(14)
    diagonal = [Gaussian(np.zeros(4), np.diag(variances), 100) for variances in (a, b)]
    assert frechet_distance(*diagonal) == pytest.approx(1 + 1 + 0 + 0.25)


def test_the_record_says_what_was_compared():
    reference = reference_of(clips(60))
    metric = fvd_metric(NET, reference, split="test[:60]", frames=3, context=1, resize="bilinear to 112x112")
    assert metric.record == {
        **NET.record(),
        "reference_samples": 60,
        "reference_split": "test[:60]",
        "clip_frames": 3,
        "context_frames": 1,
        "resize": "bilinear to 112x112",
    }
    json.dumps(dict(metric.record))
    assert distance(clips(100), reference).keys() == {"random-3d-fd", "samples"}
    assert distance(clips(100), reference)["samples"] == 100


def test_the_name_of_the_field_belongs_to_published_weights():
    published = NET._replace(published={"fd": "fvd"})
    reference = reference_of(clips(60))
    metric = fvd_metric(published, reference, split="test", frames=3)
    figures = metric.finish(metric.accumulate(metric.init(), jnp.asarray(clips(50)), {}))
    assert figures.keys() == {"fvd", "samples"}


def test_frames_that_are_all_given_leave_nothing_to_judge():
    with pytest.raises(InputError, match="context=3 given frames of frames=3"):
        fvd_metric(NET, reference_of(clips(60)), split="test", frames=3, context=3)


@functools.cache
def discs(split, number):
    drawn = [swing(np.random.default_rng([7, split, i]), frames=5, size=8) for i in range(number)]
    videos = np.stack([render(d.colour, d.centres, size=8) for d in drawn])
    labels = np.array([3 * d.label + d.colour.argmax() for d in drawn])
    return videos, labels


@functools.cache
def classifier():
    return train_clip_classifier(*discs(0, 400), *discs(1, 200), steps=300)


def signed(videos):
    return (videos / 127.5 - 1).astype(np.float32)


def test_the_classifier_knows_unseen_clips():
    net, (videos, labels) = classifier(), discs(2, 200)
    features, probabilities = extract(net, signed(videos), batch=100)
    assert features.shape == (200, net.dimension)
    assert net.classes == 6
    assert (probabilities.argmax(axis=1) == labels).mean() > 0.8
    assert net.accuracy > 0.8
    assert "400 clips" in net.protocol


def test_the_distance_sees_motion_and_content():
    """Unseen clips; their frames among each other, one kind of motion, grey alone."""
    net, (videos, labels) = classifier(), discs(2, 200)
    reference = clip_statistics(net, discs(0, 400)[0])
    order = np.random.default_rng(0).permutation(5 * 200)
    others = {
        "unseen": videos,
        "frames shuffled": videos.reshape(-1, 8, 8, 3)[order].reshape(videos.shape),
        "one kind": np.concatenate([videos[labels < 3]] * 2),
        "grey": np.stack([np.repeat(v.max(axis=-1, keepdims=True), 3, axis=-1) for v in videos]),
    }
    found = {name: frechet_distance(clip_statistics(net, v), reference) for name, v in others.items()}
    for name in list(others)[1:]:
        assert found[name] > 2 * found["unseen"], found


def test_motion_control_is_the_share_of_what_was_meant():
    net, (videos, labels) = classifier(), discs(2, 200)
    metric = control_metric(net, categories=2)
    own = extract(net, signed(videos))[1].reshape(200, 2, 3).sum(axis=-1).argmax(axis=1)

    def measure(category):
        outputs = {"clips": jnp.asarray(signed(videos)), "category": jnp.asarray(category)}
        return metric.finish(jax.jit(metric.accumulate)(metric.init(), outputs, {}))["motion_control"]

    assert measure(own) == 1
    assert measure(1 - own) == 0
    assert measure(labels // 3) == pytest.approx((own == labels // 3).mean(), abs=1e-6)
    assert measure(labels // 3) > 0.9
    assert metric.record["feature_net_sha256"] == net.sha256
    with pytest.raises(InputError, match="categories=4 of a classifier of 6 classes"):
        control_metric(net, categories=4)


def test_sizes_that_cannot_be_halved_twice():
    videos, labels = discs(0, 4)
    with pytest.raises(InputError, match="frames of 6 pixels a side and 4 held-out"):
        train_clip_classifier(videos[:, :, :6, :6], labels, videos[:, :, :6, :6], labels)
    with pytest.raises(InputError, match="and 0 held-out clips"):
        train_clip_classifier(videos, labels, videos[:0], labels[:0])
