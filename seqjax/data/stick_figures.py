"""Articulated figures: a skeleton that angles move, drawn as capsules from a camera, with the exact flow of its pixels.

A figure stands in a space of (forward, left, up), in units of the length of its legs. Points on the screen are (row,
column) in pixels, (0, 0) the middle of the first; a third number says how near to the camera a point is. Projection is
parallel. A capsule is all that is within a radius of a segment; nearer capsules hide those behind them.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

_TWICE = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
JOINTS = ("head", *(f"{side}_{joint}" for joint in _TWICE for side in ("left", "right")))
"""Those of Penn Action, in its order."""
HEAD, SHOULDERS, ELBOWS, WRISTS, HIPS, KNEES, ANKLES = 0, [1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12]
SEGMENTS = ("upper_arm", "forearm", "thigh", "shin")
"""What angles move, of either side."""
SLABS = 5
"""Capsules of a trunk, side by side."""


class Body(NamedTuple):
    """An actor: lengths in units of the legs' (thigh and shin together), colours in RGB from 0 to 1."""

    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    trunk: float
    neck: float
    """From between the shoulders to the middle of the head."""
    shoulders: float
    """Half of their distance."""
    hips: float
    """Half of their distance."""
    head: float
    """Its radius."""
    thickness: float
    """Radius of the limbs."""
    skin: Float[np.ndarray, "3"]
    shirt: Float[np.ndarray, "3"]
    trousers: Float[np.ndarray, "3"]
    shoes: Float[np.ndarray, "3"]

    @property
    def height(self) -> float:
        """From the ankles to the top of the head, standing."""
        return self.thigh + self.shin + self.trunk + self.neck + self.head


class Motion(NamedTuple):
    """How a figure moves, frame by frame; all of it may be interpolated linearly."""

    angles: Float[np.ndarray, "T 4 2 2"]
    """Of every one of ``SEGMENTS``, left and right: flexion (forward from hanging) and abduction (outward), radians."""
    pitch: Float[np.ndarray, " T"]
    """How far the trunk bends forward, radians."""
    lift: Float[np.ndarray, " T"]
    """Of the lower ankle above the ground."""
    speed: Float[np.ndarray, " T"]
    """Way forward until the next frame."""


class Capsules(NamedTuple):
    """N capsules on the screen."""

    start: Float[np.ndarray, "T N 3"]
    """Row, column, nearness of one end."""
    end: Float[np.ndarray, "T N 3"]
    radius: Float[np.ndarray, " N"]
    """In pixels."""
    colour: Float[np.ndarray, "N 3"]
    """RGB from 0 to 1."""


def directions(angles: Float[np.ndarray, "T 4 2 2"]) -> Float[np.ndarray, "T 4 2 3"]:
    """Unit vectors (forward, left, up) of segments: ``(cos β sin α, ± sin β, -cos β cos α)`` of flexion α, abduction β,
    with + on the left."""
    flexion, abduction = np.moveaxis(angles, -1, 0)
    outward = np.sin(abduction) * np.array([1.0, -1.0])
    return np.stack([np.cos(abduction) * np.sin(flexion), outward, -np.cos(abduction) * np.cos(flexion)], axis=-1)


def pose(body: Body, motion: Motion) -> Float[np.ndarray, "T 13 3"]:
    """Where the joints are, (forward, left, up): the lower ankle is ``lift`` above the ground, the way that ``speed``
    makes goes forward from 0."""
    arm, fore, thigh, shin = np.moveaxis(directions(motion.angles), 1, 0)
    zeros = np.zeros_like(motion.pitch)
    spine = np.stack([np.sin(motion.pitch), zeros, np.cos(motion.pitch)], axis=-1)
    beside = np.array([[0.0, 1, 0], [0, -1, 0]])
    joints = np.zeros((len(zeros), len(JOINTS), 3))
    joints[:, HIPS] = body.hips * beside
    joints[:, KNEES] = joints[:, HIPS] + body.thigh * thigh
    joints[:, ANKLES] = joints[:, KNEES] + body.shin * shin
    joints[:, SHOULDERS] = body.trunk * spine[:, None] + body.shoulders * beside
    joints[:, ELBOWS] = joints[:, SHOULDERS] + body.upper_arm * arm
    joints[:, WRISTS] = joints[:, ELBOWS] + body.forearm * fore
    joints[:, HEAD] = (body.trunk + body.neck) * spine
    joints[..., 0] += np.cumsum(motion.speed)[:, None] - motion.speed[0]
    joints[..., 2] += (motion.lift - joints[:, ANKLES, 2].min(axis=1))[:, None]
    return joints


def project(
    points: Float[np.ndarray, "T N 3"],
    *,
    heading: float,
    scale: float,
    ground: float,
    column: Float[np.ndarray, " T"],
) -> Float[np.ndarray, "T N 3"]:
    """To (row, column, nearness), all in pixels.

    Args:
      points: forward, left, up.
      heading: where forward is: 0 to the right of the screen, π/2 towards the camera.
      scale: pixels per unit.
      ground: row of what is 0 up.
      column: of what is 0 forward and left, frame by frame.
    """
    forward, left, up = np.moveaxis(points * scale, -1, 0)
    right = forward * np.cos(heading) + left * np.sin(heading)
    near = forward * np.sin(heading) - left * np.cos(heading)
    return np.stack([ground - up, column[:, None] + right, near], axis=-1)


def capsules(body: Body, joints: Float[np.ndarray, "T 13 3"], *, heading: float, scale: float) -> Capsules:
    """What is drawn of a figure whose joints are projected; feet point forward."""
    middle = joints[:, SHOULDERS].mean(axis=1)
    forward = np.array([0, np.cos(heading), np.sin(heading)]) * scale
    parts = [
        (middle, joints[:, HEAD], 0.6 * body.thickness, body.skin),
        (joints[:, HEAD], joints[:, HEAD], body.head, body.skin),
    ]
    for share in np.linspace(0, 1, SLABS):
        top, bottom = ((1 - share) * joints[:, two[0]] + share * joints[:, two[1]] for two in (SHOULDERS, HIPS))
        parts.append((top, bottom, 1.1 * body.thickness, body.shirt))
    for side in (0, 1):
        shoulder, elbow, wrist, hip, knee, ankle = (
            joints[:, two[side]] for two in (SHOULDERS, ELBOWS, WRISTS, HIPS, KNEES, ANKLES)
        )
        parts += [
            (shoulder, elbow, body.thickness, body.shirt),
            (elbow, wrist, 0.8 * body.thickness, body.skin),
            (hip, knee, 1.15 * body.thickness, body.trousers),
            (knee, ankle, body.thickness, body.trousers),
            (ankle, ankle + 0.16 * forward, 0.8 * body.thickness, body.shoes),
        ]
    starts, ends, radii, colours = zip(*parts, strict=True)
    return Capsules(np.stack(starts, 1), np.stack(ends, 1), scale * np.array(radii), np.stack(colours))


def join(figures: list[Capsules]) -> Capsules:
    """Several figures as one, each altogether nearer than those before it."""
    near = np.array([0, 0, 1e4])
    return Capsules(
        np.concatenate([figure.start + k * near for k, figure in enumerate(figures)], axis=1),
        np.concatenate([figure.end + k * near for k, figure in enumerate(figures)], axis=1),
        np.concatenate([figure.radius for figure in figures]),
        np.concatenate([figure.colour for figure in figures]),
    )


def draw(
    parts: Capsules, background: Float[np.ndarray, "T H W 3"]
) -> tuple[Float[np.ndarray, "T H W 3"], Int[np.ndarray, "T H W"]]:
    """The frames, and which capsule each pixel shows, -1 for the background.

    A pixel at a distance d of a segment is covered by ``clip(r - d + ½, 0, 1)``; it shows the nearest capsule that
    covers half of it.
    """
    frames, shown = background.copy(), np.full(background.shape[:3], -1)
    order = np.argsort(parts.start[..., 2] + parts.end[..., 2], axis=1)
    pixels = _pixels(background.shape[1:3])
    for t, nearer in enumerate(order):
        for which in nearer:
            start, end = parts.start[t, which, :2], parts.end[t, which, :2]
            window = _window(start, end, parts.radius[which] + 1)
            cover = _cover(pixels[window], start, end, parts.radius[which])
            under = frames[t][window]
            under += cover[..., None] * (parts.colour[which] - under)
            shown[t][window][cover >= 0.5] = which
    return frames, shown


def _window(start: np.ndarray, end: np.ndarray, margin: float) -> tuple[slice, slice]:
    """Pixels that a capsule may cover."""
    first = np.maximum(np.minimum(start, end) - margin, 0).astype(int)
    last = np.maximum(np.maximum(start, end) + margin, -1).astype(int) + 1
    return slice(first[0], last[0]), slice(first[1], last[1])


def _cover(points: Float[np.ndarray, "h w 2"], start: np.ndarray, end: np.ndarray, radius: float) -> np.ndarray:
    _, offset = _along(points, start, end)
    return np.clip(radius + 0.5 - np.sqrt(np.square(offset).sum(axis=-1)), 0, 1)


def flow(parts: Capsules, shown: Int[np.ndarray, "T H W"], background: Float[np.ndarray, "2"]) -> np.ndarray:
    """Where the pixels of each frame but the last go until the next: rows and columns, float ``[T-1, H, W, 2]``.

    A pixel keeps its place along its capsule's segment, and its offset from there turns with the segment; that of a
    segment shorter than a pixel, which has no direction, does not turn. What is hidden in the next frame goes on too.

    Args:
      parts: the capsules.
      shown: of `draw`.
      background: how far it moves between two frames.
    """
    pixels = _pixels(shown.shape[1:])
    moved = np.broadcast_to(background, (len(shown) - 1, *pixels.shape)).copy()
    for t in range(len(shown) - 1):
        rows, columns = np.nonzero(shown[t] >= 0)
        which, places = shown[t, rows, columns], pixels[rows, columns]
        (start, end), (start_next, end_next) = (
            (parts.start[k, which, :2], parts.end[k, which, :2]) for k in (t, t + 1)
        )
        share, offset = _along(places, start, end)
        turned = _turn(offset, end - start, end_next - start_next)
        moved[t, rows, columns] = start_next + share * (end_next - start_next) + turned - places
    return moved


def boxes(parts: Capsules, size: tuple[int, int]) -> tuple[Float[np.ndarray, "T 4"], Bool[np.ndarray, " T"]]:
    """Of all capsules together: top, left, bottom, right edge in pixels from the upper left corner (half a pixel up and
    left of the first pixel's middle), cut off at the frame's; and whether any of it is in the frame."""
    radius = parts.radius[:, None]
    ends = np.stack([parts.start[..., :2], parts.end[..., :2]])
    first, last = (ends - radius).min(axis=(0, 2)) + 0.5, (ends + radius).max(axis=(0, 2)) + 0.5
    limit = np.array(size, float)
    inside = np.all((last > 0) & (first < limit), axis=-1)
    return np.concatenate([first.clip(0, limit), last.clip(0, limit)], axis=-1), inside


def _pixels(size: tuple[int, ...]) -> Float[np.ndarray, "H W 2"]:
    return np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1).astype(float)


def _along(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which share of the segment is nearest to each point, and the point's offset from there."""
    way = end - start
    length = np.maximum(np.square(way).sum(axis=-1, keepdims=True), 1e-12)
    share = (((points - start) * way).sum(axis=-1, keepdims=True) / length).clip(0, 1)
    return share, points - start - share * way


def _turn(offset: np.ndarray, way: np.ndarray, way_next: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(way, axis=-1) * np.linalg.norm(way_next, axis=-1)
    short = np.minimum(np.linalg.norm(way, axis=-1), np.linalg.norm(way_next, axis=-1)) < 1
    safe = np.where(short, 1.0, lengths)
    cosine = np.where(short, 1.0, (way * way_next).sum(axis=-1) / safe)
    sine = np.where(short, 0.0, (way[..., 0] * way_next[..., 1] - way[..., 1] * way_next[..., 0]) / safe)
    row, column = np.moveaxis(offset, -1, 0)
    return np.stack([cosine * row - sine * column, sine * row + cosine * column], axis=-1)
