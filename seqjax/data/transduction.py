"""Pairs of sequences of which one follows from the other by a known rule, as a tfds data set.

- ``reverse``, ``sort``: strings of digits, to be written backwards or in order;
- ``translate``: sentences of a small English, to be said in an invented language by fixed rules of lexicon, order and
  agreement. What takes attention in a real translation is there in little: a word's place and form depend on words
  elsewhere in the sentence, some words give rise to two, some to none.

The rules are functions, so every output of a model can be judged, whether or not it stands in the set. No source of one
split is in another.
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from seqjax.errors import InputError

SPLITS = ("train", "validation", "test")
SHARES = {"train": range(18), "validation": range(18, 19), "test": range(19, 20)}
"""Of twenty parts into which all sources fall by a checksum, those that a split draws from."""

ARTICLES = {"the": "", "a": "un", "some": "mer", "two": "dva"}
PLURAL = {"a": False, "some": True, "two": True}
"""Whether the noun after an article is plural; after "the" it may be either."""
NOUNS = {
    **{"dog": "karo", "cat": "mita", "bird": "pelu", "child": "sano", "king": "rego", "farmer": "teru"},
    **{"horse": "hevo", "sailor": "nauta", "doctor": "leko", "thief": "voro", "wolf": "susi", "queen": "dama"},
}
ADJECTIVES = {
    **{"red": "rusk", "small": "vik", "grey": "gam", "quick": "nop", "kind": "lis", "tall": "kork"},
    **{"young": "nuor", "black": "must"},
}
VERBS = {
    **{"sees": "nak", "hears": "kuul", "follows": "sek", "helps": "pom", "finds": "loy", "greets": "terv"},
    **{"fears": "pelk", "loves": "rak"},
}
ADVERBS = {"today": "tana", "often": "use", "never": "neva"}
PLURALS = {"child": "children", "thief": "thieves", "wolf": "wolves"}
"""Plural nouns that do not just take an s."""


def backwards(words: list[str]) -> list[str]:
    """The rule of ``reverse``."""
    return words[::-1]


def in_order(words: list[str]) -> list[str]:
    """The rule of ``sort``."""
    return sorted(words)


class Phrase(NamedTuple):
    """An article, up to two adjectives, a noun in its basic form, and whether it speaks of several."""

    article: str
    adjectives: tuple[str, ...]
    noun: str
    plural: bool

    def english(self) -> list[str]:
        """Its words."""
        noun = PLURALS.get(self.noun, f"{self.noun}s") if self.plural else self.noun
        return [self.article, *self.adjectives, noun]

    def translated(self) -> list[str]:
        """The noun, plural in -n; its adjectives behind it, the last first, ending like it; its article last.

        "the" becomes the noun's ending -t instead of a word.
        """
        ending = "n" if self.plural else ""
        article = ARTICLES[self.article]
        noun = NOUNS[self.noun] + ending + ("" if article else "t")
        return [
            noun,
            *(f"{ADJECTIVES[a]}o{ending}" for a in reversed(self.adjectives)),
            *([article] if article else []),
        ]


class Sentence(NamedTuple):
    """Who does what to whom, and when if that is said."""

    subject: Phrase
    verb: str
    object: Phrase
    adverb: str | None

    def english(self) -> list[str]:
        """Subject, verb, object, adverb."""
        verb = self.verb.removesuffix("s") if self.subject.plural else self.verb
        return [*self.subject.english(), verb, *self.object.english(), *([self.adverb] if self.adverb else [])]

    def translated(self) -> list[str]:
        """Adverb, object, subject, verb, which ends in -vat after a plural subject, else in -va.

        "never" also puts "ei" before the verb.
        """
        adverb = [ADVERBS[self.adverb]] if self.adverb else []
        negation = ["ei"] if self.adverb == "never" else []
        verb = VERBS[self.verb] + ("vat" if self.subject.plural else "va")
        return [*adverb, *self.object.translated(), *self.subject.translated(), *negation, verb]


def draw_sentence(rng: np.random.Generator) -> Sentence:
    """Every word of a kind is as likely as any other; so are no, one and two adjectives, and no adverb and each."""

    def one(words: Any) -> str:
        return list(words)[rng.integers(len(words))]

    def phrase() -> Phrase:
        adjectives = [list(ADJECTIVES)[i] for i in rng.choice(len(ADJECTIVES), rng.integers(3), replace=False)]
        article, plural = one(ARTICLES), bool(rng.integers(2))
        return Phrase(article, tuple(adjectives), one(NOUNS), PLURAL.get(article, plural))

    adverbs = [None, *ADVERBS]
    return Sentence(phrase(), one(VERBS), phrase(), adverbs[rng.integers(len(adverbs))])


def draw_pair(rng: np.random.Generator, task: str, shortest: int, longest: int) -> tuple[list[str], list[str]]:
    """Source and target of one pair, as words; the lengths are of digit strings alone, uniform, both included."""
    if task == "translate":
        sentence = draw_sentence(rng)
        return sentence.english(), sentence.translated()
    digits = [str(digit) for digit in rng.integers(10, size=rng.integers(shortest, longest, endpoint=True))]
    return digits, RULES[task](digits)


def writes_backwards(config: str | None) -> bool:
    """Whether a configuration, by its name, has the rule of ``reverse``."""
    return NAMED.get(config or "", {}).get("task") == "reverse"


RULES: dict[str, Callable[[list[str]], list[str]]] = {"reverse": backwards, "sort": in_order}

NAMED: dict[str, dict[str, Any]] = {
    "translate": {},
    "reverse_16": {"task": "reverse"},
    "sort_16": {"task": "sort"},
    "reverse_4_to_16": {"task": "reverse", "shortest": 4},
    "reverse_17_to_24": {"task": "reverse", "shortest": 17, "longest": 24},
    "tiny": {"train": 64, "validation": 16, "test": 16},
}
"""Configurations by name: the invented language (the default); strings of 16 digits; of 4 to 16; of 17 to
24, longer than those of the others; and a few sentences for tests."""


@dataclasses.dataclass(eq=False, kw_only=True)
class TransductionConfig(tfds.core.BuilderConfig):
    """Settings of one set of pairs; each field changes what is on disk.

    Raises:
      InputError: an unknown task, lengths or counts out of range, a negative seed, a name.
    """

    name: str = ""
    """Leave it out: it is spelt from the other fields, so that no two sets share a directory."""
    task: Literal["translate", "reverse", "sort"] = "translate"
    """Which rule."""
    shortest: int = 16
    """Digits of the shortest string, of ``reverse`` and ``sort``, 4 or more."""
    longest: int = 16
    """Digits of the longest."""
    train: int = 20_000
    """Pairs for training."""
    validation: int = 1_000
    """Pairs for validation."""
    test: int = 1_000
    """Pairs for testing."""
    seed: int = 0
    """Pair ``i`` of a split depends on the seed, the split and ``i`` alone."""

    def __post_init__(self) -> None:
        for field, least in {**dict.fromkeys(SPLITS, 1), "seed": 0, "shortest": 4, "longest": self.shortest}.items():
            if getattr(self, field) < least:
                raise InputError(f"{field}={getattr(self, field)} in a TransductionConfig: give {least} or more.")
        if self.task not in ("translate", *RULES):
            raise InputError(f"task={self.task!r} in a TransductionConfig: give {['translate', *RULES]}.")
        if self.name and self.name not in NAMED:
            raise InputError(f"name={self.name!r} in a TransductionConfig: leave it out, it follows from the rest.")
        lengths = "" if self.task == "translate" else f"_{self.shortest}to{self.longest}"
        counts = "_".join(str(getattr(self, split)) for split in SPLITS)
        self.name = self.name or f"{self.task}{lengths}_{counts}_seed{self.seed}"


class Transduction(tfds.core.GeneratorBasedBuilder):
    """The pairs of a ``TransductionConfig``, prepared without TensorFlow.

    A record has ``source`` and ``target``, text whose words stand between blanks, and ``index`` int64, its place in the
    split. A pair may come twice in one split.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [TransductionConfig(name=name, **fields) for name, fields in NAMED.items()]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"source": tfds.features.Text(), "target": tfds.features.Text(), "index": np.int64}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Sequences of words, and what follows from them by a rule.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        for i in range(getattr(config, split)):
            rng = np.random.default_rng([config.seed, SPLITS.index(split), i])
            while True:
                source, target = (
                    " ".join(words) for words in draw_pair(rng, config.task, config.shortest, config.longest)
                )
                if zlib.crc32(source.encode()) % 20 in SHARES[split]:
                    break
            yield i, {"source": source, "target": target, "index": i}
