"""Several processes as one run: real processes, of plain Python."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.__main__ import recipes
from experiments.launch import local
from experiments.launch.statuses import described, together
from seqjax.errors import InputError

ROOT = Path(__file__).parents[2]
HEAD = "import os, pathlib, signal, sys, time\nme = int(os.environ['JAX_PROCESS_ID'])\n"


def program(code):
    return [sys.executable, "-S", "-c", HEAD + code]


def group(code, *, grace=5.0, **options):
    return local.start(program(code), processes=2, **options).wait(grace)


@pytest.mark.parametrize(
    ("ended", "stopped", "status"),
    [
        ([0, 0], [], 0),
        ([0, 1], [], 1),
        ([1, 7], [], 1),
        ([75, 75], [], 75),
        ([75, 1], [], 75),  # the others lost their peer
        ([1, 75], [], 75),
        ([-9, 1], [], 75),  # killed while the others were well
        ([-9, -6], [], 75),
        ([1, -6], [], 1),  # an error, and jax aborts the others
        ([-9, 2], [], 2),
        ([75, 3], [], 3),
        ([1], [75], 1),  # asked by the launcher
        ([1], [-9], 1),
        ([-9], [2], 2),
        ([0], [], 0),
        ([-2, -2], [], 130),
    ],
)
def test_statuses_together(ended, stopped, status):
    assert together(ended, stopped) == status


def test_statuses_in_words():
    assert described(2) == "ended with status 2"
    assert described(-9) == "was killed by SIGKILL"
    assert described(-40) == "was killed by signal 40"


def test_every_process_is_told_which_it_is(monkeypatch, capfd):
    monkeypatch.setenv("XLA_FLAGS", "--xla_one=1")
    names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_PLATFORMS", "XLA_FLAGS", "JAX_COORDINATOR_ADDRESS")
    assert group(f"print(*(os.environ[name] for name in {names!r}), sep='|')", devices=3) == 0
    lines = sorted(capfd.readouterr().out.splitlines())
    flags = "--xla_one=1 --xla_force_host_platform_device_count=3"
    addresses = {line.rsplit("|", 1)[1] for line in lines}
    assert [line.rsplit("|", 1)[0] for line in lines] == [f"[{n}] 2|{n}|cpu|{flags}" for n in (0, 1)]
    assert len(addresses) == 1
    assert addresses.pop().startswith("localhost:")


def test_output_is_passed_on_while_they_run_and_kept_apart(capfd):
    code = "print('out', me)\nprint('err', me, file=sys.stderr)\nprint('x' * 100_000)\nsys.stdout.write('no newline')"
    assert group(code) == 0
    out, err = capfd.readouterr()
    kept = [f"[{n}] {text}" for n in (0, 1) for text in (f"out {n}", "x" * 100_000, "no newline")]
    assert sorted(out.splitlines()) == sorted(kept)
    assert sorted(err.splitlines()) == ["[0] err 0", "[1] err 1"]


def test_a_single_process_has_no_prefix(capfd):
    assert local.start(program("print(os.environ['JAX_NUM_PROCESSES'])"), processes=1).wait() == 0
    assert capfd.readouterr().out == "1\n"


def test_one_fails_and_the_others_are_ended_after_the_grace(capfd):
    code = "sys.exit(2) if me else time.sleep(60)"
    start = time.monotonic()
    assert group(code, grace=0.3) == 2
    assert 0.3 < time.monotonic() - start < 30
    err = capfd.readouterr().err
    assert "process 1 ended with status 2" in err
    assert "process 0 was killed by SIGTERM" in err


def test_who_ignores_sigterm_is_killed_with_all_that_it_started(capfd, tmp_path):
    # The sleeping grandchild holds the pipe open: without its end the output would never be over.
    code = (
        "if me: sys.exit(1)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"child = os.fork()\nopen({str(tmp_path / 'child')!r}, 'w').write(str(child)) if child else 0\ntime.sleep(60)"
    )
    assert group(code, grace=0.5) == 1
    assert "process 0 was killed by SIGKILL" in capfd.readouterr().err
    time.sleep(0.2)
    status = Path(f"/proc/{(tmp_path / 'child').read_text()}/status")
    assert not status.exists() or "zombie" in status.read_text()


def test_one_is_killed_and_the_run_may_be_tried_again():
    code = "os.kill(os.getpid(), signal.SIGKILL) if me else (time.sleep(0.2), sys.exit(1))"
    assert group(code) == 75


def test_of_two_that_are_found_together_the_killed_one_was_first():
    started = local.start(program("os.kill(os.getpid(), signal.SIGKILL) if me else sys.exit(1)"), processes=2)
    while any(process.poll() is None for process in started.processes):
        time.sleep(0.02)
    assert started.wait() == 75


def test_2_wins_over_a_killed_process():
    assert group("os.kill(os.getpid(), signal.SIGKILL) if me else (time.sleep(0.2), sys.exit(2))") == 2


def test_those_who_finish_are_waited_for():
    assert group("time.sleep(0.5) if me else None", grace=0.05) == 0


COUNTED = """
path = pathlib.Path(sys.argv[1]) / str(me)
count = path.stat().st_size if path.exists() else 0
path.write_text("x" * (count + 1))
sys.exit(0 if count == int(sys.argv[2]) else int(sys.argv[3]))
"""


@pytest.mark.parametrize(
    ("restarts", "succeeds", "otherwise", "status", "starts"),
    [(2, 1, 75, 0, 2), (2, 9, 75, 75, 3), (0, 1, 75, 75, 1), (2, 1, 3, 3, 1), (2, 1, 1, 1, 1)],
)
def test_75_starts_again_and_nothing_else_does(tmp_path, restarts, succeeds, otherwise, status, starts):
    command = [*program(COUNTED), str(tmp_path), str(succeeds), str(otherwise)]
    assert local.launch(command, local.Config(restarts=restarts)) == status
    assert [(tmp_path / str(n)).stat().st_size for n in (0, 1)] == [starts, starts]


SAVES = """
def save(number, frame):
    (here / f"saved{me}").write_text(str(number))
    sys.exit(75 if number == signal.SIGTERM else 130)
here = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, save), signal.signal(signal.SIGINT, save)
(here / f"ready{me}").touch()
time.sleep(60)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_all_and_ends_the_restarts(tmp_path, number, status):
    (tmp_path / "saves.py").write_text(HEAD + SAVES)
    line = [sys.executable, "-m", "experiments.launch.local", "--restarts", "3", "--", "saves", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    launcher = subprocess.Popen(line, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    while not all((tmp_path / f"ready{n}").exists() for n in (0, 1)):
        assert launcher.poll() is None
        time.sleep(0.05)
    launcher.send_signal(number)
    assert "starting again" not in launcher.communicate(timeout=20)[1]
    assert launcher.returncode == status
    assert [(tmp_path / f"saved{n}").read_text() for n in (0, 1)] == [str(int(number))] * 2


def test_a_reader_that_leaves_does_not_end_the_run(tmp_path):
    (tmp_path / "talks.py").write_text("import time\nfor i in range(20): print(i, 'x' * 9999); time.sleep(0.01)\n")
    line = [sys.executable, "-m", "experiments.launch.local", "--", "talks"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    launcher = subprocess.Popen(line, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)
    launcher.stdout.readline()
    launcher.stdout.close()
    assert launcher.wait(20) == 0
    assert launcher.stderr.read() == b""
    launcher.stderr.close()


@pytest.mark.parametrize("line", [[], ["--processes", "2", "--"], ["--processes", "0", "--", "this"]])
def test_what_cannot_be_started_is_status_2(line):
    done = subprocess.run([sys.executable, "-m", "experiments.launch.local", *line], cwd=ROOT, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")


def test_numbers_below_one():
    with pytest.raises(InputError, match="got 2 and 0"):
        local.start(program(""), processes=2, devices=0)


def test_launchers_are_no_recipes():
    assert "launch" not in recipes()
