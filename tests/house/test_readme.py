"""The README holds: its table matches the tree, its Python runs, its commands are the ones that are tested."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def rows():
    """The table of systems: the cells of each row, links reduced to their targets."""
    table = TEXT.split("## Systems")[1].split("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def targets(cell):
    return re.findall(r"\]\(([^)]+)\)", cell)


def test_table_lists_every_system_with_its_file_and_recipe():
    systems = {p.relative_to(ROOT).as_posix() for p in ROOT.glob("seqjax/models/*/*.py") if p.stem != "__init__"}
    recipes = {p.replace("seqjax/models", "experiments") for p in systems}
    assert {targets(row[2])[0] for row in rows()} == systems
    assert {targets(row[3])[0] for row in rows()} == recipes


def test_every_system_has_its_paper_and_a_result():
    for system, paper, _, _, result in rows():
        assert system
        assert targets(paper)[0].startswith("https://")
        assert re.search(r"\d", result)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_links_lead_somewhere():
    for target in targets(TEXT):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_notebook_is_listed():
    notebooks = {p.relative_to(ROOT).as_posix() for p in ROOT.glob("colab/*.ipynb")}
    assert set(targets(TEXT.split("## Colab")[1].split("\n## ")[0])) == notebooks


def test_start_has_one_line_to_run_and_one_to_test():
    run, test = [block.strip() for block in blocks("bash")[:2]]
    assert "\n" not in run
    assert "\n" not in test
    assert run.endswith("-m experiments.prediction.convlstm")
    assert test.endswith("-m pytest")
