"""Small bags for tests, written by rosbags: tiny images on topics, with their recording times."""

import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_HUMBLE)
STORE1 = get_typestore(Stores.ROS1_NOETIC)
IMAGE, INFO, STRING = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo", "std_msgs/msg/String"
START = 1_700_000_000 * 10**9


def picture(number, size=(6, 8)):
    return np.full((*size, 3), 10 + number, np.uint8)


def header(store, time, frame="eye"):
    stamp = store.types["builtin_interfaces/msg/Time"](*divmod(time, 10**9))
    extra = {"seq": 7} if store is STORE1 else {}
    return store.types["std_msgs/msg/Header"](**extra, stamp=stamp, frame_id=frame)


def image(number, time, size=(6, 8), store=STORE):
    pixels = picture(number, size)
    return store.types[IMAGE](header(store, time), *size, "bgr8", 0, 3 * size[1], pixels.ravel())


def write_bag(folder, count=5, plugin="mcap", compression="", times=None, topics=("/eye/image",), size=(6, 8), other=(), start=0):
    """A rosbag2 with ``count`` images on each topic, 0.1 s apart, numbered from ``start``; ``other``: topics with no image. Returns its file."""
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP if plugin == "mcap" else StoragePlugin.SQLITE3)
    if compression:
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with writer:
        connections = [writer.add_connection(topic, IMAGE, typestore=STORE) for topic in topics]
        strings = [writer.add_connection(topic, STRING, typestore=STORE) for topic in other]
        for i in range(count):
            time = times[i] if times else START + (start + i) * 10**8
            for connection in connections:
                writer.write(connection, time, bytes(STORE.serialize_cdr(image(start + i, time, size), IMAGE)))
            for connection in strings:
                writer.write(connection, time, bytes(STORE.serialize_cdr(STORE.types[STRING]("word"), STRING)))
    return next(path for path in folder.iterdir() if path.name != "metadata.yaml")


def write_ros1(path, count=5):
    """Images and camera_info."""
    with Writer1(path) as writer:
        images = writer.add_connection("/eye/image", IMAGE, typestore=STORE1)
        infos = writer.add_connection("/eye/camera_info", INFO, typestore=STORE1)
        for i in range(count):
            time = START + i * 10**8
            writer.write(images, time, STORE1.serialize_ros1(image(i, time, store=STORE1), IMAGE))
            region = STORE1.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
            info = STORE1.types[INFO](header(STORE1, time), 6, 8, "plumb_bob", np.zeros(5), np.arange(9.0), np.eye(3).ravel(),
                                      np.arange(12.0), 0, 0, region)  # fmt: skip
            writer.write(infos, time, STORE1.serialize_ros1(info, INFO))
    return path
