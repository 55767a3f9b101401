"""Converted layers run by ``ops.scan.unroll``, and compared with what their own library computed."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.ops.cells import LSTMCarry
from seqjax.ops.scan import unroll

GOLDEN = Path(__file__).parent / "golden"


def load(library):
    """``{case: {field: array, or {name: array}}}`` from what ``golden.py`` wrote."""
    cases = {}
    with np.load(GOLDEN / f"{library}.npz") as file:
        assert library in json.loads(file["versions"].item())
        for key in sorted(set(file) - {"versions"}):  # in one order, which the workers of a parallel run share
            case, field, name = key.split(":", 2)
            fields = cases.setdefault(case, {})
            if name:
                fields.setdefault(field, {})[name] = file[key]
            else:
                fields[field] = file[key]
    return cases


def run(cell, layers, xs, lengths=None):
    """Outputs of the last layer and states ``{"h": [layers·directions, B, ...], "c": ...}``, forward first."""
    carries = []
    for layer in layers:
        directions = layer if isinstance(layer[0], tuple) else (layer,)
        runs = [
            unroll(cell, params, None, xs, lengths=lengths, reverse=bool(backward))
            for backward, params in enumerate(directions)
        ]
        carries += [carry for carry, _ in runs]
        xs = jnp.concatenate([ys for _, ys in runs], axis=-1)
    if isinstance(carries[0], LSTMCarry):
        return xs, {"h": jnp.stack([carry.h for carry in carries]), "c": jnp.stack([carry.c for carry in carries])}
    return xs, {"h": jnp.stack(carries)}


def assert_same_as_source(cell, read, case, tolerance=1e-5):
    """Outputs, states, and gradients with respect to the source's own weights, through ``read``, and to inputs."""
    lengths = case.get("lengths")

    def loss(weights, xs):
        ys, states = run(cell, read(weights), xs, None if lengths is None else jnp.asarray(lengths))
        return jnp.sum(ys**2) / 2 + sum(jnp.sum(s**2) for s in states.values()), (ys, states)

    (gradients, inputs_gradient), (ys, states) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(
        case["weights"], jnp.asarray(case["inputs"])
    )
    expected_ys = case["outputs"]
    if lengths is not None:  # Keras repeats the last output instead of giving zero
        valid = np.arange(expected_ys.shape[1]) < lengths[:, None]
        expected_ys = np.where(valid[..., None], expected_ys, 0.0)
    expected = (case["gradients"], case["inputs_gradient"], expected_ys, case["states"])
    found = (gradients, inputs_gradient, ys, states)
    for want, got in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def assert_identical(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
