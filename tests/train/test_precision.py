"""Networks that compute in bfloat16 on a state in float32: what is cast where, and how near the curve stays."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from faults import toy
from flax import nnx

from seqjax.errors import InputError
from seqjax.metrics.average import average
from seqjax.nn.split import merge, mixing, split
from seqjax.ops.cells import lstm
from seqjax.ops.linear import affine
from seqjax.ops.norm import layer_norm
from seqjax.ops.scan import unroll
from seqjax.train.evaluate import Evaluation, Sampling, compile_evaluation, compile_sampling
from seqjax.train.mesh import compile_step, make_mesh, replicate, shard_batch
from seqjax.train.step import minimise, repeat

BF16 = jnp.bfloat16


class Net(nnx.Module):
    """Layers of Flax and a number of its own, a counter, and what it has seen."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.exact = nnx.Linear(4, 4, rngs=rngs, dtype=jnp.float32)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.scale = nnx.Param(jnp.full((), 1 / 3))
        self.calls, self.key = nnx.Variable(jnp.zeros((), jnp.int32)), nnx.Variable(jax.random.key(5))
        self.seen = nnx.Variable(jnp.zeros(()))

    def __call__(self, x):
        self.calls[...] = self.calls[...] + 1
        x = self.conv(x)
        self.dtypes = {"conv": x.dtype, "exact": self.exact(x).dtype, "scale": self.scale[...].dtype}
        x = self.norm(x)
        self.seen[...] = x.mean()
        return x * self.scale[...]


def test_parameters_are_cast_and_layers_of_flax_told():
    parts = split({"net": Net(nnx.Rngs(0))})
    net = merge(*parts, dtype=BF16)["net"]
    with mixing(BF16):
        out = net(jnp.ones((2, 4, 4, 3)))  # float32 inputs
    assert net.dtypes == {"conv": BF16, "exact": jnp.float32, "scale": BF16}
    assert out.dtype == BF16
    assert net.calls[...].dtype == jnp.int32
    assert net.norm.mean[...].dtype == net.norm.var[...].dtype == jnp.float32
    assert merge(*parts)["net"](jnp.ones((2, 4, 4, 3))).dtype == jnp.float32


def loss(nets, batch, *, key):
    y = nets["net"](batch)
    return ((y.astype(jnp.float32) - 2 * batch[..., :1]) ** 2).mean(), {"mean": y.mean()}


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
@pytest.mark.parametrize("inner_steps", [1, 2])
def test_the_state_keeps_its_dtypes(parallel, inner_steps):
    nets, mesh, learner = {"net": Net(nnx.Rngs(0))}, make_mesh(), minimise(loss, optax.adam(0.1), ema={"net": 0.5})
    state = replicate(learner.init(nets, jax.random.key(0)), mesh)
    before = jax.tree.map(lambda x: x.dtype, state)
    batch = np.random.default_rng(0).normal(size=(8, 4, 4, 3)).astype(np.float32)
    learner, batch = (learner, batch) if inner_steps == 1 else (repeat(learner, 2), np.stack([batch] * 2))
    step = compile_step(learner, split(nets).graphs, mesh, parallel, inner_steps=inner_steps, dtype=BF16)
    state, metrics = step(state, shard_batch(batch, mesh, inner_steps=inner_steps))
    assert jax.tree.map(lambda x: x.dtype, state) == before
    assert {m.dtype for m in metrics.values()} == {np.dtype(np.float32)}
    assert state.rest["net"]["calls"] == inner_steps
    assert 0 < np.abs(state.rest["net"]["seen"]) < 1


def test_gradients_are_of_the_rounded_parameters_and_not_rounded_themselves():
    """Oracle: by hand. loss = b·(w·x), so dw = b·x where w is far too fine for bfloat16, and w moves by less."""
    net = nnx.Linear(1, 1, use_bias=False, rngs=nnx.Rngs(0))
    net.kernel[...] = jnp.full((1, 1), 1 + 2**-12)

    def objective(nets, batch, *, key):
        return (nets["net"](batch).astype(jnp.float32)).sum(), {}

    learner = minimise(objective, optax.sgd(2**-12))
    state = learner.init({"net": net}, jax.random.key(0))
    state, metrics = learner.step(split({"net": net}).graphs, state, jnp.ones((1, 1)), dtype=BF16)
    assert metrics["loss"] == 1  # 1 + 2⁻¹² is 1 in bfloat16
    assert state.params["net"]["kernel"] == 1  # and in float32 it has come down by one 2⁻¹²


def test_a_loss_that_is_not_float32_is_refused():
    def objective(nets, batch, *, key):
        return nets["net"](batch).mean(), {}

    learner = minimise(objective, optax.sgd(0.1))
    nets = {"net": nnx.Linear(1, 1, rngs=nnx.Rngs(0))}
    state = learner.init(nets, jax.random.key(0))
    learner.step(split(nets).graphs, state, jnp.ones((1, 1)))
    with pytest.raises(InputError, match=r"loss in bfloat16, expected float32.*outputs.astype\(jnp.float32\)"):
        learner.step(split(nets).graphs, state, jnp.ones((1, 1)), dtype=BF16)


def test_outputs_are_measured_and_drawn_in_float32():
    seen, mesh = [], make_mesh()

    def predict(nets, batch):
        seen.append(nets["net"](batch["x"]).dtype)
        return nets["net"](batch["x"])

    def measure(outputs, batch):
        seen.append(outputs.dtype)
        return {"mean": outputs.mean((1, 2, 3))}

    def draw(outputs, batch):
        seen.append(outputs.dtype)
        return {}

    parts, batch = split({"net": Net(nnx.Rngs(0))}), {"x": np.ones((4, 4, 4, 3), np.float32)}
    evaluation = Evaluation(predict, average(["mean"], measure), lambda: [batch])
    compile_evaluation(evaluation, parts.graphs, mesh, dtype=BF16)(parts.params, parts.rest)
    compile_sampling(Sampling(predict, batch, draw), parts.graphs, dtype=BF16)(parts.params, parts.rest)
    assert seen == [BF16, jnp.float32] * 2


def test_recurrences_compute_in_the_dtype_of_their_parameters():
    params = lstm.init(jax.random.key(0), 3, 4)
    half = jax.tree.map(lambda x: x.astype(BF16), params)
    xs = jax.random.normal(jax.random.key(1), (2, 5, 3))
    carry, hs = unroll(lstm, half, None, xs)
    assert hs.dtype == carry.c.dtype == BF16
    again, _ = unroll(lstm, half, jax.tree.map(lambda x: x.astype(jnp.float32), carry), xs)
    assert again.h.dtype == BF16
    expected = unroll(lstm, params, None, xs)[1]
    np.testing.assert_allclose(hs.astype(jnp.float32), expected, atol=0.02)
    assert affine(jnp.zeros(4), params.input[:, :4], xs.astype(BF16)).dtype == jnp.float32


def test_normalisation_is_in_float32():
    """Oracle: NumPy in double precision, on rows whose mean is far from zero: in bfloat16 their spread is lost."""
    x = jnp.asarray(100 + np.arange(8.0), BF16).reshape(1, 8)
    scale = jnp.full(8, 1.25, BF16)
    y = layer_norm(x, scale)
    assert y.dtype == BF16
    exact = np.asarray(x, np.float64)
    exact = 1.25 * (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    np.testing.assert_allclose(np.asarray(y, np.float64), exact, rtol=2**-8)
    assert layer_norm(x, scale.astype(jnp.float32)).dtype == BF16


def test_the_toy_stays_close():
    """Two players on a saddle, 50 steps: within 1 % of the largest loss."""
    config = dataclasses.replace(toy.Config(), loop=dataclasses.replace(toy.Config().loop, steps=50))
    experiment, mesh, curves = toy.prepare(config), make_mesh(), {}
    nets = experiment.build(nnx.Rngs(0))
    for dtype in (None, BF16):
        state = replicate(experiment.learner.init(nets, jax.random.key(0)), mesh)
        step, curve = compile_step(experiment.learner, split(nets).graphs, mesh, dtype=dtype), []
        for batch in toy.batches(config, 0):
            state, metrics = step(state, shard_batch(batch, mesh))
            curve.append([metrics["down/loss"], metrics["up/loss"]])
        curves[dtype] = np.asarray(curve)
    assert (curves[None] != curves[BF16]).any()
    np.testing.assert_allclose(curves[BF16], curves[None], atol=0.01 * np.abs(curves[None]).max())
