"""Predictors of video side by side: one set of clips, one protocol, one table, one figure, one sheet of films.

    python -m experiments.prediction.compare --workdir runs/compare               # stochastic: walls throw digits about
    python -m experiments.prediction.compare digits --workdir runs/compare-digits       # digits whose future is given
    python -m experiments.prediction.compare --systems convlstm mcnet svg-lp --samples 100
    python -m experiments.prediction.compare --data.name folder_of_clips --data.config clips_rgb_64_20frames

Trains every system by its own recipe (`preset` of `experiments.prediction.<recipe>`, on these clips, with as many
frames of context and future as are given here) in workdir/<system>; what is there already is continued, or restored if
it is finished. Clips may be of any size, colour and length: the first one says what frames the networks are made for,
and a system that cannot take such frames is named before anything is trained. Then all predict the held-out clips: one
future each, or `samples` of those that draw, of which the best counts, by each figure on its own, beside the first
alone (`metrics.samples`). `comparison.json` has every figure by frame, `comparison.png` the curves with 95 % bands,
`comparison.gif` the films: context, truth, every system, and of those that draw the best sample, the middle one and two
that are not chosen.

Measured: `--systems convlstm composite-lstm mcnet svg-lp`, seed 0: MSE, PSNR and SSIM of the composite model 34.7,
15.1, 0.243, of the ConvLSTM 35.2, 15.1, 0.224, of MCNet 41.1, 14.2, 0.065, of one sample of SVG-LP 58.7, 14.4, 0.453,
of the best of 20 30.7, 17.5, 0.640 (the mean frame 44.3, 13.7, 0.040; an empty background 57.5, 12.6, 0.468). After the
first bounce what is trained to answer once fades, and MCNet, whose skips are for what stands still, fades first;
samples keep their digit, and part. MCNet ends in no tanh here: on frames that are mostly black it dies, tried with Muon
and Adam.
"""

import dataclasses
import functools
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax.data.clips import Clips, first_clips, open_clips, open_split
from seqjax.data.pipeline import eval_batches
from seqjax.data.source import Source
from seqjax.errors import InputError
from seqjax.metrics import baselines
from seqjax.metrics.samples import best_of, curves
from seqjax.nn.split import Nets, split
from seqjax.ops.image import uint8_to_unit, unit_to_uint8
from seqjax.train.command import main
from seqjax.train.comparison import curves_by_frame, write_comparison
from seqjax.train.evaluate import Evaluation, Predict, Sampling, compile_evaluation, compile_sampling
from seqjax.train.experiment import run_experiment
from seqjax.train.media import side_by_side, write_gif
from seqjax.train.mesh import make_mesh, replicate, this_process
from seqjax.train.progress import show
from seqjax.train.restore import restore

System = Literal["convlstm", "composite-lstm", "mcnet", "svg-lp", "svg-fp"]
Figure = Literal["mse", "psnr", "ssim"]


class Contender(NamedTuple):
    """A system of the comparison."""

    recipe: str
    """Module of ``experiments.prediction``."""
    model: Mapping[str, Any] = {}
    """Fields of its model that set it apart from others of the recipe."""
    run: Mapping[str, Any] = {}
    """Other fields of the recipe."""


CONTENDERS: dict[System, Contender] = {
    "convlstm": Contender("convlstm"),
    "composite-lstm": Contender("composite_lstm"),
    "mcnet": Contender("mcnet", {"output": "linear"}),
    "svg-lp": Contender("svg", {"prior": "learned"}, {"priors": ()}),
    "svg-fp": Contender("svg", {"prior": "fixed"}, {"priors": ()}),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The comparison."""

    systems: tuple[System, ...] = ("convlstm", "composite-lstm", "svg-lp")
    """What is compared."""
    preset: str = "cpu"
    """Of each system's recipe: networks, optimiser, schedule."""
    data: Clips = Clips(config="stochastic_32", test="test[:250]", batch=50)
    """The clips; batches of the recipes in training, of this many clips in testing."""
    context: int = 5
    """Frames that are seen."""
    future: int = 10
    """Frames that are predicted, in training and in testing."""
    samples: int = 20
    """Futures drawn of each clip by a system that draws."""
    figures: tuple[Figure, ...] = ("mse", "psnr", "ssim")
    """What is measured of each frame; SSIM needs frames of 11 pixels or more each way."""
    shown: int = 4
    """Clips in the films."""
    steps: int | None = None
    """Training steps of every system; those of its preset if None."""
    seed: int = 0
    """Of every run, and of the samples."""
    workdir: str = "runs/compare"
    """Where the runs and the comparison are."""


PRESETS = {
    "stochastic": Config(),
    "digits": Config(
        systems=("convlstm", "composite-lstm"),
        data=Clips(batch=50),
        context=10,
        workdir="runs/compare-digits",
    ),
    "tiny": Config(
        systems=("convlstm", "mcnet", "svg-lp"),
        preset="tiny",
        data=Clips(config="tiny_16", batch=8),
        context=2,
        future=3,
        samples=3,
        workdir="runs/compare-tiny",
    ),
}


def run(config: Config) -> None:
    """Train or restore each system, measure all alike, and lay them out."""
    _, test = open_clips(dataclasses.replace(config.data, in_memory=False), frames=config.context + config.future)
    frame = test[0]["video"].shape[1:]
    entries: dict[str, tuple[ModuleType, Any]] = {system: prepared(config, system, frame) for system in config.systems}
    for system, (recipe, one) in entries.items():
        show(f"\n{system}: {one.workdir}")
        run_experiment(one, functools.partial(recipe.prepare, one))
    found, futures = figures_of_baselines(config, test), dict[str, np.ndarray]()
    for system, (recipe, one) in entries.items():
        _, nets = restore(one.workdir, recipe)
        found |= figures_of(config, system, recipe, one, nets, test)
        futures[system] = films_of(config, recipe, one, nets, test)
    if jax.process_index() == 0:
        show("")
        title = f"{config.data.name} {config.data.config}, {config.future} frames after {config.context}"
        write_comparison(
            found, curves_by_frame(found, config.figures, bold=config.systems), workdir=config.workdir, title=title
        )
        path = Path(config.workdir).expanduser() / "comparison.gif"
        write_gif(path, films(config, futures, first_clips(test, config.shown)["video"]), fps=4)
        show(f"{path}")


def prepared(config: Config, system: System, frame: tuple[int, ...]) -> tuple[ModuleType, Any]:
    """A system's recipe, and its run on the clips of the comparison, whose frames have this shape.

    Raises:
      InputError: the recipe has no such preset; its networks cannot take such frames.
    """
    contender = CONTENDERS[system]
    recipe = importlib.import_module(f"experiments.prediction.{contender.recipe}")
    if config.preset not in recipe.PRESETS:
        raise InputError(
            f"preset: {contender.recipe} has none named {config.preset!r}, only {', '.join(recipe.PRESETS)}."
        )
    preset = recipe.PRESETS[config.preset]
    frames = {"context": config.context, "future": config.future}
    changes = {
        "model": dataclasses.replace(preset.model, **frames, **sizes(system, preset.model, frame), **contender.model),
        "data": dataclasses.replace(config.data, batch=preset.data.batch),
        "loop": dataclasses.replace(preset.loop, steps=config.steps or preset.loop.steps),
        "seed": config.seed,
        "workdir": str(Path(config.workdir) / system),
    }
    if hasattr(preset, "horizon"):
        changes["horizon"] = config.future
    if draws(preset):
        changes |= {"samples": config.samples, "figures": config.figures}
    run = dataclasses.replace(preset, **changes, **contender.run)
    try_out(system, recipe, run, (1, config.context + config.future, *frame))
    return recipe, run


def sizes(system: System, model: Any, frame: tuple[int, ...]) -> dict[str, int]:
    """What the clips say of their frames, by the fields that a system's networks have for it."""
    height, width, channels = frame
    fields = {field.name for field in dataclasses.fields(model)}
    if "size" in fields and height != width:
        raise InputError(
            f"systems: {system} takes square frames, and {height}x{width} came: choose a data set of such."
        )
    said = {"height": height, "width": width, "size": height, "channels": channels}
    return {name: side for name, side in said.items() if name in fields}


def try_out(system: System, recipe: ModuleType, run: Any, shape: tuple[int, ...]) -> None:
    """Raises the InputError of networks that cannot take clips of a shape; nothing is computed."""

    def forecast(key: PRNGKeyArray) -> Array:
        batch = {"video": jnp.zeros(shape, jnp.uint8)}
        return recipe.forecast(run, recipe.build(run, nnx.Rngs(0)), batch, key=key)

    try:
        jax.eval_shape(forecast, jax.random.key(0))
    except InputError as error:
        raise InputError(f"systems: {system} cannot take these clips. {error}") from error


def draws(run: Any) -> bool:
    """Whether a run's network draws its futures: then the run has a number of ``samples``."""
    return hasattr(run, "samples")


def figures_of(config: Config, system: str, recipe: ModuleType, run: Any, nets: Nets, test: Source) -> dict[str, Any]:
    """Figures of one system by what counts of it: its future, or the best of several and the first alone."""
    parts = split(nets)

    def figures(number: int) -> Any:
        def predict(nets: Nets, batch: Mapping[str, Array]) -> Any:
            return measured(config, functools.partial(recipe.forecast, run, nets, batch), batch, number=number)

        return measure(config, predict, test, parts.graphs, (parts.params, parts.rest))

    if not draws(run):
        return {system: figures(1)}
    return {f"{system}, one sample": figures(1), f"{system}, best of {config.samples}": figures(config.samples)}


def figures_of_baselines(config: Config, test: Source) -> dict[str, Any]:
    """Figures of the predictions that need no training, or only the average of the training set."""
    train = open_split(config.data, "train")
    forecasts = baselines.forecasts((train[i] for i in range(len(train))), steps=config.future)

    def predict(forecast: baselines.Forecast, nets: Nets, batch: Mapping[str, Array]) -> Any:
        seen = uint8_to_unit(batch["video"])[:, : config.context]
        return measured(config, lambda *, key: forecast(seen), batch, number=1)

    return {
        name: measure(config, functools.partial(predict, forecast), test, {}, ({}, {}))
        for name, forecast in forecasts.items()
    }


def measured(config: Config, forecast: Any, batch: Mapping[str, Array], *, number: int) -> dict[str, Array]:
    """Figures of every frame of the best of several futures."""

    def draw(key: PRNGKeyArray) -> Float[Array, "B T H W C"]:
        return forecast(key=key)

    target = uint8_to_unit(batch["video"])[:, config.context : config.context + config.future]
    return best_of(draw, target, number=number, key=jax.random.key(config.seed), names=config.figures)


def measure(config: Config, predict: Predict, test: Source, graphs: dict[str, Any], values: Any) -> dict[str, Any]:
    """Figures over all held-out clips, of networks of these graphs, parameters and other values."""

    def batches() -> Iterable[Mapping[str, np.ndarray]]:
        return eval_batches(test, batch_size=config.data.batch, **this_process())

    mesh, metric = make_mesh(), curves((*config.figures, "diversity"), frames=config.future)
    return compile_evaluation(Evaluation(predict, metric, batches), graphs, mesh)(
        *replicate(jax.device_get(values), mesh)
    )


def films_of(config: Config, recipe: ModuleType, run: Any, nets: Nets, test: Source) -> np.ndarray:
    """Futures of the first clips, ``[N, B, T, H, W, C]``: one, or all samples."""
    keys = [jax.random.fold_in(jax.random.key(config.seed), i) for i in range(config.samples if draws(run) else 1)]

    def predict(nets: Nets, batch: Mapping[str, Array]) -> Any:
        return jax.lax.map(lambda key: recipe.forecast(run, nets, batch, key=key), jnp.stack(keys))

    parts = split(nets)
    sampling = Sampling(predict, first_clips(test, config.shown), lambda outputs, batch: {"futures": outputs})
    return compile_sampling(sampling, parts.graphs)(parts.params, parts.rest)["futures"]


def films(config: Config, futures: Mapping[str, np.ndarray], video: np.ndarray) -> np.ndarray:
    """Context, truth, and each system; of one that draws the best sample, the middle one and two not chosen."""
    seen, truth = video[:, : config.context], video[:, config.context : config.context + config.future]
    columns = {}
    for system, samples in futures.items():
        if len(samples) == 1:
            columns[system] = samples[0]
            continue
        order = np.square(samples - truth[None] / 255).mean(axis=(2, 3, 4, 5)).argsort(axis=0)
        rows = np.arange(len(truth))
        columns[f"{system} best"] = samples[order[0], rows]
        columns["middle"] = samples[order[len(samples) // 2], rows]
        columns |= {"sample": samples[0], "another": samples[1]}
    levels = {name: np.asarray(unit_to_uint8(jnp.asarray(frames))) for name, frames in columns.items()}
    starts = dict.fromkeys(("truth", *levels), config.context)
    return side_by_side({"context": seen, "truth": truth, **levels}, starts=starts)


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
