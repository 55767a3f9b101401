"""The command line of every recipe: `python -m experiments.<recipe> [PRESET] [--field VALUE ...]`.

The fields of the recipe's configuration are the options, their attribute docstrings the help. The one file
that imports tyro.
"""

import contextlib
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

import tyro

from seqjax.errors import InputError
from seqjax.train.config import did_you_mean
from seqjax.train.outcome import Diverged, Preempted

C = TypeVar("C")

_line: ContextVar[str | None] = ContextVar("command line", default=None)


def main(run: Callable[[C], Any], presets: Mapping[str, C], *, doc: str, args: Sequence[str] | None = None) -> NoReturn:
    """Reads the configuration from the command line, runs it, and exits with the status of the outcome.

    The first argument may name a preset, otherwise the first preset is taken; the options after it change
    single fields. `--help` explains each field and shows its value under the preset.

    Args:
      run: the recipe, called with the configuration.
      presets: named configurations, frozen dataclasses; the first is the default.
      doc: what the recipe does, printed by `--help`; a module passes its `__doc__`.
      args: the arguments, without the program; None takes those of the process.

    Exit status:
      0 when `run` returns; 2 for a command line or an input that cannot be used, explained on stderr in one
      paragraph; the status of `Diverged` or `Preempted`; 130 from the keyboard. Any other exception keeps
      its traceback.
    """
    given = sys.argv[1:] if args is None else list(args)
    program = _program(getattr(run, "__module__", None) or "__main__")
    token = _line.set(shlex.join([*program, *given]))
    try:
        status = _status(lambda: run(_parse(presets, given, shlex.join(program), doc)))
    finally:
        _line.reset(token)
    _let_go_of_broken_output()
    sys.exit(status)


def command_line() -> str:
    """Returns the line that started this run, as it would be typed again (none in a notebook)."""
    if line := _line.get():
        return line
    if not hasattr(sys.modules["__main__"], "__file__"):
        return "interactive session"
    return shlex.join([*_program("__main__"), *sys.argv[1:]])


def _parse(presets: Mapping[str, C], args: Sequence[str], program: str, doc: str) -> C:
    names = list(presets)
    named = bool(args) and not args[0].startswith("-")
    preset = args[0] if named else names[0]
    if preset not in presets:
        raise InputError(
            f"there is no preset {preset!r}{did_you_mean(preset, names)}: expected {' or '.join(names)}, or "
            f"options only, which start from {names[0]}; {program} --help lists them."
        )
    listing = ", ".join([f"{names[0]} (the default)", *names[1:]])
    about = f"Presets, named before any option: {listing}. The values below are those of {preset}."
    return tyro.cli(
        type(presets[preset]),
        default=presets[preset],
        args=list(args[named:]),
        prog=f"{program} {preset}" if named else program,
        description=f"{doc.strip()}\n\n{about}",
    )


def _status(run: Callable[[], Any]) -> int:
    try:
        run()
    except InputError as error:
        return _explain("error", error, 2)
    except (Diverged, Preempted) as stop:
        return _explain("stopped", stop, stop.exit_code)
    except KeyboardInterrupt:
        return 130
    return 0


def _explain(kind: str, reason: Exception, status: int) -> int:
    width = min(shutil.get_terminal_size().columns, 100)
    paragraph = textwrap.fill(f"{kind}: {reason}", width, break_long_words=False, break_on_hyphens=False)
    # A closed stderr must not change the status that a launcher acts on.
    with contextlib.suppress(OSError, ValueError):
        print(paragraph, file=sys.stderr, flush=True)
    return status


def _program(module: str) -> list[str]:
    """How the program is started: by the name of its module where it has one, by its file otherwise."""
    if module != "__main__":
        return ["python", "-m", module]
    started = sys.modules["__main__"]
    if spec := getattr(started, "__spec__", None):
        return ["python", "-m", spec.name.removesuffix(".__main__")]
    return ["python", os.path.relpath(getattr(started, "__file__", "-"))]


def _let_go_of_broken_output() -> None:
    """Keeps the interpreter from ending with status 120 when the reader of stdout is gone (`| head`)."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except ValueError:  # stdout is closed: nothing is left to flush
        pass
