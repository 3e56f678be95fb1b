"""`hmr-ros record`: the results of a live node, and what belongs to them, into a bag that every ROS 2 tool opens.

Messages are written as they come, with their definitions, so that `ros2 bag play` and readers without this package understand them.
"""

from __future__ import annotations

import queue
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from hmr_ros.io.report import printable
from hmr_ros.ros.process import Spinner, StopEvent, ignore_signals, start_ros, stop_event, without_ros_arguments

WRITE_S = 0.1  # from one writing to the next


@dataclass(frozen=True)
class RecordConfig:
    """Record `bodies`, `body_model` and `camera_info` (remap with --ros-args -r bodies:=...) until Ctrl-C."""

    out: Path = Path("hmr_bag")
    """Folder of the bag; it must not exist."""
    storage: Literal["mcap", "sqlite3"] = "mcap"
    images: bool = False
    """`image` as well: pictures of people, see docs/views.md."""
    compressed: bool = False
    """`image/compressed` as well."""
    depth: bool = False
    """`depth` and `depth_camera_info` as well."""
    seconds: float = 0.0
    """Stop after so many seconds; 0: at Ctrl-C."""

    def __post_init__(self):
        if not self.seconds >= 0:
            raise ValueError(f"--seconds is {self.seconds}, expected 0 or more")


def main(argv: list[str] | None = None) -> int:
    """0: bodies were recorded; 1: none came. ValueError for a folder that is there."""
    stop = stop_event()
    argv = list(sys.argv[1:] if argv is None else argv)
    options = tyro.cli(RecordConfig, args=without_ros_arguments(argv) if "--ros-args" in argv else argv, prog="hmr-ros record")
    if options.out.exists():
        raise ValueError(f"--out is {printable(options.out)}, which is there; expected the name of a new folder")
    import rclpy

    start_ros(argv)
    node = rclpy.create_node("record", start_parameter_services=False)
    try:
        return record(node, options, stop)
    finally:
        ignore_signals()
        node.destroy_node()
        rclpy.try_shutdown()


def record(node, options: RecordConfig, stop: StopEvent) -> int:
    """Write what comes until ``stop`` or the limit; returns the exit code."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    plugin = StoragePlugin.MCAP if options.storage == "mcap" else StoragePlugin.SQLITE3
    with Writer(options.out, version=9, storage_plugin=plugin) as writer:
        recorder = _Recorder(node, writer, options)
        spinner = Spinner(node, done=stop)
        node.get_logger().info(f"recording {', '.join(recorder.counts)} into {printable(options.out)}")
        end = time.monotonic() + options.seconds if options.seconds else None
        while not stop.wait(WRITE_S) and (end is None or time.monotonic() < end):
            recorder.write()
        spinner.stop()
        recorder.write()
    if spinner.failed is not None:
        raise spinner.failed
    told = ", ".join(f"{count} of {topic}" for topic, count in recorder.counts.items())
    bodies = recorder.counts[node.resolve_topic_name("bodies")]
    (node.get_logger().info if bodies else node.get_logger().error)(f"recorded {told}")
    return 0 if bodies else 1


class _Recorder:
    """Subscriptions whose raw messages wait for :meth:`write`; ``counts``: topic → messages written so far."""

    def __init__(self, node, writer, options: RecordConfig):
        from hmr_ros.io.body_bags import typestore
        from hmr_ros.msg import BodyArray, BodyModel
        from hmr_ros.ros.qos import LATCHED
        from rclpy.qos import QoSProfile, QoSReliabilityPolicy
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        self.counts: dict[str, int] = {}
        self._writer, self._clock, self._types = writer, node.get_clock(), typestore()
        self._arrived: queue.SimpleQueue = queue.SimpleQueue()
        best_effort = QoSProfile(depth=30, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        reliable = QoSProfile(depth=30, reliability=QoSReliabilityPolicy.RELIABLE)  # as the node offers it: nothing is lost
        topics = [(BodyArray, "bodies", reliable), (BodyModel, "body_model", LATCHED), (CameraInfo, "camera_info", best_effort)]
        topics += [(Image, "image", best_effort)] if options.images else []
        topics += [(CompressedImage, "image/compressed", best_effort)] if options.compressed else []
        topics += [(Image, "depth", best_effort), (CameraInfo, "depth_camera_info", best_effort)] if options.depth else []
        for kind, topic, profile in topics:
            self._subscribe(node, kind, topic, profile)

    def write(self) -> None:
        """What has arrived, into the bag. In the thread that opened it: SQLite takes no other."""
        while not self._arrived.empty():
            connection, nanoseconds, raw = self._arrived.get()
            self._writer.write(connection, nanoseconds, raw)
            self.counts[connection.topic] += 1

    def _subscribe(self, node, kind, topic: str, profile) -> None:
        name = node.resolve_topic_name(topic)
        package = kind.__module__.split(".")[0]
        connection = self._writer.add_connection(name, f"{package}/msg/{kind.__name__}", typestore=self._types,
                                                 offered_qos_profiles=[_offered(profile)])  # fmt: skip
        self.counts[name] = 0

        def arrive(raw: bytes) -> None:
            self._arrived.put((connection, self._clock.now().nanoseconds, raw))

        node.create_subscription(kind, topic, arrive, profile, raw=True)


def _offered(profile):
    """The quality of service that `ros2 bag play` offers: a latched topic is latched again, others are reliable."""
    from rclpy.qos import QoSDurabilityPolicy
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    latched = profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
    for_ever = QosTime(9223372036, 854775807)  # as rosbag2 writes it
    return Qos(QosHistory.KEEP_LAST, profile.depth, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
               for_ever, for_ever, QosLiveliness.AUTOMATIC, for_ever, False)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
