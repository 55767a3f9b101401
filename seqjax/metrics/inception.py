"""The field's Inception as a feature network: the one whose figures may be called FID, KID and IS."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from seqjax.metrics.features import FeatureNet, Features
from seqjax.nn.inception import Inception, Protocol, prepare
from seqjax.nn.split import merge, split

_NAMES = {
    "pytorch-fid": {"fd": "fid", "kid": "kid", "kid_sd": "kid_sd", "score": "is", "score_sd": "is_sd"},
    "clean-fid": {"fd": "clean-fid", "kid": "clean-kid", "kid_sd": "clean-kid_sd"},
}


def feature_net(net: Inception, sha256: str, verified: bool, *, protocol: Protocol = "pytorch-fid") -> FeatureNet:
    """The network from `seqjax.convert.inception.load_inception`, for the metrics of generated images.

        loaded = load_inception("pt_inception-2015-12-05-6726825d.pth")
        metric = frechet_metric(feature_net(*loaded), reference)

    Probabilities are of all 1,008 classes and leave the bias of the last layer out, as the inception score's own code
    does. Under "clean-fid" the figures are named for it.

    Args:
      net: the network.
      sha256: of the file that it was read from.
      verified: whether that is the published file; figures of any other are named "inception-unverified-fd" and so on.
      protocol: how images become its input: see `seqjax.nn.inception.prepare`.
    """
    graphs, *params = split({"net": net})

    def extract(params: Any, images: Array) -> Features:
        network = merge(graphs, *params)["net"]
        assert isinstance(network, Inception)
        features = network.features(prepare(images, protocol))
        return Features(features, jax.nn.softmax(features @ jnp.asarray(network.fc.kernel[...])))

    dimension, classes = net.fc.kernel.shape
    return FeatureNet(
        name="inception" if verified else "inception-unverified",
        sha256=sha256,
        protocol=f"{protocol}; probabilities without bias{'' if verified else '; weights not verified'}",
        dimension=dimension,
        classes=classes,
        params=params,
        extract=extract,
        published=_NAMES[protocol] if verified else {},
    )
