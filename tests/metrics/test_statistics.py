"""Statistics come back as they were written, for the network that they belong to and no other."""

import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.metrics.features import FeatureNet
from seqjax.metrics.frechet import fit
from seqjax.metrics.statistics import load_statistics, save_statistics

NET = FeatureNet("digits-cnn", "ab12", "as given", 4, 3, None, lambda params, images: None)


def test_round_trip(tmp_path):
    gaussian = fit(np.random.default_rng(0).normal(size=(9, 4)))
    save_statistics(tmp_path / "reference.npz", gaussian, NET)
    found = load_statistics(tmp_path / "reference.npz", NET)
    assert found.n == gaussian.n == 9
    np.testing.assert_array_equal(found.mean, gaussian.mean)
    np.testing.assert_array_equal(found.covariance, gaussian.covariance)


@pytest.mark.parametrize("change", [{"name": "inception"}, {"sha256": "cd34"}, {"protocol": "resized"}])
def test_another_network_weights_or_protocol_is_refused(tmp_path, change):
    save_statistics(tmp_path / "reference.npz", fit(np.eye(4)), NET)
    with pytest.raises(InputError, match="distances between features of two networks"):
        load_statistics(tmp_path / "reference.npz", NET._replace(**change))


@pytest.mark.parametrize("content", [b"", b"nothing", None])
def test_what_is_no_such_file_is_refused(tmp_path, content):
    path = tmp_path / "reference.npz"
    if content is None:
        np.savez(path, mu=np.ones(3), sigma=np.eye(3))
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as reference statistics"):
        load_statistics(path, NET)
