"""Images of digits put together at every use, against the digits that they are made of."""

import dataclasses
import itertools

import numpy as np
import pytest

from seqjax.data.placed_digits import PlacedDigits, open_digits, placed_batches, placed_images, put_somewhere
from seqjax.data.source import open_source

PLACED = PlacedDigits(test_config="tiny", batch=8)


@pytest.fixture(scope="module")
def placed(tmp_path_factory):
    return dataclasses.replace(PLACED, data_dir=str(tmp_path_factory.mktemp("data")))


def test_training_images_are_put_together_anew():
    digits = np.full((3, 8, 8), 200, np.uint8)
    data = dataclasses.replace(PLACED, pieces=2)
    record = {"image": digits[0][..., None], "label": np.int64(3), "index": np.int64(0)}
    made = [put_somewhere(data, digits, record, np.random.default_rng(seed)) for seed in range(4)]
    assert {image["image"].shape for image in made} == {(24, 24, 1)}
    assert len({image["image"].tobytes() for image in made}) == 4
    assert all(image.keys() == {"image", "label"} and image["label"] == 3 for image in made)


def ink(image):
    """The part of an image from its first to its last pixel that is not black."""
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].tobytes()


def test_digits_and_held_out_images_are_those_of_their_sets(placed):
    train, test = open_digits(placed)
    for source, name, config, split in ((train, "digits", "8x8", "train"), (test, "cluttered_digits", "tiny", "test")):
        known = open_source(name, split=split, config=config, data_dir=placed.data_dir)
        assert len(source) == len(known)
        np.testing.assert_array_equal(source[5]["image"], known[5]["image"])


def test_batches_are_of_the_digits_with_their_labels_and_go_on_from_any_step(placed):
    train, _ = open_digits(placed)
    known = {ink(train[i]["image"][..., 0]): int(train[i]["label"]) for i in range(len(train))}

    def batches(start, number):
        stream = placed_batches(placed, train, seed=3, start_step=start, steps_per_call=1)
        return list(itertools.islice(stream, number))

    whole = batches(0, 5)
    for batch in whole:
        assert batch["image"].shape == (8, 24, 24, 1)
        assert [known[ink(image[..., 0])] for image in batch["image"]] == batch["label"].tolist()
    for here, there in zip(batches(3, 2), whole[3:], strict=True):
        np.testing.assert_array_equal(here["image"], there["image"])


def test_as_many_images_as_so_many_updates_see(placed):
    """Of all digits in turn, each time somewhere else; pieces add ink, larger ones more."""
    train, _ = open_digits(placed)
    few = [train[i] for i in range(4)]
    placed = dataclasses.replace(placed, batch=6)
    images, labels = placed_images(placed, few, steps=2, seed=0)
    assert labels.tolist() == 3 * [int(record["label"]) for record in few]
    assert [ink(image[..., 0]) for image in images] == 3 * [ink(record["image"][..., 0]) for record in few]
    assert len({image.tobytes() for image in images}) == 12
    inks = [(images > 0).sum(axis=(1, 2, 3))]
    for piece in (3, 8):
        cluttered, _ = placed_images(dataclasses.replace(placed, pieces=2, piece=piece), few, steps=2, seed=0)
        inks.append((cluttered > 0).sum(axis=(1, 2, 3)))
    assert all((more > less).sum() > 9 for less, more in itertools.pairwise(inks))
