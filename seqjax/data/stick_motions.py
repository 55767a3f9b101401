"""What articulated figures do: actions as angles over a phase, and actors of many proportions and colours."""

import colorsys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqjax.data.stick_figures import SEGMENTS, Body, Motion

BLEND = 5
"""Frames in which one action goes over into another."""
Phase = Float[np.ndarray, " T"]
Side = tuple[Any, Any]
"""Flexion and abduction in degrees, numbers or one for each frame."""


class Action(NamedTuple):
    """Something that is done again and again."""

    motion: Callable[[Phase], Motion]
    """At phases in radians, a period being 2π."""
    period: tuple[float, float]
    """The shortest and the longest, in frames."""


def both(flexion: Any, abduction: Any) -> tuple[Side, Side]:
    """The same on the left and on the right."""
    return (flexion, abduction), (flexion, abduction)


def motion(
    phase: Phase,
    *,
    upper_arm: tuple[Side, Side] = both(4, 9),
    forearm: tuple[Side, Side] = both(14, 7),
    thigh: tuple[Side, Side] = both(0, 4),
    shin: tuple[Side, Side] = both(0, 4),
    pitch: Any = 0.0,
    lift: Any = 0.0,
    speed: Any = 0.0,
) -> Motion:
    """A motion in degrees; what is not named hangs or stands."""
    sides = (upper_arm, forearm, thigh, shin)
    angles = np.stack([np.broadcast_to(x, phase.shape) for side in sides for two in side for x in two], axis=-1)
    rest = [np.broadcast_to(x, phase.shape).astype(float) for x in (np.deg2rad(pitch), lift, speed)]
    return Motion(np.deg2rad(angles).reshape(-1, len(SEGMENTS), 2, 2), *rest)


def walk(phase: Phase) -> Motion:
    """Legs and arms swing against each other; the knee of the leg that goes forward bends."""
    swing, rate = np.sin(phase), np.cos(phase)
    bend = [4 + 45 * np.maximum(way, 0) for way in (rate, -rate)]
    return motion(
        phase,
        upper_arm=((-24 * swing, 8), (24 * swing, 8)),
        forearm=((14 - 28 * swing, 7), (14 + 28 * swing, 7)),
        thigh=((26 * swing, 3), (-26 * swing, 3)),
        shin=((26 * swing - bend[0], 3), (-26 * swing - bend[1], 3)),
        pitch=3.0,
        speed=_stride(phase, 26),
    )


def run(phase: Phase) -> Motion:
    """Wider and bent, with a flight between the steps."""
    swing, rate = np.sin(phase), np.cos(phase)
    bend = [22 + 75 * np.maximum(way, 0) for way in (rate, -rate)]
    return motion(
        phase,
        upper_arm=((-45 * swing, 10), (45 * swing, 10)),
        forearm=((80 - 40 * swing, -5), (80 + 40 * swing, -5)),
        thigh=((14 + 40 * swing, 3), (14 - 40 * swing, 3)),
        shin=((14 + 40 * swing - bend[0], 3), (14 - 40 * swing - bend[1], 3)),
        pitch=14.0,
        lift=0.12 * swing**2,
        speed=1.25 * _stride(phase, 40),
    )


def _stride(phase: Phase, degrees: float | int) -> Float[np.ndarray, " T"]:
    """Way per frame of two steps in a period, each as long as the legs are apart at this flexion of either."""
    return np.gradient(phase) / np.pi * 2 * np.sin(np.deg2rad(degrees))


def jump(phase: Phase) -> Motion:
    """Down, up into the air with both arms, and back."""
    turn = phase / (2 * np.pi) % 1
    crouch = np.where(turn < 0.5, np.sin(2 * np.pi * turn) ** 2, 0)
    air = np.where(turn >= 0.5, 1 - (4 * turn - 3) ** 2, 0)
    arms = -40 * crouch + 160 * air
    return motion(
        phase,
        upper_arm=both(4 + arms, 9),
        forearm=both(16 + arms, 7),
        thigh=both(55 * crouch, 5),
        shin=both(-45 * crouch, 5),
        pitch=32 * crouch,
        lift=0.5 * air,
    )


def squat(phase: Phase) -> Motion:
    """Down and up, arms held out in front."""
    down = _there_and_back(phase)
    return motion(
        phase,
        upper_arm=both(4 + 82 * down, 6),
        forearm=both(10 + 78 * down, 4),
        thigh=both(88 * down, 10),
        shin=both(-36 * down, 8),
        pitch=28 * down,
    )


def jumping_jack(phase: Phase) -> Motion:
    """Legs apart and arms over the head, and back, with a hop each way."""
    out = _there_and_back(phase)
    return motion(
        phase,
        upper_arm=both(4, 10 + 145 * out),
        forearm=both(8, 8 + 160 * out),
        thigh=both(0, 3 + 26 * out),
        shin=both(-3, 3 + 26 * out),
        lift=0.12 * np.sin(phase) ** 2,
    )


def wave(phase: Phase) -> Motion:
    """The left hand high, swinging from side to side."""
    return motion(
        phase, upper_arm=((4, 112), (4, 9)), forearm=((8, 172 + 42 * np.sin(phase)), (14, 7)), pitch=2 * np.sin(phase)
    )


def clap(phase: Phase) -> Motion:
    """Hands meet before the breast."""
    apart = _there_and_back(phase)
    return motion(phase, upper_arm=both(38, 14 + 40 * apart), forearm=both(80, 92 * apart - 26))


def kick(phase: Phase) -> Motion:
    """The left leg swings back, bent, and forward, straight; the arms hold the balance."""
    swing, rate = -np.cos(phase), np.sin(phase)
    thigh = 32 + 58 * swing
    return motion(
        phase,
        upper_arm=((-30 * swing, 28), (34 * swing, 28)),
        forearm=((10 - 30 * swing, 24), (14 + 34 * swing, 24)),
        thigh=((thigh, 4), (-4, 3)),
        shin=((thigh - 35 + 33 * swing - 18 * np.maximum(rate, 0), 4), (-8, 3)),
        pitch=2 - 14 * swing,
    )


def bow(phase: Phase) -> Motion:
    """From the hips, arms hanging."""
    down = _there_and_back(phase)
    arms = {"upper_arm": both(4 + 18 * down, 9), "forearm": both(14 + 14 * down, 7)}
    return motion(phase, **arms, thigh=both(-6 * down, 4), pitch=78 * down)


def _there_and_back(phase: Phase) -> Float[np.ndarray, " T"]:
    return (1 - np.cos(phase)) / 2


ACTIONS = {
    "bow": Action(bow, (16, 22)),
    "clap": Action(clap, (7, 10)),
    "jump": Action(jump, (14, 18)),
    "jumping_jack": Action(jumping_jack, (12, 16)),
    "kick": Action(kick, (14, 20)),
    "run": Action(run, (10, 13)),
    "squat": Action(squat, (15, 21)),
    "walk": Action(walk, (15, 19)),
    "wave": Action(wave, (8, 12)),
}
"""By name; labels are places here."""


def perform(
    rng: np.random.Generator, actions: Int[np.ndarray, " K"], starts: Int[np.ndarray, " K"], *, frames: int
) -> Motion:
    """Actions one after another, each in a tempo and from a phase of its own, left-handed or right-handed.

    Args:
      rng: source of tempo, phase and hand.
      actions: places in ``ACTIONS``.
      starts: the frame at which each begins, in the middle of the ``BLEND`` frames in which the one before goes over
        into it; the first begins at 0.
      frames: ``T``.
    """
    performed: Motion | None = None
    for which, start in zip(actions, starts, strict=True):
        action = list(ACTIONS.values())[which]
        phase = 2 * np.pi * (np.arange(frames) / rng.uniform(*action.period) + rng.random())
        found = action.motion(phase)
        found = found._replace(angles=found.angles[:, :, ::-1]) if rng.random() < 0.5 else found
        weight = ((np.arange(frames) - start) / BLEND + 0.5).clip(0, 1)
        weight = weight**2 * (3 - 2 * weight)
        performed = found if performed is None else _between(performed, found, weight)
    assert performed is not None
    return performed


def _between(first: Motion, second: Motion, weight: Float[np.ndarray, " T"]) -> Motion:
    pairs = zip(first, second, strict=True)
    return Motion(*(a + weight.reshape(-1, *[1] * (a.ndim - 1)) * (b - a) for a, b in pairs))


def actor(rng: np.random.Generator) -> Body:
    """Someone: lengths by up to an eighth from the average, and four colours of their own."""

    def about(length: float) -> float:
        return length * rng.uniform(0.87, 1.13)

    thigh = rng.uniform(0.48, 0.54)
    tone, dark = rng.uniform(0, 1), rng.uniform(0.05, 0.35)
    shirt, trousers = rng.uniform(0, 1), rng.uniform(0, 1)
    return Body(
        upper_arm=about(0.38),
        forearm=about(0.36),
        thigh=thigh,
        shin=1 - thigh,
        trunk=about(0.62),
        neck=about(0.27),
        shoulders=about(0.22),
        hips=about(0.12),
        head=about(0.16),
        thickness=about(0.085),
        skin=np.array([0.95, 0.78, 0.64]) * (1 - tone) + np.array([0.42, 0.26, 0.17]) * tone,
        shirt=np.array(colorsys.hsv_to_rgb(shirt, rng.uniform(0.6, 1), rng.uniform(0.7, 1))),
        trousers=np.array(colorsys.hsv_to_rgb(trousers, rng.uniform(0.4, 1), rng.uniform(0.35, 0.9))),
        shoes=np.full(3, dark),
    )
