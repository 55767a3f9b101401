"""The benchmark of image translation runs, and its points are what they say. Times are not tested."""

import importlib.util
import json
from importlib import import_module

import pytest

from experiments.bench import gan
from experiments.bench.gan_peers import Point, images, recipe

pytestmark = pytest.mark.tools

PYTORCH = {"torch", "torch, reusing"} if importlib.util.find_spec("torch") else set()
SYSTEMS = ("pix2pix", "cyclegan", "no_system") if PYTORCH else ("pix2pix", "no_system")
POINTS = tuple(Point(system, "tiny", 8, 4, 2) for system in SYSTEMS)


def test_steps_next_to_pytorch(tmp_path, capsys, monkeypatch):
    """Where there is PyTorch, CycleGAN's players, which have no dropout, begin with the same losses in both."""
    # For the workers: their programs run a few times, and making them fast takes the most of the time.
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
    peers = ("torch", "torch, reusing", "not_a_library")
    gan.run(gan.Config(str(tmp_path), points=POINTS, peers=peers, rounds=1, seconds=0.0))
    records = json.loads((tmp_path / "results.json").read_text())["records"]
    by_point = {(r["system"], r["library"]): r for r in records}
    assert set(by_point) == {(point.system, library) for point in POINTS for library in {"seqjax"} | PYTORCH}
    players = {"pix2pix": {"discriminator", "generator"}, "cyclegan": {"generators", "discriminators"}}
    for (system, library), record in by_point.items():
        if system == "no_system":
            assert "no_system" in record["error"]
            continue
        assert record["steps_per_second"] == pytest.approx(1 / record["seconds"])
        assert set(record["first_losses"]) == players[system]
        if library == "seqjax":
            assert record["operations"] > 0 < record["compile_seconds"]
        elif (system, library) == ("cyclegan", "torch"):
            assert record["first_losses"] == pytest.approx(by_point[system, "seqjax"]["first_losses"], rel=1e-3)
    printed = capsys.readouterr().out
    assert "not_a_library" in printed
    assert "geometric mean" in printed


def test_points_at_the_sizes_of_a_preset_are_that_preset():
    points = {(point.system, point.preset, point.size): point for point in gan.Config().points}
    for system in ("pix2pix", "cyclegan"):
        presets = import_module(f"experiments.translation.{system}").PRESETS
        assert recipe(points[system, "cpu", 16])[1] == presets["cpu"]
        assert points[system, "cpu", 16].batch == presets["cpu"].data.batch
        assert recipe(Point(system, "paper", 256, 64, 1))[1] == presets["paper"]
        assert {x.shape[1:3] for x in images(points[system, "cpu", 16]).values()} == {(16, 16)}
    scaled = recipe(points["cyclegan", "paper", 128])[1].model
    assert (scaled.blocks, scaled.base, scaled.discriminator_base, scaled.size) == (6, 32, 32, 128)


def test_the_table_has_ratios_and_their_geometric_mean():
    """2 and 8 times the seconds of seqjax, 4 in the mean; what failed is left out of it."""

    def record(library, size, seconds):
        found = {"seconds": seconds, "steps_per_second": 1 / seconds, "operations": 3e9} if seconds else {"error": "no"}
        return {"library": library, **Point("pix2pix", "paper", size, 4, 1)._asdict(), **found}

    sizes = {16: (0.5, 1.0), 32: (0.25, 2.0), 64: (1.0, None)}
    records = [
        record(library, size, seconds)
        for size, both in sizes.items()
        for library, seconds in zip(("seqjax", "torch"), both, strict=True)
    ]
    *_, steps, operations, ratios = gan.table(records).columns
    assert list(steps.cells) == ["2", "4", "1", ""]
    assert list(operations.cells) == ["3", "3", "3", ""]
    assert list(ratios.cells) == ["2.00", "8.00", "nan", "4.00"]
