"""Published adversarial networks in PyTorch, and training steps of pix2pix and CycleGAN as its users write them.

The networks are written from the published layer tables; modules have the names that the checkpoints of
github.com/junyanz/pytorch-CycleGAN-and-pix2pix have, and those of DCGAN the names of PyTorch's example, so that
``seqjax.convert.gan`` carries weights from one library to the other. Images are ``[B, C, H, W]`` in [-1, 1]. It is the
peer of ``experiments.bench.gan``, and what the tests of ``seqjax.convert.gan`` are made with; not a system of the
library.
"""

import itertools
import random
from collections.abc import Callable, Collection
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kind = Literal["batch", "instance"]
"""``instance`` has no parameters, and the convolution before it a bias."""


def norm(kind: Kind, width: int) -> nn.Module:
    """The normalisation of so many features."""
    return nn.BatchNorm2d(width) if kind == "batch" else nn.InstanceNorm2d(width)


class Holder(nn.Module):
    """A network whose layers stand under one name."""

    def __init__(self, name: str, *layers: nn.Module):
        super().__init__()
        self.add_module(name, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        """Through the layers, one after the other."""
        (layers,) = self.children()
        return layers(x)


class Whole(nn.Module):
    """A U-Net, whose outermost level is a level as well and stands under a name of its own."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The translation."""
        return self.model(x)


class Level(Holder):
    """What is inside of one halving and one doubling, beside the skip."""

    def forward(self, x: Tensor) -> Tensor:
        """The input and, after it, what came from below."""
        return torch.cat([x, super().forward(x)], 1)


def unet(
    kind: Kind, downs: int, base: int, *, inputs: int = 3, outputs: int = 3, dropped: Collection[int] | None = None
) -> nn.Module:
    """The U-Net of pix2pix.

    Args:
      kind: normalisation.
      downs: halvings.
      base: features of the first.
      inputs: channels of the input.
      outputs: channels of the output.
      dropped: doublings with dropout, counted from the innermost; None for those that neither halve nor double the
        features, as in the PyTorch version.
    """
    bias, widths = kind == "instance", [base * min(2**i, 8) for i in range(downs)]
    places = range(1, downs - 4) if dropped is None else dropped

    def down(c: int, d: int) -> nn.Module:
        return nn.Conv2d(c, d, 4, 2, 1, bias=bias)

    def up(c: int, d: int) -> nn.Module:
        return nn.ConvTranspose2d(c, d, 4, 2, 1, bias=bias)

    def dropout(place: int) -> list[nn.Module]:
        return [nn.Dropout(0.5)] if place in places else []

    *outer, wide, inner = widths
    ahead = [nn.LeakyReLU(0.2), down(wide, inner), nn.ReLU(), up(inner, wide), norm(kind, wide)]
    level = Level("model", *ahead, *dropout(0))
    for place, (c, d) in enumerate(reversed(list(itertools.pairwise([*outer, wide]))), 1):
        before = [nn.LeakyReLU(0.2), down(c, d), norm(kind, d)]
        level = Level("model", *before, level, nn.ReLU(), up(2 * d, c), norm(kind, c), *dropout(place))
    first, last = down(inputs, base), nn.ConvTranspose2d(2 * base, outputs, 4, 2, 1)
    return Whole(Holder("model", first, level, nn.ReLU(), last, nn.Tanh()))


class Block(Holder):
    """A residual block."""

    def forward(self, x: Tensor) -> Tensor:
        """The input and what the layers make of it, added."""
        return x + super().forward(x)


def block(kind: Kind, width: int, dropout: bool) -> Block:
    """Two 3x3 convolutions over mirrored borders."""
    bias = kind == "instance"
    first = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), norm(kind, width), nn.ReLU()]
    between = [nn.Dropout(0.5)] if dropout else []
    second = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), norm(kind, width)]
    return Block("conv_block", *first, *between, *second)


class NearestConv2d(nn.Conv2d):
    """Each pixel four times, and a convolution."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps of twice the size."""
        return super().forward(nn.functional.interpolate(input, scale_factor=2, mode="nearest"))


def resnet(
    kind: Kind,
    blocks: int,
    base: int,
    *,
    inputs: int = 3,
    outputs: int = 3,
    downs: int = 2,
    nearest: bool = False,
    dropout: bool = False,
) -> nn.Module:
    """The generator of residual blocks.

    Args:
      kind: normalisation.
      blocks: residual blocks.
      base: features of the first layer.
      inputs: channels of the input.
      outputs: channels of the output.
      downs: halvings.
      nearest: whether it doubles by nearest neighbours and a convolution instead of a transposed convolution.
      dropout: whether the blocks have it.
    """
    bias, widths = kind == "instance", [base * 2**i for i in range(downs + 1)]
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, base, 7, bias=bias), norm(kind, base), nn.ReLU()]
    for c, d in itertools.pairwise(widths):
        layers += [nn.Conv2d(c, d, 3, 2, 1, bias=bias), norm(kind, d), nn.ReLU()]
    layers += [block(kind, widths[-1], dropout) for _ in range(blocks)]
    for d, c in reversed(list(itertools.pairwise(widths))):
        up = (
            NearestConv2d(c, d, 3, padding=1, bias=bias)
            if nearest
            else nn.ConvTranspose2d(c, d, 3, 2, 1, output_padding=1, bias=bias)
        )
        layers += [up, norm(kind, d), nn.ReLU()]
    return Holder("model", *layers, nn.ReflectionPad2d(3), nn.Conv2d(base, outputs, 7), nn.Tanh())


def patch(kind: Kind, base: int, layers: int = 3, channels: int = 6) -> nn.Module:
    """PatchGAN's discriminator, with so many convolutions of stride 2: logits."""
    bias, widths = kind == "instance", [base * min(2**i, 8) for i in range(layers + 1)]
    found = [nn.Conv2d(channels, base, 4, 2, 1), nn.LeakyReLU(0.2)]
    for i, (c, d) in enumerate(itertools.pairwise(widths), 1):
        found += [nn.Conv2d(c, d, 4, 2 if i < layers else 1, 1, bias=bias), norm(kind, d), nn.LeakyReLU(0.2)]
    return Holder("model", *found, nn.Conv2d(widths[-1], 1, 4, 1, 1))


def pixel(kind: Kind, base: int, channels: int = 6) -> nn.Module:
    """The discriminator that scores every pixel: logits."""
    bias = kind == "instance"
    first, second = nn.Conv2d(channels, base, 1), nn.Conv2d(base, 2 * base, 1, bias=bias)
    third = nn.Conv2d(2 * base, 1, 1, bias=bias)
    return Holder("net", first, nn.LeakyReLU(0.2), second, norm(kind, 2 * base), nn.LeakyReLU(0.2), third)


def dcgan_generator(base: int, latent: int = 100, channels: int = 3) -> nn.Module:
    """DCGAN's, from ``[B, latent, 1, 1]`` to images of 64."""
    layers = [nn.ConvTranspose2d(latent, 8 * base, 4, 1, 0, bias=False), nn.BatchNorm2d(8 * base), nn.ReLU()]
    for c in (8 * base, 4 * base, 2 * base):
        layers += [nn.ConvTranspose2d(c, c // 2, 4, 2, 1, bias=False), nn.BatchNorm2d(c // 2), nn.ReLU()]
    return Holder("main", *layers, nn.ConvTranspose2d(base, channels, 4, 2, 1, bias=False), nn.Tanh())


def dcgan_discriminator(base: int, channels: int = 3) -> nn.Module:
    """DCGAN's, without the sigmoid at the end: logits ``[B, 1, 1, 1]``."""
    layers = [nn.Conv2d(channels, base, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for c in (base, 2 * base, 4 * base):
        layers += [nn.Conv2d(c, 2 * c, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * c), nn.LeakyReLU(0.2)]
    return Holder("main", *layers, nn.Conv2d(8 * base, 1, 4, 1, 0, bias=False))


class ImagePool:
    """Up to so many images made earlier, for a discriminator to learn from: half of what comes out is old."""

    def __init__(self, size: int):
        self.size = size
        self.images: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        """What the discriminator shall see in their stead."""
        shown = []
        for image in images.detach().split(1):
            if len(self.images) < self.size:
                self.images.append(image.clone())
            elif random.random() < 0.5:
                place = random.randrange(self.size)
                image, self.images[place] = self.images[place], image.clone()
            shown.append(image)
        return torch.cat(shown)


Nets = dict[str, nn.Module]
Step = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""From a batch of images in [-1, 1] to the losses of the players, whose parameters it changes."""


def adam(nets: list[nn.Module], **options: Any) -> torch.optim.Optimizer:
    """One optimiser of all their parameters."""
    return torch.optim.Adam(itertools.chain(*(net.parameters() for net in nets)), **options)


def update(tx: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """One step down the loss, which comes back."""
    tx.zero_grad(set_to_none=True)
    loss.backward()
    tx.step()
    return loss.detach()


def learn(nets: list[nn.Module], yes: bool) -> None:
    """Whether gradients of their parameters are formed."""
    for net in nets:
        net.requires_grad_(yes)


def log_loss(logits: Tensor, real: bool) -> Tensor:
    """Cross-entropy of the logits as scores of real or generated images: pix2pix's."""
    return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def square_loss(logits: Tensor, real: bool) -> Tensor:
    """Squares of their differences from 1 or 0: CycleGAN's."""
    return nn.functional.mse_loss(logits, torch.full_like(logits, float(real)))


def pix2pix_step(nets: Nets, *, distance: float, anew: bool, **optimizer: Any) -> Step:
    """A step of pix2pix: the discriminator, then the generator against it.

    Args:
      nets: ``generator`` and ``discriminator``.
      distance: weight of the mean absolute difference from the target.
      anew: whether the generator's update translates once more; otherwise one translation serves both players.
      optimizer: options of Adam.
    """
    generator, discriminator = nets["generator"], nets["discriminator"]
    tx = {name: adam([net], **optimizer) for name, net in nets.items()}

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        source, target = batch["input"], batch["target"]

        def score(images: Tensor) -> Tensor:
            return discriminator(torch.cat([source, images], 1))

        with torch.set_grad_enabled(not anew):
            fake = generator(source)
        learn([discriminator], True)
        on_fake, on_real = score(fake.detach()), score(target)
        loss = 0.5 * (log_loss(on_fake, False) + log_loss(on_real, True))
        losses = {"discriminator": update(tx["discriminator"], loss)}
        learn([discriminator], False)
        fake = generator(source) if anew else fake
        loss = log_loss(score(fake), True) + distance * nn.functional.l1_loss(fake, target)
        return losses | {"generator": update(tx["generator"], loss)}

    return step


def cyclegan_step(nets: Nets, *, cycle: float, identity: float, pool: int, anew: bool, **optimizer: Any) -> Step:
    """A step of CycleGAN: both generators, then both discriminators on histories of translations.

    Args:
      nets: the generators ``to_a`` and ``to_b``, the discriminators ``of_a`` and ``of_b``.
      cycle: weight of what is lost there and back.
      identity: weight, times ``cycle``, of what a generator changes in images of its own domain.
      pool: images that each history holds.
      anew: whether the discriminators' update translates once more, by the generators after theirs; otherwise they
        see the translations that the generators learned from.
      optimizer: options of Adam.
    """
    generators, discriminators = ([nets[f"{kind}_{domain}"] for domain in "ab"] for kind in ("to", "of"))
    tx = {"generators": adam(generators, **optimizer), "discriminators": adam(discriminators, **optimizer)}
    pools, l1 = {domain: ImagePool(pool) for domain in "ab"}, nn.functional.l1_loss

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        fakes, loss = {}, torch.zeros((), device=batch["a"].device)
        learn(discriminators, False)
        for here, there in ("ab", "ba"):
            fake = fakes[there] = nets[f"to_{there}"](batch[here])
            loss = loss + square_loss(nets[f"of_{there}"](fake), True)
            loss = loss + cycle * l1(nets[f"to_{here}"](fake), batch[here])
            loss = loss + cycle * identity * l1(nets[f"to_{there}"](batch[there]), batch[there])
        losses = {"generators": update(tx["generators"], loss)}
        learn(discriminators, True)
        loss = torch.zeros_like(loss)
        for here, there in ("ab", "ba"):
            if anew:
                with torch.no_grad():
                    fakes[there] = nets[f"to_{there}"](batch[here])
            discriminator, shown = nets[f"of_{there}"], pools[there](fakes[there])
            loss = loss + 0.5 * (
                square_loss(discriminator(batch[there]), True) + square_loss(discriminator(shown), False)
            )
        return losses | {"discriminators": update(tx["discriminators"], loss)}

    return step
