"""image_transport's compressedDepth: a header of 12 bytes and a PNG; 16UC1 as it is, 32FC1 as quantised inverse depth.

Source: compressed_depth_image_transport (ROS 2), ``codec.cpp``: ConfigHeader {int32 format; float depthParam[2]}, depth = a / (value - b).
"""

from __future__ import annotations

import struct

import cv2
import numpy as np

from hmr_ros.io.decode import DEPTH_ENCODINGS
from hmr_ros.io.encoded import imdecode, picture_size, what_is_missing

HEADER = struct.Struct("<i2f")


def compressed_depth_from_message(message, max_pixels: int = 0) -> np.ndarray:
    """sensor_msgs/CompressedImage of compressedDepth → float32 (H, W) metres, 0 where unknown.

    Raises ValueError for another format, broken data, and more than ``max_pixels`` pixels (0: any number).
    """
    encoding, *rest = message.format.replace(";", " ").split()[:3] or [""]
    if encoding not in DEPTH_ENCODINGS or rest[:1] != ["compressedDepth"] or rest[1:] not in ([], ["png"]):
        raise ValueError(f'compressed depth has format "{message.format}", expected "16UC1; compressedDepth png" or "32FC1; compressedDepth png"; '
                         "set the format of the camera's image_transport to png")  # fmt: skip
    data = bytes(message.data)
    png = data[HEADER.size :]
    size = picture_size(png)
    if not png.startswith(b"\x89PNG") or size is None:
        raise ValueError(f"compressed depth ({len(data)} bytes) has no PNG after {HEADER.size} bytes, expected one; look for lost fragments")
    if max_pixels and size[0] * size[1] > max_pixels:
        raise ValueError(f"compressed depth has {size[0]}x{size[1]} pixels, expected at most {max_pixels} (max_pixels)")
    values = imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 2 or what_is_missing(png):
        raise ValueError(f"compressed depth ({len(data)} bytes) cannot be decoded, expected a whole PNG of 16 bits and one channel")
    kind, unit = DEPTH_ENCODINGS[encoding]
    if kind == "u2":
        return values.astype(np.float32) * np.float32(unit)
    _, a, b = HEADER.unpack(data[: HEADER.size])
    if not (np.isfinite(a) and np.isfinite(b) and a > 0):
        raise ValueError(f"compressed depth has quantisation {a}, {b}, expected finite numbers, the first above 0")
    steps = values.astype(np.float32) - np.float32(b)
    known = (values > 0) & (steps > 0)
    return np.where(known, np.float32(a) / np.where(known, steps, 1), 0).astype(np.float32)
