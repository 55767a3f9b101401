"""SVG's recipe: all priors by one command, rows of the report beside each other, the strip's news and its pictures."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments.prediction import svg as recipe
from seqjax.data.kth_actions import KTHActions
from seqjax.data.moving_digits import MovingDigits
from seqjax.models.prediction import svg
from seqjax.nn.split import initialise

TINY = recipe.PRESETS["tiny"]


def strip(directory, **changes):
    """The strip's preset at a size of seconds."""
    preset = recipe.PRESETS["strip"]
    small = {"context": 3, "future": 4, "width": 12, "base": 6, "features": 4, "latent": 2, "hidden": 5}
    return dataclasses.replace(
        preset,
        model=dataclasses.replace(preset.model, **small),
        data=dataclasses.replace(preset.data, config="tiny", batch=8, data_dir=str(directory)),
        loop=dataclasses.replace(preset.loop, steps=6),
        optimizer=TINY.optimizer,
        **{"horizon": 5, "samples": 3, **changes},
    )


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The work directory of both priors trained, and of none."""
    workdir = tmp_path_factory.mktemp("compared")
    recipe.run(strip(tmp_path_factory.mktemp("data"), workdir=str(workdir)))
    return workdir


def test_each_prior_has_its_run_and_the_comparison_its_figures(compared):
    comparison = json.loads((compared / "comparison.json").read_text())
    assert list(comparison)[:3] == ["one sample", "means of the latents", "copy of the last frame"]
    for prior in ("learned", "fixed"):
        report = json.loads((compared / prior / "report.json").read_text())
        assert report["config"]["model"]["prior"] == prior
        assert report["metrics"].items() <= comparison[prior].items()
        assert len(report["metrics"]["mse_by_frame"]) == len(report["metrics"]["mse_band"]) == 5
        # The first of the samples is the one that is measured alone.
        alone = report["baselines"]["one sample"]
        assert report["metrics"]["mse"] <= alone["mse"]
        assert report["metrics"]["psnr"] >= alone["psnr"]
        assert report["metrics"]["diversity"] > 0 == alone["diversity"]
        names = {f"{name}_{where}" for name in ("kl", "deviation") for where in ("impact", "elsewhere")}
        assert names < comparison[prior].keys()
        assert sorted(path.name.split("_")[0] for path in (compared / prior / "samples").iterdir()) == [
            "forecast",
            "openness",
        ]
    assert comparison["fixed"]["deviation_impact"] == comparison["fixed"]["deviation_elsewhere"] == 1
    for figures in comparison.values():
        assert {"mse_before", "mse_after"} < figures.keys()
        assert len(figures["mse_since"]) == 9
    with Image.open(compared / "comparison.png") as picture:
        assert np.ptp(np.asarray(picture)) > 0


def test_without_a_prior_one_future_is_measured(compared):
    """Once: it is neither the best of several nor the mean of any, and nothing is news to it."""
    comparison = json.loads((compared / "comparison.json").read_text())
    report = json.loads((compared / "none" / "report.json").read_text())
    assert report["metrics"]["diversity"] == 0
    assert not {"one sample", "means of the latents"} & report["baselines"].keys()
    assert {comparison["none"][name] for name in ("kl_impact", "kl_elsewhere", "deviation_impact")} == {0}
    assert [path.name.split("_")[0] for path in (compared / "none" / "samples").iterdir()] == ["forecast"]


def test_frames_are_told_apart_by_the_first_impact_whose_speed_they_show():
    """With a context of three, and a future of frames 3 to 7."""
    impact = np.zeros((4, 8), np.uint8)
    impact[0, 1] = 1  # its speed is seen in the context
    impact[1, 2] = 1  # first seen in frame 3, the first of the future
    impact[2, [5, 6]] = 1  # first seen in frame 6
    impact[3, 7] = 1  # not seen any more
    curves = np.float32([[1] * 5, [10] * 5, [2, 2, 2, 20, 20], [3] * 5])
    metric = recipe.metric(strip("", figures=("mse",)), marked=True)
    outputs = {"mse": jnp.asarray(curves), "diversity": jnp.zeros((4, 5))}
    found = metric.finish(metric.accumulate(metric.init(), outputs, {"impact": jnp.asarray(impact)}))
    assert found["mse"] == pytest.approx(curves.mean())
    assert found["mse_before"] == pytest.approx((5 * 1 + 3 * 2 + 5 * 3) / 13)
    assert found["mse_after"] == pytest.approx((5 * 10 + 2 * 20) / 7)
    np.testing.assert_allclose(found["mse_since"], [np.nan, 2, 2, 2, 15, 15, 10, 10, 10])


@pytest.mark.parametrize(
    ("preset", "channels", "frames"),
    [
        ("paper", 1, MovingDigits.builder_configs["stochastic_64_30frames"].frames),
        ("bair", 3, 30),  # of TFDS's bair_robot_pushing_small
        ("kth", 1, KTHActions.builder_configs["64x64_30frames"].frames),
    ],
)
def test_published_networks_are_tested_to_the_end_of_the_clips(preset, channels, frames):
    """As the released code is by default, to the thirtieth frame, by the best of a hundred."""
    config = recipe.PRESETS[preset]
    video = jax.ShapeDtypeStruct((2, frames, 64, 64, channels), np.uint8)

    def score(video):
        return recipe.score(config, svg.build(config.model, nnx.Rngs(0)), {"video": video})

    found = jax.eval_shape(score, video)
    assert {curve.shape for curve in found.values()} == {(2, 30 - config.model.context)}
    assert (frames, config.samples) == (30, 100)


def test_news_is_told_apart_by_impacts(monkeypatch, tmp_path):
    """Frame j + 1 holds what the impact at frame j has drawn; frames of the context do not count."""
    config = strip(tmp_path)
    clips = {"video": np.zeros((2, 8, 1, 12, 1), np.uint8), "impact": np.zeros((2, 8), np.uint8)}
    clips["impact"][0, [1, 4]] = clips["impact"][1, 7] = 1  # of the context; counted; followed by no frame
    kl = np.ones((2, 7), np.float32)
    kl[0, 4], kl[0, 1], kl[1, 0] = 9, 100, 100
    records = [{key: value[i] for key, value in clips.items()} for i in range(2)]
    monkeypatch.setattr(recipe, "open_clips", lambda data, frames, marks: (None, records))
    monkeypatch.setattr(recipe, "restore", lambda workdir, module: (config, {}))
    monkeypatch.setattr(svg, "surprise", lambda nets, batch: {"kl": jnp.asarray(kl)})
    assert recipe.news(config) == {"kl_impact": 9, "kl_elsewhere": 1}


def test_the_means_of_the_latents_need_no_draw():
    nets = initialise(functools.partial(svg.build, TINY.model), 0)
    video = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 1), np.uint8)
    batch = {"video": jnp.asarray(video)}

    def measure(number):
        return jax.jit(lambda batch: recipe.score(TINY, nets, batch, samples=number))(batch)

    frames = np.asarray(svg.predict(nets, batch, steps=TINY.horizon))
    expected = np.square(frames - video[:, 3:7] / 255).sum((2, 3, 4))
    np.testing.assert_allclose(measure(0)["mse"], expected, rtol=1e-5)
    assert np.abs(measure(1)["mse"] - expected).max() > 0
