"""Skeletons by hand, drawing against points sampled along the segments, flow against the joints and by warping."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from seqjax.data import stick_figures as figures
from seqjax.data.stick_figures import ANKLES, ELBOWS, HEAD, HIPS, JOINTS, KNEES, SHOULDERS, WRISTS, Capsules
from seqjax.data.stick_motions import ACTIONS, actor, perform

seeds = st.integers(0, 2**32 - 1)


def capsules(*ends, radius=2.0, frames=1):
    """Each of start and end (row, column, nearness); frames are copies."""
    points = np.repeat(np.float64(ends)[None], frames, axis=0)
    return Capsules(points[:, :, 0], points[:, :, 1], np.full(len(ends), radius), np.eye(3)[np.arange(len(ends)) % 3])


def someone(seed, frames=12, size=48, texture=0.0):
    """A person who does something, as joints and capsules on the screen."""
    rng = np.random.default_rng(seed)
    body = actor(rng)
    motion = perform(rng, rng.integers(len(ACTIONS), size=1), np.array([-10]), frames=frames)
    heading, scale = rng.uniform(0, np.pi), 0.6 * size / body.height
    column = size / 2 - np.cumsum(motion.speed) * scale * np.cos(heading) + np.linspace(-2, 2, frames)
    joints = figures.project(
        figures.pose(body, motion), heading=heading, scale=scale, ground=0.85 * size, column=column
    )
    return body, motion, joints, figures.capsules(body, joints, heading=heading, scale=scale)


def test_joints_are_those_of_penn_action():
    published = "head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip right_hip"
    assert " ".join(JOINTS) == f"{published} left_knee right_knee left_ankle right_ankle"
    assert [JOINTS[k] for k in (HEAD, *SHOULDERS, *ELBOWS, *WRISTS, *HIPS, *KNEES, *ANKLES)] == list(JOINTS)


def test_directions_by_hand():
    """Hanging, forward, outward, up by either way."""
    degrees = np.array([(0, 0), (90, 0), (0, 90), (180, 0), (0, 180)])
    angles = np.broadcast_to(np.deg2rad(degrees)[:, None, None], (5, 4, 2, 2))
    found = figures.directions(angles)
    expected = np.array([(0, 0, -1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 1)])
    for side, sign in ((0, 1), (1, -1)):
        np.testing.assert_allclose(found[:, 2, side], expected * [1, sign, 1], atol=1e-12)


@given(seeds)
def test_limbs_keep_their_lengths_and_feet_the_ground(seed):
    rng = np.random.default_rng(seed)
    body = actor(rng)
    motion = perform(rng, rng.integers(len(ACTIONS), size=2), np.array([-10, 6]), frames=13)
    joints = figures.pose(body, motion)
    pairs = (
        (SHOULDERS, ELBOWS, "upper_arm"),
        (ELBOWS, WRISTS, "forearm"),
        (HIPS, KNEES, "thigh"),
        (KNEES, ANKLES, "shin"),
    )
    for upper, lower, name in pairs:
        np.testing.assert_allclose(
            np.linalg.norm(joints[:, upper] - joints[:, lower], axis=-1), getattr(body, name), rtol=1e-9
        )
    chest, pelvis = joints[:, SHOULDERS].mean(axis=1), joints[:, HIPS].mean(axis=1)
    np.testing.assert_allclose(np.linalg.norm(chest - pelvis, axis=-1), body.trunk, rtol=1e-9)
    np.testing.assert_allclose(joints[:, ANKLES, 2].min(axis=1), motion.lift, atol=1e-9)
    np.testing.assert_allclose(np.diff(pelvis[:, 0]), motion.speed[1:], atol=1e-9)


@pytest.mark.parametrize(
    ("heading", "expected"), [(0.0, (-6, 24, -4)), (np.pi / 2, (-6, 14, 14)), (np.pi, (-6, -4, 4))]
)
def test_projection_by_hand(heading, expected):
    """(forward, left, up) = (7, 2, 3), 2 pixels each, from row 0 and column 10: who faces right has the left far away,
    who faces the camera has it at the right."""
    points = np.array([[[7.0, 2, 3]]])
    found = figures.project(points, heading=heading, scale=2.0, ground=0.0, column=np.array([10.0]))
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-9)


def test_drawing_against_points_along_the_segments():
    parts = capsules([(4, 3, 0), (12, 15, 0)], [(9, 9, 1), (9, 9, 1)], [(-3, 14, -1), (20, 14, -1)], radius=1.8)
    frames, shown = figures.draw(parts, np.full((1, 18, 20, 3), 0.5))
    expected, owner = np.full((18, 20, 3), 0.5), np.full((18, 20), -1)
    for which in (2, 0, 1):  # by nearness
        start, end = parts.start[0, which, :2], parts.end[0, which, :2]
        along = start + np.linspace(0, 1, 2001)[:, None] * (end - start)
        for i in range(18):
            for j in range(20):
                cover = np.clip(2.3 - np.hypot(*(along - (i, j)).T).min(), 0, 1)
                expected[i, j] += cover * (parts.colour[which] - expected[i, j])
                owner[i, j] = which if cover >= 0.5 else owner[i, j]
    np.testing.assert_allclose(frames[0], expected, atol=1e-3)
    assert (shown[0] != owner).mean() < 0.01  # a sampled distance may fall to the other side of a half


def test_what_is_outside_of_the_frame_is_not_drawn():
    parts = capsules([(-30, -30, 0), (-20, -25, 0)], [(40, 3, 0), (50, 5, 0)])
    background = np.random.default_rng(0).random((1, 10, 10, 3))
    frames, shown = figures.draw(parts, background)
    np.testing.assert_array_equal(frames, background)
    assert (shown == -1).all()
    box, inside = figures.boxes(parts._replace(start=parts.start[:, :1], end=parts.end[:, :1]), (10, 10))
    assert not inside[0]
    np.testing.assert_array_equal(box[0], 0)


def test_flow_of_a_limb_that_moves_turns_and_stretches():
    """From a bar across to one down, twice as long and three pixels lower; the background goes half a pixel left."""
    parts = capsules([(10, 5, 0), (10, 9, 0)], frames=2)
    parts.start[1], parts.end[1] = [[13, 5, 0]], [[21, 5, 0]]
    _, shown = figures.draw(parts, np.zeros((2, 24, 24, 3)))
    moved = figures.flow(parts, shown, np.array([0.0, -0.5]))
    assert moved.shape == (1, 24, 24, 2)
    for (row, column), (to_row, to_column) in {
        (10, 5): (13, 5),
        (10, 9): (21, 5),
        (10, 7): (17, 5),
        (9, 7): (17, 6),  # above the bar is right of it then
        (10, 4): (12, 5),  # the cap does not stretch
        (20, 20): (20, 19.5),
    }.items():
        np.testing.assert_allclose(moved[0, row, column], [to_row - row, to_column - column], atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_flow_is_that_of_the_joints_and_warps_the_next_frame_onto_this(seed):
    _, _, joints, parts = someone(seed)
    ramp = np.linspace(0.2, 0.9, 48)  # a background that shows how it moves
    shift = np.array([0.0, 0.75])
    columns = np.stack([np.interp(np.arange(48) - 0.75 * t, np.arange(48), ramp) for t in range(12)])
    background = np.broadcast_to(columns[:, None, :, None], (12, 48, 48, 3))
    frames, shown = figures.draw(parts, background)
    moved = figures.flow(parts, shown, shift)

    owners = {0: HEAD, **dict(zip(range(SLABS_END, SLABS_END + 10), _nearer_ends(), strict=True))}
    checked = 0
    for t in range(11):
        for part, joint in owners.items():
            row, column = np.rint(joints[t, joint, :2]).astype(int)
            if shown[t, row, column] == part and _steady(parts, part, t):
                step = joints[t + 1, joint, :2] - joints[t, joint, :2]
                np.testing.assert_allclose(moved[t, row, column], step, atol=0.6)  # a turn about half a pixel
                checked += 1
    assert checked > 25

    errors = []
    for t in range(11):
        places = np.moveaxis(np.stack(np.mgrid[:48, :48], axis=-1) + moved[t], -1, 0)
        there = map_coordinates(shown[t + 1], places, order=0, mode="nearest")
        inside = (places >= 1).all(axis=0) & (places <= 46).all(axis=0)
        same = inside & (there == shown[t]) & _interior(shown[t])
        warped = np.stack([map_coordinates(frames[t + 1, ..., c], places, order=1) for c in range(3)], axis=-1)
        errors.append((np.abs(warped - frames[t])[same].mean(), np.abs(frames[t + 1] - frames[t])[same].mean()))
    warped, still = np.mean(errors, axis=0)
    assert warped < 0.006
    assert warped < 0.35 * still


SLABS_END = 2 + figures.SLABS


def _nearer_ends():
    """The joint at which each capsule of the two sides starts."""
    return [two[side] for side in (0, 1) for two in (SHOULDERS, ELBOWS, HIPS, KNEES, ANKLES)]


def _steady(parts, part, t):
    """Whether a capsule is long enough to have a direction in both frames."""
    way = parts.end[t : t + 2, part, :2] - parts.start[t : t + 2, part, :2]
    return np.linalg.norm(way, axis=-1).min() > 3


def _interior(shown):
    """Pixels all of whose neighbours show the same."""
    padded = np.pad(shown, 1, mode="edge")
    return np.all([padded[i : i + 48, j : j + 48] == shown for i in range(3) for j in range(3)], axis=0)


@given(seeds)
def test_joints_lie_on_the_figure_and_its_box_around_it(seed):
    _, _, joints, parts = someone(seed, frames=4)
    background = np.full((4, 48, 48, 3), 2.0)  # no colour of anyone's
    frames, shown = figures.draw(parts, background)
    row, column = np.moveaxis(np.rint(joints[..., :2]).astype(int), -1, 0)
    assert (shown[np.arange(4)[:, None], row, column] >= 0).all()
    boxes, inside = figures.boxes(parts, (48, 48))
    assert inside.all()
    for drawn, (top, left, bottom, right) in zip((frames != background).any(axis=-1), boxes, strict=True):
        rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
        # A pixel whose middle is half a pixel outside is covered by less than a half.
        assert top - 1 <= rows[0] <= top + 2
        assert left - 1 <= columns[0] <= left + 2
        assert bottom - 2 <= rows[-1] + 1 <= bottom + 1
        assert right - 2 <= columns[-1] + 1 <= right + 1


def test_who_is_nearer_is_drawn_over_who_is_not():
    (_, _, _, far), (_, _, _, near) = (someone(seed, frames=2) for seed in (1, 2))
    background = np.ones((2, 48, 48, 3))
    frames, shown = figures.draw(figures.join([far, near]), background)
    behind, shown_behind = figures.draw(far, background)
    over, shown_over = figures.draw(near, behind)
    np.testing.assert_allclose(frames, over, atol=1e-12)
    np.testing.assert_array_equal(shown, np.where(shown_over >= 0, shown_over + len(far.radius), shown_behind))
