"""Laws for every system of ``seqjax.models``."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from laws.systems import SYSTEMS

import seqjax.models
from seqjax.nn.split import count, merge, split
from seqjax.train.config import from_dict, to_dict
from seqjax.train.mesh import compile_step, make_mesh, replicate, shard_batch
from seqjax.train.step import Player, alternate

NAMES = pytest.mark.parametrize("name", SYSTEMS)


def tiny(name):
    system = SYSTEMS[name]
    config = system.module.Config.tiny()
    return system, config, system.module.build(config, nnx.Rngs(0))


def learner(system, tx):
    players = {name: Player(getattr(system.module, name), trained, tx) for name, trained in system.losses.items()}
    return alternate(players)


def test_every_system_is_here():
    root = Path(seqjax.models.__file__).parent
    files = {p.relative_to(root).with_suffix("").as_posix() for p in root.glob("*/*.py") if p.stem != "__init__"}
    assert files == set(SYSTEMS)


@NAMES
def test_parameter_counts_are_the_published_ones(name):
    system = SYSTEMS[name]
    for expected, options in system.published.items():
        build = functools.partial(system.module.build, system.module.Config(**options))
        assert count(nnx.eval_shape(lambda build=build: build(nnx.Rngs(0)))) == expected


@NAMES
def test_every_parameter_gets_gradient(name):
    """After a step, since parameters that start at zero can hide the ones behind them."""
    system, config, nets = tiny(name)
    learn = learner(system, optax.adam(1e-2))
    graphs = split(nets).graphs
    state = learn.init(nets, jax.random.key(0))
    batch = jax.tree.map(jnp.asarray, system.batch(config, 4))
    state, _ = jax.jit(functools.partial(learn.step, graphs))(state, batch)
    for objective, trained in system.losses.items():

        def value(params, objective=objective):
            merged = merge(graphs, state.params | params, state.rest)
            return getattr(system.module, objective)(merged, batch, key=jax.random.key(1))[0]

        gradients = jax.jit(jax.grad(value))({n: state.params[n] for n in trained})
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
            assert 0 < np.abs(leaf).max() < np.inf, jax.tree_util.keystr(path)


@NAMES
def test_one_batch_is_overfitted(name):
    system, config, nets = tiny(name)
    learn = learner(system, optax.adam(2e-2))
    step = jax.jit(functools.partial(learn.step, split(nets).graphs))
    state, batch = learn.init(nets, jax.random.key(0)), system.batch(config, 4)
    losses = []
    for _ in range(60):
        state, metrics = step(state, batch)
        losses.append(float(metrics[f"{next(iter(system.losses))}/loss"]))
    assert losses[-1] < 0.35 * losses[0]


@NAMES
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_four_devices_train_as_one(name, parallel):
    system, config, nets = tiny(name)
    learn, graphs = learner(system, optax.adam(1e-2)), split(nets).graphs
    curves = []
    for devices in (1, 4):
        mesh = make_mesh(jax.devices()[:devices])
        step = compile_step(learn, graphs, mesh, parallel if devices > 1 else "jit")
        state = replicate(learn.init(nets, jax.random.key(0)), mesh)
        curve = []
        for seed in range(3):
            batch = jax.tree.map(lambda x, seed=seed: np.roll(x, seed, axis=1), system.batch(config, 8))
            state, metrics = step(state, shard_batch(batch, mesh))
            curve.append(jnp.stack([metrics[m] for m in sorted(metrics)]))
        curves.append(np.asarray(curve))
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-5)


@NAMES
def test_networks_that_compute_in_bfloat16_learn_the_same(name):
    """Forty steps on one batch: every loss finite and within 5 % of the first of it from the float32 curve."""
    system, config, nets = tiny(name)
    learn, graphs, batch = learner(system, optax.adam(1e-2)), split(nets).graphs, system.batch(config, 4)
    curves = {}
    for dtype in (None, jnp.bfloat16):
        state, curve = learn.init(nets, jax.random.key(0)), []
        step = jax.jit(functools.partial(learn.step, graphs, dtype=dtype))
        for _ in range(40):
            state, metrics = step(state, batch)
            curve.append([metrics[f"{loss}/loss"] for loss in system.losses])
        curves[dtype] = np.asarray(curve)
        assert {x.dtype for x in jax.tree.leaves((state.params, state.opt)) if x.ndim} == {np.dtype(np.float32)}
    assert np.isfinite(curves[jnp.bfloat16]).all()
    assert (np.abs(curves[jnp.bfloat16] - curves[None]) <= 0.05 * np.abs(curves[None][0])).all()
    half, full = products(jax.make_jaxpr(functools.partial(learn.step, graphs, dtype=jnp.bfloat16))(state, batch).jaxpr)
    assert half > full


def products(jaxpr):
    """How many matrix products and convolutions there are in bfloat16, and how many in float32."""
    found = np.zeros(2, int)
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            found += [eqn.invars[0].aval.dtype == dtype for dtype in (jnp.bfloat16, jnp.float32)]
        for inner in jax.core.jaxprs_in_params(eqn.params):
            found += products(inner)
    return found


@NAMES
def test_configuration_survives_json(name):
    config = SYSTEMS[name].module.Config
    for value in (config(), config.tiny()):
        assert from_dict(config, to_dict(value)) == value
        assert dataclasses.is_dataclass(value)
        hash(value)
