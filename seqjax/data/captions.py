"""Images with captions as a captioner reads them: one caption for each image, as ids; and all of them as references."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from seqjax.data.augment import middle
from seqjax.data.pipeline import eval_batches
from seqjax.data.source import Record, SkipDamaged, Source, in_memory, mapped, open_source
from seqjax.data.text import CAPTIONS, ChooseOne, TextToIds, Vocabulary, texts, training_vocabulary

REFERENCES = 5
"""Captions of an image that a text is judged by, the first ones; COCO has more of some images."""

WRITTEN = ("captions", "index")
"""Entries that `references` needs."""


@dataclasses.dataclass(frozen=True)
class Captioned:
    """Which images and captions."""

    name: str = "scenes"
    """Data set: scenes, karpathy_captions, or coco_captions of the TFDS catalogue."""
    config: str | None = "two"
    """Configuration of the data set; its own default if None."""
    train: str = "train"
    """Split to learn from; train+restval of COCO."""
    test: str = "test"
    """Split that is held out, or a part of one, such as test[:500]."""
    novel: str | None = None
    """Split on which is measured too, once: novel of scenes, whose kinds of object no other split shows."""
    ranked: int = 0
    """Held-out images, the first ones, each of which is to be found by its captions among the others, and they by it,
    once; 0 for none."""
    data_dir: str | None = None
    """Where prepared sets are; TFDS's own choice if None."""
    said: Literal["first", "any"] = "first"
    """Which of an image's captions is learned from: always the first, or any, by chance. Scenes have one form of the
    first."""
    least: int = 1
    """How often a word has to stand in the captions of the training split to be known."""
    side: int | None = None
    """Side to which the middle square of each image is brought; None leaves them as they are."""
    in_memory: bool = True
    """Whether the training images are kept in memory."""
    batch: int = 64
    """Images per optimiser step, over all devices."""
    damaged: float = 0.01
    """Largest share of a split that may be damaged on disk; such images are skipped and named."""


def open_split(data: Captioned, split: str, *, only: Sequence[str] | None = None) -> Source:
    """The records of one split, as they were written, or these entries of them, such as `WRITTEN`."""
    source = open_source(data.name, split=split, config=data.config, data_dir=data.data_dir, only=only)
    return SkipDamaged(source, data.damaged)


def vocabulary(data: Captioned, largest: int, *, keep: Path | None = None) -> Vocabulary:
    """The words of the training split's captions, the most frequent of them if they are more than ``largest``; ``keep``
    as in ``training_vocabulary``."""
    return training_vocabulary(
        data.name,
        keys=("captions",),
        tokenizer=CAPTIONS,
        split=data.train,
        config=data.config,
        data_dir=data.data_dir,
        least=data.least,
        largest=largest,
        keep=keep,
    )


def references(source: Source) -> dict[int, list[list[str]]]:
    """The first captions of each image as tokens, by its number."""
    records = (source[i] for i in range(len(source)))
    return {int(r["index"]): [CAPTIONS.split(text) for text in texts(r["captions"])[:REFERENCES]] for r in records}


class Gallery(NamedTuple):
    """Images and their captions, to be found by one another."""

    images: list[Record]
    """Of `captioned`."""
    captions: Int32[np.ndarray, "M L"]
    """Of all of them, as ids."""
    right: dict[int, Bool[np.ndarray, " M"]]
    """By an image's number, which captions are right for it: those that are, word for word, among its references,
    whether written of it or of another."""


def gallery(data: Captioned, written: Source, source: Source) -> Gallery:
    """The first ``data.ranked`` images of a split with what is said of them: their first caption, or all references.

    A caption that two images share is there twice, and right for both.

    Args:
      data: whose ``ranked`` counts, and ``said``: a model that learns from the first captions alone knows no others.
      written: of `open_split`.
      source: the same images, of `captioned`.
    """
    places, own = range(min(data.ranked, len(source))), 1 if data.said == "first" else REFERENCES
    images, known = [source[i] for i in places], references([written[i] for i in places])
    texts = [text for image in images for text in known[int(image["index"])][:own]]
    right = {number: np.array([text in said for text in texts]) for number, said in known.items()}
    return Gallery(images, np.concatenate([image["captions"][:own] for image in images]), right)


def captioned(data: Captioned, source: Source, known: Vocabulary, length: int) -> Source:
    """The records with ids.

    Args:
      data: whose ``side`` and ``in_memory`` count here.
      source: of `open_split`.
      known: the vocabulary.
      length: of a row, BOS and EOS among them.

    Returns:
      "image"; "captions", int32 ``[N, length]``; "index"; and, of sets that have them, "boxes".
    """
    as_ids = TextToIds(known, CAPTIONS, {"captions": length})
    found = mapped(source, functools.partial(_with_ids, data, as_ids))
    return in_memory(found) if data.in_memory else found


def first_caption(record: Record) -> Record:
    """The record with the first of its captions alone."""
    return record | {"captions": np.asarray(record["captions"][0])}


def caption_tests(data: Captioned, source: Source, **share: Any) -> Iterator[Mapping[str, np.ndarray]]:
    """All images in order, each with its first caption; ``share`` is the process's."""
    return eval_batches(source, batch_size=data.batch, transform=first_caption, **share)


def some(source: Source, number: int) -> Record:
    """The first records as one batch, one caption each."""
    records = [first_caption(source[i]) for i in range(min(number, len(source)))]
    return {name: np.stack([record[name] for record in records]) for name in records[0]}


def choice(data: Captioned) -> dict[str, Any]:
    """Options of ``train_batches`` by which each image has one caption."""
    return {"transform": first_caption} if data.said == "first" else {"augment": ChooseOne(("captions",))}


def _with_ids(data: Captioned, as_ids: TextToIds, record: Record) -> Record:
    kept: Record = {key: record[key] for key in ("image", "captions", "index", "boxes") if key in record}
    kept = kept if data.side is None else middle(kept, keys=("image",), size=data.side)
    found = as_ids(kept)
    del found["captions_length"]
    return found
