"""MoCoGAN (Tulyakov et al., 2018): videos from a content code that stays and a motion path that a GRU walks.

Sergey Tulyakov, Ming-Yu Liu, Xiaodong Yang, Jan Kautz, *MoCoGAN: Decomposing Motion and Content for Video Generation*,
CVPR 2018, https://arxiv.org/abs/1707.04993, and facts of the released code.

A clip has one content code ``z_C`` and, if there are kinds of motion, one category; a GRU that reads noise gives a
motion code ``z_M(t)`` to each frame. An image generator renders frame t from these alone. A discriminator scores single
frames, another clips; the latter also says which category it sees, and the generator is to make that recognisable. The
defaults are the released code's for facial expressions (64x64, 16 frames, 6 categories).

Where paper and code differ: the category goes into the GRU as in the paper (``category_to="gen"``: to the generator, as
in the code); the head that recognises it learns from real labels as in the code, or from generated clips as in the
paper (``q_train="fakes"``), which needs no labels; kernels are 4x4 as in the code. Departures: kernels start from
N(0, 0.02²), the GRU as all of `ops.cells`; generated frames for the image discriminator are each of a clip of its own,
real ones of the clips that the video discriminator sees in the same step (the code draws both from a pool); the last
convolution of the video discriminator takes all frames that are left, which at 16 are the code's 4.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.convolution import NORMAL, Conv
from seqjax.nn.image_generator import ImageGenerator, Upsample, doublings
from seqjax.nn.norm import Norm
from seqjax.ops import convolution, gan
from seqjax.ops.cells import gru
from seqjax.ops.image import fold_time, signed_images, unfold_time
from seqjax.ops.scan import unroll

STEM, KERNEL = 4, 4
"""Side of the smallest map; side of the kernels, and frames that one of a video sees."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the networks and the game; the defaults are the released code's."""

    size: int = 64
    """Side of the frames: 4·2ⁿ pixels."""
    channels: int = 3
    """Of the frames."""
    frames: int = 16
    """Of a clip in training; sampling goes as far as it is asked to."""
    content: int = 50
    """Numbers in ``z_C``."""
    motion: int = 10
    """Numbers in ``z_M(t)``, and in the noise that the GRU reads in each step."""
    categories: int = 6
    """Kinds of motion; 0 for none."""
    category_to: Literal["rnn", "gen"] = "rnn"
    """What is told the category: the GRU, or the image generator."""
    q_train: Literal["real_labels", "fakes"] = "real_labels"
    """What the head that recognises categories learns from: real clips and their labels, or generated ones and what
    they were meant to be."""
    category: float = 1.0
    """Weight λ of its cross-entropy."""
    image_discriminator: Literal["patch", "global", "none"] = "patch"
    """What scores frames: by patches, as a whole, or nothing."""
    base: int = 64
    """Features of the generator's largest map."""
    discriminator_base: int = 64
    """Features of the discriminators' first layers."""
    noise: float = 0.1
    """Deviation of the noise that is added before each convolution of the discriminators."""
    upsample: Upsample = "transposed"
    """How the generator doubles."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: one doubling, four frames."""
        small = cls(8, 1, 4, content=3, motion=2, categories=2, base=4, discriminator_base=4)
        return dataclasses.replace(small, image_discriminator="global")


class Codes(NamedTuple):
    """What a clip is made from."""

    content: Float[Array, "B C"]
    """``z_C ~ N(0, I)``."""
    start: Float[Array, "B M"]
    """The GRU's state before the first frame, N(0, I)."""
    noise: Float[Array, "B T M"]
    """What it reads, ``ε_t ~ N(0, I)``."""
    category: Int[Array, " B"]
    """Kind of motion, each as likely; 0 where there are none."""


class Motion(nnx.Module):
    """``z_M(t) = GRU(ε_t, z_M(t-1))``."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        told = config.categories * (config.category_to == "rnn")
        self.gru = nnx.Param(gru.init(rngs.params(), config.motion + told, config.motion))

    def __call__(self, start: Float[Array, "B M"], inputs: Float[Array, "B T N"]) -> Float[Array, "B T M"]:
        """The codes of all frames, from noise with the category beside it if the GRU is told."""
        return unroll(gru, compat.pure(self.gru), start, inputs)[1]


class Generator(ImageGenerator):
    """The codes of a frame to the frame, in [-1, 1], and what it was made for."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        told = config.categories * (config.category_to == "gen")
        codes = config.content + config.motion + told
        shape = config.size, config.channels, codes
        super().__init__(*shape, stem=STEM, base=config.base, kernel=KERNEL, upsample=config.upsample, rngs=rngs)
        self.config = config


class VideoConv(nnx.Module):
    """A convolution over frames and pixels, without bias: every frame with those after it, pixels by a stride."""

    def __init__(self, channels: int, features: int, *, frames: int, stride: int, padding: int, rngs: nnx.Rngs):
        self.kernel = nnx.Param(NORMAL(rngs.params(), (frames, KERNEL, KERNEL, channels, features)))
        self.stride, self.padding = stride, padding

    def __call__(self, x: Float[Array, "B T H W C"]) -> Float[Array, "B t h w D"]:
        """The features, of as many frames less as the kernel sees at once, plus one."""
        pad = (self.padding, self.padding)
        stride = (1, self.stride, self.stride)
        return convolution.conv(None, self.kernel[...], x, stride=stride, padding=((0, 0), pad, pad))


class Discriminator(nnx.Module):
    """Convolutions that halve, each after noise; leaky ReLU (0.2) and, but for the first, batch normalisation.

    Args:
      convs: of images or of videos; the last gives the logits.
      widths: features of all but the last.
      noise: deviation.
      rngs: for the normalisations.
    """

    def __init__(self, convs: Sequence[nnx.Module], widths: Sequence[int], *, noise: float, rngs: nnx.Rngs):
        self.convs, self.noise = compat.List(convs), noise
        self.norms = compat.List([Norm("batch" if i else "none", width, rngs=rngs) for i, width in enumerate(widths)])

    def __call__(self, x: Float[Array, "B *S"], *, key: PRNGKeyArray) -> Float[Array, "B *P"]:
        """The logits; they are of this batch, so give real and generated ones apart."""
        *before, last = self.convs
        for i, (conv, norm) in enumerate(zip(before, self.norms, strict=True)):
            x = conv(self._noisy(x, jax.random.fold_in(key, i)))
            maps = x.reshape(-1, *x.shape[-3:])
            x = jax.nn.leaky_relu(norm(maps), 0.2).reshape(x.shape)
        return last(self._noisy(x, jax.random.fold_in(key, len(before))))

    def _noisy(self, x: Array, key: PRNGKeyArray) -> Array:
        # In float32, so that whatever the networks compute in they see the same noise.
        return x + (self.noise * jax.random.normal(key, x.shape)).astype(x.dtype) if self.noise else x


Nets = dict[str, Any]
Batch = dict[str, Array]


def build(config: Config, rngs: nnx.Rngs) -> Nets:
    """The generator's two networks, and the discriminators.

    Raises:
      InputError: a size that is not 4·2ⁿ; too few frames.
    """
    nets: Nets = {"motion": Motion(config, rngs=rngs), "generator": Generator(config, rngs=rngs)}
    if config.image_discriminator != "none":
        nets["image_discriminator"] = _image_discriminator(config, rngs)
    nets["video_discriminator"] = _video_discriminator(config, rngs)
    return nets


def _image_discriminator(config: Config, rngs: nnx.Rngs) -> Discriminator:
    patch = config.image_discriminator == "patch"
    widths = _widths(config)[: -1 if patch else None]
    channels = [config.channels, *widths]
    convs: list[nnx.Module] = [
        Conv(c, d, KERNEL, stride=2, bias=False, rngs=rngs) for c, d in itertools.pairwise(channels)
    ]
    options: dict[str, Any] = {"stride": 2} if patch else {"padding": 0}
    convs.append(Conv(channels[-1], 1, KERNEL, bias=False, rngs=rngs, **options))
    return Discriminator(convs, widths, noise=config.noise, rngs=rngs)


def _video_discriminator(config: Config, rngs: nnx.Rngs) -> Discriminator:
    widths = _widths(config)
    taken = len(widths) * (KERNEL - 1)
    left = config.frames - taken
    if left < 1:
        raise InputError(
            f"frames: got {config.frames}; of frames of {config.size} pixels the video discriminator takes {taken} "
            f"away: set model.frames to {taken + 1} or more, or model.size to less."
        )
    convs: list[nnx.Module] = [
        VideoConv(c, d, frames=KERNEL, stride=2, padding=1, rngs=rngs)
        for c, d in itertools.pairwise([config.channels, *widths])
    ]
    convs.append(VideoConv(widths[-1], 1 + config.categories, frames=left, stride=1, padding=0, rngs=rngs))
    return Discriminator(convs, widths, noise=config.noise, rngs=rngs)


def _widths(config: Config) -> list[int]:
    return [config.discriminator_base * 2**i for i in range(doublings(config.size, STEM))]


def loss_image_discriminator(
    nets: Nets, batch: Batch, *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``-log σ(D_I(x_t)) - log(1 - σ(D_I(x̃_t)))``, a frame of every clip and one of every generated clip."""
    key_place, key_fake, key_real, key_seen = jax.random.split(key, 4)
    real = signed_clips(nets["generator"].config, batch["video"])
    real = _one_of_each(real, key=key_place)
    fake = jax.lax.stop_gradient(_frames(nets, len(real), key=key_fake))
    on_real, on_fake = (
        nets["image_discriminator"](x, key=k).astype(jnp.float32) for x, k in ((real, key_real), (fake, key_seen))
    )
    return jnp.mean(gan.non_saturating.discriminator(on_real, on_fake)), gan.health(on_real, on_fake)


def loss_video_discriminator(
    nets: Nets, batch: Batch, *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``-log σ(D_V(x)) - log(1 - σ(D_V(x̃)))``, and λ times the cross-entropy of the categories: of real clips from
    their labels, or of generated ones."""
    config = nets["generator"].config
    key_codes, key_real, key_fake = jax.random.split(key, 3)
    real = signed_clips(config, batch["video"])
    codes = draw_codes(config, len(real), key=key_codes)
    on_real, of_real = _judge(nets, real, key=key_real)
    on_fake, of_fake = _judge(nets, jax.lax.stop_gradient(render(nets, codes)), key=key_fake)
    loss = jnp.mean(gan.non_saturating.discriminator(on_real, on_fake))
    metrics = gan.health(on_real, on_fake)
    if config.categories:
        told = (of_real, real_labels(batch)) if config.q_train == "real_labels" else (of_fake, codes.category)
        category = _category_loss(*told)
        loss += config.category * category
        metrics["category"] = category
    return loss, metrics


def loss_generator(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``-log σ(D_I(x̃_t)) - log σ(D_V(x̃))``, and λ times the cross-entropy of the categories meant, through both
    discriminators as they are; frames and clips are of different codes."""
    config, number = nets["generator"].config, len(batch["video"])
    key_codes, key_frames, key_image, key_video = jax.random.split(key, 4)
    codes = draw_codes(config, number, key=key_codes)
    on_clips, of_clips = _judge(nets, render(nets, codes), key=key_video)
    loss = jnp.mean(gan.non_saturating.generator(on_clips))
    metrics = {"clips": loss}
    if "image_discriminator" in nets:
        frames = _frames(nets, number, key=key_frames)
        on_frames = nets["image_discriminator"](frames, key=key_image).astype(jnp.float32)
        metrics["frames"] = jnp.mean(gan.non_saturating.generator(on_frames))
        loss += metrics["frames"]
    if config.categories:
        metrics["category"] = _category_loss(of_clips, codes.category)
        loss += config.category * metrics["category"]
    return loss, metrics


def draw_codes(config: Config, number: int, *, frames: int | None = None, key: PRNGKeyArray) -> Codes:
    """The codes of so many clips, of ``config.frames`` frames unless said."""
    key_content, key_start, key_noise, key_category = jax.random.split(key, 4)
    return Codes(
        jax.random.normal(key_content, (number, config.content)),
        jax.random.normal(key_start, (number, config.motion)),
        jax.random.normal(key_noise, (number, config.frames if frames is None else frames, config.motion)),
        jax.random.randint(key_category, (number,), 0, max(1, config.categories)),
    )


def frame_codes(nets: Nets, codes: Codes) -> Float[Array, "B T Z"]:
    """What each frame is rendered from: ``z_C``, ``z_M(t)`` and, if the generator is told, the category."""
    config, frames = nets["generator"].config, codes.noise.shape[1]
    label = jax.nn.one_hot(codes.category, config.categories)
    label = jnp.repeat(label[:, None], frames, axis=1)
    to_motion = [codes.noise, *([label] if config.category_to == "rnn" else [])]
    path = nets["motion"](codes.start, jnp.concatenate(to_motion, axis=-1))
    content = jnp.repeat(codes.content[:, None], frames, axis=1).astype(path.dtype)
    told = [label.astype(path.dtype)] if config.category_to == "gen" else []
    return jnp.concatenate([content, path, *told], axis=-1)


def render(nets: Nets, codes: Codes, *, running: bool = False) -> Float[Array, "B T H W C"]:
    """The clips, in [-1, 1]; with ``running`` averages of the normalisations each frame is that of its codes alone."""
    frames = nets["generator"](fold_time(frame_codes(nets, codes)), running=running)
    return unfold_time(frames, frames=codes.noise.shape[1])


def sample(nets: Nets, batch: Batch) -> Float[Array, "B T H W C"]:
    """Clips in [-1, 1] of the codes in the batch, by their names in `Codes`, by running averages; as many frames as
    there is noise for."""
    return render(nets, Codes(*(batch[name] for name in Codes._fields)), running=True)


def signed_clips(config: Config, video: UInt8[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
    """What the discriminators take, in [-1, 1].

    Raises:
      InputError: clips of another length or size.
    """
    if video.shape[1] != config.frames:
        raise InputError(
            f"video: clips of {video.shape[1]} frames came, and the video discriminator takes {config.frames}: cut "
            "them to that length, or set model.frames."
        )
    frames = signed_images("video", fold_time(video), (config.size, config.size, config.channels))
    return unfold_time(frames, frames=config.frames)


def real_labels(batch: Batch) -> Int[Array, " B"]:
    """The categories of real clips.

    Raises:
      InputError: they are not told.
    """
    if "label" not in batch:
        raise InputError(
            "label: none came, and the categories are learned from real labels: choose a data set that has them, or "
            'set model.q_train to "fakes", or model.categories to 0.'
        )
    return batch["label"]


def _judge(nets: Nets, clips: Array, *, key: PRNGKeyArray) -> tuple[Float[Array, " B"], Float[Array, "B K"]]:
    """How real the clips are, and which category they show: logits."""
    logits = nets["video_discriminator"](clips, key=key).astype(jnp.float32)[:, 0, 0, 0]
    return logits[:, 0], logits[:, 1:]


def _frames(nets: Nets, number: int, *, key: PRNGKeyArray) -> Float[Array, "B H W C"]:
    """A frame from anywhere in each of so many clips; only it is rendered."""
    key_codes, key_place = jax.random.split(key)
    codes = frame_codes(nets, draw_codes(nets["generator"].config, number, key=key_codes))
    return nets["generator"](_one_of_each(codes, key=key_place))


def _one_of_each(xs: Float[Array, "B T *S"], *, key: PRNGKeyArray) -> Float[Array, "B *S"]:
    places = jax.random.randint(key, (len(xs),), 0, xs.shape[1])
    return jax.vmap(lambda x, t: x[t])(xs, places)


def _category_loss(logits: Float[Array, "B K"], categories: Int[Array, " B"]) -> Float[Array, ""]:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, categories))
