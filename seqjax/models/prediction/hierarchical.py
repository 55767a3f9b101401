"""Long-term prediction by a hierarchy: first the pose, far ahead, then its pictures (Villegas et al., 2017).

Ruben Villegas, Jimei Yang, Yuliang Zou, Sungryull Sohn, Xunyu Lin, Honglak Lee, *Learning to Generate Long-term Future
via Hierarchical Prediction*, ICML 2017, https://arxiv.org/abs/1704.05831, and the released code.

An LSTM reads the poses of some frames and goes on without inputs for as many steps as are wanted. Every future frame is
then made from the last true one, by analogy: it is to the predicted pose what the last frame is to its own. No
generated frame is read again, so errors in pixels do not pile up. The two networks are trained apart (``task``) and
put together by `predict`. The defaults are those of Penn Action.

Departures from the released code. Its networks of features, AlexNet and a stacked hourglass, are replaceable: what
`loss_generator` is given as ``feature_fns``. The loss of poses is divided by the number of visible coordinates, not of
all (``division``). Rows are normalised by the height of what was cut out of the film and columns by its width
(``normalise="swapped"`` does it the other way round, as there). The LSTM's forget gate starts at 1, it has no dropout
on its inputs, and, as in the paper, an embedding, which the released version has lost. Limb maps are drawn at the
networks' size. Discriminators see real frames, generated ones and mismatched pairs in three batches, not one, and both
players are paused by one rule (`ops.gan.turns`). Not of the paper: ``skips``, the same analogy at every scale, which
lets what does not move pass.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.unpool_codec import Decoder, Encoder, SequenceDiscriminator
from seqjax.ops import gan
from seqjax.ops.cells import lstm
from seqjax.ops.heatmap import render
from seqjax.ops.image import fold_time, signed_images, signed_to_unit, unfold_time
from seqjax.ops.scan import unroll

Nets = dict[str, Any]
Batch = Mapping[str, Array]
FeatureFn = Callable[[Float[Array, "B H W C"]], Float[Array, "B *F"]]
"""Of images in [-1, 1], frozen."""

JOINTS = 13
"""Penn Action's."""
LIMBS = (
    *((0, 0, 1, 2), (1, 1, 2, 2), (1, 1, 3, 3), (3, 3, 5, 5), (2, 2, 4, 4), (4, 4, 6, 6)),
    *((1, 2, 7, 8), (7, 7, 8, 8), (7, 7, 9, 9), (9, 9, 11, 11), (8, 8, 10, 10), (10, 10, 12, 12)),
)
"""Each limb goes from the middle of the first two to the middle of the last two."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the networks and weights of the losses; the defaults are the released code's for Penn Action."""

    task: Literal["pose", "image"] = "image"
    """Which of the two networks."""
    size: int = 128
    """Height and width of the frames."""
    context: int = 10
    """Poses that are given."""
    future: int = 32
    """Poses that follow in training; prediction goes as far as it is asked to."""
    embed: int = 32
    """Numbers that a pose becomes before the LSTM."""
    hidden: int = 1024
    """Units of the LSTM."""
    division: Literal["visible", "paper"] = "visible"
    """What the squared error of visible coordinates is divided by: how many of them there are, or of all."""
    normalise: Literal["own", "swapped"] = "own"
    """Whether rows are taken in units of the height and columns of the width; ``extent`` tells of frames how high and
    wide they were before they were made square."""
    channels: int = 3
    """Of the frames."""
    points: int = 4
    """Maps of a limb, each with a bump at one of so many places along it."""
    sigma: float = 8.0
    """Deviation of the bumps, in pixels."""
    widths: tuple[int, ...] = (64, 128, 256)
    """Features of each scale of the encoders and the decoder, the largest map first."""
    convolutions: tuple[int, ...] = (2, 2, 3)
    """How many each scale has."""
    skips: bool = False
    """Whether the decoder is given the analogy at every scale too."""
    discriminator_widths: tuple[int, ...] = (64, 128, 256, 512)
    """Features of the discriminator's convolutions."""
    adversarial: float = 1.0
    """Weight of the generator's adversarial loss; 0 trains by distances alone, without a discriminator."""
    features: tuple[float, ...] = (1.0, 1.0)
    """Weight of the distance in each of the networks of features, as many as there are."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: two scales on 16x16."""
        return cls(
            size=16,
            context=3,
            future=4,
            embed=8,
            hidden=12,
            points=2,
            sigma=1.5,
            widths=(8, 12),
            convolutions=(1, 1),
            discriminator_widths=(6, 8),
            adversarial=0.05,
            features=(),
        )


class PoseLSTM(nnx.Module):
    """Poses seen to poses that follow."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config, numbers = config, 2 * JOINTS
        self.embed = nnx.Linear(numbers, config.embed, rngs=rngs)
        self.lstm = nnx.Param(lstm.init(rngs.params(), config.embed, config.hidden))
        self.head = nnx.Linear(config.hidden, numbers, rngs=rngs)

    def __call__(
        self, poses: Float[Array, "B P J 2"], visible: Bool[Array, "B P J"], *, steps: int
    ) -> Float[Array, "B S J 2"]:
        """The poses that follow, in (-1, 1), from those seen; joints that are not visible are read as 0.

        The LSTM's inputs are zero after them, which is not what the embedding makes of a pose of zeros.
        """
        seen = jnp.where(visible[..., None], poses, 0.0)
        xs = jax.nn.relu(self.embed(seen.reshape(*seen.shape[:2], -1)))
        xs = jnp.pad(xs, ((0, 0), (0, steps), (0, 0)))
        params: Any = compat.pure(self.lstm)
        _, hs = unroll(lstm, params, lstm.carry(params, xs.shape[:1]), xs)
        numbers = self.head(hs[:, -steps:]).astype(jnp.float32)
        return jnp.tanh(numbers).reshape(len(poses), steps, JOINTS, 2)


class Analogy(nnx.Module):
    """``x_{t+n} = f_dec(f_img(x_t) + f_pose(p_{t+n}) - f_pose(p_t))``."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        sizes: dict[str, Any] = {"widths": config.widths, "convolutions": config.convolutions, "rngs": rngs}
        self.image = Encoder(config.channels, kernels=(3,) * len(config.widths), **sizes)
        self.pose = Encoder(len(LIMBS) * config.points, kernels=(3,) * len(config.widths), **sizes)
        self.decoder = Decoder(config.channels, **sizes)

    def features(
        self, frame: Float[Array, "B H W C"], pose: Float[Array, "B H W L"], ahead: Float[Array, "B H W L"]
    ) -> tuple[Float[Array, "B _h _w _D"], tuple[Float[Array, "B _h _w _D"], ...]]:
        """What the decoder is given: at the top, and at every scale."""
        # Both poses in one batch, as they pass the same network.
        image, both = self.image(frame), self.pose(jnp.concatenate([pose, ahead]))
        return jax.tree.map(lambda x, p: x + (p[len(frame) :] - p[: len(frame)]), image, both)

    def __call__(
        self, frame: Float[Array, "B H W C"], pose: Float[Array, "B H W L"], ahead: Float[Array, "B H W L"]
    ) -> Float[Array, "B H W C"]:
        """The frame, in [-1, 1], at the pose ahead, from one whose pose is known; poses as limb maps."""
        top, scales = self.features(frame, pose, ahead)
        return self.decoder(top, scales if self.config.skips else None)


def build(config: Config, rngs: nnx.Rngs) -> Nets:
    """The networks of the task: one of poses, or generator and, if it has a weight, discriminator.

    Raises:
      InputError: for another task.
    """
    if config.task == "pose":
        return {"pose": PoseLSTM(config, rngs=rngs)}
    if config.task != "image":
        raise InputError(f"task: got {config.task!r}, expected 'pose' or 'image'.")
    nets: Nets = {"generator": Analogy(config, rngs=rngs)}
    if config.adversarial:
        seen, size = config.channels + len(LIMBS) * config.points, (config.size, config.size)
        nets["discriminator"] = SequenceDiscriminator(seen, size, widths=config.discriminator_widths, rngs=rngs)
    return nets


def unit_poses(config: Config, batch: Batch, joints: Float[Array, "B T J 2"]) -> Float[Array, "B T J 2"]:
    """Pixels to coordinates in [-1, 1], from border to border."""
    return (2 * joints + 1) / config.size * _stretch(config, batch) - 1


def pixel_poses(config: Config, batch: Batch, poses: Float[Array, "B T J 2"]) -> Float[Array, "B T J 2"]:
    """The way back."""
    return ((poses + 1) / _stretch(config, batch) * config.size - 1) / 2


def _stretch(config: Config, batch: Batch) -> Float[Array, "_ 1 1 2"]:
    """What the exchange of height and width does to rows and columns."""
    if config.normalise == "own" or "extent" not in batch:
        return jnp.ones((1, 1, 1, 2))
    extent = batch["extent"].astype(jnp.float32)
    return (extent / extent[:, ::-1])[:, None, None]


def person(batch: Batch) -> tuple[Float[Array, "B T J 2"], Bool[Array, "B T J"]]:
    """Joints, in pixels, and visibility of the first person of each clip."""
    return batch["joints"][:, :, 0].astype(jnp.float32), batch["visible"][:, :, 0].astype(bool)


def loss_pose(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``Σ_t Σ_l m_tl ‖p̂_tl - p_tl‖² / N`` over the future, ``m`` being 1 for visible joints; the mean over clips.

    N is the number of visible coordinates of the clip, or of all. The other metric is the mean distance of a visible
    joint, in [-1, 1].

    Raises:
      InputError: clips that are too short.
    """
    net = nets["pose"]
    config = net.config
    joints, visible = person(batch)
    if joints.shape[1] < config.context + config.future:
        raise InputError(
            f"joints: a clip of {joints.shape[1]} frames came; the network takes {config.context + config.future} "
            f"(context {config.context} + future {config.future}): choose longer clips, or set model.context or "
            "model.future."
        )
    poses = unit_poses(config, batch, joints)
    predicted = net(poses[:, : config.context], visible[:, : config.context], steps=config.future)
    end = config.context + config.future
    target, seen = poses[:, config.context : end], visible[:, config.context : end]
    return pose_error(predicted, target, seen, division=config.division)


def pose_error(
    predicted: Float[Array, "B S J 2"],
    target: Float[Array, "B S J 2"],
    visible: Bool[Array, "B S J"],
    *,
    division: Literal["visible", "paper"],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss of `loss_pose` and its metric."""
    apart = jnp.where(visible[..., None], predicted - target, 0.0)
    joints = jnp.maximum(jnp.sum(visible, axis=(1, 2), dtype=jnp.float32), 1.0)
    numbers = 2 * joints if division == "visible" else float(np.prod(target.shape[1:]))
    squares = jnp.sum(jnp.square(apart), axis=-1)
    # Where nothing is apart the length has no gradient.
    distance = jnp.sqrt(jax.lax.stop_gradient(squares))
    value = jnp.mean(jnp.sum(squares, axis=(1, 2)) / numbers)
    return value, {"joint_error": jnp.mean(jnp.sum(distance, axis=(1, 2)) / joints)}


def limb_maps(config: Config, joints: Float[Array, "B J 2"], visible: Bool[Array, "B J"]) -> Float[Array, "B H W L"]:
    """Maps of the limbs: of each, bumps at as many places along it as a map each, whose largest pixel is 1.

    A limb of which only one end is visible has that end's bump alone, one of which neither is has empty maps.
    """
    limbs = np.array(LIMBS)
    ends = [jnp.mean(joints[:, limbs[:, two]], axis=2) for two in (slice(0, 2), slice(2, 4))]
    start, end = (jnp.all(visible[:, limbs[:, two]], axis=2) for two in (slice(0, 2), slice(2, 4)))
    share = jnp.linspace(0, 1, config.points, dtype=joints.dtype).reshape(1, 1, -1, 1)
    places = ends[0][:, :, None] + share * (ends[1] - ends[0])[:, :, None]
    at = np.arange(config.points)[None, None]
    present = (start & end)[..., None] | (start[..., None] & (at == 0)) | (end[..., None] & (at == config.points - 1))
    number = len(LIMBS) * config.points
    maps = render(
        places.reshape(-1, number, 1, 2),
        jnp.full((len(joints), number, 1), config.sigma, joints.dtype),
        present.reshape(-1, number, 1),
        size=(config.size, config.size),
    )
    return jnp.moveaxis(maps, 1, -1)


def pairs(config: Config, batch: Batch) -> tuple[Array, Array, Array, Array]:
    """Of two frames each: ``x_t``, ``x_{t+n}`` in [-1, 1], ``p_t``, ``p_{t+n}`` as limb maps.

    Raises:
      InputError: frames of another size or number.
    """
    joints, visible = person(batch)
    if joints.shape[1] != 2 or batch["video"].shape[1] != 2:
        raise InputError(
            f"video: clips of {batch['video'].shape[1]} frames came; the generator is trained on two of each: draw a "
            "frame and a later one."
        )
    shape = (config.size, config.size, config.channels)
    frames = [signed_images("video", batch["video"][:, k], shape) for k in (0, 1)]
    maps = [limb_maps(config, joints[:, k], visible[:, k]) for k in (0, 1)]
    return frames[0], frames[1], maps[0], maps[1]


def loss_generator(
    nets: Nets, batch: Batch, *, key: PRNGKeyArray, feature_fns: Sequence[FeatureFn] = ()
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``½ MSE(x̂, x) + Σ_i w_i ½ MSE(φ_i(x̂), φ_i(x)) + w s(-D(x̂, p_{t+n}))`` for ``x̂`` made from ``x_t`` and both poses.

    Args:
      nets: generator and discriminator.
      batch: two frames of each clip.
      key: not needed.
      feature_fns: ``φ_i``, networks of features that stay as they are.

    Raises:
      InputError: not as many networks of features as weights.
    """
    config = nets["generator"].config
    if len(feature_fns) != len(config.features):
        raise InputError(
            f"feature_fns: {len(feature_fns)} came, and model.features has {len(config.features)} weights; expected "
            "one network for each weight: set model.features, () for none."
        )
    frame, target, pose, ahead = pairs(config, batch)
    fake = nets["generator"](frame, pose, ahead)
    distances = [_half_mse(fake, target)]
    distances += [w * _half_mse(phi(fake), phi(target)) for w, phi in zip(config.features, feature_fns, strict=True)]
    total = jnp.sum(jnp.stack(distances))
    metrics = {"distance": distances[0], "features": total - distances[0]}
    if not config.adversarial:
        return total, metrics
    adversarial = jnp.mean(gan.non_saturating.generator(_score(nets, fake, ahead)))
    return total + config.adversarial * adversarial, metrics | {"adversarial": adversarial}


def loss_discriminator(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``s(-D(x_{t+n}, p_{t+n})) + ½ s(D(x̂, p_{t+n})) + ½ s(D(x_t, p_{t+n}))``, the last true but of another pose."""
    frame, target, pose, ahead = pairs(nets["generator"].config, batch)
    fake = jax.lax.stop_gradient(nets["generator"](frame, pose, ahead))
    real, *wrong = (_score(nets, images, ahead) for images in (target, fake, frame))
    nets["discriminator"].remember(real, jnp.concatenate(wrong))
    losses = [gan.non_saturating.discriminator(real, one) for one in wrong]
    return jnp.mean(sum(losses) / 2), gan.health(real, wrong[0])


def _half_mse(a: Array, b: Array) -> Float[Array, ""]:
    return 0.5 * jnp.mean(jnp.square(a.astype(jnp.float32) - b.astype(jnp.float32)))


def _score(nets: Nets, images: Float[Array, "B H W C"], maps: Float[Array, "B H W L"]) -> Float[Array, " B"]:
    return nets["discriminator"](jnp.concatenate([images, maps.astype(images.dtype)], axis=-1)[:, None])


def predict_poses(nets: Nets, batch: Batch, *, steps: int) -> Float[Array, "B S J 2"]:
    """The joints, in pixels, of so many frames after the first ``config.context``."""
    net = nets["pose"]
    joints, visible = (x[:, : net.config.context] for x in person(batch))
    poses = net(unit_poses(net.config, batch, joints), visible, steps=steps)
    return pixel_poses(net.config, batch, poses)


def draw_poses(
    nets: Nets,
    frame: UInt8[Array, "B H W C"],
    joints: Float[Array, "B J 2"],
    visible: Bool[Array, "B J"],
    ahead: Float[Array, "B S J 2"],
    ahead_visible: Bool[Array, "B S J"] | None = None,
) -> Float[Array, "B S H W C"]:
    """Each frame at poses ahead, in [0, 1]; what of them is visible is all, unless said."""
    net = nets["generator"]
    config, steps = net.config, ahead.shape[1]
    seen = jnp.ones(ahead.shape[:3], bool) if ahead_visible is None else ahead_visible
    given = signed_images("video", frame, (config.size, config.size, config.channels))
    given, pose = (jnp.repeat(x, steps, axis=0) for x in (given, limb_maps(config, joints, visible)))
    frames = net(given, pose, limb_maps(config, fold_time(ahead), fold_time(seen)))
    return signed_to_unit(unfold_time(frames, frames=steps))


def predict(nets: Nets, batch: Batch, *, steps: int) -> dict[str, Array]:
    """Poses of so many frames after the context, ``joints`` in pixels, and their ``frames`` in [0, 1].

    With the networks of both tasks.
    """
    last = nets["pose"].config.context - 1
    joints, visible = (x[:, last] for x in person(batch))
    ahead = predict_poses(nets, batch, steps=steps)
    return {"joints": ahead, "frames": draw_poses(nets, batch["video"][:, last], joints, visible, ahead)}
