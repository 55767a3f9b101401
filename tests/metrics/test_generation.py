"""Oracle: the statistics themselves on features taken of all images at once; the network is one linear map."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqjax.errors import InputError
from seqjax.metrics.features import FeatureNet, Features, extract, hash_weights
from seqjax.metrics.frechet import fit, frechet_distance
from seqjax.metrics.generation import frechet_metric, generation_metrics
from seqjax.metrics.inception_score import inception_score
from seqjax.metrics.kid import kernel_distance
from seqjax.metrics.precision_recall import density_coverage, precision_recall

W = np.random.default_rng(9).normal(size=(18, 4)).astype(np.float32)


def linear(weights, images):
    features = jnp.matmul(images.reshape(len(images), -1), weights, precision="highest")
    return Features(features, jax.nn.softmax(features))


NET = FeatureNet("linear", hash_weights(W), "as given", 4, 4, jnp.asarray(W), linear, 0.5)
PUBLISHED = NET._replace(published={"fd": "fid", "kid": "kid", "score": "is"})


def draw(n, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=(n, 3, 3, 2))).astype(np.float32)


REAL = extract(NET, draw(60), batch=32)[0]
METRIC = generation_metrics(NET, REAL, capacity=50, subsets=5, splits=3)


def run(metric, images, size, accumulate=None):
    accumulate = accumulate or jax.jit(metric.accumulate)
    acc = metric.init()
    for k in range(0, len(images), size):
        rows = images[k : k + size]
        missing = size - len(rows)
        weight = jnp.asarray(np.pad(np.ones(len(rows), np.float32), (0, missing)))
        rows = np.pad(rows, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=np.nan)
        acc = accumulate(acc, jnp.asarray(rows), {"weight": weight})
    return metric.finish(acc)


def expected(images):
    features, probabilities = extract(NET, images)
    kid, score = (
        kernel_distance(features, REAL, subsets=5, scale=float(REAL.std())),
        inception_score(probabilities, splits=3),
    )
    figures = {"fd": frechet_distance(fit(features), fit(REAL))}
    figures |= {"kid": kid[0], "kid_sd": kid[1], "score": score[0], "score_sd": score[1]}
    figures["rarest_class"] = min(np.mean(probabilities.argmax(axis=1) == k) for k in range(4))
    figures |= precision_recall(REAL, features)._asdict() | density_coverage(REAL, features)._asdict()
    return {f"linear-{name}": value for name, value in figures.items()} | {"samples": len(images)}


@pytest.mark.parametrize("size", [50, 16])
def test_figures_over_batches_with_padding_left_out(size):
    images = draw(50, seed=1, scale=1.2)
    figures = run(METRIC, images, size)
    assert figures == pytest.approx(expected(images), rel=1e-4)
    assert json.loads(json.dumps(figures)) == figures


def test_sharded_batches_equal_one_device():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    add = jax.jit(METRIC.accumulate, in_shardings=(everywhere, rows, rows), out_shardings=everywhere)
    images = draw(46, seed=1)
    figures = run(
        METRIC, images, 16, lambda acc, *batch: add(jax.device_put(acc, everywhere), *jax.device_put(batch, rows))
    )
    assert figures == pytest.approx(expected(images), rel=1e-4)


def test_streaming_distance_is_the_same_for_any_number():
    images = draw(50, seed=1)
    figures = run(frechet_metric(NET, fit(REAL)), images, 16)
    assert figures == pytest.approx({k: expected(images)[k] for k in ("linear-fd", "samples")}, rel=1e-4)


def test_without_weights_every_row_counts():
    images = draw(12, seed=1)
    figures = METRIC.finish(METRIC.accumulate(METRIC.init(), jnp.asarray(images), {}))
    assert figures["samples"] == 12


def test_record_names_the_network_its_weights_and_the_protocol():
    record = {"feature_net": "linear", "feature_net_sha256": NET.sha256, "feature_net_accuracy": 0.5}
    record |= {"protocol": "as given", "reference_samples": 60}
    assert frechet_metric(NET, fit(REAL)).record == record
    assert METRIC.record == record | {"kid_feature_scale": pytest.approx(REAL.std())}
    assert METRIC.on(lambda batch: batch).record == METRIC.record


def test_names_of_the_field_belong_to_published_weights_alone():
    metric = generation_metrics(PUBLISHED, REAL, capacity=50, subsets=1)
    figures = run(metric, draw(20), 20)
    assert {"fid", "kid", "is", "linear-kid_sd", "linear-precision"} <= figures.keys()
    assert metric.record["kid_feature_scale"] == 1
    assert not {"fid", "is", "kid"} & run(METRIC, draw(20), 20).keys()


def test_hash_sees_values_shapes_and_places():
    hashes = {
        hash_weights(tree) for tree in ({"a": W}, {"b": W}, {"a": W.T.copy()}, {"a": W + 1}, {"a": W.reshape(-1)})
    }
    assert len(hashes) == 5
    assert hash_weights({"a": W}) == hash_weights({"a": jnp.asarray(W)})


@pytest.mark.parametrize("n", [0, 51])
def test_refuses_nothing_and_more_than_there_is_room_for(n):
    with pytest.raises(InputError, match=f"{n} examples were accumulated in room for capacity=50"):
        run(METRIC, draw(n), 17)
