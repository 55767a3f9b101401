"""seqjax.train.report: the file and the table of a finished run, against `json`, `git` and arithmetic by hand."""

import io
import json
import math
import os
import platform
import re
import subprocess

import jax
import numpy as np
import pytest
from rich.console import Console

import seqjax
from seqjax.errors import InputError
from seqjax.train.report import finished, format_report, read_report, versions, write_report

METRICS = {"mse": 49.0, "psnr": 18.5, "ssim": 0.5, "mse_by_frame": [40.0, 58.0]}
BASELINES = {
    "last frame": {"mse": 200.0, "psnr": 14.0, "ssim": 0.25},
    "training mean": {"mse": 98.0, "psnr": math.inf, "ssim": 0.75},
    "background": {"mse": math.nan},
}


def write(workdir, **changes):
    run = {
        "metrics": METRICS,
        "baselines": BASELINES,
        "higher_is_better": ("psnr", "ssim"),
        "config": {"model": {"hidden": [64, 64]}, "workdir": str(workdir)},
        "seed": 7,
        "steps": 1000,
        "seconds": 251.2,
        "seconds_to_first_step": 9.25,
        "input_wait": 0.01,
        "programs": {"loaded": 0, "compiled": 3},
        "command": "python -m experiments.prediction.convlstm paper",
    }
    return write_report(workdir, **run | changes)


def shown(report, width=80):
    screen = Console(file=io.StringIO(), width=width)
    screen.print(format_report(report))
    return [line.rstrip() for line in screen.file.getvalue().splitlines()]


def test_report_says_all_that_is_needed_to_repeat_the_run(tmp_path):
    report = write(tmp_path)
    stored = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert stored["baselines"]["training mean"]["psnr"] == "inf"
    assert stored["versions"] == report["versions"]
    assert stored["versions"]["python"] == platform.python_version()
    assert (stored["versions"]["jax"], stored["versions"]["numpy"]) == (jax.__version__, np.__version__)
    assert {"jaxlib", "flax", "optax", "orbax-checkpoint", "seqjax", "commit"} <= stored["versions"].keys()
    assert stored["hardware"]["devices"] == jax.device_count()
    assert stored["hardware"]["processes"] == 1
    assert stored["hardware"]["device"] == jax.devices()[0].device_kind
    assert stored["hardware"]["cpus"] == os.cpu_count()
    assert {"command", "seed", "steps", "seconds", "seconds_to_first_step", "config"} <= stored.keys()


def test_damaged_records_are_listed_and_counted_below_the_table(tmp_path):
    assert not [line for line in shown(write(tmp_path)) if "damaged" in line]
    report = write(tmp_path, damaged=["Record 7 ..", "Record 3 .."])
    assert report["damaged"] == ["Record 3 ..", "Record 7 .."]
    assert shown(report)[-1] == "2 damaged records skipped, listed in report.json"


def test_reader_gives_the_numbers_back(tmp_path):
    written = write(tmp_path)
    report = read_report(tmp_path)
    assert report["metrics"] == METRICS
    assert report["baselines"]["training mean"] == BASELINES["training mean"]
    assert math.isnan(report["baselines"]["background"]["mse"])
    assert str(report) == str(written)


def test_table_sets_the_model_against_the_best_baseline(tmp_path):
    lines = [re.split(r"  +", line) for line in shown(write(tmp_path)) if line]
    assert lines[0] == ["", "mse ↓", "psnr ↑", "ssim ↑"]
    assert lines[2:6] == [
        ["model", "49", "18.5", "0.5"],
        ["last frame", "200", "14", "0.25"],
        ["training mean", "98 *", "inf *", "0.75 *"],
        ["background", "nan"],
    ]
    assert lines[6] == ["model against the best (*)", "× 0.5", "- inf", "- 0.25"]
    assert lines[7][0].startswith("1000 steps in 0:04:11, the first after 9.25 s; ")
    assert "seed 7" in lines[7][0]
    assert lines[8] == ["python -m experiments.prediction.convlstm paper"]


def test_what_is_measured_elsewhere_stands_at_the_end_of_the_table(tmp_path):
    report = write(tmp_path, elsewhere={"night": {"model": {"mse": 64.0, "psnr": math.inf}, "copy": {"mse": 81.0}}})
    assert json.loads((tmp_path / "report.json").read_text())["elsewhere"]["night"]["model"]["psnr"] == "inf"
    assert report["elsewhere"] == {"night": {"model": {"mse": 64.0, "psnr": math.inf}, "copy": {"mse": 81.0}}}
    lines = [re.split(r"  +", line) for line in shown(report) if line]
    assert lines[6][0] == "model against the best (*)"
    assert lines[7:9] == [["model, night", "64", "inf"], ["copy, night", "81"]]


def test_other_figures_elsewhere_have_a_table_of_their_own(tmp_path):
    night = {"model": {"mse": 64.0}}
    ranked = {"model": {"r1": 0.75, "by_lag": [1.0]}, "copy": {"r1": 0.5, "median": 3.0}}
    report = write(tmp_path, elsewhere={"ranked": ranked, "night": night}, higher_is_better=("psnr", "ssim", "r1"))
    lines = [re.split(r"  +", line) for line in shown(report) if line]
    assert lines[7] == ["model, night", "64"]
    assert lines[8] == ["ranked", "model", "copy"]
    assert lines[10] == ["r1 ↑", "0.75", "0.5"]
    assert lines[11][0].startswith("1000 steps")


def test_better_is_positive_and_an_exact_baseline_has_no_ratio(tmp_path):
    report = write(tmp_path, baselines={"copy": {"mse": 0.0, "ssim": 0.25}})
    (row,) = [line for line in shown(report) if line.startswith("model against")]
    assert re.split(r"  +", row)[1:] == ["best exact", "+ 0.25"]


def test_table_stands_without_baselines_and_fits_a_narrow_page(tmp_path):
    assert any(re.fullmatch(r"model +49 +18.5 +0.5", line) for line in shown(write(tmp_path, baselines={})))
    assert max(map(len, shown(write(tmp_path), width=50))) <= 50


def test_run_is_finished_when_all_its_steps_are_done(tmp_path):
    assert finished(tmp_path, 1000) is None
    report = write(tmp_path)
    assert str(finished(tmp_path, 1000)) == str(report)
    assert finished(tmp_path, 1001) is None
    (tmp_path / "report.json").write_text("{")
    assert finished(tmp_path, 1000) is None


def test_commit_is_that_of_the_checkout_and_says_if_files_differ(tmp_path, monkeypatch):
    def git(*args):
        known = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *args]
        return subprocess.run(known, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(seqjax, "__path__", [str(tmp_path / "seqjax")])
    assert versions()["commit"] is None
    git("init")
    assert versions()["commit"] is None
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    git("tag", "-a", "v1", "-m", "one")
    assert versions()["commit"] == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("two")
    assert versions()["commit"] == git("rev-parse", "HEAD") + "-dirty"


def test_failing_write_is_explained_and_keeps_the_earlier_report(tmp_path, monkeypatch):
    write(tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"report\.json cannot be written \(No space left on device\)"):
        write(tmp_path, seed=8)
    assert read_report(tmp_path)["seed"] == 7
    assert os.listdir(tmp_path) == ["report.json"]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"metrics": 3}'])
def test_missing_or_damaged_report_is_explained(tmp_path, content):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(InputError, match=r"report\.json cannot be read as a report"):
        read_report(tmp_path)


def test_protocol_of_the_metrics_is_kept(tmp_path):
    assert write(tmp_path, protocol={"feature_net": "digits-cnn"})["protocol"] == {"feature_net": "digits-cnn"}


def test_what_is_out_of_reach_bears_no_star(tmp_path):
    lines = shown(write(tmp_path, out_of_reach=("training mean",)))
    assert "*" not in next(line for line in lines if line.startswith("training mean"))
    assert any("*" in line for line in lines)
