"""Video prediction in PyTorch, as its users write it: the ConvLSTM encoder-forecaster and SVG with a learned prior.

The networks are written from the published layer tables. Their modules have the names of ours, so that `fill` carries
weights from one library to the other. Videos are ``[B, T, C, H, W]`` in [0, 1]. It is the peer of
``experiments.bench.video``; not a system of the library.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Step = Callable[[Tensor], Tensor]
"""From a batch of videos to the loss; the parameters change."""


class ConvLSTM(nn.Module):
    """Inputs of all steps in one convolution, the state's in a loop; gates i, f, g, o, a peephole a channel.

    Args:
      channels: of the inputs; None for none.
      features: of the state.
      kernel: side of both kernels.
    """

    def __init__(self, channels: int | None, features: int, kernel: int):
        super().__init__()
        self.input: nn.Module = nn.Identity()
        if channels is not None:
            self.input = nn.Conv2d(channels, 4 * features, kernel, padding="same", bias=False)
        self.recurrent = nn.Conv2d(features, 4 * features, kernel, padding="same", bias=False)
        self.bias = nn.Parameter(torch.zeros(4 * features))
        self.peephole = nn.Parameter(torch.zeros(3, features))

    def forward(self, xs: Tensor | None, carry: Any, steps: int) -> tuple[Any, Tensor]:
        """The last state and memory, and all states ``[B, T, D, H, W]``."""
        bias, (p_i, p_f, p_o) = self.bias[:, None, None], self.peephole[:, :, None, None]
        zs = None if xs is None else self.input(xs.flatten(0, 1)).unflatten(0, xs.shape[:2])
        h, c = carry
        hs = []
        for t in range(steps):
            gates = self.recurrent(h) + bias if zs is None else self.recurrent(h) + (zs[:, t] + bias)
            i, f, g, o = gates.chunk(4, dim=1)
            c = (f + p_f * c).sigmoid() * c + (i + p_i * c).sigmoid() * g.tanh()
            h = (o + p_o * c).sigmoid() * c.tanh()
            hs.append(h)
        return (h, c), torch.stack(hs, dim=1)


class Forecaster(nn.Module):
    """Both stacks and the 1x1 readout of all layers.

    Args:
      features: of each layer.
      kernel: side of all kernels.
      patch: side of the patches that frames are cut into.
      channels: of a frame.
    """

    def __init__(self, features: Sequence[int], kernel: int, patch: int, channels: int = 1):
        super().__init__()
        depth = channels * patch**2
        self.patch = patch
        before = [depth, *features]
        self.encoder = nn.ModuleList(ConvLSTM(c, d, kernel) for c, d in zip(before, features, strict=False))
        ins = [None, *features]
        self.forecaster = nn.ModuleList(ConvLSTM(c, d, kernel) for c, d in zip(ins, features, strict=False))
        self.readout = nn.Conv2d(sum(features), depth, 1)

    def forward(self, context: Tensor, steps: int) -> Tensor:
        """Logits of the frames that follow."""
        xs = F.pixel_unshuffle(context, self.patch)
        carries = []
        for layer in self.encoder:
            zeros = xs.new_zeros(len(xs), layer.recurrent.in_channels, *xs.shape[3:])
            carry, xs = layer(xs, (zeros, zeros), xs.shape[1])
            carries.append(carry)
        below, found = None, []
        for layer, carry in zip(self.forecaster, carries, strict=True):
            _, below = layer(below, carry, steps)
            found.append(below)
        logits = self.readout(torch.cat(found, dim=2).flatten(0, 1))
        return F.pixel_shuffle(logits.unflatten(0, (len(context), steps)), self.patch)


def forecaster_loss(nets: Mapping[str, nn.Module], video: Tensor, context: int) -> Tensor:
    """Cross-entropy per pixel of the frames after the context."""
    future = video[:, context:]
    return F.binary_cross_entropy_with_logits(nets["forecaster"](video[:, :context], future.shape[1]), future)


class Layer(nn.Module):
    """A convolution, batch normalisation and leaky ReLU."""

    def __init__(self, conv: nn.Module, width: int):
        super().__init__()
        self.conv, self.norm = conv, nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """The activations."""
        return F.leaky_relu(self.norm(self.conv(x)), 0.2)


def _widths(size: int, base: int) -> list[int]:
    return [base * min(2**i, 8) for i in range((size // 4).bit_length() - 1)]


class Encoder(nn.Module):
    """DCGAN's discriminator, to a vector, and the maps of each level."""

    def __init__(self, size: int, channels: int, features: int, base: int):
        super().__init__()
        widths = _widths(size, base)
        ins = [channels, *widths]
        layers = (Layer(nn.Conv2d(c, d, 4, 2, 1, bias=False), d) for c, d in zip(ins, widths, strict=False))
        self.levels = nn.ModuleList(nn.ModuleList([layer]) for layer in layers)
        self.top, self.top_norm = nn.Conv2d(widths[-1], features, 4, bias=False), nn.BatchNorm2d(features)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """The vectors ``[N, D]``, then the maps, the largest first."""
        maps = []
        for (layer,) in self.levels:
            frames = layer(frames)
            maps.append(frames)
        return self.top_norm(self.top(frames)).tanh()[..., 0, 0], *maps


class Decoder(nn.Module):
    """The mirror, which beside each map of its own sees the encoder's."""

    def __init__(self, size: int, channels: int, features: int, base: int):
        super().__init__()
        widths = _widths(size, base)
        self.stem = Layer(nn.ConvTranspose2d(features, widths[-1], 4, bias=False), widths[-1])
        pairs = zip(widths[::-1], widths[-2::-1], strict=False)
        layers = (Layer(nn.ConvTranspose2d(2 * c, d, 4, 2, 1, bias=False), d) for c, d in pairs)
        self.levels = nn.ModuleList(nn.ModuleList([layer]) for layer in layers)
        self.frame = nn.ConvTranspose2d(2 * base, channels, 4, 2, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor, *maps: Tensor) -> Tensor:
        """Frames in [0, 1]."""
        x = self.stem(h[..., None, None])
        for layer, skip in zip([*(layer for (layer,) in self.levels), self.frame], maps[::-1], strict=True):
            x = layer(torch.cat([x, skip], dim=1))
        return (x + self.bias[:, None, None]).sigmoid()


class Recurrent(nn.Module):
    """A dense layer, LSTMs, a dense layer; PyTorch's second bias of an LSTM stays at zero and counts as none."""

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int):
        super().__init__()
        self.embed, self.head = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        self.lstms = nn.LSTM(hidden, hidden, layers, batch_first=True)
        for name, parameter in self.lstms.named_parameters():
            if name.startswith("bias_hh"):
                nn.init.zeros_(parameter).requires_grad_(False)

    def forward(self, xs: Tensor) -> Tensor:
        """All outputs."""
        return self.head(self.lstms(self.embed(xs))[0])


def over_time(net: nn.Module, each: bool, *xs: Tensor) -> Any:
    """A network for images on all frames ``[B, T, ...]``: at once, or on one after another, as the published code."""
    if each:
        found = [net(*(x[:, t] for x in xs)) for t in range(xs[0].shape[1])]
        if isinstance(found[0], Tensor):
            return torch.stack(found, dim=1)
        return tuple(torch.stack(part, dim=1) for part in zip(*found, strict=True))
    leading = xs[0].shape[:2]
    whole = net(*(x.flatten(0, 1) for x in xs))
    return whole.unflatten(0, leading) if isinstance(whole, Tensor) else tuple(x.unflatten(0, leading) for x in whole)


def svg(config: Any) -> dict[str, nn.Module]:
    """The networks of SVG-LP, of a configuration of ours with the backbone "dcgan" and batch normalisation."""
    frame = (config.height, config.channels, config.features, config.base)
    inputs = config.features + config.latent
    return {
        "encoder": Encoder(*frame),
        "decoder": Decoder(*frame),
        "predictor": Recurrent(inputs, config.hidden, config.features, config.layers),
        "posterior": Recurrent(config.features, config.hidden, 2 * config.latent, 1),
        "prior": Recurrent(config.features, config.hidden, 2 * config.latent, 1),
    }


def svg_loss(nets: Mapping[str, nn.Module], video: Tensor, noise: Tensor, config: Any, *, each: bool) -> Tensor:
    """Squared errors and divergences of every frame but the first.

    Args:
      nets: of `svg`.
      video: the frames.
      noise: ``[B, T - 1, Z]``.
      config: ours.
      each: whether encoder and decoder take the frames one by one.
    """
    hs, *maps = over_time(nets["encoder"], each, video)
    mean, log_variance = nets["posterior"](hs[:, 1:]).chunk(2, dim=-1)
    mean_p, log_variance_p = nets["prior"](hs[:, :-1]).chunk(2, dim=-1)
    log_sd, log_sd_p = (x.clamp(*config.log_variance) / 2 for x in (log_variance, log_variance_p))
    predicted = nets["predictor"](torch.cat([hs[:, :-1], mean + log_sd.exp() * noise], dim=-1)).tanh()
    sources = torch.arange(video.shape[1] - 1, device=video.device).clamp(max=config.context - 1)
    frames = over_time(nets["decoder"], each, predicted, *(level[:, sources] for level in maps))
    kl = log_sd_p - log_sd + ((2 * log_sd).exp() + (mean - mean_p) ** 2) / (2 * (2 * log_sd_p).exp()) - 0.5
    errors = (frames.float() - video[:, 1:]).square().mean(dim=(2, 3, 4))
    return (errors + config.beta * kl.sum(dim=-1)).sum(dim=1).mean()


def trained(nets: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """The parameters that an optimiser changes."""
    return [p for net in nets.values() for p in net.parameters() if p.requires_grad]


def training_step(nets: Mapping[str, nn.Module], loss: Callable[[Tensor], Tensor], learning_rate: float) -> Step:
    """A step of Adam on the loss of a batch."""
    tx = torch.optim.Adam(trained(nets), learning_rate)

    def step(video: Tensor) -> Tensor:
        tx.zero_grad(set_to_none=True)
        value = loss(video)
        value.backward()
        tx.step()
        return value.detach()

    return step


def fill(module: nn.Module, params: Any) -> None:
    """Give a module the weights of ours: a tree with its modules' names, kernels last of all ``[*K, C, D]``."""
    match module:
        case nn.Conv2d() | nn.ConvTranspose2d():
            kernel, bias = (params["kernel"], params.get("bias")) if isinstance(params, Mapping) else params
            _set(module.weight, np.moveaxis(kernel, (-1, -2), (0, 1)))
            if module.bias is not None:
                _set(module.bias, bias)
        case nn.Identity():
            pass
        case nn.Linear():
            _set(module.weight, params["kernel"].T)
            _set(module.bias, params["bias"])
        case nn.BatchNorm2d():
            params = params["batch"]
            _set(module.weight, params["scale"])
            _set(module.bias, params["bias"])
        case nn.LSTM():
            for k, layer in enumerate(params):
                _set(getattr(module, f"weight_ih_l{k}"), layer.input.T)
                _set(getattr(module, f"weight_hh_l{k}"), layer.recurrent.T)
                _set(getattr(module, f"bias_ih_l{k}"), layer.bias)
        case _:
            for name, child in (*module.named_children(), *module.named_parameters(recurse=False)):
                part = params[int(name)] if name.isdigit() else _part(params, name)
                if isinstance(child, nn.Parameter):
                    _set(child, part)
                else:
                    fill(child, part)


def _part(params: Any, name: str) -> Any:
    if not isinstance(params, Mapping):
        found = getattr(params, name)
        return (found, None) if name in ("input", "recurrent") else found
    return params[name]


def _set(parameter: Tensor, array: Any) -> None:
    array = torch.from_numpy(np.array(array))
    if parameter.shape != array.shape:
        raise ValueError(f"{tuple(array.shape)} came for a parameter of {tuple(parameter.shape)}")
    with torch.no_grad():
        parameter.copy_(array)
