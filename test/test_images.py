"""Image messages to BGR and back, against OpenCV and against arithmetic; malformed messages are refused precisely."""

import sys
from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")
from image_messages import CHANNELS, RAMP, TO_BGR, encoded, in_bits, message, mosaic, wide_message  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from hmr_ros.io.decode import ENCODINGS, compressed_image_from_message, depth_from_message, image_from_message, to_8bit  # noqa: E402
from hmr_ros.ros.inputs import EVERYDAY, ImageConverter, agreeing_encodings, image_remarks, image_to_message  # noqa: E402


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
        (lambda m: setattr(m, "encoding", "16UC1"), "16UC1.*depth.*mono16.*bit_depth"),
        (lambda m: setattr(m, "encoding", "32FC1"), "32FC1.*depth"),
        (lambda m: setattr(m, "encoding", "16SC1"), "image_proc"),
        (lambda m: (setattr(m, "encoding", "mono16"), setattr(m, "step", 11)), "step 11.*at least 12"),
        (lambda m: (setattr(m, "encoding", "bayer_rggb8"), setattr(m, "height", 2)), "6x2 pixels.*at least 3x3"),
        (lambda m: (setattr(m, "encoding", "bayer_grbg16"), setattr(m, "width", 1)), "1x4 pixels.*at least 3x3"),
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


# ---- 16 bits and mosaics --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("bits", range(8, 17))
def test_each_bit_depth_gives_the_8_bit_picture_back(bits):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for dtype in ("<u2", ">u2"):
        np.testing.assert_array_equal(to_8bit(in_bits(grey, bits).astype(dtype), bits), grey)
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(to_8bit(every, bits), np.minimum(np.rint(every * (255 / (2**bits - 1))), 255))


def test_what_has_no_bit_depth_is_refused():
    with pytest.raises(ValueError, match="uint8, expected uint16"):
        to_8bit(np.zeros((2, 2), np.uint8))
    for bits in (7, 17):
        with pytest.raises(ValueError, match=f"bit_depth is {bits}, expected 8 to 16"):
            to_8bit(np.zeros((2, 2), np.uint16), bits)


@settings(deadline=None)
@given(
    encoding=st.sampled_from(["mono16", "bgr16", "rgb16", "bgra16", "rgba16"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    padding=st.integers(0, 7),
    bigendian=st.booleans(),
    bits=st.integers(8, 16),
    seed=st.integers(0, 1000),
)
def test_16_bit_pixels_arrive_whatever_padding_byte_order_and_bit_depth(encoding, size, padding, bigendian, bits, seed):
    eight = encoding.replace("16", "8")
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, CHANNELS[eight]), dtype=np.uint8)
    received = image_from_message(wide_message(in_bits(pixels, bits), encoding, padding, bigendian), bit_depth=bits)
    assert received.dtype == np.uint8 and received.flags.c_contiguous
    np.testing.assert_array_equal(received, TO_BGR[eight](pixels))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("size", [(17, 23), (16, 22), (3, 3), (3, 22)])
def test_mosaics_become_the_picture_that_they_were_taken_from(pattern, size):
    """Interpolation is exact on a ramp but for rounding, and for the outermost pixels, which copy their neighbours: 2 levels."""
    picture = RAMP[: size[0], : size[1]]
    pixels = mosaic(picture, pattern)
    eight = image_from_message(message(pixels[..., None], f"bayer_{pattern}8", padding=5))
    np.testing.assert_allclose(eight.astype(int), picture, atol=2)
    for bigendian in (False, True):
        wide = wide_message(in_bits(pixels, 12), f"bayer_{pattern}16", 3, bigendian)
        np.testing.assert_array_equal(image_from_message(wide, bit_depth=12), eight)


def test_bit_depth_says_nothing_about_8_bit_images():
    np.testing.assert_array_equal(image_from_message(message(RAMP, "bgr8"), bit_depth=12), RAMP)
    np.testing.assert_array_equal(compressed_image_from_message(encoded(".png", "png", RAMP), bit_depth=12), RAMP)


def test_the_converter_passes_its_bit_depth_on():
    convert, grey = ImageConverter(bit_depth=12), RAMP[..., 0]
    for sent in (wide_message(in_bits(grey, 12), "mono16"), encoded(".png", "mono16; png compressed ", in_bits(grey, 12))):
        np.testing.assert_array_equal(convert(sent), np.repeat(grey[..., None], 3, 2))


def test_16_bit_images_that_come_out_nearly_black_are_remarked():
    values = in_bits(RAMP[..., 0], 12)
    for sent in (wide_message(values, "mono16"), encoded(".png", "mono16; png compressed ", values)):
        assert "bit_depth 16" in image_remarks(sent, ImageConverter()(sent), 16)[0]
        assert image_remarks(sent, ImageConverter(bit_depth=12)(sent), 12) == []
    night = message(np.zeros((8, 8, 3), np.uint8), "bgr8")
    assert image_remarks(night, image_from_message(night), 16) == []


# ---- cv_bridge ------------------------------------------------------------------------------------------------------

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


def test_cv_bridge_gets_no_16_bit_images_because_it_knows_no_bit_depth(monkeypatch):
    monkeypatch.setattr("hmr_ros.ros.inputs._cv_bridge", lambda: image_from_message)  # it agrees on everything
    assert agreeing_encodings() == [name for name, encoding in ENCODINGS.items() if encoding.bits == 8]


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


# ---- depth ----------------------------------------------------------------------------------------------------------


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
