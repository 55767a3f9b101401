"""Two domains without pairs, as recipes of image translation take them."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from seqjax.data.augment import UNPAIRED, jitter, resize
from seqjax.data.pipeline import eval_batches, train_batches
from seqjax.data.source import Record, SkipDamaged, Source, in_memory, open_source, part

Sources = dict[str, Source]


@dataclasses.dataclass(frozen=True)
class Domains:
    """Which images, and how they are cut."""

    name: str = "digit_styles"
    """Data set with the splits trainA, trainB, testA and testB: digit_styles, textures, or TFDS's cycle_gan."""
    config: str | None = "16x16"
    """Configuration of the data set, such as horse2zebra; its own default if None."""
    paired: bool = True
    """Whether record i of testA and testB show the same, so that the true translation of held-out images is known."""
    data_dir: str | None = None
    """Where prepared sets are; TFDS's own choice if None."""
    batch: int = 8
    """Images of each domain per update, over all devices."""
    load: int | None = None
    """Side that images are brought to, before a part of ``crop`` is cut out at random; None leaves them as they are."""
    crop: int = 256
    """Side of that part, and of the images in evaluation."""
    damaged: float = 0.01
    """Largest share of a split that may be damaged on disk; such images are skipped and named."""


def open_domains(domains: Domains, split: str) -> Sources:
    """Both domains of the split "train" or "test", ``a`` and ``b``."""

    def one(domain: str) -> Source:
        name = f"{split}{domain.upper()}"
        source = open_source(domains.name, split=name, config=domains.config, data_dir=domains.data_dir)
        return in_memory(SkipDamaged(source, domains.damaged))

    return {domain: one(domain) for domain in "ab"}


def domain_batches(
    domains: Domains, sources: Sources, *, seed: int, start_step: int, steps_per_call: int, **share: Any
) -> Iterator[Mapping[str, np.ndarray]]:
    """Shuffled images of both domains from a step on, cut at random if so configured; ``share`` is the process's."""
    augment = None
    if domains.load is not None:
        augment = functools.partial(jitter, together=UNPAIRED, load=domains.load, crop=domains.crop)
    return train_batches(
        sources,
        batch_size=domains.batch,
        seed=seed,
        start_step=start_step,
        augment=augment,
        steps_per_call=steps_per_call,
        **share,
    )


def domain_tests(domains: Domains, sources: Sources, **share: Any) -> Iterator[Mapping[str, np.ndarray]]:
    """All images of both domains in order, whole; without pairs, as many as the smaller domain has."""
    number = min(map(len, sources.values()))
    return eval_batches(
        {domain: part(source, range(number)) for domain, source in sources.items()},
        batch_size=domains.batch,
        transform=_whole(domains),
        **share,
    )


def first_of_domains(domains: Domains, sources: Sources, number: int) -> Record:
    """One batch of the first images of both domains, the same on every process."""
    number = min(number, *map(len, sources.values()))
    records = [{domain: source[i]["image"] for domain, source in sources.items()} for i in range(number)]
    whole = _whole(domains)
    records = [whole(record) for record in records] if whole else records
    return {domain: np.stack([record[domain] for record in records]) for domain in sources}


def _whole(domains: Domains) -> functools.partial[Record] | None:
    return None if domains.load is None else functools.partial(resize, keys=("a", "b"), size=domains.crop)
