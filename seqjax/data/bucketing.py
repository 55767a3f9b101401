"""Batches of records that are about equally long, each batch padded no more than its own bucket needs."""

from collections.abc import Callable, Mapping, Sequence

import grain
import numpy as np

from seqjax.data.pipeline import train_batches
from seqjax.data.source import Record, Source
from seqjax.errors import InputError


def bucketed_batches(
    source: Source,
    bounds: Sequence[int],
    keys: Sequence[str],
    *,
    longest: Sequence[int] | np.ndarray | None = None,
    batch_size: int | Sequence[int],
    seed: int,
    start_step: int = 0,
    steps_per_call: int = 1,
    process_index: int = 0,
    process_count: int = 1,
    augment: Callable[[Record, np.random.Generator], Record] | None = None,
) -> "Buckets":
    """Endless iterator like ``train_batches``, whose batches are of one bucket each.

    A record is in the first bucket whose bound its longest sequence does not pass, and there ``{key}`` is cut to the
    bound, ``[B / P, bound, ..]``: padding alone is lost, and the training step is compiled once per bucket. Records are
    shuffled within their bucket. In every epoch each bucket has as many batches as it fills, to the nearest, but one at
    least, in an order of its own. All of this the seed alone decides, so a run goes on at any step, on any number of
    processes.

    Args:
      source: records with ``{key}``, ``[T, ..]``, and ``{key}_length``, how much of it counts, as ``TextToIds`` makes
        them.
      bounds: lengths, rising; the last one no shorter than the longest sequence.
      keys: of the sequences.
      longest: length of each record's longest sequence; None reads every record once here to find out.
      batch_size: of the global batch, ``B``; or one for each of bounds, such as ``batch_sizes`` gives.
      seed: of the order and of ``augment``.
      start_step: global step of the first batch, a multiple of ``steps_per_call``.
      steps_per_call: batches on a leading axis, all of one bucket.
      process_index: which process this is.
      process_count: of how many.
      augment: random map of each record, after the cut.

    Raises:
      InputError: bounds that do not rise, a sequence longer than the last, numbers out of range.
    """
    sizes = [batch_size] * len(bounds) if isinstance(batch_size, int) else list(batch_size)
    if len(sizes) != len(bounds):
        raise InputError(f"batch_size={sizes} has not one number for each of bounds={list(bounds)}.")
    if not bounds or list(bounds) != sorted({*bounds}) or bounds[0] < 1:
        raise InputError(f"bounds={list(bounds)} are not lengths that rise: give some such as [8, 16, 32].")
    if start_step % steps_per_call:
        raise InputError(f"start_step={start_step} is not a multiple of steps_per_call={steps_per_call}.")
    if longest is None:
        longest = [max(int(source[i][f"{key}_length"]) for key in keys) for i in range(len(source))]
    if len(longest) != len(source):
        raise InputError(f"longest has {len(longest)} numbers for {len(source)} records: give one for each.")
    if np.max(longest, initial=0) > bounds[-1]:
        raise InputError(f"a sequence of {max(longest)} is longer than the last of bounds={list(bounds)}: raise it.")
    places = np.searchsorted(bounds, longest)
    filled = np.unique(places).tolist()
    buckets = [_Bucket(source, np.flatnonzero(places == k), tuple(keys), bounds[k]) for k in filled]
    order = Order(list(map(len, buckets)), [sizes[k] * steps_per_call for k in filled], seed)
    seeds = np.random.SeedSequence(seed).generate_state(len(buckets))
    begun = order.begun(start_step // steps_per_call)
    streams = [
        train_batches(
            bucket,
            batch_size=sizes[k],
            seed=int(own),
            start_step=calls * steps_per_call,
            steps_per_call=steps_per_call,
            process_index=process_index,
            process_count=process_count,
            augment=augment,
        )
        for k, bucket, own, calls in zip(filled, buckets, seeds, begun, strict=True)
    ]
    return Buckets(streams, order, start_step // steps_per_call)


def batch_sizes(bounds: Sequence[int], *, tokens: int, multiple: int) -> list[int]:
    """Sequences of a batch of each bucket so that all are about equally much work: ``tokens // bound``, rounded down.

    They depend on these numbers alone, so a run may go on with other devices and processes, as many as divide
    ``multiple``.

    Args:
      bounds: lengths of the buckets.
      tokens: places of a batch at most, those of padding among them.
      multiple: what each size is a multiple of.

    Raises:
      InputError: so many of the longest sequences have more places.
    """
    longest = max(bounds, default=1)
    if multiple < 1 or tokens < longest * multiple:
        raise InputError(
            f"tokens={tokens} are too few for batches of a multiple of {multiple} sequences of {longest}: give "
            f"{longest * multiple} or more, or a smaller multiple of 1 or more."
        )
    return [tokens // bound // multiple * multiple for bound in bounds]


class Order:
    """Which bucket's turn it is in each call, epoch after epoch."""

    def __init__(self, sizes: Sequence[int], records_per_call: Sequence[int], seed: int) -> None:
        turns = [max(1, round(size / one)) for size, one in zip(sizes, records_per_call, strict=True)]
        self._turns, self._seed = np.repeat(np.arange(len(sizes)), turns), seed

    def epoch(self, number: int) -> np.ndarray:
        """The buckets of an epoch in order."""
        return np.random.default_rng([self._seed, number]).permutation(self._turns)

    def bucket(self, call: int) -> int:
        """The bucket of a call, from 0."""
        return int(self.epoch(call // len(self._turns))[call % len(self._turns)])

    def begun(self, call: int) -> list[int]:
        """How many turns each bucket has had before a call."""
        epochs, rest = divmod(call, len(self._turns))
        buckets = self._turns.max() + 1
        whole = np.bincount(self._turns, minlength=buckets)
        return (epochs * whole + np.bincount(self.epoch(epochs)[:rest], minlength=buckets)).tolist()


class Buckets:
    """The iterator; ``close()`` ends the threads that read ahead."""

    def __init__(self, streams: Sequence[grain.DatasetIterator], order: Order, call: int) -> None:
        self._streams, self._order, self._call = streams, order, call

    def __iter__(self) -> "Buckets":
        return self

    def __next__(self) -> Mapping[str, np.ndarray]:
        bucket = self._order.bucket(self._call)
        self._call += 1
        return next(self._streams[bucket])

    def close(self) -> None:
        """Ends the threads of all buckets."""
        for stream in self._streams:
            stream.close()


class _Bucket:
    """The records of some places, cut to a bound."""

    def __init__(self, source: Source, places: np.ndarray, keys: tuple[str, ...], bound: int) -> None:
        self._source, self._places, self._keys, self._bound = source, places, keys, bound

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int, /) -> Record:
        record = self._source[int(self._places[index])]
        return record | {key: record[key][: self._bound] for key in self._keys}
