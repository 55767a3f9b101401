"""Strings of sounds as a filter bank hears them, of which every frame's sound is known: a small set for CTC.

A sound is two bumps on 24 bands, as vowels have two formants. Like speech the strings are of unknown timing: sounds
last as long as they like, run into each other, are louder or higher by speaker, and lie in noise; pauses come and go.
Unlike speech, the truth is on record frame by frame, so that what a network trained without it (A. Graves, S.
Fernández, F. Gomez, J. Schmidhuber, "Connectionist Temporal Classification", ICML 2006) makes of the timing can be
measured.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, Float32, Int64

from seqjax.errors import InputError

BANDS = 24
SOUNDS = {
    **{"i": (3, 1.0, 1.0, 18, 1.5, 0.8), "e": (5, 1.0, 1.0, 16, 1.5, 0.8), "a": (9, 1.2, 1.0, 13, 1.2, 0.9)},
    **{"o": (6, 1.2, 1.0, 10, 1.2, 0.8), "u": (3, 1.0, 1.0, 8, 1.2, 0.7), "m": (2, 1.0, 0.8, 12, 3.0, 0.25)},
    **{"l": (4, 1.0, 0.8, 13, 1.5, 0.5), "r": (6, 1.5, 0.7, 14, 2.0, 0.7), "s": (20, 2.5, 0.9, 16, 2.5, 0.3)},
    **{"f": (14, 5.0, 0.4, 20, 5.0, 0.3)},
}
"""Of each sound: centre and width, in bands, and height of one bump, and those of the other. Label 1 is the first."""
LONGEST_SOUND, LONGEST_PAUSE, LONGEST_SILENCE = 11, 4, 6
"""In frames; silence is before the first sound and after the last."""
NOISE = 0.15
"""Standard deviation in every frame and band; a sound's bump is up to 1 high."""
SPLITS = ("train", "validation", "test")


class Utterance(NamedTuple):
    """A string of sounds, heard."""

    features: Float32[np.ndarray, "T F"]
    alignment: Int64[np.ndarray, " T"]
    """Label of each frame; 0 in pauses."""


def timing(rng: np.random.Generator, labels: Int64[np.ndarray, " U"]) -> Int64[np.ndarray, " T"]:
    """The label of each frame.

    A sound lasts 3 to 9 frames, times the speaker's tempo between 0.8 and 1.2. A pause of 2 to 4 frames follows it in
    one of four cases, and always where the same sound comes again, which nothing else would tell from one long sound.
    """
    tempo, runs = rng.uniform(0.8, 1.2), [np.zeros(rng.integers(2, LONGEST_SILENCE, endpoint=True), np.int64)]
    for i, label in enumerate(labels):
        runs.append(np.full(round(tempo * rng.integers(3, 9, endpoint=True)), label))
        again = i + 1 < len(labels) and labels[i + 1] == label
        if again or rng.random() < 0.25:
            runs.append(np.zeros(rng.integers(2, LONGEST_PAUSE, endpoint=True), np.int64))
    return np.concatenate([*runs, np.zeros(rng.integers(2, LONGEST_SILENCE, endpoint=True), np.int64)])


def heard(rng: np.random.Generator, alignment: Int64[np.ndarray, " T"]) -> Float[np.ndarray, "T F"]:
    """The bands over time.

    Centres, widths and heights go from one sound's to the next's over three frames; in silence the heights are 0. A
    speaker's centres are all times one factor, ``exp N(0, 0.06²)``, and the heights times another, ``exp N(0, 0.2²)``.
    """
    table = np.array(list(SOUNDS.values()), float)
    voiced = np.flatnonzero(alignment)
    # In silence the bumps stay where the last sound left them, or the first one will need them.
    nearest = voiced[np.maximum(np.searchsorted(voiced, np.arange(len(alignment)), side="right") - 1, 0)]
    tracks = table[alignment[nearest] - 1].reshape(-1, 2, 3)
    tracks[..., 2] *= (alignment > 0)[:, None]
    padded = np.concatenate([tracks[:1], tracks, tracks[-1:]])
    centre, width, height = np.moveaxis((padded[:-2] + padded[1:-1] + padded[2:]) / 3, -1, 0)
    centre, height = centre * np.exp(rng.normal(0, 0.06)), height * np.exp(rng.normal(0, 0.2))
    distance = (np.arange(BANDS) - centre[..., None]) / width[..., None]
    bumps = height[..., None] * np.exp(-(distance**2) / 2)
    return bumps.sum(axis=1) + rng.normal(0, NOISE, (len(alignment), BANDS))


def utter(rng: np.random.Generator, labels: Int64[np.ndarray, " U"]) -> Utterance:
    """A string of sounds by a speaker of its own.

    Args:
      rng: source of the speaker, the timing and the noise.
      labels: 1 to the number of ``SOUNDS``, at least one.
    """
    alignment = timing(rng, labels)
    return Utterance(heard(rng, alignment).astype(np.float32), alignment)


NAMED: dict[str, dict[str, Any]] = {
    "3_to_8": {},
    "2_to_4": {"shortest": 2, "longest": 4, "train": 8_000},
    "tiny": {"shortest": 1, "longest": 3, "train": 64, "validation": 16, "test": 16},
}
"""Configurations by name: strings of 3 to 8 sounds (the default); short ones for quick runs; and a few for tests."""


@dataclasses.dataclass(eq=False, kw_only=True)
class SyntheticSpeechConfig(tfds.core.BuilderConfig):
    """Settings of one set of utterances; each field changes what is on disk.

    Raises:
      InputError: lengths or counts out of range, a negative seed, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    shortest: int = 3
    """Sounds of the shortest string."""
    longest: int = 8
    """Sounds of the longest."""
    train: int = 12_000
    """Utterances for training."""
    validation: int = 1_000
    """Utterances for validation."""
    test: int = 1_000
    """Utterances for testing."""
    seed: int = 0
    """Utterance ``i`` of a split depends on the seed, the split and ``i`` alone."""

    def __post_init__(self) -> None:
        for field, least in {**dict.fromkeys((*SPLITS, "shortest"), 1), "seed": 0, "longest": self.shortest}.items():
            if getattr(self, field) < least:
                raise InputError(f"{field}={getattr(self, field)} in a SyntheticSpeechConfig: give {least} or more.")
        if self.name and self.name not in NAMED:
            raise InputError(f"name={self.name!r} in a SyntheticSpeechConfig: leave it out, it follows from the rest.")
        counts = "_".join(str(getattr(self, split)) for split in SPLITS)
        self.name = self.name or f"{self.shortest}to{self.longest}_{counts}_seed{self.seed}"

    @property
    def frames(self) -> int:
        """``T``: as long as an utterance can be."""
        return self.longest * (LONGEST_SOUND + LONGEST_PAUSE) + 2 * LONGEST_SILENCE


class SyntheticSpeech(tfds.core.GeneratorBasedBuilder):
    """The utterances of a ``SyntheticSpeechConfig``, prepared without TensorFlow.

    A record has ``features`` float32 ``[T, 24]`` and ``alignment`` int64 ``[T]``, 0 from ``length`` on; ``labels``
    int64 ``[U]``, places in ``SOUNDS`` from 1, 0 from ``labels_length`` on (0 is the blank of ``optax.ctc_loss``); and
    ``index``, its place in the split. Every sound is as likely as any other, and so is every length.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [SyntheticSpeechConfig(name=name, **fields) for name, fields in NAMED.items()]

    def _info(self) -> tfds.core.DatasetInfo:
        frames = self.builder_config.frames
        return tfds.core.DatasetInfo(
            builder=self,
            description="Strings of sounds as a filter bank hears them, with the sound of every frame.",
            features=tfds.features.FeaturesDict(
                {
                    "features": tfds.features.Tensor(shape=(frames, BANDS), dtype=np.float32, encoding="zlib"),
                    "alignment": tfds.features.Tensor(shape=(frames,), dtype=np.int64, encoding="zlib"),
                    "length": np.int64,
                    "labels": tfds.features.Tensor(shape=(self.builder_config.longest,), dtype=np.int64),
                    "labels_length": np.int64,
                    "index": np.int64,
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        for i in range(getattr(config, split)):
            rng = np.random.default_rng([config.seed, SPLITS.index(split), i])
            number = int(rng.integers(config.shortest, config.longest, endpoint=True))
            labels = rng.integers(1, len(SOUNDS), size=number, endpoint=True)
            features, alignment = utter(rng, labels)
            rest = config.frames - len(alignment)
            yield (
                i,
                {
                    "features": np.pad(features, ((0, rest), (0, 0))),
                    "alignment": np.pad(alignment, (0, rest)),
                    "length": len(alignment),
                    "labels": np.pad(labels, (0, config.longest - number)),
                    "labels_length": number,
                    "index": i,
                },
            )
