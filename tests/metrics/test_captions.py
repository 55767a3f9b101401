"""The metric over batches against the scores of the whole corpus at once."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqjax.errors import InputError
from seqjax.metrics.baselines import blind, nearest, told_alike
from seqjax.metrics.captions import caption_metrics, corpus_scores, for_tables

WORDS = ["<pad>", "<end>", "a", "dog", "cat", "runs", "sits", "?"]
REFERENCES = {10 * i: [["a", "dog", "runs"], ["a", WORDS[2 + i % 5], "sits", "x"]] for i in range(9)}


def decode(ids):
    return [WORDS[i] for i in ids.tolist() if i > 1]


METRIC = caption_metrics(REFERENCES, decode, length=4, tokenization="by hand")
IDS = np.random.default_rng(0).integers(1, 8, (9, 4))
EXPECTED = corpus_scores([decode(ids) for ids in IDS], list(REFERENCES.values()))


def run(metric, size, accumulate, order=None):
    acc = metric.init()
    order = np.arange(9) if order is None else order
    for start in range(0, 9, size):
        rows = order[start : start + size]
        missing = size - len(rows)
        batch = {
            "index": jnp.asarray(np.pad(10 * rows, (0, missing), constant_values=77), jnp.int32),
            "weight": jnp.asarray(np.pad(np.ones(len(rows), np.float32), (0, missing))),
        }
        acc = accumulate(acc, jnp.asarray(np.pad(IDS[rows], ((0, missing), (0, 0))), jnp.int32), batch)
    return metric.finish(acc)


@pytest.mark.parametrize("size", [9, 4])
def test_figures_over_batches_in_any_order(size):
    figures = run(METRIC, size, jax.jit(METRIC.accumulate))
    assert figures == EXPECTED
    assert 0 < figures["bleu_2"] < 1
    assert json.loads(json.dumps(figures)) == figures
    shuffled = run(METRIC, size, jax.jit(METRIC.accumulate), np.random.default_rng(1).permutation(9))
    assert shuffled == pytest.approx(EXPECTED, rel=1e-12)


def test_sharded_batches_equal_one_device():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    add = jax.jit(METRIC.accumulate, in_shardings=(everywhere, rows, rows), out_shardings=everywhere)
    assert (
        run(METRIC, 4, lambda acc, *batch: add(jax.device_put(acc, everywhere), *jax.device_put(batch, rows)))
        == EXPECTED
    )


def test_record_states_the_tokenization():
    assert METRIC.record["tokenization"] == "by hand"
    assert METRIC.record["references"] == 2
    assert METRIC.only("cider_d").record == METRIC.record
    assert json.loads(json.dumps(dict(METRIC.record))) == METRIC.record


def test_examples_may_have_another_name():
    metric = caption_metrics(REFERENCES, decode, length=4, tokenization="", key="image")
    acc = metric.accumulate(metric.init(), jnp.asarray(IDS[:2], jnp.int32), {"image": jnp.array([0, 10])})
    assert metric.finish(acc) == corpus_scores([decode(ids) for ids in IDS[:2]], list(REFERENCES.values())[:2])


def test_refuses_nothing_too_much_and_unknown_examples():
    with pytest.raises(InputError, match="0 examples"):
        METRIC.finish(METRIC.init())
    with pytest.raises(InputError, match=r"length=4.*\(9, 1\)"):
        METRIC.accumulate(METRIC.init(), jnp.ones((9, 1), jnp.int32), {"index": jnp.arange(9)})
    twice = {"index": jnp.zeros(9, jnp.int32)}
    acc = METRIC.accumulate(METRIC.init(), jnp.asarray(IDS, jnp.int32), twice)
    with pytest.raises(InputError, match="18 examples were accumulated in room for capacity=9"):
        METRIC.finish(METRIC.accumulate(acc, jnp.asarray(IDS, jnp.int32), twice))
    acc = METRIC.accumulate(METRIC.init(), jnp.asarray(IDS[:2], jnp.int32), {"index": jnp.array([0, 5])})
    with pytest.raises(InputError, match=r"no references for batch\['index'\] \[5\]"):
        METRIC.finish(acc)


def test_captions_that_need_no_training():
    ids = np.array([[1, 5], [1, 7], [1, 5], [1, 7], [1, 7]])
    np.testing.assert_array_equal(told_alike(ids), [1, 7])
    images = np.random.default_rng(0).integers(256, size=(6, 4, 4, 3), dtype=np.uint8)
    order = [3, 0, 5]
    queries = jnp.asarray(np.clip(images[order].astype(int) + 2, 0, 255), jnp.uint8)
    np.testing.assert_array_equal(nearest(images, queries), order)
    shown = blind(lambda nets, batch, key: (nets, batch, key))(1, {"image": jnp.arange(3), "x": 5}, key=2)
    np.testing.assert_array_equal(shown[1]["image"], [2, 0, 1])
    assert (shown[0], shown[1]["x"], shown[2]) == (1, 5, 2)


def test_few_columns_for_tables():
    found = run(for_tables(METRIC), 9, METRIC.accumulate)
    assert found == {name: EXPECTED[name] for name in ("bleu_4", "rouge_l", "cider_d", "exact")} | {
        "bleu": [EXPECTED[f"bleu_{n}"] for n in range(1, 5)]
    }
