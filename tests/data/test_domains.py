"""Two domains as recipes take them: splits by name, lengths made equal, images cut or left, and brought to one size."""

import numpy as np
import pytest

from seqjax.data import domains
from seqjax.data.domains import Domains, domain_batches, domain_tests, first_of_domains, open_domains


@pytest.fixture
def images(monkeypatch):
    """Sets of other sizes than each other; each image is of the value of its place in its split."""
    lengths = {"trainA": 7, "trainB": 5, "testA": 4, "testB": 6}

    def opened(name, *, split, config, data_dir):
        return [{"image": np.full((10, 10, 1), i, np.uint8), "label": np.int64(i)} for i in range(lengths[split])]

    monkeypatch.setattr(domains, "open_source", opened)


def test_both_domains_of_a_split_by_name(images):
    assert {domain: len(source) for domain, source in open_domains(Domains(), "train").items()} == {"a": 7, "b": 5}


def test_training_images_are_cut_at_random_where_configured(images):
    train = open_domains(Domains(), "train")
    for config, side in ((Domains(batch=2), 10), (Domains(batch=2, load=8, crop=6), 6)):
        batch = next(domain_batches(config, train, seed=0, start_step=0, steps_per_call=1))
        assert batch["a"].shape == batch["b"].shape == (2, side, side, 1)
        assert {"a_label", "b_label"} <= batch.keys()


def test_evaluation_has_as_many_of_each_as_the_smaller_domain(images):
    config = Domains(batch=3, load=8, crop=6)
    batches = list(domain_tests(config, open_domains(config, "test")))
    seen = np.concatenate([np.stack([b["a"][:, 0, 0, 0], b["b"][:, 0, 0, 0]])[:, b["weight"] > 0] for b in batches], 1)
    np.testing.assert_array_equal(seen, [[0, 1, 2, 3]] * 2)
    assert batches[0]["a"].shape == (3, 6, 6, 1)


def test_first_images_are_whole(images):
    config = Domains(load=8, crop=6)
    first = first_of_domains(config, open_domains(config, "test"), 16)
    assert first["a"].shape == first["b"].shape == (4, 6, 6, 1)
    assert first_of_domains(Domains(), open_domains(config, "test"), 2)["b"].shape == (2, 10, 10, 1)
