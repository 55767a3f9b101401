"""Handwritten digits put somewhere in an image anew at every use, as recipes that look for them take them."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from seqjax.data.cluttered_digits import place
from seqjax.data.pipeline import train_batches
from seqjax.data.source import Record, SkipDamaged, Source, in_memory, open_source


@dataclasses.dataclass(frozen=True)
class PlacedDigits:
    """Which images."""

    digits: str = "digits"
    """Data set of the digits for training, which are put somewhere in an image at every use."""
    config: str | None = "8x8"
    """Its configuration; its own default if None."""
    size: int = 24
    """Side of the images; that of the digits themselves leaves them as they are."""
    pieces: int = 0
    """Pieces of other digits that are put into each."""
    piece: int = 8
    """Side of a piece."""
    test: str = "cluttered_digits"
    """Data set of the held-out images, prepared once."""
    test_config: str | None = "translated_24"
    """Its configuration."""
    split: str = "test"
    """Its split, or a part of one, such as test[:500]."""
    digit: int = 0
    """Side of the digits in images that are prepared with their corners, to measure how near to their middles a glimpse
    comes; 0 not to."""
    data_dir: str | None = None
    """Where prepared sets are; TFDS's own choice if None."""
    batch: int = 128
    """Images per update, over all devices."""
    damaged: float = 0.01
    """Largest share of a split that may be damaged on disk; such images are skipped and named."""


def open_digits(placed: PlacedDigits) -> tuple[Source, Source]:
    """Digits for training, and held-out images."""

    def one(name: str, config: str | None, split: str) -> Source:
        source = open_source(name, split=split, config=config, data_dir=placed.data_dir)
        return in_memory(SkipDamaged(source, placed.damaged))

    return one(placed.digits, placed.config, "train"), one(placed.test, placed.test_config, placed.split)


def put_somewhere(
    placed: PlacedDigits, others: UInt8[np.ndarray, "M S S"], record: Record, rng: np.random.Generator
) -> Record:
    """The digit of a record in an image of its own, among pieces of others."""
    image, _ = place(rng, record["image"][..., 0], others, size=placed.size, pieces=placed.pieces, piece=placed.piece)
    return {"image": image[..., None], "label": record["label"]}


def placed_batches(
    placed: PlacedDigits, digits: Source, *, seed: int, start_step: int, steps_per_call: int, **share: Any
) -> Iterator[Mapping[str, np.ndarray]]:
    """Images of shuffled digits from a step on; ``share`` is the process's."""
    return train_batches(
        digits,
        batch_size=placed.batch,
        seed=seed,
        start_step=start_step,
        augment=functools.partial(put_somewhere, placed, _all_of(digits)),
        steps_per_call=steps_per_call,
        **share,
    )


def placed_images(
    placed: PlacedDigits, digits: Source, *, steps: int, seed: int
) -> tuple[UInt8[np.ndarray, "N S S 1"], Int64[np.ndarray, " N"]]:
    """As many images as so many updates see, of all digits in turn, and their labels."""
    rng, others = np.random.default_rng(seed), _all_of(digits)
    made = [put_somewhere(placed, others, digits[i % len(digits)], rng) for i in range(steps * placed.batch)]
    return np.stack([record["image"] for record in made]), np.stack([record["label"] for record in made])


def _all_of(digits: Source) -> UInt8[np.ndarray, "M S S"]:
    return np.stack([digits[i]["image"][..., 0] for i in range(len(digits))])
