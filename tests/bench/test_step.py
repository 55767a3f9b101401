"""The benchmarks of steps and of starts run on tiny recipes, and their figures fit together. Times are not tested."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import pytest

from experiments.bench import startup, step
from experiments.bench.program import read_program

pytestmark = pytest.mark.tools

CELLS = "experiments.recurrent.memory_tasks"


def program(function, *arguments):
    return jax.jit(function).lower(*arguments).compile()


def test_operations_of_a_loop_are_those_of_all_its_steps():
    def loop(x, n):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ c), None), x, None, length=n)[0]

    nested = program(lambda x: jax.lax.scan(lambda c, _: (loop(c, 5), None), x, None, length=3)[0], jnp.ones((8, 8)))
    assert read_program(nested.as_text()).operations == 3 * 5 * 2 * 8**3
    assert nested.cost_analysis()["flops"] < 2 * 2 * 8**3  # XLA's own count


def test_operations_of_branches_are_added():
    def chosen(which, x):
        return jax.lax.switch(which, [lambda x: x @ x, lambda x: x @ x @ x, lambda x: x], x)

    text = program(chosen, jnp.int32(1), jnp.ones((8, 8))).as_text()
    assert "branch_computations" in text
    assert read_program(text).operations == 3 * 2 * 8**3


@pytest.mark.parametrize("differentiated", [False, True])
def test_operations_of_convolutions(differentiated):
    """By hand: 2 · B H W · K K C D, for the value or the kernel's gradient, which sums over B H W; padding included."""

    def convolve(kernel, x):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")).sum()

    function = jax.grad(convolve) if differentiated else convolve
    found = read_program(program(function, jnp.ones((5, 5, 3, 8)), jnp.ones((2, 32, 32, 3))).as_text())
    assert found.operations == 2 * (2 * 32 * 32) * (5 * 5 * 3 * 8)


def test_every_recipe_is_measured():
    assert {"experiments.prediction.convlstm", CELLS} <= set(step.every_recipe())


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_steps(data_dir, tmp_path, capsys, parallel):
    config = dataclasses.replace(
        step.PRESETS["tiny"], out=str(tmp_path), recipes=(CELLS,), data_dir=data_dir, seconds=0.0, parallel=parallel
    )
    step.run(config)
    results = json.loads((tmp_path / "results.json").read_text())
    (record,) = results["records"]
    assert (record["devices"], record["batch"], record["parallel"]) == (4, 8, parallel)
    assert record["operations_per_second"] == pytest.approx(record["operations"] * 4 * record["steps_per_second"])
    assert results["peak"] > 0
    assert "recurrent.memory_tasks" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", step.PUBLISHED)
def test_a_step_takes_what_is_said_of_a_set_that_is_not_here(tmp_path, recipe):
    """Lowered for all devices, not compiled."""
    config = dataclasses.replace(step.PRESETS["plan"], out=str(tmp_path), parallel="pmap")
    _, program, batch = step.foreseen(config, recipe)
    assert "all_reduce" in program.as_text()
    assert all(x.shape[0] % jax.device_count() == 0 for x in batch.values())


def test_plan(data_dir, tmp_path, capsys):
    """Oracle: an LSTM of 8 units on 2 inputs, 8 sequences of T steps on each device, and one map to one number."""
    config = dataclasses.replace(
        step.PRESETS["plan"], preset="tiny", out=str(tmp_path), recipes=(CELLS,), data_dir=data_dir, parallel="pmap"
    )
    step.run(config)
    (record,) = json.loads((tmp_path / "results.json").read_text())["records"]
    steps = step.one_batch(config, CELLS)["inputs"].shape[1]
    parameters = 4 * 8 * (2 + 8 + 1) + 8 + 1
    assert (record["batch"], record["batch_per_device"], record["all_reduces"]) == (32, 8, 1)
    assert 4 * parameters < record["all_reduced_bytes"] <= 4 * parameters + 16
    assert record["other_exchanged_bytes"] == 0
    # Forward x and h; backward h; the gradients of both kernels: 2 · (2 + 3 · 8 ...) multiply-adds of 4 · 8 gates.
    products = 2 * 8 * steps * 32 * (2 + 8 + 8 + 2 + 8)
    assert record["operations"] == pytest.approx(products, rel=0.1)
    assert record["smallest_batch_per_device"] == pytest.approx(
        8 * record["reducing_seconds"] / record["computing_seconds"]
    )
    assert "least B" in capsys.readouterr().out


def test_starts(data_dir, tmp_path, capsys, monkeypatch):
    """Two real processes: the first compiles what the second loads (old jax loads one of its own, too)."""
    monkeypatch.setitem(os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    config = dataclasses.replace(startup.PRESETS["tiny"], out=str(tmp_path), recipes=(CELLS,), data_dir=data_dir)
    startup.run(config)
    (record,) = json.loads((tmp_path / "results.json").read_text())["records"]
    assert record["cold"]["loaded"] < record["cold"]["compiled"]
    assert record["warm"]["compiled"] == 0 < record["warm"]["loaded"]
    assert record["cold"]["seconds"] > 0 < record["warm"]["seconds"]
    assert "loaded" in capsys.readouterr().out
