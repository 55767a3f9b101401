"""Images with captions as a captioner reads them, from scenes and from a set of several sizes."""

import dataclasses

import numpy as np
import pytest

from seqjax.data.captions import (
    Captioned,
    captioned,
    choice,
    first_caption,
    gallery,
    open_split,
    references,
    vocabulary,
)
from seqjax.data.pipeline import train_batches
from seqjax.data.text import CAPTIONS, Vocabulary, texts


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Captioned(config="tiny", data_dir=str(tmp_path_factory.mktemp("data")))


def test_scenes_in_words_and_back(data):
    known, written = vocabulary(data, 40), open_split(data, "train")
    source = captioned(data, written, known, 14)
    known_texts = references(written)
    assert source[0].keys() == {"image", "captions", "index", "boxes"}
    for i in range(len(source)):
        said = [CAPTIONS.join(known.decode(ids)) for ids in source[i]["captions"]]
        assert said == texts(written[i]["captions"])
        assert known_texts[i] == [text.split() for text in said]
        np.testing.assert_array_equal(source[i]["image"], written[i]["image"])


@pytest.mark.parametrize("said", ["first", "any"])
def test_each_image_has_one_caption_in_a_batch(data, said):
    data = dataclasses.replace(data, said=said)
    source = captioned(data, open_split(data, "train"), vocabulary(data, 40), 14)
    batch = next(train_batches(source, batch_size=64, seed=0, **choice(data)))
    assert batch["captions"].shape == (64, 14)
    rows = {int(source[i]["index"]): source[i]["captions"] for i in range(64)}
    places = [
        np.flatnonzero((rows[int(index)] == ids).all(axis=1))[0]
        for index, ids in zip(batch["index"], batch["captions"], strict=True)
    ]
    assert set(places) == ({0} if said == "first" else set(range(5)))


@pytest.mark.parametrize(("said", "own"), [("first", 1), ("any", 3)])
def test_a_gallery_knows_which_captions_are_right(said, own):
    """The first captions of 7 and 4 are one text, and the second of 4 is the first of 9; the fourth image is left."""
    told = {7: ("a b", "c", "d"), 4: ("a b", "e", "f"), 9: ("e", "g", "h"), 5: ("a b", "c", "e")}
    written = [
        {"image": np.full((2, 2, 3), number, np.uint8), "captions": np.array(texts, object), "index": np.int64(number)}
        for number, texts in told.items()
    ]
    data, known = Captioned(said=said, ranked=3), Vocabulary(tuple("abcdefgh"), (1,) * 8)
    found = gallery(data, written, captioned(data, written, known, 5))
    assert [int(image["index"]) for image in found.images] == [7, 4, 9]
    expected = [text for number in (7, 4, 9) for text in told[number][:own]]
    assert [" ".join(known.decode(ids)) for ids in found.captions] == expected
    assert list(found.right) == [7, 4, 9]
    for number, right in found.right.items():
        assert right.tolist() == [text in told[number] for text in expected]


def test_images_of_any_size_and_number_of_captions():
    """As karpathy_captions and coco_captions have them, here without files."""
    records = [
        {
            "image": np.full((6 + i, 5, 3), i, np.uint8),
            "captions": np.array([f"a b{k}".encode() for k in range(4 + i)], object),
            "index": np.asarray(9 + i),
            "objects/bbox": np.zeros((i, 4)),
        }
        for i in range(3)
    ]
    data = Captioned(side=4, in_memory=False)
    source = captioned(data, records, Vocabulary(("a",), (1,)), 6)
    for i in range(3):
        assert first_caption(source[i]).keys() == {"image", "captions", "index"}
        assert source[i]["image"].shape == (4, 4, 3)
        assert source[i]["captions"].shape == (4 + i, 6)
    assert {number: len(found) for number, found in references(records).items()} == {9: 4, 10: 5, 11: 5}
