"""Files and functions stay short, the top level stays clean, and no room is a grab bag."""

import ast
import subprocess
from pathlib import Path

import pytest

from experiments.__main__ import recipes

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "seqjax" / "models"
FILES = sorted([*ROOT.glob("seqjax/**/*.py"), *ROOT.glob("experiments/**/*.py")])
IDS = pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())


@IDS
def test_no_file_is_too_long(path):
    assert len(path.read_text().splitlines()) <= 600


@IDS
def test_no_function_is_too_long(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 60, f"{path.name}:{node.name} has {lines} lines"


@IDS
def test_rooms_are_named_for_their_topic(path):
    assert path.stem not in {"utils", "util", "common", "helpers", "misc", "types", "base", "core"}


def test_top_level():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {name.split("/")[0] for name in tracked if not name.startswith(".")} <= {
        *("pyproject.toml", "README.md", "LICENSE", "seqjax", "experiments", "tests", "colab")
    }


def test_every_family_of_models_has_its_recipes():
    """A recipe per system, same folder and file name."""

    found = {module for family in recipes().values() for module in family}
    systems = {p.relative_to(MODELS).with_suffix("") for p in MODELS.glob("*/*.py") if p.stem != "__init__"}
    assert {f"experiments.{system.parent}.{system.name}" for system in systems} == found
