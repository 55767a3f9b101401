"""Poses and their pictures beyond the laws that every system joins (``tests/laws``)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax import compat
from seqjax.errors import InputError
from seqjax.models.prediction import hierarchical
from seqjax.models.prediction.hierarchical import LIMBS, Config, limb_maps
from seqjax.nn.split import count, initialise
from seqjax.ops.cells import lstm
from seqjax.ops.scan import unroll

TINY = Config.tiny()
KEY = jax.random.key(0)


def networks(seed=0, **changes):
    config = dataclasses.replace(TINY, **changes)
    return initialise(lambda rngs: hierarchical.build(config, rngs), seed)


def clip(frames, batch=2, seed=0, size=16, hidden=0.2):
    rng = np.random.default_rng(seed)
    return {
        "video": jnp.asarray(rng.integers(0, 256, (batch, frames, size, size, 3), np.uint8)),
        "joints": jnp.asarray(rng.uniform(1, size - 2, (batch, frames, 1, 13, 2)), jnp.float32),
        "visible": jnp.asarray(rng.random((batch, frames, 1, 13)) >= hidden),
    }


@pytest.fixture(scope="module")
def pose():
    return networks(task="pose")


@pytest.fixture(scope="module")
def image():
    return networks(task="image")


def test_parameters_of_the_pose_network():
    """A dense layer to 32, an LSTM of 1,024 with one bias a gate, a dense layer back."""
    net = nnx.eval_shape(lambda: hierarchical.build(Config(task="pose"), nnx.Rngs(0)))
    assert count(net) == (26 * 32 + 32) + 4 * 1024 * (32 + 1024 + 1) + (1024 * 26 + 26)


@pytest.mark.parametrize("division", ["visible", "paper"])
def test_pose_loss_is_its_definition(division):
    nets, batch = networks(task="pose", division=division), clip(7)
    loss, metrics = hierarchical.loss_pose(nets, batch, key=KEY)
    predicted = np.asarray(hierarchical.predict_poses(nets, batch, steps=4))
    squares, distances = [], []
    for b in range(2):
        apart = [
            (predicted[b, t, j] - np.asarray(batch["joints"][b, 3 + t, 0, j])) * 2 / 16
            for t, j in np.ndindex(4, 13)
            if batch["visible"][b, 3 + t, 0, j]
        ]
        squares.append(np.square(apart).sum() / (2 * len(apart) if division == "visible" else 4 * 26))
        distances.append(np.linalg.norm(apart, axis=1).mean())
    np.testing.assert_allclose(loss, np.mean(squares), rtol=1e-4)
    np.testing.assert_allclose(metrics["joint_error"], np.mean(distances), rtol=1e-4)


def test_hidden_joints_get_no_gradient_and_are_not_read(pose):
    batch = clip(7)

    def loss(joints):
        return hierarchical.loss_pose(pose, {**batch, "joints": joints}, key=KEY)[0]

    gradient = jax.grad(loss)(batch["joints"])
    hidden = ~np.asarray(batch["visible"])
    assert hidden.any()
    np.testing.assert_array_equal(gradient[hidden], 0)
    assert (np.abs(gradient[~hidden]) > 0).all()
    changed = jnp.where(batch["visible"][..., None], batch["joints"], jnp.nan)
    np.testing.assert_array_equal(loss(changed), loss(batch["joints"]))


def test_no_pose_after_the_context_is_read(pose):
    batch = clip(7)
    later = {**batch, "joints": batch["joints"].at[:, 3:].set(3), "visible": batch["visible"].at[:, 3:].set(False)}
    poses = hierarchical.predict_poses(pose, batch, steps=5)
    np.testing.assert_array_equal(hierarchical.predict_poses(pose, later, steps=5), poses)
    longer = hierarchical.predict_poses(pose, batch, steps=9)
    np.testing.assert_allclose(longer[:, :5], poses, rtol=1e-5, atol=1e-5)


def test_the_lstm_reads_zeros_after_the_context_by_a_loop_over_time(pose):
    net, batch = pose["pose"], clip(3)
    joints, visible = hierarchical.person(batch)
    poses = hierarchical.unit_poses(TINY, batch, joints)
    found = net(poses, visible, steps=4)
    xs = jax.nn.relu(net.embed(jnp.where(visible[..., None], poses, 0.0).reshape(2, 3, -1)))
    params = compat.pure(net.lstm)
    carry, _ = unroll(lstm, params, lstm.carry(params, (2,)), xs)
    for t in range(4):
        carry, hs = unroll(lstm, params, carry, jnp.zeros((2, 1, TINY.embed)))
        expected = jnp.tanh(net.head(hs[:, 0])).reshape(2, 13, 2)
        np.testing.assert_allclose(found[:, t], expected, rtol=1e-5, atol=1e-6)


def test_coordinates_go_there_and_back_and_may_be_swapped_as_in_the_released_code():
    batch = clip(3) | {"extent": jnp.array([[60.0, 90], [40, 40]])}
    joints, _ = hierarchical.person(batch)
    own, swapped = (dataclasses.replace(TINY, normalise=kind) for kind in ("own", "swapped"))
    for config in (own, swapped):
        there = hierarchical.unit_poses(config, batch, joints)
        np.testing.assert_allclose(hierarchical.pixel_poses(config, batch, there), joints, rtol=1e-4, atol=1e-4)
    corners = jnp.array([[[[-0.5, -0.5], [15.5, 15.5]]]] * 2)
    np.testing.assert_allclose(hierarchical.unit_poses(own, batch, corners)[0, 0], [[-1, -1], [1, 1]], atol=1e-6)
    # The pixel (8, 8) of the film's 60 x 90: 30 / 90 and 45 / 60 of the way instead of a half.
    middle = jnp.full((2, 1, 1, 2), 7.5)
    np.testing.assert_allclose(
        hierarchical.unit_poses(swapped, batch, middle)[:, 0, 0], [[-1 / 3, 0.5], [0, 0]], atol=1e-6
    )


def test_limb_maps_against_a_loop():
    config = dataclasses.replace(TINY, points=4, sigma=1.3)
    batch = clip(1, hidden=0.4)
    joints, visible = (np.asarray(x[:, 0]) for x in hierarchical.person(batch))
    maps = np.asarray(limb_maps(config, jnp.asarray(joints), jnp.asarray(visible)))
    assert maps.shape == (2, 16, 16, 48)
    pixels = np.stack(np.mgrid[:16, :16], axis=-1)
    for b in range(2):
        for limb, (i, j, k, m) in enumerate(LIMBS):
            start, end = (joints[b, i] + joints[b, j]) / 2, (joints[b, k] + joints[b, m]) / 2
            here, there = visible[b, i] and visible[b, j], visible[b, k] and visible[b, m]
            for point in range(4):
                place = start + point / 3 * (end - start)
                bump = np.exp(-np.square(pixels - place).sum(axis=-1) / (2 * 1.3**2))
                drawn = (here and there) or (here and point == 0) or (there and point == 3)
                expected = bump / bump.max() if drawn else np.zeros((16, 16))
                np.testing.assert_allclose(maps[b, ..., 4 * limb + point], expected, atol=1e-5)
    assert set(np.unique(maps.max(axis=(1, 2)))) == {0, 1}
    np.testing.assert_array_equal(limb_maps(config, jnp.asarray(joints), jnp.zeros((2, 13), bool)), 0)


@pytest.mark.parametrize("skips", [False, True])
def test_the_same_pose_leaves_the_features_of_the_frame(skips):
    net = networks(skips=skips)["generator"]
    frame, _, maps, ahead = hierarchical.pairs(TINY, clip(2))
    alone, scales = net.image(frame)
    np.testing.assert_array_equal(net.features(frame, maps, maps)[0], alone)
    for found, expected in zip(net.features(frame, maps, maps)[1], scales, strict=True):
        np.testing.assert_array_equal(found, expected)
    top, _ = net.features(frame, maps, ahead)
    np.testing.assert_allclose(top, alone + net.pose(ahead)[0] - net.pose(maps)[0], rtol=1e-4, atol=1e-5)
    expected = net.decoder(alone, scales if skips else None)
    np.testing.assert_allclose(net(frame, maps, maps), expected, rtol=1e-5, atol=1e-6)


def test_losses_of_both_players_are_their_definitions(image):
    batch = clip(2, batch=4)
    frame, target, maps, ahead = hierarchical.pairs(TINY, batch)
    fake = image["generator"](frame, maps, ahead)

    def score(images):
        return np.asarray(image["discriminator"](jnp.concatenate([images, ahead], axis=-1)[:, None]), np.float64)

    def bce(logits, label):
        return np.log1p(np.exp(-logits if label else logits)).mean()

    loss, metrics = hierarchical.loss_generator(image, batch, key=KEY)
    distance = 0.5 * np.square(np.asarray(fake - target, np.float64)).mean()
    np.testing.assert_allclose(metrics["distance"], distance, rtol=1e-5)
    np.testing.assert_allclose(loss, distance + 0.05 * bce(score(fake), True), rtol=1e-5)
    loss, _ = hierarchical.loss_discriminator(image, batch, key=KEY)
    halves = bce(score(fake), False) / 2 + bce(score(frame), False) / 2
    np.testing.assert_allclose(loss, bce(score(target), True) + halves, rtol=1e-5)
    np.testing.assert_allclose(image["discriminator"].errors[...], [bce(score(target), True), halves], rtol=1e-5)


def test_networks_of_features_are_weighed_and_counted():
    batch = clip(2)
    nets = networks(features=(2.0, 0.5), adversarial=0.0)
    assert set(nets) == {"generator"}
    phis = [lambda x: x[:, ::2], lambda x: jnp.mean(x, axis=-1) ** 2]
    frame, target, maps, ahead = hierarchical.pairs(TINY, batch)
    fake = nets["generator"](frame, maps, ahead)
    loss, metrics = hierarchical.loss_generator(nets, batch, key=KEY, feature_fns=phis)
    parts = [0.5 * np.square(np.asarray(phi(fake) - phi(target))).mean() for phi in phis]
    np.testing.assert_allclose(metrics["features"], 2 * parts[0] + 0.5 * parts[1], rtol=1e-4)
    np.testing.assert_allclose(loss, metrics["distance"] + metrics["features"], rtol=1e-6)
    with pytest.raises(InputError, match=r"feature_fns: 1 came, and model\.features has 2"):
        hierarchical.loss_generator(nets, batch, key=KEY, feature_fns=phis[:1])


def test_prediction_draws_the_predicted_poses_from_the_last_frame_seen(pose, image):
    batch = clip(7)
    found = hierarchical.predict(pose | image, batch, steps=5)
    assert found["frames"].shape == (2, 5, 16, 16, 3)
    assert 0 <= found["frames"].min() <= found["frames"].max() <= 1
    np.testing.assert_array_equal(found["joints"], hierarchical.predict_poses(pose, batch, steps=5))
    joints, visible = (x[:, 2] for x in hierarchical.person(batch))
    for step in range(5):
        frame = 2 * batch["video"][:, 2].astype(jnp.float32) / 255 - 1
        ahead = limb_maps(TINY, found["joints"][:, step], jnp.ones((2, 13), bool))
        expected = image["generator"](frame, limb_maps(TINY, joints, visible), ahead)
        np.testing.assert_allclose(found["frames"][:, step], (expected + 1) / 2, rtol=1e-4, atol=1e-5)
    later = {**batch, "video": batch["video"].at[:, 3:].set(0).at[:, :2].set(9)}
    np.testing.assert_array_equal(hierarchical.predict(pose | image, later, steps=5)["frames"], found["frames"])


def test_what_the_networks_cannot_take_is_described(pose, image):
    with pytest.raises(InputError, match="a clip of 6 frames came; the network takes 7"):
        hierarchical.loss_pose(pose, clip(6), key=KEY)
    with pytest.raises(InputError, match="clips of 3 frames came"):
        hierarchical.loss_generator(image, clip(3), key=KEY)
    with pytest.raises(InputError, match="12x12x3"):
        hierarchical.loss_generator(image, clip(2, size=12), key=KEY)


def test_another_task_is_refused(unchecked):
    with pytest.raises(InputError, match="task: got 'both'"):
        hierarchical.build(dataclasses.replace(TINY, task="both"), nnx.Rngs(0))
