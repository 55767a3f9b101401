"""Attention by sequence length: time and memory of every road to the same numbers, forward and with its gradient.

    python -m experiments.bench.attention [quick] --out runs/bench/attention

The ways are ``dot_product_attention`` with each implementation that this machine has, ``jax.nn.dot_product_attention``
and, on CPU, where it is installed, PyTorch's ``scaled_dot_product_attention``. Memory of the JAX ways is what the
compiled program wants besides arguments and results; one that wants more than ``--limit-gib`` is not run. PyTorch comes
last, a process for each figure; its memory is how far the process grows. ``results.json`` has every figure,
versions and the machine.
"""

import dataclasses
import functools
import importlib.util
import itertools
import multiprocessing
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from experiments.bench.record import write_results
from experiments.bench.timing import compiled, in_turns, measure
from seqjax.ops.dot_product_attention import Implementation, dot_product_attention
from seqjax.train.command import main

TORCH = "torch"


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    out: str = "runs/bench/attention"
    """Directory of results.json and of the plot."""
    lengths: tuple[int, ...] = (256, 1024, 4096, 16384)
    """Of queries and keys."""
    masks: tuple[Literal["none", "causal"], ...] = ("none", "causal")
    """Which are tried."""
    batch: int = 1
    """Sequences."""
    heads: int = 4
    """Heads."""
    features: int = 64
    """Of a head."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of queries, keys and values; on a GPU the fused kernels want bfloat16."""
    limit_gib: float = 6.0
    """Programs that want more memory are not run."""
    rounds: int = 3
    """How often each way is timed, in turns; once from 8,192 positions on."""
    seconds: float = 0.5
    """Time of one of them in one round, at least three calls."""

    def rounds_at(self, length: int) -> int:
        """How often at this length."""
        return self.rounds if length < 8192 else 1


PRESETS = {
    "full": Config(),
    "quick": Config(lengths=(64, 256), heads=2, features=16, rounds=1, seconds=0.05),
}


def ways(config: Config) -> dict[str, Callable]:
    """The functions, each of queries, keys and values, and of ``causal``."""
    names: list[Implementation] = ["xla", "flash"]
    if jax.default_backend() == "gpu" and config.dtype == "bfloat16":
        names.append("cudnn")
    ours: dict[str, Callable] = {name: functools.partial(dot_product_attention, implementation=name) for name in names}
    return ours | {"jax.nn": lambda *heads, causal: jax.nn.dot_product_attention(*heads, is_causal=causal)}


def programs(config: Config, length: int, causal: bool, gradient: bool) -> dict[str, Any]:
    """Each way compiled, with the gradient of the sum of squares in all three arguments or without."""
    shape = (config.batch, length, config.heads, config.features)
    heads = [jax.random.normal(key, shape, config.dtype) for key in jax.random.split(jax.random.key(0), 3)]
    found = {}
    for name, way in ways(config).items():
        run = functools.partial(way, causal=causal)

        def loss(*heads: jax.Array, run: Callable = run) -> jax.Array:
            return jnp.sum(jnp.square(run(*heads).astype(jnp.float32)))

        found[name] = compiled(jax.grad(loss, argnums=(0, 1, 2)) if gradient else run, *heads)
    return found


def measured(config: Config) -> Iterator[dict[str, Any]]:
    """A record per length, mask, direction and way."""
    for length, mask, gradient in itertools.product(config.lengths, config.masks, (False, True)):
        where = {"length": length, "mask": mask, "gradient": gradient}
        found = programs(config, length, mask == "causal", gradient)
        fits = {n: p.call for n, p in found.items() if (p.temporary_bytes or 0) <= config.limit_gib * 2**30}
        times = in_turns(fits, config.rounds_at(length), config.seconds)
        for name, program in found.items():
            facts = {"seconds": times.get(name), "bytes": program.temporary_bytes, "compile_seconds": program.seconds}
            yield where | {"way": name} | facts
    if importlib.util.find_spec(TORCH) and jax.default_backend() == "cpu":
        # Fresh processes: the memory of one that has run something else tells nothing.
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            cases = list(itertools.product(config.lengths, config.masks, (False, True)))
            tasks = [(config, length, mask == "causal", gradient) for length, mask, gradient in cases]
            for (length, mask, gradient), facts in zip(cases, pool.imap(of_torch, tasks, chunksize=1), strict=True):
                yield {"length": length, "mask": mask, "gradient": gradient, "way": TORCH} | facts


def of_torch(task: tuple[Config, int, bool, bool]) -> dict[str, Any]:
    """Median seconds of PyTorch's function and the bytes by which this process grew."""
    import torch

    config, length, causal, gradient = task
    shape = (config.batch, config.heads, length, config.features)
    heads = [torch.randn(shape, dtype=getattr(torch, config.dtype), requires_grad=gradient) for _ in range(3)]

    def call() -> None:
        out = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=causal)
        if gradient:
            torch.autograd.grad(out.float().square().sum(), heads)

    before = most_memory()
    times = [statistics.median(measure(call, config.seconds)) for _ in range(config.rounds_at(length))]
    after = most_memory()
    grown = None if before is None or after is None else after - before
    return {"seconds": statistics.median(times), "bytes": grown, "version": torch.__version__}


def most_memory() -> int | None:
    """The most that this process has held so far, where the system tells (Linux)."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return None if found is None else int(found[1]) * 1024


def table(records: list[dict[str, Any]], gradient: bool) -> Table:
    """Each way next to the one that holds all scores, at one length and mask."""
    title = "Attention with its gradient" if gradient else "Attention, forward"
    result = Table(box=None, title=title)
    for column in ("T", "mask", "way", "ms", "of xla", "MiB", "of xla"):
        result.add_column(column, justify="right")
    chosen = [r for r in records if r["gradient"] == gradient]
    plain = {(r["length"], r["mask"]): r for r in chosen if r["way"] == "xla"}
    for record in sorted(chosen, key=lambda r: (r["length"], r["mask"] == "causal")):
        where = record["length"], record["mask"]
        cells = []
        for key, unit in (("seconds", 1e3), ("bytes", 2**-20)):
            mine, theirs = record[key], plain[where][key]
            cells.append("not run" if mine is None else f"{mine * unit:.4g}")
            cells.append(f"{mine / theirs:.3f}" if mine is not None and theirs else "")
        result.add_row(*map(str, where), record["way"], *cells)
    return result


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Time and memory of the gradient over the length, for the last mask."""
    import matplotlib.pyplot as plt

    chosen = [r for r in records if r["gradient"] and r["mask"] == records[-1]["mask"]]
    figure, panels = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
    for axes, (key, unit, label) in zip(panels, (("seconds", 1, "seconds"), ("bytes", 2**-20, "MiB")), strict=True):
        for way in dict.fromkeys(r["way"] for r in chosen):
            points = [(r["length"], r[key] * unit) for r in chosen if r["way"] == way and r[key]]
            axes.plot(*zip(*points, strict=True), "o-", label=way)
        axes.set(xscale="log", yscale="log", xlabel="sequence length", ylabel=label)
    panels[1].legend()
    figure.suptitle(f"attention and its gradient, mask: {chosen[0]['mask']}")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def run(config: Config) -> None:
    """Measure, print, write."""
    console, out, records = Console(), Path(config.out), []
    out.mkdir(parents=True, exist_ok=True)
    for record in measured(config):
        records.append(record)
        time = "not run" if record["seconds"] is None else f"{record['seconds'] * 1e3:.4g} ms"
        direction = "gradient" if record["gradient"] else "forward"
        console.print(f"{record['length']} {record['mask']} {direction} {record['way']}: {time}")
    write_results(config, records=records)
    for gradient in (False, True):
        console.print(table(records, gradient))
    plot(records, out / "attention.png")


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
