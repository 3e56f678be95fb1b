"""Encoded pictures to arrays, without ROS: files, and the fields of image messages, whoever read them (rclpy, rosbags).

A message is anything with the fields of sensor_msgs/Image or CompressedImage. It is checked before it is converted, because
OpenCV would read past its rows or guess silently.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from hmr_ros.io.encoded import imdecode, picture_size, what_is_missing
from hmr_ros.io.report import ReadReport, printable


class Encoding(NamedTuple):
    """``bits`` of a value, ``channels`` of a pixel, OpenCV's conversion of 8-bit pixels to BGR (None: they are BGR)."""

    bits: int
    channels: int
    conversion: int | None

    @property
    def pixel_bytes(self) -> int:
        return self.bits // 8 * self.channels


# OpenCV names a mosaic by its second row from the second pixel on, ROS by its first row: BayerBG is bayer_rggb.
_BAYER = {
    "bayer_rggb": (1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr": (1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg": (1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg": (1, cv2.COLOR_BayerGB2BGR),
}
_COLOURS = {
    "bgr": (3, None),
    "rgb": (3, cv2.COLOR_RGB2BGR),
    "bgra": (4, cv2.COLOR_BGRA2BGR),
    "rgba": (4, cv2.COLOR_RGBA2BGR),
    "mono": (1, cv2.COLOR_GRAY2BGR),
    **_BAYER,
}
# names of sensor_msgs/image_encodings.hpp
ENCODINGS = {f"{name}{bits}": Encoding(bits, *layout) for bits in (8, 16) for name, layout in _COLOURS.items()} | {
    "8UC3": Encoding(8, 3, None),  # OpenCV's own order, as in cv_bridge
    "8UC1": Encoding(8, 1, cv2.COLOR_GRAY2BGR),
    "yuv422": Encoding(8, 2, cv2.COLOR_YUV2BGR_UYVY),
    "uyvy": Encoding(8, 2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": Encoding(8, 2, cv2.COLOR_YUV2BGR_YUYV),
    "yuyv": Encoding(8, 2, cv2.COLOR_YUV2BGR_YUYV),
}
BIT_DEPTHS = (8, 16)  # of 16-bit values, at least and at most
MOSAIC_SIZE = 3  # pixels a side: OpenCV fills smaller mosaics with zeros
DEPTH_ENCODINGS = {"16UC1": ("u2", 1e-3), "mono16": ("u2", 1e-3), "32FC1": ("f4", 1.0)}  # type, metres a unit (REP 118)
DEPTH_ONLY = frozenset(DEPTH_ENCODINGS) - frozenset(ENCODINGS)
COMPRESSED_FORMATS = ("jpeg", "jpg", "png", "tiff")  # image_transport's, and an alias
PUBLISH_AS_PICTURE = "publish a 16-bit picture as mono16 and set bit_depth (the node's parameter) to its camera's bits"


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


def bit_depth_of(values: np.ndarray) -> int:
    """The bit depth of a sensor that gives these 16-bit values: the smallest usual one that holds the largest of them."""
    largest = int(values.max(initial=0))
    return next(depth for depth in (8, 10, 12, 14, 16) if largest < 2**depth)


def to_8bit(array: np.ndarray, bit_depth: int = 16) -> np.ndarray:
    """uint16 (H, W) or (H, W, C) of ``bit_depth`` (8 to 16) significant bits → uint8: value * 255 / (2^bit_depth - 1), rounded, clipped.

    Either byte order is taken. ValueError for another type or bit depth.
    """
    if array.dtype.kind != "u" or array.dtype.itemsize != 2:
        raise ValueError(f"array is {array.dtype}, expected uint16")
    if not BIT_DEPTHS[0] <= bit_depth <= BIT_DEPTHS[1]:
        raise ValueError(f"bit_depth is {bit_depth}, expected {BIT_DEPTHS[0]} to {BIT_DEPTHS[1]}")
    rows = np.ascontiguousarray(array, np.uint16).reshape(len(array), -1)
    return cv2.convertScaleAbs(rows, alpha=255 / (2**bit_depth - 1)).reshape(array.shape)


def image_from_message(message, *, bit_depth: int = 16) -> np.ndarray:
    """sensor_msgs/Image → uint8 (H, W, 3) BGR; it may share memory with the message.

    ``step`` is honoured (rows may be padded), and so is ``is_bigendian`` where a value has 16 bits; these become 8 by
    :func:`to_8bit`. Mosaics (bayer) are interpolated. Raises ValueError for a message that contradicts itself or has an
    encoding that is no picture.
    """
    rows = checked_rows(message)
    encoding = ENCODINGS[message.encoding]
    pixels = np.ascontiguousarray(rows)
    if encoding.bits == 16:
        pixels = to_8bit(pixels.view(">u2" if message.is_bigendian else "<u2"), bit_depth)
    return _to_bgr(pixels.reshape(rows.shape[0], -1, encoding.channels), encoding)


def compressed_image_from_message(message, *, bit_depth: int = 16) -> np.ndarray:
    """sensor_msgs/CompressedImage (jpeg, png or tiff) → uint8 (H, W, 3) BGR.

    ``format`` is a codec ("jpeg", "png", "tiff") or image_transport's "ENCODING; CODEC compressed TARGET": of ENCODING is the image
    that was compressed, of TARGET what the data hold; without TARGET they hold ENCODING. 16-bit values become 8 bits by :func:`to_8bit`.
    Orientation tags are ignored: camera_info describes the pixels as they are stored. Raises ValueError for depth, for 16 bits that
    nothing declares to be a picture, for anything else and for broken data.
    """
    declared, codec, target = _declared(message.format)
    content = _ENCODINGS_IN_FORMAT.get(target or declared)
    mosaic = content is not None and content.conversion in _DEMOSAIC
    one_channel = mosaic or (content is not None and content.channels == 1 and content.bits == 16)
    picture = _decoded(message, cv2.IMREAD_UNCHANGED if one_channel or codec == "tiff" else _COLOUR)
    if picture.dtype == np.uint16:
        if content is None and (target or declared or _decoded(message, cv2.IMREAD_UNCHANGED).ndim == 2):
            raise ValueError(f'compressed image has format "{message.format}" and 16-bit values, which may be depth; {PUBLISH_AS_PICTURE} '
                             '(format "mono16; png compressed ")')  # fmt: skip
        if content and content.bits == 8:
            raise ValueError(f'compressed image has format "{message.format}" and 16-bit values, expected 8-bit ones; correct the format '
                             'on the camera\'s side (for example "mono16; png compressed ")')  # fmt: skip
        picture = to_8bit(picture, bit_depth)
    elif picture.dtype != np.uint8:
        raise ValueError(f'compressed image ("{message.format}") holds {picture.dtype} values, expected 8 or 16 bits without sign')
    elif declared in _ENCODINGS_IN_FORMAT and _ENCODINGS_IN_FORMAT[declared].bits == 16 and bit_depth < 16:
        raise ValueError(f'compressed image has format "{message.format}" and 8-bit values: of a {bit_depth}-bit picture {bit_depth - 8} bits '
                         "are left, expected 16-bit values; set the format of the camera's image_transport to png")  # fmt: skip
    if picture.ndim == 2:
        return _to_bgr(picture[..., None], content if mosaic else ENCODINGS["mono8"])
    if picture.shape[2] == 4:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGRA2BGR)
    elif picture.shape[2] != 3:
        raise ValueError(f'compressed image ("{message.format}") has {picture.shape[2]} channels, expected 1, 3 or 4')
    # A codec's colours come out as BGR. Where the array that went in was RGB, they are swapped (as image_transport does it).
    swapped = (target or (declared if codec == "tiff" else "")).startswith("rgb")
    return cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if swapped else picture


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


def refuse_too_many_pixels(message, max_pixels: int) -> None:
    """ValueError for an image message of more than ``max_pixels`` pixels (0: any number): before anything is decoded."""
    if not max_pixels:
        return
    encoded = not hasattr(message, "width")
    size = picture_size(bytes(message.data)) if encoded else (message.width, message.height)
    if size is not None and size[0] * size[1] > max_pixels:
        raise ValueError(f"{'compressed ' if encoded else ''}image has {size[0]}x{size[1]} pixels, expected at most {max_pixels} in all; use a "
                         "smaller image, or set max_pixels")  # fmt: skip


def checked_rows(message) -> np.ndarray:
    """The message's pixels as (H, W * bytes per pixel) view without the padding; ValueError if it is malformed."""
    if message.encoding in DEPTH_ONLY:
        raise ValueError(f'image has encoding "{message.encoding}", which is depth, expected one of {", ".join(ENCODINGS)}; '
                         f"{PUBLISH_AS_PICTURE}, depth belongs on the topic `depth`")  # fmt: skip
    if message.encoding not in ENCODINGS:
        raise ValueError(f'image has encoding "{message.encoding}", expected one of {", ".join(ENCODINGS)}; '
                         "convert it on the camera's side (image_proc)")  # fmt: skip
    width, height, step = message.width, message.height, message.step
    encoding = ENCODINGS[message.encoding]
    row_bytes = width * encoding.pixel_bytes
    if width == 0 or height == 0:
        raise ValueError(f"image has {width}x{height} pixels, expected at least 1x1; check the camera driver")
    if step < row_bytes:
        raise ValueError(f"image has step {step}, expected at least {row_bytes} bytes for {width} pixels of "
                         f"{message.encoding}; check width, encoding and step in the camera driver")  # fmt: skip
    if len(message.data) < height * step:
        raise ValueError(f"image has {len(message.data)} bytes of data, expected height * step = {height} * {step} = "
                         f"{height * step}; check the camera driver for cut frames")  # fmt: skip
    if encoding.channels == 2 and width % 2:
        raise ValueError(f"image has an odd width of {width}, expected an even one: {message.encoding} stores pixels in "
                         "pairs")  # fmt: skip
    data = np.frombuffer(message.data, np.uint8, height * step)
    return data.reshape(height, step)[:, :row_bytes]


_COLOUR = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION  # (H, W, 3) BGR, 16 bits stay 16
_DEMOSAIC = frozenset(conversion for _, conversion in _BAYER.values())
_ENCODINGS_IN_FORMAT = {name.lower(): encoding for name, encoding in ENCODINGS.items()}


def _to_bgr(pixels: np.ndarray, encoding: Encoding) -> np.ndarray:
    """uint8 (H, W, C) → (H, W, 3) BGR."""
    if encoding.conversion in _DEMOSAIC and min(pixels.shape[:2]) < MOSAIC_SIZE:
        raise ValueError(f"bayer image has {pixels.shape[1]}x{pixels.shape[0]} pixels, expected at least {MOSAIC_SIZE}x{MOSAIC_SIZE}; "
                         "check the camera driver")  # fmt: skip
    return pixels if encoding.conversion is None else cv2.cvtColor(pixels, encoding.conversion)


def _declared(text: str) -> tuple[str, str, str]:
    """Encoding, codec and target of a CompressedImage's format, in lower case, "" where it does not say. ValueError for another codec, and
    for depth."""
    words = text.replace(";", " ").lower().split()
    codec = next((word for word in words if word in COMPRESSED_FORMATS), "")
    if "compresseddepth" in words or not codec:
        raise ValueError(
            f'compressed image has format "{text}", expected jpeg or png or tiff (for example "jpeg" or '
            '"rgb8; jpeg compressed bgr8"); choose another transport on the camera\'s side'
        )
    place = words.index(codec)
    encoding = words[place - 1] if place else ""
    target = next((word for word in words[place + 1 :] if word != "compressed"), "")
    if {encoding, target} & {name.lower() for name in DEPTH_ONLY}:
        raise ValueError(f'compressed image has format "{text}", which is depth, expected a picture; {PUBLISH_AS_PICTURE}')
    return encoding, codec, target


def _decoded(message, flags: int) -> np.ndarray:
    data = np.frombuffer(message.data, np.uint8)
    if data.size == 0:
        raise ValueError(f'compressed image ("{message.format}") has no data, expected an encoded picture')
    image = imdecode(data, flags)
    cut = "" if image is None else what_is_missing(bytes(message.data))
    if image is None or cut:
        raise ValueError(
            f'compressed image ("{message.format}", {data.size} bytes, starting {bytes(data[:4]).hex(" ")}) cannot be '
            f"decoded{cut and f': {cut}'}, expected a whole jpeg, png or tiff; look for lost fragments between camera and node"
        )
    return image
