"""Encoded pictures to arrays, without ROS: files, and the fields of image messages, whoever read them (rclpy, rosbags).

A message is anything with the fields of sensor_msgs/Image or CompressedImage. It is checked before it is converted, because
OpenCV would read past its rows or guess silently.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hmr_ros.io.encoded import imdecode
from hmr_ros.io.report import ReadReport, printable

# encoding: (bytes per pixel, OpenCV's conversion to BGR), names of sensor_msgs/image_encodings.hpp
ENCODINGS = {
    "bgr8": (3, None),
    "8UC3": (3, None),  # OpenCV's own order, as in cv_bridge
    "rgb8": (3, cv2.COLOR_RGB2BGR),
    "bgra8": (4, cv2.COLOR_BGRA2BGR),
    "rgba8": (4, cv2.COLOR_RGBA2BGR),
    "mono8": (1, cv2.COLOR_GRAY2BGR),
    "8UC1": (1, cv2.COLOR_GRAY2BGR),
    "yuv422": (2, cv2.COLOR_YUV2BGR_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2BGR_YUYV),
    "yuyv": (2, cv2.COLOR_YUV2BGR_YUYV),
}
DEPTH_ENCODINGS = {"16UC1": ("u2", 1e-3), "mono16": ("u2", 1e-3), "32FC1": ("f4", 1.0)}  # type, metres a unit (REP 118)
COMPRESSED_FORMATS = ("jpeg", "jpg", "png")


def read_picture(path: Path, report: ReadReport | None = None) -> np.ndarray:
    """Decode a file to uint8 (H, W, 3) BGR, upright. ValueError if OpenCV cannot; OSError if it cannot be opened.

    Values of more than 8 bits are stretched by the bit depth that holds the largest of them; ``report`` gets a note of it.
    """
    data = np.fromfile(path, np.uint8)
    picture = imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if picture is None:
        raise ValueError(f"{printable(path)} ({data.size} bytes) cannot be decoded, expected a picture")
    if report is not None and (cut := what_is_missing(data.tobytes())):
        report.damaged += 1
        report.note(f"{printable(path.name)}: {cut}")
    if picture.dtype == np.uint8:
        return picture
    if picture.dtype != np.uint16:
        raise ValueError(f"{printable(path)} has {picture.dtype} values, expected 8 or 16 bits; convert it first")
    depth = bit_depth_of(picture)
    if report is not None:
        report.note(f"{printable(path.name)}: 16-bit values read as {depth}-bit (largest {picture.max()})")
    return to_8bit(picture, depth)


def what_is_missing(data: bytes) -> str:
    """Why an encoded picture is not whole, in words; "" for a whole one. Decoders fill the rest of a cut JPEG or PNG with grey."""
    if data.startswith(b"\x89PNG"):
        return "" if b"IEND" in data[-64:] or b"IEND" in data else "the PNG is cut, its end is missing"
    if not data.startswith(b"\xff\xd8"):
        return ""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":  # segments before the scan may hold a thumbnail of their own
        at += 2 + max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
    return "" if data.find(b"\xff\xd9", at) >= 0 else "the JPEG is cut, its end is missing"


def bit_depth_of(values: np.ndarray) -> int:
    """The bit depth of a sensor that gives these 16-bit values: the smallest usual one that holds the largest of them."""
    largest = int(values.max(initial=0))
    return next(depth for depth in (8, 10, 12, 14, 16) if largest < 2**depth)


def to_8bit(values: np.ndarray, bit_depth: int) -> np.ndarray:
    """uint16 values of ``bit_depth`` bits → uint8 of the same shape: 2^bit_depth - 1 and above become 255."""
    return cv2.convertScaleAbs(values, alpha=255.0 / (2**bit_depth - 1)).reshape(values.shape)


def image_from_message(message) -> np.ndarray:
    """sensor_msgs/Image → uint8 (H, W, 3) BGR; it may share memory with the message.

    ``step`` is honoured (rows may be padded), ``is_bigendian`` says nothing about single bytes. Raises ValueError for a
    message that contradicts itself or has an encoding that is no 8-bit picture.
    """
    rows = checked_rows(message)
    channels, conversion = ENCODINGS[message.encoding]
    pixels = np.ascontiguousarray(rows).reshape(rows.shape[0], -1, channels)
    return pixels if conversion is None else cv2.cvtColor(pixels, conversion)


def compressed_image_from_message(message) -> np.ndarray:
    """sensor_msgs/CompressedImage (jpeg or png) → uint8 (H, W, 3) BGR.

    ``format`` is one of "jpeg", "png" or image_transport's "rgb8; jpeg compressed bgr8". Orientation tags are ignored:
    camera_info describes the pixels as they are stored. Raises ValueError for anything else and for broken data.
    """
    words = message.format.lower().replace(";", " ").split()
    if "compresseddepth" in words or not any(name in words for name in COMPRESSED_FORMATS):
        raise ValueError(
            f'compressed image has format "{message.format}", expected jpeg or png (for example "jpeg" or '
            '"rgb8; jpeg compressed bgr8"); choose another transport on the camera\'s side'
        )
    data = np.frombuffer(message.data, np.uint8)
    if data.size == 0:
        raise ValueError(f'compressed image ("{message.format}") has no data, expected an encoded picture')
    image = imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError(
            f'compressed image ("{message.format}", {data.size} bytes, starting {bytes(data[:4]).hex(" ")}) cannot be '
            "decoded, expected a whole jpeg or png; look for lost fragments between camera and node"
        )
    return image


def depth_from_message(message) -> np.ndarray:
    """sensor_msgs/Image with 16UC1 (millimetres) or 32FC1 (metres) → float32 (H, W) metres, 0 where unknown (REP 118).

    ``step`` and ``is_bigendian`` are honoured. Raises ValueError for another encoding or a message that contradicts itself.
    """
    if message.encoding not in DEPTH_ENCODINGS:
        raise ValueError(f'depth image has encoding "{message.encoding}", expected one of {", ".join(DEPTH_ENCODINGS)}')
    kind, unit = DEPTH_ENCODINGS[message.encoding]
    kind = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    width, height, step = message.width, message.height, message.step
    if width == 0 or height == 0 or step < width * kind.itemsize or len(message.data) < height * step:
        raise ValueError(f"depth image of {width}x{height} {message.encoding} has step {step}, {len(message.data)} bytes, "
                         f"expected a step of {width * kind.itemsize} or more and height * step bytes")  # fmt: skip
    rows = np.frombuffer(message.data, np.uint8, height * step).reshape(height, step)[:, : width * kind.itemsize]
    depth = np.ascontiguousarray(rows).view(kind).astype(np.float32) * np.float32(unit)
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def checked_rows(message) -> np.ndarray:
    """The message's pixels as (H, W * bytes per pixel) view without the padding; ValueError if it is malformed."""
    if message.encoding not in ENCODINGS:
        raise ValueError(f'image has encoding "{message.encoding}", expected one of {", ".join(ENCODINGS)}; '
                         "convert it on the camera's side (image_proc)")  # fmt: skip
    width, height, step = message.width, message.height, message.step
    row_bytes = width * ENCODINGS[message.encoding][0]
    if width == 0 or height == 0:
        raise ValueError(f"image has {width}x{height} pixels, expected at least 1x1; check the camera driver")
    if step < row_bytes:
        raise ValueError(f"image has step {step}, expected at least {row_bytes} bytes for {width} pixels of "
                         f"{message.encoding}; check width, encoding and step in the camera driver")  # fmt: skip
    if len(message.data) < height * step:
        raise ValueError(f"image has {len(message.data)} bytes of data, expected height * step = {height} * {step} = "
                         f"{height * step}; check the camera driver for cut frames")  # fmt: skip
    if ENCODINGS[message.encoding][0] == 2 and width % 2:
        raise ValueError(f"image has an odd width of {width}, expected an even one: {message.encoding} stores pixels in "
                         "pairs")  # fmt: skip
    data = np.frombuffer(message.data, np.uint8, height * step)
    return data.reshape(height, step)[:, :row_bytes]
