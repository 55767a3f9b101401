"""Long-term prediction by way of poses (Villegas et al., 2017): articulated figures 64 frames ahead.

    python -m experiments.prediction.hierarchical --workdir runs/hierarchical    # cpu: both networks, then both at once
    python -m experiments.prediction.hierarchical pose --workdir runs/hierarchical-pose            # the poses alone
    python -m experiments.prediction.hierarchical image --workdir runs/hierarchical-image          # the images alone
    python -m experiments.prediction.hierarchical paper --workdir runs/hierarchical-paper          # Penn Action

The same command starts or resumes. `cpu` trains, in workdir/pose, an LSTM that reads ten poses and goes on alone, and,
in workdir/image, the generator that draws a figure in another pose; then it puts both together, from the last frame
seen, and leaves prediction.json, prediction.gif and prediction.png. The figures are of `seqjax.data.stick_actions`, on
32x32 before plain walls, actors of testing are unknown. `paper` is the published networks and schedule on Penn Action
(the error says where to put its files), but for the networks of features, AlexNet and a hourglass, in whose place
stands VGG-16: give torchvision's weights by --vgg, else they are random. `tiny` takes seconds, for tests.
Beside the poses stand the last one copied, each joint going on at its velocity, and the mean pose seen; beside the
images the last frame seen and the mean of those seen, by frames ahead (``gaps``), and how far the colour at the middle
of the trunk is off. A tenth of the joints is hidden from the LSTM and does not count.

Measured: `cpu`, seed 0, one CPU core, 1 min 28 s and 2 min 3 s: mean joint error over 32 frames 0.73 pixels (mean
pose 2.03, copy 2.19: 0.36 of the best), over 64 1.11 (2.48, 2.61), at the 64th 1.95 (3.57, 3.53). Images of true poses:
MSE 6.92 (copy 22.0, 5.0 dB), PSNR 26.96 dB on average over frames (copy 22.96, mean of the frames 23.86), SSIM 0.814
(0.667), colour 0.079 off (0.104). Both together: PSNR 26.45, 26.55, 25.71, 23.68 dB 8, 16, 32 and 64 frames ahead (copy
24.01, 24.67, 22.36, 20.80). Figures keep their colours, and their trunk and legs; arms and feet are blurred. No
discriminator was trained in these (``adversarial``), nor VGG asked. `paper` has not been trained yet.
"""

import dataclasses
import functools
import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from seqjax.convert.vgg import load_vgg
from seqjax.data.clips import Clips, any_pair, any_window, open_split, open_test, window
from seqjax.data.pipeline import eval_batches, train_batches
from seqjax.data.source import Record, Source, in_memory
from seqjax.files import replace_file
from seqjax.metrics import poses
from seqjax.metrics.average import average
from seqjax.metrics.frames import frame_metrics
from seqjax.metrics.metric import Metric, alike
from seqjax.models.prediction import hierarchical
from seqjax.models.prediction.hierarchical import LIMBS
from seqjax.nn.split import initialise
from seqjax.nn.vgg import VGG
from seqjax.ops.gan import turns
from seqjax.ops.image import uint8_to_unit, unit_to_uint8
from seqjax.train.command import main
from seqjax.train.evaluate import Evaluation, Predict, Sampling, compile_evaluation
from seqjax.train.experiment import Experiment, run_experiment
from seqjax.train.log import to_json
from seqjax.train.loop import Loop
from seqjax.train.media import side_by_side, skeletons, write_gif, write_png
from seqjax.train.mesh import make_mesh, this_process
from seqjax.train.optim import Optimizer, make_optimizer
from seqjax.train.plot import picture
from seqjax.train.progress import show
from seqjax.train.report import read_report
from seqjax.train.restore import restore
from seqjax.train.state import State
from seqjax.train.step import Learner, Player, alternate, minimise

Stage = Literal["pose", "image"]
MUON = Optimizer("muon", learning_rate=8e-3, schedule="cosine", warmup=50, clip_norm=5.0, b2=0.99)
"""Which needs far fewer steps here than Adam."""


@dataclasses.dataclass(frozen=True)
class PoseTraining:
    """How the LSTM is trained where both networks are."""

    batch: int = 64
    """Clips per optimiser step, over all devices."""
    optimizer: Optimizer = MUON
    """The optimiser."""
    loop: Loop = Loop(steps=2200, log_every=50, save_every=200)
    """Length and cadences of training."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe."""

    model: hierarchical.Config = hierarchical.Config(
        size=32,
        hidden=192,
        sigma=1.5,
        widths=(24, 64),
        convolutions=(2, 2),
        adversarial=0.0,
        features=(),
    )
    """The networks."""
    data: Clips = Clips("stick_actions", config="long_32", batch=8)
    """The clips."""
    optimizer: Optimizer = MUON
    """The optimiser of the task's networks, of both players of a game."""
    loop: Loop = Loop(steps=1500, log_every=50, sample_every=500, save_every=250)
    """Length and cadences of their training."""
    pose: PoseTraining = PoseTraining()
    """The same for the LSTM where both are trained."""
    gap: int = 64
    """The most frames between the two that the generator is trained on."""
    gaps: tuple[int, ...] = (8, 16, 32, 64)
    """Frames ahead at which images are measured."""
    horizon: int = 64
    """Poses ahead that are measured."""
    missed: float = 0.1
    """Share of the joints that the LSTM is not shown."""
    jitter: float = 0.1
    """By how much of the frame poses are shifted and made larger or smaller, at the most, when the LSTM is trained."""
    mirror: bool = True
    """Whether every other clip is seen in a mirror."""
    margin: float = 0.3
    """Of the rule by which a player pauses (`ops.gan.turns`); 0 for a discriminator that never does."""
    vgg: str | None = None
    """File with torchvision's VGG-16, in whose features images are compared too, if the model has a weight for them."""
    seed: int = 0
    """Of the parameters and the order of the clips."""
    stages: tuple[Stage, ...] = ()
    """Networks to train one after another, each in workdir/<stage>, and to put together."""
    workdir: str = "runs/hierarchical"
    """Where the run keeps everything; a run that is there already is continued."""
    allow_change: tuple[str, ...] = ()
    """Fields that may differ from those of the run that is already there, such as loop.steps."""


CPU = Config(stages=("pose", "image"))
PAPER = Config(
    model=hierarchical.Config(features=(1.0,)),
    data=Clips("penn_action", config="128", in_memory=False, batch=8),
    optimizer=Optimizer(learning_rate=1e-4, b1=0.5),
    loop=Loop(steps=100_000, log_every=100, evaluate_every=10_000, sample_every=10_000, save_every=2_000),
    pose=PoseTraining(
        batch=256,
        optimizer=Optimizer("rmsprop", learning_rate=1e-3, clip_norm=25.0),
        loop=Loop(steps=37_500, log_every=100, evaluate_every=5_000, save_every=2_500),
    ),
    gap=29,
    missed=0.0,
    jitter=0.0,
    mirror=False,
    stages=("pose", "image"),
    workdir="runs/hierarchical-paper",
)


def alone(config: Config, stage: Stage, workdir: str | None = None) -> Config:
    """The run of one of the networks."""
    model, workdir = dataclasses.replace(config.model, task=stage), workdir or str(Path(config.workdir) / stage)
    config = dataclasses.replace(config, model=model, stages=(), workdir=workdir)
    if stage == "image":
        return config
    data = dataclasses.replace(config.data, batch=config.pose.batch)
    return dataclasses.replace(config, data=data, optimizer=config.pose.optimizer, loop=config.pose.loop)


PRESETS = {
    "cpu": CPU,
    "pose": alone(CPU, "pose", "runs/hierarchical-pose"),
    "image": alone(CPU, "image", "runs/hierarchical-image"),
    "paper": PAPER,
    "tiny": Config(
        model=hierarchical.Config.tiny(),
        data=Clips("stick_actions", config="tiny_16", batch=8),
        optimizer=Optimizer(),
        loop=Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5),
        pose=PoseTraining(
            8, Optimizer(), Loop(steps=40, log_every=1, evaluate_every=20, sample_every=20, save_every=5)
        ),
        gap=4,
        gaps=(2, 4),
        horizon=4,
        workdir="runs/hierarchical-tiny",
    ),
}


def run(config: Config) -> None:
    """Train one network, or both and put them together."""
    if not config.stages:
        return run_experiment(config, functools.partial(prepare, config))
    for stage in config.stages:
        one = alone(config, stage)
        show(f"\n{stage}: {one.workdir}")
        run_experiment(one, functools.partial(prepare, one))
    return compose(config) if set(config.stages) == {"pose", "image"} else None


def prepare(config: Config) -> Experiment:
    """The experiment, its data sets open."""
    train, test = open_split(config.data, "train"), open_test(config.data)
    poses_alone = config.model.task == "pose"
    train = in_memory(train) if config.data.in_memory else train
    predict = functools.partial(predicted_poses if poses_alone else predicted_images, config)
    every = functools.partial(predicted_poses if poses_alone else every_image, config)
    return Experiment(
        learner(config),
        functools.partial(build, config),
        functools.partial(training_batches, config, train),
        Evaluation(predict, metric(config), functools.partial(held_out, config, test)),
        Sampling(every, first(config, test, 4), functools.partial(draw, config)),
        lambda: pose_baselines(config) if poses_alone else image_baselines(config),
        higher_is_better=("psnr", "ssim", "pck_0.1", "pck_0.2"),
        sources=(train, test),
    )


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The networks."""
    return hierarchical.build(config.model, rngs)


def learner(config: Config) -> Learner:
    """How they are trained: of a game the generator first, as the released code does."""
    tx = make_optimizer(config.optimizer, config.loop.steps)
    if config.model.task == "pose":
        return minimise(hierarchical.loss_pose, tx)
    generator = functools.partial(hierarchical.loss_generator, feature_fns=feature_fns(config))
    if not config.model.adversarial:
        return minimise(generator, tx)

    def when(player: str, state: State) -> Array:
        real, fake = state.rest["discriminator"]["errors"]
        return getattr(turns(real, fake, margin=config.margin), player)

    return alternate(
        {
            "generator": Player(generator, ("generator",), tx, functools.partial(when, "generator")),
            "discriminator": Player(
                hierarchical.loss_discriminator, ("discriminator",), tx, functools.partial(when, "discriminator")
            ),
        }
    )


def feature_fns(config: Config) -> list[hierarchical.FeatureFn]:
    """VGG-16's fifth group, as many times as the model has weights: none or once."""
    if not config.model.features:
        return []
    vgg = load_vgg(config.vgg) if config.vgg else initialise(lambda rngs: {"vgg": VGG(rngs=rngs)}, 0)["vgg"]
    return [lambda images: vgg(images, ["relu5_1"])["relu5_1"]]  # type: ignore[operator]


OTHER_SIDE = [0, *(k + 1 if k % 2 else k - 1 for k in range(1, hierarchical.JOINTS))]
"""Of each joint, its counterpart."""
KEYS = {"pose": ("joints", "visible"), "image": ("video", "joints", "visible")}


def training_batches(config: Config, source: Source, step: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Shuffled parts of clips from a step on, this process's part of each batch."""
    keys, frames = KEYS[config.model.task], config.model.context + config.model.future

    def part(record: Record, rng: np.random.Generator) -> Record:
        record = mirror(record) if config.mirror and rng.random() < 0.5 else record
        if config.model.task == "image":
            return any_pair(record, rng, keys=keys, gap=config.gap) | whole(record)
        poses = any_window(move(record, rng, config.jitter), rng, keys=keys, frames=frames)
        return hide(poses, config.missed, rng) | whole(record)

    size, calls = config.data.batch, config.loop.steps_per_call
    return train_batches(
        source, batch_size=size, seed=config.seed, start_step=step, augment=part, steps_per_call=calls, **this_process()
    )


def mirror(record: Record) -> Record:
    """Left and right exchanged, in the image and in the names of the joints."""
    row, column = np.moveaxis(record["joints"][..., OTHER_SIDE, :], -1, 0)
    return record | {
        "video": record["video"][..., ::-1, :],
        "joints": np.stack([row, record["video"].shape[-2] - 1 - column], axis=-1),
        "visible": record["visible"][..., OTHER_SIDE],
    }


def whole(record: Record) -> Record:
    """What a clip has once."""
    return {"extent": record["extent"]} if "extent" in record else {}


def move(record: Record, rng: np.random.Generator, jitter: float) -> Record:
    """Poses that are larger and shifted, each by up to so much of the frame: others' poses, before other cameras."""
    size = record["video"].shape[-2]
    scale, shift = 1 + rng.uniform(-jitter, jitter), size * rng.uniform(-jitter, jitter, 2)
    joints = size / 2 + scale * (record["joints"] - size / 2) + shift
    return record | {"joints": joints.astype(np.float32)}


def hide(record: Record, share: float, rng: np.random.Generator | None = None) -> Record:
    """So many joints are not visible, without a generator always the same ones of a record."""
    rng = rng or np.random.default_rng(zlib.crc32(np.ascontiguousarray(record["joints"]).tobytes()))
    return record | {"visible": record["visible"] & (rng.random(record["visible"].shape) >= share)}


def tested(config: Config, record: Record) -> Record:
    """The beginning of a clip, as long as what is measured."""
    ahead = config.horizon if config.model.task == "pose" else max(config.gaps)
    part = window(record, keys=KEYS[config.model.task], start=0, frames=config.model.context + ahead) | whole(record)
    return hide(part, config.missed) if config.model.task == "pose" else part


def held_out(config: Config, source: Source) -> Iterator[Mapping[str, np.ndarray]]:
    """The held-out clips in order, this process's part of each batch."""
    transform = functools.partial(tested, config)
    return eval_batches(source, batch_size=config.data.batch, transform=transform, **this_process())


def first(config: Config, source: Source, number: int) -> Record:
    """One batch of the first clips, the same on every process."""
    records = [tested(config, source[i]) for i in range(min(number, len(source)))]
    return {key: np.stack([record[key] for record in records]) for key in records[0]}


def metric(config: Config) -> Metric:
    """What is measured of the task."""
    if config.model.task == "pose":
        return poses.pose_metrics(frames=config.horizon).on(functools.partial(true_poses, config))
    frames = frame_metrics(frames=len(config.gaps)).only("mse", "psnr", "ssim", "psnr_by_frame", "ssim_by_frame")
    colours = average(("colour_error",), functools.partial(colour_error, config))
    return alike(frames.on(functools.partial(true_frames, config)), colours)


def true_poses(config: Config, batch: Mapping[str, Array]) -> dict[str, Array]:
    """The batch as the metric of poses reads it; a person is as large as the box around the last pose seen."""
    joints, visible = hierarchical.person(batch)
    last = config.model.context - 1
    scale = poses.box_side(joints[:, last], jnp.ones(joints[:, last].shape[:-1], bool))[:, None]
    future = slice(config.model.context, config.model.context + config.horizon)
    target = joints[:, future]
    return {
        "target": target,
        "visible": visible[:, future],
        "scale": jnp.broadcast_to(scale, target.shape[:2]),
        "weight": batch["weight"],
    }


def true_frames(config: Config, batch: Mapping[str, Array]) -> dict[str, Array]:
    """The frames that are measured, in [0, 1]."""
    video = batch["video"][:, ahead(config)]
    return {"target": uint8_to_unit(video), "weight": batch["weight"]}


def ahead(config: Config) -> np.ndarray:
    """Places of the frames that are measured."""
    return config.model.context - 1 + np.array(config.gaps)


def colour_error(config: Config, outputs: Array, batch: Mapping[str, Array]) -> dict[str, Float[Array, " B"]]:
    """How far the colour at the middle of the trunk is from the true one: the mean over RGB and frames, in [0, 1]."""
    joints, _ = hierarchical.person(batch)
    trunk = jnp.mean(joints[:, ahead(config)][:, :, np.array([1, 2, 7, 8])], axis=2)
    row, column = jnp.moveaxis(jnp.clip(jnp.round(trunk), 0, config.model.size - 1).astype(jnp.int32), -1, 0)
    clip, frame = jnp.arange(len(row))[:, None], jnp.arange(row.shape[1])[None]
    target = true_frames(config, {**batch, "weight": jnp.ones(len(row))})["target"]
    apart = jnp.abs(outputs - target)[clip, frame, row, column]
    return {"colour_error": jnp.mean(apart, axis=(1, 2))}


def predicted_poses(config: Config, nets: Any, batch: Mapping[str, Array]) -> Array:
    """The poses that are measured."""
    return hierarchical.predict_poses(nets, batch, steps=config.horizon)


def predicted_images(config: Config, nets: Any, batch: Mapping[str, Array], joints: Array | None = None) -> Array:
    """The frames that are measured, made of the last one seen and of the true poses, or of others."""
    last, (true, visible) = config.model.context - 1, hierarchical.person(batch)
    seen = visible[:, ahead(config)] if joints is None else None
    joints = true[:, ahead(config)] if joints is None else joints[:, np.array(config.gaps) - 1]
    return hierarchical.draw_poses(nets, batch["video"][:, last], true[:, last], visible[:, last], joints, seen)


def every_image(config: Config, nets: Any, batch: Mapping[str, Array]) -> Array:
    """All frames after the context, of the true poses."""
    every = dataclasses.replace(config, gaps=tuple(range(1, max(config.gaps) + 1)))
    return predicted_images(every, nets, batch)


def pose_baselines(config: Config) -> dict[str, Predict]:
    """Poses that need no training, by name."""

    def on_context(forecast: Any) -> Predict:
        def predict(_: Any, batch: Mapping[str, Array]) -> Array:
            joints, visible = (x[:, : config.model.context] for x in hierarchical.person(batch))
            return forecast(joints, visible, steps=config.horizon)

        return predict

    forecasts = {
        "copy of the last pose": poses.copy_last,
        "constant velocity": poses.constant_velocity,
        "mean pose": poses.mean_pose,
    }
    return {name: on_context(forecast) for name, forecast in forecasts.items()}


def image_baselines(config: Config) -> dict[str, Predict]:
    """Frames that need no training, by name."""
    seen = {"copy of the last frame": slice(config.model.context - 1, config.model.context)}
    seen["mean of the frames seen"] = slice(0, config.model.context)

    def mean_of(part: slice) -> Predict:
        def predict(_: Any, batch: Mapping[str, Array]) -> Array:
            frame = jnp.mean(uint8_to_unit(batch["video"][:, part]), axis=1, keepdims=True)
            return jnp.repeat(frame, len(config.gaps), axis=1)

        return predict

    return {name: mean_of(part) for name, part in seen.items()}


def draw(config: Config, outputs: np.ndarray, batch: Record) -> dict[str, np.ndarray]:
    """Of poses truth and prediction; of images context, truth and what is made of the true poses."""
    joints, past = batch["joints"][:, :, 0], config.model.context
    if config.model.task == "image":
        return {"analogy": film(config, batch["video"], outputs, joints[:, past:])}
    lines = functools.partial(skeletons, limbs=LIMBS, size=config.model.size, scale=scale_of(config))
    columns = {"context": lines(joints[:, :past]), "truth": lines(joints[:, past:]), "prediction": lines(outputs)}
    return {"poses": side_by_side(columns, starts={"truth": past, "prediction": past}, scale=1)}


def scale_of(config: Config) -> int:
    """Enlargement of frames in pictures."""
    return -(-128 // config.model.size)


def film(
    config: Config, video: np.ndarray, frames: np.ndarray, joints: np.ndarray, label: str = "prediction"
) -> np.ndarray:
    """Context, truth, frames and the poses that they were made of, side by side."""
    past, scale = config.model.context, scale_of(config)
    levels = np.asarray(unit_to_uint8(jnp.asarray(frames)))
    pixels = {"context": video[:, :past], "truth": video[:, past : past + frames.shape[1]], label: levels}
    columns = {name: x.repeat(scale, 2).repeat(scale, 3) for name, x in pixels.items()}
    columns["pose"] = skeletons(joints[:, : frames.shape[1]], LIMBS, size=config.model.size, scale=scale)
    return side_by_side(columns, starts=dict.fromkeys(("truth", label, "pose"), past), scale=1)


def compose(config: Config) -> None:
    """Both networks at once: images of predicted poses, measured beside those of true ones and the last frame seen."""
    here = sys.modules[__name__]
    nets: dict[str, Any] = {}
    for stage in ("pose", "image"):
        nets |= restore(Path(config.workdir) / stage, here)[1]
    image = dataclasses.replace(alone(config, "image"), horizon=max(config.gaps))
    experiment = prepare(image)

    def predicted(_: Any, batch: Mapping[str, Array]) -> Array:
        return predicted_images(image, nets, batch, predicted_poses(image, nets, batch))

    def given(_: Any, batch: Mapping[str, Array]) -> Array:
        return predicted_images(image, nets, batch)

    found = {
        name: compile_evaluation(experiment.evaluation._replace(predict=predict), {}, make_mesh())({}, {})
        for name, predict in {"predicted poses": predicted, "true poses": given, **image_baselines(image)}.items()
    }
    if jax.process_index():
        return
    place, batch = Path(config.workdir).expanduser(), first(image, open_test(config.data), 8)
    pose = read_report(place / "pose")
    joint_errors = {"LSTM": pose["metrics"], **pose["baselines"]}
    content = {name: to_json(figures) for name, figures in found.items()}
    replace_file(place / "prediction.json", (json.dumps({"gaps": config.gaps} | content, indent=2) + "\n").encode())
    write_png(place / "prediction.png", plot(config, found, joint_errors))
    made = jax.jit(lambda b: hierarchical.predict(nets, b, steps=image.horizon))(batch)
    pictures = film(config, batch["video"], np.asarray(made["frames"]), np.asarray(made["joints"]))
    write_gif(place / "prediction.gif", pictures)
    for name, figures in found.items():
        show(
            f"{name}: PSNR {figures['psnr']:.2f} dB, by gap " + ", ".join(f"{x:.2f}" for x in figures["psnr_by_frame"])
        )
    show(f"{place / 'prediction.gif'}")


def plot(config: Config, frames: Mapping[str, Any], joints: Mapping[str, Any]) -> np.ndarray:
    """Joint error by frame, PSNR and SSIM by gap."""
    figure = Figure(figsize=(13, 4), dpi=110, layout="constrained")
    left, *rest = figure.subplots(1, 3)
    for name, figures in joints.items():
        left.plot(np.arange(1, len(figures["joint_error_by_frame"]) + 1), figures["joint_error_by_frame"], label=name)
    left.set(xlabel="frames ahead", ylabel="joint error, pixels", ylim=(0, None))
    left.set_ylim(0, 2 * max(joints["mean pose"]["joint_error_by_frame"]))
    for axes, key in zip(rest, ("psnr", "ssim"), strict=True):
        for name, figures in frames.items():
            axes.plot(config.gaps, figures[f"{key}_by_frame"], "o-", label=name)
        axes.set(xlabel="frames ahead", ylabel=key.upper())
    for axes in (left, rest[0]):
        axes.legend(fontsize="small")
    return picture(figure)


if __name__ == "__main__":
    main(run, PRESETS, doc=__doc__)
