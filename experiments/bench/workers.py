"""Libraries next to one another, each in a process of its own that answers JSON lines: what such benchmarks share.

A module with peers calls `serve` where it is run; the command that compares them talks to it through `Worker`.
"""

import importlib.metadata
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from experiments.bench.timing import Call, measure


class Worker:
    """A library in its own process, started again if it dies.

    Args:
      module: whose ``__main__`` calls `serve`.
      name: of the library, its one argument.
      environment: variables that it has beside this process's own.
    """

    def __init__(self, module: str, name: str, environment: Mapping[str, str] | None = None):
        self.module, self.name, self.environment = module, name, environment or {}
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        """The process; of a GPU's memory it takes what it needs, since all libraries are there at once."""
        return subprocess.Popen(
            [sys.executable, "-m", self.module, self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **self.environment},
        )

    def ask(self, task: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """One round of a task; the answer's "error" says why there are no times."""
        if self.process.poll() is not None:
            self.process = self.start()
        print(json.dumps({"task": task, "seconds": seconds}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline() if self.process.stdout else ""
        if not answer:
            self.process.wait()
        return json.loads(answer) if answer else {"error": "the process ended (out of memory?)"}

    def stop(self) -> None:
        """End the process."""
        self.process.communicate()


def start(
    module: str, packages: Mapping[str, str], console: Console, environment: Mapping[str, str] | None = None
) -> dict[str, Worker]:
    """A worker for each library whose package can be imported; the others are named on the console.

    Args:
      module: as of `Worker`.
      packages: by the library's name, the package to import.
      console: where to say so.
      environment: of the workers.
    """
    here = {name for name, package in packages.items() if importlib.util.find_spec(package)}
    if absent := [name for name in packages if name not in here]:
        console.print(f"not installed, left out: {', '.join(absent)}")
    return {name: Worker(module, name, environment) for name in packages if name in here}


def in_turns(workers: list[Worker], task: Mapping[str, Any], rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """`summary` by library of one task, all asked round after round, so that a slow minute of the machine meets all."""
    answers: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            answers[worker.name].append(worker.ask(task, seconds))
    return {name: summary(found) for name, found in answers.items()}


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Median over rounds of the rounds' medians, their spread, and what else the library said in the first."""
    errors = [answer["error"] for answer in rounds if "error" in answer]
    if errors:
        return {"error": errors[0]}
    medians = [statistics.median(answer["times"]) for answer in rounds]
    facts = {name: value for name, value in rounds[0].items() if name != "times"}
    return {"seconds": statistics.median(medians), "lowest": min(medians), "highest": max(medians), **facts}


def geometric_mean(values: list[float]) -> str:
    """Of those that are there."""
    numbers = [value for value in values if not math.isnan(value)]
    return f"{statistics.geometric_mean(numbers):.2f}" if numbers else ""


def serve(build: Callable[..., tuple[Call, dict]], package: str) -> None:
    """Answers each line ``{"task", "seconds"}`` with ``{"times", "version", ...}`` or ``{"error"}``.

    Args:
      build: makes the timed call of ``build(**task)``, and facts to send along; kept for the rounds that follow.
      package: whose version is sent along.
    """
    answers = os.fdopen(os.dup(1), "w")  # libraries that print must not speak between the answers
    os.dup2(2, 1)
    version = importlib.metadata.version(package)
    built: dict[str, tuple[Call, dict]] = {}
    for line in sys.stdin:
        task, seconds = (json.loads(line)[name] for name in ("task", "seconds"))
        try:
            if (key := json.dumps(task)) not in built:
                built.clear()  # before the next is made: two of them may not fit
                built[key] = build(**task)
            times = measure(built[key][0], seconds)
            answer = {"times": times, "version": version, **built[key][1]}
        except Exception as error:  # one peer's failure at one point is a result, and the table shows it
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)
