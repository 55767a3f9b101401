"""Utterances against what was said, read off the frames without the set's own code."""

import itertools

import numpy as np
import pytest

from seqjax.data import synthetic_speech
from seqjax.data.source import open_source
from seqjax.data.synthetic_speech import NAMED, NOISE, SOUNDS, SPLITS, SyntheticSpeechConfig, heard, timing, utter
from seqjax.errors import InputError


def runs(alignment):
    """(label, length) of what follows one another."""
    return [(int(label), len(list(frames))) for label, frames in itertools.groupby(alignment.tolist())]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    config = SyntheticSpeechConfig(shortest=2, longest=5, train=60, validation=4, test=4)
    directory = tmp_path_factory.mktemp("data")
    sources = {s: open_source("synthetic_speech", split=s, config=config, data_dir=directory) for s in SPLITS}
    return {split: [source[i] for i in range(len(source))] for split, source in sources.items()}


def test_frames_spell_the_labels(records):
    for i, record in enumerate(records["train"]):
        number, length = int(record["labels_length"]), int(record["length"])
        labels = record["labels"][:number].tolist()
        assert record["index"] == i
        assert record["features"].shape == (5 * 15 + 12, 24)
        assert record["features"].dtype == np.float32
        assert 2 <= number <= 5
        assert not record["labels"][number:].any()
        assert set(labels) <= set(range(1, 11))
        assert [label for label, _ in runs(record["alignment"][:length]) if label] == labels
        assert not record["alignment"][length:].any()
        assert not record["features"][length:].any()
        # What CTC asks: a frame for each label, and one more between equal ones.
        assert length >= number + sum(a == b for a, b in itertools.pairwise(labels))


def test_timing_is_as_described():
    """Sounds of 2 to 11 frames, pauses of 2 to 4 in a quarter of the places, silence of 2 to 6 at the ends and more at
    the end where a pause meets it."""
    rng, pauses, places = np.random.default_rng(0), 0, 0
    sounds, inner, first = set(), set(), set()
    for _ in range(400):
        labels = rng.integers(1, 11, 6)
        found = runs(timing(rng, labels))
        assert found[0][0] == found[-1][0] == 0
        first.add(found[0][1])
        sounds |= {length for label, length in found if label}
        inner |= {length for label, length in found[1:-1] if not label}
        assert [label for label, _ in found if label] == labels.tolist()
        for (a, _), (b, _) in itertools.pairwise(found[1:-1]):
            pauses += a and not b
            places += bool(a)
    assert (sounds, inner, first) == (set(range(2, 12)), {2, 3, 4}, set(range(2, 7)))
    assert pauses / places == pytest.approx(1 - 0.75 * 0.9, abs=0.04)  # one in ten is the same sound again


def test_a_sound_is_its_two_bumps():
    """The mean over speakers and noise against the bumps by themselves, a little blurred by the speakers' pitch."""
    rng = np.random.default_rng(0)
    for label, (c, w, h, c2, w2, h2) in enumerate(SOUNDS.values(), 1):
        alignment = np.array([0, 0] + [label] * 6 + [0, 0])
        mean = np.mean([heard(rng, alignment) for _ in range(300)], axis=0)
        bands = np.arange(24)
        expected = h * np.exp(-(((bands - c) / w) ** 2) / 2) + h2 * np.exp(-(((bands - c2) / w2) ** 2) / 2)
        np.testing.assert_allclose(mean[4:6].mean(axis=0), expected, atol=0.28)
        assert np.corrcoef(mean[4], expected)[0, 1] > 0.95
        np.testing.assert_allclose(mean[[0, -1]], 0, atol=0.04)
        np.testing.assert_allclose(mean[2].sum(), 2 / 3 * mean[4].sum(), rtol=0.1)  # rising over three frames


def test_sounds_run_into_each_other():
    """On the frame at the border the bumps lie between those of the two sounds; noise and speaker switched off."""

    class Silent(np.random.Generator):
        def normal(self, mean, deviation, size=None):
            return np.zeros(size or ())

    i, u = (list(SOUNDS).index(sound) + 1 for sound in "iu")
    frames = heard(Silent(np.random.PCG64()), np.array([i] * 5 + [u] * 5))
    peak = [int(frame[5:].argmax()) + 5 for frame in frames]
    assert peak == [18] * 4 + [15, 11] + [8] * 4  # 18, then 2/3 · 18 + 1/3 · 8, then 1/3 · 18 + 2/3 · 8, then 8


def test_noise_in_silence(records):
    quiet = np.concatenate([r["features"][:2] for r in records["train"]])[::2]
    assert quiet.std() == pytest.approx(NOISE, rel=0.06)
    assert abs(quiet.mean()) < 0.02


def test_sounds_are_told_apart_frame_by_frame_but_not_all(records):
    """By the nearest mean of the training frames: far better than chance, and not perfect, so there is something to
    learn from the neighbours."""

    def frames(split):
        x = np.concatenate([r["features"][: r["length"]] for r in records[split]])
        return x, np.concatenate([r["alignment"][: r["length"]] for r in records[split]])

    (x, y), (x_test, y_test) = frames("train"), frames("validation")
    means = np.stack([x[y == label].mean(axis=0) for label in range(11)])
    guess = np.square(x_test[:, None] - means).sum(axis=-1).argmin(axis=1)
    assert 0.7 < np.mean(guess == y_test) < 0.97


def test_utterances_depend_on_seed_split_and_place_alone(records, tmp_path):
    config = SyntheticSpeechConfig(shortest=2, longest=5, train=2, validation=1, test=1)
    again = open_source("synthetic_speech", split="train", config=config, data_dir=tmp_path)
    for key, value in records["train"][1].items():
        np.testing.assert_array_equal(again[1][key], value)
    other = SyntheticSpeechConfig(shortest=2, longest=5, train=2, validation=1, test=1, seed=1)
    source = open_source("synthetic_speech", split="train", config=other, data_dir=tmp_path)
    for different in (source[0], records["test"][0]):
        assert (different["features"] != records["train"][0]["features"]).any()


def test_an_utterance_of_ones_own():
    found = utter(np.random.default_rng(0), np.array([3, 3, 1]))
    assert found.features.shape == (len(found.alignment), 24)
    assert [label for label, _ in runs(found.alignment) if label] == [3, 3, 1]


@pytest.mark.parametrize("fields", [{"shortest": 0}, {"longest": 2}, {"train": 0}, {"seed": -1}, {"name": "x"}])
def test_settings_that_make_no_sense(fields):
    (field,) = fields
    with pytest.raises(InputError, match=f"^{field}=.* in a SyntheticSpeechConfig"):
        SyntheticSpeechConfig(**fields)


def test_configurations_by_name():
    assert list(synthetic_speech.SyntheticSpeech.builder_configs) == list(NAMED)
    assert SyntheticSpeechConfig(longest=9).name == "3to9_12000_1000_1000_seed0"
