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

from seqjax.errors import InputError
from seqjax.nn.global_discriminator import GlobalDiscriminator
from seqjax.nn.image_generator import ImageGenerator, Upsample, doublings
from seqjax.nn.norm import Kind
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
    upsample: Upsample = "transposed"
    """How the generator doubles."""
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


class Generator(ImageGenerator):
    """Latent vectors to images in [-1, 1], and what they were made for."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        super().__init__(
            config.size,
            config.channels,
            config.latent,
            stem=config.stem,
            base=config.base,
            kernel=config.kernel,
            upsample=config.upsample,
            classes=config.classes,
            rngs=rngs,
        )
        self.config = config


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
    halvings = doublings(config.size, config.stem)
    discriminator = GlobalDiscriminator(
        config.channels,
        widths=tuple(config.base * 2**i for i in range(halvings)),
        kernels=(config.kernel,) * halvings,
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
