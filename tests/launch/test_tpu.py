"""TPU VMs: every command line as it is printed, and the whole life of a run on a stand-in for gcloud.

The stand-in is a program on PATH whose workers are directories: ssh runs its line of bash there, with that directory
as home. What is on the workers (git, flock, the run itself) is real.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.launch import gcloud, tpu
from experiments.launch.gcloud import Environment, Hardware, Machine, Software, Worker
from experiments.launch.tpu import Delete, Logs, Status, Stop, Watch
from seqjax.errors import InputError

ROOT = Path(__file__).parents[2]
RECIPE = ["experiments.prediction.convlstm", "paper", "--workdir", "/mnt/two words"]
VM = "gcloud compute tpus tpu-vm"
QUEUE = "gcloud compute tpus queued-resources"

GCLOUD = """#!{python} -IS
import json, os, pathlib, shutil, subprocess, sys
here = pathlib.Path({here!r})
group, verb, name, *rest = [word for word in sys.argv[3:] if not word.startswith("--")]
options = dict(word[2:].partition("=")[::2] for word in sys.argv[3:] if word.startswith("--"))
with open(here / "calls", "a") as calls:
    calls.write(json.dumps([verb, *rest, options]) + "\\n")
def end(worker):  # as a loss of power does it
    try:
        group = os.getpgid(int((worker / "launch/pid").read_text()))
    except (FileNotFoundError, ProcessLookupError):
        return
    assert group != os.getpgrp(), "the run hangs on the session that started it"
    os.killpg(group, 9)
state, workers = here / "state", [here / f"worker{{n}}" for n in range(2)]
if verb == "create":
    for worker in workers:
        uv = worker / ".local/bin/uv"
        uv.parent.mkdir(parents=True)
        uv.write_text({uv!r})
        uv.chmod(0o755)
    state.write_text("READY")
elif not state.exists():
    sys.exit("ERROR: NOT_FOUND: no such machine")
elif verb == "describe":
    print(state.read_text())
elif verb == "delete":
    state.unlink()
    for worker in workers:
        end(worker)
        shutil.rmtree(worker)
elif verb == "scp":
    for worker in workers:
        shutil.copy(name, worker / rest[0].split(":")[1])
elif verb == "ssh":
    chosen = workers if options["worker"] == "all" else [workers[int(options["worker"])]]
    line = ["bash", "-c", options["command"]]
    done = [subprocess.run(line, cwd=worker, env=os.environ | {{"HOME": str(worker)}}) for worker in chosen]
    sys.exit(max(d.returncode for d in done))
"""
UV = """#!/bin/sh
[ "$1" = venv ] || {{ echo "$@" >> ~/pip; exit 0; }}
mkdir -p .venv/bin && ln -sf {python} .venv/bin/python
"""
# Says what it was told, then does as the next line of a file says: it ends with that status, or waits for SIGTERM.
CHILD = """
import os, pathlib, signal, sys, time
home, here = pathlib.Path.home(), pathlib.Path(sys.argv[1])
me = int(home.name[-1])
starts = here / f"starts{me}"
count = len(starts.read_text()) if starts.exists() else 0
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(75))
starts.write_text("x" * (count + 1))
print("told", sys.argv[2:], os.environ.get("TFDS_DATA_DIR"), os.environ.get("JAX_COMPILATION_CACHE_DIR"))
plan = (here / "plan").read_text().split()[count].split("/")
plan = plan[me % len(plan)]
if plan == "wait":
    time.sleep(60)
if plan == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(plan))
"""


def printed(machine, recipe=()):
    return [shlex.join(command) for command in tpu.lines(machine, recipe)]


def test_create_on_demand_spot_and_queued():
    assert printed(Hardware("pod", accelerator="v6e-8")) == [
        f"{VM} create pod --accelerator-type=v6e-8 --version=v2-alpha-tpuv6e"
    ]
    assert printed(Hardware("pod", "us-east5-a", "mine", accelerator="v5litepod-16", spot=True)) == [
        f"{VM} create pod --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite --spot --zone=us-east5-a "
        "--project=mine"
    ]
    queued = Hardware("pod", "z", queued=True, accelerator="v4-8", runtime="own", spot=True, valid_until="6h")
    assert printed(queued) == [
        f"{QUEUE} create pod --accelerator-type=v4-8 --node-id=pod --runtime-version=own --spot "
        "--valid-until-duration=6h --zone=z"
    ]


def test_commands_on_a_machine_and_on_a_queued_one():
    assert printed(Status("pod", "z"))[0] == f"{VM} describe pod '--format=value(state)' --zone=z"
    assert printed(Status("pod", "z", queued=True))[0] == f"{QUEUE} describe pod '--format=value(state.state)' --zone=z"
    assert printed(Delete("pod")) == [f"{VM} delete pod --quiet"]
    assert printed(Delete("pod", queued=True)) == [f"{QUEUE} delete pod --force --quiet"]
    assert printed(Logs("pod", worker="3", lines=9)) == [f"{VM} ssh pod --worker=3 '--command=tail -n 9 -F launch/log'"]
    assert printed(Logs("pod", follow=False)) == [f"{VM} ssh pod --worker=0 '--command=tail -n 50 launch/log'"]
    (stop,) = printed(Stop("pod", queued=True))
    assert stop.startswith(f"{VM} ssh pod --worker=all --command=") or stop.startswith(f"{VM} ssh pod --worker=all '--")
    assert "kill -TERM" in stop


def test_setup_ships_the_commit_and_installs_it():
    *packing, copy, install = printed(Software("pod", "z", before="mountpoint -q /mnt || sudo mount /mnt"))
    assert packing == ["mkdir -p runs/launch", "git bundle create runs/launch/pod.bundle HEAD"]
    assert copy == f"{VM} scp runs/launch/pod.bundle pod:seqjax.bundle --worker=all --zone=z"
    words = shlex.split(install)
    assert words[:7] == [*VM.split(), "ssh", "pod", "--worker=all"]
    steps = words[7].removeprefix("--command=").split(" && ")
    assert steps[0] == "{ mountpoint -q /mnt || sudo mount /mnt; }"
    assert steps[-1] == "$HOME/.local/bin/uv pip install -q -e . 'jax[tpu]'"
    assert words[8] == "--zone=z"


def test_run_gives_every_worker_the_same_line():
    (line,) = printed(Environment("pod", data_dir="/mnt/data", compilation_cache="/mnt/cache"), RECIPE)
    assert shlex.split(line)[:7] == [*VM.split(), "ssh", "pod", "--worker=all"]
    script = shlex.split(line)[7]
    (inner,) = (word for word in shlex.split(script) if word.startswith("cd ~/seqjax;"))
    told = "env TFDS_DATA_DIR=/mnt/data JAX_COMPILATION_CACHE_DIR=/mnt/cache .venv/bin/python -u -m"
    assert inner.startswith(f"cd ~/seqjax; {told} {shlex.join(RECIPE)} >> ~/launch/log 2>&1 &")


def test_dry_run_prints_all_and_runs_none(tmp_path):
    line = [sys.executable, "-m", "experiments.launch.tpu", "watch", "--dry-run", "--accelerator", "v5litepod-16"]
    line += ["--name", "pod", "--delete", "--", *RECIPE]
    runs = ROOT / "runs" / "launch" / "pod.bundle"
    before = runs.exists()
    done = subprocess.run(line, cwd=ROOT, env=os.environ | {"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    config = Watch("pod", accelerator="v5litepod-16", delete=True)
    assert done.stdout.splitlines() == printed(config, RECIPE)
    verbs = [line.split()[4] if line.startswith("gcloud") else line.split()[0] for line in done.stdout.splitlines()]
    assert verbs == ["describe", "create", "mkdir", "git", "scp", *["ssh"] * 5, "delete"]
    assert runs.exists() == before


def test_without_gcloud(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="gcloud: not found"):
        tpu.state(Machine())


@pytest.mark.parametrize(
    ("machine", "recipe", "message"),
    [
        (Hardware(), [], "accelerator: got ''"),
        (Hardware(accelerator="v9-8"), [], "accelerator: got 'v9-8'"),
        (Hardware(accelerator="v4-8", valid_until="6h"), [], "only a queued resource waits"),
        (Environment(), [], "nothing follows --"),
        (Watch(accelerator="v4-8"), [], "nothing follows --"),
    ],
)
def test_what_cannot_be_used(machine, recipe, message):
    with pytest.raises(InputError, match=message):
        tpu.lines(machine, recipe)


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        (["running", "running"], "wait"),
        (["running", "0"], "wait"),
        (["running", "1"], "end"),
        (["running", "none"], "end"),
        (["running", "lost"], "end"),
        (["none", "none"], "start"),
        (["lost", "lost"], "start"),
        (["0", "lost"], "start"),
        (["2", "lost"], 2),
        (["0", "0"], 0),
        (["75", "75"], "start"),
        (["stopped", "stopped"], 75),
        (["137", "1"], "start"),  # the first was killed
        (["1", "134"], 1),  # the first had an error
        (["134", "3"], 3),
        (["1", "1"], 1),
    ],
)
def test_verdict(states, outcome):
    workers = [Worker("-" if s == "none" else "own", s, float(n)) for n, s in enumerate(states)]
    assert tpu.verdict(workers, "own") == outcome
    assert tpu.verdict(workers[::-1], "own") == outcome


def test_verdict_on_another_run():
    assert tpu.verdict([Worker("other", "0", 1.0)] * 2, "own") == "start"
    with pytest.raises(InputError, match="another run"):
        tpu.verdict([Worker("other", "running")] * 2, "own")


def commit(repository, message):
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    for words in (["add", "child.py"], [*identity, "commit", "-q", "-m", message]):
        subprocess.run(["git", *words], cwd=repository, check=True)


def head(repository):
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True).stdout


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "child.py").write_text(CHILD)
    subprocess.run(["git", "init", "-q", repository], check=True)
    commit(repository, "first")
    program = tmp_path / "bin" / "gcloud"
    program.parent.mkdir()
    uv = UV.format(python=sys.executable)
    program.write_text(GCLOUD.format(python=sys.executable, here=str(tmp_path), uv=uv))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(tpu, "ROOT", repository)
    yield tmp_path
    subprocess.run(["gcloud", "compute", "tpus", "tpu-vm", "delete", "pod"], stderr=subprocess.DEVNULL)


def follow(cloud, plan, between=lambda: None, **options):
    """Watches a run that does as planned, start by start ("a/b": worker 0 does a, worker 1 b).

    Once both have started for the first time, ``between`` is called.
    """
    (cloud / "plan").write_text(plan)
    looks, called = [], []

    def sleep(seconds):
        looks.append(seconds)
        assert len(looks) < 100
        if not called and starts(cloud) >= [1, 1]:
            called.append(between())
        time.sleep(0.05)

    config = Watch("pod", accelerator="v4-16", grace=1, **options)
    return tpu.watch(config, ["child", str(cloud)], sleep)


def starts(cloud):
    paths = [cloud / f"starts{n}" for n in range(2)]
    return [path.stat().st_size if path.exists() else 0 for path in paths]


def calls(cloud, verb):
    found = [json.loads(line) for line in (cloud / "calls").read_text().splitlines()]
    return [call for call in found if call[0] == verb]


def run(machine, recipe=()):
    """The command, with what it printed."""
    done = [tpu.call(command, quiet=True) for command in tpu.lines(machine, recipe)]
    return done[-1]


def test_run_stop_and_logs_on_two_workers(cloud):
    (cloud / "plan").write_text("wait 0")
    recipe = ["child", str(cloud), "two words"]
    machine = {"name": "pod"}
    run(Hardware(**machine, accelerator="v4-16"))
    run(Software(**machine, before="touch mounted"))
    for n in range(2):
        worker = cloud / f"worker{n}"
        assert head(worker / "seqjax") == head(tpu.ROOT)
        assert (worker / "pip").read_text() == "pip install -q -e . jax[tpu]\n"
        assert (worker / "mounted").exists()

    assert run(Status(**machine)).stdout == "launch - none\n" * 2
    environment = Environment(**machine, data_dir="/mnt/data", compilation_cache="/mnt/cache")
    started = run(environment, recipe)
    assert (started.returncode, started.stderr) == (0, "")
    digest = gcloud.digest(environment, recipe)
    assert run(Status(**machine)).stdout == f"launch {digest} running\n" * 2
    second = run(environment, recipe)
    assert second.returncode == 1
    assert "a run is on already" in second.stderr
    told = "told ['two words'] /mnt/data /mnt/cache\n"
    while not all((cloud / f"starts{n}").exists() for n in range(2)):
        time.sleep(0.02)
    assert run(Stop(**machine)).returncode == 0
    while "running" in (answer := run(Status(**machine)).stdout):
        time.sleep(0.05)
    assert answer == f"launch {digest} stopped\n" * 2
    assert (cloud / "worker0/launch/status").read_text().startswith("75 ")
    assert run(Logs(**machine, follow=False)).stdout == told

    assert run(environment, recipe).returncode == 0
    while "running" in (answer := run(Status(**machine)).stdout):
        time.sleep(0.05)
    assert [(w.run, w.state) for w in gcloud.answers(answer)] == [(digest, "0")] * 2
    assert (cloud / "worker1/launch/log").read_text() == told * 2


def test_watch_makes_the_machine_and_restarts_until_the_run_is_over(cloud, capsys):
    assert follow(cloud, "75 75 0") == 0
    assert starts(cloud) == [3, 3]
    assert len(calls(cloud, "create")) == 1
    assert calls(cloud, "delete") == []
    assert "the run ended with status 0" in capsys.readouterr().out


@pytest.mark.parametrize("status", [1, 2, 3])
def test_watch_stops_at_what_running_again_would_repeat(cloud, status):
    assert follow(cloud, f"{status} 0") == status
    assert starts(cloud) == [1, 1]


def test_watch_makes_a_machine_anew_that_was_taken_back(cloud):
    first = head(tpu.ROOT)
    (tpu.ROOT / "child.py").write_text("uncommitted")  # stays behind

    def between():
        commit(tpu.ROOT, "second")  # this too: all starts of one watcher are of one commit
        (cloud / "state").write_text("PREEMPTED")

    assert follow(cloud, "wait 0", between) == 0
    assert head(cloud / "worker0" / "seqjax") == first != head(tpu.ROOT)
    assert starts(cloud) == [2, 2]
    assert [call[0] for call in (*calls(cloud, "create"), *calls(cloud, "delete"))] == ["create", "create", "delete"]
    assert len(calls(cloud, "scp")) == 2


def test_watch_waits_for_a_machine_in_the_queue(cloud, capsys):
    states = iter(["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    (cloud / "plan").write_text("0")
    config = Watch("pod", accelerator="v4-16", queued=True)
    status = tpu.watch(config, ["child", str(cloud)], lambda _: (cloud / "state").write_text(next(states, "ACTIVE")))
    assert status == 0
    assert starts(cloud) == [1, 1]
    assert len(calls(cloud, "create")) == 1
    assert "the machine is PROVISIONING" in capsys.readouterr().out


@pytest.mark.parametrize(("plan", "status", "count"), [("wait/kill 0", 0, 2), ("wait/2 0", 2, 1), ("wait/1 0", 1, 1)])
def test_watch_ends_the_rest_when_one_worker_fails(cloud, plan, status, count):
    assert follow(cloud, plan) == status
    assert starts(cloud) == [count, count]


def test_watch_gives_the_rest_one_look_to_end(monkeypatch):
    ran = []
    monkeypatch.setattr(tpu, "call", lambda command, **_: ran.append(command) or subprocess.CompletedProcess([], 0))
    config = Watch("pod", accelerator="v4-16")
    watcher, own = tpu.Watcher(config, ["child"]), gcloud.digest(config, ["child"])
    partly = [Worker(own, "running"), Worker(own, "75", 1.0)]
    assert watcher.act(partly) is None
    assert watcher.act([Worker(own, "running")] * 2) is None
    assert watcher.act(partly) is None
    assert ran == []
    assert watcher.act(partly) is None
    assert ran == [gcloud.end(config, config.grace)]


def test_watch_starts_again_after_a_reboot(cloud):
    def between():  # the processes are gone, and nobody wrote a status
        for n in range(2):
            group = os.getpgid(int((cloud / f"worker{n}/launch/pid").read_text()))
            assert group != os.getpgrp()
            os.killpg(group, 9)

    assert follow(cloud, "wait 0", between) == 0
    assert starts(cloud) == [2, 2]


def test_watch_leaves_alone_what_a_person_stopped(cloud):
    assert follow(cloud, "wait 0", lambda: run(Stop("pod"))) == 75
    assert starts(cloud) == [1, 1]


def test_watch_gives_up_and_deletes_if_asked(cloud, capsys):
    assert follow(cloud, "75 75 75", restarts=1, delete=True) == 75
    assert starts(cloud) == [2, 2]
    assert not (cloud / "state").exists()
    assert "told []" in capsys.readouterr().out
