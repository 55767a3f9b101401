"""Writes ``golden/captions.json``: what the field's own packages give. Run by hand: ``python golden_captions.py``.

Needs pycocoevalcap, sacrebleu and rouge-score, which the tests do not. Two corpora: the one of the specification, and
one drawn from a few words, with one to five references each, copies, repetitions, single words and an empty text.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import sacrebleu
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from rouge_score import rouge_scorer

WORDS = [
    *("a", "the", "dog", "cat", "bird", "red", "blue", "sits"),
    *("runs", "on", "under", "grass", "mat", "and", "two", "is"),
]
SAID = ["a red square is left of a blue circle", "a dog runs on the green grass"]
KNOWN = [
    ["a red square is left of a blue circle", "a red box sits left of a blue ball"],
    ["a brown dog runs on grass", "the dog is running on the green grass"],
]


def drawn(number=40):
    rng = np.random.default_rng(0)
    said, known = [], []
    for i in range(number):
        references = [rng.choice(WORDS, rng.integers(2, 12)).tolist() for _ in range(1 + i % 5)]
        text = list(references[i % len(references)])
        for _ in range(i % 4):
            text[rng.integers(len(text))] = str(rng.choice(WORDS))
        said.append(" ".join(text[: rng.integers(1, len(text) + 1)] if i % 3 else text))
        known.append([" ".join(reference) for reference in references])
    said[5:9] = ["", "dog", "the the the the the the the", known[8][0]]
    return said, known


def scores(said, known):
    given, truth = {i: [text] for i, text in enumerate(said)}, dict(enumerate(known))
    rouge = rouge_scorer.RougeScorer(["rougeL"])
    most = max(map(len, known))
    streams = [[texts[k] if k < len(texts) else None for texts in known] for k in range(most)]
    return {
        "said": said,
        "known": known,
        "bleu": Bleu(4).compute_score(truth, given, verbose=0)[0],
        "rouge_l": np.asarray(Rouge().compute_score(truth, given)[1]).tolist(),
        "cider_d": np.asarray(Cider().compute_score(truth, given)[1]).tolist(),
        "sacrebleu": sacrebleu.corpus_bleu(said, streams, tokenize="none", force=True).score,
        "rouge_score": [
            rouge.score(texts[0], text)["rougeL"].fmeasure for text, texts in zip(said, known, strict=True)
        ],
    }


if __name__ == "__main__":
    packages = ("pycocoevalcap", "sacrebleu", "rouge-score", "numpy")
    golden = {"versions": {name: version(name) for name in packages}}
    golden |= {"given": scores(SAID, KNOWN), "drawn": scores(*drawn())}
    path = Path(__file__).parent / "golden" / "captions.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(golden, indent=1) + "\n")
    print(path.stat().st_size, golden["versions"], golden["given"])
