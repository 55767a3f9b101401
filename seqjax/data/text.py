"""Text to numbers and back: tokenizers, vocabularies of a training split, ids of one length.

Ids 0 to 3 mean the same in every vocabulary: PAD, BOS, EOS, UNK. What a text becomes is one row that serves the
encoder and both sides of the decoder,

    BOS w_1 .. w_n EOS PAD .. PAD,

so a decoder reads ``ids[:, :-1]``, is asked for ``ids[:, 1:]``, and counts where that is not PAD.
"""

import dataclasses
import functools
import json
import os
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from seqjax.data.source import Record, open_source
from seqjax.errors import InputError
from seqjax.files import replace_file

PAD, BOS, EOS, UNK = range(4)
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
"""PAD, BOS, EOS and UNK in writing. A text that has them, as sets without their rare words do, means unknown words."""
UNKNOWN = "< unk >"
"""How UNK is printed: the blanks keep it from being a token of any tokenizer, so it never equals a reference's."""


class Tokenizer(NamedTuple):
    """How text is cut up and put together again."""

    name: str
    """Stands beside every score of such tokens."""
    split: Callable[[str], list[str]]
    """Text to tokens."""
    glue: str = " "
    """What joins tokens to text."""

    def join(self, tokens: Iterable[str]) -> str:
        """Tokens to text."""
        return self.glue.join(tokens)


# To U+FFFF alone: sets that go further are searched one character after the other.
_MARKS = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c).startswith("M"))
_WORD = rf"\w[\w{_MARKS}]*"
_CAPTION_TOKEN = re.compile(
    rf"{_WORD}?(?=n't\b)|n't\b|'(?:s|m|re|ve|ll|d)\b|can(?=not\b)|(?:[a-z]\.){{2,}}|\d+(?:[.,:]\d+)+"
    rf"|{_WORD}(?:[-/]{_WORD})*|[!?]+|\S[{_MARKS}]*"
)
_DROPPED = frozenset("'\"`.?!,:;-…")
_BRACKETS = dict(zip("()[]{}", ("-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"), strict=True))
_SIGNS = "".join(sign for sign in string.punctuation if sign not in "',-.")
_13A = (
    (re.compile(f"([{re.escape(_SIGNS)}])"), r" \1 "),
    (re.compile("([^0-9])([.,])"), r"\1 \2 "),
    (re.compile("([.,])([^0-9])"), r" \1 \2"),
    (re.compile("([0-9])(-)"), r"\1 \2 "),
)
_ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">", "<skipped>": "", "-\n": "", "\n": " "}


def _caption_tokens(text: str) -> list[str]:
    found = _CAPTION_TOKEN.findall(unicodedata.normalize("NFC", text.lower()).replace("’", "'"))
    return [_BRACKETS.get(token, token) for token in found if token not in _DROPPED]


def _13a_tokens(text: str) -> list[str]:
    for written, meant in _ENTITIES.items():
        text = text.replace(written, meant)
    text = f" {text} "
    for pattern, replacement in _13A:
        text = pattern.sub(replacement, text)
    return text.split()


WORDS = Tokenizer("whitespace", str.split)
"""What stands between blanks; for text that is tokenized already."""
CHARACTERS = Tokenizer("characters", list, "")
"""Every character, blanks too."""
CAPTIONS = Tokenizer("ptb-approximate", _caption_tokens)
"""Lower-case words, clitics (n't, 's) apart, punctuation dropped: near the protocol of COCO's captions.

That runs Stanford's PTBTokenizer 3.4.1, in Java, and drops the same signs. It also keeps the dot of abbreviations such
as "mr.", takes "gonna" apart and leaves "one.two" together, and these tokens do not; so their scores are not to be
mixed with published ones, which is why they carry the name.
"""
MT_13A = Tokenizer("13a", _13a_tokens)
"""The tokens over which BLEU of translations is reported: ``mteval-v13a``, as in sacreBLEU (Post, *A Call for Clarity
in Reporting BLEU Scores*, 2018). For scoring alone: ``join`` does not undo it."""
TOKENIZERS = {tokenizer.name: tokenizer for tokenizer in (WORDS, CHARACTERS, CAPTIONS, MT_13A)}
"""By name, as configurations have them."""


def texts(value: Any) -> list[str]:
    """The strings of a record's entry, which holds one or an array of them, as bytes in UTF-8."""
    flat = np.asarray(value, object).ravel()
    return [text.decode() if isinstance(text, bytes) else str(text) for text in flat]


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The known tokens; token ``i`` has the id ``i + 4``."""

    tokens: tuple[str, ...]
    """The most frequent first, and by alphabet where counts are equal."""
    counts: tuple[int, ...]
    """How often each stands in the training split."""

    def __len__(self) -> int:
        """Number of ids."""
        return len(SPECIAL) + len(self.tokens)

    @staticmethod
    def of(sentences: Iterable[Sequence[str]], *, least: int = 1, largest: int | None = None) -> "Vocabulary":
        """The tokens of sentences for training, without those of `SPECIAL`.

        Args:
          sentences: as a tokenizer splits them.
          least: how often a token has to occur.
          largest: how many tokens at most; all if None.

        Raises:
          InputError: no token is left.
        """
        counted = Counter(token for sentence in sentences for token in sentence)
        enough = ((-count, token) for token, count in counted.items() if count >= least and token not in SPECIAL)
        known = sorted(enough)[:largest]
        if not known:
            raise InputError(
                f"A vocabulary of tokens that occur least={least} times, at most {largest} of them, is empty: give a "
                f"smaller least, a larger largest, or more text than these {counted.total()} tokens."
            )
        return Vocabulary(tuple(token for _, token in known), tuple(-count for count, _ in known))

    def encode(self, tokens: Sequence[str], length: int) -> Int32[np.ndarray, " {length}"]:
        """``BOS w_1 .. w_n EOS PAD ..``; what is longer loses its end, but not its EOS.

        Args:
          tokens: any, UNK if unknown.
          length: of the row, 2 or more.
        """
        row = np.full(length, PAD, np.int32)
        known = [self._ids.get(token, UNK) for token in tokens[: length - 2]]
        row[: len(known) + 2] = [BOS, *known, EOS]
        return row

    def decode(self, ids: Int[np.ndarray, " L"]) -> list[str]:
        """The tokens before the first EOS, without PAD and BOS; UNK, and ids that no token has, as ``UNKNOWN``."""
        ids = np.asarray(ids)
        ends = np.flatnonzero(ids == EOS)
        kept = ids[: ends[0]] if len(ends) else ids
        names = (*SPECIAL[:UNK], UNKNOWN, *self.tokens)
        return [names[i if i < len(names) else UNK] for i in kept if i not in (PAD, BOS)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it as JSON."""
        replace_file(Path(path), json.dumps(dataclasses.asdict(self)).encode())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Vocabulary":
        """What ``save`` wrote.

        Raises:
          InputError: it cannot be read.
        """
        try:
            content = json.loads(Path(path).read_text())
            return Vocabulary(tuple(content["tokens"]), tuple(content["counts"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} cannot be read as a vocabulary ({error}): give what save wrote.") from error

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens, len(SPECIAL)) if token not in SPECIAL}


def training_vocabulary(
    name: str,
    *,
    keys: Sequence[str],
    tokenizer: Tokenizer,
    split: str = "train",
    config: Any = None,
    data_dir: str | os.PathLike[str] | None = None,
    least: int = 1,
    largest: int | None = None,
    keep: Path | None = None,
) -> Vocabulary:
    """The vocabulary of a data set's training split, and of no other: held-out words are not known in advance.

    Args:
      name: of the set, as ``open_source`` takes it.
      keys: of the records' entries that hold text.
      tokenizer: cuts it up.
      split: a training split, a part of it, or ``train+restval`` of the sets that have that.
      config: the set's configuration.
      data_dir: where prepared sets are.
      least: how often a token has to occur.
      largest: how many tokens at most; all if None.
      keep: file to read it from if it is there, and to write it to if not; None for no file.

    Raises:
      InputError: a split that is not for training; as ``open_source`` and ``Vocabulary.of``.
    """
    for part in split.split("+"):
        if part.split("[")[0] not in ("train", "restval"):
            raise InputError(
                f"split={split!r} for a vocabulary holds {part!r}, which is not for training: give 'train', a part of "
                "it such as 'train[:80%]', or 'train+restval'."
            )
    if keep is not None and keep.exists():
        return Vocabulary.load(keep)
    source = open_source(name, split=split, config=config, data_dir=data_dir, only=keys)
    records = (source[i] for i in range(len(source)))
    found = (text for record in records for key in keys for text in texts(record[key]))
    vocabulary = Vocabulary.of(map(tokenizer.split, found), least=least, largest=largest)
    if keep is not None:
        vocabulary.save(keep)
    return vocabulary


@dataclasses.dataclass(frozen=True)
class TextToIds:
    """A map of records: text becomes ids, int32 ``[*N, L]``, and ``{key}_length`` how many are not PAD, ``[*N]``.

    Text under other keys is left out, for no device takes it; everything else stays as it is.
    """

    vocabulary: Vocabulary
    """Known tokens."""
    tokenizer: Tokenizer
    """Cuts the text up."""
    lengths: Mapping[str, int]
    """``L`` by key, BOS and EOS among them."""

    def __call__(self, record: Record) -> Record:
        """The record with ids in place of text."""
        found = {key: value for key, value in record.items() if value.dtype.kind not in "OSU"}
        for key, length in self.lengths.items():
            rows = [self.vocabulary.encode(self.tokenizer.split(text), length) for text in texts(record[key])]
            ids = np.stack(rows).reshape(*np.shape(record[key]), length)
            found |= {key: ids, f"{key}_length": np.asarray(np.sum(ids != PAD, axis=-1), np.int32)}
        return found


@dataclasses.dataclass(frozen=True)
class ChooseOne:
    """An ``augment`` of ``train_batches``: of an image's captions, or of other entries in a row, one by chance."""

    keys: tuple[str, ...]
    """Entries with a leading axis of one length; all keep the same place of it."""

    def __call__(self, record: Record, rng: np.random.Generator) -> Record:
        """The record with one entry under each key."""
        place = rng.integers(len(record[self.keys[0]]))
        return record | {key: np.asarray(record[key][place]) for key in self.keys}
