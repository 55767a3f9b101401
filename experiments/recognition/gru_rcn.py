"""GRU-RCN (Ballas et al., 2016): which way a handwritten digit goes, told from six frames.

    python -m experiments.recognition.gru_rcn --workdir runs/gru_rcn            # cpu: three networks, minutes
    python -m experiments.recognition.gru_rcn cpu --variants --workdir runs/gru_rcn-one   # one, model.* as it is
    python -m experiments.recognition.gru_rcn foresight --workdir runs/gru_rcn-foresight  # and the next frames foretold
    python -m experiments.recognition.gru_rcn paper --vgg vgg16-397923af.pth --workdir runs/gru_rcn-paper

The same command starts or resumes. `cpu` trains small networks, plain, stacked and bidirectional, on digits that go one
of eight ways on a torus, each in a directory of its own, and draws `comparison.png`; where a frame stands says nothing
there. `foresight` trains the stacked one for longer, to tell the ways and also to foretell each frame from those before
it. `paper` is the paper's network on the first split of UCF-101, on VGG-16's published weights, which stay as they are
(give their file; `--no-frozen` trains them too: in the paper they had been fine-tuned to UCF-101's frames before). Its
batch, frames, crops and dropout are the paper's; that it is trained by Adam, at this rate and for so long, and that 25
clips of a video are averaged in testing, is ours. Reported there, of RGB: 79.9 %, stacked 78.3 %, bidirectional 80.7 %,
VGG-16 on single frames 78.0 %. `tiny` takes seconds and is what the tests run.

Held out are digits of other writers. The report sets the network beside a guess and, where `rivals` is on, a network of
convolutions for single frames, whose probabilities are averaged over the clip, trained in twice as many steps.
The pictures in samples/ show clips with what is said of them, and below them frames as foretold, which are held against
the frame before, copied, and the mean frame (`mse` per frame, `ssim`).

Measured: `cpu`, seed 0, on one busy core, 1 min 41 s, 3 min 26 s and 3 min 41 s: held-out directions right after 100
and 200 steps, plain 91.1 % and 100 %, stacked 94.4 % and 99.9 %, bidirectional 92.8 % and 100 %; cross-entropy 0.127,
0.112 and 0.045 nats; frames one by one 12.6 %, 2.084 nats; always the same 13 %. `foresight`, 5 min 12 s: 100 %, 0.311
nats; MSE per frame 5.84, from 9.56 in the second, where the way is not known yet, to 4.88 in the last (frame before
copied 15.3, mean frame 14.0), SSIM 0.560 (0.418, 0.020): frames are where they should be, and digits blurred. `paper`
has not been trained yet.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from seqjax.convert.vgg import load_published
from seqjax.data.augment import clips_throughout, scaled_somewhere
from seqjax.data.digit_directions import ARROWS
from seqjax.data.pipeline import eval_batches, train_batches
from seqjax.data.source import Record, SkipDamaged, Source, in_memory, mapped, open_source
from seqjax.metrics.average import average
from seqjax.metrics.baselines import mean_frame
from seqjax.metrics.classifier import frame_cnn_logits, train_frame_cnn
from seqjax.metrics.frames import frame_metrics
from seqjax.metrics.metric import Metric, together
from seqjax.models.recognition import gru_rcn
from seqjax.ops.image import signed_to_unit, uint8_to_unit, unit_to_uint8
from seqjax.train.command import main
from seqjax.train.comparison import run_several, training_curves
from seqjax.train.evaluate import Evaluation, Predict, Sampling
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.loop import Loop
from seqjax.train.mesh import this_process
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.plot import picture
from seqjax.train.step import Learner, Player, alternate, minimise

Variant = Literal["plain", "stacked", "bidirectional"]


@dataclasses.dataclass(frozen=True)
class Data:
    """Which clips."""

    name: str = "digit_directions"
    """Data set: ours, or a video set of the TFDS catalogue with labels."""
    config: str | None = "torus_16"
    """Configuration of the data set; its own default if None."""
    test: str = "test"
    """Split that is held out, or a part of one, such as test[:500]."""
    data_dir: str | None = None
    """Where prepared sets are; TFDS's own choice if None."""
    frames: int = 10
    """Consecutive frames that are cut from longer clips; read where there are ``sides``."""
    sides: tuple[int, ...] = ()
    """Heights and widths of the parts of training clips that are brought to model.size, and mirrored at random; without
    any, clips are taken as they are."""
    clips: int = 25
    """Clips of each held-out video whose probabilities are averaged; read where there are ``sides``."""
    in_memory: bool = True
    """Whether the training clips are kept in memory."""
    batch: int = 32
    """Clips per update, over all devices."""
    damaged: float = 0.01
    """Largest share of a split that may be damaged on disk; such clips are skipped and named."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe."""

    model: gru_rcn.Config = gru_rcn.Config(16, 1, "conv", hidden=(16, 24), classes=8, dropout=0.0)
    """The networks."""
    data: Data = Data()
    """The clips."""
    optimizer: Optimizer = Optimizer(learning_rate=3e-3)
    """The optimiser."""
    vgg: str | None = None
    """File of VGG-16's published weights, where it reads the frames."""
    frozen: bool = False
    """Whether the network that reads the frames stays as it is."""
    rivals: bool = True
    """Whether a network for single frames is trained too, to be compared with."""
    loop: Loop = Loop(steps=200, log_every=10, evaluate_every=100, sample_every=100, save_every=50)
    """Length and cadences of training."""
    seed: int = 0
    """Of the parameters and the order of the clips."""
    variants: tuple[Variant, ...] = ()
    """Networks to train one after another, each in workdir/<variant>, and to draw side by side."""
    workdir: str = "runs/gru_rcn"
    """Where the run keeps everything; a run that is there already is continued."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there, such as loop.steps."""


CPU = Config(variants=("plain", "stacked", "bidirectional"))
PRESETS = {
    "cpu": CPU,
    "foresight": Config(
        model=dataclasses.replace(CPU.model, stacked=True, foresight=10.0),
        optimizer=Optimizer("muon", learning_rate=8e-3, schedule="cosine", warmup=50, clip_norm=5.0, b2=0.99),
        loop=Loop(steps=600, log_every=20, evaluate_every=200, sample_every=200, save_every=200),
        workdir="runs/gru_rcn-foresight",
    ),
    "paper": Config(
        model=gru_rcn.Config(),
        data=Data("ucf101", "ucf101_1_256", sides=(256, 224, 192, 168), in_memory=False, batch=64),
        optimizer=Optimizer(learning_rate=1e-4),
        frozen=True,
        rivals=False,
        loop=Loop(steps=7_500, log_every=50, evaluate_every=1_500, sample_every=1_500, save_every=500),
        workdir="runs/gru_rcn-paper",
    ),
    "tiny": Config(
        model=dataclasses.replace(gru_rcn.Config.tiny(), size=16, classes=8),
        data=Data(config="tiny", batch=8),
        optimizer=Optimizer(),
        loop=Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5),
        workdir="runs/gru_rcn-tiny",
    ),
}


def run(config: Config) -> None:
    """Train one network, or each of several and compare them."""
    if not config.variants:
        return run_experiment(config, functools.partial(prepare, config))
    return run_several(
        {variant: alone(config, variant) for variant in config.variants},
        prepare,
        workdir=config.workdir,
        title=f"{config.data.name} {config.data.config}",
        plot=functools.partial(training_curves, curve="nll", label="nats, training batches"),
    )


def alone(config: Config, variant: Variant) -> Config:
    """The run of one of several networks."""
    stacked, both = variant == "stacked", variant == "bidirectional"
    model = dataclasses.replace(config.model, stacked=stacked, bidirectional=both)
    return dataclasses.replace(config, model=model, variants=(), workdir=str(Path(config.workdir) / variant))


def prepare(config: Config) -> Experiment:
    """The experiment, its data sets open."""
    train = open_split(config, "train")
    train = in_memory(train) if config.data.in_memory else train
    test = mapped(open_split(config, config.data.test), functools.partial(throughout, config))
    return Experiment(
        learner(config),
        functools.partial(build, config),
        functools.partial(batches, config, train),
        Evaluation(
            functools.partial(answers, config),
            figures(config, frames=one_clip(first(test, 1)).shape[1]),
            lambda: eval_batches(test, batch_size=config.data.batch, **this_process()),
        ),
        Sampling(functools.partial(answers, config), first(test, 12), functools.partial(draw, config)),
        functools.partial(baselines, config, train),
        higher_is_better=("accuracy", "ssim"),
        sources=(train, test),
    )


def open_split(config: Config, split: str) -> Source:
    """The clips of one split."""
    data = config.data
    return SkipDamaged(open_source(data.name, split=split, config=data.config, data_dir=data.data_dir), data.damaged)


def throughout(config: Config, record: Record) -> Record:
    """Video and label; of a longer video several clips."""
    kept, data = {key: record[key] for key in ("video", "label")}, config.data
    if not data.sides:
        return kept
    return clips_throughout(kept, frames=data.frames, size=config.model.size, count=data.clips)


def somewhere(config: Config, record: Record, rng: np.random.Generator) -> Record:
    """Video and label; of a longer video a random part."""
    kept, data = {key: record[key] for key in ("video", "label")}, config.data
    if not data.sides:
        return kept
    return scaled_somewhere(kept, rng, frames=data.frames, sides=data.sides, size=config.model.size)


def batches(config: Config, source: Source, step: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Shuffled clips from a step on, this process's part of each batch."""
    return train_batches(
        source,
        batch_size=config.data.batch,
        seed=config.seed,
        start_step=step,
        augment=functools.partial(somewhere, config),
        steps_per_call=config.loop.steps_per_call,
        **this_process(),
    )


def frames_of(config: Config, record: Record) -> Record:
    """All frames of a record as they are measured, one after another."""
    video = throughout(config, record)["video"]
    return {"video": video.reshape(-1, *video.shape[-3:])}


def first(source: Source, number: int) -> Record:
    """One batch of the first records, the same on every process."""
    records = [source[i] for i in range(min(number, len(source)))]
    return {name: np.stack([record[name] for record in records]) for name in ("video", "label")}


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The networks, on published weights where there is a file."""
    nets = gru_rcn.build(config.model, rngs)
    if config.model.net != "conv":
        load_published(nets["backbone"], config.vgg, frozen=config.frozen)
    return nets


def learner(config: Config) -> Learner:
    """How they are trained: all, or only what is recurrent."""
    tx = make_optimizer(config.optimizer, config.loop.steps)
    if config.frozen:
        return alternate({"recogniser": Player(gru_rcn.loss, ("recogniser",), tx)})
    return minimise(gru_rcn.loss, tx)


def figures(config: Config, *, frames: int) -> Metric:
    """What is measured: what is said of clips and, with foresight, each of their frames but the first as foretold."""
    parts = {"log_p": average(("accuracy", "cross_entropy"), measure)}
    if config.model.foresight:
        parts["frames"] = frame_metrics(frames=frames - 1).only("mse", "mse_by_frame", "ssim").on(to_foretell)
    return together(**parts)


def measure(log_p: jax.Array, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Of each clip, whether it is told right, and the cross-entropy in nats."""
    right = jnp.argmax(log_p, axis=-1) == batch["label"]
    # What says nothing of clips is neither right nor wrong.
    right = jnp.where(jnp.isnan(log_p[:, 0]), jnp.nan, right.astype(jnp.float32))
    return {"accuracy": right, "cross_entropy": -gru_rcn.of_class(log_p, batch["label"])}


def one_clip(batch: Mapping[str, Any]) -> Any:
    """The clips of a batch, or the first of each video's."""
    return batch["video"] if batch["video"].ndim == 5 else batch["video"][:, 0]


def to_foretell(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """All frames but the first of each clip, in [0, 1]."""
    return {"target": uint8_to_unit(one_clip(batch)[:, 1:]), "weight": batch["weight"]}


def baselines(config: Config, train: Source) -> dict[str, Predict]:
    """A guess, and the network that sees frames without their order; with foresight, frames that move nowhere."""
    classes = config.model.classes

    def only(name: str, told: Callable[[Mapping[str, jax.Array]], jax.Array]) -> Predict:
        def predict(_: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            seen = uint8_to_unit(one_clip(batch)[:, :-1])
            unsaid = {"log_p": jnp.full((len(seen), classes), jnp.nan)}
            unsaid |= {"frames": jnp.full(seen.shape, jnp.nan)} if config.model.foresight else {}
            return unsaid | {name: told(batch)}

        return predict

    guess = jnp.full(classes, -jnp.log(float(classes)))
    known = {"all classes alike": only("log_p", lambda batch: jnp.tile(guess, (len(batch["label"]), 1)))}
    if config.rivals:
        clips, steps = first(train, len(train)), 2 * config.loop.steps
        params = train_frame_cnn(clips["video"], clips["label"], steps=steps, batch=config.data.batch)
        known["frames one by one"] = only("log_p", lambda batch: frame_cnn_logits(params, batch["video"]))
    if config.model.foresight:
        mean = jnp.asarray(mean_frame(frames_of(config, train[i]) for i in range(len(train))))
        known["frame before copied"] = only("frames", lambda batch: uint8_to_unit(one_clip(batch)[:, :-1]))
        known["mean frame of the training set"] = only(
            "frames", lambda batch: jnp.broadcast_to(mean, one_clip(batch)[:, :-1].shape)
        )
    return known


def answers(config: Config, nets: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Logarithms of probabilities and, with foresight, all frames but the first as foretold, in [0, 1]."""
    found = {"log_p": gru_rcn.predict(nets, dict(batch))}
    if config.model.foresight:
        found["frames"] = signed_to_unit(gru_rcn.foretell(nets, {"video": one_clip(batch)})[:, :-1])
    return found


def draw(config: Config, outputs: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every clip in a row, below it the frames that were foretold, beside it what is said of it and what is true."""
    videos, ps = one_clip(batch), np.exp(outputs["log_p"])
    names = ARROWS if config.data.name == "digit_directions" else [str(k) for k in range(config.model.classes)]
    strips = np.concatenate(list(np.moveaxis(videos, 1, 0)), axis=2)
    if "frames" in outputs:
        levels = np.asarray(unit_to_uint8(jnp.asarray(outputs["frames"])))
        foretold = np.concatenate([np.zeros_like(videos[:, 0]), *np.moveaxis(levels, 1, 0)], axis=2)
        strips = np.concatenate([strips, foretold], axis=1)
    (height, width), side = strips.shape[1:3], videos.shape[2]
    rows = -(-len(strips) // 2)
    figure = Figure(figsize=(1.6 * width / side + 2.4, (0.8 * height / side + 0.1) * rows), layout="constrained")
    every = figure.subplots(rows, 2, squeeze=False).flat
    for axes, strip, p, label in zip(every, strips, ps, batch["label"], strict=False):
        axes.imshow(strip if strip.shape[-1] == 3 else strip[..., 0], cmap="gray", vmin=0, vmax=255)
        axes.vlines(np.arange(side, width, side) - 0.5, -0.5, height - 0.5, color="0.5", linewidth=0.5)
        axes.hlines(np.arange(side, height, side) - 0.5, -0.5, width - 0.5, color="white", linewidth=2)
        said = int(p.argmax())
        axes.text(
            *(1.02, 0.5, f"{names[said]} {p[said]:.0%}\ntrue {names[label]}"),
            **{"transform": axes.transAxes, "va": "center", "color": "tab:green" if said == label else "tab:red"},
        )
    for axes in figure.axes:
        axes.set_axis_off()
        axes.set_anchor("W")
    return {"clips": picture(figure)}


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
