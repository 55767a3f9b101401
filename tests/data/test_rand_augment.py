"""RandAugment: each change against a formula in NumPy, rotation against scikit-image's."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.transform import rotate

from seqjax.data.pipeline import train_batches
from seqjax.data.rand_augment import OPERATIONS, rand_augment
from seqjax.errors import InputError

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(30, 200, (24, 20, 3), np.uint8)
GREY = IMAGE[..., :1]
GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
EITHER = pytest.mark.parametrize("image", [IMAGE, GREY], ids=["colour", "grey"])


class Positive(np.random.Generator):
    """A generator whose signs are all +, and whose places are as said."""

    def __init__(self, *places):
        super().__init__(np.random.PCG64(0))
        self.places = iter(places)

    def random(self):
        return 0.0

    def integers(self, high, size=None):
        return next(self.places)


def changed(name, image, magnitude, *places):
    """The image after one change."""
    rng = Positive(np.array([list(OPERATIONS).index(name)]), *places)
    return rand_augment({"image": image}, rng, keys=["image"], changes=1, magnitude=magnitude)["image"]


def luma(image):
    """ITU-R 601-2, rounded; a grey image is its own."""
    return np.rint(image @ [0.299, 0.587, 0.114])[..., None] if image.shape[-1] == 3 else image.astype(float)


def mixed(without, image, magnitude):
    factor = 0.1 + 0.18 * magnitude
    return np.clip(without + factor * (image.astype(float) - without), 0, 255)


def smooth(image):
    """The mean of nine pixels, of which the middle one counts five times; the edge as it is."""
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]])[..., None] / 13
    inside = ndimage.convolve(image.astype(float), kernel)[1:-1, 1:-1]
    found = image.astype(float)
    found[1:-1, 1:-1] = np.floor(inside + 0.5)
    return found


def equalized(image):
    """Every channel by its cumulated histogram."""
    found = np.zeros_like(image)
    for c in range(image.shape[-1]):
        counts = np.bincount(image[..., c].ravel(), minlength=256)
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        below = np.concatenate([[0], np.cumsum(counts)[:-1]])
        found[..., c] = np.minimum((step // 2 + below) // step, 255)[image[..., c]]
    return found


def stretched(image):
    low, high = (f(axis=(0, 1), keepdims=True).astype(float) for f in (image.min, image.max))
    return (image - low) / (high - low) * 255


def moved(image, source):
    """Every pixel from the one that its middle comes from."""
    found = np.full_like(image, 128)
    height, width, _ = image.shape
    for row in range(height):
        for column in range(width):
            y, x = (int(np.floor(p)) for p in source(row + 0.5, column + 0.5))
            if 0 <= y < height and 0 <= x < width:
                found[row, column] = image[y, x]
    return found


EXACT = {
    "Invert": lambda image, m: 255 - image,
    "Posterize": lambda image, m: image // 2 ** (8 - int(0.4 * m)) * 2 ** (8 - int(0.4 * m)),
    "Solarize": lambda image, m: np.where(image < int(25.6 * m), image, 255 - image),
    "SolarizeAdd": lambda image, m: np.where(image < 128, image + int(11 * m), image),
    "ShearX": lambda image, m: moved(image, lambda y, x: (y, x + 0.03 * m * y)),
    "ShearY": lambda image, m: moved(image, lambda y, x: (y + 0.03 * m * x, x)),
    "TranslateX": lambda image, m: moved(image, lambda y, x: (y, x + 10 * m)),
    "TranslateY": lambda image, m: moved(image, lambda y, x: (y + 10 * m, x)),
    "Rotate": lambda image, m: rotate(image, 3 * m, order=0, cval=128, preserve_range=True),
}
ROUNDED = {
    "AutoContrast": lambda image, m: stretched(image),
    "Color": lambda image, m: mixed(luma(image), image, m),
    "Contrast": lambda image, m: mixed(np.floor(luma(image).mean() + 0.5), image, m),
    "Brightness": lambda image, m: mixed(0.0, image, m),
    "Sharpness": lambda image, m: mixed(smooth(image), image, m),
}


@EITHER
@pytest.mark.parametrize("magnitude", [0.7, 7.0])
@pytest.mark.parametrize("name", EXACT)
def test_changes_of_whole_numbers_and_of_places(name, magnitude, image):
    expected = EXACT[name](image.astype(int), magnitude)
    found = changed(name, image, magnitude)
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@EITHER
@pytest.mark.parametrize("magnitude", [3.0, 8.0])
@pytest.mark.parametrize("name", ROUNDED)
def test_changes_of_fractions_are_cut_to_whole_numbers(name, magnitude, image):
    expected = ROUNDED[name](image, magnitude)
    found = changed(name, image, magnitude)
    assert np.abs(found - expected).max() < 1 + 1e-6


@EITHER
def test_equalising(image):
    large = np.tile(image, (5, 5, 1))
    np.testing.assert_array_equal(changed("Equalize", large, 3.0), equalized(large))


@EITHER
@pytest.mark.parametrize(("row", "column"), [(10, 9), (1, 19)])
def test_cutout_is_a_grey_square_as_far_as_there_is_an_image(row, column, image):
    found = changed("Cutout", image, 1.0, row, column)
    expected = image.copy()
    expected[max(0, row - 4) : row + 4, max(0, column - 4) : column + 4] = 128
    np.testing.assert_array_equal(found, expected)


def test_every_change_is_tested():
    assert {*EXACT, *ROUNDED, "Equalize", "Cutout"} == {*OPERATIONS}


@EITHER
@pytest.mark.parametrize("name", GEOMETRIC)
def test_nothing_moves_at_magnitude_0_and_signs_are_drawn_beyond(name, image):
    np.testing.assert_array_equal(changed(name, image, 0.0), image)
    operation = OPERATIONS[name]
    picture = Image.fromarray(image.squeeze())
    found = {operation(picture, 0.1, np.random.default_rng(seed)).tobytes() for seed in range(8)}
    assert len(found) == 2


@EITHER
def test_factors_of_one_change_nothing(image):
    for name in ("Color", "Contrast", "Brightness", "Sharpness"):
        np.testing.assert_array_equal(changed(name, image, 5.0), image)


def test_changes_follow_the_generator_and_come_from_all():
    def drawn(seed, **options):
        record = {"image": IMAGE, "label": np.asarray(3)}
        return rand_augment(record, np.random.default_rng(seed), keys=["image"], **options)

    assert drawn(0)["label"] == 3
    np.testing.assert_array_equal(drawn(5)["image"], drawn(5)["image"])
    assert len({drawn(seed, magnitude=2.0)["image"].tobytes() for seed in range(40)}) > 30
    single = {drawn(seed, changes=1, magnitude=3.0)["image"].tobytes() for seed in range(400)}
    signed_and_cut = {name: 2 if name in GEOMETRIC else 1 for name in OPERATIONS if name != "Cutout"}
    assert len(single) >= sum(signed_and_cut.values())
    assert drawn(0, changes=0)["image"] is IMAGE


def test_a_batch_is_the_same_for_the_same_seed():
    source = [{"image": IMAGE + np.uint8(i)} for i in range(6)]

    def batch(seed):
        augment = lambda record, rng: rand_augment(record, rng, keys=["image"])  # noqa: E731
        return next(train_batches(source, batch_size=4, seed=seed, augment=augment))["image"]

    np.testing.assert_array_equal(batch(1), batch(1))
    assert (batch(1) != batch(2)).any()


@pytest.mark.parametrize(
    ("record", "options", "named"),
    [
        ({"image": IMAGE.astype(np.float32)}, {}, r"float32\[24, 20, 3\]"),
        ({"image": IMAGE[..., :2]}, {}, r"uint8\[24, 20, 2\]"),
        ({"label": np.asarray(0)}, {}, "no image 'image'"),
        ({"image": IMAGE}, {"changes": -1}, "changes=-1"),
        ({"image": IMAGE}, {"magnitude": 31.0}, "magnitude=31.0"),
    ],
)
def test_what_cannot_be_changed_is_refused(record, options, named):
    with pytest.raises(InputError, match=named):
        rand_augment(record, np.random.default_rng(0), keys=["image"], **options)
