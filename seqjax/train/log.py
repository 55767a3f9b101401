"""The numbers and pictures of a run as it goes: `metrics.jsonl` for programs, TensorBoard events for eyes.

A line of `metrics.jsonl` is one JSON object, `{"step": 100, "kind": "train", "loss": 0.5, ...}`: the figures
of one kind at one step, by name in sorted order. JSON has no nan and no infinity, so these are written as the
strings "nan", "inf" and "-inf"; `read_metrics` makes numbers of them again.
"""

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import UInt8

from seqjax.errors import InputError
from seqjax.files import replace_file, writing
from seqjax.train.media import encode_gif

Figures = Mapping[str, SupportsFloat | Sequence[SupportsFloat]]
"""What was measured: numbers by name, and curves as lists of numbers."""

_log = logging.getLogger(__name__)


class Logs:
    """Writes what happens in a run to its work directory; does nothing where it is not `active`.

    Lines and events have left the process when the call returns, so one that is killed loses none of them.

    Args:
      workdir: the work directory, made if it is not there.
      resume_step: the step that the run continues from: lines and events after it are dropped, since the run
        will write them again, and so is a last line that a crash left unfinished. None begins a new log.
      active: whether this process writes; one of several does.

    Raises:
      InputError: the work directory cannot be written to; or, from any method, the disk is full.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, resume_step: int | None = None, active: bool = True) -> None:
        self.path = Path(workdir) / "metrics.jsonl"
        self._active = active
        if active:
            last = -1 if resume_step is None else resume_step
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _drop_after(self.path, last)
                self._events = _Events(self.path.parent / "tensorboard", last + 1)
                self._lines = open(self.path, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, step: int, kind: str, figures: Figures) -> None:
        """Writes the figures of one kind ("train", "evaluation", ...) at one step; once for each such pair.

        TensorBoard gets the numbers, under `kind/name`; curves are in the line alone.
        """
        if not self._active:
            return
        if taken := {"step", "kind"} & figures.keys():
            raise ValueError(f"a metric cannot be called {min(taken)!r}: the log has that column already.")
        line = json.dumps({"step": step, "kind": kind, **to_json(dict(sorted(figures.items())))})
        values = [
            {"tag": f"{kind}/{name}", "simple_value": float(value)}
            for name, value in figures.items()
            if not isinstance(value, Sequence)
        ]
        with writing(self.path):
            self._lines.write(f"{line}\n")
            self._lines.flush()
            self._events.write(step, *values)

    def image(self, step: int, name: str, image: UInt8[np.ndarray, "H W C"]) -> None:
        """Shows an image, such as a grid of samples, in TensorBoard."""
        self.video(step, name, image[None])

    def video(
        self,
        step: int,
        name: str,
        video: UInt8[np.ndarray, "T H W C"],
        *,
        fps: float | int = 8,
        scale: int = 1,
    ) -> None:
        """Shows a video in TensorBoard, as an animated GIF among its images; options as for `encode_gif`."""
        if self._active:
            content = encode_gif(video, fps=fps, scale=scale)
            _, height, width, channels = video.shape
            size = {"height": height * scale, "width": width * scale, "colorspace": channels}
            with writing(self.path):
                self._events.write(step, {"tag": name, "image": {**size, "encoded_image_string": content}})

    def close(self) -> None:
        """Closes the files; a second time does nothing."""
        if self._active:
            self._active = False
            # All that was written has been flushed, and a failure of that has been reported.
            for file in (self._lines, self._events):
                with contextlib.suppress(OSError):
                    file.close()

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the lines of a `metrics.jsonl`: `step` (int), `kind` (str), and the figures.

    A last line that is still being written is left out.

    Raises:
      InputError: there is no such file, or a line before the last is damaged.
    """
    path = Path(path)
    try:
        lines = list(_parsed(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected a run's metrics.jsonl.") from error
    for number, (_, record) in enumerate(lines[:-1], 1):
        if record is None:
            raise InputError(f"{path} is damaged in line {number}, which is no metrics; delete that line.")
    return [record for _, record in lines if record is not None]


def to_json(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures as JSON can hold them: nan and the infinities as strings."""
    return {name: _each(_finite_or_word, value) for name, value in figures.items()}


def from_json(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures that `to_json` was given."""
    return {name: _each(float, value) for name, value in figures.items()}


def _each(convert: Callable[[Any], Any], value: Any) -> Any:
    return [convert(item) for item in value] if isinstance(value, list | tuple) else convert(value)


def _finite_or_word(value: SupportsFloat) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)


class _Events:
    """An event file of TensorBoard, written on the spot.

    `tensorboardX.SummaryWriter` puts a queue and a thread in between, which would lose events of a killed
    process, and would block the run for good once a full disk has ended the thread.
    """

    def __init__(self, directory: Path, purge_step: int) -> None:
        # Imported here, for the process that writes: it imports torch and boto3 where they are installed.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._event = Event
        directory.mkdir(exist_ok=True)
        # The name holds the second of the start, which is not enough: a start more makes it unique.
        starts = sum(1 for _ in directory.iterdir())
        self._file = EventsWriter(str(directory / "events"), f".{starts}")
        session = SessionLog(status=SessionLog.START)
        self._file.write_event(Event(wall_time=time.time(), step=purge_step, session_log=session))

    def write(self, step: int, *values: dict[str, Any]) -> None:
        self._file.write_event(self._event(wall_time=time.time(), step=step, summary={"value": values}))
        self._file.flush()

    def close(self) -> None:
        try:
            self._file.close()
        except OSError:
            # Where the last bytes cannot be written it leaves the file open, of which Python complains at exit.
            self._file._py_recordio_writer.close()


def _drop_after(path: Path, last: int) -> None:
    """Takes the lines after step `last` out of the file, and those that are damaged."""
    if not path.exists():
        return
    lines = list(_parsed(path))
    damaged = sum(record is None for _, record in lines[:-1])
    if damaged:
        _log.warning("%s: %d damaged lines were dropped.", path, damaged)
    kept = [line for line, record in lines if record is not None and record["step"] <= last]
    replace_file(path, b"".join(line + b"\n" for line in kept))


def _parsed(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """The lines that are not empty, each with its metrics or, if it is damaged or unfinished, None."""
    for line in path.read_bytes().split(b"\n"):
        if not line:
            continue
        try:
            record = json.loads(line)
            step, kind = record.pop("step"), record.pop("kind")
            yield line, {"step": int(step), "kind": kind, **from_json(record)}
        except (ValueError, KeyError, TypeError, AttributeError):
            yield line, None
