"""What ``experiments.bench.gan`` compares: the training step of a recipe, and the same step in PyTorch.

Run as a module it is a worker (`experiments.bench.workers`), so that each library has a process of its own. All start
from the weights and the batch of the point: losses of the first step tell whether they do the same work.
"""

import dataclasses
import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.bench.timing import Call
from experiments.bench.workers import serve


class Point(NamedTuple):
    """One point of the grid."""

    system: str
    """pix2pix or cyclegan, the recipe in experiments.translation."""
    preset: str
    """Of the recipe, whose networks are taken at the sizes that follow."""
    size: int
    """Side of the images."""
    base: int
    """Features of the generator's first layer; the discriminator's are scaled alike."""
    batch: int
    """Images per step, for CycleGAN of each domain."""
    dtype: str = "float32"
    """What the networks compute in; parameters stay in float32."""


def recipe(point: Point) -> tuple[Any, Any]:
    """Module and configuration of the recipe: a U-Net halves to one pixel, images up to 128 have at most 6 blocks."""
    module = importlib.import_module(f"experiments.translation.{point.system}")
    config = module.PRESETS[point.preset]
    wide = config.model.discriminator_base * point.base // config.model.base
    sizes = {"base": point.base, "discriminator_base": wide}
    if point.system == "pix2pix":
        sizes |= {"downs": point.size.bit_length() - 1}
    else:
        sizes |= {
            "size": point.size,
            "blocks": config.model.blocks if point.size > 128 else min(config.model.blocks, 6),
        }
    return module, dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))


def images(point: Point) -> dict[str, np.ndarray]:
    """A batch of the recipe, uint8 levels ``[B, H, W, C]``, drawn evenly."""
    model, draw = recipe(point)[1].model, np.random.default_rng(0)
    sides = ("input", "target") if point.system == "pix2pix" else ("a", "b")
    channels = (model.inputs, model.outputs) if point.system == "pix2pix" else (model.channels_a, model.channels_b)
    shape = (point.batch, point.size, point.size)
    return {side: draw.integers(0, 256, (*shape, c), dtype=np.uint8) for side, c in zip(sides, channels, strict=True)}


def networks(point: Point) -> dict[str, Any]:
    """The recipe's networks at their first weights."""
    import functools

    from seqjax.nn.split import initialise

    module, config = recipe(point)
    return initialise(functools.partial(module.build, config), 0)


def seqjax(point: Point) -> tuple[Call, dict]:
    """The step that the recipe's own learner makes, compiled for one device as its loop compiles it."""
    from experiments.bench.timing import training_step

    module, config = recipe(point)
    return training_step(module.learner(config), networks(point), images(point), point.dtype)


def torch(point: Point, *, anew: bool) -> tuple[Call, dict]:
    """The step in PyTorch, eager, where there is a GPU with channels last and the fastest algorithm of each layer."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    layout = {"memory_format": torch.channels_last if device == "cuda" else torch.contiguous_format}
    make = {"pix2pix": _torch_pix2pix, "cyclegan": _torch_cyclegan}[point.system]
    step = make(point, lambda net: net.to(device, **layout), anew)
    uint8 = {name: torch.from_numpy(x).permute(0, 3, 1, 2).to(device, **layout) for name, x in images(point).items()}

    def call() -> dict[str, Any]:
        batch = {name: x.float() / 127.5 - 1 for name, x in uint8.items()}
        with torch.autocast(device, torch.bfloat16, enabled=point.dtype == "bfloat16"):
            losses = step(batch)
        if device == "cuda":
            torch.cuda.synchronize()
        return losses

    first = {name: float(loss) for name, loss in call().items()}
    return call, {"device": device, "threads": torch.get_num_threads(), "first_losses": first}


def _torch_pix2pix(point: Point, place: Callable[[Any], Any], anew: bool) -> Callable:
    from experiments.bench import gan_torch

    config = recipe(point)[1]
    model = config.model
    ends: dict[str, Any] = {"inputs": model.inputs, "outputs": model.outputs}
    generator = gan_torch.unet(model.norm, model.downs, model.base, dropped=range(3 if model.dropout else 0), **ends)
    seen = model.inputs + model.outputs
    discriminator = gan_torch.patch(model.norm, model.discriminator_base, model.layers, seen)
    nets = _filled(point, {"generator": generator, "discriminator": discriminator})
    return gan_torch.pix2pix_step(
        {name: place(net) for name, net in nets.items()}, distance=model.distance, anew=anew, **_adam(config)
    )


def _torch_cyclegan(point: Point, place: Callable[[Any], Any], anew: bool) -> Callable:
    from experiments.bench import gan_torch

    config = recipe(point)[1]
    model = config.model
    nearest = model.upsample == "nearest"
    nets = {
        f"to_{domain}": gan_torch.resnet(model.norm, model.blocks, model.base, downs=model.downs, nearest=nearest)
        for domain in "ab"
    }
    nets |= {
        f"of_{domain}": gan_torch.patch(model.norm, model.discriminator_base, model.layers, channels=3)
        for domain in "ab"
    }
    losses = {name: getattr(model, name) for name in ("cycle", "identity", "pool")}
    nets = {name: place(net) for name, net in _filled(point, nets).items()}
    return gan_torch.cyclegan_step(nets, anew=anew, **losses, **_adam(config))


def _filled(point: Point, nets: dict[str, Any]) -> dict[str, Any]:
    """The PyTorch networks with the weights of ours; how many batches were seen is theirs alone."""
    import torch

    from seqjax.convert.gan import table
    from seqjax.convert.table import dump

    for name, ours in networks(point).items():
        ours = getattr(ours, "net", ours)
        weights = {there: torch.from_numpy(array) for there, array in dump(ours, table(ours)).items()}
        counts = {there: n for there, n in nets[name].state_dict().items() if there.endswith("num_batches_tracked")}
        nets[name].load_state_dict(counts | weights)
    return nets


def _adam(config: Any) -> dict[str, Any]:
    return {"lr": config.optimizer.learning_rate, "betas": (config.optimizer.b1, config.optimizer.b2)}


PEERS: dict[str, tuple[Callable[[Point], tuple[Call, dict]], str]] = {
    "seqjax": (seqjax, "jax"),
    "torch": (lambda point: torch(point, anew=True), "torch"),
    "torch, reusing": (lambda point: torch(point, anew=False), "torch"),
}
"""By name: what builds the step, and the package whose version is recorded. The second does what seqjax does, update by
update; the third translates once in a step and has both players learn from that, as the published code does."""


if __name__ == "__main__":
    peer, package = PEERS[sys.argv[1]]
    serve(lambda point: peer(Point(*point)), package)
