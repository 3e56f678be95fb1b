"""CompressedImage messages to BGR by what their format declares; depth, contradictions and broken data are refused in words."""

from array import array

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
from image_messages import RAMP, encoded, in_bits, mosaic  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402

from hmr_ros.io.decode import compressed_image_from_message  # noqa: E402


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
        ("", b"\0\0\0\1", 'format "", expected jpeg or png'),
        ("16UC1; compressedDepth png", b"\0" * 20, "compressedDepth"),
    ],
)
def test_broken_compressed_images_are_refused(format, data, words):
    with pytest.raises(ValueError, match=words):
        compressed_image_from_message(CompressedImage(format=format, data=array("B", data)))


RGB = RAMP[..., ::-1]  # as bytes of an rgb8 image


GREY = np.repeat(RAMP[..., 1:2], 3, 2)


@pytest.mark.parametrize(
    "suffix, format, stored, expected, tolerance",
    [  # what image_transport_plugins' compressed_publisher writes; 16-bit values have 12 bits; jpeg is lossy, mosaics see test_images.py
        (".png", "mono8; png compressed ", RAMP[..., 1], GREY, 0),
        (".png", "mono16; png compressed ", in_bits(RAMP[..., 1], 12), GREY, 0),
        (".png", "mono16; png compressed mono16", in_bits(RAMP[..., 1], 12), GREY, 0),
        (".png", "bgr16; png compressed bgr16", in_bits(RAMP, 12), RAMP, 0),
        (".png", "rgb16; png compressed bgr16", in_bits(RAMP, 12), RAMP, 0),
        (".png", "rgba16; png compressed bgr16", in_bits(RAMP, 12), RAMP, 0),
        (".png", "rgb8; png compressed rgb8", RGB, RAMP, 0),  # RGB handed to OpenCV as it is
        (".png", "bayer_rggb8; png compressed ", mosaic(RAMP, "rggb"), RAMP, 2),
        (".png", "bayer_grbg8; png compressed bayer_grbg8", mosaic(RAMP, "grbg"), RAMP, 2),
        (".png", "bayer_gbrg16; png compressed ", in_bits(mosaic(RAMP, "gbrg"), 12), RAMP, 2),
        (".png", "bayer_rggb8; png compressed bgr8", RAMP, RAMP, 0),
        (".jpg", "bayer_rggb8; jpeg compressed bgr8", RAMP, RAMP, 6),
        (".jpg", "bayer_rggb8; jpeg compressed mono8", RAMP[..., 1], GREY, 4),
        (".jpg", "yuv422_yuy2; jpeg compressed bgr8", RAMP, RAMP, 6),
        (".tiff", "bgr8; tiff compressed ", RAMP, RAMP, 0),
        (".tiff", "rgb8; tiff compressed ", RGB, RAMP, 0),
        (".tiff", "rgba8; tiff compressed ", np.dstack([RGB, RAMP[..., :1]]), RAMP, 0),
        (".tiff", "rgb16; tiff compressed ", in_bits(RGB, 12), RAMP, 0),
        (".tiff", "mono16; tiff compressed ", in_bits(RAMP[..., 1], 12), GREY, 0),
        (".tiff", "bayer_bggr8; tiff compressed ", mosaic(RAMP, "bggr"), RAMP, 2),
        (".tiff", "tiff", RAMP, RAMP, 0),
        (".png", "png", in_bits(RAMP, 12), RAMP, 0),  # three channels are no depth
        (".png", "png", np.dstack([RAMP, RAMP[..., :1]]), RAMP, 0),
    ],
)
def test_compressed_images_are_what_their_format_declares(suffix, format, stored, expected, tolerance):
    received = compressed_image_from_message(encoded(suffix, format, stored), bit_depth=12)
    assert received.dtype == np.uint8
    np.testing.assert_allclose(received.astype(int), expected, atol=tolerance)


DEPTH = np.full((4, 6), 1500, np.uint16)


@pytest.mark.parametrize(
    "suffix, format, stored, words",
    [
        (".png", "16UC1; png compressed ", DEPTH, "16UC1.*is depth.*mono16.*bit_depth"),
        (".tiff", "32FC1; tiff compressed ", DEPTH.astype(np.float32), "32FC1.*is depth"),
        (".jpg", "16UC1; jpeg compressed mono8", RAMP[..., 0], "is depth"),
        (".png", "png", DEPTH, 'format "png" and 16-bit values, which may be depth; .*mono16; png compressed'),
        (".png", "jpeg", DEPTH, "may be depth"),
        (".png", "16SC1; png compressed ", DEPTH, "may be depth"),
        (".png", "mono8; png compressed ", DEPTH, "16-bit values, expected 8-bit ones"),
        (".png", "rgb8; png compressed bgr8", in_bits(RAMP, 16), "16-bit values, expected 8-bit ones"),
        (".tiff", "tiff", DEPTH.astype(np.float32), "float32 values, expected 8 or 16 bits"),
        (".jpg", "mono16; jpeg compressed mono8", RAMP[..., 0], "of a 12-bit picture 4 bits are left, expected 16-bit.*png"),
        (".png", "bayer_rggb8; png compressed ", RAMP[:2, :, 0], "23x2 pixels, expected at least 3x3"),
    ],
)
def test_compressed_images_that_are_no_picture_are_refused(suffix, format, stored, words):
    with pytest.raises(ValueError, match=words):
        compressed_image_from_message(encoded(suffix, format, stored), bit_depth=12)


def test_a_16_bit_picture_that_jpeg_has_made_8_bits_is_that_picture():
    sent = encoded(".jpg", "mono16; jpeg compressed mono8", RAMP[..., 0])
    np.testing.assert_allclose(compressed_image_from_message(sent)[..., 1].astype(int), RAMP[..., 0], atol=4)
