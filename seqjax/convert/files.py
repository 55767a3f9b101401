"""Files of weights: read without running any code that they might hold, known by their hash, and written."""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from seqjax.errors import InputError


class WeightFile(NamedTuple):
    """What a file holds, and whether it is the one that its publisher gives out."""

    weights: dict[str, np.ndarray]
    sha256: str
    verified: bool


def read_weights(
    path: str | os.PathLike[str], known: Mapping[str, str], *, allow_unverified: bool = False
) -> WeightFile:
    """Arrays by name from a local ``.safetensors``, ``.npz``, ``.pth`` or ``.pt`` file. Nothing is downloaded.

    The first two need no torch. A ``.pth`` is read by torch's weights-only loading, which builds tensors and runs
    nothing else; pickles are never loaded in any other way.

    Args:
      path: the file.
      known: SHA-256 of the files that may be read, and what each is.
      allow_unverified: read any other file too, as one of own training; `WeightFile.verified` then says False.

    Raises:
      InputError: there is no such file, it is of another kind, damaged or not known, or torch is needed and not there.
    """
    path = Path(path)
    readers = {".safetensors": _safetensors, ".npz": _npz, ".pth": _torch, ".pt": _torch}
    if path.suffix not in readers or not path.is_file():
        raise InputError(f"{path}: expected a file of weights that ends in {', '.join(readers)}; give the path of one.")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 not in known and not allow_unverified:
        files = "; ".join(f"{what}: {digest}" for digest, what in known.items()) or "none is on record"
        raise InputError(
            f"{path} has the SHA-256 {sha256}, which is not on record ({files}). Fetch the file again from its "
            "publisher, or, if these are weights of your own or a conversion, say allow_unverified=True."
        )
    try:
        weights = readers[path.suffix](path)
    except InputError:
        raise
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise InputError(f"{path} cannot be read as {path.suffix} ({error}); expected arrays by name.") from error
    return WeightFile(weights, sha256, sha256 in known)


def write_weights(path: str | os.PathLike[str], weights: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as ``.safetensors``, whole or not at all.

    Raises:
      InputError: the name ends otherwise.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: weights are written as .safetensors; give a name that ends so.")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    # Contiguous, because the format has no strides and older versions of the library write a view's base instead.
    safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, part)
    part.replace(path)


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(path)


def _npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path}: a {path.suffix} file is read by torch, which is not installed. Install it, or convert the file "
            "to .safetensors where it is."
        ) from error
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value.detach().numpy() for name, value in weights.items()}
    except Exception as error:  # what torch raises differs by its version and by what the file is
        raise InputError(
            f"{path} cannot be read by torch's weights-only loading as tensors by name ({type(error).__name__}): it "
            "is damaged, or holds more than the weights of one network. Save its state_dict alone where it was made."
        ) from error
