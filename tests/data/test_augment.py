import functools
from itertools import islice

import numpy as np
import pytest

from seqjax.data.augment import (
    PAIRED,
    UNPAIRED,
    clips_throughout,
    crop_somewhere,
    first_frames,
    frames_somewhere,
    jitter,
    middle,
    middle_patch,
    patch_somewhere,
    resize,
    scaled_somewhere,
)
from seqjax.data.pipeline import train_batches
from seqjax.errors import InputError


def map_of(size: int, dtype=np.uint8) -> np.ndarray:
    """An image whose pixels say where they are."""
    return np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), axis=-1).astype(dtype)


def place(part: np.ndarray) -> tuple[int, int, bool]:
    """Top, left and whether mirrored, of a part of the map."""
    mirrored = bool(part[0, 0, 1] > part[0, -1, 1])
    return int(part[0, 0, 0]), int(part[0, -1 if mirrored else 0, 1]), mirrored


def drawn(seed: int, together=PAIRED, **options) -> dict[str, np.ndarray]:
    record = {key: map_of(12) for group in together for key in group} | {"label": np.asarray(3)}
    return jitter(record, np.random.default_rng(seed), together=together, load=12, crop=9, **options)


def bicubic(before: int, after: int) -> np.ndarray:
    """Weights [after, before] of Keys' kernel, a = -1/2, as wide as the pixels of the smaller image."""
    wide = max(before / after, 1)
    x = np.abs(((np.arange(after) + 0.5) * before / after - 0.5)[:, None] - np.arange(before)) / wide
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [23, 16, 9])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resizing_against_a_matrix_product(size, dtype):
    values = np.random.default_rng(0).uniform(60, 180, (16, 14, 4)).astype(dtype)
    image = resize({"x": values}, keys=["x"], size=size)["x"]
    expected = np.einsum("yh,hwc,xw->yxc", bicubic(16, size), values.astype(float), bicubic(14, size))
    assert image.dtype == dtype
    assert np.abs(image - expected).max() < (1.1 if dtype == np.uint8 else 1e-3)  # uint8: rounded after each direction


def test_labels_are_not_mixed():
    labels = np.where(map_of(8)[..., :1] < 4, np.uint8(7), np.uint8(200))
    record = {"input": labels, "target": labels}
    resized = resize(record, keys=["input", "target"], size=13, nearest=["input"])
    assert set(np.unique(resized["input"])) == {7, 200}
    assert len(np.unique(resized["target"])) > 2


def test_a_part_of_the_resized_image_or_its_mirror_image():
    whole = map_of(12)
    for seed in range(50):
        part = drawn(seed)["input"]
        top, left, mirrored = place(part)
        expected = whole[top : top + 9, left : left + 9]
        np.testing.assert_array_equal(part, expected[:, ::-1] if mirrored else expected)


def test_images_of_a_pair_change_alike_and_others_on_their_own():
    alike = 0
    for seed in range(100):
        pair, two = drawn(seed), drawn(seed, UNPAIRED)
        assert place(pair["input"]) == place(pair["target"])
        assert pair["label"] == 3
        alike += place(two["a"]) == place(two["b"])
    assert alike < 15  # by chance one in 32


def test_every_place_is_as_likely():
    """Four tops, four lefts, two sides, 2,000 draws: within five standard errors of a 32nd each."""
    rng = np.random.default_rng(0)
    record = {"x": map_of(12)}
    places = [place(jitter(record, rng, together=[["x"]], load=12, crop=9)["x"]) for _ in range(2000)]
    counts = [places.count(which) for which in set(places)]
    assert len(counts) == 32
    assert max(abs(count - 62.5) for count in counts) < 5 * np.sqrt(62.5)


def test_without_mirroring():
    assert not any(place(drawn(seed, flip=False)["input"])[2] for seed in range(30))


@pytest.mark.parametrize("process_count", [1, 2, 4])
@pytest.mark.parametrize("start", [0, 5])
def test_crops_depend_on_seed_and_step_alone(process_count, start):
    """A run that goes on, and any number of processes, draw the same; each epoch draws anew."""
    source = [{"input": map_of(12), "target": map_of(12), "number": np.asarray(i)} for i in range(6)]
    augment = functools.partial(jitter, together=PAIRED, load=14, crop=9)
    whole = list(islice(train_batches(source, batch_size=4, seed=1, augment=augment), 9))
    options = {"batch_size": 4, "augment": augment, "start_step": start, "process_count": process_count}
    shares = [
        list(islice(train_batches(source, seed=1, process_index=p, **options), 9 - start)) for p in range(process_count)
    ]
    for parts, expected in zip(zip(*shares, strict=True), whole[start:], strict=True):
        for key in expected:
            np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), expected[key])
    first = np.concatenate([batch["input"][batch["number"] == 0] for batch in whole])
    assert len(np.unique(first, axis=0)) > 3
    other = next(train_batches(source, batch_size=4, seed=2, augment=augment))
    assert not np.array_equal(other["input"], whole[0]["input"])


@pytest.mark.parametrize(
    ("record", "options", "words"),
    [
        ({}, {"crop": 13}, ["crop=13", "load=12"]),
        ({}, {"crop": 0}, ["crop=0"]),
        ({"video": np.zeros((2, 4, 4, 1), np.uint8)}, {}, ["'input'", "'video': 'uint8[2, 4, 4, 1]'"]),
        ({"input": np.zeros((4, 4), np.uint8)}, {}, ["'input': 'uint8[4, 4]'", "[H, W, C]"]),
        ({"input": np.zeros((4, 4, 3))}, {}, ["float64[4, 4, 3]"]),
    ],
)
def test_what_cannot_be_jittered(record, options, words):
    with pytest.raises(InputError) as caught:
        jitter(record, np.random.default_rng(0), together=PAIRED, **({"load": 12, "crop": 9} | options))
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (6, 6)])
def test_the_middle_square(shape):
    """Rows and columns that are left out weigh the same on both sides."""
    image = np.zeros((*shape, 1), np.uint8)
    top, left = ((n - 6) // 2 for n in shape)
    image[top : top + 6, left : left + 6] = np.arange(36, dtype=np.uint8).reshape(6, 6, 1)
    record = middle({"image": image, "label": np.int64(3)}, keys=("image",), size=6)
    np.testing.assert_array_equal(record["image"][..., 0], np.arange(36).reshape(6, 6))
    assert record["label"] == 3
    assert middle({"image": image}, keys=("image",), size=3)["image"].shape == (3, 3, 1)


def parts(shape, number, **options):
    """Where the corners of parts were, read from maps of rows and columns in shares of the image."""
    rows, columns = np.meshgrid(*((np.arange(n, dtype=np.float32) + 0.5) / n for n in shape), indexing="ij")
    found = []
    for seed in range(number):
        record = {"image": np.stack([rows, columns], axis=-1), "label": np.asarray(3)}
        part = crop_somewhere(record, np.random.default_rng(seed), keys=("image",), size=8, **options)
        assert part["label"] == 3
        assert part["image"].shape == (8, 8, 2)
        found.append(part["image"])
    return np.stack(found)


def test_random_parts_have_random_areas_and_shapes():
    """Their sides from the slopes of the maps: areas evenly from 0.2 to 1, widths 3/4 to 4/3 of heights, all over."""
    found = parts((120, 120), 400, least=0.2)
    height = (found[:, 5, 4, 0] - found[:, 2, 4, 0]) * 8 / 3
    width = (found[:, 4, 5, 1] - found[:, 4, 2, 1]) * 8 / 3
    mirrored, width = width < 0, np.abs(width)
    assert mirrored.mean() == pytest.approx(0.5, abs=0.08)
    areas, shapes = height * width, np.log(width / height)
    assert areas.min() > 0.19
    assert 0.9 < areas.max() < 1.01
    assert np.abs(shapes).max() == pytest.approx(np.log(4 / 3), abs=0.04)
    small = areas < 0.5  # all shapes fit, so areas are even here
    assert (areas[small] < 0.35).mean() == pytest.approx(0.5, abs=0.1)
    middles = found[small][:, 3:5, 3:5].mean(axis=(1, 2))
    assert middles.min() < 0.37
    assert middles.max() > 0.63


def test_where_no_part_fits_the_middle_is_taken():
    found = parts((10, 400), 3, least=0.9)
    np.testing.assert_allclose(found[:, :, :, 1].mean(axis=(1, 2)), 0.5, atol=1e-3)
    assert np.ptp(found[:, 4, :, 1], axis=1).max() < 10 / 400
    with pytest.raises(InputError, match="least=0"):
        parts((10, 10), 1, least=0.0)


def clip_of_places(frames: int, height: int, width: int) -> np.ndarray:
    """A clip whose pixels say when and where they are."""
    return np.stack(np.meshgrid(*map(np.arange, (frames, height, width)), indexing="ij"), axis=-1).astype(np.uint8)


def test_a_patch_is_one_place_in_consecutive_frames():
    clip = clip_of_places(6, 9, 12)
    corners = set()
    for seed in range(300):
        record = {"video": clip, "label": np.asarray(3)}
        found = patch_somewhere(record, np.random.default_rng(seed), frames=4, size=8)
        assert found.keys() == {"video"}
        t, y, x = found["video"][0, 0, 0]
        np.testing.assert_array_equal(found["video"], clip[t : t + 4, y : y + 8, x : x + 8])
        corners.add((int(t), int(y), int(x)))
    assert corners == {(t, y, x) for t in range(3) for y in range(2) for x in range(5)}


def test_for_evaluation_it_is_the_middle_of_the_first_spaced_frames():
    clip = clip_of_places(6, 9, 12)
    found = middle_patch({"video": clip, "label": np.asarray(3)}, frames=4, size=8)
    assert found.keys() == {"video"}
    np.testing.assert_array_equal(found["video"], clip[:4, :8, 2:10])


def test_a_clip_may_be_its_own_patch():
    record = {"video": clip_of_places(4, 8, 8)}
    np.testing.assert_array_equal(middle_patch(record, frames=4, size=8)["video"], record["video"])
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(patch_somewhere(record, rng, frames=4, size=8)["video"], record["video"])


def test_scaled_parts_are_one_place_in_consecutive_frames():
    """Heights and widths are drawn apart; what comes out at their own size is the clip itself, or its mirror image."""
    clip, seen = clip_of_places(6, 9, 12), set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        found = scaled_somewhere({"video": clip, "label": np.asarray(3)}, rng, frames=4, sides=(8, 6), size=8)
        video = found["video"].astype(int)
        assert found["label"] == 3
        assert video.shape == (4, 8, 8, 3)
        mirrored = video[0, 0, 0, 2] > video[0, 0, -1, 2]
        video = video[:, :, ::-1] if mirrored else video
        rows, columns = np.ptp(video[0, :, 0, 1]) + 1, np.ptp(video[0, 0, :, 2]) + 1
        seen.add((bool(mirrored), int(rows), int(columns)))
        t, y, x = video[0, 0, 0]
        assert (np.diff(video, axis=0) == (1, 0, 0)).all()
        if (rows, columns) == (8, 8):
            np.testing.assert_array_equal(video, clip[t : t + 4, y : y + 8, x : x + 8])
    assert seen == {(m, h, w) for m in (False, True) for h in (8, 6) for w in (8, 6)}
    options = {"frames": 4, "sides": (8,), "size": 8}
    straight = [
        scaled_somewhere({"video": clip}, np.random.default_rng(seed), flip=False, **options)["video"]
        for seed in range(30)
    ]
    assert all((np.diff(video[0, 0, :, 2].astype(int)) == 1).all() for video in straight)


def test_clips_are_spread_evenly_over_a_longer_one():
    clip = clip_of_places(9, 9, 12)
    found = clips_throughout({"video": clip, "label": np.asarray(3)}, frames=3, size=8, count=4)
    assert found["label"] == 3
    for video, start in zip(found["video"], (0, 2, 4, 6), strict=True):
        np.testing.assert_array_equal(video, clip[start : start + 3, :8, 2:10])
    (one,) = clips_throughout({"video": clip}, frames=3, size=8, count=1)["video"]
    np.testing.assert_array_equal(one, clip[:3, :8, 2:10])


@pytest.mark.parametrize("options", [{"frames": 7, "size": 8}, {"frames": 4, "size": 10}])
def test_a_clip_without_such_a_patch_is_described(options):
    record = {"video": clip_of_places(6, 9, 12)}
    given = f"frames={options['frames']}, size={options['size']}: a clip of 6 frames of 9x12"
    with pytest.raises(InputError, match=given):
        middle_patch(record, **options)
    with pytest.raises(InputError, match=given):
        patch_somewhere(record, np.random.default_rng(0), **options)
    with pytest.raises(InputError, match=given):
        clips_throughout(record, count=2, **options)
    with pytest.raises(InputError, match="frames=4, size=13: a clip of 6 frames of 9x12"):
        scaled_somewhere(record, np.random.default_rng(0), frames=4, sides=(13,), size=8)


def test_frames_from_anywhere_evenly_apart_all_mirrored_alike():
    video = np.broadcast_to(np.arange(12, dtype=np.uint8)[:, None, None, None], (12, 2, 3, 1)).copy()
    video[:, :, :, 0] += np.array([0, 100, 200], np.uint8)  # columns
    record, starts = {"video": video, "label": np.asarray(3)}, set()
    for seed in range(60):
        found = frames_somewhere(record, np.random.default_rng(seed), frames=4, every=3, flip=True)
        assert found["label"] == 3
        frames = found["video"][..., 0]
        mirrored = bool(frames[0, 0, 0] > frames[0, 0, 2])
        straight = frames[:, :, ::-1] if mirrored else frames
        start = int(straight[0, 0, 0])
        np.testing.assert_array_equal(straight, video[start : start + 10 : 3, ..., 0])
        starts.add((start, mirrored))
    assert starts == {(start, mirrored) for start in range(3) for mirrored in (False, True)}


def test_frames_without_a_mirror_and_the_first_ones():
    video = np.random.default_rng(0).integers(0, 256, (6, 2, 3, 1), np.uint8)
    for seed in range(9):
        record = frames_somewhere({"video": video}, np.random.default_rng(seed), frames=6)
        np.testing.assert_array_equal(record["video"], video)
    np.testing.assert_array_equal(first_frames({"video": video}, frames=4)["video"], video[:4])
    np.testing.assert_array_equal(first_frames({"video": video}, frames=2, every=5)["video"], video[::5])


def test_a_clip_of_too_few_frames_is_described():
    record = {"video": np.zeros((9, 1, 1, 1), np.uint8)}
    with pytest.raises(InputError, match="frames=4, every=3: a clip of 9 frames"):
        first_frames(record, frames=4, every=3)
    with pytest.raises(InputError, match="a clip of 9 frames is shorter"):
        frames_somewhere(record, np.random.default_rng(0), frames=10)
