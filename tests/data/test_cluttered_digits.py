"""Images against the digits and pieces that they are made of, found again by search."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from seqjax.data import cluttered_digits
from seqjax.data.cluttered_digits import NAMED, ClutteredDigitsConfig, place
from seqjax.data.digits import load, random_split
from seqjax.data.source import open_source
from seqjax.errors import InputError

FEW = {"size": 20, "digit_size": 8, "train": 30, "test": 6}


def opened(directory, split="test", **fields):
    return open_source(
        "cluttered_digits", split=split, config=ClutteredDigitsConfig(**FEW | fields), data_dir=directory
    )


def test_translated_digits_are_scikit_learns_on_black(tmp_path):
    """Against scikit-learn's own array, 0 to 16, and its permutation for testing."""
    data, order = load_digits(), np.random.RandomState(0).permutation(1797)[1297:]
    for i, record in enumerate(map(opened(tmp_path).__getitem__, range(6))):
        image = record["image"][..., 0].astype(float)
        row, column = record["corner"]
        assert image.shape == (20, 20)
        np.testing.assert_array_equal(
            image[row : row + 8, column : column + 8], np.rint(data.images[order[i]] * 255 / 16)
        )
        image[row : row + 8, column : column + 8] = 0
        assert not image.any()
        assert (record["label"], record["index"]) == (data.target[order[i]], i)


def test_digits_come_in_turn_and_never_from_the_other_split(tmp_path, monkeypatch):
    places = {"train": np.array([5, 9, 70]), "test": np.array([1])}
    monkeypatch.setattr(cluttered_digits, "random_split", lambda: places)
    labels = load_digits().target
    train = opened(tmp_path, "train", train=7)
    assert [int(train[i]["index"]) for i in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [int(train[i]["label"]) for i in range(3)] == labels[[5, 9, 70]].tolist()
    corners = {tuple(train[i]["corner"]) for i in range(7)}
    assert len(corners) > 3
    assert not np.array_equal(opened(tmp_path, "test", train=7)[0]["corner"], train[0]["corner"])


def test_places_are_all_alike_and_reach_every_edge():
    rng = np.random.default_rng(0)
    digit = np.full((3, 3), 9, np.uint8)
    corners = np.array([place(rng, digit, [], size=6, pieces=0)[1] for _ in range(1600)])
    counts = np.zeros((4, 4))
    np.add.at(counts, tuple(corners.T), 1)
    np.testing.assert_allclose(counts, 100, atol=40)


def test_clutter_is_pieces_of_others_and_covers_nothing():
    """A digit of 200 and others of 50 and 100: pixel by pixel the larger of what lies there."""
    rng = np.random.default_rng(0)
    digit, others = np.full((8, 8), 200, np.uint8), np.stack([np.full((8, 8), v, np.uint8) for v in (50, 100)])
    seen, corners, areas = set(), set(), []
    for _ in range(200):
        image, (row, column) = place(rng, digit, others, size=40, pieces=2, piece=3)
        assert (image[row : row + 8, column : column + 8] == 200).all()
        rest = image.copy()
        rest[row : row + 8, column : column + 8] = 0
        seen |= set(rest.ravel().tolist())
        areas.append((rest > 0).sum())
        corners |= {tuple(np.argwhere(rest)[0])} if rest.any() else set()
    assert seen == {0, 50, 100}
    assert max(areas) == 18
    assert np.mean(areas) > 15  # two pieces of nine pixels, seldom one on another
    assert len(corners) > 150


def test_pieces_are_cut_anywhere_from_a_digit():
    other = np.arange(64, dtype=np.uint8).reshape(1, 8, 8) + 1
    rng, cut = np.random.default_rng(0), set()
    for _ in range(500):
        image, _ = place(rng, np.zeros((8, 8), np.uint8), other, size=20, pieces=1, piece=3)
        values = image[image > 0].reshape(3, 3)
        np.testing.assert_array_equal(values, values[0, 0] + np.add.outer([0, 8, 16], [0, 1, 2]))
        cut.add(int(values[0, 0]) - 1)
    assert cut == {8 * row + column for row in range(6) for column in range(6)}


def test_cluttered_records_hold_their_digit(tmp_path):
    images, _ = load(8, method="bilinear")
    places = random_split()["test"]
    more = 0
    for i, record in enumerate(map(opened(tmp_path, pieces=3, piece=4).__getitem__, range(6))):
        row, column = record["corner"]
        window = record["image"][row : row + 8, column : column + 8, 0]
        assert (window >= images[places[i]]).all()
        more += int((record["image"] > 0).sum() - (images[places[i]] > 0).sum())
    assert 6 * 10 < more < 6 * 3 * 16


def test_binary_images(tmp_path):
    """Black where scikit-learn's pixel is more than 7 of 16."""
    raw = load_digits().images
    grey, binary = opened(tmp_path), opened(tmp_path, binary=True)
    for i in range(6):
        expected = 255 * (grey[i]["image"] > 7.5 / 16 * 255)
        np.testing.assert_array_equal(binary[i]["image"], expected)
    source = open_source("binary_digits", split="train", config="8x8", data_dir=tmp_path)
    for i in range(3):
        np.testing.assert_array_equal(source[i]["image"][..., 0], 255 * (raw[source[i]["index"]] > 7))
        assert source[i]["image"].dtype == np.uint8


def test_mnist_is_taken_from_tfds(tmp_path, monkeypatch):
    """A stand-in for TFDS's set; where it is prepared is where this one is."""
    asked = []

    class Mnist:
        def download_and_prepare(self, **options):
            asked.append(options)

        def as_data_source(self, split):
            return [
                {"image": np.full((28, 28, 1), v, np.uint8), "label": v} for v in ((7, 8) if split == "test" else (1,))
            ]

    find = cluttered_digits.tfds.builder

    def builder(name, **options):
        if name != "mnist":
            return find(name, **options)
        asked.append(str(options["data_dir"]))
        return Mnist()

    monkeypatch.setattr(cluttered_digits.tfds, "builder", builder)
    source = opened(tmp_path, digits="mnist", size=30, digit_size=28)
    assert [int(source[i]["label"]) for i in range(3)] == [7, 8, 7]
    assert [int(source[i]["image"].max()) for i in range(3)] == [7, 8, 7]
    assert asked == [str(tmp_path), {"file_format": "array_record"}] * 2


@pytest.mark.parametrize(
    "fields",
    [
        *[{"train": 0}, {"pieces": -1}, {"piece": 0}, {"seed": -1}, {"digit_size": 7}, {"name": "mine"}],
        *[{"size": 27}, {"piece": 29}, {"digits": "letters"}, {"digits": "mnist", "digit_size": 8}],
    ],
)
def test_settings_that_make_no_sense(fields, unchecked):
    field = next(iter(fields))
    with pytest.raises(InputError, match=f"{field}=.* in a ClutteredDigitsConfig"):
        ClutteredDigitsConfig(**fields)


def test_named_configurations_are_those_of_the_paper():
    sizes = {
        name: (config.size, config.pieces) for name, config in cluttered_digits.ClutteredDigits.builder_configs.items()
    }
    assert list(sizes) == list(NAMED)
    for prefix in ("", "mnist_"):
        assert sizes[f"{prefix}translated_60"] == (60, 0)
        assert sizes[f"{prefix}cluttered_60"] == (60, 4)
        assert sizes[f"{prefix}cluttered_100"] == (100, 4)
