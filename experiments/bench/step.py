"""The training step of every recipe: steps per second, operations, and their share of what this machine can multiply.

    python -m experiments.bench.step [tiny|paper] --out runs/bench/step
    python -m experiments.bench.step plan --devices 8       # compiles for simulated devices and runs nothing

Operations are those of the products and convolutions in the compiled program, loops by their length
(``bench.program``; XLA's own count, which takes a loop's body once, stands beside them in ``results.json``). The peak
is that of float32 matrix products of 2048 x 2048, measured in the same process.

``plan`` is weak scaling on paper. Every device keeps the batch of the preset; the program says what it computes and
what the devices exchange in a step. Set against a chip's peak and its share of the all-reduce bandwidth (TPU v5e unless
given), that is the time for both at best, and the batch per device below which the exchange takes longer.
"""

import dataclasses
import importlib
import statistics
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

from experiments.bench.program import read_program
from experiments.bench.record import write_results
from experiments.bench.timing import compiled, measure, step_call
from seqjax.nn.split import initialise, split
from seqjax.train.command import main
from seqjax.train.mesh import compile_step, make_mesh, replicate, shard_batch
from seqjax.train.step import Learner, repeat


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    out: str = "runs/bench/step"
    """Directory of results.json."""
    recipes: tuple[str, ...] = ()
    """Modules, such as experiments.prediction.convlstm; all of them if none is named."""
    preset: str = "cpu"
    """Preset of each recipe."""
    data_dir: str | None = None
    """Where prepared sets are; TFDS's own choice if None."""
    devices: int | None = None
    """Simulated CPU devices; those that jax finds if None."""
    parallel: Literal["jit", "pmap"] | None = None
    """As loop.parallel; the preset's own if None."""
    seconds: float = 5.0
    """Time of each measurement, at least three steps."""
    plan: bool = False
    """Compile for the devices, each with the batch of the preset, and run nothing."""
    peak_tflops: float = 197.0
    """Plan: operations of a chip per second, in 10^12. TPU v5e in bfloat16, https://cloud.google.com/tpu/docs/v5e."""
    reduce_gbytes: float = 200.0
    """Plan: all-reduce bandwidth of a chip in 10^9 bytes per second. TPU v5e: 51.2 TB/s of a pod of 256 (ibid.)."""


PRESETS = {
    "cpu": Config(),
    "tiny": Config(preset="tiny", seconds=0.5),
    "paper": Config(preset="paper"),
    "plan": Config(preset="paper", plan=True),
}


PUBLISHED: dict[str, dict[str, tuple[int, ...]]] = {
    "experiments.generation.dcgan": {"image": (64, 64, 3)},
    "experiments.generation.draw": {"image": (28, 28, 1)},
    "experiments.generation.mocogan": {"video": (16, 64, 64, 3)},
    "experiments.language.captioner": {"image": (224, 224, 3), "captions": (21,)},
    "experiments.language.seq2seq": {"source": (50,), "target": (50,)},
    "experiments.language.show_attend_tell": {"image": (224, 224, 3), "captions": (21,)},
    "experiments.language.transformer": {"source": (32,), "target": (32,)},
    "experiments.prediction.hierarchical": {"video": (2, 128, 128, 3), "joints": (2, 1, 13, 2), "visible": (2, 1, 13)},
    "experiments.prediction.mcnet": {"video": (20, 128, 128, 1)},
    "experiments.prediction.storms": {"fields": (10, 128, 257, 6), "density": (10, 128, 257, 1)},
    "experiments.recognition.gru_rcn": {"video": (10, 224, 224, 3), "label": ()},
    "experiments.recognition.differentiable_ram": {"image": (100, 100, 1), "label": ()},
    "experiments.recognition.ram": {"image": (60, 60, 1), "label": ()},
    "experiments.recognition.vit": {"image": (224, 224, 3), "label": ()},
    "experiments.translation.cyclegan": {"a": (256, 256, 3), "b": (256, 256, 3)},
    "experiments.translation.discogan": {"a": (64, 64, 3), "b": (64, 64, 3)},
    "experiments.translation.pix2pix": {"input": (256, 256, 3), "target": (256, 256, 3)},
}
"""A record of each `paper` preset whose set is a published one, which need not be here: of three dimensions or more
pixels, else whole numbers, but for those in `NUMBERS`."""
NUMBERS = ("fields", "density", "joints")
"""Arrays of real numbers."""


def every_recipe() -> list[str]:
    """The modules that ``python -m experiments`` lists."""
    families = importlib.import_module("experiments.__main__").recipes()
    return [module for members in families.values() for module in members]


def chosen(config: Config, recipe: str) -> tuple[Any, Any]:
    """A recipe and its preset; what that keeps of its data lies beside the results."""
    module = importlib.import_module(recipe)
    preset = module.PRESETS[config.preset]
    data = dataclasses.replace(preset.data, data_dir=config.data_dir)
    if hasattr(data, "in_memory"):
        data = dataclasses.replace(data, in_memory=False)  # one batch is all that is read
    loop = dataclasses.replace(preset.loop, parallel=config.parallel or preset.loop.parallel)
    workdir = Path(config.out) / recipe
    workdir.mkdir(parents=True, exist_ok=True)
    return module, dataclasses.replace(preset, data=data, loop=loop, workdir=str(workdir))


def lower(preset: Any, learner: Learner, nets: Any, state: Any, batch: Any) -> Any:
    """The step of a recipe, ready to be compiled as its loop does."""
    calls = preset.loop.steps_per_call
    learner = repeat(learner, calls) if calls > 1 else learner
    dtype = None if preset.loop.compute == "float32" else preset.loop.compute
    step: Any = compile_step(
        learner, split(nets).graphs, make_mesh(), preset.loop.parallel, inner_steps=calls, dtype=dtype
    )
    return step.lower(state, batch)


def facts(config: Config, recipe: str, preset: Any, program: Any, batch: Any) -> dict[str, Any]:
    """What the program of a recipe says, per step and device."""
    calls, read = preset.loop.steps_per_call, read_program(program.as_text())
    reduced = [c for c in read.collectives if c.kind == "all-reduce"]
    others = [c for c in read.collectives if c.kind != "all-reduce"]
    return {
        "recipe": recipe.removeprefix("experiments."),
        "preset": config.preset,
        "parallel": preset.loop.parallel,
        "devices": jax.device_count(),
        "batch": jax.tree.leaves(batch)[0].shape[int(calls > 1)],
        "operations": read.operations / calls,
        "xla_operations": (program.cost_analysis() or {}).get("flops"),
        "all_reduces": sum(c.times for c in reduced) / calls,
        "all_reduced_bytes": sum(c.bytes * c.times for c in reduced) / calls,
        "other_exchanged_bytes": sum(c.bytes * c.times for c in others) / calls,
    }


def timed(config: Config, recipe: str) -> dict[str, Any]:
    """The record of one recipe, its step run again and again on one batch."""
    module, preset = chosen(config, recipe)
    experiment, calls, mesh = module.prepare(preset), preset.loop.steps_per_call, make_mesh()
    nets = initialise(experiment.build, preset.seed)
    state = replicate(experiment.learner.init(nets, jax.random.key(0)), mesh)
    batch = shard_batch(next(iter(experiment.batches(0))), mesh, inner_steps=calls)
    program = lower(preset, experiment.learner, nets, state, batch).compile()
    seconds = statistics.median(measure(step_call(program, state, batch), config.seconds)) / calls
    found = facts(config, recipe, preset, program, batch)
    found |= {"seconds": seconds, "steps_per_second": 1 / seconds}
    return found | {"operations_per_second": found["operations"] * found["devices"] / seconds}


def one_batch(config: Config, recipe: str) -> dict[str, jax.ShapeDtypeStruct]:
    """What a device is given at a step."""
    module, preset = chosen(config, recipe)
    if config.preset != "paper" or recipe not in PUBLISHED:
        batch = next(iter(module.prepare(preset).batches(0)))
        return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()}
    size, calls = preset.data.batch, preset.loop.steps_per_call
    leading = (calls, size) if calls > 1 else (size,)
    return {
        name: jax.ShapeDtypeStruct(leading + shape, _dtype(name, shape)) for name, shape in PUBLISHED[recipe].items()
    }


def _dtype(name: str, shape: tuple[int, ...]) -> type[np.generic]:
    if name in NUMBERS:
        return np.float32
    return np.uint8 if len(shape) > 2 else np.int32


def foreseen(config: Config, recipe: str) -> tuple[Any, Any, dict[str, jax.ShapeDtypeStruct]]:
    """A recipe's preset, its step for all devices, and the batch for them all, nothing of which holds a number."""
    module, preset = chosen(config, recipe)
    axis, devices = int(preset.loop.steps_per_call > 1), jax.device_count()

    def larger(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = (*x.shape[:axis], x.shape[axis] * devices, *x.shape[axis + 1 :])
        return jax.ShapeDtypeStruct(shape, x.dtype)

    batch = {name: larger(x) for name, x in one_batch(config, recipe).items()}
    # A network that is not trained would be read from a file; its numbers do not matter here.
    given = dataclasses.replace(preset, frozen=False) if getattr(preset, "frozen", False) else preset
    learner, nets = module.learner(preset), nnx.eval_shape(lambda: module.build(given, nnx.Rngs(0)))
    state = jax.eval_shape(lambda key: learner.init(module.build(given, nnx.Rngs(0)), key), jax.random.key(0))
    return preset, lower(preset, learner, nets, state, batch), batch


def planned(config: Config, recipe: str) -> dict[str, Any]:
    """The record of one recipe, its step compiled for all devices with the batch of the preset on each."""
    preset, step, batch = foreseen(config, recipe)
    found = facts(config, recipe, preset, step.compile(), batch)
    computing = found["operations"] / (config.peak_tflops * 1e12)
    # Every byte goes out and comes in: that is what the bandwidth of an all-reduce counts already.
    reducing = found["all_reduced_bytes"] / (config.reduce_gbytes * 1e9)
    per_device = found["batch"] // jax.device_count()
    return found | {
        "batch_per_device": per_device,
        "computing_seconds": computing,
        "reducing_seconds": reducing,
        "smallest_batch_per_device": per_device * reducing / computing,
    }


def peak(seconds: float, size: int = 2048) -> float:
    """Operations per second of a float32 matrix product: the best of those timed."""
    x = jnp.ones((size, size))
    return 2 * size**3 / min(measure(compiled(jnp.matmul, x, x).call, seconds))


def table(records: list[dict[str, Any]], peak: float | None) -> Table:
    """A row per recipe."""
    result = Table(box=None, pad_edge=False, title=f"Preset {records[0]['preset']}, {records[0]['devices']} devices")
    timed_columns = ("steps/s", "operations/step", "operations/s", "of the peak")
    plan_columns = ("operations", "MB", "compute ms", "reduce ms", "least B")
    for column in ("recipe", "B", *(timed_columns if peak else plan_columns)):
        result.add_column(column, justify="left" if column == "recipe" else "right", no_wrap=column == "recipe")
    for r in records:
        row = [r["recipe"], str(r["batch"])]
        if peak:
            row += [f"{r['steps_per_second']:.3g}", f"{r['operations'] * r['devices']:.3g}"]
            row += [f"{r['operations_per_second']:.3g}", f"{r['operations_per_second'] / peak:.1%}"]
        else:
            row += [f"{r['operations']:.3g}", f"{r['all_reduced_bytes'] / 1e6:.3g}"]
            row += [f"{r[k] * 1e3:.3g}" for k in ("computing_seconds", "reducing_seconds")]
            row += [f"{r['smallest_batch_per_device']:.3g}"]
        result.add_row(*row)
    return result


def run(config: Config) -> None:
    """Measure or plan, print, write."""
    if config.devices is not None:
        jax.config.update("jax_num_cpu_devices", config.devices)
    work = planned if config.plan else timed
    records = [work(config, recipe) for recipe in config.recipes or every_recipe()]
    found = None if config.plan else peak(config.seconds)
    Console().print(table(records, found))
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    write_results(config, peak=found, records=records)


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
