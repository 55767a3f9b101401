"""DiscoGAN (Kim et al., 2017): relations between two domains discovered without pairs.

Taeksoo Kim, Moonsu Cha, Hyunsoo Kim, Jung Kwon Lee, Jiwon Kim, *Learning to Discover Cross-Domain Relations with
Generative Adversarial Networks*, ICML 2017, https://arxiv.org/abs/1703.05192.

As CycleGAN, a generator each way and a discriminator for each domain; other than there, encoder-decoders with batch
normalisation and sigmoid outputs, squared differences after there and back, matching of the discriminators' features,
and two stages: the adversarial terms first, the reconstruction later. The defaults are those of the authors' code.

Departures: images are in [-1, 1] with tanh outputs where theirs are in [0, 1] with sigmoids, the same function up to
scale, as in the other systems here; the squared difference is taken in [0, 1]. Discriminators and generators play in
turns, the discriminators in every third step, as there.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.convolution import Conv, ConvTranspose
from seqjax.nn.global_discriminator import GlobalDiscriminator
from seqjax.nn.norm import Norm
from seqjax.ops import gan
from seqjax.ops.cycle import there_and_back
from seqjax.ops.image import signed_images, signed_to_unit

OTHER = {"a": "b", "b": "a"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the networks and weights of the losses; the defaults are the authors'."""

    size: int = 64
    """Side of the images."""
    channels: int = 3
    """Channels of the images of both domains."""
    base: int = 64
    """Features of the first layer; each halving doubles them."""
    downs: int = 4
    """Halvings."""
    bottleneck: int = 0
    """Numbers that the generators' smallest map is pressed into: 100 in some of the paper's tasks, 0 for none."""
    adversarial: float = 0.1
    """Weight of the generators' adversarial loss, beside matching of features."""
    matching: float = 0.9
    """Weight of the matching of features."""
    rate: float = 0.01
    """Share ρ of the reconstruction in the generators' loss, at first."""
    later_rate: float = 0.5
    """Share of it later."""
    later: int = 10_000
    """Steps of the generators until then."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: two halvings."""
        return cls(size=8, base=4, downs=2, later=5)


class EncoderDecoder(nnx.Module):
    """Convolutions of stride 2 with leaky ReLU, and transposed ones with ReLU; batch normalisation but at the ends."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        widths = [config.base * 2**i for i in range(config.downs)]
        before = [config.channels, *widths[:-1]]
        stem = config.size // 2**config.downs
        down = [Conv(c, d, 4, stride=2, bias=False, rngs=rngs) for c, d in zip(before, widths, strict=True)]
        up = [ConvTranspose(d, c, 4, bias=False, rngs=rngs) for c, d in zip(before, widths, strict=True)][::-1]
        features = [*widths, *widths[-2::-1]]
        if config.bottleneck:
            down.append(Conv(widths[-1], config.bottleneck, stem, padding=0, bias=False, rngs=rngs))
            up.insert(0, ConvTranspose(config.bottleneck, widths[-1], stem, stride=1, padding=0, bias=False, rngs=rngs))
            features = [*widths, config.bottleneck, *reversed(widths)]
        self.config = config
        self.down, self.up = compat.List(down), compat.List(up)
        self.norms = compat.List([Norm("batch" if i else "none", d, rngs=rngs) for i, d in enumerate(features)])

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """The translation, in [-1, 1]."""
        x = images
        for i, conv in enumerate(self.down):
            x = jax.nn.leaky_relu(self.norms[i](conv(x)), 0.2)
        for i, conv in enumerate(self.up):
            x = conv(x)
            if i < len(self.up) - 1:
                x = jax.nn.relu(self.norms[len(self.down) + i](x))
        return jnp.tanh(x)


class Stage(nnx.Module):
    """How many steps the generators have made, which decides the share of the reconstruction."""

    def __init__(self) -> None:
        self.steps = nnx.Variable(jnp.zeros((), jnp.int32))

    def rate(self, config: Config) -> Float[Array, ""]:
        """The share for this step; the next call's is the next step's."""
        rate = jnp.where(self.steps[...] < config.later, config.rate, config.later_rate)
        self.steps[...] = self.steps[...] + 1
        return rate


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """``to_b`` (A → B), ``to_a`` (B → A), the discriminators ``of_a`` and ``of_b``, and the ``stage``."""
    stem = config.size // 2**config.downs
    if stem * 2**config.downs != config.size:
        raise InputError(
            f"size: got {config.size} with downs={config.downs}; expected a multiple of {2**config.downs}: set "
            "model.size or model.downs."
        )
    widths = tuple(config.base * 2**i for i in range(config.downs))

    def discriminator() -> GlobalDiscriminator:
        return GlobalDiscriminator(
            config.channels, widths=widths, kernels=(4,) * config.downs, stem=stem, bias=False, rngs=rngs
        )

    translators = {f"to_{domain}": EncoderDecoder(config, rngs=rngs) for domain in "ba"}
    return translators | {"of_a": discriminator(), "of_b": discriminator(), "stage": Stage()}


def loss_generators(
    nets: dict[str, Any], batch: dict[str, Array], *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``Σ (1 - ρ)(w_a L_G(D_B(G(a))) + w_m matching) + ρ mean (F(G(a)) - a)²`` over both directions."""
    config = nets["to_a"].config
    real, rate = _images(config, batch), nets["stage"].rate(config)
    adversarial, matching, reconstruction = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
    for here, there in OTHER.items():
        fake, discriminator = nets[f"to_{there}"](real[here]), nets[f"of_{there}"]
        seen, seen_real = discriminator.features(fake), discriminator.features(real[there])
        adversarial += jnp.mean(gan.non_saturating.generator(discriminator.score(seen)))
        pairs = zip(seen_real[1:], seen[1:], strict=True)
        matching += sum((gan.feature_matching(*pair) for pair in pairs), jnp.zeros(()))
        reconstruction += _squared(nets[f"to_{here}"](fake), real[here])
    game = config.adversarial * adversarial + config.matching * matching
    loss = (1 - rate) * game + rate * reconstruction
    return loss, {"adversarial": adversarial, "matching": matching, "reconstruction": reconstruction}


def loss_discriminators(
    nets: dict[str, Any], batch: dict[str, Array], *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``Σ ½ L_D(D_B(b), D_B(G(a)))`` over both domains."""
    config = nets["to_a"].config
    real, loss = _images(config, batch), jnp.zeros(())
    metrics: dict[str, Array] = {}
    for there, here in OTHER.items():
        fake = jax.lax.stop_gradient(nets[f"to_{there}"](real[here]))
        on_real, on_fake = nets[f"of_{there}"](real[there]), nets[f"of_{there}"](fake)
        loss += 0.5 * jnp.mean(gan.non_saturating.discriminator(on_real, on_fake))
        metrics |= {f"{name}_{there}": value for name, value in gan.health(on_real, on_fake).items()}
    return loss, metrics


def predict(nets: dict[str, Any], batch: dict[str, Array]) -> dict[str, Float[Array, "B H W C"]]:
    """In [-1, 1], by the statistics of the batch: the translations, by domain, and ``cycle_a`` and ``cycle_b``."""
    return there_and_back(nets["to_a"], nets["to_b"], **_images(nets["to_a"].config, batch))


def _images(config: Config, batch: dict[str, Array]) -> dict[str, Array]:
    shape = (config.size, config.size, config.channels)
    return {domain: signed_images(domain, batch[domain], shape) for domain in OTHER}


def _squared(images: Array, target: Array) -> Array:
    return jnp.mean(jnp.square(signed_to_unit(images.astype(jnp.float32)) - signed_to_unit(target)))
