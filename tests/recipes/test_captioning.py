"""What the captioning recipes do beside training: published weights, networks that stay as they are, who is named."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nn.filled import run_all

from experiments.language import captioner, show_attend_tell
from seqjax.convert import vgg
from seqjax.data.source import open_source
from seqjax.data.text import Vocabulary, texts
from seqjax.errors import InputError
from seqjax.metrics.retrieval import RECALLS, retrieval
from seqjax.nn.image_encoder import EncoderConfig
from seqjax.nn.split import initialise
from seqjax.nn.vgg import VGG
from seqjax.train.experiment import measure

BOTH = pytest.mark.parametrize("recipe", [captioner, show_attend_tell], ids=lambda r: r.__name__.split(".")[-1])


def tiny(recipe, **options):
    return dataclasses.replace(recipe.PRESETS["tiny"], **options)


@BOTH
def test_a_network_that_stays_at_random_weights_is_refused(recipe):
    with pytest.raises(InputError, match=r"vgg: none came.*--no-frozen"):
        nnx.eval_shape(lambda: recipe.build(tiny(recipe, frozen=True), nnx.Rngs(0)))


@BOTH
def test_published_weights_take_the_place_of_random_ones(recipe, monkeypatch):
    asked = []

    def load(path, depth, *, top):
        asked.append((path, depth, top))
        return VGG(depth, top=top, shrink=64, rngs=nnx.Rngs(0))

    monkeypatch.setattr(vgg, "load_vgg", load)
    model = dataclasses.replace(tiny(recipe).model, encoder=EncoderConfig(net="vgg16", layer="relu7"))
    config = tiny(recipe, model=model, vgg="file.pth", frozen=True)
    nets = nnx.eval_shape(lambda: recipe.build(config, nnx.Rngs(0)))
    assert asked == [("file.pth", 16, True)]
    assert nets["encoder"].vgg.conv5_3.kernel.shape == (3, 3, 8, 8)


@BOTH
def test_a_frozen_network_is_no_ones_to_train(recipe):
    nets = nnx.eval_shape(lambda: recipe.build(tiny(recipe), nnx.Rngs(0)))
    for frozen in (False, True):
        learner = recipe.learner(tiny(recipe, frozen=frozen))
        state = jax.eval_shape(lambda key, learner=learner: learner.init(nets, key), jax.random.key(0))
        ((adam, *_),) = state.opt.values()
        assert set(adam.mu) == ({"decoder"} if frozen else {"encoder", "decoder"})


@BOTH
def test_kinds_of_object_that_training_does_not_show_are_measured_apart(recipe, tmp_path):
    config = tiny(recipe, workdir=str(tmp_path))
    data = dataclasses.replace(config.data, data_dir=str(tmp_path))
    experiment = recipe.prepare(dataclasses.replace(config, data=data))
    evaluations = {"test": experiment.evaluation, **experiment.elsewhere}
    ranked = evaluations.pop("ranked")
    assert list(evaluations) == ["test", "novel"]
    for split, evaluation in evaluations.items():
        known = open_source("scenes", split=split, config="tiny", data_dir=tmp_path)
        seen = [image for batch in evaluation.batches() for image in batch["image"][batch["weight"] > 0]]
        np.testing.assert_array_equal(seen, [known[i]["image"] for i in range(len(known))])
    assert len(experiment.sources) == 3
    assert sum(int(batch["weight"].sum()) for batch in ranked.batches()) == config.data.ranked == 8
    alone = dataclasses.replace(config, data=dataclasses.replace(data, novel=None, ranked=0))
    assert not recipe.prepare(alone).elsewhere


@BOTH
def test_images_and_captions_are_found_by_likelihood(recipe, tmp_path):
    """Of the first eight, each foretold alone; what the baselines told stands for a likelihood."""
    config = tiny(recipe, workdir=str(tmp_path))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, data_dir=str(tmp_path)))
    experiment = recipe.prepare(config)
    ranked, nets = experiment.elsewhere["ranked"], initialise(experiment.build, 0)
    (batch,) = ranked.batches()
    pairs = [jnp.tile(batch["captions"][j], (8, 1)) for j in range(8)]

    def costs(nets, image):
        return jnp.stack(
            [experiment.evaluation.predict(nets, {"image": image, "captions": ids})["nll"] for ids in pairs]
        )

    expected = -np.asarray(run_all(nets, costs, batch["image"])).T
    figures = measure(ranked, ranked.predict, nets)
    known = open_source("scenes", split="test", config="tiny", data_dir=tmp_path)
    said = [texts(known[i]["captions"]) for i in range(8)]
    by_hand = retrieval(expected, np.array([[other[0] in own for other in said] for own in said]))
    assert {k: figures[k] for k in RECALLS} == pytest.approx({k: by_hand[k] for k in RECALLS})
    for predict in experiment.baselines().values():
        assert 0 <= measure(ranked, predict)["rsum"] <= 600


def test_attention_counts_before_the_words_for_shapes():
    """Two objects in cells of 8 pixels; before the word of the first all attention is on it, before that of the second
    a quarter, the rest on the first."""
    known = Vocabulary(("a", "circle", "cross", "red", "square", "triangle"), (1,) * 6)
    ids = known.encode(["a", "red", "cross", "a", "red", "circle"], 9)[None]
    weights = np.full((1, 8, 4, 4), 1 / 16)
    weights[0, [2, 5]] = 0
    weights[0, 2, 1, 3] = 1
    weights[0, 5, [1, 2], [3, 0]] = 0.75, 0.25
    boxes = np.array([[[8, 24, 16, 32], [16, 0, 24, 8]]], np.int32)
    batch = {"captions": jnp.asarray(ids), "boxes": jnp.asarray(boxes)}
    config = show_attend_tell.PRESETS["tiny"]
    found = show_attend_tell.on_objects(config, known, jnp.asarray(weights, jnp.float32), batch)
    np.testing.assert_allclose(found["on_object"], [(1 + 0.25) / 2], rtol=1e-6)
    np.testing.assert_allclose(found["peak"], [(1 + 0) / 2], rtol=1e-6)


def test_variants_are_runs_of_their_own():
    config = dataclasses.replace(show_attend_tell.PRESETS["cpu"], workdir="runs/x")
    for variant in config.variants:
        one = show_attend_tell.alone(config, variant)
        assert one.model.attention == ("soft" if variant == "blind" else variant)
        assert (one.blind, one.variants, one.workdir) == (variant == "blind", (), f"runs/x/{variant}")
    systems = captioner.PRESETS["cpu"].systems
    feeds = {system: captioner.alone(captioner.PRESETS["cpu"], system).model.image_feed for system in systems}
    assert feeds == {"karpathy": "first", "show_and_tell": "word", "blind": "first"}


@BOTH
def test_words_are_read_once_and_kept(recipe, tmp_path, monkeypatch):
    data = dataclasses.replace(tiny(recipe).data, data_dir=str(tmp_path / "data"))
    config = tiny(recipe, data=data, workdir=str(tmp_path))
    first = recipe.prepare(config)
    assert Vocabulary.load(tmp_path / "vocabulary.json").tokens
    monkeypatch.setattr(Vocabulary, "of", None)
    batches = [next(iter(experiment.evaluation.batches())) for experiment in (first, recipe.prepare(config))]
    np.testing.assert_array_equal(batches[0]["captions"], batches[1]["captions"])
