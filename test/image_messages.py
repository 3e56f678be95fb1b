"""Image messages for tests, made of arrays with numpy; only the codecs are OpenCV's."""

from array import array

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

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


def encoded(suffix, format, picture):
    return CompressedImage(format=format, data=array("B", cv2.imencode(suffix, picture)[1].tobytes()))


# uint8 BGR with a colour of its own in each channel, and few levels between neighbours
RAMP = np.stack(np.broadcast_arrays(40 + np.arange(23)[None], 120 + np.arange(17)[:, None], 210 - np.arange(23)[None]), -1).astype(np.uint8)


def in_bits(picture, bits):
    """uint8 as ``bits``-bit values in uint16; :func:`to_8bit` has to give the same picture back, exactly."""
    return np.rint(picture * ((2**bits - 1) / 255)).astype(np.uint16)


def mosaic(picture, pattern):
    """(H, W) of a BGR picture: at each pixel the one colour that ``pattern``, such as "rggb", has there. Written without OpenCV."""
    y, x = np.indices(picture.shape[:2])
    colours = np.array([["bgr".index(pattern[2 * row + column]) for column in (0, 1)] for row in (0, 1)])
    return np.take_along_axis(picture, colours[y % 2, x % 2][..., None], -1)[..., 0]


def wide_message(values, encoding, padding=0, bigendian=False):
    """Image message of uint16 (H, W) or (H, W, C)."""
    sent = message(values.reshape(*values.shape[:2], -1).astype(">u2" if bigendian else "<u2").view(np.uint8), encoding, padding)
    sent.is_bigendian = int(bigendian)
    return sent
