"""TPU VMs by plain gcloud: make one, install the commit that is checked out here, run a recipe on all its workers.

    python -m experiments.launch.tpu create --name pod --queued --spot --accelerator v5litepod-16
    python -m experiments.launch.tpu setup --name pod --queued
    python -m experiments.launch.tpu run --name pod --queued -- experiments.prediction.convlstm paper --workdir /mnt/x
    python -m experiments.launch.tpu watch ...

Commands: status (the default), create, setup, run, logs, stop (the run saves first), delete, and watch, which does all
of it: it makes the machine if it isn't there, installs, runs, makes it anew when it is taken back, and runs again after
status 75. It keeps nothing in memory but its number of restarts: end it and start it again at any time.

``--dry-run`` prints every command. What follows ``--`` is what would follow ``python -m``. The runbook is README.md of
this folder. The exit status of watch is that of the run; of all else, that of the first gcloud that fails.
"""

import dataclasses
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.launch import gcloud
from experiments.launch.gcloud import Command, Environment, Hardware, Machine, Software, Worker
from experiments.launch.statuses import RETRY, described, together
from seqjax.errors import InputError
from seqjax.train.command import main

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Status(Machine):
    """The state of the machine, and of the run on each worker."""


@dataclasses.dataclass(frozen=True)
class Logs(Machine):
    """The log of a worker."""

    worker: str = "0"
    """Which; process 0 prints the metrics. "all" for the end of every log."""
    lines: int = 50
    """How many of the last lines."""
    follow: bool = True
    """Whether to go on with what comes (Ctrl-C leaves the run alone)."""


@dataclasses.dataclass(frozen=True)
class Stop(Machine):
    """SIGTERM to the run."""


@dataclasses.dataclass(frozen=True)
class Delete(Machine):
    """The end of the machine."""


@dataclasses.dataclass(frozen=True)
class Watch(Hardware, Software, Environment):
    """All that it takes to begin, and to begin again."""

    poll: float = 60.0
    """Seconds between two looks."""
    restarts: int = 100
    """How often the run is started again before the watcher gives up with status 75."""
    grace: int = 60
    """Seconds between SIGTERM and SIGKILL for workers that go on after another failed."""
    delete: bool = False
    """Delete the machine when the run is over, however it ended; the end of the log is printed first."""


COMMANDS: dict[str, Machine] = {
    "status": Status(),
    "create": Hardware(),
    "setup": Software(),
    "run": Environment(),
    "logs": Logs(),
    "stop": Stop(),
    "delete": Delete(),
    "watch": Watch(),
}


def lines(machine: Machine, recipe: Sequence[str]) -> list[Command]:
    """What a command runs, in order; for ``watch`` what it may run, each once."""
    match machine:
        case Watch():
            beginning = [gcloud.describe(machine), gcloud.create(machine), *gcloud.pack(machine)]
            running = [gcloud.run(machine, recipe), gcloud.query(machine), gcloud.end(machine, machine.grace)]
            ending = [gcloud.log(machine, "0", 50, follow=False)] if machine.delete else []
            return [*beginning, *gcloud.install(machine), *running, *ending, gcloud.delete(machine)]
        case Hardware():
            return [gcloud.create(machine)]
        case Software():
            return [*gcloud.pack(machine), *gcloud.install(machine)]
        case Environment():
            return [gcloud.run(machine, recipe)]
        case Logs():
            return [gcloud.log(machine, machine.worker, machine.lines, machine.follow)]
        case Stop():
            return [gcloud.stop(machine)]
        case Delete():
            return [gcloud.delete(machine)]
        case _:
            return [gcloud.describe(machine), gcloud.query(machine)]


def call(command: Command, *, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs one command at the root of the repository.

    Args:
      command: its words.
      quiet: keep what it prints, and take any status; otherwise it prints, and its failure is ours.
    """
    pipe = subprocess.PIPE if quiet else None
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    except FileNotFoundError as error:
        raise InputError(f"{command[0]}: not found. Install it (gcloud: the Google Cloud CLI) and log in.") from error
    if done.returncode and not quiet:
        sys.exit(done.returncode)
    return done


def state(machine: Machine) -> str:
    """The state in gcloud's words; ABSENT if there is none, UNKNOWN if gcloud does not answer."""
    done = call(gcloud.describe(machine), quiet=True)
    if done.returncode:
        return "ABSENT" if "NOT_FOUND" in done.stderr else "UNKNOWN"
    return done.stdout.strip()


def verdict(workers: Sequence[Worker], own: str) -> int | str:
    """What becomes of the run.

    Args:
      workers: what they say.
      own: the digest of the run that is watched.

    Returns:
      "wait"; "start", because it isn't there or should be tried again; "end", because a part of it failed and the
      rest goes on; or its exit status.

    Raises:
      InputError: another run is on.
    """
    running = [worker for worker in workers if worker.state == "running"]
    if other := {worker.run for worker in running} - {own}:
        raise InputError(f"name: another run ({other.pop()}) is on that machine. Stop it, or use another machine.")
    mine = [worker for worker in workers if worker.run == own]
    whole = len(mine) == len(workers)
    if running:
        return "wait" if whole and all(worker.state in ("running", "0") for worker in mine) else "end"
    if any(worker.state == "stopped" for worker in mine):
        return RETRY
    over = sorted((worker for worker in mine if worker.state.isdigit()), key=lambda worker: worker.seconds)
    own_end, told_end = ([_status(w) for w in over if w.told is told] for told in (False, True))
    status = together(own_end if len(over) == len(workers) else [*own_end, RETRY], told_end)
    return "start" if status == RETRY else status


def _status(worker: Worker) -> int:
    # A shell says 128 + n for a death by signal n.
    return int(worker.state) if int(worker.state) <= 128 else 128 - int(worker.state)


class Watcher:
    """Looks at the machine and does what is next, one step per ``look``."""

    def __init__(self, config: Watch, recipe: Sequence[str]):
        self.config, self.recipe = config, recipe
        self.starts, self.packed, self.partly = 0, False, False

    def look(self) -> int | None:
        """The exit status, once there is one."""
        now = state(self.config)
        if now == "ABSENT" or now in gcloud.GONE:
            self.make(now)
        elif now in gcloud.READY:
            done = call(gcloud.query(self.config), quiet=True)
            if not done.returncode:
                return self.act(gcloud.answers(done.stdout))
            self.say(f"the machine is {now}, but its workers do not answer:\n{done.stderr.strip()}")
        else:
            self.say(f"the machine is {now}")
        return None

    def make(self, now: str) -> None:
        """A new machine, in place of one that is gone."""
        self.say(f"the machine is {now}, making it")
        if now != "ABSENT":
            call(gcloud.delete(self.config), quiet=True)
        self.tell(call(gcloud.create(self.config), quiet=True))

    def act(self, workers: Sequence[Worker]) -> int | None:
        """What the workers call for."""
        self.say(f"workers: {', '.join(worker.state for worker in workers)}")
        following = verdict(workers, gcloud.digest(self.config, self.recipe))
        # One look later, since workers do not start and end at once.
        partly, self.partly = self.partly, following == "end"
        if following == "end" and partly:
            self.say("a part of the workers failed, ending the others")
            self.tell(call(gcloud.end(self.config, self.config.grace), quiet=True))
        if following == "start" and self.starts > self.config.restarts:
            self.say(f"{self.config.restarts} restarts are used up")
            return RETRY
        if following == "start":
            self.begin()
        return following if isinstance(following, int) else None

    def begin(self) -> None:
        """Installs and starts: a machine made anew has nothing, one that booted again has lost its mounts."""
        self.starts += 1
        self.say(f"start {self.starts}")
        # Packed once, so that all starts are of the same commit.
        packing = [] if self.packed else gcloud.pack(self.config)
        for command in [*packing, *gcloud.install(self.config), gcloud.run(self.config, self.recipe)]:
            done = call(command, quiet=True)
            self.tell(done)
            if done.returncode:
                return
        self.packed = True

    def tell(self, done: subprocess.CompletedProcess[str]) -> None:
        """Why a command failed, if it did; the next look tries again."""
        if done.returncode:
            words = " ".join(word for word in done.args[:5] if "=" not in word)
            self.say(f"{words} {described(done.returncode)}:\n{done.stderr.strip()}")

    def say(self, text: str) -> None:
        """A line with the time."""
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {self.config.name}: {text}", flush=True)


def watch(config: Watch, recipe: Sequence[str], sleep: Callable[[float], object] = time.sleep) -> int:
    """Looks until the run is over; its exit status."""
    lines(config, recipe)  # what cannot be used is said before anything is made
    watcher = Watcher(config, recipe)
    while (status := watcher.look()) is None:
        sleep(config.poll)
    watcher.say(f"the run {described(status)}")
    if config.delete:
        print(call(gcloud.log(config, "0", 50, follow=False), quiet=True).stdout)
        call(gcloud.delete(config))
    return status


def _run(machine: Machine, recipe: Sequence[str]) -> None:
    if machine.dry_run:
        return print("\n".join(shlex.join(command) for command in lines(machine, recipe)))
    if isinstance(machine, Watch):
        sys.exit(watch(machine, recipe))
    for command in lines(machine, recipe):
        call(command)
    return None


if __name__ == "__main__":
    given = sys.argv[1:]
    options = given[: given.index("--")] if "--" in given else given
    main(lambda m: _run(m, given[len(options) + 1 :]), COMMANDS, doc=__doc__ or "", args=options)
