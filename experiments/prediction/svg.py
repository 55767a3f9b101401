"""Stochastic video generation, SVG-FP and SVG-LP (Denton and Fergus, 2018): futures of digits that walls throw about.

    python -m experiments.prediction.svg --workdir runs/svg                # cpu: minutes on two cores
    python -m experiments.prediction.svg strip --workdir runs/svg-strip    # when does it know that it does not know?
    python -m experiments.prediction.svg paper --workdir runs/svg-paper    # and bair, kth

The same command starts or resumes. `cpu` trains a small SVG-LP on one digit in 32x32 whose walls draw its velocity
anew; `--priors learned fixed none` trains SVG-FP and the deterministic network too, each in a directory of its own.
`strip` trains all three on a blob that bounces along 32 pixels, where it is known when the future is open:
`comparison.json` has squared errors before the first impact of the future is seen, after it, and by the frames since
(`metrics.events`), the nats of news and the prior's deviation in frames after an impact (log 4 = 1.386 nats are drawn
there) and elsewhere; `comparison.png` shows them (svg.png beside this file), `openness` in samples/ other clips.
`paper` is the published network and schedule on two digits in 64x64, `bair` and `kth` (SVG-FP) those on robots and
people (`data.clips` says where these clips come from), tested to frame 30 by the best of 100, as the released code
does; `tiny` takes seconds and is what the tests run.
Of N samples of a held-out clip the best counts, by each figure on its own (`metrics.samples`); beside it stand one
sample alone, the future of the latents' means, the last frame copied, an empty background and the mean frame.
`comparison.png` of digits has the figures by frame with 95 % bands.

Measured, seed 0: `strip`, 1,000 steps, 3 min 15 s for SVG-LP on part of a busy CPU core, 78 s for the deterministic
network: squared error of the best of 20 0.0403 (SVG-FP 0.0571), of one sample 1.28, deterministic 1.37, of the last
frame 3.18. After an impact 0.0777 (SVG-FP 0.109), one sample 2.47, deterministic 2.64, the mean frame 1.57; before it
0.0003, 0.0012, 0.0004, 0.0064 and 1.54. So one sample is hardly better than no latents, and the best of 20 far better
than both; nine frames on, when a second impact may have been, not all of it is among 20. News 1.76 nats after an impact
and 0.003 elsewhere (SVG-FP 2.16 and 0.004), the prior's deviation 0.919 and 0.408. `cpu`, 3,000 steps, 12 to 13 steps
per second on one core, over the first ten frames (`experiments.prediction.compare`, which tests as far): MSE of the
best of 20 30.7, of one sample 58.7, of the means 53.6, of the last frame 82.3, of the mean frame 44.3; SSIM 0.640,
0.453, 0.476, 0.321, 0.040 (0.468 of an empty background). Samples part at the walls, stay sharp and keep their digit;
after 850 steps they still changed into others. `paper`, `bair` and `kth` have not been trained yet.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seqjax.data.clips import Clips, open_clips, training_clips
from seqjax.data.pipeline import eval_batches
from seqjax.data.source import Source, first
from seqjax.metrics import baselines
from seqjax.metrics.events import around_event
from seqjax.metrics.metric import Metric, alike
from seqjax.metrics.samples import HIGHER_IS_BETTER, best_of, curves
from seqjax.models.prediction import svg
from seqjax.ops.image import unit_to_uint8
from seqjax.train.command import main
from seqjax.train.comparison import Found, Lines, curves_by_frame, run_several
from seqjax.train.evaluate import Evaluation, Predict, Sampling
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.loop import Loop
from seqjax.train.media import sheet, side_by_side
from seqjax.train.mesh import this_process
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.plot import picture
from seqjax.train.restore import restore
from seqjax.train.step import Learner, minimise

Prior = Literal["learned", "fixed", "none"]
MARKS = ("impact",)
"""Where speeds are drawn, in sets that say so."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe."""

    model: svg.Config = svg.Config(height=32, width=32, base=16, features=64, latent=8, hidden=128, beta=1e-3)
    """The networks."""
    data: Clips = Clips(config="stochastic_32", test="test[:250]", batch=8)
    """The clips."""
    optimizer: Optimizer = Optimizer("muon", learning_rate=8e-3, schedule="cosine", warmup=50, clip_norm=5.0, b2=0.99)
    """The optimiser."""
    loop: Loop = Loop(steps=3000, log_every=50, sample_every=1000, save_every=250)
    """Length and cadences of training."""
    horizon: int = 15
    """Frames that are predicted in testing."""
    samples: int = 20
    """Futures drawn of each clip, of which the best counts."""
    figures: tuple[Literal["mse", "psnr", "ssim"], ...] = ("mse", "psnr", "ssim")
    """What is measured of each frame; SSIM needs frames of 11 pixels or more each way."""
    seed: int = 0
    """Of the parameters, the order of the clips and the noise."""
    priors: tuple[Prior, ...] = ()
    """Models to train one after another, each in workdir/<prior>, and to draw side by side."""
    workdir: str = "runs/svg"
    """Where the run keeps everything; a run that is there already is continued."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there, such as loop.steps."""


PUBLISHED = Loop(steps=180_000, log_every=100, evaluate_every=10_000, sample_every=10_000, save_every=2_000)
"""300 times 600 steps."""
PRESETS = {
    "cpu": Config(priors=("learned",)),
    "strip": Config(
        model=svg.Config(
            future=15,
            height=1,
            width=32,
            backbone="dense",
            features=32,
            latent=4,
            hidden=64,
            layers=1,
            beta=1e-3,
        ),
        data=Clips("bouncing_blob", "strip_32", batch=64),
        loop=Loop(steps=1000, log_every=50, save_every=250),
        figures=("mse", "psnr"),
        priors=("learned", "fixed", "none"),
        workdir="runs/svg-strip",
    ),
    "paper": Config(
        model=svg.Config(),
        data=Clips(config="stochastic_64_30frames", batch=100),
        optimizer=Optimizer(learning_rate=2e-3),
        loop=PUBLISHED,
        horizon=25,
        samples=100,
        workdir="runs/svg-paper",
    ),
    "bair": Config(
        model=svg.Config(context=2, channels=3, backbone="vgg", latent=64),
        data=Clips("bair_robot_pushing_small", config=None, in_memory=False, batch=100),
        optimizer=Optimizer(learning_rate=2e-3),
        loop=PUBLISHED,
        horizon=28,
        samples=100,
        workdir="runs/svg-bair",
    ),
    "kth": Config(
        model=svg.Config(context=10, backbone="vgg", latent=24, prior="fixed", beta=1e-6),
        data=Clips("kth_actions", "64x64_30frames", batch=100),
        optimizer=Optimizer(learning_rate=8e-4),
        loop=PUBLISHED,
        horizon=20,
        samples=100,
        workdir="runs/svg-kth",
    ),
    "tiny": Config(
        model=dataclasses.replace(svg.Config.tiny(), height=16, width=16),
        data=Clips(config="tiny_16", batch=8),
        optimizer=Optimizer(),
        loop=Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5),
        horizon=4,
        samples=3,
        workdir="runs/svg-tiny",
    ),
}


def run(config: Config) -> None:
    """Train one model, or each of several and compare them."""
    if not config.priors:
        return run_experiment(config, functools.partial(prepare, config))
    return run_several(
        {prior: alone(config, prior) for prior in config.priors},
        prepare,
        workdir=config.workdir,
        title=f"{config.data.name} {config.data.config}, best of {config.samples}",
        more=news,
        plot=functools.partial(plot, config),
    )


def alone(config: Config, prior: Prior) -> Config:
    """The run of one of several models."""
    model, workdir = dataclasses.replace(config.model, prior=prior), str(Path(config.workdir) / prior)
    return dataclasses.replace(config, model=model, priors=(), workdir=workdir)


def prepare(config: Config) -> Experiment:
    """The experiment, its data sets open."""
    data = config.data
    train, test = open_clips(data, frames=config.model.context + config.horizon, marks=MARKS)
    return Experiment(
        learner(config),
        functools.partial(build, config),
        functools.partial(training_batches, config, train),
        Evaluation(
            functools.partial(score, config),
            metric(config, marked="impact" in test[0]),
            lambda: eval_batches(test, batch_size=data.batch, **this_process()),
        ),
        Sampling(functools.partial(futures, config), first(test, 4), functools.partial(draw, config)),
        functools.partial(predictions, config, train),
        higher_is_better=(*HIGHER_IS_BETTER, "diversity"),
        sources=(train, test),
    )


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The networks."""
    return svg.build(config.model, rngs)


def learner(config: Config) -> Learner:
    """How they are trained."""
    return minimise(svg.loss, make_optimizer(config.optimizer, config.loop.steps))


def training_batches(config: Config, source: Source, step: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Shuffled clips from a step on, cut out at random, this process's part of each batch."""
    frames, calls = config.model.context + config.model.future, config.loop.steps_per_call
    return training_clips(
        source, config.data, frames=frames, seed=config.seed, start_step=step, steps_per_call=calls, **this_process()
    )


def metric(config: Config, *, marked: bool) -> Metric:
    """What is measured; where the clips say when a speed is drawn, also before and after it is first seen."""
    by_frame = curves((*config.figures, "diversity"), frames=config.horizon)
    if not marked:
        return by_frame
    around = around_event(("mse",), frames=config.horizon)
    return alike(by_frame, around.on(lambda batch: {**batch, "event": drawn_before(config, batch["impact"])}))


def drawn_before(config: Config, impact: Any) -> Any:
    """Of every frame of the future, whether a speed was drawn at the frame before it, which shows no sign of it."""
    last = config.model.context - 1
    return impact[:, last : last + config.horizon]


def score(config: Config, nets: Any, batch: Mapping[str, jax.Array], *, samples: int | None = None) -> dict:
    """Figures of every frame of the best of several futures; of one, or of the latents' means alone (0)."""
    future = truth(config, batch)
    seen = svg.observe(nets, svg.unit_clip(config.model, batch["video"], 0))

    def draw(key: jax.Array) -> jax.Array:
        noise = svg.draw_noise(config.model, len(future), config.horizon, key=key)
        return svg.rollout(nets, seen, noise * float(samples != 0))

    number = config.samples if samples is None else max(1, samples)
    number = number if config.model.drawn else 1
    return best_of(draw, future, number=number, key=jax.random.key(0), names=config.figures)


def truth(config: Config, batch: Mapping[str, jax.Array]) -> jax.Array:
    """The frames that came, in [0, 1]."""
    return svg.unit_clip(config.model, batch["video"], config.horizon)[:, config.model.context :]


def predictions(config: Config, train: Source) -> dict[str, Predict]:
    """What can be had without the best of several samples, and without training."""
    forecasts = baselines.forecasts((train[i] for i in range(len(train))), steps=config.horizon)

    def on_context(predict: baselines.Forecast) -> Predict:
        def measured(_: Any, batch: Mapping[str, jax.Array]) -> dict:
            frames = predict(svg.unit_clip(config.model, batch["video"], 0))
            key = jax.random.key(0)
            return best_of(lambda key: frames, truth(config, batch), number=1, key=key, names=config.figures)

        return measured

    return trained(config) | {name: on_context(predict) for name, predict in forecasts.items()}


def trained(config: Config) -> dict[str, Predict]:
    """The same networks, not given a choice, where they have one."""
    if not config.model.drawn:
        return {}
    _, nets = restore(config.workdir, sys.modules[__name__])
    return {
        name: lambda _, batch, number=number: score(config, nets, batch, samples=number)
        for name, number in {"one sample": 1, "means of the latents": 0}.items()
    }


def futures(config: Config, nets: Any, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
    """What is drawn: samples ``[N, B, ...]``, the future of the means, and how open each frame is."""
    keys = jax.random.split(jax.random.key(0), config.samples)
    samples = jax.lax.map(lambda key: svg.sample(nets, dict(batch), key=key, steps=config.horizon), keys)
    means = svg.predict(nets, dict(batch), steps=config.horizon)
    return {"samples": samples, "means": means} | svg.surprise(nets, dict(batch))


def draw(config: Config, outputs: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Truth beside the means, two samples and the best of all; and how open each frame was."""
    past, samples = config.model.context, outputs["samples"]
    future = batch["video"][:, past : past + config.horizon]
    errors = np.square(samples - future[None] / 255).mean(axis=(2, 3, 4, 5))
    best = samples[errors.argmin(axis=0), np.arange(len(future))]
    columns = {"means": outputs["means"], "sample": samples[0], "another": samples[1], f"best of {len(samples)}": best}
    columns = columns if config.model.drawn else {"prediction": outputs["means"]}
    levels = {name: np.asarray(unit_to_uint8(jnp.asarray(frames))) for name, frames in columns.items()}
    openness = {"openness": plot_openness(outputs, batch)} if config.model.drawn else {}
    if config.model.height > 1:
        videos = {"context": batch["video"][:, :past], "truth": future, **levels}
        return openness | {"forecast": side_by_side(videos, starts=dict.fromkeys(("truth", *levels), past))}
    # Strips are laid out in time, downwards.
    whole = {name: np.concatenate([batch["video"][:, :past], frames], axis=1) for name, frames in levels.items()}
    strips = {"truth": batch["video"][:, : past + config.horizon], **whole}
    return openness | {"forecast": sheet({name: frames[:, :, 0] for name, frames in strips.items()})}


def plot_openness(outputs: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """The prior's deviation and the nats of news by frame, a panel a clip; frames after an impact are shaded."""
    figure = Figure(figsize=(7, 1.7 * len(outputs["kl"]) + 0.4), dpi=110, layout="constrained")
    panels = figure.subplots(len(outputs["kl"]), sharex=True, squeeze=False)[:, 0]
    for b, axes in enumerate(panels):
        impact = batch["impact"][b] if "impact" in batch else np.zeros(len(outputs["kl"][b]) + 1)
        trace_openness(axes, outputs["deviation"][b], outputs["kl"][b], impact)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1].set_xlabel("frame" + ", shaded after an impact" * ("impact" in batch))
    return picture(figure)


def trace_openness(axes: Axes, deviation: np.ndarray, kl: np.ndarray, impact: np.ndarray) -> None:
    """One clip's panel of `plot_openness`."""
    frames, right = np.arange(1, len(kl) + 1), axes.twinx()
    for frame in frames[impact[:-1] > 0]:
        axes.axvspan(frame - 0.5, frame + 0.5, color="0.88")
    axes.plot(frames, deviation, "C0.-")
    right.plot(frames, kl, "C1.-", linewidth=0.8)
    axes.set_ylabel("prior's σ", color="C0")
    right.set_ylabel("KL, nats", color="C1")


def plot(config: Config, lines: Lines, found: Found) -> np.ndarray:
    """Figures by frame; where the clips say when a speed is drawn, what that does to the prior and to errors."""
    if not all("mse_since" in figures for figures in found.values()):
        return curves_by_frame(found, config.figures, bold=lines)
    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    panels = figure.subplot_mosaic([["strip", "errors"], ["openness", "errors"]], width_ratios=(1.15, 1))
    clip = busiest(config)
    _, nets = restore(alone(config, config.priors[0]).workdir, sys.modules[__name__])
    told = jax.tree.map(np.asarray, jax.jit(functools.partial(svg.surprise, nets))({"video": clip["video"]}))
    trace_strip(panels["strip"], clip["video"][0, :, 0, :, 0], clip["impact"][0])
    trace_openness(panels["openness"], told["deviation"][0], told["kl"][0], clip["impact"][0])
    panels["openness"].sharex(panels["strip"])
    panels["openness"].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels["openness"].set_xlabel("frame, shaded after an impact")
    trace_errors(panels["errors"], config, found)
    return picture(figure)


def busiest(config: Config) -> dict[str, np.ndarray]:
    """The first of the held-out clips with the most impacts in its future, a batch of one."""
    _, test = open_clips(config.data, frames=config.model.context + config.horizon, marks=MARKS)
    clips = first(test, 1000)
    most = int(drawn_before(config, clips["impact"]).sum(axis=1).argmax())
    return {key: values[most : most + 1] for key, values in clips.items()}


def trace_strip(axes: Axes, strip: np.ndarray, impact: np.ndarray) -> None:
    """Pixels upwards, frames to the right, a ring at every impact."""
    axes.imshow(strip.T, cmap="gray_r", aspect="auto", origin="lower")
    hits = np.flatnonzero(impact)
    axes.plot(hits, strip[hits].argmax(axis=1), "C3o", markersize=12, markerfacecolor="none", markeredgewidth=1.5)
    axes.tick_params(labelbottom=False)
    axes.set(ylabel="pixel", ylim=(-3, strip.shape[1] + 2))


def trace_errors(axes: Axes, config: Config, found: Found) -> None:
    """Squared error by frames since the first impact, of all models and of one sample of the first."""
    drawn = {
        "none": ("deterministic", "0.4", "-"),
        "one sample": ("one sample", "C3", ":"),
        "fixed": (f"SVG-FP, best of {config.samples}", "C2", "-"),
        "learned": (f"SVG-LP, best of {config.samples}", "C3", "-"),
    }
    since = np.arange(2 - config.horizon, config.horizon + 1)
    shown = np.abs(since - 3) <= 7  # further off there are few clips
    for name in (name for name in drawn if name in found):
        (label, color, style), errors = drawn[name], np.asarray(found[name]["mse_since"])
        axes.plot(since[shown], errors[shown], marker=".", label=label, color=color, linestyle=style)
    axes.axvspan(0.5, 1.5, color="0.88")
    axes.set(xlabel="frames since the first impact", ylabel="squared error")
    axes.legend(fontsize="small", loc="center right")


def news(config: Config) -> dict[str, Any]:
    """Where the test clips say when a speed is drawn: nats of news in the frame after it and in all others of the
    future, and the prior's deviation there; else on average over all."""
    _, nets = restore(config.workdir, sys.modules[__name__])
    whole = dataclasses.replace(config.data, in_memory=False)
    _, test = open_clips(whole, frames=config.model.context + config.horizon, marks=MARKS)
    batch = first(test, 1000)
    found = jax.tree.map(np.asarray, jax.jit(functools.partial(svg.surprise, nets))({"video": batch["video"]}))
    start = config.model.context - 1
    after = batch["impact"][:, start:-1] > 0 if "impact" in batch else np.ones_like(found["kl"][:, start:], bool)
    figures = {}
    for name, values in found.items():
        future = values[:, start:]
        figures[f"{name}_impact" if "impact" in batch else name] = float(future[after].mean())
        if "impact" in batch:
            figures[f"{name}_elsewhere"] = float(future[~after].mean())
    return figures


def forecast(config: Config, nets: Any, batch: Mapping[str, jax.Array], *, key: jax.Array) -> jax.Array:
    """One future, as `experiments.prediction.compare` asks for it."""
    return svg.sample(nets, dict(batch), key=key, steps=config.horizon)


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
