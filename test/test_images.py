"""Image messages to BGR and back, against OpenCV and against arithmetic; malformed messages are refused precisely."""

import sys
from array import array

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from hmr_ros.geometry import pinhole  # noqa: E402
from hmr_ros.io.decode import compressed_image_from_message, depth_from_message, image_from_message  # noqa: E402
from hmr_ros.ros.inputs import (  # noqa: E402
    EVERYDAY,
    ImageConverter,
    image_to_message,
    camera_from_message,
    intrinsics_from_message,
    intrinsics_to_message,
)

TO_BGR = {
    "bgr8": lambda p: p,
    "8UC3": lambda p: p,
    "rgb8": lambda p: p[..., ::-1],
    "bgra8": lambda p: p[..., :3],
    "rgba8": lambda p: p[..., 2::-1],
    "mono8": lambda p: np.repeat(p, 3, axis=2),
    "8UC1": lambda p: np.repeat(p, 3, axis=2),
}
CHANNELS = {"bgr8": 3, "8UC3": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4, "mono8": 1, "8UC1": 1}


def message(pixels, encoding, padding=0, extra=0):
    """Image message of (H, W, C) bytes with ``padding`` bytes after each row and ``extra`` after the last."""
    height, width, channels = pixels.shape
    rows = np.full((height, width * channels + padding), 0xA5, np.uint8)
    rows[:, : width * channels] = pixels.reshape(height, -1)
    data = array("B", rows.tobytes() + b"\x5a" * extra)
    return Image(height=height, width=width, encoding=encoding, step=rows.shape[1], data=data)


@settings(deadline=None)
@given(
    encoding=st.sampled_from(sorted(CHANNELS)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    padding=st.integers(0, 7),
    extra=st.integers(0, 3),
    bigendian=st.integers(0, 1),
    seed=st.integers(0, 1000),
)
def test_pixels_arrive_whatever_the_padding(encoding, size, padding, extra, bigendian, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, CHANNELS[encoding]), dtype=np.uint8)
    sent = message(pixels, encoding, padding, extra)
    sent.is_bigendian = bigendian
    received = image_from_message(sent)
    assert received.dtype == np.uint8 and received.flags.c_contiguous
    np.testing.assert_array_equal(received, TO_BGR[encoding](pixels))


@pytest.mark.parametrize("encoding, order", [("yuv422", "UYVY"), ("uyvy", "UYVY"), ("yuv422_yuy2", "YUYV"), ("yuyv", "YUYV")])
def test_yuv422_follows_bt601(encoding, order):
    y = np.array([[16, 81, 145, 235], [41, 106, 170, 210]], np.float64)
    u = np.array([[128, 90], [240, 110]], np.float64)
    v = np.array([[128, 240], [110, 146]], np.float64)
    pairs = {"Y": y, "U": np.repeat(u, 2, 1), "V": np.repeat(v, 2, 1)}
    first, second = order[0], order[1]
    pixels = np.zeros((2, 4, 2), np.uint8)
    chroma = np.stack([u, v], -1).reshape(2, 4)
    pixels[..., 0], pixels[..., 1] = (chroma, y) if first == "U" else (y, chroma)
    assert second in "YU"
    luma, cb, cr = 1.164 * (pairs["Y"] - 16), pairs["U"] - 128, pairs["V"] - 128  # BT.601, studio range
    expected = np.stack([luma + 2.018 * cb, luma - 0.391 * cb - 0.813 * cr, luma + 1.596 * cr], -1).clip(0, 255)
    received = image_from_message(message(pixels, encoding, padding=3))
    np.testing.assert_allclose(received, expected, atol=2)  # fixed-point arithmetic in OpenCV


def test_a_picture_survives_the_way_there_and_back():
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    header = Header(frame_id="camera")
    sent = image_to_message(picture[:, ::-1], header)
    assert sent.header == header and sent.step == 15 and sent.encoding == "bgr8"
    np.testing.assert_array_equal(image_from_message(sent), picture[:, ::-1])


def test_writing_refuses_what_is_no_bgr_picture():
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8"):
            image_to_message(wrong, Header())


def good():
    return message(np.zeros((4, 6, 3), np.uint8), "bgr8")


@pytest.mark.parametrize(
    "break_it, words",
    [
        (lambda m: setattr(m, "data", m.data[:-1]), "71 bytes of data.*4 \\* 18 = 72"),
        (lambda m: setattr(m, "data", array("B")), "0 bytes of data"),
        (lambda m: setattr(m, "step", 17), "step 17.*at least 18"),
        (lambda m: setattr(m, "step", 0), "step 0"),
        (lambda m: setattr(m, "width", 0), "0x4 pixels"),
        (lambda m: setattr(m, "height", 0), "6x0 pixels"),
        (lambda m: setattr(m, "encoding", "16UC1"), 'encoding "16UC1".*bgr8'),
        (lambda m: setattr(m, "encoding", "bayer_rggb8"), "image_proc"),
        (lambda m: setattr(m, "encoding", ""), 'encoding ""'),
        (lambda m: setattr(m, "height", 2**31), "bytes of data"),
        (lambda m: (setattr(m, "encoding", "yuyv"), setattr(m, "width", 5)), "odd width of 5"),
    ],
)
def test_malformed_images_are_refused_with_what_was_found_and_expected(break_it, words):
    broken = good()
    break_it(broken)
    with pytest.raises(ValueError, match=words):
        image_from_message(broken)


def encoded(suffix, format, picture):
    return CompressedImage(format=format, data=array("B", cv2.imencode(suffix, picture)[1].tobytes()))


@pytest.mark.parametrize("format", ["png", "bgr8; png compressed bgr8", "PNG"])
def test_png_arrives_exactly(format):
    picture = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(compressed_image_from_message(encoded(".png", format, picture)), picture)


@pytest.mark.parametrize("format", ["jpeg", "jpg", "rgb8; jpeg compressed bgr8", "mono8; jpeg compressed "])
def test_jpeg_arrives_with_its_colours_in_place(format):
    picture = np.full((16, 16, 3), (200, 120, 40), np.uint8)
    received = compressed_image_from_message(encoded(".jpg", format, picture))
    np.testing.assert_allclose(received, picture, atol=4)  # lossy


def test_orientation_tags_do_not_turn_the_pixels():
    picture = np.zeros((16, 32, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: turn by 90 degrees
    tagged = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    assert cv2.imdecode(np.frombuffer(tagged, np.uint8), cv2.IMREAD_COLOR).shape == (32, 16, 3)  # the tag is understood
    received = compressed_image_from_message(CompressedImage(format="jpeg", data=array("B", tagged)))
    assert received.shape == (16, 32, 3)


@pytest.mark.parametrize(
    "format, data, words",
    [
        ("jpeg", b"", "no data"),
        ("jpeg", b"\xff\xd8\xff\xe0 cut", "starting ff d8 ff e0.*cannot be decoded"),
        ("png", b"nonsense", "cannot be decoded"),
        ("h264", b"\0\0\0\1", 'format "h264", expected jpeg or png'),
        ("16UC1; compressedDepth png", b"\0" * 20, "compressedDepth"),
    ],
)
def test_broken_compressed_images_are_refused(format, data, words):
    with pytest.raises(ValueError, match=words):
        compressed_image_from_message(CompressedImage(format=format, data=array("B", data)))


CV_BRIDGES = {
    "right": "def convert(p, e): return {'bgr8': p, 'rgb8': p[..., ::-1], 'mono8': p.repeat(3, 2)}[e]",
    "right but for mono8": "def convert(p, e): return {'bgr8': p, 'rgb8': p[..., ::-1]}[e]",
    "swaps colours": "def convert(p, e): return p[..., ::-1]",
    "raises": "def convert(p, e): raise AttributeError('tostring')",
    "crashes": "import os\ndef convert(p, e): os.abort()",
    "cannot be imported": "raise ImportError('numpy.core.multiarray failed to import')",
}


@pytest.fixture
def installed_cv_bridge(tmp_path, monkeypatch):
    """Installs a cv_bridge of one of these kinds; its module counts what it converted."""

    def install(kind):
        (tmp_path / "cv_bridge.py").write_text(
            f"{CV_BRIDGES[kind]}\nimport numpy as np\nconverted = []\nclass CvBridge:\n    def imgmsg_to_cv2(self, m, desired_encoding):\n"
            "        converted.append(m.encoding)\n"
            "        p = np.frombuffer(m.data, np.uint8).reshape(m.height, m.width, -1)\n"
            "        return np.ascontiguousarray(convert(p, m.encoding))\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)

    yield install
    sys.modules.pop("cv_bridge", None)


@pytest.mark.parametrize("kind, expected", [("right", EVERYDAY), ("right but for mono8", set()),
                                            ("swaps colours", set()), ("raises", set()),
                                            ("crashes", set()), ("cannot be imported", set())])  # fmt: skip
def test_cv_bridge_is_used_only_if_it_converts_right(installed_cv_bridge, kind, expected):
    installed_cv_bridge(kind)
    convert = ImageConverter()
    assert convert.bridged == expected
    assert str(convert).startswith("cv_bridge (bgr8, mono8, rgb8)" if expected else "OpenCV")
    pixels = np.random.default_rng(1).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    for encoding in ("bgr8", "rgb8", "8UC3"):
        for padding in (0, 2):
            np.testing.assert_array_equal(convert(message(pixels, encoding, padding)), TO_BGR[encoding](pixels))
    picture = encoded(".png", "png", pixels)
    np.testing.assert_array_equal(convert(picture), pixels)
    if expected:  # not the padded ones, which cv_bridge would not read right, nor those that it was not found to convert
        assert sys.modules["cv_bridge"].converted == ["bgr8", "rgb8"]


def test_cv_bridge_gets_no_malformed_message(installed_cv_bridge):
    installed_cv_bridge("right")
    convert, broken = ImageConverter(), good()
    broken.data = broken.data[:-1]
    with pytest.raises(ValueError, match="71 bytes of data"):
        convert(broken)
    assert sys.modules["cv_bridge"].converted == []


def test_without_cv_bridge_opencv_converts(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    convert = ImageConverter()
    assert (convert.bridged, str(convert)) == (frozenset(), "OpenCV")
    np.testing.assert_array_equal(convert(good()), np.zeros((4, 6, 3), np.uint8))


def test_the_installed_cv_bridge_agrees_on_every_encoding_given_to_it():
    """Only those: cv_bridge refuses 8UC1 and 8UC3 as colours."""
    pytest.importorskip("cv_bridge", exc_type=ImportError, reason="comes with a ROS 2 installation")
    convert, rng = ImageConverter(), np.random.default_rng(3)
    for encoding in convert.bridged & CHANNELS.keys():
        sent = message(rng.integers(0, 256, (48, 64, CHANNELS[encoding]), dtype=np.uint8), encoding)
        np.testing.assert_array_equal(convert(sent), image_from_message(sent))


# ---- CameraInfo -----------------------------------------------------------------------------------------------------


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
    info.d = [0.0] * 5
    assert not camera_from_message(info, 640, 480).distorts
    info.distortion_model, info.d = "equidistant", []
    assert camera_from_message(info, 640, 480).distorts  # a fisheye without coefficients is no pinhole


def test_another_aspect_ratio_is_refused():
    info = intrinsics_to_message(pinhole(640, 480, 60.0), 640, 480, Header())
    with pytest.raises(ValueError, match="320x320 pixels, CameraInfo describes 640x480"):
        intrinsics_from_message(info, 320, 320)


def test_impossible_focal_lengths_are_refused():
    info = intrinsics_to_message(pinhole(640, 480, 60.0), 640, 480, Header())
    for wrong in (-500.0, float("nan")):
        info.k[0] = wrong
        with pytest.raises(ValueError, match="positive focal lengths"):
            intrinsics_from_message(info, 640, 480)


@pytest.mark.parametrize("encoding, kind, values", [
    ("16UC1", ">u2", (1500, 0, 65535)), ("16UC1", "<u2", (1500, 0, 65535)), ("32FC1", "<f4", (1.5, np.nan, 65.535)),
    ("32FC1", ">f4", (1.5, -1, 65.535)),
])  # fmt: skip
def test_depth_images_become_metres_with_zero_for_unknown(encoding, kind, values):
    rows = np.array([values, values[::-1]], kind)
    padded = np.concatenate([rows.view(np.uint8), np.full((2, 4), 255, np.uint8)], axis=1)
    message = Image(height=2, width=3, encoding=encoding, step=padded.shape[1], is_bigendian=int(kind[0] == ">"))
    message.data = array("B", padded.tobytes())
    depth = depth_from_message(message)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, [[1.5, 0, 65.535], [65.535, 0, 1.5]], rtol=1e-6)


@pytest.mark.parametrize("field, value, words", [
    ("encoding", "bgr8", 'encoding "bgr8".*16UC1'), ("step", 5, "step 5.*step of 6 or more"), ("height", 3, "12 bytes"),
])  # fmt: skip
def test_malformed_depth_images_are_refused(field, value, words):
    message = Image(height=2, width=3, encoding="16UC1", step=6, data=array("B", bytes(12)))
    setattr(message, field, value)
    with pytest.raises(ValueError, match=words):
        depth_from_message(message)
