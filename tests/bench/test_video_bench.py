"""The benchmark of video prediction runs, and its points are what they say. Times are not tested."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import video
from experiments.bench.timing import training_step
from experiments.bench.video_peers import PEERS, Point, _one_by_one, _torch_svg, clips, networks, recipe, risen
from seqjax.models.prediction import svg

pytestmark = pytest.mark.tools

TORCH = importlib.util.find_spec("torch") is not None
POINTS = (Point("convlstm", "tiny", 2, future=3), Point("svg", "tiny", 3), Point("no_system", "tiny", 2))


def test_steps_next_to_pytorch_and_to_our_other_ways(tmp_path, capsys, monkeypatch):
    """Where there is PyTorch, ConvLSTMs begin with the same loss in both, and SVG's noise makes little of a difference;
    what is computed again is the same."""
    # For the workers: their programs run a few times, and making them fast takes the most of the time.
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
    video.run(video.Config(str(tmp_path), points=POINTS[:2], rounds=1, seconds=0.0))
    results = json.loads((tmp_path / "results.json").read_text())
    by_point = {(r["system"], r["library"]): r for r in results["records"]}
    here = {name for name, (_, _, package) in PEERS.items() if TORCH or package != "torch"}
    expected = {(p.system, name) for p in POINTS[:2] for name in here if p.system in PEERS[name][1]}
    assert set(by_point) == expected
    for (system, library), record in by_point.items():
        ours = by_point[system, "seqjax"]
        assert record["parameters"] == ours["parameters"]
        assert record["seconds"] > 0
        assert record["peak_bytes"] is None or record["peak_bytes"] >= 0
        exactly = system == "convlstm"
        assert record["first_losses"]["loss"] == pytest.approx(
            ours["first_losses"]["loss"], rel=1e-4 if exactly else 0.1
        )
        if "torch" not in library:
            assert record["operations"] > 0 < record["compile_seconds"]
    printed = capsys.readouterr().out
    assert "geometric mean" in printed
    assert (tmp_path / "video.png").stat().st_size > 1000


def test_points_take_the_networks_of_the_recipes():
    for point in (*video.ON_CPU, *video.ON_GPU):
        module, config = recipe(point)
        preset = module.PRESETS[point.preset]
        model = preset.model if not point.future else config.model
        assert config.model == model
        assert point in video.ON_CPU or point.preset == "paper"
        frames = config.model.context + (point.future or preset.model.future)
        side = {"cpu": 32, "paper": 64}[point.preset]
        small = clips(point._replace(batch=1))
        assert small.shape == (1, frames, side, side, 1)
    assert video.grid(video.Config()) == video.ON_CPU


def test_frame_by_frame_is_the_same_function_but_for_the_statistics():
    """With the running averages of batch normalisation, which no frame shares with another."""
    nets = networks(POINTS[1])
    frames = jnp.asarray(clips(POINTS[1]), jnp.float32)[:, :4] / 255
    folded = frames.reshape(-1, *frames.shape[2:])
    apart = _one_by_one(nets["encoder"].net, 4)
    found = [jax.tree.leaves(net(folded, running=True)) for net in (nets["encoder"].net, apart)]
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


if TORCH:

    @pytest.mark.parametrize("each", [False, True])
    def test_svg_in_pytorch_is_ours(each):
        """Loss and gradients with the same noise, all frames at once and one by one."""
        import torch

        from experiments.bench import video_torch
        from seqjax.nn.split import merge, split

        point, key = POINTS[1], jax.random.key(3)
        model, nets, video = recipe(point)[1].model, networks(point), clips(point)
        noise = jax.random.normal(key, (3, video.shape[1] - 1, model.latent))
        theirs, _ = _torch_svg(point, each)
        levels = torch.from_numpy(video).movedim(-1, 2) / 255
        loss = video_torch.svg_loss(theirs, levels, torch.from_numpy(np.array(noise)), model, each=each)
        loss.backward()
        if each:
            nets["encoder"].net = _one_by_one(nets["encoder"].net, video.shape[1])
            nets["decoder"] = _one_by_one(nets["decoder"], video.shape[1] - 1)
        graphs, params, rest = split(nets)

        def ours(params):
            return svg.loss(merge(graphs, params, rest), {"video": jnp.asarray(video)}, key=key)[0]

        value, gradients = jax.jit(jax.value_and_grad(ours))(params)
        assert loss.item() == pytest.approx(float(value), rel=1e-4)
        for name, net in theirs.items():
            norm = sum(float(p.grad.square().sum()) for p in net.parameters() if p.requires_grad)
            assert norm == pytest.approx(sum(float((x**2).sum()) for x in jax.tree.leaves(gradients[name])), rel=1e-2)


def test_memory_that_rises_in_a_call():
    """Twenty MiB that are there during the call and not after it; where the system does not say, nothing."""

    def call():
        return float(np.ones(20 * 2**20 // 8).sum())

    found = risen(call)
    assert found is None or 19 * 2**20 < found < 40 * 2**20


def test_a_step_of_a_learner_and_what_is_told_of_it():
    module, config = recipe(POINTS[0])
    call, facts = training_step(module.learner(config), networks(POINTS[0]), {"video": clips(POINTS[0])}, "float32")
    assert facts.keys() == {"compile_seconds", "operations", "temporary_bytes", "first_losses"}
    assert facts["first_losses"].keys() == {"loss"}
    assert float(call()["loss"]) < facts["first_losses"]["loss"]  # the second step begins where the first ended


def test_tables_have_ratios_and_their_geometric_mean():
    """2 and 8 times the seconds of seqjax, 4 in the mean; what failed, or does not say, is left out of it."""

    def record(library, batch, seconds):
        found = {"seconds": seconds, "peak_bytes": 2**20} if seconds else {"error": "no"}
        return {"library": library, **Point("svg", "paper", batch)._asdict(), **found}

    rounds = {1: (0.5, 1.0), 2: (0.25, 2.0), 3: (1.0, None)}
    records = [
        record(library, batch, seconds)
        for batch, both in rounds.items()
        for library, seconds in zip(("seqjax", "torch"), both, strict=True)
    ]
    *_, ours, theirs = video.table(records, "time").columns
    assert list(ours.cells) == ["500", "250", "1000", ""]
    assert list(theirs.cells) == ["2.00", "8.00", "nan", "4.00"]
    records[1]["peak_bytes"] = None
    *_, ours, theirs = video.table(records, "memory").columns
    assert list(ours.cells) == ["1", "1", "1", ""]
    assert list(theirs.cells) == ["nan", "1.00", "nan", "1.00"]
