"""seqjax.train.command: a small recipe from the command line, by exit status and what it prints."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from seqjax.errors import InputError
from seqjax.train.command import command_line, main
from seqjax.train.outcome import Diverged, Preempted


@dataclasses.dataclass(frozen=True)
class Model:
    hidden: tuple[int, ...] = (64, 64)
    """Channels of each layer's state."""
    peephole: bool = True
    """Whether the gates see the cell."""


@dataclasses.dataclass(frozen=True)
class Config:
    model: Model = Model()
    """The network."""
    loss: Literal["squared", "entropy"] = "squared"
    """What is minimised."""
    limit: int | None = None
    """Stop after so many, if any."""
    steps: int = 10
    """Gradient steps."""


PRESETS = {"cpu": Config(), "paper": Config(steps=20000, model=Model((128, 64, 64)))}


def launch(*args, run=None):
    """Returns the exit status and the configurations that the recipe was called with."""
    called: list[Config] = []
    with pytest.raises(SystemExit) as end:
        main(run or called.append, PRESETS, doc="Moves digits.", args=args)
    return end.value.code, called


@pytest.mark.parametrize(
    ("args", "config"),
    [
        ([], PRESETS["cpu"]),
        (["cpu"], PRESETS["cpu"]),
        (["paper"], PRESETS["paper"]),
        (["--steps", "3"], Config(steps=3)),
        (["paper", "--loss", "entropy"], dataclasses.replace(PRESETS["paper"], loss="entropy")),
        (["--model.hidden", "8", "4", "--limit", "2"], Config(Model((8, 4)), limit=2)),
        (["--model.no-peephole"], Config(Model(peephole=False))),
    ],
)
def test_preset_then_fields(args, config):
    assert launch(*args) == (0, [config])


@pytest.mark.parametrize("preset", ["cpu", "paper"])
def test_help_explains_every_field_and_lists_the_presets(preset, capsys):
    assert launch(preset, "--help") == (0, [])
    text = " ".join(capsys.readouterr().out.split())
    for words in [
        "Moves digits.",
        "cpu (the default), paper",
        "--model.hidden",
        "Channels of each layer's state.",
    ]:
        assert words in text
    for words in [
        "Whether the gates see the cell.",
        "The network.",
        "What is minimised.",
        "{squared,entropy}",
    ]:
        assert words in text
    assert f"Gradient steps. (default: {PRESETS[preset].steps})" in text


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["papr"], ["error: there is no preset 'papr' (did you mean paper?)", "cpu or paper", "--help"]),
        (["paper", "--steps", "3.5"], ["--steps", "3.5"]),
        (["--loss", "squard"], ["--loss", "squard", "squared"]),
        (["--model.hidden", "a"], ["--model.hidden"]),
    ],
)
def test_bad_command_line_is_explained_with_status_2(args, words, capsys):
    assert launch(*args) == (2, [])
    out, err = capsys.readouterr()
    assert [word for word in words if word not in " ".join(err.split())] == []
    assert "Traceback" not in out + err


def stop_with(reason):
    def run(config):
        raise reason

    return run


@pytest.mark.parametrize(
    ("reason", "status", "words"),
    [
        (InputError("workdir: 'x' cannot be\nwritten to"), 2, "error: workdir: 'x' cannot be written to\n"),
        (Diverged("loss is nan at step 3"), 3, "stopped: loss is nan at step 3\n"),
        (Preempted("saved at step 3"), 75, "stopped: saved at step 3\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_outcome_has_its_status_and_one_paragraph(reason, status, words, capsys):
    assert launch(run=stop_with(reason))[0] == status
    assert capsys.readouterr().err == words


@pytest.mark.parametrize("shift", range(8))
def test_long_reason_is_wrapped_without_breaking_names(capsys, monkeypatch, shift):
    monkeypatch.setenv("COLUMNS", "40")
    launch(run=stop_with(InputError("x" * shift + " a long reason: --allow-change it /a/b" + "/a/b" * 20)))
    lines = capsys.readouterr().err.splitlines()
    assert max(len(line) for line in lines[:-1]) <= 40
    assert "--allow-change" in " ".join(lines).split()
    assert lines[-1] == "/a/b" * 21


def test_other_exceptions_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        main(stop_with(ZeroDivisionError()), PRESETS, doc="", args=[])


def test_command_line_is_what_would_be_typed_again():
    lines = []
    launch("paper", "--steps", "3", run=lambda config: lines.append(command_line()))
    assert lines == [f"python -m {__name__} paper --steps 3"]


RECIPE = '''
"""Prints its command line."""
import dataclasses
from seqjax.train.command import command_line, main

@dataclasses.dataclass(frozen=True)
class Config:
    name: str = "a"
    """A name."""

def run(config):
    print(command_line())

if __name__ == "__main__":
    main(run, {"cpu": Config()}, doc=__doc__)
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "small.py").write_text(RECIPE)
    return tmp_path


def start(folder, *args):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *args], cwd=folder, env=environment, **pipes)


def test_process_started_by_module_and_by_file(folder):
    by_module = start(folder, "-m", "recipes.small", "--name", "two words")
    by_file = start(folder, "recipes/small.py", "cpu")
    assert by_module.communicate() == ("python -m recipes.small --name 'two words'\n", "")
    assert by_file.communicate() == ("python recipes/small.py cpu\n", "")


def test_misspelt_option_is_explained_with_status_2(folder):
    process = start(folder, "-m", "recipes.small", "--nmae", "b")
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert "--nmae" in err
    assert "Perhaps you meant" in err
    assert "--name STR" in err
    assert "A name." in err


def test_reader_that_left_does_not_change_the_status(folder):
    process = start(folder, "-m", "recipes.small")
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 0
