"""The benchmarks run, and what they write has every figure. Times are not tested."""

import dataclasses
import json

import pytest

from experiments.bench import long_sequences, recurrent

pytestmark = pytest.mark.tools


def test_cells_next_to_flax(tmp_path, capsys):
    out = str(tmp_path / "bench")
    peers = ("flax.linen", "not_a_library")
    recurrent.run(recurrent.Config(out, "quick", cells=("gru",), peers=peers, rounds=1, seconds=0.0))
    results = json.loads((tmp_path / "bench" / "results.json").read_text())
    assert {(r["library"], r["gradient"]) for r in results["records"]} == {
        (library, gradient) for library in ("seqjax", "flax.linen") for gradient in (False, True)
    }
    assert all(r["seconds"] > 0 and r["compile_seconds"] > 0 for r in results["records"])
    assert (tmp_path / "bench" / "gradient.png").stat().st_size
    printed = capsys.readouterr().out
    assert "left out: not_a_library" in printed
    assert "geometric mean" in printed


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    out = tmp_path_factory.mktemp("long")
    long_sequences.run(dataclasses.replace(long_sequences.PRESETS["tiny"], out=str(out)))
    return json.loads((out / "results.json").read_text())


def test_memory_of_chunks_is_less_than_that_of_every_step(long):
    found = {r["scheme"]: r["bytes"] for r in long["memory"] if r["steps"] == 64}
    assert found["chunks of √T"] < found["deferred"] / 2
    assert {r["scheme"] for r in long["memory"] if r["steps"] == 1000} == {"chunks of √T", "chunks of 256"}


def test_newton_says_how_it_went(long):
    assert len(long["newton"]) == 3 * 2 * 3
    for record in long["newton"]:
        assert record["error"] < 1e-5
        assert 0 < record["iterations"] <= 100
        assert record["converged"] == (record["residual"] <= long["config"]["tolerance"])
