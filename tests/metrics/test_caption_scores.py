"""BLEU, ROUGE-L and CIDEr-D against pycocoevalcap, sacreBLEU and rouge-score (``golden_captions.py``), and by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.metrics.bleu import bleu
from seqjax.metrics.captions import corpus_scores
from seqjax.metrics.cider import cider_d, document_frequency
from seqjax.metrics.ngrams import ngrams
from seqjax.metrics.rouge import rouge_l

GOLDEN = json.loads((Path(__file__).parent / "golden" / "captions.json").read_text())


@pytest.fixture(params=["given", "drawn"])
def corpus(request):
    """Hypotheses, references, and what the packages give."""
    golden = GOLDEN[request.param]
    return [text.split() for text in golden["said"]], [[t.split() for t in texts] for texts in golden["known"]], golden


def test_bleu_against_the_packages(corpus):
    said, known, golden = corpus
    found = bleu(said, known)
    np.testing.assert_allclose(found, golden["bleu"], rtol=1e-9)
    assert 100 * found[3] == pytest.approx(golden["sacrebleu"], rel=1e-12)
    assert bleu(said, known, order=2) == found[:2]


def test_rouge_l_against_the_packages(corpus):
    said, known, golden = corpus
    np.testing.assert_allclose(rouge_l(said, known), golden["rouge_l"], rtol=1e-12)
    one = rouge_l(said, [texts[:1] for texts in known], beta=1.0)
    np.testing.assert_allclose(one, golden["rouge_score"], rtol=1e-12)


def test_cider_d_against_the_package(corpus):
    said, known, golden = corpus
    np.testing.assert_allclose(cider_d(said, known), golden["cider_d"], rtol=1e-12, atol=1e-12)


def test_scores_of_the_specification():
    """Figures published with the definitions, for the two captions of the golden file."""
    said, known = (
        [t.split() for t in GOLDEN["given"]["said"]],
        [[t.split() for t in r] for r in GOLDEN["given"]["known"]],
    )
    figures = corpus_scores(said, known)
    assert [round(figures[f"bleu_{n}"], 6) for n in (1, 2, 3, 4)] == [1.0, 0.963624, 0.918075, 0.857893]
    assert round(figures["rouge_l"], 6) == 0.890026
    assert round(figures["cider_d"], 6) == 5.445529
    assert (figures["exact"], figures["samples"]) == (0.5, 2)


def test_counts_are_clipped_to_one_reference():
    """ "the" seven times, twice in the first reference: 2/7 (Papineni et al., section 2.1)."""
    known = [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]
    assert bleu([["the"] * 7], [known], order=1) == [pytest.approx(2 / 7)]
    assert ngrams(["a", "b", "a", "b"], 2) == {("a", "b"): 2, ("b", "a"): 1}
    assert ngrams(["a"], 2) == {}


def test_brevity_by_the_nearest_reference_the_shorter_of_two():
    said, known = [["a", "b", "c"]], [[["a", "b", "c", "d"], ["a", "b"]]]
    assert bleu(said, known, order=1) == [1.0]  # 2 and 4 are equally near: 2, and no penalty
    assert bleu(said, [[known[0][0]]], order=1) == [pytest.approx(math.exp(1 - 4 / 3))]


def test_bleu_without_a_common_run_is_zero():
    assert bleu([["a", "b"], []], [[["b", "a"]], [["c"]]]) == [pytest.approx(math.exp(1 - 3 / 2)), 0, 0, 0]
    assert bleu([[]], [[["a"]]], order=2) == [0, 0]


def test_corpus_bleu_is_no_mean():
    said, known = [["a"], ["c", "c", "c", "d"]], [[["a"]], [["c", "c", "c", "e"]]]
    assert bleu(said, known, order=1) == [pytest.approx(4 / 5)]


def test_subsequence_may_have_gaps():
    gaps = rouge_l([["a", "x", "b", "y", "c"]], [[["a", "b", "c", "d"]]], beta=1.0)
    assert gaps == [pytest.approx(2 * 0.6 * 0.75 / 1.35)]
    assert rouge_l([["b", "a"]], [[["a", "b"]]], beta=1.0) == [pytest.approx(0.5)]
    assert rouge_l([[]], [[["a"]]]) == [0]
    assert rouge_l([["a"]], [[[], ["a"]]]) == [1]


def test_perfect_copies_have_ten():
    said = [["a", "b", "c", "d", "e"], ["f", "g", "h", "i"], ["j", "k", "l", "m", "n"]]
    np.testing.assert_allclose(cider_d(said, [[text] for text in said]), 10)


def test_one_item_alone_tells_nothing_but_a_table_does():
    said, known = [["a", "dog"]], [[["a", "dog"]]]
    assert cider_d(said, known) == [0]
    table = document_frequency([*known, [["a", "cat"], ["a", "dog"]], [["a", "fish"]]])
    assert (table.items, table.counts["a",], table.counts["a", "dog"]) == (3, 3, 2)
    # One token and one pair of tokens carry weight, three and four in a row do not occur.
    assert cider_d(said, known, frequency=table) == [pytest.approx(5)]
    # "a" is everywhere and weighs nothing, so "dog" alone is as good, but for the length: one pair of tokens less.
    assert cider_d([["dog"]], known, frequency=table) == [pytest.approx(2.5 * math.exp(-1 / 72))]


@pytest.mark.parametrize("score", [bleu, rouge_l, cider_d, corpus_scores])
@pytest.mark.parametrize(
    ("said", "known", "words"),
    [
        ([], [], "0 hypotheses"),
        ([["a"]], [], "with 0 sets"),
        ([["a"], ["b"]], [[["a"]], []], "1 of them empty"),
        (["a b"], [[["a"]]], "'a b' came: tokenize"),
        ([["a"]], [["a"]], "'a' came: tokenize"),
    ],
)
def test_what_is_no_corpus(score, said, known, words):
    with pytest.raises(InputError, match=words):
        score(said, known)
