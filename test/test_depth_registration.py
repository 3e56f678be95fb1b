"""Depth of one camera in the pixels of another one, against rays that are intersected with a plane and a sphere by hand."""

import numpy as np
import pytest

from hmr_ros.camera import Camera
from hmr_ros.depth_registration import DepthRegistration
from hmr_ros.geometry import Intrinsics, pinhole

CENTRE, RADIUS = np.array([0.1, 0.0, 2.0]), 0.4  # a sphere before a tilted wall, in the image camera's frame
NORMAL, OFFSET = np.array([0.1, 0.0, 1.0]), 3.5  # points of the wall: NORMAL · p = OFFSET


def turn_y(degrees):
    a = np.radians(degrees)
    return np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])


ROTATION, TRANSLATION = turn_y(3.0), np.array([-0.06, 0.01, 0.005])  # p_image = ROTATION p_depth + TRANSLATION


def scene(camera, size, rotation=np.eye(3), origin=np.zeros(3)):
    """Depth (H, W) along the axis of a camera at ``origin`` whose axes are turned by ``rotation`` into the scene's."""
    v, u = np.indices(size[::-1])
    directions, _ = camera.directions(np.stack([u, v], -1))
    rays = np.concatenate([directions, np.ones((*size[::-1], 1))], -1) @ rotation.T  # of length 1 along the camera's axis
    wall = (OFFSET - origin @ NORMAL) / (rays @ NORMAL)
    a, b, c = (rays**2).sum(-1), rays @ (origin - CENTRE), (origin - CENTRE) @ (origin - CENTRE) - RADIUS**2
    hit = b**2 - a * c
    sphere = np.where(hit > 0, (-b - np.sqrt(np.maximum(hit, 0))) / a, np.inf)
    return np.minimum(wall, sphere).astype(np.float32)


CAMERAS = {
    "as large": (Camera(pinhole(320, 240, 60)), (320, 240)),
    "larger": (Camera(pinhole(640, 480, 55)), (640, 480)),
    "smaller": (Camera(pinhole(160, 120, 60)), (160, 120)),
    "distorted": (Camera(Intrinsics(300, 300, 160, 118), "plumb_bob", (-0.2, 0.05, 0.001, 0.0, 0.0)), (320, 240)),
}


@pytest.mark.parametrize("name", CAMERAS)
def test_a_sphere_before_a_wall_seen_from_two_cameras(name):
    image_camera, image_size = CAMERAS[name]
    depth_camera, depth_size = Camera(Intrinsics(290, 290, 158, 121)), (320, 240)
    depth = scene(depth_camera, depth_size, ROTATION, TRANSLATION)
    registered = DepthRegistration(depth_camera, depth_size, image_camera, image_size, ROTATION, TRANSLATION)(depth)
    truth = scene(image_camera, image_size)
    assert registered.shape == truth.shape and registered.dtype == np.float32
    inner = np.s_[image_size[1] // 6 : -image_size[1] // 6, image_size[0] // 6 : -image_size[0] // 6]
    known = registered[inner] > 0
    errors = np.abs(registered - truth)[inner][known]
    # A pixel of slack: the wall's slope in x is 1 cm a pixel at most. Beside the sphere the depth camera sees another part of the wall.
    assert known.mean() > 0.96 and np.percentile(errors, 97) < 0.02 and np.median(errors) < 0.005
    apart = abs(np.median(scene(depth_camera, depth_size)) - np.median(depth))
    assert np.median(np.abs(registered - scene(image_camera, image_size, ROTATION, TRANSLATION))[inner]) > 5 * np.median(errors), apart


def test_aligned_depth_stays_as_it_is():
    camera, size = CAMERAS["as large"]
    depth = scene(camera, size)
    depth[100:110, 50:60] = 0
    np.testing.assert_allclose(DepthRegistration(camera, size, camera, size, np.eye(3), np.zeros(3))(depth), depth, rtol=1e-6)


def test_the_nearest_of_two_points_hides_the_other():
    camera, size = Camera(pinhole(64, 48, 60)), (64, 48)
    depth = np.full((48, 64), 3.0, np.float32)
    depth[10:40, 20:40] = 1.0
    moved = DepthRegistration(camera, size, camera, size, np.eye(3), np.array([0.1, 0, 0]))(depth)  # 5.5 px at 1 m, 1.8 px at 3 m
    assert (moved[20:30, 28:44] == 1.0).all() and (moved[20:30, 22:24] == 0).all() and (moved[20:30, 50:60] == 3.0).all()


def test_depth_without_a_point_is_unknown_everywhere():
    camera, size = CAMERAS["smaller"]
    registration = DepthRegistration(camera, size, camera, size, np.eye(3), np.zeros(3))
    assert not registration(np.zeros((120, 160), np.float32)).any()
    behind = DepthRegistration(camera, size, camera, size, np.eye(3), np.array([0, 0, -5.0]))
    assert not behind(np.ones((120, 160), np.float32)).any()


def test_what_is_no_transform_and_no_depth_of_this_size_is_refused():
    camera, size = CAMERAS["smaller"]
    with pytest.raises(ValueError, match="rotation"):
        DepthRegistration(camera, size, camera, size, 2 * np.eye(3), np.zeros(3))
    with pytest.raises(ValueError, match="translation"):
        DepthRegistration(camera, size, camera, size, np.eye(3), np.full(3, np.nan))
    with pytest.raises(ValueError, match=r"depth is \(48, 64\), expected \(120, 160\)"):
        DepthRegistration(camera, size, camera, size, np.eye(3), np.zeros(3))(np.ones((48, 64), np.float32))
