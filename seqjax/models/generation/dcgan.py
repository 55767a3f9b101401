"""DCGAN (Radford et al., 2016): convolutional generator and discriminator, with batch normalisation in both.

Alec Radford, Luke Metz, Soumith Chintala, *Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks*, ICLR 2016, https://arxiv.org/abs/1511.06434.

A latent vector becomes a small map, which transposed convolutions of stride 2 double up to the image; the
discriminator is its mirror. The defaults are those of the Torch version by one of the authors (64x64, 4x4 kernels,
Gaussian latents), the one most copied; ``base=128, kernel=5, latents="uniform"`` is the paper's. A dense layer to a map
and a transposed convolution of a 1x1 map are the same, as are those at the other end. With ``classes`` both networks
are conditional: the label is given to every layer as constant maps, as in the authors' MNIST version.

Departures: each update draws its own noise and sees the other player's newest parameters (the Torch version reuses the
discriminator's noise and its outputs from before its update); the conditional MNIST version has hidden dense layers,
which are left out. Not of the paper, and off by default: other losses, penalties (which batch normalisation in the
discriminator rules out), augmentation of all that the discriminator sees, doubling by nearest neighbours.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.convolution import Conv, ConvTranspose
from seqjax.nn.global_discriminator import GlobalDiscriminator, with_label
from seqjax.nn.norm import Kind, Norm
from seqjax.ops import gan
from seqjax.ops.augment import Policy, augment
from seqjax.ops.image import signed_images


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the networks and the game; the defaults are the Torch version's."""

    size: int = 64
    """Side of the images: a power of two times ``stem``."""
    channels: int = 3
    """Channels of the images."""
    latent: int = 100
    """Numbers in a latent vector."""
    latents: Literal["normal", "uniform"] = "normal"
    """What they are drawn from: N(0, 1) or U(-1, 1)."""
    stem: int = 4
    """Side of the smallest map."""
    base: int = 64
    """Features of the largest map; each halving doubles them."""
    kernel: int = 4
    """Side of the kernels."""
    classes: int = 0
    """Classes that both networks are told; 0 for none."""
    upsample: Literal["transposed", "nearest"] = "transposed"
    """How the generator doubles: by transposed convolutions, or by nearest neighbours and 3x3 convolutions."""
    norm: Kind = "batch"
    """Normalisation in the discriminator."""
    augment: tuple[Policy, ...] = ()
    """What is done at random to all that the discriminator sees (`ops.augment`): against its learning a small set by
    heart."""
    loss: gan.Loss = "non_saturating"
    """The adversarial loss."""
    r1: float = 0.0
    """Weight γ of the penalty on the discriminator's slope at real images."""
    r2: float = 0.0
    """Weight of that at generated ones."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: one doubling."""
        return cls(size=8, channels=1, latent=3, base=4)


class Generator(nnx.Module):
    """Latent vectors to images in [-1, 1]."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        widths = [config.base * 2**i for i in reversed(range(_doublings(config)))]
        before = [width + config.classes for width in widths]
        self.config = config
        self.stem = ConvTranspose(
            config.latent + config.classes, widths[0], config.stem, stride=1, padding=0, bias=False, rngs=rngs
        )
        self.norms = compat.List([Norm("batch", width, rngs=rngs) for width in widths])
        after = [*widths[1:], config.channels]
        self.ups = compat.List([self._double(c, d, rngs) for c, d in zip(before, after, strict=True)])

    def _double(self, channels: int, features: int, rngs: nnx.Rngs) -> nnx.Module:
        if self.config.upsample == "nearest":
            return Conv(channels, features, 3, bias=False, rngs=rngs)
        kernel, odd = self.config.kernel, self.config.kernel % 2
        padding = (kernel - 1) // 2
        return ConvTranspose(channels, features, kernel, padding=padding, output_padding=odd, bias=False, rngs=rngs)

    def __call__(
        self, z: Float[Array, "B Z"], labels: Float[Array, "B K"] | None = None, *, running: bool = False
    ) -> Float[Array, "B S S C"]:
        """The images.

        Args:
          z: latent vectors.
          labels: one-hot, for the conditional network.
          running: whether to normalise by running averages: so every image is its latent vector's alone.
        """
        x = self.stem(with_label(z[:, None, None], labels))
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = with_label(jax.nn.relu(norm(x, running=running)), labels)
            x = up(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2) if self.config.upsample == "nearest" else x)
        return jnp.tanh(x)


Nets = dict[str, Any]
Batch = dict[str, Array]


def build(config: Config, rngs: nnx.Rngs) -> Nets:
    """The two players.

    Raises:
      InputError: a size that is no power of two times the stem; a penalty beside batch normalisation.
    """
    if config.norm == "batch" and (config.r1 or config.r2):
        raise InputError(
            f"r1, r2: got {config.r1} and {config.r2} with batch normalisation in the discriminator, where no image "
            'has a slope of its own. Set norm to "none" or "instance", or both weights to 0.'
        )
    discriminator = GlobalDiscriminator(
        config.channels,
        widths=tuple(config.base * 2**i for i in range(_doublings(config))),
        kernels=(config.kernel,) * _doublings(config),
        stem=config.stem,
        norm=config.norm,
        classes=config.classes,
        bias=False,
        rngs=rngs,
    )
    return {"generator": Generator(config, rngs=rngs), "discriminator": discriminator}


def loss_discriminator(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``mean L_D(D(x), D(G(z)))``, and ``γ`` times the penalties if there are any."""
    config = nets["generator"].config
    real, labels = _images(config, batch), _one_hot(config, batch)
    key_z, key_real, key_fake = jax.random.split(key, 3)
    fake = jax.lax.stop_gradient(nets["generator"](latents(config, len(real), key=key_z), labels))
    sees_real = functools.partial(_score, nets, labels=labels, key=key_real)
    sees_fake = functools.partial(_score, nets, labels=labels, key=key_fake)
    on_real, on_fake = sees_real(real), sees_fake(fake)
    loss = jnp.mean(gan.adversarial(config.loss).discriminator(on_real, on_fake))
    if config.r1:
        loss += config.r1 * jnp.mean(gan.r1(sees_real, real))
    if config.r2:
        loss += config.r2 * jnp.mean(gan.r2(sees_fake, fake))
    return loss, gan.health(on_real, on_fake)


def loss_generator(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``mean L_G(D(G(z)))``, through the discriminator as it is."""
    config = nets["generator"].config
    real, labels = _images(config, batch), _one_hot(config, batch)
    key_z, key_real, key_fake = jax.random.split(key, 3)
    fake = nets["generator"](latents(config, len(real), key=key_z), labels)
    on_fake = _score(nets, fake, labels=labels, key=key_fake)
    on_real = _score(nets, real, labels=labels, key=key_real) if config.loss in gan.RELATIVISTIC else None
    return jnp.mean(gan.adversarial(config.loss).generator(on_fake, on_real)), {}


def latents(config: Config, number: int, *, key: PRNGKeyArray) -> Float[Array, "B Z"]:
    """Latent vectors, drawn."""
    draw = jax.random.normal if config.latents == "normal" else _uniform
    return draw(key, (number, config.latent))


def sample(nets: Nets, batch: Batch) -> Float[Array, "B S S C"]:
    """Images in [-1, 1] of the latent vectors ``batch["z"]`` (and of ``batch["label"]``), by running averages."""
    generator = nets["generator"]
    return generator(batch["z"], _one_hot(generator.config, batch), running=True)


def _score(nets: Nets, images: Array, *, labels: Array | None, key: PRNGKeyArray) -> Array:
    seen = augment(images, policy=nets["generator"].config.augment, key=key)
    return nets["discriminator"](seen, labels)


def _images(config: Config, batch: Batch) -> Float[Array, "B S S C"]:
    return signed_images("image", batch["image"], (config.size, config.size, config.channels))


def _one_hot(config: Config, batch: Batch) -> Float[Array, "B K"] | None:
    return jax.nn.one_hot(batch["label"], config.classes) if config.classes else None


def _uniform(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _doublings(config: Config) -> int:
    doublings = (config.size // config.stem).bit_length() - 1
    if doublings < 1 or config.stem * 2**doublings != config.size:
        raise InputError(
            f"size: got {config.size} and a stem of {config.stem}; expected the stem doubled once or more, such as "
            f"{config.stem * 8}: set model.size or model.stem."
        )
    return doublings
