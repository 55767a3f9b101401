"""Before the first step: compiled programs kept on disk, other processes joined, devices counted, a line on it all."""

import hashlib
import itertools
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import platformdirs
import psutil

from seqjax.errors import InputError
from seqjax.train.config import CIRCUMSTANCES, without
from seqjax.train.mesh import AXIS, start_distributed
from seqjax.train.progress import show
from seqjax.train.report import versions

_EVENTS = {"/jax/compilation_cache/cache_hits": "loaded", "/jax/compilation_cache/cache_misses": "compiled"}
_programs: Counter[str] = Counter()
_runs = itertools.count()


def start(config: Mapping[str, Any], *, devices: int | None = None) -> float:
    """What every run does before anything else touches a device; process 0 prints `banner`.

    Args:
      config: the configuration, in the form of ``train.config.to_dict``.
      devices: how many there have to be, over all processes; None takes what there is.

    Returns:
      When the run began, as `time.time` counts: the start of the process for its first run, otherwise this call.

    Raises:
      InputError: there are other devices, or half a cluster is described (`start_distributed`).
    """
    # A second run of one process, as in a comparison, and a run in a notebook begin with the call.
    alone = next(_runs) == 0 and hasattr(sys.modules["__main__"], "__file__")
    began = psutil.Process().create_time() if alone else time.time()
    cache = keep_compiled_programs()
    start_distributed()
    if devices not in (None, jax.device_count()):
        raise InputError(
            f"loop.devices: {devices} expected, {jax.device_count()} found ({jax.local_device_count()} "
            f"{jax.default_backend()} devices in process {jax.process_index()} of {jax.process_count()}). Check that "
            "every worker runs this command, that jax is installed for the accelerator (jax[tpu], jax[cuda13]; "
            "JAX_PLATFORMS), and that no other program holds the devices; or correct loop.devices."
        )
    if jax.process_index() == 0:
        show(banner(config, cache))
    return began


def banner(config: Mapping[str, Any], cache: str | None) -> str:
    """Which process, devices, versions and configuration, and where compiled programs are kept."""
    found = versions()
    commit = f" at {found['commit'][:12]}" if found["commit"] else ""
    return (
        f"process {jax.process_index()} of {jax.process_count()}; {jax.local_device_count()} of {jax.device_count()} "
        f"{jax.devices()[0].device_kind} devices here; mesh {AXIS}={jax.device_count()}\n"
        f"seqjax {found['seqjax']}{commit}; jax {found['jax']}; python {found['python']}; "
        f"configuration {digest(config)}\n"
        f"compiled programs: {cache or 'not kept'}"
    )


def digest(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that tell configurations apart, whatever their work directory and devices."""
    text = json.dumps(without(config, CIRCUMSTANCES), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def keep_compiled_programs() -> str | None:
    """Turn jax's compilation cache on, in the user's cache directory unless jax was told where; returns where.

    JAX_ENABLE_COMPILATION_CACHE=false turns it off.
    """
    settings: Any = jax.config
    if not settings.jax_enable_compilation_cache:
        return None
    if not settings.jax_compilation_cache_dir:
        directory = platformdirs.user_cache_path("seqjax") / "xla"
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            logging.getLogger(__name__).warning("%s: compiled programs are not kept (%s).", directory, error.strerror)
            return None
        settings.update("jax_compilation_cache_dir", str(directory))
    if not _programs:
        _programs.update(loaded=0, compiled=0)
        jax.monitoring.register_event_listener(_count)
    return settings.jax_compilation_cache_dir


def programs() -> dict[str, int]:
    """How many programs this process has ``loaded`` from the cache and ``compiled`` anew to be kept."""
    return dict(_programs)


def _count(event: str, **_: Any) -> None:
    if event in _EVENTS:
        _programs[_EVENTS[event]] += 1
