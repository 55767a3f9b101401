"""What the DCGAN recipe does with sets of other images than its digits."""

import dataclasses

import numpy as np
import pytest

from experiments.generation import dcgan as recipe
from seqjax.errors import InputError

FACES = [{"image": np.full((30, 20, 3), 10 * i, np.uint8), "attributes": {"Bald": True}} for i in range(9)]
TINY = recipe.PRESETS["tiny"]
CONFIG = dataclasses.replace(TINY, references=7, data=dataclasses.replace(TINY.data, name="celeb_a", side=8))


def test_images_of_any_size_are_cut_to_squares_in_training_and_measuring():
    assert next(recipe.batches(CONFIG, FACES, 0))["image"].shape == (8, 8, 8, 3)
    real = recipe.arrays(CONFIG, FACES)
    assert real.keys() == {"image"}
    np.testing.assert_allclose(real["image"][:, 4, 4, 0], np.arange(7) * 10 / 127.5 - 1, rtol=1e-6)


def test_without_labels_it_wants_the_published_weights():
    real = recipe.arrays(CONFIG, FACES)
    with pytest.raises(InputError, match=r"celeb_a has no labels.*--inception"):
        recipe.feature_net(CONFIG, real, real)
    with pytest.raises(InputError, match=r"absent\.pth"):
        recipe.feature_net(dataclasses.replace(CONFIG, inception="absent.pth"), real, real)
