"""Laws for every recipe: it runs as shipped, reports, resumes exactly whatever ended it, and explains bad input."""

import json
import random
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from recipes.recipes import RECIPES, ROOT, finish, module, start

from seqjax.train.checkpoint import read_config, read_state
from seqjax.train.config import from_dict
from seqjax.train.log import read_metrics

NAMES = pytest.mark.parametrize("name", RECIPES)
pytestmark = pytest.mark.xdist_group("recipes")


@pytest.fixture(scope="module", autouse=True)
def data_dir(tmp_path_factory):
    """Prepared sets shared by all runs of this file."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("data")
        patch.setenv("TFDS_DATA_DIR", str(path))
        yield path


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, data_dir):
    """The run of each recipe that nothing interrupts."""
    runs = {}
    for name in RECIPES:
        workdir = tmp_path_factory.mktemp("unbroken")
        out, _ = finish(name, "--workdir", workdir)
        runs[name] = workdir, out
    return runs


def lines(workdir):
    return read_metrics(workdir / "metrics.jsonl") if (workdir / "metrics.jsonl").exists() else []


def last_step(workdir):
    return max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def last_state(name, workdir):
    """Every leaf of the newest checkpoint, as bytes."""
    recipe = module(name)
    config = from_dict(recipe.Config, read_config(workdir / "checkpoints"))
    abstract = jax.eval_shape(
        lambda key: recipe.learner(config).init(recipe.build(config, nnx.Rngs(0)), key), jax.random.key(0)
    )
    state = read_state(workdir / "checkpoints", abstract)
    state = state._replace(key=jax.random.key_data(state.key))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def wait_for(workdir, count, process):
    """Returns when that many lines of metrics are written, or the process has ended."""
    while process.poll() is None and len(lines(workdir)) < count:
        time.sleep(0.01)


@NAMES
def test_plain_lines_a_report_and_pictures(name, unbroken):
    workdir, out = unbroken[name]
    steps = module(name).PRESETS["tiny"].loop.steps
    assert sum(f"/{steps}" in line for line in out.splitlines()) >= steps
    assert "\x1b" not in out  # no terminal codes in a pipe
    report = json.loads((workdir / "report.json").read_text())
    keys = {"metrics", "baselines", "command", "seed", "versions", "seconds", "steps", "seconds_to_first_step"}
    assert keys <= report.keys()
    assert report["steps"] == steps
    assert all(figures.keys() == report["metrics"].keys() for figures in report["baselines"].values())
    assert f"experiments.{name.replace('/', '.')} tiny" in report["command"]
    paths = list((workdir / "samples").iterdir())
    assert paths
    for path in paths:
        with Image.open(path) as picture:
            assert np.ptp(np.asarray(picture)) > 0


@NAMES
def test_a_finished_run_says_so(name, unbroken):
    workdir, _ = unbroken[name]
    before = lines(workdir)
    out, _ = finish(name, "--workdir", workdir)
    assert "finished" in out
    assert lines(workdir) == before


@NAMES
def test_killed_at_random_moments_it_is_the_unbroken_run(name, unbroken, tmp_path):
    """kill -9 three times, then the rest: parameters, optimiser, keys and every line of metrics are the same."""
    rng = random.Random(0)
    total = len(lines(unbroken[name][0]))
    for share in (0.1, 0.4, 0.7):
        process = start(name, "--workdir", tmp_path)
        wait_for(tmp_path, int(total * (share + 0.2 * rng.random())), process)
        time.sleep(0.05 * rng.random())
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finish(name, "--workdir", tmp_path)
    assert last_state(name, tmp_path) == last_state(name, unbroken[name][0])
    assert lines(tmp_path) == lines(unbroken[name][0])


@NAMES
def test_sigterm_saves_the_step_reached(name, unbroken, tmp_path):
    process = start(name, "--workdir", tmp_path, "--loop.save-every", 1000, "--allow-change", "loop.save_every")
    wait_for(tmp_path, 7, process)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    step = last_step(tmp_path)
    assert step >= 7
    assert f"step {step} is saved" in " ".join(err.split())
    assert lines(tmp_path)[-1]["step"] == step
    finish(name, "--workdir", tmp_path, "--loop.save-every", 1000)
    assert last_state(name, tmp_path) == last_state(name, unbroken[name][0])
    assert lines(tmp_path) == lines(unbroken[name][0])


@NAMES
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_four_devices_give_the_curve_of_one(name, parallel, unbroken, tmp_path):
    finish(name, "--workdir", tmp_path, "--loop.parallel", parallel, devices=4)
    pairs = zip(lines(tmp_path), lines(unbroken[name][0]), strict=True)
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"kind"}:
            np.testing.assert_allclose(ours[key], theirs[key], rtol=2e-3, err_msg=f"{key} at step {ours['step']}")


@NAMES
def test_several_steps_in_one_call_give_the_same_curve(name, unbroken, tmp_path):
    finish(name, "--workdir", tmp_path, "--loop.steps-per-call", 5, "--loop.log-every", 5)
    expected = [line for line in lines(unbroken[name][0]) if line["step"] % 5 == 0]
    for ours, theirs in zip(lines(tmp_path), expected, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"kind"}:
            np.testing.assert_allclose(ours[key], theirs[key], rtol=2e-3, err_msg=f"{key} at step {ours['step']}")


@NAMES
def test_steps_per_call_has_to_divide_the_cadences(name, capsys, tmp_path):
    message = fails(name, capsys, "--workdir", tmp_path, "--loop.steps-per-call", 3)
    assert "loop.steps: 40 is not a multiple of steps_per_call=3" in message


@NAMES
def test_a_truncated_checkpoint_is_named_and_kept_aside(name, unbroken, tmp_path):
    finish(name, "--workdir", tmp_path, "--loop.steps", 20)
    step = last_step(tmp_path)
    files = [p for p in (tmp_path / "checkpoints" / str(step) / "state").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    _, err = finish(name, "--workdir", tmp_path, "--allow-change", "loop.steps")
    assert f"Checkpoint {step} is damaged" in " ".join(err.split())
    assert (tmp_path / "checkpoints" / "damaged" / str(step)).is_dir()
    assert last_step(tmp_path) == last_step(unbroken[name][0])


def fails(name, capsys, *options, preset="tiny"):
    """The paragraph that a bad command line ends with, its exit status being 2."""
    recipe = module(name)
    with pytest.raises(SystemExit) as stopped:
        recipe.main(recipe.run, recipe.PRESETS, doc=recipe.__doc__, args=[preset, *map(str, options)])
    assert stopped.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@NAMES
def test_a_misspelt_option(name, capsys, tmp_path):
    assert "--loop.steps" in fails(name, capsys, "--workdir", tmp_path, "--loop.stepz", 3)
    assert not list(tmp_path.iterdir())


@NAMES
def test_a_workdir_of_another_configuration(name, capsys, unbroken):
    workdir, _ = unbroken[name]
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    message = fails(name, capsys, "--workdir", workdir, "--optimizer.learning-rate", 0.5)
    for part in ("optimizer.learning_rate", "0.5", "0.001", "--allow-change"):
        assert part in message
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}


@NAMES
def test_an_unwritable_workdir(name, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "--workdir" in fails(name, capsys, "--workdir", tmp_path / "file" / "run")


@NAMES
def test_a_diverging_run_names_the_step_and_keeps_the_last_good_checkpoint(name, tmp_path):
    _, err = finish(name, "--workdir", tmp_path, "--optimizer.learning-rate", 3e38, status=3)
    found = re.search(r"step (\d+): .*(loss|gradient_norm) is (nan|inf)", " ".join(err.split()))
    assert found, err
    kept = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert max(kept, default=0) < int(found.group(1))


def test_list_of_recipes_names_each_with_a_line():
    out = subprocess.run([sys.executable, "-m", "experiments"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in RECIPES:
        line = next(line for line in out.stdout.splitlines() if f"experiments.{name.replace('/', '.')} " in line)
        assert len(line.split()) > 3


def test_every_recipe_is_here():
    root = ROOT / "experiments"
    files = {p.relative_to(root).with_suffix("").as_posix() for p in root.glob("*/*.py") if p.stem != "__init__"}
    assert {name for name in files if not name.startswith(("bench/", "launch/"))} == set(RECIPES)
