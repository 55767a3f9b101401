"""Several processes on this machine, each with simulated CPU devices, as one run of a recipe.

    python -m experiments.launch.local --processes 2 --devices 2 -- experiments.prediction.convlstm tiny

What follows ``--`` is what would follow ``python -m``. Every line of output begins with the number of its process.
SIGTERM, SIGINT and SIGHUP go to all processes. When one ends with a status other than 0, the others have ``--grace``
seconds to end too, then get SIGTERM, and SIGKILL as many seconds later.

Exit status: 0 if all said 0; 2 or 3 if any said so; 75, run again, if any said so or the first to fail died of a
signal; otherwise the status of the first to fail. With ``--restarts`` 75 starts all of them again, unless this
launcher was asked to stop.
"""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from experiments.launch.statuses import RETRY, described, together
from seqjax.errors import InputError
from seqjax.train.command import main

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclasses.dataclass(frozen=True)
class Config:
    """How many, and how long they wait for each other."""

    processes: int = 2
    """Processes of the run."""
    devices: int = 1
    """Simulated CPU devices of each."""
    grace: float = 30.0
    """Seconds that the other processes get to end by themselves after one failed, and again between SIGTERM and
    SIGKILL."""
    restarts: int = 0
    """How often all are started again after status 75."""


class Group:
    """The running processes of one run, from ``start``.

    Attributes:
      processes: by number.
    """

    def __init__(self, processes: Sequence[subprocess.Popen]):
        self.processes = processes
        self._copying: list[threading.Thread] = []
        for number, process in enumerate(processes):
            for source, sink in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
                if source:
                    copying = threading.Thread(target=_copy, args=(source, sink, f"[{number}] "), daemon=True)
                    copying.start()
                    self._copying.append(copying)

    def send(self, number: int) -> None:
        """A signal to every process that still runs."""
        for process in self.processes:
            process.send_signal(number)

    def wait(self, grace: float = 30.0) -> int:
        """The status of the run once all have ended, which the failure of one brings about.

        Args:
          grace: seconds from the first failure to SIGTERM for the others, and from there to SIGKILL.
        """
        running = dict(enumerate(self.processes))
        ended: list[int] = []
        stopped: list[int] = []
        deadlines: list[float] = []
        while running:
            over = {number: status for number, p in running.items() if (status := p.poll()) is not None}
            # Of those that are found together, a killed one was first: it needs no time to end.
            for number, status in sorted(over.items(), key=lambda item: item[1] >= 0):
                del running[number]
                (stopped if len(deadlines) > 1 else ended).append(status)
                if status:
                    _say(f"process {number} {described(status)}")
                if status and not deadlines:
                    deadlines = [time.monotonic() + grace]
            if running and deadlines and time.monotonic() > deadlines[-1]:
                kill = len(deadlines) > 1
                _say(f"{'SIGKILL' if kill else 'SIGTERM'} to process {', '.join(map(str, running))}")
                for process in running.values():
                    _end(process, kill=kill)
                deadlines.append(time.monotonic() + grace)
            time.sleep(0.02)
        for copying in self._copying:
            copying.join(timeout=1)  # a process left behind by one of ours may hold the pipe open
        return together(ended, stopped)


def start(command: Sequence[str], *, processes: int, devices: int = 1, cwd: str | Path | None = None) -> Group:
    """Starts the processes.

    Args:
      command: the program and its arguments, the same for all.
      processes: how many; a single one writes to our own output directly.
      devices: simulated CPU devices of each.
      cwd: their directory, ours if None.

    Raises:
      InputError: a number below one.
    """
    if processes < 1 or devices < 1:
        raise InputError(f"processes, devices: got {processes} and {devices}; each has to be at least 1.")
    pipe = subprocess.PIPE if processes > 1 else None
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}".strip()
    shared = {
        "JAX_NUM_PROCESSES": str(processes),
        "JAX_COORDINATOR_ADDRESS": f"localhost:{_free_port()}",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "PYTHONUNBUFFERED": "1",
    }
    return Group(
        [
            subprocess.Popen(
                command,
                cwd=cwd,
                env=os.environ | shared | {"JAX_PROCESS_ID": str(number)},
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches them once, through the launcher
            )
            for number in range(processes)
        ]
    )


def launch(command: Sequence[str], config: Config) -> int:
    """Starts, waits, and starts again as often as ``config`` allows; passes signals on meanwhile.

    Args:
      command: the program and its arguments.
      config: how many, and how long they wait.

    Returns:
      The exit status, as the docstring of this file has it.
    """
    groups: list[Group] = []
    with _forwarding(groups) as asked:
        for left in range(config.restarts, -1, -1):
            groups.append(start(command, processes=config.processes, devices=config.devices))
            for number in asked:  # it came while they were being started
                groups[-1].send(number)
            status = groups[-1].wait(config.grace)
            if status != RETRY or asked or not left:
                break
            _say(f"status {RETRY}: starting again, {left - 1} restarts left")
    return status


@contextlib.contextmanager
def _forwarding(groups: Sequence[Group]) -> Iterator[Sequence[int]]:
    """Passes signals on to the newest group, and collects them."""
    asked: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if groups:
            groups[-1].send(number)

    previous = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(process: subprocess.Popen, *, kill: bool) -> None:
    """SIGTERM, or SIGKILL to it and to the workers that it started."""
    if not kill:
        process.terminate()
    elif process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _copy(source: IO[str], sink: IO[str], prefix: str) -> None:
    with source:
        for line in source:
            # A reader of ours that left must not end the run; one write keeps lines of two processes apart.
            with contextlib.suppress(OSError, ValueError):
                sink.write(f"{prefix}{line.rstrip()}\n")
                sink.flush()


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(f"launch: {text}", file=sys.stderr, flush=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _run(config: Config, command: Sequence[str]) -> None:
    if not command:
        raise InputError(
            "command: nothing follows --. Give the recipe and its options there, as in: python -m "
            "experiments.launch.local --processes 2 -- experiments.prediction.convlstm tiny --workdir runs/x"
        )
    sys.exit(launch([sys.executable, "-m", *command], config))


if __name__ == "__main__":
    given = sys.argv[1:]
    options = given[: given.index("--")] if "--" in given else given
    main(lambda c: _run(c, given[len(options) + 1 :]), {"local": Config()}, doc=__doc__ or "", args=options)
