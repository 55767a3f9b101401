"""The benchmark of the input runs, and its figures fit together. Times are not tested."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from experiments.bench import input as bench
from seqjax.errors import InputError

pytestmark = pytest.mark.tools


def test_what_is_in_memory_is_read_once(monkeypatch):
    read = []

    class Source:
        def __len__(self):
            return 6

        def __getitem__(self, index):
            read.append(index)
            return {"number": np.asarray(index)}

    monkeypatch.setattr(bench, "open_source", lambda *_, **__: Source())
    config = bench.Config(batch=2, seconds=0.0)
    bench.measure(config, "any/set", "memory", 0.0)
    assert read == [0, *range(6)]  # the first also for its shape
    bench.measure(config, "any/set", "disk", 0.0)
    assert len(read) >= 7 + 7 * 2  # the first batch, three, and three with steps


def test_figures_fit_together(tmp_path, capsys):
    """One road in a fresh process, as a user has it, the other in this one."""
    options = {"seconds": 0.0, "step_ms": 1.0, "out": str(tmp_path / "bench"), "data_dir": str(tmp_path / "data")}
    config = dataclasses.replace(bench.PRESETS["quick"], sets=("moving_digits/tiny_16",), roads=("memory",), **options)
    bench.run(config)
    results = json.loads((tmp_path / "bench" / "results.json").read_text())
    assert results["records"][0]["memory_bytes"] > 0
    records = [*results["records"], bench.measure(config, "moving_digits/tiny_16", "disk", 0.001)]
    assert [record["road"] for record in records] == ["memory", "disk"]
    for record in records:
        assert (record["set"], record["records"]) == ("moving_digits/tiny_16", 64)
        assert record["batch"] == 8  # of the recipe's preset "tiny"
        assert record["record_bytes"] == 8 * 16 * 16 + 2 * 8  # frames of a byte per pixel; label and index of a digit
        assert record["records_per_second"] == pytest.approx(8 * record["batches_per_second"])
        assert record["seconds_to_first_batch"] > 0
        assert record["step_seconds"] == 0.001
        assert 0 < record["wait_share"] < 1
    assert "moving_digits/tiny_16" in capsys.readouterr().out


@pytest.mark.parametrize("step", [0.0, 0.25])
def test_waiting_is_the_time_within_next(monkeypatch, step):
    """On a clock that only a batch, of half a second, and a step move."""
    now = [0.0]

    def later(seconds):
        now[0] += seconds

    def batches():
        for _ in itertools.count():
            later(0.5)
            yield None

    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(bench.time, "sleep", later)
    assert bench.consume(batches(), 6.0, step) == (count := 6 / (0.5 + step), 6.0, count / 2)
    assert bench.consume(batches(), 0.0, step) == (3, 3 * (0.5 + step), 1.5)


def test_step_of_a_run(tmp_path):
    report = {"metrics": {}, "baselines": {}, "steps": 40, "seconds": 8.0}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert bench.step_seconds(bench.Config(workdir=str(tmp_path))) == 0.2
    assert bench.step_seconds(bench.Config(step_ms=30.0)) == 0.03
    with pytest.raises(InputError, match="cannot be read as a report"):
        bench.step_seconds(bench.Config(workdir=str(tmp_path / "elsewhere")))
