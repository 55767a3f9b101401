"""seqjax.train.media: pictures and videos, read back with Pillow (the oracle for both formats)."""

import inspect
import io

import numpy as np
import pytest
from PIL import Image, ImageSequence
from sklearn.datasets import load_digits, load_sample_image

from seqjax.errors import InputError
from seqjax.train import media


def moving_digits(n=2, frames=4, size=16, channels=1):
    """Handwritten digits, drifting to the right and wrapping."""
    digits = np.uint8(load_digits().images[:n] * 15)
    still = np.pad(digits, [(0, 0), (4, size - 12), (4, size - 12)])
    video = np.stack([np.roll(still, t, axis=2) for t in range(frames)], 1)
    return np.repeat(video[..., None], channels, -1)


def frames_of(content, mode):
    picture = Image.open(io.BytesIO(content))
    return np.stack([np.asarray(frame.convert(mode)) for frame in ImageSequence.Iterator(picture)])


@pytest.mark.parametrize(("n", "columns", "shape"), [(6, None, (2, 3)), (6, 4, (2, 4)), (3, 8, (1, 3))])
def test_grid_holds_every_image_in_reading_order(n, columns, shape):
    images = np.random.default_rng(0).integers(0, 256, (n, 6, 5, 3), np.uint8)
    sheet = media.grid(images, columns, padding=1)
    assert sheet.shape == (shape[0] * 7 + 1, shape[1] * 6 + 1, 3)
    for i, image in enumerate(images):
        y, x = 1 + i // shape[1] * 7, 1 + i % shape[1] * 6
        np.testing.assert_array_equal(sheet[y : y + 6, x : x + 5], image)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_exact(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (7, 5, channels), np.uint8)
    media.write_png(tmp_path / "new" / "a.png", image)
    with Image.open(tmp_path / "new" / "a.png") as picture:
        read = np.asarray(picture)
    np.testing.assert_array_equal(read.reshape(image.shape), image)


def test_gif_of_grey_video_is_exact_and_enlarged(tmp_path):
    video = moving_digits()[0]
    media.write_gif(tmp_path / "a.gif", video, fps=10, scale=3)
    content = (tmp_path / "a.gif").read_bytes()
    read = frames_of(content, "L")
    np.testing.assert_array_equal(read, np.kron(video[..., 0], np.ones((1, 3, 3), np.uint8)))
    picture = Image.open(io.BytesIO(content))
    assert picture.info["loop"] == 0
    assert [f.info["duration"] for f in ImageSequence.Iterator(picture)] == [100, 100, 100, 600]


def test_gif_keeps_few_colours_exactly_and_many_nearly():
    rng = np.random.default_rng(0)
    few = rng.integers(0, 256, (200, 3), np.uint8)[rng.integers(0, 200, (3, 16, 16))]
    np.testing.assert_array_equal(frames_of(media.encode_gif(few), "RGB"), few)
    many = load_sample_image("china.jpg")[None, :128, :128]
    assert np.abs(frames_of(media.encode_gif(many), "RGB").astype(int) - many).max() < 32


def test_columns_play_in_their_turn():
    seen, future = moving_digits(frames=3), moving_digits(frames=5)[:, 3:]
    videos = {"context": seen, "truth": future, "prediction": future // 2}
    sheet = media.side_by_side(videos, starts={"truth": 3, "prediction": 3}, scale=2, gap=4)
    assert sheet.shape[0] == 5
    cells = sheet[:, -2 * 36 :, 4:].reshape(5, 2, 36, 3, 36, 1)[:, :, :32, :, :32][:, :, ::2, :, ::2]
    context, truth, prediction = (cells[:, :, :, i].swapaxes(0, 1) for i in range(3))
    np.testing.assert_array_equal(context[:, :3], seen)
    np.testing.assert_array_equal(context[:, 3:], seen[:, [2, 2]])
    np.testing.assert_array_equal(truth[:, 3:], future)
    np.testing.assert_array_equal(prediction[:, 3:], future // 2)
    assert np.ptp(truth[:, :3]) == np.ptp(prediction[:, :3]) == 0


def test_every_column_is_labelled_and_colour_stays():
    video = moving_digits(channels=3)
    sheet = media.side_by_side({"truth": video, "": video}, gap=4)
    assert sheet.shape[1:] == (18 + 4 + 2 * 100, 2 * 100 + 4, 3)
    header = sheet[:, :22]
    assert header[:, :, :104].max() > 150
    assert np.ptp(header[:, :, 104:]) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: inspect.unwrap(media.encode_gif)(np.zeros((2, 4, 4, 1), np.float32)), "float32"),
        (lambda: inspect.unwrap(media.write_png)("a.png", np.zeros((4, 4), np.uint8)), r"uint8\[4, 4\]"),
        (lambda: inspect.unwrap(media.grid)([[1.0]]), "list"),
        (lambda: media.grid(np.zeros((0, 4, 4, 1), np.uint8)), "no empty"),
        (lambda: media.grid(np.zeros((2, 4, 4, 2), np.uint8)), "1 or 3 channels"),
        (lambda: media.encode_gif(np.zeros((2, 4, 4, 1), np.uint8), fps=100), "fps: got 100"),
        (lambda: media.side_by_side({"a": moving_digits(1), "b": moving_digits(2)}), "must agree in N"),
    ],
)
def test_what_is_not_a_picture_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_folder_that_cannot_be_is_explained(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"file/a\.png cannot be written"):
        media.write_png(tmp_path / "file" / "a.png", np.zeros((2, 2, 1), np.uint8))


def test_sheet_has_a_column_for_each_name_and_grey_beside_colour():
    grey, colour = np.full((2, 96, 96, 1), 200, np.uint8), np.full((2, 96, 96, 3), (10, 20, 30), np.uint8)
    sheet = media.sheet({"input": grey, "target": colour})
    bottom = sheet[-4 - 96 : -4]
    np.testing.assert_array_equal(bottom[:, 4:100], np.full((96, 96, 3), 200))
    np.testing.assert_array_equal(bottom[:, 104:200], np.broadcast_to((10, 20, 30), (96, 96, 3)))


def test_two_ways_are_a_sheet_each():
    real = {domain: np.full((1, 96, 96, 1), value, np.uint8) for domain, value in (("a", 0), ("b", 255))}
    outputs = {name: np.full((1, 96, 96, 1), x, np.float32) for name, x in (("a", 0.0), ("b", 2.0), ("cycle_a", -3.0))}
    sheets = media.two_ways(outputs | {"cycle_b": outputs["a"]}, real)
    middles = {name: [int(sheet[-50, 50 + 100 * column, 0]) for column in range(3)] for name, sheet in sheets.items()}
    assert middles == {"a_to_b": [0, 255, 0], "b_to_a": [255, 128, 128]}


def test_outline_is_the_edge_of_a_box_and_nothing_else():
    images = np.random.default_rng(0).integers(0, 200, (2, 9, 11, 3), np.uint8)
    drawn = media.outline(images, np.array([[2.0, 1, 7, 6], [-3, 4, 5, 20]]), (0, 255, 9))
    edge = np.zeros((2, 9, 11), bool)
    edge[0, [1, 5], 2:7] = edge[0, 1:6, 2] = edge[0, 1:6, 6] = True
    edge[1, 4, :5] = edge[1, 4:, 4] = True
    np.testing.assert_array_equal(drawn[edge], np.broadcast_to([0, 255, 9], (edge.sum(), 3)))
    np.testing.assert_array_equal(drawn[~edge], images[~edge])


def test_outlined_images_are_enlarged_and_coloured():
    """Pixels of 48 x 48, in a frame of two; a box of one pixel is the edge of its square, its middle as it was."""
    images = np.full((2, 2, 2, 1), 90, np.uint8)
    boxes = {
        (0, 0, 255): np.array([[0.0, 0, 2, 2], [0, 0, 1, 1]]),
        (255, 0, 0): np.array([[1.0, 0, 2, 1], [1, 1, 2, 2]]),
    }
    drawn = media.outlined(images, boxes)
    assert drawn.shape == (100, 198, 3)
    first, second = drawn[2:98, 2:98], drawn[2:98, 100:196]
    red, blue = [255, 0, 0], [0, 0, 255]
    assert first[0, 47].tolist() == blue
    assert first[0, 48].tolist() == first[47, 95].tolist() == red
    assert second[0, 47].tolist() == second[47, 0].tolist() == blue
    assert second[48, 95].tolist() == red
    for shown in (first, second):
        assert {tuple(x) for x in shown.reshape(-1, 3)} == {(90, 90, 90), tuple(red), tuple(blue)}
    assert media.outlined(images, {}).shape == (100, 198, 3)


def test_skeletons_are_lines_between_the_middles_of_joints():
    """A limb from the middle of joints 0 and 1 down to joint 2, two pixels of each."""
    poses = np.array([[[[2.0, 3], [2, 5], [7, 4]]]])
    drawn = media.skeletons(poses, [(0, 1, 2, 2)], size=10, scale=4)
    assert drawn.shape == (1, 1, 40, 40, 3)
    lit = (drawn[0, 0] != drawn[0, 0, 0, 0]).any(axis=-1)
    rows, columns = np.nonzero(lit)
    np.testing.assert_allclose([rows.min(), rows.max()], [4 * 2.5, 4 * 7.5], atol=1)
    np.testing.assert_allclose([columns.min(), columns.max()], [4 * 4.5, 4 * 4.5], atol=1.5)
    assert len({tuple(pixel) for pixel in drawn[0, 0][lit]}) == 1
