"""Imports point down the floors of the house, read from the syntax trees."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EVERYWHERE = {"seqjax", "seqjax.errors", "seqjax.compat", "seqjax.files"}
MAY_IMPORT = {
    "seqjax.ops": set(),
    "seqjax.data": set(),
    "seqjax.nn": {"seqjax.ops"},
    "seqjax.metrics": {"seqjax.ops", "seqjax.nn"},
    "seqjax.train": {"seqjax.ops", "seqjax.nn"},
    "seqjax.models": {"seqjax.ops", "seqjax.nn"},
    "seqjax.convert": {"seqjax.ops", "seqjax.nn", "seqjax.models"},
}
# What each floor keeps out of the world outside; ops is used by people without flax, data by hosts without jax.
FORBIDDEN = {
    "seqjax.ops": {"flax", "optax", "orbax", "numpy", "tensorflow_datasets", "grain"},
    "seqjax.data": {"jax", "flax", "optax", "orbax"},
    "seqjax": {"tensorflow", "torch", "tyro"},
    "experiments": {"tensorflow", "torch", "tyro"},
}
ALLOWED = {("seqjax/train/command.py", "tyro"), ("seqjax/convert/files.py", "torch")}
NNX_BANNED = {
    *("jit", "grad", "value_and_grad", "scan", "vmap", "pmap", "remat", "cond", "while_loop", "fori_loop"),
    *("Optimizer", "MultiMetric", "StateAxes", "DiffState", "sow", "perturb"),
}
BORDER = {"split", "merge", "state"}  # of modules and arrays, in one file
BENCH = "experiments.bench."  # runs other libraries as their users do; no recipe imports it
COMMANDS = (BENCH, "experiments.launch.")  # no recipes: files of one such folder may import each other
FILES = sorted([*ROOT.glob("seqjax/**/*.py"), *ROOT.glob("experiments/**/*.py")])


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {n if (ROOT / Path(*n.split("."))).with_suffix(".py").exists() else node.module for n in names}
    return found


def floor(module: str) -> str:
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_arrows_point_down(path):
    here = module_name(path)
    for name in imports(path):
        if name in EVERYWHERE or not name.startswith(("seqjax", "experiments")):
            continue
        if any(here.startswith(folder) and name.startswith(folder) for folder in COMMANDS):
            continue
        if here.startswith("experiments"):
            assert not name.startswith("experiments"), f"{here} imports another recipe: {name}"
        else:
            allowed = MAY_IMPORT.get(floor(here), set()) | {floor(here)}
            assert floor(name) in allowed, f"{here} may not import {name}"
        if here.startswith("seqjax.models."):
            assert not name.startswith("seqjax.models."), f"{here} imports another system: {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_outside_world_is_kept_out(path):
    here, relative = module_name(path), path.relative_to(ROOT).as_posix()
    roots = {name.split(".")[0] for name in imports(path)}
    if here.startswith(BENCH):
        roots -= {"torch"}
    for prefix, forbidden in FORBIDDEN.items():
        if here == prefix or here.startswith(f"{prefix}."):
            assert not {r for r in roots & forbidden if (relative, r) not in ALLOWED}, here


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_flax_holds_parameters_and_nothing_else(path):
    if module_name(path).startswith(BENCH):
        return
    assert not {n for n in imports(path) if n.startswith(("flax.linen", "flax.training"))}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nnx":
            assert node.attr not in NNX_BANNED, f"{path}: nnx.{node.attr}"
            assert node.attr not in BORDER or path.name == "split.py", f"{path}: nnx.{node.attr} outside nn/split.py"
