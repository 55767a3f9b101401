"""Reference statistics in a file: the Gaussian of a large set's features, computed once, and what computed it."""

import os
import zipfile

import numpy as np

from seqjax.errors import InputError
from seqjax.metrics.features import FeatureNet
from seqjax.metrics.frechet import Gaussian


def save_statistics(path: str | os.PathLike[str], gaussian: Gaussian, net: FeatureNet) -> None:
    """Writes ``mu``, ``sigma``, ``n`` and the network's name, hash and protocol as ``.npz``."""
    content = {"mu": gaussian.mean, "sigma": gaussian.covariance, "n": np.asarray(gaussian.n)}
    content |= {"extractor": np.asarray(net.name), "sha256": np.asarray(net.sha256), "resize": np.asarray(net.protocol)}
    with open(path, "wb") as file:  # a file, because numpy adds an ending to a name that has another
        np.savez(file, allow_pickle=False, **content)


def load_statistics(path: str | os.PathLike[str], net: FeatureNet) -> Gaussian:
    """The Gaussian from a file that was written for the same network, weights and protocol.

    Raises:
      InputError: it cannot be read, or belongs to another network, other weights or another protocol.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            content = dict(file)
        gaussian = Gaussian(content["mu"], content["sigma"], int(content["n"]))
        found = tuple(str(content[key]) for key in ("extractor", "sha256", "resize"))
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read as reference statistics ({error}); expected an .npz with mu, sigma, n, extractor, "
            "sha256 and resize, as save_statistics writes it."
        ) from error
    if found != (net.name, net.sha256, net.protocol):
        raise InputError(
            f"{path} holds statistics of {found}, and the feature network is {(net.name, net.sha256, net.protocol)}; "
            "distances between features of two networks or protocols mean nothing: compute the statistics again."
        )
    return gaussian
