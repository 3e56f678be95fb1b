"""ROS image messages to OpenCV images and back: the one place of the package that converts them.

Every message is checked before it is converted, because both paths below would read past rows or guess silently. The
path is cv_bridge for the encodings that it converts exactly as OpenCV does here, found out once in a process of its own
(a cv_bridge built for another numpy does not only raise, it can crash), otherwise ``np.frombuffer``.
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from array import array

import cv2
import numpy as np

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
EVERYDAY = {"bgr8", "rgb8", "mono8"}  # a cv_bridge that gets one of these wrong is not trusted with anything
DEPTH_ENCODINGS = {"16UC1": ("u2", 1e-3), "mono16": ("u2", 1e-3), "32FC1": ("f4", 1.0)}  # type, metres a unit (REP 118)
COMPRESSED_FORMATS = ("jpeg", "jpg", "png")


def image_from_message(message) -> np.ndarray:
    """sensor_msgs/Image → uint8 (H, W, 3) BGR; it may share memory with the message.

    ``step`` is honoured (rows may be padded), ``is_bigendian`` says nothing about single bytes. Raises ValueError for a
    message that contradicts itself or has an encoding that is no 8-bit picture.
    """
    rows = _checked_rows(message)
    if message.encoding in _bridged_encodings() and rows.strides[0] == rows.shape[1]:
        return _through_cv_bridge(message)
    return _through_opencv(rows, message.encoding)


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
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # for example a size beyond OpenCV's limit
        image = None
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


def image_to_message(image: np.ndarray, header):
    """uint8 (H, W, 3) BGR → sensor_msgs/Image "bgr8" with ``header``."""
    from sensor_msgs.msg import Image

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image is {image.dtype} {image.shape}, expected uint8 (H, W, 3)")
    data = array("B")
    data.frombytes(np.ascontiguousarray(image).data)  # an ndarray would be copied element by element
    height, width = image.shape[:2]
    return Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width, data=data)


def _checked_rows(message) -> np.ndarray:
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


def _through_opencv(rows: np.ndarray, encoding: str) -> np.ndarray:
    channels, conversion = ENCODINGS[encoding]
    pixels = np.ascontiguousarray(rows).reshape(rows.shape[0], -1, channels)
    return pixels if conversion is None else cv2.cvtColor(pixels, conversion)


def _through_cv_bridge(message) -> np.ndarray:
    from cv_bridge import CvBridge

    return CvBridge().imgmsg_to_cv2(message, desired_encoding="bgr8")


@functools.lru_cache(maxsize=1)
def _bridged_encodings() -> frozenset[str]:
    """The encodings that the installed cv_bridge converts exactly as OpenCV does here; empty without a working one."""
    if importlib.util.find_spec("cv_bridge") is None:
        return frozenset()
    probe = (
        f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import _agreeing_encodings; "
        "print('cv_bridge agrees:', *_agreeing_encodings())"
    )
    try:
        answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    lines = [line for line in answer.stdout.splitlines() if line.startswith("cv_bridge agrees:")]
    agreeing = frozenset(lines[-1].split()[2:]) if answer.returncode == 0 and lines else frozenset()
    return agreeing if agreeing >= EVERYDAY else frozenset()


def _agreeing_encodings() -> list[str]:
    """Convert a small random picture of each encoding both ways (runs in the probe's process)."""
    from sensor_msgs.msg import Image

    agreeing = []
    for encoding, (channels, _) in ENCODINGS.items():
        data = np.random.default_rng(0).integers(0, 256, (4, 6 * channels), dtype=np.uint8)
        message = Image(height=4, width=6, encoding=encoding, step=6 * channels, data=array("B", data.tobytes()))
        try:
            bridged = _through_cv_bridge(message)
        except Exception:  # whatever a broken or older cv_bridge raises: our own conversion serves
            continue
        own = _through_opencv(_checked_rows(message), encoding)
        if isinstance(bridged, np.ndarray) and bridged.dtype == np.uint8 and np.array_equal(bridged, own):
            agreeing.append(encoding)
    return agreeing


def conversion_path() -> str:
    """For diagnostics and start-up: who converts, in words. Runs the probe, so that the first frame need not wait."""
    bridged = _bridged_encodings()
    return f"cv_bridge ({', '.join(sorted(bridged))}), OpenCV for the rest" if bridged else "OpenCV"
