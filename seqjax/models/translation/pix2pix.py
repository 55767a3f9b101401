"""pix2pix (Isola et al., 2017): paired image translation by an adversarial loss and the distance to the target.

Phillip Isola, Jun-Yan Zhu, Tinghui Zhou, Alexei A. Efros, *Image-to-Image Translation with Conditional Adversarial
Networks*, CVPR 2017, https://arxiv.org/abs/1611.07004.

A U-Net translates; a discriminator scores patches of input and translation, one on the other. The noise is the
generator's dropout, which stays on in testing, as does normalisation by the batch's own statistics. The defaults are
the paper's; ``generator="residual"`` and the other normalisations are options of its PyTorch version.

Departures: the discriminator's update and the generator's each make the translation anew (the paper's code reuses the
discriminator's outputs from before its update, the PyTorch version the translation); instead of setting biases before a
normalisation to zero in every step, there are none.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax.nn.norm import Kind
from seqjax.nn.patch_discriminator import PatchDiscriminator
from seqjax.nn.residual_generator import ResidualGenerator
from seqjax.nn.unet import UNet
from seqjax.ops import gan
from seqjax.ops.image import signed_images


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the networks and weights of the losses; the defaults are the paper's."""

    inputs: int = 3
    """Channels of the input."""
    outputs: int = 3
    """Channels of the target."""
    generator: Literal["unet", "encoder_decoder", "residual"] = "unet"
    """The U-Net, the same without skips, or residual blocks."""
    downs: int = 8
    """Halvings in the generator: of a U-Net 8 for images of 256 and 7 for 128, of a residual one 2."""
    blocks: int = 9
    """Residual blocks: 9 for images of 256, 6 for 128."""
    base: int = 64
    """Features of the generator's first layer."""
    dropout: float = 0.5
    """Rate of dropout in the generator."""
    dropout_at: Literal["paper", "port"] = "paper"
    """The U-Net's layers with dropout: the paper's, or those of its PyTorch version."""
    layers: int = 3
    """Layers of stride 2 in the discriminator: 3 for patches of 70, 0 for pixels, 1 for 16, 5 for 286."""
    discriminator_base: int = 64
    """Features of the discriminator's first layer."""
    conditional: bool = True
    """Whether the discriminator sees the input too."""
    norm: Kind = "batch"
    """Normalisation in both networks."""
    loss: gan.Loss = "non_saturating"
    """The adversarial loss."""
    adversarial: float = 1.0
    """Weight of the generator's adversarial loss; 0 trains by the distance alone."""
    distance: float = 100.0
    """Weight λ of the mean absolute difference from the target, in [-1, 1]."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: two halvings."""
        return cls(inputs=1, downs=3, base=4, layers=1, discriminator_base=4, dropout=0.1)


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """Generator and discriminator."""
    seen = config.outputs + (config.inputs if config.conditional else 0)
    return {
        "generator": Translator(config, rngs=rngs),
        "discriminator": PatchDiscriminator(
            seen, layers=config.layers, base=config.discriminator_base, norm=config.norm, rngs=rngs
        ),
    }


class Translator(nnx.Module):
    """The generator, and what it was made for."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        options: dict[str, Any] = {name: getattr(config, name) for name in ("downs", "base", "norm", "dropout")}
        self.net: UNet | ResidualGenerator
        if config.generator == "residual":
            self.net = ResidualGenerator(config.inputs, config.outputs, blocks=config.blocks, rngs=rngs, **options)
        else:
            skips = config.generator == "unet"
            self.net = UNet(
                config.inputs, config.outputs, dropout_at=config.dropout_at, skips=skips, rngs=rngs, **options
            )

    def __call__(self, images: Float[Array, "B H W C"], *, key: PRNGKeyArray) -> Float[Array, "B H W D"]:
        """The translation, in [-1, 1]."""
        return self.net(images, key=key)


def loss_discriminator(
    nets: dict[str, Any], batch: dict[str, Array], *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``½ L_D(D(x, y), D(x, G(x)))``, half as in the paper, which slows the discriminator down."""
    config = nets["generator"].config
    source, target = _pair(config, batch)
    fake = jax.lax.stop_gradient(nets["generator"](source, key=key))
    on_real, on_fake = (_score(nets, source, images) for images in (target, fake))
    loss = 0.5 * jnp.mean(gan.adversarial(config.loss).discriminator(on_real, on_fake))
    return loss, gan.health(on_real, on_fake, threshold=0.5 if config.loss == "least_squares" else 0.0)


def loss_generator(
    nets: dict[str, Any], batch: dict[str, Array], *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``L_G(D(x, G(x))) + λ mean|y - G(x)|`` (Eq. 4)."""
    config = nets["generator"].config
    source, target = _pair(config, batch)
    fake = nets["generator"](source, key=key)
    on_real = _score(nets, source, target) if config.loss in gan.RELATIVISTIC else None
    adversarial = jnp.mean(gan.adversarial(config.loss).generator(_score(nets, source, fake), on_real))
    distance = jnp.mean(jnp.abs(target - fake.astype(jnp.float32)))
    loss = config.adversarial * adversarial + config.distance * distance
    return loss, {"adversarial": adversarial, "distance": distance}


def predict(nets: dict[str, Any], batch: dict[str, Array]) -> Float[Array, "B H W D"]:
    """The translations, in [-1, 1], with dropout (always the same draws) and the statistics of the batch."""
    config = nets["generator"].config
    return nets["generator"](_source(config, batch), key=jax.random.key(0))


def _score(nets: dict[str, Any], source: Array, images: Array) -> Array:
    seen = [source, images] if nets["generator"].config.conditional else [images]
    return nets["discriminator"](jnp.concatenate([x.astype(images.dtype) for x in seen], axis=-1))


def _pair(config: Config, batch: dict[str, Array]) -> tuple[Array, Array]:
    return _source(config, batch), signed_images("target", batch["target"], (None, None, config.outputs))


def _source(config: Config, batch: dict[str, Array]) -> Array:
    return signed_images("input", batch["input"], (None, None, config.inputs))
