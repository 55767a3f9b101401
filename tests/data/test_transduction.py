"""Pairs against the rules as somebody else would write them down: by reading the English, word by word."""

import pytest

from seqjax.data import transduction
from seqjax.data.source import open_source
from seqjax.data.text import texts
from seqjax.data.transduction import NAMED, SPLITS, TransductionConfig
from seqjax.errors import InputError

LEXICON = transduction.NOUNS | transduction.ADJECTIVES | transduction.VERBS | transduction.ADVERBS
SINGULAR = {"children": "child", "thieves": "thief", "wolves": "wolf"}


def phrase(words):
    """Translation of "the small red dogs", from its words."""
    article, *adjectives, noun = words
    base = SINGULAR.get(noun, noun.removesuffix("s"))
    plural = base != noun
    assert not (article == "a" and plural)
    assert plural or article not in ("some", "two")
    ending = "n" if plural else ""
    said = [LEXICON[base] + ending]
    if article == "the":
        said[0] += "t"
    for adjective in adjectives:
        said.insert(1, LEXICON[adjective] + "o" + ending)
    return said + {"the": [], "a": ["un"], "some": ["mer"], "two": ["dva"]}[article], plural


def translated(sentence):
    words = sentence.split()
    adverb = words.pop() if words[-1] in transduction.ADVERBS else None
    verbs = {form: verb for verb in transduction.VERBS for form in (verb, verb[:-1])}
    (place,) = [i for i, word in enumerate(words) if word in verbs]
    (subject, plural), (thing, _) = phrase(words[:place]), phrase(words[place + 1 :])
    assert (words[place] == verbs[words[place]]) is not plural
    said = [LEXICON[adverb]] if adverb else []
    said += thing + subject
    said += ["ei"] if adverb == "never" else []
    return " ".join([*said, LEXICON[verbs[words[place]]] + ("vat" if plural else "va")])


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def pairs(directory, split="train", **fields):
    config = TransductionConfig(**{"train": 200, "validation": 30, "test": 30} | fields)
    source = open_source("transduction", split=split, config=config, data_dir=directory)
    records = [source[i] for i in range(len(source))]
    assert [int(record["index"]) for record in records] == list(range(len(source)))
    return [(texts(record["source"])[0], texts(record["target"])[0]) for record in records]


def test_translations_by_an_independent_reader(directory):
    found = pairs(directory)
    for source, target in found:
        assert target == translated(source)
    words = {word for source, _ in found for word in source.split()}
    assert words >= set(transduction.ADJECTIVES) | set(transduction.ADVERBS) | set(transduction.ARTICLES)
    lengths = [len(source.split()) for source, _ in found]
    assert (min(lengths), max(lengths)) == (5, 10)


def test_sentences_by_hand():
    """Each rule once."""
    say = transduction.Phrase
    king, dogs = say("the", ("kind", "tall"), "king", False), say("two", ("red",), "dog", True)
    sentence = transduction.Sentence(dogs, "sees", king, "never")
    assert " ".join(sentence.english()) == "two red dogs see the kind tall king never"
    assert " ".join(sentence.translated()) == "neva regot korko liso karon rusko" + "n dva ei nakvat"
    wolves = transduction.Sentence(say("a", (), "child", False), "loves", say("the", (), "wolf", True), None)
    assert " ".join(wolves.english()) == "a child loves the wolves"
    assert " ".join(wolves.translated()) == "susint sano un rakva"


def test_every_word_has_one_meaning():
    words = [*transduction.NOUNS, *transduction.ADJECTIVES, *transduction.VERBS, *transduction.ADVERBS]
    assert len(set(words)) == len(words) == len(LEXICON) == len(set(LEXICON.values()))
    assert all(word[0] not in "aeiou" for word in [*transduction.NOUNS, *transduction.ADJECTIVES])  # "a", never "an"


@pytest.mark.parametrize(
    ("task", "rule"), [("reverse", lambda s: s[::-1]), ("sort", lambda s: " ".join(sorted(s.split())))]
)
def test_strings_of_digits(directory, task, rule):
    found = pairs(directory, task=task, shortest=4, longest=6)
    assert all(target == rule(source) for source, target in found)
    assert {len(source.split()) for source, _ in found} == {4, 5, 6}
    assert {word for source, _ in found for word in source.split()} == set("0123456789")


def test_no_source_is_in_two_splits(directory):
    """Strings of four digits, of which there are so few that pairs would meet by chance."""
    found = [
        {source for source, _ in pairs(directory, split, task="sort", shortest=4, longest=4, train=3000)}
        for split in SPLITS
    ]
    assert len(found[0]) > 2500
    assert len(set.union(*found)) == sum(map(len, found))
    assert min(map(len, found)) >= 27


def test_pairs_depend_on_seed_split_and_place_alone(directory):
    few = pairs(directory, train=5)
    assert few == pairs(directory)[:5]
    assert few != pairs(directory, train=5, seed=1)
    assert few != pairs(directory, "test")[:5]


@pytest.mark.parametrize(
    "fields", [{"task": "copy"}, {"shortest": 3}, {"longest": 15}, {"test": 0}, {"seed": -1}, {"name": "x"}]
)
def test_settings_that_make_no_sense(fields, unchecked):
    (field,) = fields
    with pytest.raises(InputError, match=f"^{field}=.* in a TransductionConfig"):
        TransductionConfig(**fields)


def test_names_of_configurations():
    assert list(transduction.Transduction.builder_configs) == list(NAMED)
    assert TransductionConfig(task="sort", longest=20).name == "sort_16to20_20000_1000_1000_seed0"
    assert TransductionConfig(test=5).name == "translate_20000_1000_5_seed0"
    backwards = ["reverse_16", "reverse_4_to_16", "reverse_17_to_24"]
    assert [name for name in (None, *NAMED) if transduction.writes_backwards(name)] == backwards
