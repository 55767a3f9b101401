"""Several cells by one command: each trained in its own directory, all of them compared, and continued."""

import contextlib
import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from experiments.recurrent import memory_tasks as recipe


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The work directory of two cells trained, and what was printed then and by the same call again."""
    workdir = tmp_path_factory.mktemp("compared")
    tiny = recipe.PRESETS["tiny"]
    config = dataclasses.replace(
        tiny,
        model=dataclasses.replace(tiny.model, task="copy"),
        data=dataclasses.replace(tiny.data, data_dir=str(tmp_path_factory.mktemp("data"))),
        loop=dataclasses.replace(tiny.loop, steps=10),
        cells=("rnn", "gru"),
        workdir=str(workdir),
    )
    printed = []
    for _ in range(2):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            recipe.run(config)
        printed.append(out.getvalue())
    return workdir, *printed


def test_each_cell_has_its_run_and_the_comparison_its_figures(compared):
    workdir, out, _ = compared
    comparison = json.loads((workdir / "comparison.json").read_text())
    assert list(comparison) == ["no memory", "rnn", "gru"]
    for cell in ("rnn", "gru"):
        report = json.loads((workdir / cell / "report.json").read_text())
        assert report["config"]["model"]["cell"] == cell
        for name, value in report["metrics"].items():
            assert comparison[cell][name] == value
            assert comparison["no memory"][name] == report["baselines"]["no memory"][name]
            assert f"{value:.4g}" in out
        for when in ("before", "after"):
            norms = comparison[cell][f"gradient_norms_{when}"]
            slope = np.polyfit(np.arange(len(norms)), np.log(norms), 1)[0]
            assert comparison[cell][f"log_gain_{when}"] == pytest.approx(slope, rel=1e-3, abs=1e-5)
        assert comparison[cell]["gradient_norms_before"] != comparison[cell]["gradient_norms_after"]
    # 10 ln 8 / (T + 20) for the eight blanks of the tiny set
    assert comparison["no memory"]["cross_entropy"] == pytest.approx(10 * np.log(8) / 28, rel=1e-5)
    with Image.open(workdir / "comparison.png") as picture:
        assert np.ptp(np.asarray(picture)) > 0


def test_the_same_command_again_trains_nothing(compared):
    _, out, again = compared
    assert again.count("finished, all 10 steps are done") == 2
    assert out.splitlines()[-4:] == again.splitlines()[-4:]
