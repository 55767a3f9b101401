"""The recipe of storms beyond the general laws: the other task, and clips in the published layout."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.prediction import storms as recipe


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Room for prepared sets, with published files that hold one storm each, which moves to the right."""
    path = tmp_path_factory.mktemp("data")
    folder = path / "downloads" / "manual"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    density = np.zeros((80, 6, 12, 17, 1), np.float32)
    for i in range(80):
        for t in range(6):
            density[i, t, 2 + i % 8, 1 + (i + 2 * t) % 15] = 0.8
    np.save(folder / "hurricane_image.npy", rng.random((80, 6, 12, 17, 6), np.float32))
    np.save(folder / "hurricane_label.npy", density)
    return path


def run(workdir, data_dir, *options):
    args = ["tiny", "--workdir", workdir, "--data.data-dir", data_dir, "--loop.steps", 2, *options]
    with pytest.raises(SystemExit) as ended:
        recipe.main(recipe.run, recipe.PRESETS, doc=recipe.__doc__, args=[*map(str, args)])
    assert ended.value.code == 0
    return json.loads((workdir / "report.json").read_text())


def frames(workdir):
    (path,) = (workdir / "samples").iterdir()
    with Image.open(path) as picture:
        return picture.n_frames


def test_forecast(tmp_path, data_dir):
    report = run(tmp_path, data_dir, "--model.task", "forecast")
    assert set(report["baselines"]) == {"persistence", "constant velocity"}
    assert all(len(figures["f1_by_frame"]) == 3 for figures in report["baselines"].values())
    # Simulated storms go rather straight.
    figures = [report["baselines"][name]["centre_error"] for name in ("constant velocity", "persistence")]
    assert figures[0] < figures[1]
    assert frames(tmp_path) == 6


def test_published_clips_whose_centres_are_the_peaks_of_their_maps(tmp_path, data_dir):
    options = ["--data.name", "cam5_hurricanes", "--data.config", "None", "--model.channels", 6, "--data.batch", 4]
    report = run(tmp_path, data_dir, *options)
    assert set(report["baselines"]) == {"low pressure", "vorticity"}
    found = report["metrics"]
    np.testing.assert_allclose(found["f1"], 2 / (1 / found["precision"] + 1 / found["recall"]), rtol=1e-6)
    assert 0 < found["centre_error"] <= 8
    assert frames(tmp_path) == 6
