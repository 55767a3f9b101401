"""Frames out of files that are encoded here, against the frames that went in."""

import importlib.util
import sys

import numpy as np
import pytest
from data.videos import flat, noise, write
from PIL import Image

from seqjax.data.video_files import VIDEOS, by_number, cut, listed, read_pictures, read_video
from seqjax.errors import InputError


@pytest.mark.parametrize("name", ["a.avi", "b.mkv", "C.MKV"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_was_encoded_comes_out(tmp_path, name, channels):
    frames = noise(5, 8, 8, channels)
    write(tmp_path / name, frames)
    np.testing.assert_array_equal(read_video(tmp_path / name, size=8, channels=channels), frames)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("a.mpg", "mpeg2video")])
def test_codecs_with_loss(tmp_path, name, codec):
    """Levels within what such codecs lose, and within the rounding of video's narrower range."""
    frames = flat([40, 90, 140, 190], 32, 32)
    write(tmp_path / name, frames, codec=codec, pixels="yuv420p")
    video = read_video(tmp_path / name, size=32, channels=1)
    assert video.shape == (4, 32, 32, 1)
    assert np.abs(video.astype(int) - frames).max() <= 6


def test_grey_is_luma(tmp_path):
    """ITU-R BT.601, here in floating point."""
    frames = noise(2, 8, 8)
    write(tmp_path / "a.avi", frames)
    luma = frames @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_video(tmp_path / "a.avi", size=8, channels=1)[..., 0] - luma).max() <= 0.51


@pytest.mark.parametrize("square", [True, False])
def test_the_middle_square_or_the_whole(tmp_path, square):
    """Left third black, middle white, right grey: 24 x 8."""
    frames = np.repeat(np.array([0, 255, 128], np.uint8), 8)[None, None, :, None].repeat(8, 1).repeat(2, 0)
    write(tmp_path / "a.avi", frames)
    video = read_video(tmp_path / "a.avi", size=8, channels=1, square=square)
    assert video.shape == (2, 8, 8, 1)
    if square:
        assert (video == 255).all()
    else:
        expected = np.asarray(Image.fromarray(frames[0, ..., 0]).resize((8, 8), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(video[0, ..., 0], expected, atol=1)
        assert np.ptp(video) > 200


@pytest.mark.parametrize("content", [b"no video", b"", None])
def test_files_that_cannot_be_decoded(tmp_path, content):
    if content is None:  # an index, but nothing that it points to
        write(tmp_path / "whole.mp4", flat(range(9), 32, 32), codec="mpeg4", pixels="yuv420p")
        content = (tmp_path / "whole.mp4").read_bytes()[:-300]
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp4 cannot be read") as caught:
        read_video(tmp_path / "a.mp4", size=8, channels=1)
    assert "\n" not in str(caught.value)


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r'pip install "seqjax\[video\]"'):
        read_video(tmp_path / "a.avi", size=8, channels=1)
    assert importlib.util.find_spec("seqjax.data.video_files")


def test_pictures_are_frames_in_the_order_of_their_numbers(tmp_path):
    for level in (1, 2, 10, 100):
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(tmp_path / f"frame{level}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    video = read_pictures(tmp_path, size=4, channels=1)
    assert video.shape == (4, 4, 4, 1)
    assert video[:, 0, 0, 0].tolist() == [1, 2, 10, 100]
    (tmp_path / "frame3.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"frame3\.png cannot be read"):
        read_pictures(tmp_path, size=4, channels=1)


def test_pictures_of_a_palette_or_with_transparency_are_read_in_colour(tmp_path):
    red = Image.new("RGB", (8, 8), (250, 10, 20))
    red.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "1.png")
    red.convert("RGBA").save(tmp_path / "2.png")
    video = read_pictures(tmp_path, size=8, channels=3)
    assert (video == np.array([250, 10, 20])).all()


def test_cut_leaves_out_what_is_left():
    video = flat(range(11))
    assert [clip[:, 0, 0, 0].tolist() for clip in cut(video, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert not list(cut(video, 12))
    assert len(list(cut(video, 11))) == 1


def test_order_of_paths(tmp_path):
    names = ["clip10/a.avi", "clip2/a.avi", "clip2/b1.avi", "b.avi", "1.avi"]
    ordered = sorted((tmp_path / name for name in names), key=by_number)
    assert [path.relative_to(tmp_path).as_posix() for path in ordered] == [
        "1.avi", "b.avi", "clip2/a.avi", "clip2/b1.avi", "clip10/a.avi",
    ]  # fmt: skip
    assert all(ending == ending.lower() for ending in VIDEOS)


def test_lists_of_reasons():
    assert listed(["a", "b"]) == "a; b"
    assert listed(map(str, range(7)), most=2) == "0; 1; and 5 more"
