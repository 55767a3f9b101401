"""Layout and value range of images and videos: patches to channels, unpooling, time to batch, uint8 to float."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped, UInt8

from seqjax.errors import InputError


def space_to_depth(
    images: Shaped[Array, "*B H W C"], *, block: int
) -> Shaped[Array, "*B H//{block} W//{block} C*{block}*{block}"]:
    """Turn each block x block patch of pixels into the channels of one position.

        out[.., i, j, (r·block + s)·C + c] = images[.., i·block + r, j·block + s, c]

    A convolution then sees block² times fewer positions. Row in the patch varies slowest and channel
    fastest, the order of TensorFlow's `space_to_depth` and of PredRNN's patches (PyTorch's
    `pixel_unshuffle` puts the channel slowest). Any dtype. InputError if H or W is not a multiple of
    `block`.

    Source: Shi et al., Convolutional LSTM Network, 2015, section 4.1 (64x64 frames to 16x16x16).
    """
    *leading, height, width, channels = images.shape
    if height % block or width % block:
        raise InputError(
            f"space_to_depth: images of height {height} and width {width} cannot be cut into patches of "
            f"block={block}; expected multiples of it: crop or pad the images, or choose another block."
        )
    rows, columns = height // block, width // block
    patches = images.reshape(*leading, rows, block, columns, block, channels).swapaxes(-4, -3)
    return patches.reshape(*leading, rows, columns, block * block * channels)


def depth_to_space(
    images: Shaped[Array, "*B H W C"], *, block: int
) -> Shaped[Array, "*B H*{block} W*{block} C//({block}*{block})"]:
    """Turn channels back into block x block patches of pixels: the inverse of `space_to_depth`.

    InputError if C is not a multiple of block².
    """
    *leading, height, width, depth = images.shape
    if depth % block**2:
        raise InputError(
            f"depth_to_space: {depth} channels cannot be laid out as patches of block={block}; expected a "
            f"multiple of {block**2}: give the layer before that many channels, or choose another block."
        )
    channels = depth // block**2
    patches = images.reshape(*leading, height, width, block, block, channels).swapaxes(-4, -3)
    return patches.reshape(*leading, height * block, width * block, channels)


def unpool(images: Shaped[Array, "*B H W C"]) -> Shaped[Array, "*B 2*H 2*W C"]:
    """Twice the size: each value at the top left of a square of 2x2, and zeros in the rest of it.

        out[.., 2i, 2j, c] = images[.., i, j, c]

    No nearest-neighbour upsampling, which repeats the value; pooling by maxima over 2x2 undoes it where no value is
    negative. Any dtype.

    Source: Dosovitskiy, Springenberg, Brox, *Learning to Generate Chairs with Convolutional Neural Networks*, 2015,
    section 3.1.
    """
    *leading, height, width, channels = images.shape
    corners = images[..., :, None, :, None, :]
    lead = [(0, 0)] * len(leading)
    filled = jnp.pad(corners, [*lead, (0, 0), (0, 1), (0, 0), (0, 1), (0, 0)])
    return filled.reshape(*leading, 2 * height, 2 * width, channels)


def fold_time(videos: Shaped[Array, "B T *S"]) -> Shaped[Array, "B*T *S"]:
    """Join time to the batch, so that what works on images works on all frames of a video at once.

    B varies slowest: a batch that is sharded over devices stays where it is.
    """
    batch, time, *rest = videos.shape
    return videos.reshape(batch * time, *rest)


def unfold_time(images: Shaped[Array, "N *S"], *, frames: int) -> Shaped[Array, "N//{frames} {frames} *S"]:
    """Split N = B·frames images into videos [B, frames, *S]: the inverse of `fold_time`.

    InputError if N is not a multiple of `frames`.
    """
    number, *rest = images.shape
    if number % frames:
        raise InputError(
            f"unfold_time: {number} images are not a whole number of videos of frames={frames}; expected "
            f"B·frames images: give the number of frames that the folded video had."
        )
    return images.reshape(number // frames, frames, *rest)


def uint8_to_unit(images: UInt8[Array, "*B H W C"]) -> Float[Array, "*B H W C"]:
    """Grey levels 0..255 to float32 in [0, 1]: levels / 255."""
    return images.astype(jnp.float32) / 255


def unit_to_uint8(images: Float[Array, "*B H W C"]) -> UInt8[Array, "*B H W C"]:
    """[0, 1] to the nearest grey level 0..255; what lies outside is clipped. Undoes `uint8_to_unit`."""
    return jnp.round(jnp.clip(images.astype(jnp.float32), 0, 1) * 255).astype(jnp.uint8)


def unit_to_signed(images: Float[Array, "*B H W C"]) -> Float[Array, "*B H W C"]:
    """[0, 1] to [-1, 1], the range of networks that end in tanh: 2·images - 1."""
    return 2 * images - 1


def signed_images(
    name: str, images: UInt8[Array, "B H W C"], shape: tuple[int | None, int | None, int]
) -> Float[Array, "B H W C"]:
    """What a network is given, grey levels 0..255, in [-1, 1].

    Args:
      name: what the images are called in the batch.
      images: the images.
      shape: height, width and channels that the network takes; None for any.

    Raises:
      InputError: if the images have another.
    """
    if any(size not in (None, came) for size, came in zip(shape, images.shape[1:], strict=True)):
        raise InputError(
            f"{name}: images of {'x'.join(map(str, images.shape[1:]))} came, and the network takes "
            f"{'x'.join('any' if size is None else str(size) for size in shape)}: choose a data set of that shape, or "
            "set the sizes and channels of the model."
        )
    return unit_to_signed(uint8_to_unit(images))


def signed_to_unit(images: Float[Array, "*B H W C"]) -> Float[Array, "*B H W C"]:
    """[-1, 1] to [0, 1]: (images + 1) / 2. Nothing is clipped."""
    return (images + 1) / 2
