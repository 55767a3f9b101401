"""Where attention should be is known where strings are written backwards; longer texts are measured apart."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.language import seq2seq as recipe
from experiments.language import transformer
from seqjax.data.sentence_pairs import Language, Pairs
from seqjax.data.text import WORDS, Vocabulary
from seqjax.ops.tokens import BOS, EOS, PAD

DIGITS = Vocabulary(("1", "2", "3"), (1, 1, 1))
LANGUAGE = Language((DIGITS, DIGITS), None, WORDS)


@pytest.mark.parametrize(
    ("system", "config", "known"),
    [
        *(("bahdanau", "reverse_16", True), ("luong", "reverse_4_to_16", True)),
        *(("plain", "reverse_16", False), ("luong", "sort_16", False), ("luong", "translate", False)),
    ],
)
def test_where_attention_should_be(system, config, known, monkeypatch):
    monkeypatch.setattr(recipe, "references", lambda *_: {0: [["1"]]})
    one = recipe.alone(recipe.Config(data=Pairs(config=config)), system)
    assert ("weights" in recipe.metrics(one, one.data, LANGUAGE, 18).init()) == known


def test_the_source_itself_is_looked_at_everywhere_alike():
    """Of 2 words and BOS and EOS, a quarter at each; the anti-diagonal has as much."""
    source = jnp.asarray([[BOS, 4, 5, EOS, PAD], [BOS, 6, EOS, PAD, PAD]])
    found = recipe.copy(recipe.Config(), LANGUAGE, {}, {"source": source, "target": source})
    expected = np.array([[1 / 4] * 4 + [0], [1 / 3] * 3 + [0] * 2])[:, None].repeat(4, axis=1)
    np.testing.assert_allclose(found["weights"], expected, rtol=1e-6)
    assert found["texts"][0, :3].tolist() == [4, 5, EOS]


@pytest.mark.parametrize("recipe", [recipe, transformer])
def test_longer_texts_are_measured_apart(recipe, tmp_path):
    config = dataclasses.replace(recipe.PRESETS["tiny"], workdir=str(tmp_path))
    assert not recipe.prepare(with_data(config, data_dir=str(tmp_path))).elsewhere
    experiment = recipe.prepare(with_data(config, data_dir=str(tmp_path), test="validation", longer="tiny"))
    own, apart = experiment.evaluation, experiment.elsewhere["tiny"]
    assert len(experiment.sources) == 3
    for one, other in zip(own.batches(), apart.batches(), strict=True):
        np.testing.assert_array_equal(one["source"], other["source"])
    assert own.metric.record["references"] == 1


def with_data(config, **changes):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))
