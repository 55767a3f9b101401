"""CycleGAN (Zhu et al., 2017) and DualGAN (Yi et al., 2017): image translation between two domains without pairs.

Jun-Yan Zhu, Taesung Park, Phillip Isola, Alexei A. Efros, *Unpaired Image-to-Image Translation using Cycle-Consistent
Adversarial Networks*, ICCV 2017, https://arxiv.org/abs/1703.10593. Zili Yi, Hao Zhang, Ping Tan, Minglun Gong,
*DualGAN: Unsupervised Dual Learning for Image-to-Image Translation*, ICCV 2017, https://arxiv.org/abs/1704.02510.

One generator each way, one discriminator for each domain; what went there and back has to be what it was. CycleGAN, the
default, is residual generators, patch discriminators, least squares, histories of 50 translations for the
discriminators to learn from, and the loss that leaves images of the target domain as they are. `Config.dualgan` is
U-Nets and a Wasserstein loss with a penalty on the critics' slope.

Departures: each update translates anew (PyTorch's version translates once for all); instance normalisation as in
PyTorch's version, without parameters. DualGAN's innermost map is not normalised (one pixel, it would be zero), and its
discriminators pad as much before as after.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax.errors import InputError
from seqjax.nn.global_discriminator import GlobalDiscriminator
from seqjax.nn.norm import Kind
from seqjax.nn.patch_discriminator import PatchDiscriminator
from seqjax.nn.residual_generator import ResidualGenerator
from seqjax.nn.unet import UNet
from seqjax.ops import gan, image_pool
from seqjax.ops.cycle import there_and_back
from seqjax.ops.image import signed_images

OTHER = {"a": "b", "b": "a"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the networks and weights of the losses; the defaults are CycleGAN's."""

    size: int = 256
    """Side of the images."""
    channels_a: int = 3
    """Channels of the images of domain A."""
    channels_b: int = 3
    """Channels of the images of domain B."""
    generator: Literal["residual", "unet"] = "residual"
    """What translates."""
    base: int = 64
    """Features of the generators' first layers."""
    blocks: int = 9
    """Residual blocks: 9 for images of 256, 6 for 128."""
    downs: int = 2
    """Halvings in a generator: 2 in a residual one; in a U-Net 8 for images of 256."""
    upsample: Literal["transposed", "nearest"] = "transposed"
    """How residual generators double."""
    norm: Kind = "instance"
    """Normalisation in all networks."""
    discriminator: Literal["patch", "global"] = "patch"
    """What a discriminator scores: patches or images."""
    layers: int = 3
    """Layers of stride 2 in a patch discriminator."""
    discriminator_base: int = 64
    """Features of the discriminators' first layers."""
    loss: gan.Loss = "least_squares"
    """The adversarial loss."""
    slope: float = 0.0
    """Weight of the penalty that holds the discriminators' slope at 1 (WGAN-GP)."""
    adversarial: float = 1.0
    """Weight of the generators' adversarial loss."""
    cycle: float = 10.0
    """Weight λ of the mean absolute difference after there and back, in [-1, 1]."""
    identity: float = 0.5
    """Weight, times λ, of what a generator changes in images of the domain that it translates to."""
    pool: int = 50
    """Translations remembered for each discriminator; 0 for none."""

    @classmethod
    def dualgan(cls) -> "Config":
        """DualGAN as its code has it: λ = 500, critics with a penalty, no identity loss, no history."""
        return cls(
            generator="unet",
            downs=8,
            norm="affine_instance",
            discriminator="global",
            loss="wasserstein",
            slope=10.0,
            cycle=500.0,
            identity=0.0,
            pool=0,
        )

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: one block, one halving, images of 8."""
        return cls(size=8, base=4, blocks=1, downs=1, layers=1, discriminator_base=4, pool=6)


class Pool(nnx.Module):
    """The history of one domain's translations (`ops.image_pool`), kept from step to step."""

    def __init__(self, size: int, shape: tuple[int, ...]):
        pool = image_pool.init(size, shape)
        self.images, self.filled = nnx.Variable(pool.images), nnx.Variable(pool.filled)

    def __call__(self, images: Float[Array, "B H W C"], *, key: PRNGKeyArray) -> Float[Array, "B H W C"]:
        """What the discriminator shall see in their stead."""
        pool = image_pool.ImagePool(self.images[...], self.filled[...])
        pool, shown = image_pool.exchange(pool, images.astype(pool.images.dtype), key=key)
        self.images[...], self.filled[...] = pool
        return shown


class Domain(nnx.Module):
    """The discriminator of a domain, and the history that it learns from."""

    def __init__(self, config: Config, channels: int, *, rngs: nnx.Rngs):
        options: dict[str, Any] = {"norm": config.norm, "rngs": rngs}
        self.net: PatchDiscriminator | GlobalDiscriminator
        if config.discriminator == "patch":
            self.net = PatchDiscriminator(channels, layers=config.layers, base=config.discriminator_base, **options)
        else:
            widths = tuple(config.discriminator_base * factor for factor in (1, 2, 4, 8, 8))
            self.net = GlobalDiscriminator(
                channels, widths=widths, kernels=(5, 3, 3, 3, 3), stem=config.size // 2 ** len(widths), **options
            )
        self.pool = Pool(config.pool, (config.size, config.size, channels))

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B *P"]:
        """The logits."""
        return self.net(images)


class Translator(nnx.Module):
    """The generator to one domain, and what it was made for."""

    def __init__(self, config: Config, channels: int, outputs: int, *, rngs: nnx.Rngs):
        self.config = config
        options: dict[str, Any] = {"base": config.base, "norm": config.norm, "downs": config.downs, "rngs": rngs}
        self.net: ResidualGenerator | UNet
        if config.generator == "residual":
            self.net = ResidualGenerator(channels, outputs, blocks=config.blocks, upsample=config.upsample, **options)
        else:
            self.net = UNet(channels, outputs, kernel=3, outer_kernel=5, dropout=0.0, **options)

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        """The translation, in [-1, 1]."""
        return self.net(images)


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """``to_b`` (G: A → B), ``to_a`` (F: B → A), and the discriminators ``of_a`` and ``of_b``."""
    a, b = config.channels_a, config.channels_b
    if config.identity and a != b:
        raise InputError(
            f"identity: got {config.identity} with {a} channels in A and {b} in B; a generator can leave an image as "
            "it is only where both have the same number. Set model.identity to 0."
        )
    return {
        "to_b": Translator(config, a, b, rngs=rngs),
        "to_a": Translator(config, b, a, rngs=rngs),
        "of_a": Domain(config, a, rngs=rngs),
        "of_b": Domain(config, b, rngs=rngs),
    }


def loss_generators(
    nets: dict[str, Any], batch: dict[str, Array], *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Over both directions ``Σ L_G(D_B(G(a))) + λ mean|F(G(a)) - a| + λ_i λ mean|G(b) - b|`` (Eq. 3, section 5.2)."""
    config = nets["to_a"].config
    real = _images(config, batch)
    adversarial, cycle, identity = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
    for here, there in OTHER.items():
        fake = nets[f"to_{there}"](real[here])
        on_real = nets[f"of_{there}"](real[there]) if config.loss in gan.RELATIVISTIC else None
        adversarial += jnp.mean(gan.adversarial(config.loss).generator(nets[f"of_{there}"](fake), on_real))
        cycle += _distance(nets[f"to_{here}"](fake), real[here])
        if config.identity:
            identity += _distance(nets[f"to_{there}"](real[there]), real[there])
    loss = config.adversarial * adversarial + config.cycle * (cycle + config.identity * identity)
    return loss, {"adversarial": adversarial, "cycle": cycle, "identity": identity}


def loss_discriminators(
    nets: dict[str, Any], batch: dict[str, Array], *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``Σ ½ L_D(D_B(b), D_B(pool(G(a))))`` over both domains, and the penalties if there are any."""
    config = nets["to_a"].config
    real, loss = _images(config, batch), jnp.zeros(())
    metrics: dict[str, Array] = {}
    for there, here in OTHER.items():
        discriminator = nets[f"of_{there}"]
        key_pool, key_slope = jax.random.split(jax.random.fold_in(key, ord(there)))
        fake = discriminator.pool(nets[f"to_{there}"](real[here]), key=key_pool)
        on_real, on_fake = discriminator(real[there]), discriminator(fake)
        loss += 0.5 * jnp.mean(gan.adversarial(config.loss).discriminator(on_real, on_fake))
        if config.slope:
            loss += config.slope * jnp.mean(gan.wgan_gp(discriminator, real[there], fake, key=key_slope))
        health = gan.health(on_real, on_fake, threshold=0.5 if config.loss == "least_squares" else 0.0)
        metrics |= {f"{name}_{there}": value for name, value in health.items()}
    return loss, metrics


def predict(nets: dict[str, Any], batch: dict[str, Array]) -> dict[str, Float[Array, "B H W C"]]:
    """In [-1, 1]: the translations, by their domain, and what came back from there, ``cycle_a`` and ``cycle_b``."""
    return there_and_back(nets["to_a"], nets["to_b"], **_images(nets["to_a"].config, batch))


def _images(config: Config, batch: dict[str, Array]) -> dict[str, Array]:
    channels = {"a": config.channels_a, "b": config.channels_b}
    return {
        domain: signed_images(domain, batch[domain], (config.size, config.size, channels[domain])) for domain in OTHER
    }


def _distance(images: Array, target: Array) -> Array:
    return jnp.mean(jnp.abs(images.astype(jnp.float32) - target))
