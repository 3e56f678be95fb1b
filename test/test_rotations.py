"""The kernels' rotations are scipy's, also where rotation vectors are hard to tell: near a half turn and near none."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hmr_ros.geometry import rotvec_from_matrix
from hmr_ros.rotations import rotvec_between, turn

ANGLES = (0.0, 1e-13, 1e-9, 1e-5, 1e-2, 1.0, 2.0, np.pi - 1e-2, np.pi - 1e-5, np.pi - 1e-9, np.pi)


@pytest.fixture(scope="module", params=ANGLES)
def vectors(request):
    """(206, 3) rotation vectors of one angle: about random axes, and about x, y and z."""
    axes = np.concatenate([np.random.default_rng(0).normal(size=(200, 3)), np.eye(3), -np.eye(3)])
    return request.param * axes / np.linalg.norm(axes, axis=1, keepdims=True)


def test_rotation_vectors_of_matrices(vectors):
    matrices = Rotation.from_rotvec(vectors).as_matrix()
    found = rotvec_from_matrix(matrices)
    assert found.dtype == np.float32 and found.shape == (len(vectors), 3)
    assert np.allclose(found, Rotation.from_matrix(matrices).as_rotvec(), atol=1e-6)  # float32; the sign, too, of half turns
    assert (np.linalg.norm(found, axis=1) <= np.pi + 1e-6).all()


def test_rounding_of_float32_is_no_error_of_its_own(vectors):
    """What a network gives is orthogonal to 1e-7 only; scipy takes the nearest rotation."""
    matrices = Rotation.from_rotvec(vectors).as_matrix().astype(np.float32)
    found = Rotation.from_rotvec(rotvec_from_matrix(matrices)) * Rotation.from_matrix(matrices).inv()
    assert found.magnitude().max() < 2e-6


def test_what_turns_one_rotation_into_another(vectors):
    start, out = Rotation.random(len(vectors), random_state=1).as_matrix(), np.empty(3)
    ends = Rotation.from_rotvec(vectors).as_matrix() @ start
    for vector, before, after in zip(vectors, start, ends):
        rotvec_between(after, before, out)
        assert min(np.abs(out - vector).max(), np.abs(out + vector).max() if np.linalg.norm(vector) > np.pi - 1e-6 else np.inf) < 1e-6
        turned = before.copy()
        turn(turned, *vector)
        assert np.allclose(turned, after, atol=1e-12)


def test_any_number_of_dimensions():
    matrices = Rotation.random(48, random_state=2).as_matrix().reshape(2, 24, 3, 3)
    assert np.array_equal(rotvec_from_matrix(matrices)[1, 7], rotvec_from_matrix(matrices[1, 7]))
    assert rotvec_from_matrix(np.zeros((0, 24, 3, 3))).shape == (0, 24, 3)
