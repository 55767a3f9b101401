"""The Transformer: cached decoding against none, what padding and the future change, what is shared."""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.models.language import transformer
from seqjax.models.language.transformer import Config, build, loss, predict
from seqjax.nn.split import count, initialise, merge, split
from seqjax.ops.position import sinusoidal
from seqjax.ops.tokens import BOS, EOS, PAD

KEY = jax.random.key(0)
SOURCE = jnp.asarray([[BOS, 5, 9, 7, EOS, PAD], [BOS, 11, EOS, PAD, PAD, PAD]])
TARGET = jnp.asarray([[BOS, 8, 6, EOS, PAD], [BOS, 4, 13, 5, EOS]])
BATCH = {"source": SOURCE, "target": TARGET}
SMALL = {"vocabulary": 14, "layers": 1, "features": 8, "heads": 2, "hidden": 12}


@functools.cache
def made(**options):
    return initialise(functools.partial(build, Config(**(SMALL | {"beams": 1, "extra": 2} | options))), 0)


POSITIONS = pytest.mark.parametrize("positions", get_args(transformer.Positions))


@POSITIONS
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_cache_gives_the_logits_of_all_tokens_at_once(norm, positions):
    net = made(norm=norm, positions=positions)["transformer"]

    @jax.jit
    def run(target):
        encoded, logits = net.encode(SOURCE), []
        caches = [block.cache((2,), 7) for block in net.decoder]
        for start, stop in ((0, 2), (2, 3), (3, 4), (4, 5)):
            new, caches = net.decode(target[:, start:stop], encoded, caches)
            logits.append(new)
        return jnp.concatenate(logits, axis=1), net(SOURCE, target)

    np.testing.assert_allclose(*run(TARGET), atol=1e-4)


def test_the_future_and_padding_change_nothing():
    net = made()["transformer"]
    run = jax.jit(net)
    logits = run(SOURCE, TARGET)
    np.testing.assert_array_equal(run(SOURCE, TARGET.at[:, 3].set(9))[:, :3], logits[:, :3])
    assert np.abs(run(SOURCE, TARGET.at[:, 3].set(9))[:, 3:] - logits[:, 3:]).max() > 1e-3
    longer = jnp.pad(SOURCE, ((0, 0), (0, 3)))
    np.testing.assert_allclose(run(longer, TARGET), logits, atol=1e-5)
    np.testing.assert_allclose(run(SOURCE[1:, :3], TARGET[1:]), logits[1:], atol=1e-5)


@POSITIONS
def test_a_search_scores_what_it_writes_as_a_pass_without_cache_does(positions):
    net = made(positions=positions, beams=3, length_penalty=0.0)["transformer"]
    found, run = jax.jit(net.search)(SOURCE), jax.jit(net)
    for k in range(3):
        read = jnp.concatenate([jnp.full((2, 1), BOS), found.tokens[:, k, :-1]], axis=1)
        logs = jax.nn.log_softmax(run(SOURCE, read).at[..., jnp.asarray([PAD, BOS])].set(-jnp.inf))
        own = np.take_along_axis(np.asarray(logs), np.asarray(found.tokens[:, k, :, None]), axis=-1)[..., 0]
        sums = [own[row, : found.lengths[row, k]].sum() for row in range(2)]
        np.testing.assert_allclose(found.scores[:, k], sums, atol=1e-4)


@pytest.mark.parametrize("positions", ["rotary", "alibi"])
def test_distances_are_in_self_attention_and_not_in_the_embeddings(positions):
    net = made(positions=positions)["transformer"]
    rows = np.asarray(net.target.matrix[...])[np.asarray(TARGET)] * np.sqrt(8)
    np.testing.assert_allclose(net.target(TARGET, 3), rows, atol=1e-6)
    run = jax.jit(net)
    logits = run(SOURCE, TARGET)[0, 4]
    swapped = jnp.asarray([0, 2, 1, 3, 4])
    assert np.abs(run(SOURCE[:, jnp.append(swapped, 5)], TARGET)[0, 4] - logits).max() > 1e-4
    assert np.abs(run(SOURCE, TARGET[:, swapped])[0, 4] - logits).max() > 1e-4
    other = made(positions={"rotary": "alibi", "alibi": "rotary"}[positions])["transformer"]
    assert np.abs(jax.jit(other)(SOURCE, TARGET)[0, 4] - logits).max() > 1e-4


def test_one_beam_writes_what_a_loop_without_cache_writes():
    """The likeliest token again and again, the whole output read anew; never PAD or BOS."""
    nets = made()
    run, expected = jax.jit(nets["transformer"]), np.full((2, 8), PAD)
    for row in range(2):
        read = jnp.full((1, 9), PAD).at[0, 0].set(BOS)
        for t in range(8):
            token = EOS + int(jnp.argmax(run(SOURCE[row : row + 1], read)[0, t, EOS:]))
            expected[row, t], read = token, read.at[0, t + 1].set(token)
            if token == EOS:
                break
    np.testing.assert_array_equal(jax.jit(lambda source: predict(nets, {"source": source}))(SOURCE), expected)


def test_tokens_are_their_rows_times_a_root_and_their_places():
    net = made(positions="split")["transformer"]
    expected = np.asarray(net.target.matrix[...])[np.asarray(TARGET)] * np.sqrt(8)
    expected += np.asarray(sinusoidal(jnp.arange(5), 8, layout="split"))
    np.testing.assert_allclose(net.target(TARGET), expected, atol=1e-6)
    later = net.target(TARGET[:, 3:], 3)
    np.testing.assert_allclose(later, expected[:, 3:], atol=1e-6)
    assert np.abs(expected - made()["transformer"].target(TARGET)).max() > 0.1


def test_matrices_by_name():
    """13 tokens more to read: 13 rows of 8 where they have a matrix of their own."""

    def size(**options):
        return count(nnx.eval_shape(lambda: build(Config(**SMALL, **options), nnx.Rngs(0))))

    one, two, three = (size(embeddings=name) for name in ("one", "target", "three"))
    assert two - one == three - two == 14 * 8
    assert size(embeddings="target", source_vocabulary=27) - two == 13 * 8
    net = made(embeddings="three")["transformer"]
    logits = jax.jit(net)(SOURCE, TARGET)
    hidden = np.linalg.lstsq(np.asarray(net.output.matrix[...]), np.asarray(logits).reshape(10, 14).T)[0]
    np.testing.assert_allclose(hidden.mean(axis=0), 0, atol=1e-4)  # of the last normalisation, with bias 0


def test_loss_is_over_tokens_and_dropout_by_key():
    nets = made(dropout=0.2, smoothing=0.3)
    logits = jax.jit(nets["transformer"])(SOURCE, TARGET[:, :-1])
    logs = np.asarray(jax.nn.log_softmax(logits))
    costs = [logs[b, t, TARGET[b, t + 1]] for b, t in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3))]
    rests = [logs[b, t].mean() for b, t in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3))]
    dry = made(dropout=0.0, smoothing=0.3)
    plain, metrics = jax.jit(lambda: loss(dry, BATCH, key=KEY))()
    assert float(metrics["nll"]) == pytest.approx(-np.mean(costs), rel=1e-5)
    assert float(plain) == pytest.approx(-0.7 * np.mean(costs) - 0.3 * np.mean(rests), rel=1e-5)
    run = jax.jit(lambda key: loss(nets, BATCH, key=key)[0])
    once, again, other = (float(run(jax.random.key(i))) for i in (0, 0, 1))
    assert once == again != other


def test_blocks_may_be_computed_again():
    def program(nets):
        parts = split(nets)
        gradient = jax.grad(lambda params: loss(merge(parts.graphs, params, parts.rest), BATCH, key=KEY)[0])
        return str(jax.make_jaxpr(gradient)(parts.params))

    kept, again = (program(build(Config(**SMALL, remat=remat), nnx.Rngs(0))) for remat in (False, True))
    assert "remat" not in kept
    assert "remat" in again
    source = jax.jit(made()["transformer"])(SOURCE, TARGET)
    np.testing.assert_array_equal(jax.jit(made(remat=True)["transformer"])(SOURCE, TARGET), source)


def test_attention_in_blocks_gives_the_same_loss_and_gradient():
    def gradient(implementation):
        parts = split(made(implementation=implementation))
        return jax.value_and_grad(lambda p: loss(merge(parts.graphs, p, parts.rest), BATCH, key=KEY)[0]), parts.params

    runs = [gradient(name) for name in ("xla", "flash")]
    assert len({str(jax.make_jaxpr(run)(params)) for run, params in runs}) == 2
    for a, b in zip(*(jax.tree.leaves(jax.jit(run)(params)) for run, params in runs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_weights_are_of_the_source_alone():
    found = jax.jit(made()["transformer"].weights)(SOURCE, TARGET)
    assert found.shape == (1, 2, 2, 5, 6)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found[:, 1, :, :, 3:], 0)


def test_big_is_the_papers():
    big = Config.big()
    assert (big.layers, big.features, big.hidden, big.heads, big.dropout) == (6, 1024, 4096, 16, 0.3)
    assert big.block.features // big.heads == 64
    assert transformer.Config().norm == "post"
