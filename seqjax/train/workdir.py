"""The directory of a run: one configuration, one place for everything the run leaves behind.

``config.json``, ``metrics.jsonl``, ``tensorboard/``, ``samples/``, ``checkpoints/``, ``report.json``.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqjax.errors import InputError
from seqjax.train.config import check_resumable
from seqjax.train.files import replace_file


def open_workdir(workdir: str, config: Mapping[str, Any], *, allow: tuple[str, ...] = ()) -> Path:
    """The directory of this configuration's run, made if it isn't there.

    Args:
      workdir: where.
      config: the configuration as JSON, from ``train.config.to_dict``; stored as ``config.json``.
      allow: fields that may differ from those of the run that is already there.

    Raises:
      InputError: the directory cannot be written to, or holds a run of another configuration.
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
    if stored != config:
        replace_file(path / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    return path


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
