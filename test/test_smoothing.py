"""Steady bodies: what stands still does not tremble, what moves is hardly delayed, and the mesh comes of the smoothed parameters."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hmr_ros import HumanMeshEstimator
from hmr_ros.camera import Camera
from hmr_ros.geometry import pinhole, ray_rotation
from hmr_ros.smoothing import OneEuro, OneEuroFilter, Smoother, SmoothingConfig
from hmr_ros.smoothing_kernel import filter_rotations, filter_vectors
from hmr_ros.training.data.rendered.scene import SceneConfig, SceneMaker

RATE = 30.0


def acceleration(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=-1).mean())


def started(smoother: Smoother, stamp: float) -> Smoother:
    smoother.at(stamp).shape(np.zeros(10), 1.0)
    return smoother


def smoothed(poses: np.ndarray, stamps: np.ndarray) -> np.ndarray:
    """(T, 24, 3, 3) → the same through one smoother, without a camera."""
    smoother = Smoother()
    return np.stack([started(smoother, stamp).pose(pose, None) for pose, stamp in zip(poses, stamps)])


def test_trembling_rotations_become_steady_and_stay_rotations():
    rng = np.random.default_rng(0)
    mean = Rotation.random(24, random_state=1)
    poses = np.stack([(mean * Rotation.from_rotvec(rng.normal(0, 0.1, (24, 3)))).as_matrix() for _ in range(90)])
    after = smoothed(poses, 1 + np.arange(90) / RATE)
    assert acceleration(after[15:, :, :, 0]) < 0.35 * acceleration(poses[15:, :, :, 0])
    assert np.allclose(after @ np.swapaxes(after, -1, -2), np.eye(3), atol=1e-5)
    off = Rotation.from_matrix((mean.as_matrix().swapaxes(1, 2) @ after[-1])).magnitude()
    assert off.max() < 0.2


@pytest.mark.parametrize("rate", [10.0, 30.0, 60.0])
def test_a_turn_is_followed_within_40_ms_at_any_rate(rate):
    """Two radians a second, also through the half turn at which rotation vectors jump."""
    stamps = 1 + np.arange(int(2.5 * rate)) / rate
    poses = np.stack([np.tile(Rotation.from_rotvec([0, 2.0 * t, 0]).as_matrix(), (24, 1, 1)) for t in stamps])
    after = smoothed(poses, stamps)
    behind = Rotation.from_matrix(np.swapaxes(after[-1], 1, 2) @ poses[-1]).magnitude() / 2.0
    assert behind.max() < 0.055


def one_euro(values: list, constants: OneEuro, passed: float, minus, plus) -> list:
    """Two One-Euro stages in a row as their paper has them, of any kind of values."""
    stages, speed, smooth = [values[0], values[0]], np.zeros_like(minus(values[0], values[0])), [values[0]]

    def gain(cutoff):
        return 1 / (1 + 1 / (2 * np.pi * cutoff * passed))

    for value in values[1:]:
        step = minus(value, stages[0])
        speed = speed + gain(constants.derivative_cutoff) * (step / passed - speed)
        share = gain(constants.min_cutoff + constants.beta * np.linalg.norm(speed))
        stages[0] = plus(stages[0], share * step)
        stages[1] = plus(stages[1], share * minus(stages[0], stages[1]))
        smooth.append(stages[1])
    return smooth


def test_the_kernels_are_the_one_euro_filter():
    rng, constants, passed = np.random.default_rng(0), OneEuro(3.0, 1.5, 1.2), 0.04
    points = np.cumsum(rng.normal(size=(30, 5, 2)), 0)
    smooth = OneEuroFilter(constants, filter_vectors, 2)
    expected = np.stack([one_euro(list(points[:, n]), constants, passed, np.subtract, np.add) for n in range(5)], 1)
    assert np.allclose([smooth(now, passed) for now in points], expected, atol=1e-12)
    turns = Rotation.from_rotvec(rng.normal(0, 1.5, (30, 3)))  # some steps are nearly half turns
    smooth = OneEuroFilter(constants, filter_rotations, 3)
    found = [smooth(now.as_matrix()[None], passed)[0] for now in turns]
    expected = one_euro(list(turns), constants, passed, lambda a, b: (b.inv() * a).as_rotvec(), lambda a, step: a * Rotation.from_rotvec(step))
    assert np.allclose(found, [rotation.as_matrix() for rotation in expected], atol=1e-9)


def test_without_smoothing_nothing_changes():
    smoother = Smoother(SmoothingConfig(smooth_pose=False, smooth_translation=False, steady_shape=False))
    rng = np.random.default_rng(0)
    for i in range(3):
        pose, betas, camera, place = Rotation.random(24, random_state=i).as_matrix(), rng.normal(size=10), np.array([1.0, 0.1 * i, 0]), np.array([i, 0, 3.0])
        assert smoother.at(1 + i / RATE).shape(betas, 1.0) is betas
        assert smoother.pose(pose, None) is pose and smoother.place(place) is place
        assert smoother.weak_camera(camera, np.array([100.0, 100, 50])) is camera


def test_the_shape_converges_and_outlives_a_gap():
    smoother, rng = Smoother(), np.random.default_rng(0)
    shapes = [smoother.at(1 + i / RATE).shape(1 + rng.normal(0, 1, 10), 0.8) for i in range(200)]
    assert np.abs(shapes[-1] - 1).max() < 0.3 and np.abs(shapes[-1] - shapes[-2]).max() < 0.02
    assert np.abs(smoother.at(60.0).shape(np.full(10, 5.0), 0.8) - shapes[-1]).max() < 0.1


def test_after_a_gap_pose_and_place_begin_anew():
    smoother = Smoother()
    for stamp, x in ((1.0, 0.0), (1.03, 0.0), (2.0, 1.0)):
        pose = np.tile(Rotation.from_rotvec([0, x, 0]).as_matrix(), (24, 1, 1))
        started(smoother, stamp)
        assert np.allclose(smoother.pose(pose, np.eye(3)), pose, atol=1e-6)
        assert np.allclose(smoother.place(np.array([x, 0, 3.0])), [x, 0, 3.0])
        velocity = smoother.velocities(np.array([[x, 0, 3.0]]))
        assert (velocity is None) == (stamp != 1.03)


def test_velocity_is_metres_a_second_at_a_varying_rate():
    smoother, rng, stamp = Smoother(), np.random.default_rng(0), 1.0
    for _ in range(40):
        place = started(smoother, stamp).place(np.array([0.5 * stamp, 0, 3 - 0.2 * stamp]))
        velocity = smoother.velocities(place[None])
        stamp += rng.uniform(0.02, 0.08)
    assert np.allclose(velocity, [[0.5, 0, -0.2]], atol=0.03)


def test_orientation_does_not_follow_a_trembling_crop():
    """A body that stands still in camera axes, whose ray axes turn with the crop."""
    smoother, rng = Smoother(), np.random.default_rng(0)
    body = Rotation.from_rotvec([3.0, 0.2, 0.1]).as_matrix()
    for i in range(20):
        turn = ray_rotation(rng.normal(0.3, 0.05, 2))
        pose = np.concatenate([(turn @ body)[None], np.tile(np.eye(3), (23, 1, 1))])
        assert np.allclose(turn.T @ started(smoother, 1 + i / RATE).pose(pose, turn)[0], body, atol=1e-5)


def test_the_weak_camera_sees_the_body_at_the_same_place_whatever_the_crop():
    smoother, rng = Smoother(), np.random.default_rng(0)
    for i in range(20):
        crop = np.array([200.0, 150, 100]) + rng.normal(0, 10, 3)
        camera = np.array([60 / (crop[2] / 2), (210 - crop[0]) / 60, (140 - crop[1]) / 60])  # 60 px a metre, origin at 210, 140
        assert np.allclose(started(smoother, 1 + i / RATE).weak_camera(camera, crop), camera, atol=1e-5)


# ---- with the real estimator ----------------------------------------------------------------------------------------


def test_mesh_joints_keypoints_and_velocity_come_of_the_smoothed_parameters():
    estimator = HumanMeshEstimator.from_default()
    scene = SceneMaker("val", None, SceneConfig(people=(1.0,), cut=0.0, occluded=0.0)).make(np.random.default_rng(4))
    person, camera = estimator.extractor(scene.image)[0], Camera(pinhole(scene.image.shape[1], scene.image.shape[0], 60.0))
    smoother, rng, bodies = Smoother(id="abcde"), np.random.default_rng(0), []
    for i in range(8):
        keypoints = person.keypoints + np.pad(rng.normal(0, 2, (17, 2)), ((0, 0), (0, 1))).astype(np.float32)
        moved = replace(person, keypoints=keypoints)
        bodies += estimator.estimate([moved], camera, smoothers=[smoother.at(1 + i / RATE)])
    assert len(bodies) == 8 and {body.id for body in bodies} == {"abcde"}
    assert bodies[0].velocity is None and bodies[0].joint_velocities is None
    last = bodies[-1]
    assert last.velocity.shape == (3,) and last.joint_velocities.shape == (24, 3) and np.abs(last.joint_velocities).max() < 1
    rotations = Rotation.from_rotvec(np.concatenate([last.global_orient, last.body_pose]).reshape(24, 3)).as_matrix()[None].astype(np.float32)
    vertices, joints, keypoints = estimator._body(rotations, last.betas[None])
    assert np.allclose(vertices[0], last.vertices, atol=1e-4) and np.allclose(joints[0], last.joints, atol=1e-4)
    assert np.allclose(last.pixels(keypoints[0]), last.projected_keypoints, atol=0.05)
