"""Every recipe of ``experiments``. A new recipe adds its name; its ``tiny`` preset is what the laws run."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECIPES = ("prediction/convlstm", "recurrent/memory_tasks")


def module(name: str) -> Any:
    return importlib.import_module(f"experiments.{name.replace('/', '.')}")


def start(name: str, *options: Any, devices: int = 1, preset: str = "tiny") -> subprocess.Popen:
    """The recipe as a user starts it, in a process of its own."""
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-m", f"experiments.{name.replace('/', '.')}", preset, *map(str, options)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(name: str, *options: Any, status: int = 0, **more: Any) -> tuple[str, str]:
    """Run to the end, with the status expected; what it printed."""
    process = start(name, *options, **more)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    return out, err
