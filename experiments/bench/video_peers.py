"""What ``experiments.bench.video`` compares: training steps of video predictors, and the same in PyTorch.

Run as a module it is a worker (`experiments.bench.workers`), so that each library has a process of its own. All start
from the weights and the batch of the point: losses of the first step tell whether they do the same work.
"""

import ctypes
import dataclasses
import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.bench.timing import Call
from experiments.bench.workers import serve

RATE = 1e-3
"""Of Adam, by which all are trained here: PyTorch does not have every rule of the recipes."""


class Point(NamedTuple):
    """One point of the grid."""

    system: str
    """convlstm or svg, the recipe in experiments.prediction."""
    preset: str
    """Of the recipe, whose networks are taken as they are."""
    batch: int
    """Clips per step."""
    future: int = 0
    """Frames to predict; those of the preset if 0."""
    dtype: str = "float32"
    """What the networks compute in; parameters stay in float32."""


def recipe(point: Point, **changes: Any) -> tuple[Any, Any]:
    """Module and configuration of the recipe, but trained by Adam; ``changes`` are of the model."""
    from seqjax.train.optim import Optimizer

    module = importlib.import_module(f"experiments.prediction.{point.system}")
    config = module.PRESETS[point.preset]
    changes |= {"future": point.future} if point.future else {}
    changes |= {"norm": "batch"} if point.system == "svg" else {}
    model = dataclasses.replace(config.model, **changes)
    return module, dataclasses.replace(config, model=model, optimizer=Optimizer(learning_rate=RATE))


def clips(point: Point) -> np.ndarray:
    """A batch of the recipe, uint8 levels ``[B, T, H, W, 1]``, drawn evenly."""
    from seqjax.data.moving_digits import MovingDigits

    _, config = recipe(point)
    size = MovingDigits.builder_configs[config.data.config].size
    shape = (point.batch, config.model.context + config.model.future, size, size, config.model.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def networks(point: Point, **changes: Any) -> dict[str, Any]:
    """The recipe's networks at their first weights."""
    from seqjax.nn.split import initialise

    module, config = recipe(point, **changes)
    return initialise(functools.partial(module.build, config), 0)


def seqjax(point: Point, *, remat: bool = False, each: bool = False) -> tuple[Call, dict]:
    """The step that the recipe's own learner makes, compiled for one device as its loop compiles it.

    Args:
      point: of the grid.
      remat: ConvLSTM: whether steps are computed again.
      each: SVG: whether encoder and decoder take the frames one by one, in a loop written out.
    """
    from experiments.bench.timing import training_step

    options = {"remat": True} if remat else {}
    module, config = recipe(point, **options)
    nets = networks(point, **options)
    counted = _count(nets)
    if each:
        frames = config.model.context + config.model.future
        nets["encoder"].net = _one_by_one(nets["encoder"].net, frames)
        nets["decoder"] = _one_by_one(nets["decoder"], frames - 1)
    call, facts = training_step(module.learner(config), nets, {"video": clips(point)}, point.dtype)
    return call, facts | {"peak_bytes": facts["temporary_bytes"], "parameters": counted}


def _count(nets: dict[str, Any]) -> int:
    from seqjax.nn.split import count

    return count(nets)


def _one_by_one(net: Any, frames: int) -> Any:
    """A network for images that is given frames folded into the batch, and takes them in turn."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from seqjax.ops.image import fold_time, unfold_time

    class EachFrame(nnx.Module):
        def __init__(self) -> None:
            self.net = net

        def __call__(self, *xs: Any, running: bool = False) -> Any:
            xs = jax.tree.map(lambda x: unfold_time(x, frames=frames), xs)
            found = [self.net(*jax.tree.map(lambda x, t=t: x[:, t], xs), running=running) for t in range(frames)]
            return jax.tree.map(lambda *ys: fold_time(jnp.stack(ys, axis=1)), *found)

    return EachFrame()


def torch(point: Point, *, each: bool = False) -> tuple[Call, dict]:
    """The step in PyTorch, eager, with the weights of ours."""
    import torch

    from experiments.bench import video_torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    nets, loss = (_torch_svg if point.system == "svg" else _torch_convlstm)(point, each)
    nets = {name: net.to(device) for name, net in nets.items()}
    step = video_torch.training_step(nets, loss, RATE)
    levels = torch.from_numpy(clips(point)).movedim(-1, 2).contiguous().to(device)

    def call() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=point.dtype == "bfloat16"):
            loss = step(levels.float() / 255)
        if device == "cuda":
            torch.cuda.synchronize()
        return loss

    first = {"loss": float(call())}
    parameters = sum(p.numel() for p in video_torch.trained(nets))
    facts = {"device": device, "threads": torch.get_num_threads(), "first_losses": first, "parameters": parameters}
    return call, facts | {"peak_bytes": _risen_on_gpu(call) if device == "cuda" else None}


def _torch_convlstm(point: Point, each: bool) -> tuple[dict[str, Any], Callable]:
    from experiments.bench import video_torch

    model = recipe(point)[1].model
    net = video_torch.Forecaster(model.features, model.kernel, model.patch, model.channels)
    nets = _filled(point, {"forecaster": net})
    return nets, lambda video: video_torch.forecaster_loss(nets, video, model.context)


def _torch_svg(point: Point, each: bool) -> tuple[dict[str, Any], Callable]:
    import torch

    from experiments.bench import video_torch

    model = recipe(point)[1].model
    nets = _filled(point, video_torch.svg(model))

    def loss(video: Any) -> Any:
        noise = torch.randn(len(video), video.shape[1] - 1, model.latent, device=video.device)
        return video_torch.svg_loss(nets, video, noise, model, each=each)

    return nets, loss


def _filled(point: Point, nets: dict[str, Any]) -> dict[str, Any]:
    """The PyTorch networks with the weights of ours, of which there are to be as many."""
    from experiments.bench.video_torch import fill, trained
    from seqjax.nn.split import split

    ours = networks(point)
    theirs, here = sum(p.numel() for p in trained(nets)), _count(ours)
    assert theirs == here, f"{theirs} parameters in PyTorch, {here} in ours"
    for name, tree in split(ours).params.items():
        fill(nets[name], tree.get("net", tree))
    return nets


RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""With this in its environment a process gives back what it frees at once, so that `risen` has little else in it; it
costs time."""


def risen(call: Call) -> int | None:
    """Bytes by which this process's memory rises in a call above what it holds before; None where nobody knows."""
    status, peaks = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists():
        return None

    def known(name: str) -> int:
        (line,) = (line for line in status.read_text().splitlines() if line.startswith(name))
        return 1024 * int(line.split()[1])

    call()
    ctypes.CDLL(None).malloc_trim(0)  # what is free but kept would be filled first
    peaks.write_text("5")  # the highest so far is forgotten
    before = known("VmRSS")
    call()
    return known("VmHWM") - before


def _risen_on_gpu(call: Call) -> int:
    import torch

    call()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before


BOTH, CONVLSTM, SVG = ("convlstm", "svg"), ("convlstm",), ("svg",)

PEERS: dict[str, tuple[Callable[[Point], tuple[Call, dict]], tuple[str, ...], str]] = {
    "seqjax": (seqjax, BOTH, "jax"),
    "seqjax, remat": (functools.partial(seqjax, remat=True), CONVLSTM, "jax"),
    "seqjax, frame by frame": (functools.partial(seqjax, each=True), SVG, "jax"),
    "torch": (torch, BOTH, "torch"),
    "torch, frame by frame": (functools.partial(torch, each=True), SVG, "torch"),
}
"""By name: what builds the step, the systems it is for, and the package whose version is recorded."""


def answer(name: str, point: list, memory: bool = False) -> tuple[Call, dict]:
    """The step of a library, and facts of it; asked for its memory, that alone."""
    call, facts = PEERS[name][0](Point(*point))
    return call, {"peak_bytes": risen(call)} if memory else facts


if __name__ == "__main__":
    serve(functools.partial(answer, sys.argv[1]), PEERS[sys.argv[1]][2])
