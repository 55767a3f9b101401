"""Colour spaces."""

import jax.numpy as jnp
from jaxtyping import Array, Float

# Linear sRGB to CIE XYZ under the white of D65, IEC 61966-2-1, and that white.
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)


def rgb_to_grey(images: Float[Array, "*B H W 3"]) -> Float[Array, "*B H W 1"]:
    """Luma, ``0.299 R + 0.587 G + 0.114 B``, in the range of the images.

    Source: Recommendation ITU-R BT.601, section 2.5.1.
    """
    return jnp.matmul(images, jnp.asarray([[0.299], [0.587], [0.114]], images.dtype), precision="highest")


def rgb_to_lab(images: Float[Array, "*B H W 3"]) -> Float[Array, "*B H W 3"]:
    """sRGB in [0, 1] to CIE L*a*b*: lightness from 0 to 100, green to red and blue to yellow within about ±110.

        L = 116 f(Y/Y₀) - 16,  a = 500 (f(X/X₀) - f(Y/Y₀)),  b = 200 (f(Y/Y₀) - f(Z/Z₀))
        f(t) = t^⅓  for t > (6/29)³,  else  t / (3 (6/29)²) + 4/29

    of the linear light ``((c + 0.055) / 1.055)^2.4``, or ``c / 12.92`` up to 0.04045, under D65. Computed in float32.

    Source: CIE 15, *Colorimetry*, 2004, section 8.2.1.
    """
    c = images.astype(jnp.float32)
    # Both sides of a where are computed: the roots see no number below the branch that takes them.
    light = jnp.where(c > 0.04045, ((jnp.maximum(c, 0.04045) + 0.055) / 1.055) ** 2.4, c / 12.92)
    matrix = jnp.asarray(_XYZ, jnp.float32) / jnp.asarray(_WHITE, jnp.float32)[:, None]
    xyz = jnp.einsum("...c,xc->...x", light, matrix, precision="highest")
    edge = (6 / 29) ** 3
    f = jnp.where(xyz > edge, jnp.cbrt(jnp.maximum(xyz, edge)), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
