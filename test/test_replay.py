"""`hmr-ros replay` of bags in a process of its own, without subscribers: exit codes, summary, pauses. What is published, test_replay_process.py asserts."""

import json
import logging
import os
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rosbags.rosbag2")
from bag_files import IMAGE, INFO, START, STORE, header, image, write_bag, write_ros1  # noqa: E402
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402

from hmr_ros.io.bags import Bag  # noqa: E402
from hmr_ros.ros.replay import Replay, _BagCamera  # noqa: E402

PATIENCE = 60.0


def replay(source, *arguments, tmp_path, timeout=PATIENCE):
    """Exit code, what was printed, the JSON summary or None, seconds."""
    summary, begin = tmp_path / "summary.json", time.monotonic()
    run = subprocess.run([sys.executable, "-P", "-m", "hmr_ros.cli", "replay", str(source), "--wait", "0", "--json", str(summary), *arguments],
                         capture_output=True, text=True, timeout=timeout)  # fmt: skip
    assert "Traceback" not in run.stderr, run.stderr
    return run.returncode, run.stdout + run.stderr, json.loads(summary.read_text()) if summary.exists() else None, time.monotonic() - begin


def test_a_whole_bag_is_replayed_and_summed_up(tmp_path):
    code, text, summary, _ = replay(write_bag(tmp_path / "bag").parent, tmp_path=tmp_path)
    assert code == 0 and "published 5 images" in text and "5 of 5 images read" in text
    assert summary == {"unit": "images", "promised": 5, "read": 5, "lost": 0, "damaged": 0, "skipped": {}, "ignored": [], "notes": [],
                       "exit_code": 0, "line": "5 of 5 images read"}  # fmt: skip


def test_a_ros_1_bag_is_replayed(tmp_path):
    code, text, summary, _ = replay(write_ros1(tmp_path / "walk.bag"), tmp_path=tmp_path)
    assert code == 0 and summary["read"] == 5, text


@pytest.mark.parametrize("plugin", ["mcap", "sqlite"])
def test_a_cut_bag_is_replayed_as_far_as_it_goes(tmp_path, plugin):
    path = write_bag(tmp_path / "bag", count=30, size=(64, 48), plugin=plugin)
    path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
    code, text, summary, _ = replay(path.parent, "--rate", "50", tmp_path=tmp_path)
    assert code == summary["exit_code"] == 1 and summary["promised"] == 30 and 3 < summary["read"] < 30
    assert f"published {summary['read']} images" in text and f"{summary['read']} of 30 images read" in text and path.name in summary["skipped"]


@pytest.mark.parametrize("arguments", [("--max-frames", "3"), ("--max-frames", "8", "--loop"), ("--max-seconds", "0.25")])
def test_what_a_limit_leaves_is_no_loss(tmp_path, arguments):
    code, text, summary, _ = replay(write_bag(tmp_path / "bag").parent, *arguments, tmp_path=tmp_path)
    assert code == summary["exit_code"] == summary["lost"] == 0 and "stopped before the end, as asked" in summary["notes"]
    assert f"published {summary['read']} images" in text
    if arguments[0] == "--max-frames":
        assert summary["read"] == int(arguments[1])


def test_a_first_stamp_of_zero_is_a_pause_that_is_said_and_shortened(tmp_path):
    bag = write_bag(tmp_path / "bag", count=3, times=[0, START, START + 10**8]).parent
    code, text, summary, seconds = replay(bag, "--max-gap", "0.5", tmp_path=tmp_path)
    assert code == 0 and summary["read"] == 3 and seconds < PATIENCE
    assert text.count("nothing was recorded for 1700000000.0 s: shortened to 0.5 s (--max-gap)") == 1
    code, text, summary, _ = replay(bag, "--max-gap", "0", "--max-seconds", "1", tmp_path=tmp_path)  # as recorded: waits until it is ended
    assert code == 0 and summary["read"] == 1 and "shortened" not in text
    code, text, summary, _ = replay(bag, "--rate", "20", tmp_path=tmp_path)  # --rate has no pauses
    assert code == 0 and summary["read"] == 3 and "shortened" not in text


def test_a_clock_that_goes_back_costs_no_time(tmp_path):
    folder = tmp_path / "split"
    folder.mkdir()
    for i, begin in enumerate((START, 10**9, START)):
        write_bag(tmp_path / f"b{i}", count=2, times=[begin, begin + 10**8]).rename(folder / f"walk_{i}.mcap")
    code, text, summary, seconds = replay(folder, "--max-gap", "0.5", tmp_path=tmp_path)
    assert code == 0 and summary["read"] == 6 and seconds < PATIENCE
    assert text.count("the clock of the recording goes back by") == 1 and text.count("shortened to 0.5 s") == 1


def test_messages_that_cannot_be_decoded_are_not_published(tmp_path):
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kind = "sensor_msgs/msg/CompressedImage"
        connection = writer.add_connection("/eye/image/compressed", kind, typestore=STORE)
        for i, data in enumerate((b"no jpeg", None, jpeg)):
            message = STORE.types[kind](header(STORE, START + i), "jpeg", np.frombuffer(data or b"", np.uint8))
            raw = bytes(STORE.serialize_cdr(message, kind))
            writer.write(connection, START + i, raw if data is not None else raw[:20] + b"\xff\xff\xff\xff")
    code, text, summary, _ = replay(tmp_path / "bag", tmp_path=tmp_path)
    assert code == 1 and (summary["promised"], summary["read"], len(summary["skipped"])) == (3, 1, 2), summary
    assert "published 1 images" in text


def written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("make, arguments, words", [
    (lambda folder: written(folder / "x.mcap", b""), (), "x.mcap is no recording (an empty file)"),
    (lambda folder: written(folder / "x.db3", b"garbage"), (), "x.db3 is no recording (7 bytes"),
    (lambda folder: write_bag(folder / "b"), ("--topic", "/nothing"), "these image topics: /eye/image; expected topic /nothing"),
    (lambda folder: write_bag(folder / "b", topics=(), other=("/words",)), (), "has no image topic, expected"),
    (lambda folder: write_bag(folder / "b", count=0), (), "topic /eye/image of bag"),
    (lambda folder: write_bag(folder / "[red] b"), ("--topic", "/nothing"), "[red] b"),
    (lambda folder: write_bag(folder / os.fsdecode(b"caf\xe9")).parent, ("--topic", "/nothing"), r"caf\xe9"),
    (lambda folder: write_bag(folder / "b"), ("--frame-id", os.fsdecode(b"caf\xe9")), r"--frame-id is caf\xe9, expected printable UTF-8"),
    (lambda folder: write_bag(folder / "b"), ("--max-gap", "nan"), "--max-gap is nan, expected 0 or more"),
])  # fmt: skip
def test_what_cannot_start_is_one_line_and_exit_code_2(tmp_path, make, arguments, words):
    code, text, summary, _ = replay(make(tmp_path), *arguments, tmp_path=tmp_path)
    assert code == 2 and words in text and summary is None
    assert len([line for line in text.splitlines() if words in line]) == 1


def test_extract_and_replay_take_a_folder_for_a_bag_alike(tmp_path):
    from hmr_ros.io.sources import open_source
    from hmr_ros.training.data.extract.frames import BagReader, kind_of, list_frames

    path = write_bag(tmp_path / "bag", count=30, size=(64, 48))
    (path.parent / "metadata.yaml").unlink()
    path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
    assert open_source(str(path.parent)).kind == kind_of(path.parent) == kind_of(path) == "bag"
    listing = list_frames(path, "bag")
    assert 3 < len(listing.frames) < 30 and listing.report.exit_code == 1 and listing.report.read == len(listing.frames)
    assert BagReader("", "", {})(listing.frames[3]).image[0, 0, 0] == 13


# ---- depth and --start, message by message -----------------------------------------------------------------------------


class Publisher:
    def __init__(self, kind, topic):
        self.kind, self.topic, self.sent = kind.__name__, topic, []

    def publish(self, raw):
        self.sent.append(raw)


class FakeNode:
    """What a replay needs of a node: its publishers by topic."""

    def __init__(self):
        self.publishers = {}

    def create_publisher(self, kind, topic, depth):
        self.publishers[topic] = Publisher(kind, topic)
        return self.publishers[topic]

    def get_logger(self):
        return logging.getLogger("replay")


def write_depth_bag(folder, count=6):
    """Colour and depth images with a camera_info each, 0.1 s apart; the colour camera's only once, at the beginning, as latched ones are."""
    kinds = {"/rgb/image": IMAGE, "/rgb/camera_info": INFO, "/depth/image": IMAGE, "/depth/camera_info": INFO}
    recorded = {topic: [] for topic in kinds}
    region = STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {topic: writer.add_connection(topic, kind, typestore=STORE) for topic, kind in kinds.items()}
        for i in range(count):
            time = START + i * 10**8
            depth = np.full((6, 8), 1000 + i, "<u2")
            messages = {
                "/rgb/image": image(i, time),
                "/depth/image": STORE.types[IMAGE](header(STORE, time), 6, 8, "16UC1", 0, 16, depth.view(np.uint8).ravel()),
                "/depth/camera_info": STORE.types[INFO](header(STORE, time, "depth"), 6, 8, "", np.zeros(0), np.arange(9.0) + i, np.eye(3).ravel(),
                                                        np.arange(12.0), 0, 0, region),
            }  # fmt: skip
            if i == 0:
                messages["/rgb/camera_info"] = STORE.types[INFO](header(STORE, time), 6, 8, "", np.zeros(0), np.arange(9.0), np.eye(3).ravel(),
                                                                 np.arange(12.0), 0, 0, region)  # fmt: skip
            for topic, message in messages.items():
                recorded[topic].append(bytes(STORE.serialize_cdr(message, kinds[topic])))
                writer.write(connections[topic], time, recorded[topic][-1])
    return folder, recorded


def published(folder, **options):
    """Topic → raw messages of one pass, and the sum of the intervals."""
    node = FakeNode()
    options = Replay(str(folder), **options)
    with Bag(folder, options.topic, options.depth_topic) as bag:
        camera = _BagCamera(node, bag, "bag", options)
        pauses = 0.0
        for step in camera.steps():
            pauses += step.interval
            step.publish()
    return {topic: publisher.sent for topic, publisher in node.publishers.items()}, pauses


def test_recorded_depth_is_replayed_with_the_images(tmp_path):
    folder, recorded = write_depth_bag(tmp_path / "bag")
    sent, pauses = published(folder, depth_topic="/depth/image")  # the other image topic is the camera's: no choice is left
    assert sent == {"image": recorded["/rgb/image"], "camera_info": recorded["/rgb/camera_info"], "depth": recorded["/depth/image"],
                    "depth_camera_info": recorded["/depth/camera_info"]}  # fmt: skip
    assert pauses == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(ValueError, match="depth topic /nothing is not in bag"):
        published(folder, topic="/rgb/image", depth_topic="/nothing")


def test_start_leaves_out_the_beginning_but_not_the_camera_info_before_it(tmp_path):
    folder, recorded = write_depth_bag(tmp_path / "bag")
    sent, pauses = published(folder, topic="/rgb/image", start=0.25)
    assert sent == {"image": recorded["/rgb/image"][3:], "camera_info": recorded["/rgb/camera_info"]}
    assert pauses == pytest.approx(0.2, abs=1e-6)


def test_start_of_a_video_is_in_seconds(tmp_path):
    code, text, summary, _ = replay(write_bag(tmp_path / "bag").parent, "--start", "0.3", tmp_path=tmp_path)
    assert code == 0 and "published 2 images" in text
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):  # at 4 Hz
        cv2.imwrite(str(folder / f"{i}.png"), np.full((48, 64, 3), 60 * i, np.uint8))
    code, text, summary, _ = replay(folder, "--start", "0.5", tmp_path=tmp_path)
    assert code == 0 and "published 2 images" in text
