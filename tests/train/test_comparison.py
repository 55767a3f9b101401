"""Runs side by side, from reports written here."""

import json

import pytest
from PIL import Image

from seqjax.errors import InputError
from seqjax.train.comparison import compare


def finished(path, elsewhere=None, **metrics):
    path.mkdir()
    content = {"metrics": metrics, "baselines": {"nothing": {"loss": 3.0, "hits": "nan"}}}
    content |= {"elsewhere": elsewhere} if elsewhere else {}
    (path / "report.json").write_text(json.dumps(content))
    lines = [{"step": step, "kind": "train", "loss": 1 / step} for step in (1, 2, 3)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_row_for_each_baseline_and_run_and_a_curve_for_each_run(tmp_path, capsys):
    runs = {
        "first": finished(tmp_path / "a", loss=1.25, hits=0.5, by_lag=[1.0, 2.0]),
        "second": finished(tmp_path / "b", loss=2.5, hits=0.25, by_lag=[1.0, 3.0]),
    }
    compare(runs, workdir=str(tmp_path), title="both")
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content == {
        "nothing": {"loss": 3.0, "hits": "nan"},
        "first": {"loss": 1.25, "hits": 0.5, "by_lag": [1.0, 2.0]},
        "second": {"loss": 2.5, "hits": 0.25, "by_lag": [1.0, 3.0]},
    }
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert rows[:5] == [
        ["both"],
        ["loss", "hits"],
        ["nothing", "3", "nan"],
        ["first", "1.25", "0.5"],
        ["second", "2.5", "0.25"],
    ]
    with Image.open(tmp_path / "comparison.png") as picture:
        assert picture.width > 100


def test_rows_of_what_was_measured_elsewhere(tmp_path):
    """After the others; the baselines are the first run's."""

    def night(loss):
        return {"night": {"model": {"loss": loss}, "nothing": {"loss": 7 * loss}}}

    runs = {
        name: finished(tmp_path / name, elsewhere=night(loss), loss=1.0)
        for name, loss in (("first", 2.0), ("last", 4.0))
    }
    compare(runs, workdir=str(tmp_path), title="both")
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert list(content) == ["nothing", "first", "last", "nothing, night", "first, night", "last, night"]
    assert [content[f"{name}, night"]["loss"] for name in ("nothing", "first", "last")] == [14.0, 2.0, 4.0]


def test_other_figures_elsewhere_stand_in_a_second_table(tmp_path, capsys):
    ranked = {"ranked": {"model": {"recall": 0.75}, "nothing": {"recall": 0.5}}}
    runs = {name: finished(tmp_path / name, elsewhere=ranked, loss=1.0, hits=2.0) for name in ("first", "last")}
    compare(runs, workdir=str(tmp_path), title="both")
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert rows[:5] == [["both"], ["loss", "hits"], ["nothing", "3", "nan"], ["first", "1", "2"], ["last", "1", "2"]]
    assert rows[5] == ["nothing,", "ranked", "first,", "ranked", "last,", "ranked"]
    assert rows[6] == ["recall", "0.5", "0.75", "0.75"]


def test_a_run_without_report(tmp_path):
    with pytest.raises(InputError, match="cannot be read as a report"):
        compare({"a": str(tmp_path / "a")}, workdir=str(tmp_path), title="one")
