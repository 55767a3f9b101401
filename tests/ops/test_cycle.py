"""Which way each image went, by translations that can be told apart."""

import jax.numpy as jnp
import numpy as np

from seqjax.ops.cycle import there_and_back


def test_each_image_goes_its_way():
    a, b = jnp.full((2, 3, 3, 1), 2.0), jnp.full((2, 3, 3, 1), 5.0)
    found = there_and_back(lambda x: 10 * x, lambda x: x + 1, a, b)
    values = {name: float(np.unique(images).item()) for name, images in found.items()}
    assert values == {"a": 50.0, "b": 3.0, "cycle_a": 30.0, "cycle_b": 51.0}
