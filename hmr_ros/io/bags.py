"""The image topic of a rosbag2 and the camera_info beside it, as raw CDR messages or decoded without ROS. Needs the package
rosbags."""

from __future__ import annotations

import functools
import struct
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np

from hmr_ros.io.decode import compressed_image_from_message, depth_from_message, image_from_message

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"


class BagMessage(NamedTuple):
    """``time`` in seconds of the recording; ``type`` one of IMAGE_TYPES or INFO_TYPE; ``raw`` as recorded."""

    time: float
    type: str
    raw: bytes

    @property
    def stamp(self) -> int:
        """Of its header, in nanoseconds: the first field of these messages, after four bytes that tell the byte order."""
        seconds, nanoseconds = struct.unpack_from("<iI" if self.raw[1] & 1 else ">iI", self.raw, 4)
        return seconds * 10**9 + nanoseconds

    def picture(self) -> np.ndarray:
        """uint8 (H, W, 3) BGR of an image message. ValueError for one that cannot be converted (decode.py)."""
        convert = image_from_message if self.type == IMAGE_TYPES[0] else compressed_image_from_message
        return convert(self._decoded())

    def depth(self) -> np.ndarray:
        """float32 (H, W) metres of a depth image, 0 where unknown. ValueError for a message that is none."""
        if self.type != IMAGE_TYPES[0]:
            raise ValueError(f"depth topic has type {self.type}, expected {IMAGE_TYPES[0]} with 16UC1 or 32FC1")
        return depth_from_message(self._decoded())

    def _decoded(self):
        try:
            return _typestore().deserialize_cdr(self.raw, self.type)
        except Exception as error:  # whatever its parser stumbles over
            raise ValueError(f"message of {len(self.raw)} bytes cannot be read as {self.type} ({error!r})") from error


@functools.cache
def _typestore():
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)  # the same image messages in every ROS 2


def image_messages(path: str, topic: str = "") -> Iterator[BagMessage]:
    """Messages of ``topic`` (or of the bag's only image topic) and of its camera_info, in order of recording.

    ValueError where there is no such topic, or a choice to be made.
    """
    try:
        from rosbags.rosbag2 import Reader
    except ImportError as error:
        raise ValueError(f"reading bags needs the package rosbags: pip install rosbags ({error})") from error
    if Path(path).is_dir() and not (Path(path) / "metadata.yaml").is_file():
        raise ValueError(f"{path} is no bag: it has no metadata.yaml, expected a folder that `ros2 bag record` wrote")
    with Reader(Path(path)) as reader:
        images = {c.topic: c for c in reader.connections if c.msgtype in IMAGE_TYPES}
        if topic not in images and (topic or len(images) != 1):
            found = ", ".join(sorted(images)) or "none"
            wanted = f"topic {topic}" if topic else "one image topic"
            raise ValueError(f"bag {path} has these image topics: {found}; expected {wanted}, choose one with --topic")
        image = images[topic] if topic else next(iter(images.values()))
        namespace = image.topic.removesuffix("/compressed").rpartition("/")[0]
        chosen = [image] + [c for c in reader.connections
                            if c.msgtype == INFO_TYPE and c.topic == f"{namespace}/camera_info"]  # fmt: skip
        for connection, nanoseconds, raw in reader.messages(connections=chosen):
            yield BagMessage(1e-9 * nanoseconds, connection.msgtype, bytes(raw))
