"""Laws for every recipe: it runs as shipped, reports, resumes exactly whatever ended it, and explains bad input."""

import functools
import importlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from laws.systems import SYSTEMS
from PIL import Image
from processes import RECIPES, finish, said, start

from seqjax.train.checkpoint import read_config, read_state
from seqjax.train.config import from_dict
from seqjax.train.log import read_metrics

SYSTEM = {f"experiments.{name.replace('/', '.')}": system for name, system in SYSTEMS.items()}


# Of one player, and of several: on these is tested what the loop does, whatever the recipe.
OF_THE_LOOP = ("experiments.prediction.convlstm", "experiments.generation.dcgan")
EVERY, TWO = (pytest.mark.parametrize("recipe", recipes) for recipes in (RECIPES, OF_THE_LOOP))
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Prepared sets shared by all runs of this file."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def options(data_dir):
    """The preset that takes seconds, on these sets, in a work directory."""
    return lambda workdir: ("tiny", "--workdir", str(workdir), "--data.data-dir", str(data_dir))


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory, options):
    """The run of a recipe that nothing interrupts, on one device."""

    @functools.cache
    def run(recipe):
        path = tmp_path_factory.mktemp("unbroken")
        assert finish(recipe, *options(path / "run"), log=path / "log") == 0, said(path / "log")
        return path / "run", said(path / "log", "out")

    return run


@pytest.fixture
def here(options, capsys):
    """The recipe in this process, on its four devices: exit status and what was said, in one line."""

    def run(recipe, workdir, *more):
        module = importlib.import_module(recipe)
        with pytest.raises(SystemExit) as stopped:
            module.main(module.run, module.PRESETS, doc=module.__doc__, args=[*options(workdir), *map(str, more)])
        out, err = capsys.readouterr()
        return stopped.value.code, " ".join((out + err).split())

    return run


def lines(workdir):
    return read_metrics(workdir / "metrics.jsonl") if (workdir / "metrics.jsonl").exists() else []


def last_step(workdir):
    return max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def last_state(recipe, workdir):
    """Every leaf of the newest checkpoint, as bytes."""
    module = importlib.import_module(recipe)
    config = from_dict(module.Config, read_config(workdir / "checkpoints"))
    abstract = jax.eval_shape(
        lambda key: module.learner(config).init(module.build(config, nnx.Rngs(0)), key), jax.random.key(0)
    )
    state = read_state(workdir / "checkpoints", abstract)
    state = state._replace(key=jax.random.key_data(state.key))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def wait_for(workdir, count, process):
    """Returns when that many lines of metrics are written, or the process has ended."""
    while process.is_alive() and len(lines(workdir)) < count:
        time.sleep(0.01)


def truncate_newest(workdir):
    """The step of the newest checkpoint, whose largest file has lost its second half."""
    step = last_step(workdir)
    files = [p for p in (workdir / "checkpoints" / str(step) / "state").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    return step


def assert_same_curve(recipe, workdir, expected):
    """To rounding, which in a game of several players grows from step to step, so that only the first are compared."""
    game = len(SYSTEM[recipe].losses) > 1
    for ours, theirs in zip(lines(workdir), expected, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"kind"} if not game or ours["step"] <= 5 else ():
            error = {"rtol": 2e-3, "atol": 1e-3 if game else 0, "err_msg": f"{key} at step {ours['step']}"}
            np.testing.assert_allclose(ours[key], theirs[key], **error)


@EVERY
def test_plain_lines_a_report_and_pictures(recipe, unbroken):
    workdir, out = unbroken(recipe)
    steps = importlib.import_module(recipe).PRESETS["tiny"].loop.steps
    assert sum(f"/{steps}" in line for line in out.splitlines()) >= steps
    assert "\x1b" not in out  # no terminal codes in a pipe
    report = json.loads((workdir / "report.json").read_text())
    keys = {"metrics", "baselines", "command", "seed", "versions", "seconds", "steps", "seconds_to_first_step"}
    assert keys <= report.keys()
    assert report["steps"] == steps
    assert all(figures.keys() == report["metrics"].keys() for figures in report["baselines"].values())
    assert f"python -m {recipe} tiny" in report["command"]
    paths = list((workdir / "samples").iterdir())
    assert paths
    for path in paths:
        with Image.open(path) as picture:
            assert np.ptp(np.asarray(picture)) > 0


@EVERY
def test_a_finished_run_says_so(recipe, unbroken, here):
    workdir, _ = unbroken(recipe)
    before = lines(workdir)
    status, said_here = here(recipe, workdir)
    assert status == 0
    assert "finished" in said_here
    assert lines(workdir) == before


@pytest.mark.faults
@EVERY
def test_whatever_ended_it_it_is_the_unbroken_run(recipe, unbroken, options, tmp_path):
    """SIGTERM, kill -9 at random moments, a truncated checkpoint, and the rest: parameters, optimiser, keys and every
    line of metrics are the same."""
    rng, workdir, log = random.Random(0), tmp_path / "run", tmp_path / "log"
    total = len(lines(unbroken(recipe)[0]))

    process = start(recipe, *options(workdir), log=log)
    wait_for(workdir, 7, process)
    process.terminate()
    process.join(60)
    assert process.exitcode == 75, said(log)
    reached = last_step(workdir)
    assert reached == lines(workdir)[-1]["step"] >= 7
    assert f"step {reached} is saved" in " ".join(said(log).split())

    for share in (0.3, 0.5, 0.7) if recipe in OF_THE_LOOP else (0.5,):
        process = start(recipe, *options(workdir), log=log)
        wait_for(workdir, int(total * (share + 0.2 * rng.random())), process)
        time.sleep(0.05 * rng.random())
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL

    damaged = truncate_newest(workdir)
    assert finish(recipe, *options(workdir), log=log) == 0, said(log)
    assert f"Checkpoint {damaged} is damaged" in " ".join(said(log).split())
    assert (workdir / "checkpoints" / "damaged" / str(damaged)).is_dir()
    assert last_state(recipe, workdir) == last_state(recipe, unbroken(recipe)[0])
    assert lines(workdir) == lines(unbroken(recipe)[0])


@pytest.mark.parametrize(
    ("recipe", "parallel"), [(r, p) for r in OF_THE_LOOP for p in ("jit", "pmap") if p == "jit" or SYSTEM[r].by_parts]
)
def test_four_devices_give_the_curve_of_one(recipe, parallel, unbroken, here, tmp_path):
    assert here(recipe, tmp_path, "--loop.devices", 4, "--loop.parallel", parallel)[0] == 0
    assert_same_curve(recipe, tmp_path, lines(unbroken(recipe)[0]))


@TWO
def test_several_steps_in_one_call_give_the_same_curve(recipe, unbroken, here, tmp_path):
    assert here(recipe, tmp_path, "--loop.steps-per-call", 5, "--loop.log-every", 5)[0] == 0
    assert_same_curve(recipe, tmp_path, [line for line in lines(unbroken(recipe)[0]) if line["step"] % 5 == 0])


@TWO
def test_steps_per_call_has_to_divide_the_cadences(recipe, here, tmp_path):
    status, message = here(recipe, tmp_path, "--loop.steps-per-call", 3)
    assert status == 2
    assert "loop.steps: 40 is not a multiple of steps_per_call=3" in message


@EVERY
def test_a_misspelt_option(recipe, here, tmp_path):
    status, message = here(recipe, tmp_path, "--loop.stepz", 3)
    assert status == 2
    assert "--loop.steps" in message
    assert not list(tmp_path.iterdir())


@TWO
def test_a_workdir_of_another_configuration(recipe, here, unbroken):
    workdir, _ = unbroken(recipe)
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    status, message = here(recipe, workdir, "--optimizer.learning-rate", 0.5)
    assert status == 2
    for part in ("optimizer.learning_rate", "0.5", "0.001", "--allow-change"):
        assert part in message
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}


@TWO
def test_an_unwritable_workdir(recipe, here, tmp_path):
    (tmp_path / "file").write_text("")
    status, message = here(recipe, tmp_path / "file" / "run")
    assert status == 2
    assert "--workdir" in message


@TWO
def test_a_diverging_run_names_the_step_and_keeps_the_last_good_checkpoint(recipe, here, tmp_path):
    status, message = here(recipe, tmp_path, "--optimizer.learning-rate", 3e38)
    assert status == 3
    found = re.search(r"step (\d+): .*(loss|gradient_norm) is (nan|inf)", message)
    assert found, message
    kept = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert max(kept, default=0) < int(found.group(1))


def test_list_of_recipes_names_each_with_a_line():
    out = subprocess.run([sys.executable, "-m", "experiments"], cwd=ROOT, capture_output=True, text=True, check=True)
    for recipe in RECIPES:
        line = next(line for line in out.stdout.splitlines() if f"{recipe} " in line)
        assert len(line.split()) > 3
