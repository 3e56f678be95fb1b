"""Which meshes are not shown, and which joints are less reliable: torso and worst limb count on their own."""

from dataclasses import replace
from importlib.resources import files

import cv2
import numpy as np
import pytest

from hmr_ros import HumanMeshEstimator
from hmr_ros.judgement import JudgementConfig, distances, limb_distances, mesh_misses, reliability
from hmr_ros.training.data.rendered.dataset import picture
from hmr_ros.training.data.rendered.poses import PoseSampler, embedded_clips
from hmr_ros.training.data.rendered.scene import SceneConfig, SceneMaker

LIMITS = JudgementConfig()
LEFT_ARM, TORSO = [5, 7, 9], [5, 6, 11, 12]
HIPS = [6, 7]  # of the twelve joints with a reliability


@pytest.fixture(scope="module")
def estimator():
    return HumanMeshEstimator.from_default()


@pytest.fixture(scope="module")
def body(estimator):
    """A pedestrian whose mesh lies on the detected keypoints, all of which are confident."""
    (path,) = [p for p in (files("hmr_ros") / "assets" / "demo").iterdir() if p.suffix in (".mp4", ".avi")]
    ok, frame = cv2.VideoCapture(str(path)).read()
    assert ok
    best = min(estimator(frame), key=lambda body: body.reprojection_error())
    keypoints = np.column_stack([best.projected_keypoints, np.full(17, 0.9)]).astype(np.float32)
    return replace(best, keypoints=keypoints)


def moved(body, joints, metres):
    """``body`` whose keypoints are detected elsewhere: metres (2,) of the body."""
    keypoints = body.keypoints.copy()
    keypoints[joints, :2] += np.asarray(metres) * body.weak_camera[0] * body.crop[2] / 2
    return replace(body, keypoints=keypoints)


def test_distances_are_metres_of_the_body_wherever_it_stands(body):
    np.testing.assert_allclose(distances(body), 0, atol=1e-4)
    away = distances(moved(body, LEFT_ARM, (0.3, 0.4)))
    np.testing.assert_allclose(away[LEFT_ARM], 0.5, atol=1e-3)
    stature = np.ptp(body.projected_keypoints[:, 1]) * 2 / (body.weak_camera[0] * body.crop[2])
    assert 1.2 < stature < 1.9  # eyes to ankles of somebody who walks upright, seen from above
    unsure = body.keypoints.copy()
    unsure[9, 2] = body.confident
    assert np.isnan(distances(replace(body, keypoints=unsure))[9])


def test_a_trunk_half_a_torso_off_is_no_body_though_the_mean_is_small(body):
    off = moved(body, TORSO, (LIMITS.torso + 0.02, 0))
    assert off.reprojection_error() < LIMITS.mean and mesh_misses(off)
    assert not mesh_misses(moved(body, TORSO, (LIMITS.torso - 0.02, 0)))


def test_one_limb_far_off_discards_nobody_whose_torso_is_right(body):
    wave = moved(body, [7, 9], (0, -1.0))
    assert not mesh_misses(wave)
    with_trunk = moved(wave, TORSO, (LIMITS.torso_right + 0.08, 0))
    assert mesh_misses(with_trunk) and not mesh_misses(moved(body, TORSO, (LIMITS.torso_right + 0.08, 0)))
    assert mesh_misses(with_trunk, replace(LIMITS, mean=np.inf)) and not mesh_misses(with_trunk, replace(LIMITS, mean=np.inf, limb=np.inf))


def test_nobody_without_a_confident_joint_and_no_broken_mesh_is_shown(body):
    assert mesh_misses(replace(body, keypoints=body.keypoints * [1, 1, 0]))
    assert mesh_misses(replace(body, projected_keypoints=body.projected_keypoints * np.nan))


def test_a_joint_far_from_its_detection_is_less_reliable_and_the_others_stay(body):
    before = np.linspace(0.1, 1, 12).astype(np.float32)
    after = reliability(before, limb_distances(moved(body, [7, 9], (0, -1.0))))
    limbs = [0, 1, 3, 5, 6, 7, 8, 9, 10, 11]
    np.testing.assert_allclose(after[limbs], before[limbs], rtol=1e-4)
    assert (after[[2, 4]] < (1 - 0.95 * LIMITS.doubt) * before[[2, 4]]).all() and after.dtype == np.float32


def test_the_factor_falls_with_distance_from_one_and_ends_at_its_floor():
    away = np.concatenate([np.linspace(0, 3, 600), [1e3]])[:, None] * np.ones(12)
    factor = np.delete(reliability(np.ones((601, 12)), away), HIPS, axis=1)
    assert (np.diff(factor, axis=0) <= 0).all() and (factor[0] == 1).all()
    half = np.delete(reliability(np.ones(12), np.full(12, LIMITS.doubt_distance)), HIPS)
    np.testing.assert_allclose(half, 1 - LIMITS.doubt / 2, rtol=1e-6)
    np.testing.assert_allclose(factor[-1], 1 - LIMITS.doubt, rtol=1e-5)
    assert (reliability(np.ones(12), np.full(12, np.nan)) == 1).all()  # who has no detection is not doubted
    assert (reliability(np.ones(12), away[-1])[HIPS] == 1).all()  # it is relative to the hips


def test_a_gymnast_whose_mesh_stands_beside_the_trunk_is_not_shown(estimator, monkeypatch):
    """A cartwheel of the held-out clip: its trunk is too far off, though the joints are not on average."""
    poses = PoseSampler("test", 0.0, {"bullet/cartwheel": embedded_clips()["bullet/cartwheel"]})
    scene = picture(SceneMaker("test", None, SceneConfig(people=(1.0,), cut=0.0, occluded=0.0), poses), 5, "test", 329)
    bodies = estimator(scene.image)
    assert (len(bodies), bodies.detected, bodies.mesh_misses) == (0, 1, 1)
    monkeypatch.setattr("hmr_ros.estimator.mesh_misses", lambda body: False)
    (shown,) = estimator(scene.image)
    assert shown.reprojection_error() < LIMITS.mean and distances(shown)[TORSO].mean() > LIMITS.torso
