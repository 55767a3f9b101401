"""The U-Net generator of image translation (Isola et al., 2017)."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.convolution import Conv, ConvTranspose
from seqjax.nn.norm import Kind, Norm, has_bias
from seqjax.ops.compose import dropout_mask


class UNet(nnx.Module):
    """An encoder that halves the image to one pixel, a decoder that doubles it back, and skips between equal sizes.

    Down: leaky ReLU (0.2) but for the first, convolution of stride 2, normalisation but for the first and the last,
    whose one pixel it would make zero. Up: ReLU, transposed convolution, normalisation, dropout; the last has a tanh
    instead of the latter two. Features are base · 1, 2, 4, 8, 8, ...

    Args:
      channels: of the input.
      outputs: channels of the output.
      downs: halvings: 8 for images of 256, 7 for 128.
      base: features of the first.
      norm: which normalisation.
      kernel: side of the kernels.
      outer_kernel: of the first and the last, where it differs.
      dropout: rate; it is the generator's only noise, and stays on in testing.
      dropout_at: "paper": the first three layers up; "port": those after the innermost that neither halve nor double
        the features (PyTorch's version by the same authors).
      skips: without them it is the paper's encoder-decoder.
      rngs: for the parameters.

    Source: Isola, Zhu, Zhou, Efros, *Image-to-Image Translation with Conditional Adversarial Networks*, 2017, section
    6.1.1.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        downs: int = 8,
        base: int = 64,
        norm: Kind = "batch",
        kernel: int = 4,
        outer_kernel: int | None = None,
        dropout: float = 0.5,
        dropout_at: Literal["paper", "port"] = "paper",
        skips: bool = True,
        rngs: nnx.Rngs,
    ):
        features = [base * min(2**i, 8) for i in range(downs)]
        kernels = [outer_kernel or kernel] + [kernel] * (downs - 1)
        bias = not has_bias(norm)
        before = [channels, *features[:-1]]
        self.down = compat.List(
            [Conv(c, d, k, stride=2, bias=bias, rngs=rngs) for c, d, k in zip(before, features, kernels, strict=True)]
        )
        inner = ["none", *[norm] * (downs - 2), "none"][:downs]
        self.down_norms = compat.List([Norm(kind, d, rngs=rngs) for kind, d in zip(inner, features, strict=True)])
        up, norms = [], []
        for level in reversed(range(downs)):
            width = features[level - 1] if level else outputs
            seen = features[level] * (2 if skips and level < downs - 1 else 1)
            up.append(ConvTranspose(seen, width, kernels[level], bias=bias or level == 0, rngs=rngs))
            norms.append(Norm(norm if level else "none", width, rngs=rngs))
        self.up, self.up_norms = compat.List(up), compat.List(norms)
        self.dropout, self.skips = dropout, skips
        self.dropped = tuple(range(3) if dropout_at == "paper" else range(1, downs - 4))

    def __call__(
        self, images: Float[Array, "B H W C"], *, key: PRNGKeyArray | None = None, running: bool = False
    ) -> Float[Array, "B H W D"]:
        """The translation, in [-1, 1].

        Args:
          images: height and width divisible by 2 to the number of halvings.
          key: for the dropout; None for none.
          running: whether batch normalisation takes its running averages, as PyTorch's version does with `--eval`, and
            not the statistics of the batch, as the paper does in testing too.

        Raises:
          InputError: for another size.
        """
        if any(size % 2 ** len(self.down) for size in images.shape[1:3]):
            raise InputError(
                f"images: {images.shape[1]}x{images.shape[2]} came, and a U-Net of {len(self.down)} halvings takes "
                f"multiples of {2 ** len(self.down)}: resize or crop them, or set the number of halvings (downs)."
            )
        x, levels = images, []
        for i, (conv, norm) in enumerate(zip(self.down, self.down_norms, strict=True)):
            x = norm(conv(jax.nn.leaky_relu(x, 0.2) if i else x), running=running)
            levels.append(x)
        levels.pop()
        for i, (conv, norm) in enumerate(zip(self.up, self.up_norms, strict=True)):
            x = norm(conv(jax.nn.relu(x)), running=running)
            if not levels:
                break
            if key is not None and self.dropout and i in self.dropped:
                x = x * dropout_mask(jax.random.fold_in(key, i), self.dropout, x.shape, x.dtype)
            skip = levels.pop()
            x = jnp.concatenate([skip, x], axis=-1) if self.skips else x
        return jnp.tanh(x)
