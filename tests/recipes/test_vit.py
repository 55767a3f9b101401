"""The recipe of the Vision Transformer: what it does with images of any size, and its picture."""

import dataclasses

import numpy as np

from experiments.recognition import vit as recipe

TINY = recipe.PRESETS["tiny"]
CONFIG = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, side=8, least=0.2))
IMAGE = np.arange(30 * 20 * 3, dtype=np.uint8).reshape(30, 20, 3)
RECORD = recipe.labelled({"image": IMAGE, "label": np.int64(3), "file_name": b"x"})


def test_images_are_cut_at_random_in_training_and_in_the_middle_in_testing():
    parts = [recipe.some_part(CONFIG, RECORD, np.random.default_rng(seed)) for seed in range(3)]
    assert len({part["image"].tobytes() for part in parts}) == 3
    for record in (*parts, recipe.whole(CONFIG, RECORD)):
        assert record.keys() == {"image", "label"}
        assert record["image"].shape == (8, 8, 3)
    for record in (recipe.some_part(TINY, RECORD, np.random.default_rng(0)), recipe.whole(TINY, RECORD)):
        np.testing.assert_array_equal(record["image"], RECORD["image"])


def test_the_picture_is_red_where_attention_is():
    images, attention = np.full((2, 8, 8, 1), 100, np.uint8), np.zeros((2, 2, 2), np.float32)
    attention[0, 0, 1], attention[1, 1, 0] = 0.5, 0.02
    (sheet,) = recipe.draw({"attention": attention}, {"image": images}).values()
    scale = 9
    side = 8 * scale
    for i, (row, column) in enumerate([(0, 1), (1, 0)]):
        left = 2 + i * (2 * side + 2)
        image, seen = sheet[2 : 2 + side, left : left + side], sheet[2 : 2 + side, left + side : left + 2 * side]
        assert (image == 100).all()
        red = seen[..., 0].astype(int) - seen[..., 1] > 100
        expected = np.zeros((2, 2), bool)
        expected[row, column] = True
        np.testing.assert_array_equal(red, expected.repeat(side // 2, axis=0).repeat(side // 2, axis=1))
