"""Recipes and drills in processes of their own, as `python -m` starts them, forked from one that has imported them."""

import multiprocessing
import os
import resource
import runpy
import sys
from pathlib import Path
from typing import Any

from experiments.__main__ import recipes

RECIPES = [module for family in recipes().values() for module in family]

FORKS = multiprocessing.get_context("forkserver")
# By the names under which the server, which has the directory of the tests not in its path, can import them.
FORKS.set_forkserver_preload(["tests.faults.toy", *RECIPES])


def start(module: str, *options: Any, log: Path, devices: int = 1, file_size: int | None = None) -> Any:
    """`python -m <module> <options>`: the process, which appends to `<log>.out` and `<log>.err`.

    Args:
      module: the program.
      options: its arguments.
      log: what it prints, for `said`.
      devices: simulated devices.
      file_size: no file may grow larger than this many bytes.
    """
    process = FORKS.Process(target=_body, args=(module, list(map(str, options)), str(log), devices, file_size))
    process.start()
    return process


def said(log: Path, end: str = "err") -> str:
    """All that processes with this log have printed."""
    return Path(f"{log}.{end}").read_text()


def finish(module: str, *options: Any, log: Path, **more: Any) -> int:
    """The exit status at the end."""
    process = start(module, *options, log=log, **more)
    process.join(300)
    return process.exitcode


def _body(module: str, options: list[str], log: str, devices: int, file_size: int | None) -> None:
    for descriptor, end in ((1, "out"), (2, "err")):
        with open(f"{log}.{end}", "a") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"  # the last one counts
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.argv = [module, *options]
    sys.modules.pop(module, None)  # runpy warns of a main program that has been imported
    runpy.run_module(module, run_name="__main__", alter_sys=True)
