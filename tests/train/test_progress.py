"""seqjax.train.progress: what a pipe, a terminal (a pseudo-terminal of the system) and nobody get to see."""

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import pytest
from rich.table import Table

from seqjax.train.progress import Progress, format_figures

RUN = """
import sys
from seqjax.train.progress import Progress
with Progress(300, start=100, description="digits") as progress:
    progress.print("resumed at μ = 100")
    for step in range(101, 301):
        progress.advance(step)
        if step % 100 == 0:
            progress.log(step, {"loss": 50 / step, "gradient_norm": 2.0})
    progress.log(300, {"mse": 12.5})
print("done", file=sys.stderr)
"""


def start(stdout, **environment):
    known = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm", "COLUMNS": "100"}
    return subprocess.Popen([sys.executable, "-c", RUN], stdout=stdout, stderr=subprocess.PIPE, env=known | environment)


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}, {"PYTHONIOENCODING": "ascii"}])
def test_pipe_gets_a_line_for_each_logged_step(environment):
    out, err = start(subprocess.PIPE, **environment).communicate()
    lines = out.decode().splitlines()
    assert err == b"done\n"
    assert lines[0] == f"resumed at {'?' if environment.get('PYTHONIOENCODING') else 'μ'} = 100"
    assert re.fullmatch(r"digits  200/300  loss 0\.25  gradient_norm 2  \S+ steps/s", lines[1])
    assert re.fullmatch(r"digits  300/300  loss 0\.1667  gradient_norm 2  \S+ steps/s", lines[2])
    assert lines[3:] == ["digits  300/300  mse 12.5"]


def read_all(terminal):
    """A pseudo-terminal reports that its other side is gone as an input-output error."""
    content = b""
    try:
        while part := os.read(terminal, 65536):
            content += part
    except OSError:
        return content.decode()
    return content.decode()


def test_terminal_gets_one_bar_that_moves():
    terminal, theirs = os.openpty()
    process = start(theirs)
    os.close(theirs)
    shown = read_all(terminal)
    os.close(terminal)
    assert (process.wait(), process.stderr.read()) == (0, b"done\n")
    process.stderr.close()
    assert shown.count("resumed at μ = 100\r\n") == 1
    last = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", shown).split("\r")
    bar = next(line for line in reversed(last) if "300/300" in line and "steps/s" in line)
    assert re.search(r"digits ━+ 300/300 loss 0\.1667 \S+ steps/s 0:?\d", bar)
    assert any(line.startswith("digits  300/300  mse 12.5") for line in last)
    assert any("100/300" in line for line in last)
    assert "gradient_norm" not in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_reader_that_leaves_does_not_end_the_run(terminal):
    ours, theirs = os.openpty() if terminal else os.pipe()
    process = start(theirs)
    os.close(theirs)
    os.close(ours)
    err = process.stderr.read().decode()
    process.stderr.close()
    process.wait()
    assert err.startswith("done\n")


@pytest.mark.parametrize("file", ["closed", "none"])
def test_nowhere_to_write_is_no_reason_to_fail(file, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed if file == "closed" else None)
    with Progress(2) as progress:
        progress.advance(1)
        progress.log(1, {"loss": 1.0})
        progress.print("said to nobody")


def test_other_processes_are_silent(capsys):
    with Progress(2, active=False) as progress:
        progress.advance(1)
        progress.log(1, {"loss": 1.0})
        progress.print("said by another")
    assert capsys.readouterr().out == ""


def test_rate_is_that_since_the_line_before(monkeypatch, capsys):
    now = iter([0.0, 10.0, 12.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    with Progress(1000, start=500, description="x") as progress:
        progress.log(600, {"loss": 1})
        progress.log(900, {"loss": 1})
    assert capsys.readouterr().out == "x   600/1000  loss 1  10 steps/s\nx   900/1000  loss 1  150 steps/s\n"


def test_text_is_printed_as_it_is_and_tables_are_laid_out(capsys):
    with Progress(1) as progress:
        progress.print("[bold] stays, and a long line is one line: " + "x" * 200)
        progress.print(Table("name"))
    shown = capsys.readouterr().out
    assert shown.startswith("[bold] stays, and a long line is one line: " + "x" * 200 + "\n")
    assert "name" in shown


def test_figures_in_one_line():
    figures = {"loss": jnp.float32(0.123456), "steps": 12345.0, "bad": float("nan"), "curve": [1.0, 2.0]}
    assert format_figures(figures) == "loss 0.1235  steps 1.234e+04  bad nan"
