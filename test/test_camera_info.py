"""CameraInfo messages as cameras: which matrix, which lens, which size; what describes no camera is named."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")
from sensor_msgs.msg import CameraInfo  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from hmr_ros.camera import Camera  # noqa: E402
from hmr_ros.geometry import pinhole  # noqa: E402
from hmr_ros.io.camera_info import camera_from_message, camera_remarks, intrinsics_from_message  # noqa: E402
from hmr_ros.ros.inputs import intrinsics_to_message  # noqa: E402


def vga(**fields):
    """CameraInfo of a pinhole camera of 640x480 pixels, some fields of it replaced."""
    info = intrinsics_to_message(pinhole(640, 480, 60.0), 640, 480, Header())
    for name, value in fields.items():
        setattr(info, name, value)
    return info


def test_camera_info_there_and_back():
    camera = pinhole(640, 480, 60.0)
    assert camera.fx == pytest.approx(320 / np.tan(np.pi / 6))
    assert intrinsics_from_message(intrinsics_to_message(camera, 640, 480, Header()), 640, 480) == pytest.approx(camera)


def test_a_rectified_image_takes_the_projection_matrix():
    info = intrinsics_to_message(pinhole(640, 480, 60.0), 640, 480, Header())
    info.p = [500.0, 0, 300, 0, 0, 510, 200, 0, 0, 0, 1, 0]
    assert intrinsics_from_message(info, 640, 480, rectified=True) == pytest.approx((500, 510, 300, 200))


def test_an_uncalibrated_camera_has_no_intrinsics():
    assert intrinsics_from_message(CameraInfo(width=640, height=480), 640, 480) is None


def test_a_smaller_copy_of_the_image_sees_points_at_the_same_relative_place():
    info = intrinsics_to_message(pinhole(640, 480, 60.0), 640, 480, Header())
    big, small = intrinsics_from_message(info, 640, 480), intrinsics_from_message(info, 320, 240)
    x, z = 0.3, 2.0
    u_big, u_small = big.fx * x / z + big.cx, small.fx * x / z + small.cx
    assert (u_small + 0.5) / 320 == pytest.approx((u_big + 0.5) / 640)  # pixel centres are integers


def test_region_of_interest_and_binning_move_the_principal_point():
    info = intrinsics_to_message(pinhole(640, 480, 60.0), 640, 480, Header())
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 50, 320, 240
    camera = intrinsics_from_message(info, 320, 240)
    assert (camera.cx, camera.cy) == pytest.approx((319.5 - 100, 239.5 - 50))
    info.roi.x_offset = info.roi.y_offset = info.roi.width = info.roi.height = 0
    info.binning_x = info.binning_y = 2
    assert intrinsics_from_message(info, 320, 240).fx == pytest.approx(pinhole(640, 480, 60.0).fx / 2)


LENSES = {
    "plumb_bob": (-0.31, 0.11, 1.2e-3, -6e-4, -0.02),
    "rational_polynomial": (0.5, -0.2, 1e-4, 2e-4, 0.01, 0.8, -0.1, 0.02),
    "equidistant": (0.02, -0.01, 0.003, -0.001),
}


@pytest.mark.parametrize("model", LENSES)
def test_a_distorted_camera_with_region_of_interest_and_binning_sees_what_opencv_projects(model):
    """OpenCV projects onto the full sensor; the region is cut out and its pixels are binned afterwards."""
    info = intrinsics_to_message(pinhole(1280, 960, 70.0), 1280, 960, Header())
    info.distortion_model, info.d = model, list(LENSES[model])
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 200, 120, 800, 600
    info.binning_x = info.binning_y = 2
    points = np.random.default_rng(0).uniform([-0.8, -0.6, 2], [0.8, 0.6, 4], (30, 3))
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    full = project(points[:, None], np.zeros(3), np.zeros(3), np.reshape(info.k, (3, 3)), np.array(info.d))[0].reshape(-1, 2)
    expected = (full - [200, 120] + 0.5) / 2 - 0.5  # pixel centres are integers
    camera = camera_from_message(info, 400, 300)
    np.testing.assert_allclose(camera.project(points), expected, atol=1e-2)
    directions, known = camera.directions(expected)
    assert known.all()
    np.testing.assert_allclose(directions, points[:, :2] / points[:, 2:], atol=1e-5)


def test_rectified_images_have_no_distortion_and_unknown_models_are_refused():
    info = intrinsics_to_message(pinhole(640, 480, 60.0), 640, 480, Header())
    info.distortion_model, info.d = "plumb_bob", list(LENSES["plumb_bob"])
    assert camera_from_message(info, 640, 480).distorts
    assert not camera_from_message(info, 640, 480, rectified=True).distorts
    info.distortion_model = "thin_prism"
    with pytest.raises(ValueError, match="thin_prism.*rectified:=true"):
        camera_from_message(info, 640, 480)
    info.distortion_model, info.d = "equidistant", []
    assert camera_from_message(info, 640, 480).distorts  # a fisheye without coefficients is no pinhole


@pytest.mark.parametrize(
    "model, d, distorts",
    [("", [], False), ("", [0.0] * 5, False), ("plumb_bob", [], False), ("plumb_bob", [0.0] * 5, False),
     ("rational_polynomial", [0.0] * 8, False), ("equidistant", [], True), ("equidistant", [0.0] * 4, True)],
)  # fmt: skip
def test_the_distortion_model_says_what_a_lens_without_coefficients_is(model, d, distorts):
    info = vga(distortion_model=model, d=d)
    assert camera_from_message(info, 640, 480).distorts == distorts
    assert camera_from_message(info, 640, 480, rectified=True) == Camera(pinhole(640, 480, 60.0))


@pytest.mark.parametrize("model, d", [("thin_prism", []), ("thin_prism", [0.0] * 5), ("fisheye", [0.0] * 4), ("", [0.1, 0, 0, 0])])
def test_a_lens_of_unknown_kind_is_no_pinhole(model, d):
    info = vga(distortion_model=model, d=d)
    with pytest.raises(ValueError, match=f'distortion_model "{model}" .*expected one of plumb_bob, .*rectified:=true'):
        camera_from_message(info, 640, 480)
    assert not camera_from_message(info, 640, 480, rectified=True).distorts


def test_what_is_missing_or_assumed_is_remarked():
    assert camera_remarks(vga(), 640, 480) == [] and camera_from_message(vga(), 320, 240) is not None
    scaled = camera_remarks(vga(), 320, 240)
    assert len(scaled) == 1 and "the image has 320x240 pixels, CameraInfo describes 640x480: it is taken for a scaled copy" in scaled[0]
    binned = vga(binning_x=2, binning_y=2)
    assert camera_remarks(binned, 320, 240) == [] and "describes 320x240" in camera_remarks(binned, 640, 480)[0]
    odd = vga(width=641, height=481, binning_x=2, binning_y=2)
    assert camera_remarks(odd, 320, 240) == []  # half a pixel is lost in binning
    unsized = vga(width=0, height=0)
    assert camera_from_message(unsized, 320, 240).intrinsics == pinhole(640, 480, 60.0)
    assert "size of 0x0, expected the 320x240" in camera_remarks(unsized, 320, 240)[0]


@pytest.mark.parametrize("rectified, matrix, other", [(False, "k", "true"), (True, "p", "false")])
def test_an_uncalibrated_camera_is_named_by_the_matrix_that_is_looked_at(rectified, matrix, other):
    info = vga(**{matrix: [0.0] * (12 if rectified else 9)})
    assert camera_from_message(info, 640, 480, rectified) is None and camera_from_message(info, 640, 480, not rectified) is not None
    (remark,) = camera_remarks(info, 640, 480, rectified)
    for words in (f"CameraInfo.{matrix} has fx 0 and fy 0", 'no position, axes "ray"', f"publish CameraInfo.{matrix}", f"rectified:={other}"):
        assert words in remark
    assert camera_remarks(info, 640, 480, not rectified) == []


ODD = st.one_of(st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, -400.0, 400.0, 1e308, 5e-324]), st.floats())
SIZES = st.one_of(st.sampled_from([0, 1, 240, 320, 480, 640, 2**32 - 1]), st.integers(0, 2**32 - 1))


@settings(deadline=None, max_examples=300)
@given(st.data(), st.sampled_from(["", "plumb_bob", "rational_polynomial", "equidistant", "thin_prism"]), st.booleans())
def test_any_camera_info_is_a_camera_or_refused_in_words(data, model, rectified):
    info = vga(distortion_model=model, d=data.draw(st.lists(ODD, max_size=14)))
    for matrix, places in ((info.k, (0, 2, 4, 5)), (info.p, (0, 2, 5, 6))):
        for place in data.draw(st.sets(st.sampled_from(places))):
            matrix[place] = data.draw(ODD)
    for name in data.draw(st.sets(st.sampled_from(["width", "height", "binning_x", "binning_y"]))):
        setattr(info, name, data.draw(SIZES))
    for name in data.draw(st.sets(st.sampled_from(["width", "height", "x_offset", "y_offset"]))):
        setattr(info.roi, name, data.draw(SIZES))
    try:
        camera = camera_from_message(info, 640, 480, rectified)
    except ValueError as error:
        assert "CameraInfo" in str(error) or "expected" in str(error)
        return
    remarks = camera_remarks(info, 640, 480, rectified)
    assert camera is not None or len(remarks) == 1
    if camera is not None:
        assert np.isfinite(camera.intrinsics).all() and min(camera.intrinsics[:2]) > 0


def test_another_aspect_ratio_is_refused():
    info = intrinsics_to_message(pinhole(640, 480, 60.0), 640, 480, Header())
    with pytest.raises(ValueError, match="320x320 pixels, CameraInfo describes 640x480"):
        intrinsics_from_message(info, 320, 320)


@pytest.mark.parametrize("rectified, matrix, place", [(False, "k", 0), (False, "k", 4), (True, "p", 0), (True, "p", 5)])
@pytest.mark.parametrize("wrong", [-500.0, 0.0, np.nan, np.inf])
def test_impossible_focal_lengths_are_refused(rectified, matrix, place, wrong):
    info = vga()
    getattr(info, matrix)[place] = wrong
    with pytest.raises(ValueError, match=f"CameraInfo.{matrix} has .*positive focal lengths"):
        camera_from_message(info, 640, 480, rectified)


@pytest.mark.parametrize("d", [[0.1, np.nan, 0, 0, 0], [np.inf] * 5, [0.1, 0.2, 0.3]])
def test_coefficients_that_are_no_lens_are_refused(d):
    info = vga(distortion_model="plumb_bob", d=d)
    with pytest.raises(ValueError, match='"plumb_bob" has coefficients .*expected 0 or 4 or 5 finite numbers'):
        camera_from_message(info, 640, 480)
