"""What every benchmark writes beside its tables."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from seqjax.train.command import command_line
from seqjax.train.report import hardware, versions


def write_results(config: Any, **found: Any) -> None:
    """Writes ``results.json`` into ``config.out``: what was found, after the command, versions, machine and options."""
    where = {"command": command_line(), "versions": versions(), "hardware": hardware()}
    written = where | {"config": dataclasses.asdict(config)} | found
    (Path(config.out) / "results.json").write_text(json.dumps(written, indent=1) + "\n")
