"""`hmr-ros replay` as a process: what a peer hears over Fast DDS."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
import cv2  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from live_processes import PATIENCE, peer, picture, ros, start, wait_for  # noqa: E402, F401  peer, ros and start are fixtures

from hmr_ros.geometry import pinhole  # noqa: E402
from hmr_ros.io.decode import image_from_message  # noqa: E402
from hmr_ros.ros.inputs import image_to_message, intrinsics_to_message  # noqa: E402


REPLAY = "import sys; from hmr_ros.ros.replay import main; sys.exit(main(sys.argv[1:]))"


def test_replay_publishes_pictures_with_their_camera(peer, start, tmp_path):
    photos = [np.full((48, 64, 3), 40 * i, np.uint8) for i in range(1, 4)]
    for i, photo in enumerate(photos):
        cv2.imwrite(str(tmp_path / f"{i}.png"), photo)
    images, infos = peer.listen(Image, "image"), peer.listen(CameraInfo, "camera_info")
    replay = start(str(tmp_path), "--loop", "--max-frames", "6", "--rate", "30", "--frame-id", "eye", code=REPLAY)
    assert replay.process.wait(PATIENCE) == 0, replay.text()
    wait_for(lambda: len(images) == 6 and len(infos) == 6, replay)
    for i, (image, info) in enumerate(zip(images, infos)):
        np.testing.assert_array_equal(image_from_message(image), photos[i % 3])
        assert image.header == info.header and image.header.frame_id == "eye"
        assert (info.width, info.height) == (64, 48) and info.k[0] == pytest.approx(32 / np.tan(np.pi / 6))
    stamps = [i.header.stamp.sec + 1e-9 * i.header.stamp.nanosec for i in images]
    assert np.all(np.diff(stamps) > 0) and abs(stamps[-1] - time.time()) < 2 * PATIENCE


def test_replay_of_a_bag_gives_the_recorded_messages(peer, start, tmp_path):
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    from rclpy.serialization import serialize_message
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    recorded = []
    with rosbag2.Writer(tmp_path / "bag", version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        image_topic = writer.add_connection("/eye/image_raw", "sensor_msgs/msg/Image", typestore=store)
        info_topic = writer.add_connection("/eye/camera_info", "sensor_msgs/msg/CameraInfo", typestore=store)
        for i in range(4):
            message = image_to_message(picture(i), peer.header())
            recorded.append(message)
            info = intrinsics_to_message(pinhole(64, 48, 40 + i), 64, 48, message.header)
            writer.write(info_topic, i * 50_000_000, serialize_message(info))
            writer.write(image_topic, i * 50_000_000 + 1, serialize_message(message))
    images, infos = peer.listen(Image, "image"), peer.listen(CameraInfo, "camera_info")
    clocks = peer.listen(Clock, "/clock")
    replay = start(str(tmp_path / "bag"), "--clock", code=REPLAY)
    assert replay.process.wait(PATIENCE) == 0, replay.text()
    wait_for(lambda: len(images) == 4 and len(infos) == 4, replay)
    assert clocks and {str(c.clock) for c in clocks} <= {str(image.header.stamp) for image in images}
    assert images == recorded and infos[3].k[0] == pytest.approx(pinhole(64, 48, 43).fx)


def test_replay_without_a_listener_says_so(start, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    replay = start(str(tmp_path / "a.png"), "--wait", "0.5", "--ros-args", "-r", "image:=/nobody/listens", code=REPLAY)
    assert replay.process.wait(PATIENCE) == 1 and "0 of 1 subscribed /nobody/listens" in replay.text()


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_replay_of_something_unreadable_is_a_precise_error(tmp_path, content):
    from hmr_ros.io.sources import open_source

    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="a.png .*expected a picture"):
        open_source(str(path))
    with pytest.raises(ValueError, match="holds nothing to look at"):
        open_source(str((tmp_path / "empty").mkdir() or tmp_path / "empty"))
