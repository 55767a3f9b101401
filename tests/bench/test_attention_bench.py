"""The benchmark of attention runs, and its figures fit together. Times are not tested."""

import dataclasses
import json

import pytest

from experiments.bench import attention

pytestmark = pytest.mark.tools


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("attention")
    config = dataclasses.replace(
        attention.PRESETS["quick"], out=str(out), lengths=(64, 2048), masks=("causal",), seconds=0.0, limit_gib=0.06
    )
    attention.run(config)
    assert (out / "attention.png").stat().st_size
    return json.loads((out / "results.json").read_text())


def test_every_way_at_every_length(results):
    found = {(r["length"], r["way"], r["gradient"]) for r in results["records"] if r["way"] != "torch"}
    assert found == {(n, way, g) for n in (64, 2048) for way in ("xla", "flash", "jax.nn") for g in (False, True)}


def test_memory_that_holds_all_scores_and_what_does_not_fit_is_not_run(results):
    """2 heads of 2048² scores in float32 are 32 MiB: their gradient wants more than the limit of 61."""
    records = {(r["length"], r["way"], r["gradient"]): r for r in results["records"]}
    assert records[2048, "xla", True]["bytes"] > 0.06 * 2**30
    assert records[2048, "xla", True]["seconds"] is None
    assert records[2048, "flash", True]["bytes"] < 0.25 * records[2048, "xla", True]["bytes"]
    assert records[2048, "flash", True]["seconds"] > 0
    assert records[64, "xla", True]["seconds"] > 0
