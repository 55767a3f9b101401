"""MoCoGAN (Tulyakov et al., 2018): clips of coloured discs, what they show and how they move drawn apart.

    python -m experiments.generation.mocogan --workdir runs/mocogan            # cpu: minutes on two cores
    python -m experiments.generation.mocogan paper --workdir runs/mocogan-paper
    python -m experiments.generation.mocogan paper --data.name folder_of_clips --data.config clips_rgb_64_20frames

The same command starts or resumes. Presets: `cpu` trains small networks on discs of 16x16 that swing up and down or
left and right; `no_image_discriminator` and `category_to_generator` are the paper's ablations; `paper` is the published
network on UCF-101, without categories, as no kind of motion is told apart there; `tiny` takes seconds and is what the
tests run. On facial expressions (MUG) the paper tells six categories: give such a set as `--data.name`, with labels,
and `--model.categories 6`. Sets without labels, as one's own clips and BAIR's, want `--model.categories 0`, as `paper`
has it, or `--model.q-train fakes`; clips that the networks do not take are refused before anything is trained.
Generated are four motions to each content code. A clip should keep its colour (`acd`, over that of frames shuffled
among clips `acd_ratio`) while it moves (`amplitude`, pixels), colours should differ between clips (`content_spread`),
stay when the motion is another (`acd_motions`) while the paths part (`path_distance`, pixels), and go along the axis
that was meant (`axis_accuracy`; `motion_control`, by a classifier trained on the spot, both 0.5 by chance), whose
features also measure how close clips are to real ones as a set (a Fréchet distance, no FVD); without labels it tells
clips as they are from their frames in disorder and from stills. A content is the mean colour of what is bright, which
says most of things on black. Real clips stand beside the model, their frames shuffled among each other, and their first
frames standing still.

Measured: `cpu`, seed 0, on one busy core: axis_accuracy and motion_control 1.000 (shuffled frames 0.514 and 0.525),
acd_ratio 0.401 (held-out clips 0.025, shuffled 0.998), content_spread 0.128 (held-out 0.199), amplitude 2.45 px (2.69),
acd_motions 0.171 (0.463 between any two held-out clips), path_distance 3.34 px, Fréchet distance 15.9 (held-out 0.19,
shuffled 9.1): as a set the clips are farther from real ones than shuffled frames are. After 2,400 steps, 3 min 10 s,
content and motion had 0.476, 0.092 and 2.60 px; in the same run continued to 6,000, 0.548, 0.093 and 2.63 px: how
things move is learned early and stays; colours come and go, are fewer than the real ones and hang on the motion as
well, and discs are speckled. Kernels that keep variances, doubling by nearest neighbours, whole frames judged, other
rates of the discriminators and a penalty on their slope were tried for 1,200 to 2,400 steps, an average of the
generator and a falling rate for all 4,800, and kept no more of the colours; nor did, in 2,400, whole frames judged, two
of each clip, without normalisation and with R1 (γ = 0.5: ratio 0.732, spread 0.058, Fréchet distance 16.0), or
discriminators that also see how far each of their first features deviates in the batch (0.813, 0.084, 19.6). The other
presets have not been trained yet.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.data.augment import first_frames, frames_somewhere, middle
from seqjax.data.clips import Clips, open_split, open_test
from seqjax.data.pipeline import eval_batches, train_batches
from seqjax.data.source import Record, Source, in_memory
from seqjax.errors import InputError
from seqjax.metrics.average import average
from seqjax.metrics.average_content_distance import HIGHER_IS_BETTER, centroid, content_metric, mean_colour
from seqjax.metrics.clip_classifier import control_metric, train_clip_classifier
from seqjax.metrics.features import FeatureNet
from seqjax.metrics.fvd import clip_statistics, fvd_metric
from seqjax.metrics.metric import Metric, together
from seqjax.models.generation import mocogan
from seqjax.ops.image import signed_to_unit, uint8_to_unit, unit_to_signed, unit_to_uint8
from seqjax.train.command import main
from seqjax.train.evaluate import Evaluation, Sampling
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.loop import Loop
from seqjax.train.media import side_by_side
from seqjax.train.mesh import this_process
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.step import Learner, Player, alternate


@dataclasses.dataclass(frozen=True)
class Data(Clips):
    """Which clips, and which of their frames."""

    every: int = 1
    """How far the frames are apart that are taken of a clip, from anywhere in it; of one that is too short for that
    they are closer."""
    side: int | None = None
    """Side to which the middle square of each frame is brought; None leaves them as they are."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe."""

    model: mocogan.Config = mocogan.Config(
        size=16, frames=8, content=8, motion=4, categories=2, base=16, discriminator_base=16
    )
    """The networks and the game."""
    data: Data = Data("moving_discs", "discs_16", batch=16)
    """The clips."""
    optimizer: Optimizer = Optimizer(learning_rate=8e-4, b1=0.5, weight_decay=1e-5)
    """The optimiser of the generator, and of the discriminators at rates of their own."""
    image_rate: float = 1.0
    """The image discriminator's learning rate over the generator's."""
    video_rate: float = 0.3
    """The video discriminator's."""
    samples: int = 512
    """Clips generated for an evaluation."""
    motions: int = 4
    """Of them, clips to a content code."""
    references: int = 4_000
    """Real clips that they are held against, at most."""
    classifier_steps: int = 600
    """Steps in which the network is trained that they are compared by."""
    loop: Loop = Loop(steps=4800, log_every=50, evaluate_every=600, sample_every=600, save_every=300)
    """Length and cadences of training."""
    seed: int = 0
    """Of the parameters, the order of the clips and the noise."""
    workdir: str = "runs/mocogan"
    """Where the run keeps everything; a run that is there already is continued."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there, such as loop.steps."""


CPU = Config()
PRESETS = {
    "cpu": CPU,
    "no_image_discriminator": dataclasses.replace(
        CPU, model=dataclasses.replace(CPU.model, image_discriminator="none"), workdir="runs/mocogan-no-images"
    ),
    "category_to_generator": dataclasses.replace(
        CPU, model=dataclasses.replace(CPU.model, category_to="gen"), workdir="runs/mocogan-gen"
    ),
    "paper": Config(
        model=mocogan.Config(categories=0),
        data=Data("ucf101", "ucf101_1", in_memory=False, batch=32, every=2, side=64),
        optimizer=Optimizer(learning_rate=2e-4, b1=0.5, weight_decay=1e-5),
        video_rate=1.0,
        references=2_000,
        classifier_steps=5_000,
        loop=Loop(steps=100_000, log_every=100, evaluate_every=10_000, sample_every=5_000, save_every=2_000),
        workdir="runs/mocogan-paper",
    ),
    "tiny": Config(
        model=dataclasses.replace(mocogan.Config.tiny(), channels=3),
        data=Data("moving_discs", "tiny", batch=8),
        optimizer=Optimizer(b1=0.5, weight_decay=1e-5),
        samples=24,
        classifier_steps=20,
        loop=Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5),
        workdir="runs/mocogan-tiny",
    ),
}


def run(config: Config) -> None:
    """Train, measure beside the baselines, and report."""
    run_experiment(config, functools.partial(prepare, config))


def prepare(config: Config) -> Experiment:
    """The experiment, its data sets open."""
    train, test = open_split(config.data, "train"), open_test(config.data)
    train = in_memory(train) if config.data.in_memory else train
    real, held_out = arrays(config, train), arrays(config, test)
    net = feature_net(config, real, held_out)
    metric = figures(config, net, real)
    others = to_compare(held_out, config.samples)
    rows = rows_of(codes(config.model, config.samples // config.motions, config.motions) | others)
    return Experiment(
        learner(config),
        functools.partial(build, config),
        functools.partial(batches, config, train),
        Evaluation(measured, metric, lambda: eval_batches(rows, batch_size=config.data.batch, **this_process())),
        Sampling(mocogan.sample, table_of_codes(config.model), draw),
        lambda: {name: functools.partial(given, name) for name in others if name != "label"},
        higher_is_better=(*HIGHER_IS_BETTER, "axis_accuracy", "motion_control"),
        out_of_reach=["held-out clips"],
        sources=(train, test),
    )


def cut(config: Config, record: Record) -> Record:
    """The clip at the size of the networks, and what is known of it."""
    kept: Record = {key: record[key] for key in ("video", "label", "colour") if key in record}
    if np.ndim(kept.get("label", 0)):
        del kept["label"]  # several are of things in a clip, and of no kind of clip
    if config.data.side is None:
        return kept
    squares = [middle({"image": frame}, keys=("image",), size=config.data.side)["image"] for frame in record["video"]]
    return kept | {"video": np.stack(squares)}


def apart(config: Config, record: Record) -> int:
    """How far apart the frames are that are taken of a clip."""
    return max(1, min(config.data.every, (len(record["video"]) - 1) // max(1, config.model.frames - 1)))


def somewhere(config: Config, record: Record, rng: np.random.Generator) -> Record:
    """So many frames from anywhere in a clip."""
    return frames_somewhere(record, rng, frames=config.model.frames, every=apart(config, record))


def arrays(config: Config, source: Source) -> Record:
    """The first clips of a source, cut, and what is known of them.

    Raises:
      InputError: they are not of the networks' size; their labels are missing where categories are learned from them,
        or are not as many.
    """

    def first(record: Record) -> Record:
        return cut(config, first_frames(record, frames=config.model.frames, every=apart(config, record)))

    records = [first(source[i]) for i in range(min(len(source), config.references))]
    found = {key: np.stack([record[key] for record in records]) for key in records[0]}
    as_given = {key: jnp.asarray(value if key == "label" else value[:1]) for key, value in found.items()}
    mocogan.signed_clips(config.model, as_given["video"])
    if config.model.categories and config.model.q_train == "real_labels":
        kinds = int(mocogan.real_labels(as_given).max()) + 1
        if kinds > config.model.categories:
            raise InputError(
                f"model.categories: got {config.model.categories}, and {config.data.name} has {kinds} labels: set it "
                "to as many, or to 0 for none."
            )
    return found


def feature_net(config: Config, real: Record, held_out: Record) -> FeatureNet:
    """What clips are compared by: it tells kinds of motion, and of discs also which colour is the strongest; without
    labels, how frames follow one another."""
    name = f"{config.data.name}-gru" if "label" in real else f"{config.data.name}-order-gru"

    def classes(clips: Record) -> np.ndarray:
        return clips["label"] * 3 + clips["colour"].argmax(axis=1) if "colour" in clips else clips["label"]

    real, held_out = (clips if "label" in real else in_orders(clips["video"]) for clips in (real, held_out))
    clips = (real["video"], classes(real), held_out["video"], classes(held_out))
    return train_clip_classifier(*clips, name=name, steps=config.classifier_steps)


def in_orders(clips: np.ndarray) -> Record:
    """Clips in turn as they are, with their frames in disorder, and with their first frames alone; and which."""
    rng, label = np.random.default_rng(0), np.arange(len(clips)) % 3
    frames = np.arange(clips.shape[1])
    orders = [(frames, rng.permutation(frames), 0 * frames)[kind] for kind in label]
    return {"video": np.stack([clip[order] for clip, order in zip(clips, orders, strict=True)]), "label": label}


def figures(config: Config, net: FeatureNet, real: Record) -> Metric:
    """What is measured of clips."""
    frames, channels = config.model.frames, config.model.channels
    reference, side = clip_statistics(net, real["video"]), config.data.side
    resized = "none" if side is None else f"middle square, bicubic to {side}x{side}"
    parts = {
        "content": content_metric(frames=frames, content=channels, capacity=config.samples, motions=config.motions),
        "fvd": fvd_metric(net, reference, split="train", frames=frames, resize=resized),
    }
    shown = ["acd", "acd_ratio", "acd_motions", "content_spread", "amplitude", "path_distance", net.figure("fd")]
    if config.model.categories and "label" in real:
        parts["control"] = control_metric(net, categories=config.model.categories)
        shown.insert(0, "motion_control")
    if config.data.name == "moving_discs":
        parts["axis"] = average(("axis_accuracy",), axis_accuracy)
        shown.insert(0, "axis_accuracy")
    return together(**parts).only(*shown)


def views(clips: jax.Array, category: jax.Array) -> dict[str, Any]:
    """What each metric sees of clips in [-1, 1], which were meant to move so."""
    unit = jnp.clip(signed_to_unit(clips.astype(jnp.float32)), 0, 1)
    seen = {"content": mean_colour(unit), "place": centroid(unit)}
    control = {"clips": clips, "category": category}
    return {"axis": seen | control, "control": control, "content": seen, "fvd": clips}


def axis_accuracy(outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Whether the middle of what is bright goes farther along the axis of the category than along the other."""
    spread = jnp.var(outputs["place"], axis=1)
    right = (jnp.argmax(spread, axis=1) == outputs["category"]).astype(jnp.float32)
    return {"axis_accuracy": jnp.where(jnp.isnan(spread[:, 0]), jnp.nan, right)}


def measured(nets: Any, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
    """The model's clips of the codes in the batch."""
    return views(mocogan.sample(nets, dict(batch)), batch["category"])


def given(name: str, nets: Any, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
    """Clips that are in the batch already."""
    return views(unit_to_signed(uint8_to_unit(batch[name])), batch["label"])


def codes(model: mocogan.Config, contents: int, motions: int) -> dict[str, np.ndarray]:
    """Always the same codes: of each content some motions, side by side."""
    drawn = mocogan.draw_codes(model, contents * motions, key=jax.random.key(0))
    drawn = drawn._replace(content=jnp.repeat(drawn.content[::motions], motions, axis=0))
    return {name: np.asarray(value) for name, value in drawn._asdict().items()}


def table_of_codes(model: mocogan.Config, rows: int = 5, columns: int = 6) -> dict[str, np.ndarray]:
    """Each content in a row with each motion in a column; categories in turn."""
    drawn = mocogan.draw_codes(model, max(rows, columns), key=jax.random.key(1))
    across = {
        name: np.tile(np.asarray(value[:columns]), (rows, *[1] * (value.ndim - 1)))
        for name, value in drawn._asdict().items()
    }
    content = np.repeat(np.asarray(drawn.content[:rows]), columns, axis=0)
    category = np.tile(np.arange(columns) % max(1, model.categories), rows)
    return across | {"content": content, "category": category}


def to_compare(held_out: Record, number: int) -> dict[str, np.ndarray]:
    """Real clips and what can be made of them: their frames among each other, their first frames standing still."""
    places = np.arange(number) % len(held_out["video"])
    clips = held_out["video"][places]
    order = np.random.default_rng(0).permutation(clips.shape[0] * clips.shape[1])
    shuffled = clips.reshape(-1, *clips.shape[2:])[order].reshape(clips.shape)
    still = np.repeat(clips[:, :1], clips.shape[1], axis=1)
    made = {"held-out clips": clips, "their frames shuffled": shuffled, "their first frames": still}
    return made | {"label": held_out["label"][places] if "label" in held_out else 0 * places}


def rows_of(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """As records."""
    return [dict(zip(arrays, row, strict=True)) for row in zip(*arrays.values(), strict=True)]


def draw(outputs: np.ndarray, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A sheet of clips: contents in rows, motions in columns."""
    levels = np.asarray(unit_to_uint8(signed_to_unit(jnp.asarray(outputs))))
    columns = len(np.unique(batch["noise"], axis=0))
    several = batch["category"].any()
    names = [
        f"kind {kind}, motion {i}" if several else f"motion {i}" for i, kind in enumerate(batch["category"][:columns])
    ]
    return {"clips": side_by_side({name: levels[i::columns] for i, name in enumerate(names)})}


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The networks."""
    return mocogan.build(config.model, rngs)


def learner(config: Config) -> Learner:
    """How they are trained: the discriminators first, of images and of videos, then the generator with its GRU."""

    def player(loss: Any, nets: tuple[str, ...], rate: float) -> Player:
        own = dataclasses.replace(config.optimizer, learning_rate=rate * config.optimizer.learning_rate)
        return Player(loss, nets, make_optimizer(own, config.loop.steps))

    players = {
        "image_discriminator": player(mocogan.loss_image_discriminator, ("image_discriminator",), config.image_rate),
        "video_discriminator": player(mocogan.loss_video_discriminator, ("video_discriminator",), config.video_rate),
        "generator": player(mocogan.loss_generator, ("motion", "generator"), 1.0),
    }
    if config.model.image_discriminator == "none":
        del players["image_discriminator"]
    return alternate(players)


def batches(config: Config, source: Source, step: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Shuffled clips from a step on, this process's part of each batch."""
    return train_batches(
        source,
        batch_size=config.data.batch,
        seed=config.seed,
        start_step=step,
        augment=functools.partial(somewhere, config),
        transform=functools.partial(cut, config),
        steps_per_call=config.loop.steps_per_call,
        **this_process(),
    )


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
