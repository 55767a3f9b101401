"""Drills: whatever ends a run, nothing is lost, and what went wrong is named. Real processes, on a run in miniature."""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import processes
import pytest
from faults import toy
from flax import nnx

from experiments.launch import local
from seqjax.train.checkpoint import read_config, read_state
from seqjax.train.config import from_dict
from seqjax.train.log import read_metrics
from seqjax.train.report import read_report

pytestmark = pytest.mark.faults

STEPS = 30


def start(workdir, *options, **more):
    args = ["--workdir", workdir, "--loop.steps", STEPS, *options]
    return processes.start("tests.faults.toy", *args, log=workdir.with_suffix(".log"), **more)


def finish(workdir, *options, **more):
    """The exit status, and the errors that all runs in this work directory have printed, in one line."""
    process = start(workdir, *options, **more)
    process.join(120)
    return process.exitcode, " ".join(processes.said(workdir.with_suffix(".log")).split())


def lines(workdir):
    return read_metrics(workdir / "metrics.jsonl") if (workdir / "metrics.jsonl").exists() else []


def state(workdir):
    """Every leaf of the newest checkpoint, as bytes."""
    experiment = toy.prepare(from_dict(toy.Config, read_config(workdir / "checkpoints")))
    abstract = jax.eval_shape(
        lambda key: experiment.learner.init(experiment.build(nnx.Rngs(0)), key), jax.random.key(0)
    )
    found = read_state(workdir / "checkpoints", abstract)
    found = found._replace(key=jax.random.key_data(found.key))
    return {jax.tree_util.keystr(p): np.asarray(x).tobytes() for p, x in jax.tree_util.tree_leaves_with_path(found)}


def wait_for(workdir, count, process):
    while process.is_alive() and len(lines(workdir)) < count:
        time.sleep(0.005)


def assert_same(workdir, unbroken):
    assert lines(workdir) == lines(unbroken)
    assert state(workdir) == state(unbroken)


def assert_close(workdir, unbroken):
    """The curve of the run on another number of devices, to rounding."""
    for ours, theirs in zip(lines(workdir), lines(unbroken), strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"kind"}:
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, atol=1e-5, err_msg=f"{key}, {ours['step']}")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    assert finish(workdir)[0] == 0
    return workdir


def test_twenty_kills_lose_nothing(unbroken, tmp_path):
    """kill -9 at random moments, with a save at every step."""
    rng, workdir = random.Random(0), tmp_path / "run"
    for kill in range(20):
        process = start(workdir)
        wait_for(workdir, 1 + int((STEPS - 5) * (kill + rng.random()) / 20), process)
        time.sleep(0.1 * rng.random())
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert finish(workdir)[0] == 0
    assert_same(workdir, unbroken)


@pytest.mark.parametrize(
    ("size", "room", "full"), [(64, 3_000, "metrics.jsonl"), (20_000, 50_000, "the checkpoint of step 1 cannot")]
)
def test_a_full_disk_is_named_and_costs_nothing_that_was_saved(size, room, full, tmp_path):
    """A limit on the size of files stands for the disk: the log outgrows it, or a checkpoint of larger players."""
    roomy, tight = tmp_path / "roomy", tmp_path / "tight"
    assert finish(roomy, "--size", size)[0] == 0
    status, said = finish(tight, "--size", size, file_size=room)
    assert status == 2, said
    assert full in said.split("error: ")[-1]
    assert finish(tight, "--size", size)[0] == 0
    assert_same(tight, roomy)


@pytest.mark.parametrize("broken", ["data", "loss", "gradient"])
def test_what_is_not_a_number_is_named_with_its_step(broken, tmp_path):
    workdir = tmp_path / "run"
    status, said = finish(workdir, "--broken", broken, "--broken-step", 7)
    assert status == 3, said
    assert "step 7" in said
    assert ("down/gradient_norm is nan" if broken == "gradient" else "down/loss is nan") in said
    steps = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    assert max(steps) == 6
    assert all(np.isfinite(np.frombuffer(x, np.float32)).all() for n, x in state(workdir).items() if "params" in n)


def test_a_second_run_in_the_workdir_is_refused_by_name_of_the_first(unbroken, tmp_path):
    workdir = tmp_path / "run"
    first = start(workdir)
    wait_for(workdir, 2, first)
    os.kill(first.pid, signal.SIGSTOP)
    status, said = finish(workdir)
    assert status == 2
    assert f"in use by process {first.pid} on" in said
    assert str(workdir) in said.split("in use by", 1)[1]  # the command of the first
    first.kill()
    first.join()
    assert finish(workdir)[0] == 0  # a dead run keeps nobody out
    assert_same(workdir, unbroken)


def test_a_workdir_of_an_older_layout_is_named_field_by_field(unbroken, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    config = json.loads((unbroken / "config.json").read_text()) | {"workdir": str(workdir)}
    del config["size"]
    (workdir / "config.json").write_text(json.dumps(config))
    before = {path: path.read_bytes() for path in workdir.iterdir()}
    status, said = finish(workdir)
    assert status == 2
    assert "size: stored no such field, given 64" in said
    assert before.items() <= {path: path.read_bytes() for path in workdir.iterdir()}.items()


def test_a_clock_that_is_set_back_changes_times_of_day_alone(unbroken, tmp_path, monkeypatch):
    """By a day, after the run has noted when it began; it is on the four devices of this process."""
    true, prepare, back = time.time, toy.prepare, []
    monkeypatch.setattr(time, "time", lambda: true() - 86_400 * len(back))
    monkeypatch.setattr(toy, "prepare", lambda config: back.append(1) or prepare(config))
    with pytest.raises(SystemExit) as ended:
        toy.start(["--workdir", str(tmp_path / "run"), "--loop.steps", str(STEPS)])
    assert ended.value.code == 0
    assert back
    assert_close(tmp_path / "run", unbroken)
    report = read_report(tmp_path / "run")
    assert min(report["seconds"], report["seconds_to_first_step"], report["input_wait"]) >= 0


CAN_MOUNT = bool(shutil.which("unshare")) and subprocess.run(["unshare", "-rm", "true"], check=False).returncode == 0


if CAN_MOUNT:

    def test_a_read_only_file_system_is_named_and_what_is_on_it_stays(unbroken, tmp_path):
        """Mounted so for the run alone; collected only where this is allowed."""
        workdir = tmp_path / "run"
        shutil.copytree(unbroken, workdir)
        before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
        toy_command = shlex.join([sys.executable, "-m", "tests.faults.toy", "--workdir", str(workdir)])
        mounted = shlex.quote(str(workdir))
        script = f"mount --bind {mounted} {mounted} && mount -o remount,bind,ro {mounted} && exec {toy_command}"
        run = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
        assert run.returncode == 2, run.stderr
        assert f"workdir: {workdir} cannot be written to (Read-only file system)" in " ".join(run.stderr.split())
        assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}


def group(workdir, processes, devices):
    """The run over several processes, from the launcher."""
    command = [sys.executable, "-m", "tests.faults.toy", "--workdir", str(workdir), "--loop.steps", str(STEPS)]
    return local.start(command, processes=processes, devices=devices)


def test_two_processes_of_two_devices_are_one_of_four_and_one_of_one(unbroken, tmp_path):
    assert group(tmp_path / "2x2", 2, 2).wait() == 0
    assert finish(tmp_path / "1x4", devices=4)[0] == 0
    assert_close(tmp_path / "2x2", unbroken)
    assert_close(tmp_path / "1x4", unbroken)


def test_sigterm_to_one_of_two_stops_both_at_one_step_and_any_number_goes_on(unbroken, tmp_path):
    """Two processes, then two devices, then four, then one: each asked to stop, the last one finishes."""
    workdir = tmp_path / "run"
    both = group(workdir, 2, 1)
    wait_for_any(workdir, 5, both)
    both.processes[1].terminate()
    assert both.wait(60) == 75
    assert [process.returncode for process in both.processes] == [75, 75]
    reached = lines(workdir)[-1]["step"]
    assert 5 <= reached < STEPS
    for devices in (2, 4):
        process = start(workdir, devices=devices)
        wait_for(workdir, reached + 5, process)
        process.terminate()
        process.join(60)
        assert process.exitcode == 75
        assert lines(workdir)[-1]["step"] > reached
        reached = lines(workdir)[-1]["step"]
    assert finish(workdir)[0] == 0
    assert_close(workdir, unbroken)


def test_the_death_of_one_of_two_ends_both_and_the_next_start_goes_on(unbroken, tmp_path):
    workdir = tmp_path / "run"
    both = group(workdir, 2, 1)
    wait_for_any(workdir, 5, both)
    both.processes[1].kill()
    assert both.wait(1) == 75
    assert group(workdir, 2, 1).wait() == 0
    assert_close(workdir, unbroken)


def wait_for_any(workdir, count, started):
    while all(process.poll() is None for process in started.processes) and len(lines(workdir)) < count:
        time.sleep(0.005)
