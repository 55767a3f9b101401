"""GRU-RCN: recognition of videos by convolutional GRUs on every level of a network for images (Ballas et al., 2016).

Nicolas Ballas, Li Yao, Chris Pal, Aaron Courville, *Delving Deeper into Convolutional Networks for Learning Video
Representations*, ICLR 2016, https://arxiv.org/abs/1511.06432.

A network for images turns every frame into maps of features at several depths, the percepts. On each level a GRU whose
products are convolutions runs over time, so that fine motion is seen where the maps are still large; where they are one
place it is a dense GRU. The last states, averaged over space, go to a linear classifier each, and the probabilities of
all levels are averaged. In the stacked network the gates, but not the candidate, also read the state of the level below
at the same step, max-pooled to their size; the bidirectional one runs over the frames both ways, on weights of either
way's own, and its classifiers read both last states. The defaults are the paper's network on VGG-16 for UCF-101.

Left out are the paper's second network, which reads optical flow and whose probabilities are averaged with these, and
its captioning of videos. Departures: bidirectional and stacked may be had together. Not of the paper: ``net="conv"``,
small convolutions trained with the rest; ``foresight``, which also has the states of the lowest level foretell the next
frame, through one 1x1 convolution to patches of pixels. It asks this of frames and not of percepts, since a network
that is trained could make its percepts easy to foretell, and of the way forwards alone, since the other has seen what
is to come.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.vgg import VGG
from seqjax.ops.cells import gru_rcn, gru_reset_before
from seqjax.ops.compose import dropped
from seqjax.ops.distances import squared_error
from seqjax.ops.image import depth_to_space, fold_time, signed_to_unit, uint8_to_unit, unfold_time, unit_to_signed
from seqjax.ops.scan import unroll

Nets = dict[str, Any]
Batch = dict[str, Array]
Maps = list[Float[Array, "B T _h _w _d"]]
"""Of each level, the largest first."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and options of the networks; the defaults are the paper's on VGG-16."""

    size: int = 224
    """Height and width of the frames."""
    channels: int = 3
    """Of the frames."""
    net: Literal["vgg16", "conv"] = "vgg16"
    """What reads the frames: VGG-16, whose published weights a recipe fills in, or 3x3 convolutions with ReLU, each
    followed by maxima over 2x2, after which its percepts are taken."""
    layers: tuple[str, ...] = ("pool2", "pool3", "pool4", "pool5", "relu7")
    """VGG: the layers whose maps are percepts, in order."""
    widths: tuple[int, ...] = (16, 32)
    """Convolutions: features of each."""
    hidden: tuple[int, ...] = (64, 128, 256, 256, 512)
    """Features of the state of each level."""
    kernel: int = 3
    """Side of all recurrent and input kernels, but of levels that are one place."""
    stacked: bool = False
    """Whether the gates of a level read the states of the level below."""
    bidirectional: bool = False
    """Whether the frames are read backwards too."""
    classes: int = 101
    """What is told apart."""
    dropout: float = 0.7
    """Share dropped of what the classifiers read."""
    foresight: float = 0.0
    """Weight of the mean squared error of the next frame, foretold from the lowest level; 0 only to recognise."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: two small levels, the upper on the lower, which foretells frames."""
        small = cls(8, 1, "conv", widths=(4, 6), hidden=(3, 5), classes=4, dropout=0.0)
        return dataclasses.replace(small, stacked=True, foresight=0.1)


class Backbone(nnx.Module):
    """Frames to percepts; ``shapes`` are those of one frame's, ``(H, W, C)`` of each level."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        if config.net == "conv":
            pairs = zip((config.channels, *config.widths), config.widths, strict=False)
            self.convs = compat.List([nnx.Conv(c, d, (3, 3), padding="SAME", rngs=rngs) for c, d in pairs])
        else:
            self.vgg = VGG(16, top=config.layers[-1] in ("fc6", "relu6", "fc7", "relu7"), rngs=rngs)
        frame = jax.ShapeDtypeStruct((1, 1, config.size, config.size, config.channels), jnp.float32)
        self.shapes = tuple(maps.shape[2:] for maps in jax.eval_shape(self.__call__, frame))

    def __call__(self, video: Float[Array, "B T H W C"]) -> list[Float[Array, "B T _h _w _d"]]:
        """The percepts of every frame, in [-1, 1], of each level."""
        return [unfold_time(maps, frames=video.shape[1]) for maps in self._read(fold_time(video))]

    def _read(self, images: Array) -> list[Array]:
        if self.config.net != "conv":
            found = self.vgg(images, self.config.layers)
            return [found[layer] for layer in self.config.layers]
        levels, x = [], signed_to_unit(images)  # black as what is around the image
        for conv in self.convs:
            x = nnx.max_pool(jax.nn.relu(conv(x)), (2, 2), (2, 2))
            levels.append(x)
        return levels


class Recogniser(nnx.Module):
    """Percepts to the logarithms of probabilities.

    Args:
      config: sizes.
      shapes: of one frame's percepts.
      rngs: of the parameters.
    """

    def __init__(self, config: Config, shapes: tuple[tuple[int, int, int], ...], *, rngs: nnx.Rngs):
        self.config = config
        ways = 2 if config.bidirectional else 1
        self.levels = nnx.Param(tuple(_levels(config, shapes, rngs) for _ in range(ways)))
        self.heads = compat.List([nnx.Linear(ways * width, config.classes, rngs=rngs) for width in config.hidden])
        if config.foresight:
            self.block = config.size // shapes[0][0]
            self.frame = nnx.Linear(config.hidden[0], config.channels * self.block**2, rngs=rngs)

    def __call__(
        self, percepts: list[Float[Array, "B T _h _w _d"]], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "B K"]:
        """Logarithms of probabilities, with dropout where there is a key."""
        return self.answer([self.watch(percepts, way)[0] for way in range(len(self.levels))], key=key)

    def watch(
        self, percepts: list[Float[Array, "B T _h _w _d"]], way: int = 0
    ) -> tuple[list[Float[Array, "B _h _w _d"]], list[Float[Array, "B T _h _w _d"]]]:
        """The last state, and all states, of each level.

        Args:
          percepts: of each level.
          way: 0 from the first frame to the last, 1 from the last to the first, where the last state is.
        """
        lasts: list[Array] = []
        states: list[Array] = []
        for level, (params, xs) in enumerate(zip(compat.pure(self.levels)[way], percepts, strict=True)):
            if self.config.stacked and level:
                inputs = (xs, _pooled(states[-1], xs.shape[2:4]))
                last, hs = unroll(gru_rcn, params, None, inputs, reverse=way == 1)
            else:
                last, hs = unroll(gru_reset_before, params, None, xs, reverse=way == 1)
            lasts.append(last)
            states.append(hs)
        return lasts, states

    def answer(
        self, lasts: list[list[Float[Array, "B _h _w _d"]]], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "B K"]:
        """``log 1/L Σ_l softmax(V_l drop(mean_ij h^l) + b_l)`` from the last states of each way and level."""
        keys = [None] * len(self.heads) if key is None else list(jax.random.split(key, len(self.heads)))
        found = []
        for head, own, *ways in zip(self.heads, keys, *lasts, strict=True):
            pooled = jnp.concatenate([jnp.mean(h, axis=(1, 2)) for h in ways], axis=-1)
            logits = head(dropped(pooled, self.config.dropout, own))
            found.append(jax.nn.log_softmax(logits.astype(jnp.float32)))
        return jax.nn.logsumexp(jnp.stack(found), axis=0) - jnp.log(float(len(found)))

    def foretell(self, states: Float[Array, "B T h w D"]) -> Float[Array, "B T H W C"]:
        """The frame that follows each state of the lowest level, in [-1, 1] and float32."""
        return jnp.tanh(depth_to_space(self.frame(states), block=self.block).astype(jnp.float32))


def _levels(config: Config, shapes: tuple[tuple[int, int, int], ...], rngs: nnx.Rngs) -> tuple:
    """Parameters of the cells of one way."""
    levels: list[Any] = []
    for level, ((height, width, channels), features) in enumerate(zip(shapes, config.hidden, strict=True)):
        kernel = (1, 1) if height == width == 1 else (config.kernel,) * 2
        if config.stacked and level:
            below = config.hidden[level - 1]
            params = gru_rcn.init(rngs.params(), channels, features, kernel_size=kernel, below_features=below)
        else:
            params = gru_reset_before.init(rngs.params(), channels, features, kernel_size=kernel)
        levels.append(params)
    return tuple(levels)


def _pooled(states: Array, size: tuple[int, ...]) -> Array:
    """Maxima of all steps' maps over windows that leave so many rows and columns."""
    window = (states.shape[2] // size[0], states.shape[3] // size[1])
    return unfold_time(nnx.max_pool(fold_time(states), window, window), frames=states.shape[1])


def build(config: Config, rngs: nnx.Rngs) -> Nets:
    """The network that reads frames, and the recurrent one.

    Raises:
      InputError: states for another number of levels than there are.
    """
    levels = len(config.widths if config.net == "conv" else config.layers)
    if len(config.hidden) != levels:
        raise InputError(
            f"hidden: {config.hidden} came, for {levels} levels; expected as many: set model.hidden, or "
            f"model.{'widths' if config.net == 'conv' else 'layers'}."
        )
    backbone = Backbone(config, rngs=rngs)
    return {"backbone": backbone, "recogniser": Recogniser(config, backbone.shapes, rngs=rngs)}


def loss(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``-log`` of the average of the levels' probabilities of the true class, in nats, averaged over the batch.

    With foresight also, at its weight, the mean squared error of the frames 2 to T, foretold from those before.
    """
    net = nets["recogniser"]
    config = net.config
    video = signed_video(config, batch["video"])
    lasts, states = zip(*(net.watch(nets["backbone"](video), way) for way in range(len(net.levels))), strict=True)
    nll = -jnp.mean(of_class(net.answer(list(lasts), key=key), batch["label"]))
    if not config.foresight:
        return nll, {"nll": nll}
    foretold = net.foretell(states[0][0][:, :-1])
    error = jnp.mean(squared_error(foretold, video[:, 1:])) / foretold[0, 0].size
    return nll + config.foresight * error, {"nll": nll, "next_frame": error}


def predict(nets: Nets, batch: Batch) -> Float[Array, "B K"]:
    """Logarithms of probabilities; of videos of several clips, ``[B, N, T, H, W, C]``, those of the clips' average."""
    net, videos = nets["recogniser"], batch["video"]

    def of_clip(clip: Array) -> Array:
        return net(nets["backbone"](signed_video(net.config, clip)))

    if videos.ndim == 5:
        return of_clip(videos)
    # One clip of every video after another: all at once are more frames than fit.
    found = jax.lax.map(of_clip, jnp.moveaxis(videos, 1, 0))
    return jax.nn.logsumexp(found, axis=0) - jnp.log(float(len(found)))


def foretell(nets: Nets, batch: Batch) -> Float[Array, "B S H W C"]:
    """Frames 2 to T + 1 of each video, in [-1, 1], each from the true ones before it; of a network with foresight."""
    net = nets["recogniser"]
    return net.foretell(net.watch(nets["backbone"](signed_video(net.config, batch["video"])))[1][0])


def signed_video(config: Config, video: UInt8[Array, "B T H W C"]) -> Float[Array, "B T H W C"]:
    """The frames in [-1, 1].

    Raises:
      InputError: frames of another size.
    """
    wanted = (config.size, config.size, config.channels)
    if video.shape[2:] != wanted:
        raise InputError(
            f"video: frames of {'x'.join(map(str, video.shape[2:]))} came, and the network takes "
            f"{'x'.join(map(str, wanted))}: choose a data set of that shape, or set model.size and model.channels, or "
            "data.sides, by which frames are brought to model.size."
        )
    return unit_to_signed(uint8_to_unit(video))


def of_class(log_p: Float[Array, "B K"], labels: Array) -> Float[Array, " B"]:
    """The logarithm of each true class's probability."""
    return jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
