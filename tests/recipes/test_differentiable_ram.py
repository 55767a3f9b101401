"""The recipe of differentiable RAM: its figures and its picture."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.recognition import differentiable_ram as recipe

TINY = recipe.PRESETS["tiny"]


def looking_at(middles):
    """Numbers of windows with these middles, x and y in pixels from the upper left corner of 24 x 24."""
    places = (np.asarray(middles, np.float32) - 0.5 + 1) / 12.5 - 1
    return jnp.asarray(np.concatenate([places, np.zeros((*places.shape[:2], 3), np.float32)], axis=-1))


def test_errors_in_percent_and_the_distance_to_the_digit():
    """Two paths: one ends in the digit's middle, 4 pixels right of and below its corner, one begins 3 and 4 off."""
    wrong, right = jax.nn.one_hot(jnp.array([[1, 0], [1, 2]]), 3)
    windows = looking_at([[[16, 12], [10, 6]], [[7, 17], [20, 3]]])
    batch = {"label": jnp.array([1, 2]), "corner": jnp.array([[2, 6], [9, 0]])}
    found = recipe.measure(TINY, {"logits": right, "shuffled": wrong, "windows": windows}, batch)
    assert {name: value.tolist() for name, value in found.items() if name not in ("nearest", "last")} == {
        "error": [0, 0],
        "error_shuffled": [0, 100],
    }
    np.testing.assert_allclose(found["nearest"], [0, 5], atol=1e-4)
    np.testing.assert_allclose(found["last"], [0, np.hypot(16, 10)], atol=1e-4)
    assert recipe.names(TINY) == tuple(found)


def test_the_window_is_drawn_where_it_reads():
    """Numbers 0 cover the image in the first glimpse; a quarter as wide in the second; in the last frame none is."""
    windows = np.zeros((1, 2, 5), np.float32)
    windows[0, 1, 3] = np.log(1 / 4)
    video = recipe.draw(TINY.model, {"windows": windows}, {"image": np.full((1, 24, 24, 1), 90, np.uint8)})["glimpses"]
    assert video.shape == (3, 100, 100, 3)
    red = (video[..., 0] == 255) & (video[..., 1] == 0)
    assert red[0, 2, 2:98].all()
    assert red[0, 2:98, 97].all()
    # Of 23 pixels between the outer filters 5.75 are left, and a pixel: 27 enlarged ones around the middle.
    rows, columns = np.nonzero(red[1])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2 + 34, 2 + 61, 2 + 34, 2 + 61)
    assert not red[2].any()
