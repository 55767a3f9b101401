"""SVG's recipe: two priors by one command, rows of the report beside each other, the strip's news and its pictures."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.prediction import svg as recipe
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
    """The work directory of both priors trained."""
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
    with Image.open(compared / "comparison.png") as picture:
        assert np.ptp(np.asarray(picture)) > 0


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
