"""Pairs as ids against the texts that they are made from."""

import dataclasses

import numpy as np
import pytest

from seqjax.data import sentence_pairs
from seqjax.data.sentence_pairs import (
    Pairs,
    first_pairs,
    learn_language,
    measured,
    open_pairs,
    pair_batches,
    pair_tests,
    references,
)
from seqjax.data.source import open_source
from seqjax.data.text import BOS, EOS, PAD, UNK, UNKNOWN, WORDS, Tokenizer, texts
from seqjax.errors import InputError


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(config="tiny", data_dir=str(tmp_path_factory.mktemp("data")), length=14, batch=8)


def raw(pairs, split, side):
    source = open_source(pairs.name, split=split, config=pairs.config, data_dir=pairs.data_dir)
    return [texts(source[i][side])[0] for i in range(len(source))]


@pytest.mark.parametrize(("sizes", "subwords"), [((200,), 0), ((200, 150), 0), ((100,), 40)])
def test_ids_are_the_texts(pairs, sizes, subwords):
    pairs = dataclasses.replace(pairs, subwords=subwords, length=14 if not subwords else 60)
    language = learn_language(pairs, sizes)
    assert (language.vocabularies[0] is language.vocabularies[1]) is (len(sizes) == 1)
    assert all(len(v) <= size for v, size in zip(language.vocabularies, sizes, strict=False))
    source = open_pairs(pairs, language, "train")
    for i, text in enumerate(raw(pairs, "train", "target")):
        row = source[i]["target"]
        assert source[i]["index"] == i
        assert (row[0], row.dtype, row.shape) == (BOS, np.int32, (pairs.length,))
        assert row[source[i]["target_length"] - 1] == EOS
        assert not (row == UNK).any()
        assert language.words(row) == text.split()
    first = language.vocabularies[0].decode(source[0]["source"])
    assert first == language.pieces(raw(pairs, "train", "source")[0])


def test_the_longer_set_differs_in_its_configuration_alone(pairs):
    assert measured(pairs) == {"": pairs}
    longer = dataclasses.replace(pairs, longer="reverse_17_to_24")
    found = measured(longer)
    assert found == {"": longer, "reverse_17_to_24": dataclasses.replace(longer, config="reverse_17_to_24")}


def test_words_of_held_out_pairs_may_be_unknown(pairs):
    """Ids are of the training split alone, references are text."""
    language = learn_language(pairs, (30, 30))
    known = set(language.vocabularies[1].tokens)
    assert known <= {word for text in raw(pairs, "train", "target") for word in text.split()}
    expected = references(pairs, language, "test")
    assert expected == {i: [text.split()] for i, text in enumerate(raw(pairs, "test", "target"))}
    source = open_pairs(pairs, language, "test")
    for i, (words,) in expected.items():
        assert language.words(source[i]["target"]) == [w if w in known else UNKNOWN for w in words]


def test_what_was_learned_is_kept(pairs, tmp_path):
    pairs = dataclasses.replace(pairs, subwords=20)
    one = learn_language(pairs, (100,), keep=tmp_path / "vocabulary.json")
    again = learn_language(dataclasses.replace(pairs, name="not there"), (100,), keep=tmp_path / "vocabulary.json")
    assert again == one
    assert [path.name for path in tmp_path.iterdir()] == ["vocabulary.json"]
    (tmp_path / "vocabulary.json").write_text('{"merges"')
    with pytest.raises(InputError, match="cannot be read as the vocabularies of a run"):
        learn_language(pairs, (100,), keep=tmp_path / "vocabulary.json")


def test_batches_with_buckets_and_without(pairs):
    language = learn_language(pairs, (200,))
    source = open_pairs(pairs, language, "train")
    start = {"seed": 0, "start_step": 0, "steps_per_call": 1}
    batch = next(iterator := pair_batches(pairs, source, **start))
    iterator.close()
    assert batch["source"].shape == batch["target"].shape == (8, 14)
    bucketed = pair_batches(dataclasses.replace(pairs, bounds=(9, 14)), source, **start)
    lengths = {next(bucketed)["target"].shape[1] for _ in range(6)}
    bucketed.close()
    assert lengths == {9, 14}
    budget = dataclasses.replace(pairs, bounds=(9, 14), batch=2, tokens=40)
    by_tokens = pair_batches(budget, source, **start)
    assert {next(by_tokens)["target"].shape for _ in range(20)} == {(4, 9), (2, 14)}
    by_tokens.close()
    with pytest.raises(InputError, match="tokens=40 make batches of buckets"):
        pair_batches(dataclasses.replace(budget, bounds=()), source, **start)
    tests = list(pair_tests(pairs, open_pairs(pairs, language, "test")))
    assert np.concatenate([batch["index"] for batch in tests]).tolist() == list(range(16))
    assert first_pairs(source, 3)["source"].shape == (3, 14)
    assert (first_pairs(source, 3)["source"] == PAD).any()


def test_long_pairs_are_left_out_of_training_and_never_cut(pairs):
    """Sentences of the translate rule have 7 to 11 words a side, with BOS and EOS up to 13."""
    pairs = dataclasses.replace(pairs, length=9)
    language = learn_language(pairs, (200,))
    both = {
        split: list(zip(raw(pairs, split, "source"), raw(pairs, split, "target"), strict=True))
        for split in ("train", "test")
    }
    short = [i for i, texts in enumerate(both["train"]) if all(len(text.split()) <= 7 for text in texts)]
    assert 0 < len(short) < len(both["train"])
    assert any(len(text.split()) > 7 for texts in both["test"] for text in texts)
    train, test = open_pairs(pairs, language, "train"), open_pairs(pairs, language, "test")
    assert [int(train[i]["index"]) for i in range(len(train))] == short
    assert train[0]["source"].shape == (9,)
    assert len(test) == len(both["test"])
    for i, (source, target) in enumerate(both["test"]):
        for side, text in (("source", source), ("target", target)):
            assert test[i][f"{side}_length"] == len(text.split()) + 2
            assert test[i][side].shape == (max(len(t.split()) for ts in both["test"] for t in ts) + 2,)
    assert open_pairs(dataclasses.replace(pairs, length=20), language, "test")[0]["source"].shape == (20,)
    assert len(open_pairs(dataclasses.replace(pairs, in_memory=False), language, "train")) == len(short)
    with pytest.raises(InputError, match="length=5 leaves no pair of transduction to train on, the shortest has"):
        open_pairs(dataclasses.replace(pairs, length=5), language, "train")


def test_lengths_are_computed_once(pairs, tmp_path, monkeypatch):
    """And anew for another split, another vocabulary and a tokenizer that cuts otherwise."""
    pairs = dataclasses.replace(pairs, in_memory=False)
    language, keep, calls = learn_language(pairs, (200,)), tmp_path / "lengths.npz", []
    longest = sentence_pairs._longest
    monkeypatch.setattr(sentence_pairs, "_longest", lambda *those: calls.append(1) or longest(*those))

    def found(language, split):
        return open_pairs(pairs, language, split, keep=keep).longest.tolist()

    sizes = [
        2 + max(len(source.split()), len(target.split()))
        for source, target in zip(raw(pairs, "train", "source"), raw(pairs, "train", "target"), strict=True)
    ]
    assert found(language, "train") == found(language, "train") == sizes
    assert len(calls) == 1
    letters = language._replace(tokenizer=Tokenizer(WORDS.name, lambda text: [text]))
    assert set(found(letters, "train")) == {3}
    assert len(calls) == 2
    assert found(learn_language(pairs, (30,)), "train") == sizes
    assert len(found(language, "test")) == 16
    assert len(calls) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["lengths.npz"]


def test_lengths_of_what_stands_in_for_damage_are_not_kept(pairs, tmp_path, monkeypatch):
    opened = sentence_pairs._opened

    class Damaged:
        def __init__(self, source):
            self.source, self.damaged = source, {3: "for this test"}

        def __len__(self):
            return len(self.source)

        def __getitem__(self, i):
            return self.source[i]

    monkeypatch.setattr(sentence_pairs, "_opened", lambda *those: Damaged(opened(*those)))
    open_pairs(pairs, learn_language(pairs, (200,)), "train", keep=tmp_path / "lengths.npz")
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_is_refused_by_name(pairs):
    with pytest.raises(InputError, match="transduction has no texts \\['pt'\\], but"):
        learn_language(dataclasses.replace(pairs, source="pt"), (9,))
    with pytest.raises(InputError, match="tokenizer='words' is unknown"):
        learn_language(dataclasses.replace(pairs, tokenizer="words"), (9,))
