"""Oracle: the definitions of OpenSTL's evaluation, as loops over NumPy and scikit-image in float64."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from seqjax.errors import InputError
from seqjax.metrics.frames import PSNR_CAP, frame_metrics, vector_metrics

T = 3
METRIC = frame_metrics(frames=T)
ACCUMULATE = jax.jit(METRIC.accumulate)


def _examples(number=10, seed=0):
    """Targets in [0, 1] and predictions that leave it, [number, T, 12, 13, 1]; later frames are worse."""
    rng = np.random.default_rng(seed)
    target = rng.random((number, T, 12, 13, 1))
    outputs = target + rng.normal(size=target.shape) * np.array([0.1, 0.2, 0.4]).reshape(1, T, 1, 1, 1)
    return outputs.astype(np.float32), target.astype(np.float32)


def _oracle(outputs, target):
    outputs, target = np.float64(outputs), np.float64(target)
    clipped = outputs.clip(0, 1)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    ssim, psnr = np.zeros((2, *outputs.shape[:2]))
    for b, t in np.ndindex(outputs.shape[:2]):
        x, y = clipped[b, t, ..., 0], target[b, t, ..., 0]
        ssim[b, t] = structural_similarity(x, y, data_range=1, **window)
        psnr[b, t] = peak_signal_noise_ratio(y, x, data_range=1)
    mse, mae = ((outputs - target) ** 2).sum((2, 3, 4)), np.abs(outputs - target).sum((2, 3, 4))
    by_frame = {"mse": mse.mean(0), "mae": mae.mean(0), "psnr": psnr.mean(0), "ssim": ssim.mean(0)}
    return {k: v.mean() for k, v in by_frame.items()} | {f"{k}_by_frame": v for k, v in by_frame.items()}


def _run(batches, metric=METRIC, accumulate=ACCUMULATE):
    acc = metric.init()
    for outputs, batch in batches:
        acc = accumulate(acc, jnp.asarray(outputs), jax.tree.map(jnp.asarray, batch))
    return metric.finish(acc)


def _assert_same(figures, expected, rtol=2e-6):
    assert figures.keys() == expected.keys()
    for name, value in figures.items():
        np.testing.assert_allclose(value, expected[name], rtol=rtol, err_msg=name)


def _padded_batches(size, filler):
    """Ten examples in batches of `size`, the last one filled up."""
    outputs, target = _examples()
    for start in range(0, 10, size):
        rows = [x[start : start + size] for x in (outputs, target)]
        missing = size - len(rows[0])
        rows = [np.concatenate([x, np.full((missing, *x.shape[1:]), filler, np.float32)]) for x in rows]
        weight = np.concatenate([np.ones(size - missing), np.zeros(missing)]).astype(np.float32)
        yield rows[0], {"target": rows[1], "weight": weight}


def test_one_batch_equals_oracle():
    outputs, target = _examples()
    figures = _run([(outputs, {"target": target})])
    _assert_same(figures, _oracle(outputs, target))
    assert all(type(figures[name]) is float for name in ("mse", "mae", "psnr", "ssim"))
    assert len(figures["ssim_by_frame"]) == T
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


@pytest.mark.parametrize("filler", [0.0, np.nan, np.inf])
def test_padding_leaves_no_trace(filler):
    _assert_same(_run(_padded_batches(4, filler)), _oracle(*_examples()))


def test_a_batch_of_padding_alone_changes_nothing():
    empty = (np.zeros((4, T, 12, 13, 1), np.float32),) * 2
    batches = [(empty[0], {"target": empty[1], "weight": np.zeros(4, np.float32)})]
    _assert_same(_run(batches + list(_padded_batches(4, 0.0)) + batches), _oracle(*_examples()))


def test_nan_in_an_example_reaches_the_figures():
    outputs, target = _examples()
    outputs[3, 1, 0, 0, 0] = np.nan
    figures = _run([(outputs[:5], {"target": target[:5]}), (outputs[5:], {"target": target[5:]})])
    for name in ("mse", "mae", "psnr", "ssim"):
        assert np.isnan(figures[name])
        np.testing.assert_array_equal(np.isnan(figures[f"{name}_by_frame"]), [False, True, False])


def test_jit_equals_eager():
    batches = list(_padded_batches(4, 0.0))[-1:]
    _assert_same(_run(batches), _run(batches, accumulate=METRIC.accumulate), rtol=1e-6)


def test_sharded_batches_equal_one_device():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    accumulate = jax.jit(
        METRIC.accumulate, in_shardings=(everywhere, rows, rows), out_shardings=everywhere, donate_argnums=0
    )
    acc = jax.device_put(METRIC.init(), everywhere)
    for outputs, batch in _padded_batches(4, np.nan):
        outputs, batch = jax.device_put((outputs, batch), rows)
        assert len(outputs.sharding.device_set) == 4
        assert {shard.data.shape[0] for shard in outputs.addressable_shards} == {1}
        acc = accumulate(acc, outputs, batch)
    _assert_same(METRIC.finish(acc), _oracle(*_examples()))


def test_weights_between_zero_and_one_give_the_weighted_mean():
    outputs, target = _examples(2)
    figures = _run([(outputs, {"target": target, "weight": np.array([0.25, 0.75], np.float32)})])
    parts = [_oracle(outputs[i : i + 1], target[i : i + 1])["psnr"] for i in range(2)]
    np.testing.assert_allclose(figures["psnr"], 0.25 * parts[0] + 0.75 * parts[1], rtol=1e-6)


def test_psnr_of_frames_predicted_exactly_counts_as_the_cap():
    outputs, target = _examples(4)
    outputs[:, 0] = target[:, 0]
    outputs[0, 1] = target[0, 1]
    figures = _run([(outputs, {"target": target})])
    others = _oracle(outputs[1:, 1:], target[1:, 1:])["psnr_by_frame"][0]
    expected = [PSNR_CAP, (PSNR_CAP + 3 * others) / 4]
    np.testing.assert_allclose(figures["psnr_by_frame"][:2], expected, rtol=1e-6)
    assert np.isfinite(figures["psnr"])


def test_psnr_cap_leaves_frames_alone_that_differ_in_one_grey_level():
    _, target = _examples(4)
    outputs = target.copy()
    outputs[:, :, 5, 5] = target[:, :, 5, 5] = 0
    outputs[:, :, 5, 5] += 1 / 255
    expected = 10 * np.log10(12 * 13 * 255**2)
    np.testing.assert_allclose(_run([(outputs, {"target": target})])["psnr"], expected, rtol=1e-6)


def test_error_does_not_grow_with_the_number_of_batches():
    number = 5_000
    outputs, target = (x[:1, :1, :11, :11] for x in _examples(1))
    metric = frame_metrics(frames=1)

    def run(acc):
        batch = {"target": jnp.asarray(target), "weight": jnp.full(1, 0.7)}
        return jax.lax.fori_loop(0, number, lambda _, acc: metric.accumulate(acc, jnp.asarray(outputs), batch), acc)

    acc = jax.jit(run)(metric.init())
    np.testing.assert_allclose(np.float64(acc.total["weight"]), number * np.float64(np.float32(0.7)), rtol=1e-7)
    _assert_same(metric.finish(acc), _oracle(outputs, target), rtol=1e-6)


@pytest.mark.parametrize(("variant", "level_range"), [("openstl", 2), ("uniform7", 1)])
def test_ssim_is_of_the_variant_asked_for(variant, level_range):
    outputs, target = _examples(1)
    metric = frame_metrics(frames=T, ssim=variant)
    figures = _run([(outputs, {"target": target})], metric, jax.jit(metric.accumulate))
    clipped = outputs.astype(np.float64).clip(0, 1)
    expected = [
        structural_similarity(x[..., 0], y[..., 0], data_range=level_range)
        for x, y in zip(clipped[0], target[0].astype(np.float64), strict=True)
    ]
    np.testing.assert_allclose(figures["ssim_by_frame"], expected, rtol=1e-5)


def test_data_range_rescales_what_has_no_unit():
    outputs, target = _examples(2)
    metric = frame_metrics(frames=T, data_range=4.0)
    figures = _run([(4 * outputs, {"target": 4 * target})], metric, jax.jit(metric.accumulate))
    expected = _oracle(outputs, target)
    np.testing.assert_allclose(figures["mse"], 16 * expected["mse"], rtol=1e-6)
    for name in ("psnr", "ssim"):
        np.testing.assert_allclose(figures[name], expected[name], rtol=1e-5)


def test_bfloat16_outputs_are_accumulated_in_float32():
    outputs, target = _examples(4)
    low = jnp.asarray(outputs, jnp.bfloat16)
    _assert_same(_run([(low, {"target": target})]), _oracle(low.astype(jnp.float32), target), rtol=1e-5)


def test_nothing_seen_is_refused():
    with pytest.raises(InputError, match="no example"):
        METRIC.finish(METRIC.init())


@pytest.mark.parametrize(("outputs", "target"), [((2, 2), (2, 2)), ((2, 3), (2, 2)), ((1, 3), (2, 3))])
def test_shapes_that_do_not_fit_are_refused(outputs, target):
    with pytest.raises(InputError, match=r"frames=3.*outputs have the shape"):
        METRIC.accumulate(METRIC.init(), jnp.zeros((*outputs, 12, 12, 1)), {"target": jnp.zeros((*target, 12, 12, 1))})


def test_vectors_in_two_batches_equal_numpy_and_padding_leaves_no_trace():
    rng = np.random.default_rng(0)
    outputs, target = rng.normal(size=(2, 5, 4, 3)).astype(np.float32)
    expected = ((outputs.astype(np.float64) - target) ** 2).sum(axis=2).mean(axis=0)
    metric = vector_metrics(steps=4)
    acc = metric.accumulate(metric.init(), jnp.asarray(outputs[:3]), {"target": jnp.asarray(target[:3])})
    padded = np.concatenate([outputs[3:], np.full((1, 4, 3), np.nan, np.float32)])
    batch = {"target": jnp.asarray(target[[3, 4, 4]]), "weight": jnp.asarray([1.0, 1.0, 0.0])}
    figures = metric.finish(metric.accumulate(acc, jnp.asarray(padded), batch))
    np.testing.assert_allclose(figures["mse_by_frame"], expected, rtol=1e-5)
    np.testing.assert_allclose(figures["mse"], expected.mean(), rtol=1e-5)


@pytest.mark.parametrize(("outputs", "target"), [((2, 4, 3), (2, 4, 1)), ((2, 3, 3), (2, 3, 3))])
def test_vectors_that_do_not_fit_are_refused(outputs, target):
    metric = vector_metrics(steps=4)
    with pytest.raises(InputError, match=r"vector_metrics\(steps=4\): outputs have the shape"):
        metric.accumulate(metric.init(), jnp.zeros(outputs), {"target": jnp.zeros(target)})
