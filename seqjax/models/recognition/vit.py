"""Vision Transformer (Dosovitskiy et al., 2021).

Alexey Dosovitskiy, Lucas Beyer, Alexander Kolesnikov, Dirk Weissenborn, Xiaohua Zhai, Thomas Unterthiner, Mostafa
Dehghani, Matthias Minderer, Georg Heigold, Sylvain Gelly, Jakob Uszkoreit, Neil Houlsby, *An Image is Worth 16x16
Words: Transformers for Image Recognition at Scale*, ICLR 2021, https://arxiv.org/abs/2010.11929; with the choices of
Lucas Beyer, Xiaohua Zhai, Alexander Kolesnikov, *Better plain ViT baselines for ImageNet-1k*, 2022,
https://arxiv.org/abs/2205.01580.

An image is cut into square patches, each becomes a token by one linear map, codes of the places are added, blocks of
self-attention follow, and one vector decides: that of an additional token, the mean of all, or what a learned probe
attends to. The defaults are ViT-B/16 of the paper; ``SIZES`` has the others. An image of another size than trained on
is taken too, its learned codes bilinearly resized; ``resized`` keeps such codes, to be trained on.

Departures: biases of the inner networks start at 0 (there N(0, 10⁻⁶)); codes of the second paper are added at the same
point. Published weights: `seqjax.convert.vit`.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.split import merge, split
from seqjax.nn.transformer import BlockConfig, EncoderBlock, FeedForward, layer_norm
from seqjax.ops import multi_head
from seqjax.ops.compose import dropped
from seqjax.ops.dot_product_attention import Implementation
from seqjax.ops.image import signed_images, space_to_depth
from seqjax.ops.position import resize_positions, sinusoidal_2d

Nets = dict[str, Any]
Batch = dict[str, Array]

SIZES: dict[str, dict[str, Any]] = {
    "Ti": {"features": 192, "hidden": 768, "heads": 3},
    "S": {"features": 384, "hidden": 1536, "heads": 6},
    "B": {"features": 768, "hidden": 3072, "heads": 12},
    "L": {"features": 1024, "hidden": 4096, "heads": 16, "layers": 24},
    "H": {"features": 1280, "hidden": 5120, "heads": 16, "layers": 32},
}
"""The published networks: ``Config(patch=14, **SIZES["H"])`` is ViT-H/14."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and options of the network; the defaults are ViT-B/16's on ImageNet."""

    size: int = 224
    """Side of the images that it is trained on."""
    channels: int = 3
    """Channels of the images."""
    patch: int = 16
    """Side of the patches."""
    features: int = 768
    """D of a token."""
    layers: int = 12
    """Blocks."""
    heads: int = 12
    """Of attention in each."""
    hidden: int = 3072
    """Width of the network for each token."""
    classes: int = 1000
    """What is told apart."""
    classifier: Literal["token", "gap", "map"] = "token"
    """What the head reads: an additional token (first paper), the mean of all tokens (second paper), or what a learned
    probe attends to."""
    positions: Literal["learned", "sincos2d"] = "learned"
    """Codes of the places: learned (first paper), or fixed sines and cosines of row and column (second paper)."""
    representation: int = 0
    """Width of a layer with tanh before the head, as in pre-training; 0 for none."""
    activation: Literal["gelu", "gelu_exact"] = "gelu"
    """By tanh as in the authors' code, or exact, as PyTorch's weights want it."""
    dropout: float = 0.0
    """Share dropped of the tokens after the codes are added, and in every block."""
    attention_dropout: float = 0.0
    """Share dropped of the attention's weights."""
    mixup: float = 0.0
    """α of the Beta distribution by which pairs of training images are mixed; 0 for none."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    implementation: Implementation | None = None
    """Of attention: "xla"; "flash", whose memory is linear in the number of tokens; "cudnn"; None chooses by size."""
    remat: bool = False
    """Whether blocks are computed again in the backward pass instead of kept."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: one small block on four patches."""
        return cls(size=8, channels=1, patch=4, features=8, layers=1, heads=2, hidden=16, classes=4)

    @property
    def block(self) -> BlockConfig:
        """Of each block."""
        return BlockConfig(
            features=self.features,
            heads=self.heads,
            hidden=self.hidden,
            norm="pre",
            activation=self.activation,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            implementation=self.implementation,
        )


class Probe(nnx.Module):
    """A learned query that attends to all tokens, and a network on what it finds, added to it.

    Source: Zhai, Kolesnikov, Houlsby, Beyer, *Scaling Vision Transformers*, 2022, section 3 (multihead attention
    pooling).
    """

    def __init__(self, config: BlockConfig, *, rngs: nnx.Rngs):
        self.query = nnx.Param(initializers.xavier_uniform()(rngs.params(), (1, config.features)))
        self.attention = nnx.Param(multi_head.init(rngs.params(), config.features, config.heads))
        self.norm = layer_norm(config.features, rngs=rngs)
        self.feed_forward = FeedForward(config, rngs=rngs)

    def __call__(self, tokens: Float[Array, "B L D"], *, key: PRNGKeyArray | None = None) -> Float[Array, "B D"]:
        """What is found."""
        params: Any = compat.pure(self.attention)
        found = multi_head.multi_head_attention(params, self._queries(tokens), multi_head.project(params, tokens))
        return (found + self.feed_forward(self.norm(found), key=key))[:, 0]

    def weights(self, tokens: Float[Array, "B L D"]) -> Float[Array, "B N 1 L"]:
        """Where its heads look."""
        params: Any = compat.pure(self.attention)
        return multi_head.attention_weights(params, self._queries(tokens), multi_head.project(params, tokens))

    def _queries(self, tokens: Array) -> Array:
        return jnp.broadcast_to(self.query[...].astype(tokens.dtype)[None], (len(tokens), 1, tokens.shape[-1]))


class VisionTransformer(nnx.Module):
    """Images in [-1, 1] to logits."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        if config.size % config.patch:
            raise InputError(
                f"patch: {config.patch} came, by which images of size={config.size} cannot be cut; expected a divisor: "
                "set model.patch or model.size."
            )
        self.config = config
        side, width = config.size // config.patch, config.features
        self.patches = nnx.Linear(config.patch**2 * config.channels, width, rngs=rngs)
        additional = 1 if config.classifier == "token" else 0
        self.token = nnx.Param(jnp.zeros((1, width))) if additional else None
        codes = initializers.normal(0.02)
        learned = config.positions == "learned"
        self.positions = nnx.Param(codes(rngs.params(), (side, side, width))) if learned else None
        self.token_position = nnx.Param(codes(rngs.params(), (1, width))) if learned and additional else None
        self.blocks = compat.List([EncoderBlock(config.block, rngs=rngs) for _ in range(config.layers)])
        self.norm = layer_norm(width, rngs=rngs)
        self.probe = Probe(config.block, rngs=rngs) if config.classifier == "map" else None
        represented = config.representation or width
        self.representation = nnx.Linear(width, represented, rngs=rngs) if config.representation else None
        self.head = nnx.Linear(represented, config.classes, kernel_init=initializers.zeros, rngs=rngs)

    def __call__(
        self, images: Float[Array, "B H W C"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "B {self.config.classes}"]:
        """Logits, with dropout where there is a key."""
        keys = [None, None] if key is None else list(jax.random.split(key))
        tokens = self.encode(images, key=keys[0])
        if self.probe is not None:
            found = self.probe(tokens, key=keys[1])
        else:
            found = tokens[:, 0] if self.config.classifier == "token" else jnp.mean(tokens, axis=1)
        return self.head(found if self.representation is None else jnp.tanh(self.representation(found)))

    def encode(self, images: Float[Array, "B H W C"], *, key: PRNGKeyArray | None = None) -> Float[Array, "B L D"]:
        """All tokens after the last block, the additional one first; the patches' are row by row."""
        return self.norm(self._before(len(self.blocks), images, key))

    def look(self, images: Float[Array, "B H W C"]) -> Float[Array, "B h w"]:
        """How much of the last attention goes to each patch, averaged over the heads.

        That of the probe; or of the last block, for the query that decides, the additional token, or averaged over
        all queries. What goes to the additional token is left out.
        """
        if self.probe is not None:
            weights = self.probe.weights(self.encode(images))
        else:
            last = self.blocks[-1]
            params: Any = compat.pure(last.attention)
            tokens = last.attention_norm(self._before(len(self.blocks) - 1, images, None))
            weights = multi_head.attention_weights(params, tokens, multi_head.project(params, tokens))
        if self.token is not None:
            weights = weights[:, :, :1, 1:]
        side = self.config.patch
        return jnp.mean(weights, axis=(1, 2)).reshape(len(images), images.shape[1] // side, images.shape[2] // side)

    def _before(self, layer: int, images: Array, key: PRNGKeyArray | None) -> Array:
        """The tokens that a block reads, and the last normalisation as if it were the block after the last."""
        keys = [None] * (len(self.blocks) + 1) if key is None else list(jax.random.split(key, len(self.blocks) + 1))
        tokens = dropped(self._embed(images), self.config.dropout, keys[-1])
        for block, own in list(zip(self.blocks, keys, strict=False))[:layer]:
            if self.config.remat:
                tokens = jax.checkpoint(lambda x, block=block, own=own: block(x, key=own))(tokens)
            else:
                tokens = block(tokens, key=own)
        return tokens

    def _embed(self, images: Array) -> Array:
        maps = self.patches(space_to_depth(images, block=self.config.patch))
        count, height, width, depth = maps.shape
        tokens = (maps + jnp.broadcast_to(self._codes(height, width, maps.dtype), maps.shape)).reshape(count, -1, depth)
        if self.token is None:
            return tokens
        first = self.token[...] if self.token_position is None else self.token[...] + self.token_position[...]
        return jnp.concatenate([jnp.broadcast_to(first.astype(maps.dtype), (count, 1, depth)), tokens], axis=1)

    def _codes(self, height: int, width: int, dtype: jnp.dtype) -> Array:
        if self.positions is None:
            return sinusoidal_2d(height, width, self.config.features).astype(dtype)[None]
        codes = self.positions[...]
        same = codes.shape[:2] == (height, width)
        return (codes if same else resize_positions(codes, height, width)).astype(dtype)[None]


def build(config: Config, rngs: nnx.Rngs) -> dict[str, VisionTransformer]:
    """The one network of the system."""
    return {"classifier": VisionTransformer(config, rngs=rngs)}


KEPT = ("channels", "patch", "features", "layers", "heads", "hidden", "classifier", "positions", "activation")
"""What fine-tuning does not change."""


def resized(nets: Nets, config: Config, rngs: nnx.Rngs) -> dict[str, VisionTransformer]:
    """Networks for fine-tuning: parameters of others, learned codes resized to ``config.size``, a new head at zero.

    The layer before the head, if there is one, is left out, as in the paper (section 3.2).

    Args:
      nets: trained networks, of another image size or other classes.
      config: what is to be trained; of the same blocks, without a layer before the head.
      rngs: for what is new.

    Raises:
      InputError: other patches, blocks or codes, or another classifier.
    """
    old = nets["classifier"].config
    if wrong := [name for name in KEPT if getattr(old, name) != getattr(config, name)]:
        came, expected = (", ".join(f"{name}={getattr(c, name)!r}" for name in wrong) for c in (old, config))
        raise InputError(
            f"nets: networks with {came} came, expected {expected}: fine-tuning changes the size of the images and the "
            "classes alone. Set model to what came, or begin with other networks."
        )
    if config.representation:
        raise InputError(
            f"config.representation: {config.representation} came; expected 0, for fine-tuning has no such layer."
        )
    made: Nets = dict(build(config, rngs))
    graphs, params, rest = split(made)
    new, trained = params["classifier"], split(nets).params["classifier"]
    for name in new.keys() - {"head", "positions"}:
        new[name] = trained[name]
    if "positions" in new:
        new["positions"] = resize_positions(trained["positions"], *new["positions"].shape[:2])
    return merge(graphs, params, rest)  # type: ignore[return-value]


def loss(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Mean cross-entropy in nats, with mixed images and smoothed labels where configured."""
    net, (mixing, dropping) = nets["classifier"], jax.random.split(key)
    config = net.config
    images, targets = pixels(config, batch), jax.nn.one_hot(batch["label"], config.classes)
    if config.label_smoothing:
        targets = optax.smooth_labels(targets, config.label_smoothing)
    if config.mixup:
        images, targets = mixup(images, targets, alpha=config.mixup, key=mixing)
    logits = net(images, key=dropping).astype(jnp.float32)
    return jnp.mean(optax.softmax_cross_entropy(logits, targets)), {}


def mixup(
    images: Float[Array, "B H W C"], targets: Float[Array, "B K"], *, alpha: float, key: PRNGKeyArray
) -> tuple[Float[Array, "B H W C"], Float[Array, "B K"]]:
    """``λ x_i + (1 - λ) x_{i-1}``, and the targets alike; one ``λ ≥ 1/2`` of Beta(α, α) for the batch.

    Source: Zhang, Cisse, Dauphin, Lopez-Paz, *mixup: Beyond Empirical Risk Minimization*, 2018.
    """
    share = jax.random.beta(key, alpha, alpha)
    share = jnp.maximum(share, 1 - share)
    first, second = ((share * x + (1 - share) * jnp.roll(x, 1, axis=0)) for x in (images, targets))
    return first, second


def predict(nets: Nets, batch: Batch) -> Float[Array, "B K"]:
    """Logits."""
    return nets["classifier"](pixels(nets["classifier"].config, batch))


def look(nets: Nets, batch: Batch) -> dict[str, Array]:
    """``attention [B, h, w]``, where the network looks last, and its ``logits [B, K]``."""
    net = nets["classifier"]
    return {"attention": net.look(pixels(net.config, batch)), "logits": predict(nets, batch)}


def pixels(config: Config, batch: Batch) -> Float[Array, "B H W C"]:
    """The images in [-1, 1], of any size that the patches tile.

    Raises:
      InputError: for other channels, or a size that they do not tile.
    """
    images = batch["image"]
    if any(size % config.patch for size in images.shape[1:3]):
        raise InputError(
            f"image: {images.shape[1]}x{images.shape[2]} came, which patches of {config.patch} do not tile: set "
            "data.side to a multiple of it, or model.patch."
        )
    return signed_images("image", images, (None, None, config.channels))
