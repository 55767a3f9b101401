"""Files of a run, written whole or not at all, and a clear error where they cannot be."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from seqjax.errors import InputError


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file whole or not at all: readers and a crash see the earlier content or the new one.

    Raises:
      InputError: the folder cannot be written to or the disk is full; the earlier file is still there.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an error of the operating system within the block into an `InputError` about `path`."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); what was there before is unchanged. Free some "
            f"space, or give the run another --workdir that can be written to."
        ) from error
