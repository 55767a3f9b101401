"""Pictures with words: what they show can be found again."""

import numpy as np

from seqjax.train.annotate import attended, captioned

RED, BLUE = np.array([255, 0, 0], np.uint8), np.array([0, 0, 255], np.uint8)


def pixels(picture, colour):
    return int((np.abs(picture.astype(int) - colour).max(axis=-1) <= 3).sum())


def test_images_stand_above_their_captions():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[1] = RED
    picture = captioned(images, ["a", "b", "c"], columns=2)
    assert picture.dtype == np.uint8
    rows, columns = np.nonzero(np.abs(picture.astype(int) - RED).max(axis=-1) <= 3)
    height, width, _ = picture.shape
    assert rows.max() < height / 2
    assert columns.min() > width / 2
    assert pixels(captioned(images, ["", "", ""], columns=2), 255) > pixels(picture, 255)  # words are ink


def test_the_place_of_most_attention_is_the_brightest():
    """One image, two words: the first looks at the left half alone, the second everywhere."""
    images = np.broadcast_to(BLUE, (1, 4, 4, 3))
    weights = np.zeros((1, 3, 1, 2))
    weights[0, 0] = [[0.6, 0.0]]
    weights[0, 1] = [[0.3, 0.3]]
    picture = attended(images, [["one", "two"]], weights)
    whole = pixels(attended(images, [[]], weights[:, :0]), BLUE)
    bright, dim = pixels(picture, BLUE), pixels(picture, BLUE // 5)
    assert whole > 0
    assert abs(bright / (bright + dim) - 2.5 / 3) < 0.03
