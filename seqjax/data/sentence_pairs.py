"""Pairs of texts, such as a sentence and its translation, as recipes that learn one from the other take them."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from seqjax.data.bucketing import batch_sizes, bucketed_batches
from seqjax.data.kept import kept_array
from seqjax.data.pipeline import eval_batches, train_batches
from seqjax.data.source import Record, SkipDamaged, Source, in_memory, open_source, part
from seqjax.data.subwords import Subwords, learn_subwords
from seqjax.data.text import SPECIAL, TOKENIZERS, UNK, TextToIds, Tokenizer, Vocabulary, texts
from seqjax.errors import InputError
from seqjax.files import replace_file

SIDES = ("source", "target")
SAMPLE = 64
"""Pairs that tell whether a set, and the code that cuts its texts up, are those of lengths that were kept."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Which pairs, and how they become ids."""

    name: str = "transduction"
    """Data set: transduction, or any of the TFDS catalogue that has both texts, such as ted_hrlr_translate."""
    config: str | None = "reverse_16"
    """Configuration of the data set, such as pt_to_en; its own default if None."""
    source: str = "source"
    """What the set calls the text that is read, such as pt."""
    target: str = "target"
    """What it calls the text that is written."""
    test: str = "test"
    """Split that is held out, or a part of one, such as test[:100]."""
    longer: str | None = None
    """Configuration whose held-out texts are measured too, once, such as one of strings longer than any that training
    shows."""
    data_dir: str | None = None
    """Where prepared sets are; TFDS's own choice if None."""
    tokenizer: str = "whitespace"
    """What cuts texts to words, one of `seqjax.data.text.TOKENIZERS`."""
    subwords: int = 0
    """Merges of byte pair encoding, learned from the training split; 0 leaves words whole."""
    length: int = 18
    """Ids of a text for training, beginning and end among them. Pairs of which either text is longer are left out of
    training. Held-out texts are never cut: if one is longer, the rows of its split are as long as that."""
    bounds: tuple[int, ...] = ()
    """Lengths of buckets, the last one ``length``: a batch is of one bucket, and no longer; () makes one of all."""
    in_memory: bool = True
    """Whether the training pairs are read once and kept in memory."""
    batch: int = 64
    """Pairs per optimiser step, over all devices; with ``tokens``, what the pairs of every step are a multiple of."""
    tokens: int = 0
    """Ids of source and of target in a step at most, padding among them: with ``bounds``, batches of shorter pairs have
    more of them; 0 makes every step of ``batch`` pairs."""
    damaged: float = 0.01
    """Largest share of a split that may be damaged on disk; such pairs are skipped and named."""


class Language(NamedTuple):
    """What makes ids of texts, and texts of ids."""

    vocabularies: tuple[Vocabulary, Vocabulary]
    """Of source and target; twice the same if they share one."""
    subwords: Subwords | None
    """What cuts words into pieces."""
    tokenizer: Tokenizer
    """What cuts texts into words."""

    @property
    def name(self) -> str:
        """Stands beside every score."""
        pieces = "" if self.subwords is None else f", {len(self.subwords.merges)} merges"
        return f"{self.tokenizer.name}{pieces}, {len(self.vocabularies[1])} ids"

    def pieces(self, text: str) -> list[str]:
        """What has an id each."""
        return _pieces(self.tokenizer, self.subwords, text)

    def words(self, ids: np.ndarray) -> list[str]:
        """The words of a row of target ids."""
        pieces = self.vocabularies[1].decode(ids)
        return pieces if self.subwords is None else self.subwords.words(pieces)


def learn_language(pairs: Pairs, largest: Sequence[int], *, keep: Path | None = None) -> Language:
    """The pieces and ids of the training split, and of no other.

    Args:
      pairs: which.
      largest: how many ids there may be: one number for a vocabulary that both sides share, or two.
      keep: file to read it from if it is there, and to write it to if not; None for no file.

    Raises:
      InputError: an unknown tokenizer; as ``open_source`` and ``Vocabulary.of``.
    """
    if pairs.tokenizer not in TOKENIZERS:
        raise InputError(f"tokenizer={pairs.tokenizer!r} is unknown: give one of {list(TOKENIZERS)}.")
    tokenizer = TOKENIZERS[pairs.tokenizer]
    if keep is not None and keep.exists():
        return _read(keep, tokenizer)
    train = _opened(pairs, "train")
    sides, subwords = (pairs.source, pairs.target), None
    if pairs.subwords:
        words = Counter(word for text in _texts(train, *sides) for word in tokenizer.split(text))
        subwords = learn_subwords(words, pairs.subwords)
    groups = [sides] if len(largest) == 1 else [(side,) for side in sides]
    found = [
        Vocabulary.of(
            (_pieces(tokenizer, subwords, text) for text in _texts(train, *group)), largest=size - len(SPECIAL)
        )
        for group, size in zip(groups, largest, strict=True)
    ]
    language = Language((found[0], found[-1]), subwords, tokenizer)
    if keep is not None:
        _write(keep, language)
    return language


class PairRows:
    """Pairs as ids: ``source`` and ``target``, int32 ``[L]``, their lengths, and ``index``, the pair's place.

    Args:
      source: records of these.
      longest: the longer length of each pair, BOS and EOS among it.
    """

    def __init__(self, source: Source, longest: Int[np.ndarray, " N"]) -> None:
        self._source, self.longest = source, longest

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int, /) -> Record:
        return self._source[index]

    @property
    def damaged(self) -> Mapping[int, str]:
        """What ``SkipDamaged`` met so far."""
        return getattr(self._source, "damaged", {})


def open_pairs(pairs: Pairs, language: Language, split: str, *, keep: Path | None = None) -> PairRows:
    """A split as ids. Of "train" it has the pairs no longer than ``pairs.length``, in rows of that; of any other split
    all, in rows that are long enough for every text, at least ``pairs.length``.

    Args:
      pairs: which.
      language: what makes ids of them.
      split: which of their splits.
      keep: file to keep the lengths of its pairs in, which take hours for millions of them; None for no file.

    Raises:
      InputError: no pair for training is short enough; as ``open_source``.
    """
    records = _opened(pairs, split)
    longest = _longest(records, pairs, language) if keep is None else _kept(keep, split, records, pairs, language)
    if split != "train":
        length = max(pairs.length, int(longest.max()))
        return PairRows(in_memory(_Numbered(records, pairs, language, length)), longest)
    places = np.flatnonzero(longest <= pairs.length)
    if not len(places):
        raise InputError(
            f"length={pairs.length} leaves no pair of {pairs.name} to train on, the shortest has {longest.min()} ids: "
            "raise it."
        )
    rows = part(_Numbered(records, pairs, language, pairs.length), places)
    return PairRows(in_memory(rows) if pairs.in_memory else rows, longest[places])


def measured(pairs: Pairs) -> dict[str, Pairs]:
    """The sets whose held-out texts are measured: that of training, under "", and the longer one, under its name."""
    longer = {} if pairs.longer is None else {pairs.longer: dataclasses.replace(pairs, config=pairs.longer)}
    return {"": pairs, **longer}


def pair_batches(
    pairs: Pairs, source: PairRows, *, seed: int, start_step: int, steps_per_call: int, **share: Any
) -> Iterator[Mapping[str, np.ndarray]]:
    """Shuffled pairs from a step on, of one bucket at a time if so configured; ``share`` is the process's."""
    options: dict[str, Any] = {
        "batch_size": pairs.batch,
        "seed": seed,
        "start_step": start_step,
        "steps_per_call": steps_per_call,
    }
    if pairs.tokens and not pairs.bounds:
        raise InputError(f"tokens={pairs.tokens} make batches of buckets: give their lengths as bounds.")
    if pairs.tokens:
        options["batch_size"] = batch_sizes(pairs.bounds, tokens=pairs.tokens, multiple=pairs.batch)
    if pairs.bounds:
        return bucketed_batches(source, pairs.bounds, SIDES, longest=source.longest, **options, **share)
    return train_batches(source, **options, **share)


def pair_tests(pairs: Pairs, source: Source, **share: Any) -> Iterator[Mapping[str, np.ndarray]]:
    """All pairs in order."""
    return eval_batches(source, batch_size=pairs.batch, **share)


def references(pairs: Pairs, language: Language, split: str) -> dict[int, list[list[str]]]:
    """The words that should be written, by the pair's place: the text's own, unknown ones too."""
    found = _texts(_opened(pairs, split), pairs.target)
    return {i: [language.tokenizer.split(text)] for i, text in enumerate(found)}


def same_words(language: Language) -> Int32[np.ndarray, " V"]:
    """By source id, the target id of the same token, UNK where there is none."""
    source, target = language.vocabularies
    ids = {token: i for i, token in enumerate(target.tokens, len(SPECIAL))}
    return np.array([*range(len(SPECIAL)), *(ids.get(token, UNK) for token in source.tokens)], np.int32)


def first_pairs(source: Source, number: int) -> Record:
    """One batch of the first pairs, the same on every process."""
    records = [source[i] for i in range(min(number, len(source)))]
    return {name: np.stack([record[name] for record in records]) for name in records[0]}


def _opened(pairs: Pairs, split: str) -> Source:
    source = open_source(pairs.name, split=split, config=pairs.config, data_dir=pairs.data_dir)
    missing = {pairs.source, pairs.target} - source[0].keys()
    if missing:
        raise InputError(
            f"{pairs.name} has no texts {sorted(missing)}, but {sorted(source[0])}: name the text that is read as "
            "source, and the one that is written as target."
        )
    return SkipDamaged(source, pairs.damaged)


def _texts(source: Source, *sides: str) -> Iterator[str]:
    for i in range(len(source)):
        record = source[i]
        for side in sides:
            yield texts(record[side])[0]


def _pieces(tokenizer: Tokenizer, subwords: Subwords | None, text: str) -> list[str]:
    words = tokenizer.split(text)
    return words if subwords is None else subwords.cut(words)


def _longest(source: Source, pairs: Pairs, language: Language) -> Int[np.ndarray, " N"]:
    sides = (pairs.source, pairs.target)
    records = (source[i] for i in range(len(source)))
    return np.array([2 + max(len(language.pieces(texts(r[side])[0])) for side in sides) for r in records], np.int32)


def _kept(keep: Path, split: str, source: Source, pairs: Pairs, language: Language) -> Int[np.ndarray, " N"]:
    """The lengths, as a file has them if it was written of the same texts, cut up in the same way."""
    spread = np.linspace(0, len(source) - 1, SAMPLE).astype(int)
    cut = [language.pieces(text) for text in _texts(part(source, spread), pairs.source, pairs.target)]
    of = (pairs.name, pairs.config, pairs.source, pairs.target, split, len(source), language.name, language.subwords)
    fingerprint = hashlib.sha256(repr((of, language.vocabularies, cut)).encode()).hexdigest()
    found = kept_array(keep, fingerprint, lambda: _longest(source, pairs, language))
    if getattr(source, "damaged", {}):  # of what stands in for them, which a set that was repaired has not
        keep.unlink(missing_ok=True)
    return found


class _Numbered:
    """Pairs as ids, each with its place."""

    def __init__(self, source: Source, pairs: Pairs, language: Language, length: int) -> None:
        self._source, self._sides = source, (pairs.source, pairs.target)
        cut = Tokenizer(language.name, language.pieces)
        self._encode = [
            TextToIds(vocabulary, cut, {side: length})
            for side, vocabulary in zip(SIDES, language.vocabularies, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int, /) -> Record:
        record = self._source[index]
        found: Record = {"index": np.asarray(index, np.int32)}
        for side, name, encode in zip(SIDES, self._sides, self._encode, strict=True):
            found |= encode({side: record[name]})
        return found

    @property
    def damaged(self) -> Mapping[int, str]:
        return getattr(self._source, "damaged", {})


def _write(path: Path, language: Language) -> None:
    content = {
        "merges": None if language.subwords is None else language.subwords.merges,
        "vocabularies": [dataclasses.asdict(vocabulary) for vocabulary in language.vocabularies],
    }
    replace_file(path, json.dumps(content).encode())


def _read(path: Path, tokenizer: Tokenizer) -> Language:
    try:
        content = json.loads(path.read_text())
        first, second = (Vocabulary(tuple(v["tokens"]), tuple(v["counts"])) for v in content["vocabularies"])
        merges = content["merges"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as the vocabularies of a run ({error}): put the file back, or delete it to have "
            "them learned from the training split once more."
        ) from error
    return Language((first, second), None if merges is None else Subwords(tuple(map(tuple, merges))), tokenizer)
