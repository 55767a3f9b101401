"""Oracle: loops over rows, heads, queries and keys in float64, each condition of visibility spelled out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.ops import dot_product_attention as module
from seqjax.ops.dot_product_attention import dot_product_attention, partial_attention
from seqjax.ops.flash_attention import Partial, finish, merge

B, T, S, N, K, H, E = 2, 7, 9, 4, 2, 3, 5
RNG = np.random.default_rng(0)
HEADS = [np.float32(RNG.normal(size=shape)) for shape in ((B, T, N, H), (B, S, K, H), (B, S, K, E))]
ANY = RNG.random((B, N, T, S)) < 0.5
ANY[0, 1, 3] = False  # a query that sees nothing
W = np.float32(RNG.normal(size=(B, T, N, E)))
CASES = {
    "all": {},
    "scores": {"scale": 0.1, "alibi": np.float32([0.5, 0.25, 0.125, 0.0]), "offset": 1},
    "mask": {"mask": ANY},
    "causal, lengths": {
        "causal": True,
        "offset": np.array([0, 2], np.int32),
        "lengths": np.array([0, 5], np.int32),
        "mask": np.arange(S) != 1,
    },
    "window, segments": {
        "window": (2, 1),
        "segments": (np.array([[1, 1, 1, 2, 2, 3, 3]] * B), np.array([[1, 1, 2, 2, 2, 2, 2, 4, 4]] * B)),
    },
}
EVERY_CASE = pytest.mark.parametrize("case", CASES)
BOTH = pytest.mark.parametrize("implementation", ["xla", "flash"])


def oracle(
    q, k, v, *, mask=None, lengths=None, segments=None, causal=False, window=None, offset=0, alibi=None, scale=None
):
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for b, t, n in np.ndindex(q.shape[:-1]):
        at, head, scores, seen = np.broadcast_to(offset, len(q))[b] + t, n // (q.shape[2] // k.shape[2]), [], []
        for s in range(k.shape[1]):
            visible = (
                mask is None or np.broadcast_to(mask, (*q.shape[:1], q.shape[2], q.shape[1], k.shape[1]))[b, n, t, s]
            )
            visible = visible and (not causal or s <= at)
            visible = visible and (window is None or at - window[0] <= s <= at + window[1])
            visible = visible and (lengths is None or s < lengths[b])
            visible = visible and (segments is None or segments[0][b, t] == segments[1][b, s])
            if visible:
                score = (q[b, t, n] @ k[b, s, head]) * (1 / np.sqrt(q.shape[-1]) if scale is None else scale)
                scores.append(score - (0 if alibi is None else alibi[n] * abs(at - s)))
                seen.append(v[b, s, head])
        if seen:
            weights = np.exp(np.array(scores) - max(scores))
            out[b, t, n] = weights @ np.array(seen) / weights.sum()
    return out


@functools.cache
def program(case, implementation):
    """Compiled: output, and the gradients of ``Σ w · output``; chunks that divide neither length."""

    def run(heads, w):
        attend = functools.partial(dot_product_attention, implementation=implementation, chunks=(3, 4), **arrays(case))
        out, pull = jax.vjp(attend, *heads)
        return out, pull(w)

    return jax.jit(run)


@functools.cache
def found(case, implementation):
    return program(case, implementation)(list(map(jnp.asarray, HEADS)), jnp.asarray(W))


def arrays(case):
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, CASES[case])


@EVERY_CASE
@BOTH
def test_values_equal_oracle(case, implementation):
    np.testing.assert_allclose(found(case, implementation)[0], oracle(*HEADS, **CASES[case]), rtol=1e-5, atol=1e-6)


@EVERY_CASE
@BOTH
def test_gradients_equal_finite_differences_of_oracle(case, implementation):
    heads = [np.float64(x) for x in HEADS]
    for seed in range(2):
        rng = np.random.default_rng(seed)
        steps = [1e-6 * rng.normal(size=x.shape) for x in heads]
        up, down = (
            np.vdot(W, oracle(*(x + sign * step for x, step in zip(heads, steps, strict=True)), **CASES[case]))
            for sign in (1, -1)
        )
        slope = sum(np.vdot(g, step) for g, step in zip(found(case, implementation)[1], steps, strict=True)) / 1e-6
        np.testing.assert_allclose(slope, (up - down) / 2e-6, rtol=1e-4, atol=1e-5)


@EVERY_CASE
def test_flash_equals_plain_in_value_and_every_gradient(case):
    for a, b in zip(jax.tree.leaves(found(case, "flash")), jax.tree.leaves(found(case, "xla")), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@BOTH
@pytest.mark.parametrize(("case", "row"), [("mask", (0, 3, 1)), ("causal, lengths", (0,))])
def test_queries_that_see_nothing_get_zeros_and_no_nan(case, row, implementation):
    out, gradients = found(case, implementation)
    np.testing.assert_array_equal(out[row], 0)
    np.testing.assert_array_equal(gradients[0][row], 0)
    assert all(np.isfinite(g).all() for g in gradients)


@BOTH
def test_what_is_hidden_changes_nothing(implementation):
    """Far values past the lengths, in values and gradients; and no gradient goes to the future."""
    q, k, v = map(jnp.asarray, HEADS)
    run, w = program("causal, lengths", implementation), jnp.zeros((B, T, N, E)).at[1, 1].set(1.0)
    out, gradients = run([q, k, v], w)
    far = [q, k.at[1, 5:].set(300.0), v.at[1, 5:].set(-1e30).at[0].set(1e30)]
    for a, b in zip(jax.tree.leaves((out, gradients)), jax.tree.leaves(run(far, w)), strict=True):
        np.testing.assert_array_equal(a, b)
    for gradient in gradients[1:]:
        assert np.abs(gradient[1, np.array([0, 2, 3])]).min() > 0
        np.testing.assert_array_equal(gradient[1, 4:], 0)
        np.testing.assert_array_equal(gradient[0], 0)


@BOTH
def test_huge_scores_choose_one_value(implementation):
    q, k, v = map(jnp.asarray, HEADS)
    best = np.argmax(np.einsum("btkgh,bskh->btkgs", HEADS[0].reshape(B, T, K, N // K, H), HEADS[1]), axis=-1)
    expected = [HEADS[2][b, best[b, t, k, g], k] for b, t, k, g in np.ndindex(best.shape)]
    out, gradients = program("all", implementation)([1e5 * q, k, v], jnp.asarray(W))
    np.testing.assert_allclose(out, np.reshape(expected, (B, T, N, E)), rtol=1e-6)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("way", ["leading dimensions", "vmap"])
def test_more_dimensions_equal_one_batch_after_the_other(way):
    q, k, v = (jnp.stack([x, x[::-1]]) for x in map(jnp.asarray, HEADS))
    lengths, offset = jnp.array([[0, 5], [9, 2]], jnp.int32), jnp.array([[1, 0], [0, 2]], jnp.int32)

    def run(q, k, v, lengths, offset):
        options = {"implementation": "flash", "chunks": (3, 4), "causal": True, "mask": jnp.asarray(ANY)}
        return dot_product_attention(q, k, v, lengths=lengths, offset=offset, **options)

    out = jax.jit(run if way == "leading dimensions" else jax.vmap(run))(q, k, v, lengths, offset)
    for i in range(2):
        options = {"causal": True, "mask": ANY, "lengths": lengths[i], "offset": offset[i]}
        expected = oracle(*(np.asarray(x[i]) for x in (q, k, v)), **options)
        np.testing.assert_allclose(out[i], expected, rtol=1e-5, atol=1e-6)


@BOTH
def test_bfloat16_comes_back_and_is_summed_in_float32(implementation):
    """512 equal scores: in bfloat16 a sum of ones ends at 256, and the mean of ones would be off."""
    heads = [jnp.ones((1, 512, 1, 4), jnp.bfloat16)] * 3

    @jax.jit
    def run(heads):
        out, pull = jax.vjp(functools.partial(dot_product_attention, implementation=implementation), *heads)
        return out, pull(jnp.ones_like(out))

    out, gradients = run(heads)
    assert {x.dtype for x in (out, *gradients)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_array_equal(np.float32(out), 1)
    np.testing.assert_allclose(np.float32(gradients[2]), 1, rtol=1e-2)


def test_eager_equals_jit():
    eager = dot_product_attention(*map(jnp.asarray, HEADS), implementation="flash", chunks=(3, 4))
    np.testing.assert_allclose(eager, found("all", "flash")[0], rtol=1e-5, atol=1e-6)


def bytes_of_gradient(length, **options):
    """What the compiled gradient holds besides arguments and results; nothing is run."""
    shapes = [jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)] * 3

    def value(q, k, v):
        return jnp.sum(jnp.square(dot_product_attention(q, k, v, **options)))

    memory = jax.jit(jax.grad(value, argnums=(0, 1, 2))).lower(*shapes).compile().memory_analysis()
    return memory.temp_size_in_bytes


def test_memory_of_flash_is_linear_in_length():
    short, long = (bytes_of_gradient(n, implementation="flash", causal=True, chunks=(128, 128)) for n in (4096, 8192))
    assert long < 2.1 * short
    # A position of the heads is 4 · 2 · 16 bytes: a few of them, and not a score for each key.
    assert long < 20 * 8192 * 128


def test_long_sequences_take_flash_and_short_ones_plain(monkeypatch):
    called = []

    def spy(*arguments, **options):
        called.append(len(arguments))
        return flash(*arguments, **options)

    flash = module.flash_attention
    monkeypatch.setattr(module, "flash_attention", spy)
    for backend, length, expected in (("cpu", 256, 0), ("cpu", 257, 1), ("gpu", 1024, 1), ("gpu", 1025, 2)):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        shapes = [jax.ShapeDtypeStruct((1, length, 1, 2), jnp.float32)] * 3
        jax.eval_shape(dot_product_attention, *shapes)
        assert len(called) == expected


def test_dropout_keeps_the_mean_and_zeroes_the_share():
    q, k, v = jnp.zeros((1, 64, 2, 4)), jnp.zeros((1, 256, 2, 4)), jnp.ones((1, 256, 2, 1))
    run = jax.jit(functools.partial(dot_product_attention, dropout=0.25))
    out = run(q, k, jnp.broadcast_to(v, (1, 256, 2, 1)), key=jax.random.key(0))
    # Each output is the mean of 256 weights of variance 1/3: three standard errors of the mean of all 128.
    assert abs(float(out.mean()) - 1) < 3 * np.sqrt(1 / 3 / 256 / 128)
    assert float(out.std()) == pytest.approx(np.sqrt(1 / 3 / 256), rel=0.2)
    kept = run(q, k, jnp.broadcast_to(jnp.eye(256)[:, None], (1, 256, 2, 256)), key=jax.random.key(1))
    assert set(np.unique(np.float32(kept)).round(6)) == {0, np.float32(1 / 256 / 0.75).round(6)}


@pytest.mark.parametrize("case", ["all", "scores", "causal, lengths", "native"])
def test_cudnn_is_told_the_same(case, monkeypatch):
    """The kernels are GPUs' alone: XLA's stands in for them, behind the same words."""
    seen = {}

    def stand_in(*heads, implementation, **options):
        assert implementation == "cudnn"
        seen.update(options)
        return function(*heads, implementation="xla", **options)

    function = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setitem(CASES, "native", {"causal": True, "lengths": np.array([0, 5], np.int32)})
    half = [jnp.asarray(x, jnp.bfloat16) for x in (*HEADS[:2], HEADS[2][..., :H])]
    out = dot_product_attention(*half, implementation="cudnn", **arrays(case))
    expected = oracle(*(np.float32(x) for x in half), **CASES[case])
    np.testing.assert_allclose(np.float32(out), expected, rtol=0.03, atol=0.03)
    # Causal masks and lengths are the kernels' own; anything else costs a whole array.
    assert bool({"mask", "bias"} & set(seen)) == (case not in ("all", "native"))


def test_merging_parts_in_any_order_gives_the_whole():
    """Parts of the keys by their definition; the last part is of no key at all."""
    rng = np.random.default_rng(1)
    scores, values = 20 * rng.normal(size=(4, 9)), rng.normal(size=(9, 3))

    def part(s, v):
        top = s.max(axis=-1, initial=-1e30)
        weights = np.exp(s - top[:, None])
        return Partial(*(jnp.asarray(x, jnp.float32) for x in (weights @ v, top, weights.sum(-1))))

    parts = [part(scores[:, cut], values[cut]) for cut in (slice(0, 2), slice(2, 7), slice(7, 9), slice(0, 0))]
    whole = finish(part(scores, values))
    a, b, c, nothing = parts
    for merged in (merge(merge(a, b), c), merge(a, merge(b, c)), merge(merge(c, nothing), merge(b, a))):
        np.testing.assert_allclose(finish(merged), whole, rtol=1e-5)
    np.testing.assert_array_equal(finish(merge(nothing, nothing)), 0)


@EVERY_CASE
def test_parts_of_the_keys_merge_into_all_of_them(case):
    """In value and gradient."""

    def part(heads, first, last):
        own = arrays(case) | {"offset": arrays(case).get("offset", 0) - first}
        if "mask" in own:
            own["mask"] = own["mask"][..., first:last]
        if "lengths" in own:
            own["lengths"] = jnp.clip(own["lengths"] - first, 0, last - first)
        if "segments" in own:
            own["segments"] = own["segments"][0], own["segments"][1][:, first:last]
        queries, keys, values = heads
        return partial_attention(queries, keys[:, first:last], values[:, first:last], **own)

    def merged(*heads):
        return finish(merge(merge(part(heads, 0, 4), part(heads, 4, 7)), part(heads, 7, S)))

    def run(heads, w):
        out, pull = jax.vjp(merged, *heads)
        return out, pull(w)

    parts = jax.jit(run)(list(map(jnp.asarray, HEADS)), jnp.asarray(W))
    for a, b in zip(jax.tree.leaves(parts), jax.tree.leaves(found(case, "xla")), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": jnp.ones((B, 3, T, S), bool)}, r"mask has shape \(2, 3, 7, 9\)"),
        ({"mask": jnp.zeros((T, S))}, "mask has dtype float32; expected booleans"),
        ({"lengths": 3}, r"lengths has shape \(\); expected \(2,\)"),
        ({"window": 2}, "window is 2"),
        ({"lengths": jnp.ones(3, jnp.int32)}, r"lengths has shape \(3,\); expected \(2,\)"),
        ({"segments": (jnp.ones((B, T), jnp.int32),) * 2}, r"segments of keys has shape \(2, 7\)"),
        ({"offset": jnp.ones(3, jnp.int32)}, "offset has shape"),
        ({"alibi": jnp.ones(K)}, r"alibi has shape \(2,\); expected \(4,\)"),
        ({"window": (3, -1)}, "window is"),
        ({"chunks": (0, 4), "implementation": "flash"}, "chunks is"),
        ({"implementation": "pallas"}, "'pallas'; expected one of"),
        ({"dropout": 0.1, "implementation": "flash", "key": jax.random.key(0)}, "dropout is 0.1"),
        ({"dropout": 0.1}, "missing"),
        ({"implementation": "cudnn"}, '"cudnn" on cpu for float32; expected a GPU'),
    ],
)
def test_what_cannot_be_is_refused_by_name(options, message):
    with pytest.raises(InputError, match=message):
        dot_product_attention(*map(jnp.asarray, HEADS), **options)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "shapes", [((2, 7, 4, 3), (2, 9, 3, 3)), ((2, 7, 4, 3), (1, 9, 2, 3)), ((2, 7, 4, 3), (2, 9, 2, 4))]
)
def test_heads_that_do_not_fit_are_refused(shapes):
    with pytest.raises(InputError, match="K divides N"):
        dot_product_attention(*(jnp.zeros(shape) for shape in (*shapes, shapes[1])))


@BOTH
def test_scale_may_be_learned(implementation):
    """Against a number, and the gradient against a difference of two values."""
    heads = list(map(jnp.asarray, HEADS))

    def value(scale):
        found = dot_product_attention(*heads, scale=scale, implementation=implementation)
        return jnp.sum(jnp.sin(found))

    found, slope = jax.jit(jax.value_and_grad(value))(jnp.float32(0.7))
    np.testing.assert_allclose(found, value(0.7), rtol=1e-5)
    np.testing.assert_allclose(slope, (value(0.71) - value(0.69)) / 0.02, rtol=1e-2)


@BOTH
@pytest.mark.parametrize("sizes", [(0, S), (T, 0)], ids=["no query", "no key"])
def test_of_nothing_come_zeros(sizes, implementation):
    queries, keys, values = (jnp.asarray(x[:, :n]) for x, n in zip(HEADS, (sizes[0], *[sizes[1]] * 2), strict=True))
    found = dot_product_attention(queries, keys, values, causal=True, implementation=implementation)
    np.testing.assert_array_equal(found, np.zeros((B, sizes[0], N, E)))


@pytest.mark.usefixtures("unchecked")
def test_lists_are_arrays():
    found = dot_product_attention(*map(jnp.asarray, HEADS), lengths=[9, 5])
    expected = dot_product_attention(*map(jnp.asarray, HEADS), lengths=jnp.array([9, 5]))
    np.testing.assert_array_equal(found, expected)
