"""The directory of a run: one configuration, one process at a time, one place for everything the run leaves behind.

``config.json``, ``metrics.jsonl``, ``tensorboard/``, ``samples/``, ``checkpoints/``, ``profile/``, ``report.json``, and
``run.lock`` while a run is at work.
"""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seqjax.errors import InputError
from seqjax.files import replace_file
from seqjax.train.config import check_resumable


@contextlib.contextmanager
def open_workdir(
    workdir: str, config: Mapping[str, Any], *, allow: tuple[str, ...] = (), command: str = "", lead: bool = True
) -> Iterator[Path]:
    """The directory of this configuration's run, made if it isn't there; other runs are kept out while it is open.

    Args:
      workdir: where.
      config: the configuration as JSON, from ``train.config.to_dict``; stored as ``config.json``.
      allow: fields that may differ from those of the run that is already there.
      command: what a second run is told that the first was started with.
      lead: whether this is the process of the run that keeps others out and writes.

    Raises:
      InputError: the directory cannot be written to, another run is at work in it, or it holds a run of another
        configuration.
    """
    path = Path(workdir).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(
            f"workdir: {path} cannot be written to ({error.strerror}). Give a directory that can, with --workdir; "
            "nothing was changed."
        ) from error
    stored = stored_config(path)
    if stored is not None:
        check_resumable(stored, config, allow=allow)
    with _claim(path, command) if lead else contextlib.nullcontext():
        if stored != config and lead:
            replace_file(path / "config.json", (json.dumps(config, indent=2) + "\n").encode())
        yield path


@contextlib.contextmanager
def _claim(directory: Path, command: str) -> Iterator[None]:
    """Holds the directory's lock. It is the system's, so a run that was killed leaves none behind."""
    with open(directory / "run.lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InputError(
                f"workdir: {directory} is in use by {file.read() or 'another run'}. Wait for it to end, stop it, or "
                "give another --workdir; nothing was changed."
            ) from error
        except OSError as error:  # some network file systems have no locks
            logging.getLogger(__name__).warning("%s: other runs are not kept out (%s).", directory, error.strerror)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}, which began at {now}: {command}")
        file.flush()
        yield
        file.truncate(0)


def stored_config(workdir: str | Path) -> dict[str, Any] | None:
    """The configuration of the run in a directory, or None where there is none.

    Raises:
      InputError: ``config.json`` is there and cannot be read.
    """
    path = Path(workdir) / "config.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(
            f"workdir: {path} cannot be read ({error}). Put the file of this run back (every checkpoint holds a copy), "
            "or give another --workdir."
        ) from error
