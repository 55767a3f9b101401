"""The command lines that make, fill, use and delete a TPU VM: argument lists of gcloud and git, nothing is run here.

On each worker the code is in ``~/seqjax`` with its environment, and the run keeps these in ``~/launch``: ``log``,
``pid``, ``status`` (exit status and time of its end), ``run`` (which command it is), ``stopped`` (a person asked for
the end), ``told`` (the watcher ended it, after another worker failed), and ``lock``, which is held for as long as the
run lives and is let go of by a reboot too.
"""

import dataclasses
import hashlib
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from seqjax.errors import InputError

Command = list[str]

RUNTIMES = {
    "v6e": "v2-alpha-tpuv6e",
    "v5p": "v2-alpha-tpuv5",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v4": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v2": "tpu-ubuntu2204-base",
}
READY = ("READY", "ACTIVE")
GONE = ("PREEMPTED", "TERMINATED", "SUSPENDED", "FAILED")
"""States of a machine (or of its place in the queue) that only deleting it ends."""


# A run holds the lock alone; those who ask share it, so that two of them at once don't take each other for a run.
_FREE = "flock -n -s lock true"


@dataclasses.dataclass(frozen=True)
class Machine:
    """Which TPU VM."""

    name: str = "seqjax"
    """Its name."""
    zone: str = ""
    """Its zone; gcloud's own setting (gcloud config set compute/zone) if empty."""
    project: str = ""
    """Its project; gcloud's own setting if empty."""
    queued: bool = False
    """Whether it is a queued resource, which waits for its turn: the same for all commands on one machine."""
    dry_run: bool = False
    """Print the commands, one per line, and run none."""


@dataclasses.dataclass(frozen=True)
class Hardware(Machine):
    """What it is made of."""

    accelerator: str = ""
    """Type and size, such as v5litepod-16 or v6e-8."""
    runtime: str = ""
    """Software version of the machine; the one for the accelerator if empty."""
    spot: bool = False
    """Cheaper, and taken back at any moment."""
    valid_until: str = ""
    """How long it may wait in the queue, such as 6h; without an end if empty."""


@dataclasses.dataclass(frozen=True)
class Software(Machine):
    """What is installed on every worker."""

    python: str = "3.12"
    """Version of Python, brought by uv: the machine's own may be too old."""
    requirement: str = "jax[tpu]"
    """What pip installs besides this project."""
    before: str = ""
    """A command for every worker before that, such as the mount of a file system; before each start by watch."""


@dataclasses.dataclass(frozen=True)
class Environment(Machine):
    """What the run is told besides its command."""

    data_dir: str = ""
    """TFDS_DATA_DIR, where prepared data sets are."""
    compilation_cache: str = ""
    """JAX_COMPILATION_CACHE_DIR."""


class Worker(NamedTuple):
    """What one worker says of the run on it."""

    run: str
    """Which: the digest of its command, "-" if there never was one."""
    state: str
    """running, stopped (by a person), lost (it is gone without a status), none, or its exit status."""
    seconds: float = 0.0
    """When it ended, for an exit status."""
    told: bool = False
    """Whether ``end`` ended it, after the failure of another."""


def create(machine: Hardware) -> Command:
    """Makes the machine, or puts it in the queue."""
    family = machine.accelerator.split("-")[0]
    if not machine.accelerator or not (machine.runtime or family in RUNTIMES):
        raise InputError(
            f"accelerator: got {machine.accelerator!r}, expected a type and a size, such as v5litepod-16 "
            f"({', '.join(RUNTIMES)}), or another with --runtime. What a zone has: gcloud compute tpus "
            "accelerator-types list --zone ZONE"
        )
    if machine.valid_until and not machine.queued:
        raise InputError("valid_until: only a queued resource waits. Add --queued, or leave it out.")
    runtime = machine.runtime or RUNTIMES[family]
    kind = [f"--accelerator-type={machine.accelerator}"]
    spot = ["--spot"] if machine.spot else []
    if not machine.queued:
        return _tpus(machine, "tpu-vm", "create", machine.name, *kind, f"--version={runtime}", *spot)
    until = [f"--valid-until-duration={machine.valid_until}"] if machine.valid_until else []
    node = [f"--node-id={machine.name}", f"--runtime-version={runtime}"]
    return _tpus(machine, "queued-resources", "create", machine.name, *kind, *node, *spot, *until)


def describe(machine: Machine) -> Command:
    """Prints one word: the state of the machine, or of its place in the queue."""
    if machine.queued:
        return _tpus(machine, "queued-resources", "describe", machine.name, "--format=value(state.state)")
    return _tpus(machine, "tpu-vm", "describe", machine.name, "--format=value(state)")


def delete(machine: Machine) -> Command:
    """Ends the machine and the bill."""
    if machine.queued:  # with --force the machine goes too; a place in the queue alone keeps its name and its quota
        return _tpus(machine, "queued-resources", "delete", machine.name, "--force", "--quiet")
    return _tpus(machine, "tpu-vm", "delete", machine.name, "--quiet")


def pack(machine: Machine) -> list[Command]:
    """Packs the commit that is checked out here, with its history; what is not committed stays behind."""
    return [["mkdir", "-p", "runs/launch"], ["git", "bundle", "create", _bundle(machine), "HEAD"]]


def install(machine: Software) -> list[Command]:
    """Brings the packed commit to every worker and installs it; again for another commit."""
    copy = [_bundle(machine), f"{machine.name}:seqjax.bundle", "--worker=all"]
    uv = "$HOME/.local/bin/uv"
    steps = [
        *([f"{{ {machine.before}; }}"] if machine.before else []),
        "git init -q seqjax",
        "cd seqjax",
        "git fetch -q ../seqjax.bundle HEAD",
        "git checkout -q --force --detach FETCH_HEAD",
        f"{{ test -x {uv} || curl -LsSf https://astral.sh/uv/install.sh | sh; }}",
        f"{uv} venv -q --allow-existing --python {machine.python} .venv",
        f"{uv} pip install -q -e . {shlex.quote(machine.requirement)}",
    ]
    return [_tpus(machine, "tpu-vm", "scp", *copy), ssh(machine, " && ".join(steps))]


def digest(machine: Environment, recipe: Sequence[str]) -> str:
    """Names the run by its command."""
    return hashlib.sha256(_line(machine, recipe).encode()).hexdigest()[:12]


def run(machine: Environment, recipe: Sequence[str]) -> Command:
    """Starts the recipe on every worker; it goes on when ssh ends. Refused where a run is on.

    Args:
      machine: which, and what the run is told.
      recipe: what follows ``python -m``.
    """
    if not recipe:
        raise InputError(
            "command: nothing follows --. Give the recipe and its options there, as in: python -m "
            "experiments.launch.tpu run --name NAME -- experiments.prediction.convlstm paper --workdir /mnt/shared/x"
        )
    line = f"cd ~/seqjax; {_line(machine, recipe)} >> ~/launch/log 2>&1 & echo $! > ~/launch/pid; wait $!; "
    line += 'echo "$? $(date +%s.%N)" > ~/launch/new; mv ~/launch/new ~/launch/status'
    steps = [
        "mkdir -p launch && cd launch",
        f"{{ {_FREE} || {{ echo 'a run is on already: stop it first' >&2; exit 1; }}; }}",
        f"rm -f pid status stopped told && echo {digest(machine, recipe)} > run",
        f"{{ setsid nohup flock -w 10 -o lock bash -c {shlex.quote(line)} > /dev/null 2>&1 < /dev/null & }}",
        "for i in $(seq 100); do [ -e pid ] && break; sleep 0.1; done",
        "[ -e pid ]",
    ]
    return ssh(machine, " && ".join(steps))


def query(machine: Machine) -> Command:
    """Has every worker print a line for ``answers``."""
    ended = "cat status told 2> /dev/null || [ -e status ] || echo lost"
    over = f"if [ -e stopped ]; then echo stopped; else {ended}; fi"
    state = f"if ! {_FREE}; then echo running; elif [ -e run ]; then {over}; else echo none; fi"
    word = "$(cat run 2> /dev/null || echo -)"
    return ssh(machine, f"mkdir -p launch && cd launch && echo launch {word} $({state})")


def answers(text: str) -> list[Worker]:
    """What the workers said."""
    lines = [line.split() for line in text.splitlines() if line.startswith("launch ")]
    return [Worker(words[1], words[2], float(words[3]) if len(words) > 3 else 0.0, "told" in words) for words in lines]


def log(machine: Machine, worker: str, lines: int, follow: bool) -> Command:
    """Prints the end of a worker's log, and what comes after it."""
    return ssh(machine, f"tail -n {lines} {'-F ' if follow else ''}launch/log", worker=worker)


def stop(machine: Machine) -> Command:
    """SIGTERM to the run on every worker: it saves and ends with status 75, and no watcher starts it again."""
    return ssh(machine, f"cd launch && {{ {_FREE} || {{ touch stopped && kill -TERM $(cat pid); }}; }}")


def end(machine: Machine, grace: int) -> Command:
    """Ends what still runs after another worker failed: SIGTERM, and SIGKILL some seconds later."""
    kill = f"{{ echo told > told; kill -TERM $(cat pid); flock -s -w {grace} lock true || kill -KILL $(cat pid); }}"
    return ssh(machine, f"cd launch && {{ {_FREE} || {kill}; }}")


def ssh(machine: Machine, script: str, *, worker: str = "all") -> Command:
    """Runs a line of bash on one worker, or on all at once."""
    return _tpus(machine, "tpu-vm", "ssh", machine.name, f"--worker={worker}", f"--command={script}")


def _tpus(machine: Machine, *words: str) -> Command:
    where = [f"--{key}={value}" for key in ("zone", "project") if (value := getattr(machine, key))]
    return ["gcloud", "compute", "tpus", *words, *where]


def _bundle(machine: Machine) -> str:
    return f"runs/launch/{machine.name}.bundle"


def _line(machine: Environment, recipe: Sequence[str]) -> str:
    told = {"TFDS_DATA_DIR": machine.data_dir, "JAX_COMPILATION_CACHE_DIR": machine.compilation_cache}
    told_words = [f"{name}={value}" for name, value in told.items() if value]
    return shlex.join(["env", *told_words, ".venv/bin/python", "-u", "-m", *recipe])
