"""The recipe of the recurrent attention model: its figures and pictures."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.recognition import ram as recipe

TINY = recipe.PRESETS["tiny"]


def test_errors_in_percent_and_the_distance_to_the_digit():
    """Two paths: one ends in the digit's middle, 4 pixels right of and below its corner, one begins 3 and 4 off."""
    wrong, right = jax.nn.one_hot(jnp.array([[1, 0], [1, 2]]), 3)
    looked = np.array([[[16, 12], [10, 6]], [[7, 17], [20, 3]]])  # x, y
    places = jnp.asarray(looked / 12 - 1, jnp.float32)
    outputs = {"still": right, "averaged": right, "drawn": wrong, "shuffled": wrong, "places": places}
    batch = {"label": jnp.array([1, 2]), "corner": jnp.array([[2, 6], [9, 0]])}
    found = recipe.measure(TINY, outputs, batch)
    assert {name: value.tolist() for name, value in found.items() if name not in ("nearest", "last")} == {
        "error": [0, 0],
        "error_averaged": [0, 0],
        "error_drawn": [0, 100],
        "error_shuffled": [0, 100],
    }
    np.testing.assert_allclose(found["nearest"], [0, 5], atol=1e-4)
    np.testing.assert_allclose(found["last"], [0, np.hypot(16, 10)], atol=1e-4)
    assert recipe.names(TINY) == tuple(found)


def test_boxes_are_what_the_retina_sees():
    """Against the retina: the patch is the image between the edges."""
    from seqjax.ops.glimpse import retina

    model = dataclasses.replace(TINY.model, size=24, patch=5)
    image = np.random.default_rng(0).random((1, 24, 24, 1)).astype(np.float32)
    for place in ([0.0, 0.0], [0.31, -0.2], [-0.4, 0.44]):
        left, top, right, bottom = recipe.edges(model, np.array([place]), 0)[0].astype(int)
        seen = retina(jnp.asarray(image), jnp.asarray([place]), size=5)[0, 0]
        np.testing.assert_array_equal(seen, image[0, top:bottom, left:right])
