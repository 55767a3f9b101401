"""The recipe of the Vision Transformer: what it does with images of any size, what it begins with, and its picture."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from convert.test_vit_weights import PATCH, draw

from experiments.recognition import vit as recipe
from seqjax.convert.vit import load_vit
from seqjax.data.rand_augment import rand_augment
from seqjax.errors import InputError
from seqjax.nn.split import initialise, split
from seqjax.ops.position import resize_positions
from seqjax.train.log import read_metrics
from seqjax.train.restore import restore

TINY = recipe.PRESETS["tiny"]
CONFIG = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, side=8, least=0.2))
IMAGE = np.arange(30 * 20 * 3, dtype=np.uint8).reshape(30, 20, 3)
RECORD = recipe.labelled({"image": IMAGE, "label": np.int64(3), "file_name": b"x"})


def test_images_are_cut_at_random_in_training_and_in_the_middle_in_testing():
    parts = [recipe.some_part(CONFIG, RECORD, np.random.default_rng(seed)) for seed in range(3)]
    assert len({part["image"].tobytes() for part in parts}) == 3
    for record in (*parts, recipe.whole(CONFIG, RECORD)):
        assert record.keys() == {"image", "label"}
        assert record["image"].shape == (8, 8, 3)
    for record in (recipe.some_part(TINY, RECORD, np.random.default_rng(0)), recipe.whole(TINY, RECORD)):
        np.testing.assert_array_equal(record["image"], RECORD["image"])


def test_changes_follow_the_crop():
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, changes=2, magnitude=3.0))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        crop = recipe.some_part(CONFIG, RECORD, rng)
        expected = rand_augment(crop, rng, keys=["image"], changes=2, magnitude=3.0)
        found = recipe.some_part(config, RECORD, np.random.default_rng(seed))
        np.testing.assert_array_equal(found["image"], expected["image"])
        assert (found["image"] != crop["image"]).any()
    assert {name for name, preset in recipe.PRESETS.items() if preset.data.changes} == {"paper"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """With a run of the tiny preset, in which the sets are prepared too."""
    path = tmp_path_factory.mktemp("vit")
    recipe.run(started(path, "run", start_from=None))
    return path


def started(path, name, *, steps=10, **changes):
    """A run of the tiny preset that begins with ``run``."""
    return dataclasses.replace(
        TINY,
        data=dataclasses.replace(TINY.data, data_dir=str(path / "data")),
        loop=dataclasses.replace(TINY.loop, steps=steps, evaluate_every=steps, sample_every=steps),
        rivals=False,
        workdir=str(path / name),
        **{"start_from": str(path / "run")} | changes,
    )


def parameters(config):
    return split(restore(config.workdir, recipe)[1]).params["classifier"]


def first_loss(config):
    return read_metrics(f"{config.workdir}/metrics.jsonl")[0]["loss"]


def test_a_run_begins_with_another_and_is_compared_with_none(directory):
    """The head begins at zero, so that the first loss is that of a guess; nothing else does."""
    config = started(directory, "compared", scratch=True, seed=1)
    recipe.run(config)
    report = json.loads((directory / "compared" / "report.json").read_text())
    alone = json.loads((directory / "compared" / "scratch" / "report.json").read_text())
    assert report["baselines"]["from scratch"] == pytest.approx(alone["metrics"])
    assert report["metrics"] != alone["metrics"]
    np.testing.assert_allclose(first_loss(config), np.log(10), rtol=1e-6)
    trained, begun = parameters(started(directory, "run")), recipe.warm_start(config, {})["classifier"]
    np.testing.assert_array_equal(begun.patches.kernel[...], trained["patches"]["kernel"])
    np.testing.assert_array_equal(begun.head.kernel[...], 0)


def test_a_run_that_is_continued_does_not_start_again(directory):
    """What it began with may be gone by then: the curve and the parameters are those of the unbroken run."""
    shutil.copytree(directory / "run", directory / "gone")
    whole, half = (started(directory, name, steps=steps) for name, steps in (("whole", 20), ("parts", 10)))
    recipe.run(whole)
    recipe.run(dataclasses.replace(half, start_from=str(directory / "gone")))
    shutil.rmtree(directory / "gone")
    again = started(directory, "parts", steps=20, start_from=str(directory / "gone"))
    recipe.run(dataclasses.replace(again, allow_change=("loop",)))
    jax.tree.map(np.testing.assert_array_equal, parameters(again), parameters(whole))
    curves = [
        [line for line in read_metrics(directory / name / "metrics.jsonl") if line["kind"] == "train"]
        for name in ("whole", "parts")
    ]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 20


def test_a_run_begins_with_a_published_file_of_another_size(tmp_path):
    weights = draw("as pre-trained")
    np.savez(tmp_path / "vit.npz", **weights)
    published = load_vit(tmp_path / "vit.npz")
    model = dataclasses.replace(published.config, size=6 * PATCH, classes=10, representation=0)
    config = started(tmp_path, "unused", model=model, start_from=str(tmp_path / "vit.npz"))
    nets = recipe.warm_start(config, {})
    fresh = initialise(lambda rngs: recipe.build(config, rngs), 0)
    assert jax.eval_shape(lambda: split(nets)[1:]) == jax.eval_shape(lambda: split(fresh)[1:])
    found = nets["classifier"].positions[...]
    np.testing.assert_allclose(found, resize_positions(published.positions[...], 6, 6))
    kernel = weights["Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel"]
    np.testing.assert_array_equal(nets["classifier"].blocks[1].feed_forward.input.kernel[...], kernel)


def test_what_a_run_cannot_begin_with_is_named(directory):
    cases = (
        ({"start_from": str(directory / "nothing")}, "start_from: .*nothing does not exist.*npz"),
        ({"start_from": str(directory / "data")}, "data.*does not exist|no intact checkpoint"),
        ({"model": dataclasses.replace(TINY.model, patch=2, heads=1)}, "does not fit.*patch=4, heads=2 came"),
        ({"model": dataclasses.replace(TINY.model, representation=4)}, "does not fit.*representation: 4 came"),
    )
    for i, (changes, named) in enumerate(cases):
        with pytest.raises(InputError, match=named):
            recipe.run(started(directory, f"refused_{i}", **changes))


def test_the_picture_is_red_where_attention_is():
    images, attention = np.full((2, 8, 8, 1), 100, np.uint8), np.zeros((2, 2, 2), np.float32)
    attention[0, 0, 1], attention[1, 1, 0] = 0.5, 0.02
    (sheet,) = recipe.draw({"attention": attention}, {"image": images}).values()
    scale = 9
    side = 8 * scale
    for i, (row, column) in enumerate([(0, 1), (1, 0)]):
        left = 2 + i * (2 * side + 2)
        image, seen = sheet[2 : 2 + side, left : left + side], sheet[2 : 2 + side, left + side : left + 2 * side]
        assert (image == 100).all()
        red = seen[..., 0].astype(int) - seen[..., 1] > 100
        expected = np.zeros((2, 2), bool)
        expected[row, column] = True
        np.testing.assert_array_equal(red, expected.repeat(side // 2, axis=0).repeat(side // 2, axis=1))
