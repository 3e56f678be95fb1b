"""The image topic of a rosbag2 and the camera_info beside it, as raw CDR messages. Needs the package rosbags."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, NamedTuple

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"


class BagMessage(NamedTuple):
    """``time`` in seconds of the recording; ``type`` one of IMAGE_TYPES or INFO_TYPE; ``raw`` as recorded."""

    time: float
    type: str
    raw: bytes


def image_messages(path: str, topic: str = "") -> Iterator[BagMessage]:
    """Messages of ``topic`` (or of the bag's only image topic) and of its camera_info, in order of recording.

    ValueError where there is no such topic, or a choice to be made.
    """
    try:
        from rosbags.rosbag2 import Reader
    except ImportError as error:
        raise ValueError(f"reading bags needs the package rosbags: pip install rosbags ({error})") from error
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
