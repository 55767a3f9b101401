"""Files of a work directory that spare a resumed run what was found out once: whole or not there."""

import io
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file of which nobody ever sees half; another process may be writing the same."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def kept_array(path: Path, fingerprint: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array that a file has under this fingerprint; where there is none, or it is damaged, computed and written.

    Args:
      path: the file, NumPy's ``.npz``, which has checksums.
      fingerprint: of all that the array depends on.
      compute: what it is.
    """
    try:
        with open(path, "rb") as file, np.load(file) as content:
            if content["fingerprint"] == fingerprint:
                return content["array"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass  # not there, or damaged
    array = compute()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, fingerprint=fingerprint, array=array)
    write_whole(path, buffer.getvalue())
    return array
