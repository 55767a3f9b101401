import numpy as np
import pytest
from skimage import data
from sklearn.datasets import load_sample_image

from seqjax.data.photographs import LARGEST, NAMED, PHOTOGRAPHS, CropsConfig, photographs, textures
from seqjax.data.source import open_source
from seqjax.errors import InputError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The records of all splits of both sets."""
    directory = tmp_path_factory.mktemp("data")

    def records(name, split):
        source = open_source(name, split=split, config="tiny", data_dir=directory)
        return [source[i] for i in range(len(source))]

    return {
        name: {split: records(name, split) for split in splits}
        for name, splits in {
            "photograph_crops": ("train", "test"),
            "textures": ("trainA", "trainB", "testA", "testB"),
        }.items()
    }


def test_the_photographs_are_those_named():
    images = dict(zip(PHOTOGRAPHS, photographs(), strict=True))
    for name, expected in {
        "china": load_sample_image("china.jpg"),
        "flower": load_sample_image("flower.jpg"),
        "astronaut": data.astronaut(),
        "chelsea": data.chelsea(),
        "coffee": data.coffee(),
        "rocket": data.rocket(),
        "motorcycle": data.stereo_motorcycle()[0],
    }.items():
        np.testing.assert_array_equal(images[name], expected)


def test_pairs_are_crops_in_grey_and_in_colour(prepared):
    images = photographs()
    for split, records in prepared["photograph_crops"].items():
        assert len(records) == NAMED["tiny"][split]
        for i, record in enumerate(records):
            y, x = record["corner"]
            assert record["photograph"] == i % 7
            crop = images[i % 7][y : y + 16, x : x + 16]
            np.testing.assert_array_equal(record["target"], crop)
            luma = crop @ np.array([0.299, 0.587, 0.114])
            assert record["input"].shape == (16, 16, 1)
            assert np.abs(record["input"][..., 0] - luma).max() <= 0.52


def test_domains_are_crops_of_one_texture_each(prepared):
    for split, records in prepared["textures"].items():
        assert len(records) == NAMED["tiny"][split[:-1]]
        texture = {"A": data.grass(), "B": data.gravel()}[split[-1]]
        for record in records:
            y, x = record["corner"]
            np.testing.assert_array_equal(record["image"][..., 0], texture[y : y + 16, x : x + 16])
            assert record["photograph"] == "AB".index(split[-1])


def test_no_pixel_is_for_training_and_for_testing(prepared):
    shapes = {"photograph_crops": photographs(), "textures": textures()}
    for name, splits in prepared.items():
        for split, records in splits.items():
            for record in records:
                border = shapes[name][record["photograph"]].shape[1] * 2 // 3
                left, right = record["corner"][1], record["corner"][1] + 16
                assert right <= border if split.startswith("train") else left >= border


def test_crops_are_spread_and_differ(prepared):
    for splits in prepared.values():
        crops = [record.get("image", record.get("target")) for records in splits.values() for record in records]
        assert len({crop.tobytes() for crop in crops}) == len(crops)
    corners = np.stack([record["corner"] for record in prepared["textures"]["trainA"]])
    assert (np.ptp(corners, axis=0) > [400, 250]).all()  # of 496 and 325


def test_largest_crop_fits_and_reaches_its_borders(tmp_path):
    config = CropsConfig(size=LARGEST, train=7, test=300)
    source = open_source("photograph_crops", split="test", config=config, data_dir=tmp_path)
    columns = [record["corner"][1] for record in map(source.__getitem__, range(3, 300, 7))]  # the narrowest, 451
    assert source[3]["target"].shape == (128, 128, 3)
    assert min(columns) == 300
    assert 320 <= max(columns) <= 323


def test_another_seed_gives_other_crops(tmp_path):
    first, second = (
        open_source(
            "textures", split="trainA", config=CropsConfig(size=8, train=4, test=1, seed=seed), data_dir=tmp_path
        )
        for seed in (0, 1)
    )
    assert not any(np.array_equal(first[i]["corner"], second[i]["corner"]) for i in range(4))


@pytest.mark.parametrize("fields", [{"size": 0}, {"size": 129}, {"train": 0}, {"test": 0}, {"seed": -1}, {"name": "x"}])
def test_settings_that_make_no_sense(fields):
    (field,) = fields
    with pytest.raises(InputError, match=f"^{field}="):
        CropsConfig(**fields)


def test_every_field_is_in_the_name():
    names = {CropsConfig(**{field: 21}).name for field in ("size", "train", "test", "seed")}
    assert len(names | {CropsConfig().name}) == 5
