"""Arrays in a work directory that spare a resumed run what was found out once."""

import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from seqjax.files import replace_file


def kept_array(path: Path, fingerprint: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array that a file has under this fingerprint; where there is none, or it is damaged, computed and written.

    Args:
      path: the file, NumPy's ``.npz``, which has checksums.
      fingerprint: of all that the array depends on.
      compute: what it is.

    Raises:
      InputError: it cannot be written.
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
    replace_file(path, buffer.getvalue())
    return array
