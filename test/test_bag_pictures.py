"""Pictures of a bag by the stamps of bodies: the right one from every kind of bag, and never all of them in memory."""

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags.rosbag2")
from bag_files import IMAGE, INFO, START, STORE, header, picture, write_bag, write_ros1  # noqa: E402
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402

from hmr_ros.io import cut_recordings  # noqa: E402
from hmr_ros.io.bag_pictures import BagPictures  # noqa: E402
from hmr_ros.io.bags import BagMessage  # noqa: E402
from hmr_ros.io.report import ReadReport  # noqa: E402
from hmr_ros.viewer.shots import PICTURE_WIDTH, RecordedPictures, Shot  # noqa: E402

COMPRESSED = "sensor_msgs/msg/CompressedImage"
TIMES = [1e-9 * (START + i * 10**8) for i in range(5)]  # bag_files' stamps, as BodyFrame has them
KINDS = [("mcap", ""), ("mcap", "storage"), ("mcap", "message"), ("mcap", "file"), ("sqlite", ""), ("sqlite", "message")]


@pytest.fixture
def converted(monkeypatch):
    """The messages that were converted."""
    found, convert = [], BagMessage.picture
    monkeypatch.setattr(BagMessage, "picture", lambda message: (found.append(message), convert(message))[1])
    return found


def write(folder, topics, count=3, plugin="mcap"):
    """``topics``: name → (type, number of the image → message)."""
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP if plugin == "mcap" else StoragePlugin.SQLITE3) as writer:
        connections = {name: writer.add_connection(name, kind, typestore=STORE) for name, (kind, _) in topics.items()}
        for i in range(count):
            for name, (kind, make) in topics.items():
                writer.write(connections[name], START + i * 10**8 + 12_345, bytes(STORE.serialize_cdr(make(i), kind)))
    return folder


def raw(i, value=None, encoding="bgr8", size=(6, 8)):
    pixels = picture(i if value is None else value, size) if encoding == "bgr8" else np.full((*size, 2), 3, np.uint8)
    return STORE.types[IMAGE](header(STORE, START + i * 10**8), *size, encoding, 0, pixels.shape[2] * size[1], pixels.ravel())


def jpeg(i, format="jpeg"):
    data = cv2.imencode(".jpg", np.full((600, 800, 3), (10, 200, 40 + i), np.uint8))[1]
    return STORE.types[COMPRESSED](header(STORE, START + i * 10**8), format, data)


def info(i, fx=500.0):
    region = STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = np.array([fx, 0, 4, 0, fx, 3, 0, 0, 1])
    return STORE.types[INFO](header(STORE, START + i * 10**8), 6, 8, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), np.zeros(12), 0, 0, region)


def numbers(pictures, times=TIMES):
    return [None if (found := pictures.at(time)) is None else int(found[0, 0, 0]) - 10 for time in times]


@pytest.mark.parametrize("plugin, compression", KINDS)
def test_every_kind_of_bag_gives_the_picture_of_a_stamp_in_any_order(tmp_path, plugin, compression, converted):
    path = write_bag(tmp_path / "bag", plugin=plugin, compression=compression, other=["/words"]).parent
    with BagPictures(path, [*TIMES[:4], 17.0]) as pictures:
        assert len(converted) == 1, "only whether the topic has pictures"
        assert pictures.topic.name == "/eye/image" and pictures.count == 4
        assert numbers(pictures, TIMES[::-1]) == [None, 3, 2, 1, 0] and pictures.at(17.0) is None


def test_a_ros_1_bag_does(tmp_path):
    with BagPictures(write_ros1(tmp_path / "walk.bag"), TIMES) as pictures:
        assert numbers(pictures) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("plugin, share", [("mcap", 0.9), ("sqlite", 0.8)])
def test_a_cut_bag_gives_what_is_there(tmp_path, plugin, share):
    path = write_bag(tmp_path / "bag", count=40, plugin=plugin, size=(200, 200))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    report = ReadReport()
    times = [1e-9 * (START + i * 10**8) for i in range(40)]
    with BagPictures(path, times, report=report) as pictures:
        found = numbers(pictures, times)
        assert pictures.count >= 20 and found == [*range(pictures.count), *[None] * (40 - pictures.count)] and report.skipped


def test_messages_of_one_time_are_found_in_an_mcap_without_index_by_reading_a_part_of_it(tmp_path, monkeypatch):
    path = write_bag(tmp_path / "bag", count=40, size=(400, 400))  # 0.5 MB each, a chunk or two for each
    path.write_bytes(path.read_bytes()[:-100])
    with BagPictures(path, [1e-9 * (START + i * 10**8) for i in range(40)]) as pictures:
        (_, recording), read = pictures._recordings[0], []
        monkeypatch.setattr(recording, "_chunk", lambda content, at, data, chunk=recording._chunk: (read.append(len(content)), chunk(content, at, data))[1])
        assert numbers(pictures, [1e-9 * (START + 30 * 10**8)]) == [30]
    assert isinstance(recording, cut_recordings.CutMcap) and 0 < sum(read) < path.stat().st_size / 5


def test_the_topic_with_most_of_the_stamps_is_taken_and_no_depth(tmp_path):
    bag = write(tmp_path / "bag", {
        "/a/depth": (IMAGE, lambda i: raw(i, encoding="16UC1")),
        "/b/image": (IMAGE, lambda i: raw(i, 40)),
        "/c/overlay": (IMAGE, lambda i: raw(i, 60)),
        "/a/late": (IMAGE, lambda i: raw(i + 7)),
        "/a/camera_info": (INFO, info),
        "/b/camera_info": (INFO, lambda i: info(i, 700.0)),
    })  # fmt: skip
    with BagPictures(bag, TIMES) as pictures:
        assert pictures.topic.name == "/b/image" and numbers(pictures, TIMES[:1]) == [40] and pictures.camera == (700, 700, 4, 3, 8, 6)
    with BagPictures(bag, TIMES, "/c/overlay") as pictures:
        assert pictures.topic.name == "/c/overlay" and numbers(pictures, TIMES[:1]) == [60] and pictures.camera is None
    with BagPictures(bag, [3.0]) as pictures:
        assert pictures.topic is None and pictures.count == 0 and pictures.at(3.0) is None
    with pytest.raises(ValueError, match="has these image topics: .*/b/image.*expected topic /left"):
        BagPictures(bag, TIMES, "/left")
    for topic in ("/a/late", "/a/depth"):
        with pytest.raises(ValueError, match=f"topic {topic} of bag .* has no picture at the stamps of the bodies"):
            BagPictures(bag, TIMES, topic)


def test_an_uncalibrated_camera_is_none(tmp_path):
    with BagPictures(write(tmp_path / "bag", {"/image": (IMAGE, raw), "/camera_info": (INFO, lambda i: info(i, 0.0))}), TIMES) as pictures:
        assert pictures.count == 3 and pictures.camera is None


def test_pictures_are_small_and_one_that_is_damaged_is_said(tmp_path, converted):
    bag = write(tmp_path / "bag", {"/image/compressed": (COMPRESSED, lambda i: jpeg(i, "jpeg" if i < 2 else "h264"))}, plugin="sqlite")
    with BagPictures(bag, TIMES) as pictures:
        recorded = RecordedPictures(pictures.at)
        shown = [Shot(time, [], 0, lambda time=time: recorded.at(time)).picture() for time in (*TIMES[:3], TIMES[0])]
        assert shown[0].shape == (360, PICTURE_WIDTH, 3) and shown[2] is None
        assert np.abs(shown[1].astype(int) - (41, 200, 10)).max() < 8  # RGB
        assert "no picture at 1700000000.200 s" in recorded.problem and "h264" in recorded.problem
        np.testing.assert_array_equal(shown[0], shown[3])
        assert len(converted) == 4, "the topic's first, then each once"
