"""Crops, cameras and rotations, against independent formulas and by properties."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hmr_ros import geometry
from hmr_ros.skeleton import COCO_MIRROR, SMPL_MIRROR, SMPL_PARENTS

finite = st.floats(-1, 1, allow_nan=False)
crops = st.tuples(st.floats(-500, 2000), st.floats(-500, 2000), st.floats(5, 3000)).map(lambda c: np.array(c, np.float32))
cameras = st.tuples(st.floats(0.05, 3), finite, finite).map(lambda c: np.array(c, np.float32))
seeds = st.integers(0, 2**32 - 1)


@given(crops, seeds)
def test_crop_coordinates_return_to_their_pixels(crop, seed):
    pixels = np.random.default_rng(seed).uniform(-2000, 2000, (7, 2))
    assert np.allclose(geometry.from_crop(geometry.to_crop(pixels, crop), crop), pixels, atol=1e-2)


@given(crops, st.integers(8, 300))
def test_the_crop_s_corners_fill_its_picture(crop, size):
    matrix = geometry.crop_matrix(crop, size).astype(np.float64)
    corner = np.array([crop[0] - crop[2] / 2, crop[1] - crop[2] / 2, 1])
    assert np.allclose(matrix @ corner, -0.5, atol=0.05)
    assert np.allclose(matrix @ [crop[0], crop[1], 1], (size - 1) / 2, atol=0.05)


@given(cameras, seeds)
def test_the_fitted_camera_is_the_one_that_made_the_picture(camera, seed):
    rng = np.random.default_rng(seed)
    points, weights = rng.normal(size=(12, 3)), rng.uniform(0.1, 1, 12)
    targets = camera[0] * (points[:, :2] + camera[1:])
    assert np.allclose(geometry.fit_weak_camera(points, targets, weights), camera, atol=1e-3)


def test_the_fitted_camera_ignores_joints_of_weight_zero():
    points = np.random.default_rng(0).normal(size=(12, 3))
    targets, weights = 0.5 * points[:, :2], np.ones(12)
    targets[3], weights[3] = 100, 0
    assert np.allclose(geometry.fit_weak_camera(points, targets, weights), [0.5, 0, 0], atol=1e-5)


@given(seeds)
def test_axis_angle_is_canonical_and_returns(seed):
    matrices = Rotation.random(5, random_state=seed % 2**31).as_matrix()
    vectors = geometry.rotvec_from_matrix(matrices)
    assert np.linalg.norm(vectors, axis=1).max() <= np.pi + 1e-6
    assert np.allclose(geometry.matrix_from_rotvec(vectors), matrices, atol=1e-5)


@given(seeds)
def test_six_numbers_give_back_their_rotation(seed):
    matrices = torch.from_numpy(Rotation.random(4, random_state=seed % 2**31).as_matrix())
    assert torch.allclose(geometry.matrix_from_6d(geometry.sixd_from_matrix(matrices)), matrices, atol=1e-9)


def test_gradients_reach_the_six_numbers():
    numbers = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(geometry.matrix_from_6d, numbers)


@given(seeds)
def test_similarity_alignment_undoes_a_similarity(seed):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(3, 12, 3))
    rotation = Rotation.random(random_state=seed % 2**31).as_matrix()
    source = rng.uniform(0.2, 5) * target @ rotation + rng.normal(size=3)
    assert np.allclose(geometry.similarity_align(source, target), target, atol=1e-6)


def test_similarity_alignment_refuses_mirror_images():
    target = np.random.default_rng(0).normal(size=(12, 3))
    aligned = geometry.similarity_align(target * [-1, 1, 1], target)
    assert np.abs(aligned - target).max() > 0.1


def test_a_pose_mirrored_twice_is_itself_and_pairs_are_pairs():
    pose = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
    assert np.array_equal(geometry.mirror_rotvec(geometry.mirror_rotvec(pose, SMPL_MIRROR), SMPL_MIRROR), pose)
    for mirror in (SMPL_MIRROR, COCO_MIRROR):
        assert [mirror[mirror[i]] for i in range(len(mirror))] == list(range(len(mirror)))
    assert all(SMPL_MIRROR[SMPL_PARENTS[i]] == SMPL_PARENTS[SMPL_MIRROR[i]] for i in range(1, 24))


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_a_mirrored_body_is_seen_by_the_mirrored_camera_where_the_joints_are_mirrored(kind):
    """One function each for numpy and torch, on a body: rotations, keypoints and camera belong together."""
    from hmr_ros.body.model import BodyModel
    from hmr_ros.body.posed_keypoints import PosedKeypoints

    skeleton = PosedKeypoints(BodyModel.load(None))
    rotations = torch.from_numpy(Rotation.random(2 * 24, random_state=3).as_matrix().reshape(2, 24, 3, 3)).float()
    camera, betas = torch.tensor([[0.8, 0.2, -0.1], [1.1, -0.3, 0.4]]), torch.zeros(2, 10)

    def native(value):
        return value.numpy() if kind == "numpy" else value

    def keypoints(rotations):
        return native(skeleton(torch.as_tensor(rotations), betas)[1])

    seen = geometry.weak_perspective(keypoints(rotations), native(camera))
    other = geometry.weak_perspective(
        keypoints(geometry.mirror_rotations(native(rotations))), geometry.mirror_weak_camera(native(camera))
    )
    np.testing.assert_allclose(other, geometry.mirror_joints(seen), atol=3e-3)  # the body is symmetric to 2 mm
    for n in range(2):
        pixels = geometry.project_weak(np.asarray(keypoints(rotations)[n]), camera[n].numpy(), np.array([320, 240, 200], np.float32))
        np.testing.assert_allclose(pixels, np.asarray(seen[n]) * 100 + [320, 240], atol=1e-3)
