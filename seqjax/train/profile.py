"""A trace of some steps of a run, for TensorBoard's profile page or XProf."""

import re
from pathlib import Path
from typing import Any

import jax

from seqjax.errors import InputError


class Profile:
    """Traces steps ``first:last`` (both included) into a directory; a context, since a trace has to be ended.

    Args:
      steps: such as "10:20"; None traces nothing.
      directory: where the trace goes; ``xprof <directory>`` or ``tensorboard --logdir <directory>`` opens it.

    Raises:
      InputError: ``steps`` is not of this form.
    """

    def __init__(self, steps: str | None, directory: Path):
        match = re.fullmatch(r"(\d+):(\d+)", steps or "0:0")
        if match is None or int(match[1]) > int(match[2]):
            raise InputError(
                f"loop.profile: got {steps!r}, expected the first and the last step to trace, such as 10:20."
            )
        self.first, self.last = int(match[1]), int(match[2])
        self.directory, self.tracing = directory, False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *error: object) -> None:
        if self.tracing:
            self._stop()

    def before(self, step: int) -> None:
        """To be called before the call that ends with ``step`` is made."""
        if not self.tracing and self.first <= step <= self.last:
            jax.profiler.start_trace(self.directory)
            self.tracing = True

    def after(self, step: int, outputs: Any) -> None:
        """To be called after it, with what it computes: the trace ends when the last step's work is done."""
        if self.tracing and step >= self.last:
            jax.block_until_ready(outputs)
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self.tracing = False
