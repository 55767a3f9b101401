"""Tokens against those of Stanford's and sacreBLEU's tokenizers, kept in ``golden/tokens.json``; ids against loops."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqjax.data import text
from seqjax.data.text import (
    CAPTIONS,
    CHARACTERS,
    MT_13A,
    SPECIAL,
    UNK,
    UNKNOWN,
    WORDS,
    ChooseOne,
    TextToIds,
    Vocabulary,
    training_vocabulary,
)
from seqjax.errors import InputError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "tokens.json").read_text())
DEPARTURES = {
    "A bus #42 drives down 5th ave.": {"ave.": ["ave"]},
    "Mr. Smith holds a frisbee": {"mr.": ["mr"]},
    "Gonna play w/ a ball": {"gon": ["gonna"], "na": []},
    "a dog.and a cat": {"dog.and": ["dog", "and"]},
}
"""Where the caption tokens differ from Stanford's, and how."""


@pytest.mark.parametrize(("sentence", "expected"), GOLDEN["ptb"])
def test_caption_tokens_against_stanford(sentence, expected):
    departs = DEPARTURES.get(sentence, {})
    assert CAPTIONS.split(sentence) == [ours for token in expected for ours in departs.get(token, [token])]


@pytest.mark.parametrize(("sentence", "expected"), GOLDEN["13a"])
def test_13a_tokens_against_sacrebleu(sentence, expected):
    assert MT_13A.split(sentence) == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("une cafe\u0301 noire", ["une", "caf\u00e9", "noire"]),
        ("un x\u0301y", ["un", "x\u0301y"]),
        ("\u0915\u093f\u0924\u093e\u092c \u0939\u0948", ["\u0915\u093f\u0924\u093e\u092c", "\u0939\u0948"]),
        ("\u0e17\u0e35\u0e48", ["\u0e17\u0e35\u0e48"]),
        ("\u0130stanbul", ["i\u0307stanbul"]),
        ("a \u2764\ufe0f!", ["a", "\u2764\ufe0f"]),
    ],
    ids=["decomposed", "no composition", "Hindi", "Thai", "Turkish capital", "variation of a sign"],
)
def test_marks_stay_with_their_letters(sentence, expected):
    """Words of the Unicode standard's chapters 7.9, 12.1 and 16.1: a mark belongs to the letter before it."""
    assert CAPTIONS.split(sentence) == expected


def test_plain_tokenizers_give_the_text_back():
    assert WORDS.split(" to  be\n") == ["to", "be"]
    assert WORDS.join(["to", "be"]) == "to be"
    assert CHARACTERS.join(CHARACTERS.split("to be")) == "to be"
    assert text.TOKENIZERS["13a"] is MT_13A


SENTENCES = [["a", "b", "a", "c"], ["b", "a", "d"]]
VOCABULARY = Vocabulary.of(SENTENCES)


def test_vocabulary_has_the_most_frequent_first():
    assert VOCABULARY.tokens == ("a", "b", "c", "d")
    assert VOCABULARY.counts == (3, 2, 1, 1)
    assert len(VOCABULARY) == 8
    assert Vocabulary.of(SENTENCES, least=2).tokens == ("a", "b")
    assert Vocabulary.of(SENTENCES, largest=3).tokens == ("a", "b", "c")
    for limits in ({"least": 4}, {"largest": 0}):
        with pytest.raises(InputError, match="than these 7 tokens"):
            Vocabulary.of(SENTENCES, **limits)


@pytest.mark.parametrize("written", SPECIAL)
def test_what_is_unknown_is_never_right(written):
    """Not even where a text has the special tokens in writing, as those of Mikolov's Penn Treebank."""
    vocabulary = Vocabulary.of([["a", written, written]])
    assert vocabulary.tokens == ("a",)
    for known in (vocabulary, Vocabulary(("a", written), (2, 1))):
        row = known.encode([written, "x", "a"], 5)
        assert row.tolist() == [1, UNK, UNK, 4, 2]
        assert known.decode(row) == [UNKNOWN, UNKNOWN, "a"]


@given(st.text())
def test_no_tokenizer_makes_the_unknown_token(said):
    for tokenizer in text.TOKENIZERS.values():
        for sentence in (said, said + UNKNOWN, f"a {UNKNOWN} b"):
            assert UNKNOWN not in tokenizer.split(sentence)


@given(st.lists(st.sampled_from("abcdxy"), max_size=12), st.integers(2, 14))
def test_ids_against_a_loop(tokens, length):
    expected = [1]
    for token in tokens[: length - 2]:
        expected.append({"a": 4, "b": 5, "c": 6, "d": 7}.get(token, 3))
    expected.append(2)
    expected += [0] * (length - len(expected))
    row = VOCABULARY.encode(tokens, length)
    assert row.dtype == np.int32
    assert row.tolist() == expected
    known = [token if token in "abcd" else UNKNOWN for token in tokens[: length - 2]]
    assert VOCABULARY.decode(row) == VOCABULARY.decode(row[1:]) == known


def test_what_stands_after_the_end_is_no_text():
    assert VOCABULARY.decode(np.array([1, 4, 0, 5, 2, 6, 2])) == ["a", "b"]
    assert VOCABULARY.decode(np.array([4, 5])) == ["a", "b"]
    assert VOCABULARY.decode(np.array([2, 4])) == []


def test_vocabulary_in_a_file(tmp_path):
    known = Vocabulary.of([["é", '"', "b"]])
    known.save(tmp_path / "v.json")
    assert Vocabulary.load(tmp_path / "v.json") == known
    for content in ("{}", "[1", '{"tokens": 3, "counts": []}'):
        (tmp_path / "v.json").write_text(content)
        with pytest.raises(InputError, match=r"v\.json cannot be read as a vocabulary"):
            Vocabulary.load(tmp_path / "v.json")
    with pytest.raises(InputError, match="none cannot be read"):
        Vocabulary.load(tmp_path / "none")


@pytest.fixture
def splits(monkeypatch):
    """A set whose test split has a word of its own."""
    said = {"train": b"a dog", "restval": b"a cat", "test": b"a yak"}

    def opened(name, *, split, config, data_dir, only):
        return [
            {"text": np.asarray(said[part.split("[")[0]]), "note": np.asarray([b"no", b"note"])}
            for part in split.split("+")
        ]

    monkeypatch.setattr(text, "open_source", opened)


def test_vocabulary_is_of_the_training_split(splits):
    def tokens(**arguments):
        return set(training_vocabulary("set", keys=("text",), tokenizer=WORDS, **arguments).tokens)

    assert tokens() == tokens(split="train[:80%]") == {"a", "dog"}
    assert tokens(split="train+restval") == {"a", "dog", "cat"}
    assert set(training_vocabulary("set", keys=("text", "note"), tokenizer=WORDS).tokens) == {"a", "dog", "no", "note"}
    assert tokens(split="train+restval", least=2) == {"a"}
    assert tokens(split="train+restval", largest=2) == {"a", "cat"}
    for split in ("test", "train+test", "test[:10%]", "validation", "all"):
        with pytest.raises(InputError, match="not for training"):
            tokens(split=split)


def test_a_vocabulary_is_kept(splits, tmp_path, monkeypatch):
    keep = tmp_path / "vocabulary.json"
    one = training_vocabulary("set", keys=("text",), tokenizer=WORDS, keep=keep)
    monkeypatch.setattr(text, "open_source", None)
    assert training_vocabulary("not there", keys=("text",), tokenizer=WORDS, keep=keep) == one
    assert [path.name for path in tmp_path.iterdir()] == ["vocabulary.json"]


RECORD = {
    "captions": np.array([b"A b.", "c d e é".encode(), b""], object),
    "title": np.asarray(b"B!"),
    "left_out": np.array([[b"x"]], object),
    "place": np.arange(3),
}


def test_text_becomes_ids_and_lengths():
    record = TextToIds(VOCABULARY, CAPTIONS, {"captions": 5, "title": 3})(RECORD)
    assert record.keys() == {"captions", "captions_length", "title", "title_length", "place"}
    assert record["captions"].tolist() == [[1, 4, 5, 2, 0], [1, 6, 7, 3, 2], [1, 2, 0, 0, 0]]
    assert record["captions_length"].tolist() == [4, 5, 2]
    assert (record["title"].tolist(), record["title_length"]) == ([1, 5, 2], 3)
    assert {record[key].dtype for key in ("captions", "captions_length", "title_length")} == {np.dtype(np.int32)}
    np.testing.assert_array_equal(record["place"], RECORD["place"])


def test_one_entry_is_chosen_of_all_keys_alike():
    chosen = []
    for seed in range(30):
        record = ChooseOne(("captions", "place"))(RECORD, np.random.default_rng(seed))
        assert text.texts(record["captions"]) == [RECORD["captions"][record["place"]].decode()]
        assert record["title"] is RECORD["title"]
        chosen.append(int(record["place"]))
    assert set(chosen) == {0, 1, 2}


def test_ids_that_no_token_has_are_unknown():
    """A network may know more ids than a small set has words."""
    vocabulary = Vocabulary(("a", "b"), (2, 1))
    assert vocabulary.decode(np.array([1, 5, 6, 99, 4, 2, 4])) == ["b", UNKNOWN, UNKNOWN, "a"]
