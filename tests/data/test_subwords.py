"""Byte pair encoding against the paper's example and an encoder that counts everything anew at every merge."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqjax.data.subwords import END, Subwords, learn_subwords
from seqjax.errors import InputError

PAPER = {"low": 5, "lower": 2, "newest": 6, "widest": 3}


def slowly(words, merges):
    """The paper's algorithm 1, ties by alphabet."""
    spelt, found = {word: [*word[:-1], word[-1] + END] for word in words}, []
    for _ in range(merges):
        pairs = Counter()
        for word, pieces in spelt.items():
            for pair in itertools.pairwise(pieces):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        found.append(best)
        for word, pieces in spelt.items():
            i, new = 0, []
            while i < len(pieces):
                both = tuple(pieces[i : i + 2]) == best
                new.append("".join(pieces[i : i + 1 + both]))
                i += 1 + both
            spelt[word] = new
    return found, spelt


def test_merges_of_the_papers_words():
    found = learn_subwords(PAPER, 3)
    assert found.merges == (("e", "s"), ("es", f"t{END}"), ("l", "o"))
    assert found.cut(["lowest", "low"]) == ["lo", "w", f"est{END}", "lo", f"w{END}"]


@pytest.mark.parametrize("seed", range(4))
def test_counts_that_are_kept_equal_counts_that_are_made_anew(seed):
    """Words of three letters, repetitions such as aaaa among them, until nothing is left to merge."""
    rng = np.random.default_rng(seed)
    words = {
        "".join("abc"[i] for i in rng.integers(3, size=rng.integers(1, 9))): int(rng.integers(1, 9)) for _ in range(40)
    }
    words["aaaa"] = 7
    for merges in (5, 1000):
        expected, spelt = slowly(words, merges)
        found = learn_subwords(words, merges)
        assert list(found.merges) == expected
        for word, pieces in spelt.items():
            assert found.cut([word]) == pieces


def test_words_come_back_and_unknown_letters_stand_alone():
    found = learn_subwords(PAPER, 10)
    words = ["slow", "newest", "x", "widest"]
    pieces = found.cut(words)
    assert Subwords.words(pieces) == words
    assert len(pieces) < sum(map(len, words))
    assert Subwords.words(["lo", "w"]) == ["low"]
    assert learn_subwords(PAPER, 0).cut(["low"]) == ["l", "o", f"w{END}"]


@given(
    st.lists(st.text(alphabet="ab \\</w>\n", min_size=1) | st.sampled_from([END, f"a{END}", "\\", " ", f"\\{END}b"]))
)
def test_any_words_come_back(words):
    """The sign for the end in writing, blanks as the characters tokenizer has them, backslashes."""
    for merges in (0, 50):
        assert Subwords.words(learn_subwords(Counter(words), merges).cut(words)) == words


def test_an_empty_word_has_no_pieces():
    assert learn_subwords({"": 3, "ab": 1}, 5).cut(["", "ab", ""]) == [f"ab{END}"]


def test_other_words_are_spelt_without_signs_of_their_own():
    assert learn_subwords({}, 0).cut(["a\\b", "<w>"]) == ["a", "\\", f"b{END}", "<", "w", f">{END}"]


def test_a_negative_number_is_refused():
    with pytest.raises(InputError, match="merges is -1"):
        learn_subwords(PAPER, -1)
