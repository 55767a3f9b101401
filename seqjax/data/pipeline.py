"""Batches from a source: seeded, shared between processes, starting at any step.

The order of a run is one endless stream that the seed alone decides: the records shuffled, epoch after epoch, each
epoch in another order. Where batches do not divide an epoch, nothing is dropped or added: the batch at its end is
filled with the beginning of the next. Global batch ``k`` is the stream's part ``[k B, (k + 1) B)``, and of ``P``
processes the ``p``-th gets the rows ``[p B / P, (p + 1) B / P)`` of it. So the shares of all processes, one after the
other, are the same array for any number of processes (``jax.make_array_from_process_local_data`` joins them so on a
mesh whose devices are in the order of their processes), and step ``k`` sees the same records whether the run began at
step 0 or at step ``k``.

Unpaired sets are given as several sources by name, ``{"a": horses, "b": zebras}``. Each is then a stream of its own,
shuffled by a seed of its own and endless, and record ``i`` joins the ``i``-th of each: chance decides which images
meet, and every image of a set is seen equally often, however large the other is. Who counts epochs, counts those of
the larger set, as CycleGAN does (its own code draws ``b`` with replacement instead).
"""

import os
from collections.abc import Callable, Mapping

import grain
import numpy as np

from seqjax.data.source import Record, Source
from seqjax.errors import InputError

# Threads suffice, for reading and inflating leave Python's lock; the buffer counts whole batches, so it is short.
_READ = grain.ReadOptions(num_threads=min(8, os.cpu_count() or 1), prefetch_buffer_size=8)


def train_batches(
    source: Source | Mapping[str, Source],
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    transform: Callable[[Record], Record] | None = None,
    augment: Callable[[Record, np.random.Generator], Record] | None = None,
    steps_per_call: int = 1,
) -> grain.DatasetIterator:
    """Endless iterator over this process's share of the shuffled batches, read ahead by threads.

    A source smaller than a batch is fine: a batch then holds records of several epochs.

    Args:
      source: the records; or several sources by name, of which a record then has each one's ``image`` under the name
        itself and the rest under ``{name}_{key}``.
      batch_size: of the global batch, ``B``.
      seed: of the order and of ``augment``, 0 to 2³² - 1.
      start_step: global step of the first batch.
      process_index: ``p``.
      process_count: ``P``, a divisor of the batch size.
      transform: map of each record, such as a crop.
      augment: random map of each record, before ``transform``; its generator depends on the seed and the record's
        place in the stream alone.
      steps_per_call: 1 gives ``[B / P, ..]``; ``n > 1`` gives ``n`` consecutive batches on a leading axis,
        ``[n, B / P, ..]``.

    Returns:
      Dicts of arrays. ``close()`` ends the threads at once.

    Raises:
      InputError: no records, or numbers out of range.
    """
    _check(source, batch_size, process_index, process_count)
    if not 0 <= seed < 2**32:
        raise InputError(f"seed={seed} cannot seed the order of the records: give 0 to 2**32 - 1.")
    if start_step < 0 or steps_per_call < 1:
        raise InputError(
            f"start_step={start_step} and steps_per_call={steps_per_call} are not a place to start and a number of "
            "batches: give at least 0 and at least 1."
        )
    stream = _endless(source, seed)
    stream = stream.random_map(augment) if augment else stream
    stream = stream.map(transform) if transform else stream
    batches = _share(stream, batch_size, process_index, process_count)[start_step:]
    batches = batches.batch(steps_per_call, drop_remainder=True) if steps_per_call > 1 else batches
    return iter(batches.to_iter_dataset(_READ))


def eval_batches(
    source: Source | Mapping[str, Source],
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    transform: Callable[[Record], Record] | None = None,
) -> grain.DatasetIterator:
    """Iterator over this process's share of all records once, in order, in batches of one size.

    Every process gets the same number of batches. The last batch is filled up with copies of the last record;
    ``"weight"``, float32 ``[B / P]``, is 1 for a record and 0 for such a copy, and for what ``SkipDamaged`` puts in
    the place of a damaged record. Arguments and errors as in ``train_batches``, but several sources have to be of one
    length, for here the ``i``-th records belong together.
    """
    _check(source, batch_size, process_index, process_count)
    source = _Abreast(source) if isinstance(source, Mapping) else source
    last = len(source) - 1

    def weighted(i: int) -> Record:
        record = source[min(i, last)]  # first, for damage is known by reading
        counts = i <= last and i not in getattr(source, "damaged", ())
        return (transform(record) if transform else record) | {"weight": np.asarray(counts, np.float32)}

    filled = -(-len(source) // batch_size) * batch_size
    stream = grain.MapDataset.range(filled).map(weighted)
    return iter(_share(stream, batch_size, process_index, process_count).to_iter_dataset(_READ))


def _endless(source: Source | Mapping[str, Source], seed: int) -> grain.MapDataset:
    if not isinstance(source, Mapping):
        return grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    seeds = np.random.SeedSequence(seed).generate_state(len(source))
    streams = {name: _endless(one, int(own)) for (name, one), own in zip(source.items(), seeds, strict=True)}

    def joined(i: int) -> Record:
        return _join({name: stream[i] for name, stream in streams.items()})

    return grain.MapDataset.range(min(map(len, streams.values()))).seed(seed).map(joined)


def _join(records: Mapping[str, Record]) -> Record:
    return {
        name if key == "image" else f"{name}_{key}": value
        for name, record in records.items()
        for key, value in record.items()
    }


class _Abreast:
    """Sources of one length, their records joined in order."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources
        lengths = {name: len(source) for name, source in sources.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(
                f"The sources have {lengths} records, so they do not belong together one by one: evaluate each alone, "
                "{name: source}."
            )

    def __len__(self) -> int:
        return len(next(iter(self._sources.values())))

    def __getitem__(self, index: int, /) -> Record:
        return _join({name: source[index] for name, source in self._sources.items()})

    @property
    def damaged(self) -> set[int]:
        return {i for source in self._sources.values() for i in getattr(source, "damaged", ())}


def _share(stream: grain.MapDataset, batch_size: int, process_index: int, process_count: int) -> grain.MapDataset:
    """Batches of the stream, of each the rows of one process; no other row is read."""
    rows = batch_size // process_count

    def local(i: int) -> Record:
        return stream[i // rows * batch_size + process_index * rows + i % rows]

    return grain.MapDataset.range(len(stream) // process_count).map(local).batch(rows, drop_remainder=True)


def _check(source: Source | Mapping[str, Source], batch_size: int, process_index: int, process_count: int) -> None:
    sources = source.values() if isinstance(source, Mapping) else [source]
    if not sources or not all(map(len, sources)):
        raise InputError("The source has no records: give a split that has some.")
    if not 0 <= process_index < process_count:
        raise InputError(
            f"process_index={process_index} is not one of process_count={process_count} processes: give 0 to "
            "process_count - 1."
        )
    if batch_size < 1 or batch_size % process_count:
        raise InputError(
            f"batch_size={batch_size} cannot be shared evenly by process_count={process_count} processes: give a "
            "multiple of process_count."
        )
