"""Cameras against OpenCV's own projection, and the axes of the viewing ray against their definition."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmr_ros.camera import Camera, as_camera, ray_axes
from hmr_ros.geometry import Intrinsics, ray_rotation

K = Intrinsics(412.0, 405.0, 318.5, 242.0)
LENSES = {
    "plumb_bob": (-0.31, 0.11, 1.2e-3, -6e-4, -0.02),
    "rational_polynomial": (0.5, -0.2, 1e-4, 2e-4, 0.01, 0.8, -0.1, 0.02),
    "equidistant": (0.02, -0.01, 0.003, -0.001),
}
MATRIX = np.array([[K.fx, 0, K.cx], [0, K.fy, K.cy], [0, 0, 1]])


def opencv(points, model):
    """Pixels (N, 2) of points (N, 3) by OpenCV."""
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    return project(points.reshape(-1, 1, 3).astype(float), np.zeros(3), np.zeros(3), MATRIX, np.array(LENSES[model]))[0].reshape(-1, 2)


@pytest.mark.parametrize("model", LENSES)
@given(seed=st.integers(0, 10_000))
def test_raw_pixels_and_their_rays_are_those_of_opencvs_projection(model, seed):
    points = np.random.default_rng(seed).uniform([-1.0, -0.8, 1.2], [1.0, 0.8, 6.0], (40, 3))
    camera, expected = Camera(K, model, LENSES[model]), opencv(points, model)
    np.testing.assert_allclose(camera.project(points), expected, atol=1e-3)
    directions, known = camera.directions(expected)
    assert known.all()
    np.testing.assert_allclose(directions, points[:, :2] / points[:, 2:], atol=1e-5)


def test_without_distortion_it_is_a_pinhole():
    points = np.random.default_rng(1).uniform([-2, -2, 1], [2, 2, 5], (20, 3))
    for camera in (Camera(K), Camera(K, "plumb_bob", (0.0,) * 5), as_camera(K), as_camera(tuple(K))):
        pixels = camera.project(points)
        np.testing.assert_allclose(pixels, points[:, :2] / points[:, 2:] * K[:2] + K[2:], atol=1e-3)
        assert not camera.distorts


def test_an_equidistant_camera_without_coefficients_is_no_pinhole():
    pixels = Camera(K, "equidistant", (0.0,) * 4).project(np.array([[1.0, 0, 1]]))
    assert pixels[0, 0] == pytest.approx(K.cx + K.fx * np.pi / 4, abs=1e-3)  # the radius is f times the angle


def test_points_far_outside_do_not_fold_back_into_the_image():
    camera = Camera(K, "plumb_bob", (-0.35, 0.0, 0, 0, 0))
    x = np.linspace(0, 11, 200)
    u = camera.project(np.stack([x, np.zeros_like(x), np.ones_like(x)], -1))[:, 0]
    assert (np.diff(u) > 0).all()
    assert opencv_pixel(camera, 11.0) < 0  # OpenCV alone follows its polynomial, to the other side


def opencv_pixel(camera, x):
    return float(cv2.projectPoints(np.array([[[x, 0.0, 1.0]]]), np.zeros(3), np.zeros(3), MATRIX, np.array(camera.coefficients))[0].ravel()[0])


def test_pixels_that_no_ray_reaches_are_unknown_and_not_wrong():
    camera = Camera(K, "plumb_bob", (-0.35, 0.0, 0, 0, 0))
    directions, known = camera.directions(np.array([[K.cx, K.cy], [5000.0, K.cy], [np.nan, 3.0]]))
    assert known.tolist() == [True, False, False]
    assert np.isfinite(directions).all()


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_the_ray_runs_along_z_of_its_axes_by_the_shortest_turn(x, y):
    turn = ray_rotation(np.array([x, y]))
    ray = np.array([x, y, 1]) / np.sqrt(x * x + y * y + 1)
    np.testing.assert_allclose(turn @ ray, [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.trace(turn) == pytest.approx(1 + 2 * ray[2], abs=1e-9)  # it turns by no more than the angle of the ray
    assert np.linalg.det(turn) == pytest.approx(1)


def test_ray_axes_look_through_the_lens():
    camera = Camera(K, "plumb_bob", LENSES["plumb_bob"])
    point = np.array([[0.7, -0.4, 1.5]])
    turned = ray_axes(camera, camera.project(point))[0] @ point[0]
    np.testing.assert_allclose(turned, [0, 0, np.linalg.norm(point)], atol=1e-5)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((Intrinsics(0, 400, 1, 1),), "fx, fy > 0"),
        ((Intrinsics(400, 400, np.nan, 1),), "intrinsics are"),
        ((K, "thin_prism"), "thin_prism"),
        ((K, "plumb_bob", (0.1, 0.2, 0.3)), "0 or 4 or 5"),
        ((K, "equidistant", (0.1, np.inf, 0.3, 0.1)), "finite"),
    ],
)
def test_what_describes_no_camera_is_refused_in_words(arguments, words):
    with pytest.raises(ValueError, match=words):
        Camera(*arguments)
