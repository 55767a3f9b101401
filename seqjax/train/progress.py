"""What a person sees of a run: a progress bar on a terminal or in a notebook, plain lines elsewhere."""

import contextlib
import io
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text


class Progress:
    """Shows how far a run is and how it does, and says nothing where it is not `active`.

    On a terminal and in a notebook a bar moves with every step and keeps the latest loss; when stdout goes to
    a file or a pipe, each logged step is one line. A reader that goes away never ends the run.

    Args:
      total: the step at which the run is finished.
      start: the step at which it starts or continues.
      description: a word or two before the step.
      active: whether this process shows anything; one of several does.
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        description: str = "step",
        active: bool = True,
    ) -> None:
        self._console = console()
        self._active, self._description, self._total = active, description, total
        self._logged, self._since = start, time.monotonic()
        self._bar: Bar | None = None
        if active and _is_live(self._console):
            self._bar = Bar(*_columns(), console=self._console, refresh_per_second=4)
            self._task = self._bar.add_task(description, completed=start, total=total, losses="")

    def advance(self, step: int) -> None:
        """Moves the bar to `step`, the number of steps done; cheap enough for every step."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def log(self, step: int, figures: Mapping[str, Any]) -> None:
        """Shows what was measured at a step: losses beside the bar; all else, and without a bar all, in a line."""
        if not self._active:
            return
        losses = {name: value for name, value in figures.items() if name.split("/")[-1] == "loss"}
        if self._bar and losses:
            self._bar.update(self._task, losses=format_figures(losses))
            return
        line = f"{self._description}  {step:{len(str(self._total))}}/{self._total}  {format_figures(figures)}"
        self.print(f"{line}{self._rate(step)}")

    def print(self, text: Any) -> None:
        """Prints a line, or anything that rich can print, such as a table; above the bar if there is one."""
        if self._active:
            show(text, self._console)

    def _rate(self, step: int) -> str:
        """Steps per second since the line before, unless that was of the same step or there is a bar."""
        if self._bar or step == self._logged:
            return ""
        now = time.monotonic()
        rate = (step - self._logged) / max(now - self._since, 1e-9)
        self._logged, self._since = step, now
        return f"  {rate:.3g} steps/s"

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()


def console() -> Console:
    """Returns rich's console for stdout, where a reader that goes away (`| head`) ends nothing."""
    return Console(file=_Sink(sys.stdout))  # type: ignore[arg-type]


def show(text: Any, screen: Console | None = None) -> None:
    """Prints a line as it is, however long, or anything that rich can print, such as a table; to stdout."""
    (screen or console()).print(text, soft_wrap=isinstance(text, str), highlight=False, markup=False)


def format_figures(figures: Mapping[str, Any]) -> str:
    """Returns the numbers among the figures in one line, each to four digits."""
    numbers = {name: value for name, value in figures.items() if not isinstance(value, Sequence)}
    return "  ".join(f"{name} {float(value):.4g}" for name, value in numbers.items())


class _Rate(ProgressColumn):
    """Steps per second over the last half minute."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:.3g} steps/s", style="progress.data.speed")


def _columns() -> list[ProgressColumn]:
    losses = TextColumn("{task.fields[losses]}", style="bold", markup=False)
    place, left = MofNCompleteColumn(), TimeRemainingColumn(compact=True, elapsed_when_finished=True)
    return [TextColumn("{task.description}"), BarColumn(None), place, losses, _Rate(), left]


def _is_live(screen: Console) -> bool:
    """Whether a bar can be drawn and redrawn; colours alone may be forced on a file."""
    if screen.is_jupyter:
        return find_spec("ipywidgets") is not None
    return screen.is_terminal and not screen.is_dumb_terminal and screen.file.isatty()


class _Sink(io.TextIOBase):
    """A text file that outlives the one behind it: what can no longer be written is dropped."""

    def __init__(self, file: Any) -> None:
        self._file = io.StringIO() if file is None else file

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._file, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._file.write(text.encode(self.encoding, "replace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._file.flush()

    def isatty(self) -> bool:
        try:
            return self._file.isatty()
        except ValueError:  # closed
            return False
