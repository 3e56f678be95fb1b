"""`hmr-ros replay`: a picture, folder, video, camera or rosbag2 published as a camera's `image` and `camera_info`.

Pictures get the stamp of their publication, so that latencies can be measured; messages of a bag go out as recorded.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Annotated, Callable, Iterator, NamedTuple

import tyro

from hmr_ros.ros.process import StopEvent, ignore_signals, start_ros, stop_event, without_ros_arguments
from hmr_ros.io.sources import Source, open_source

SETTLE_S = 0.5  # after the match: the subscriber's side must have found us as well, or best-effort data is lost
REMINDER_S = 10.0  # between two lines that say what is waited for


@dataclass(frozen=True)
class Replay:
    """Publish SOURCE as a camera would, on `image` and `camera_info` (remap with --ros-args -r image:=...)."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A picture, a folder of pictures, a video, the index of a camera, or a rosbag2."""
    rate: float = 0.0
    """Images a second; 0: the source's own rate (4 for pictures)."""
    loop: bool = False
    """Begin again at the end of the source."""
    max_frames: int = 0
    """Stop after so many images; 0: no limit."""
    max_seconds: float = 0.0
    """Stop after so many seconds; 0: no limit."""
    fov: float = 60.0
    """Horizontal field of view in degrees, for the camera_info of sources that have none."""
    frame_id: str = "camera"
    """Frame of the images (optical: x right, y down, z forward)."""
    topic: str = ""
    """Image topic inside the bag, where it has several."""
    wait: float = 120.0
    """Seconds to wait for subscribers of `image`; 0: begin at once."""
    subscribers: int = 1
    """How many subscribers to wait for."""

    def __post_init__(self):
        for name in ("rate", "max_frames", "max_seconds", "wait", "subscribers"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected 0 or more")
        if not 0 < self.fov < 180:
            raise ValueError(f"--fov is {self.fov}, expected degrees between 0 and 180")
        if not self.frame_id:
            raise ValueError("--frame-id is empty, expected the name of a frame")


def main(argv: list[str] | None = None) -> int:
    """Replay until the source ends or a signal comes (0); 1 if nobody subscribes. ValueError for a source that is none."""
    stop = stop_event()
    argv = list(sys.argv[1:] if argv is None else argv)
    import rclpy

    options = tyro.cli(Replay, args=without_ros_arguments(argv), prog="hmr-ros replay")
    source = open_source(options.source)
    start_ros(argv)
    node = rclpy.create_node("replay", start_parameter_services=False)
    try:
        return replay(node, source, options, stop)
    finally:
        ignore_signals()
        node.destroy_node()
        rclpy.try_shutdown()


def replay(node, source: Source, options: Replay, stop: StopEvent) -> int:
    """Publish ``source`` through ``node`` until its end, the limits of ``options`` or ``stop``; returns the exit code."""
    from rclpy.duration import Duration

    camera = _BagCamera(node, source, options) if source.kind == "bag" else _PictureCamera(node, source, options)
    if not _wait_for_subscribers(node, camera.images, options, stop):
        return 0 if stop.is_set() else 1
    begin = due = time.monotonic()
    count = 0
    while not stop.is_set():
        count_before = count
        for step in camera.steps():
            due += step.interval
            if due < time.monotonic() - 1.0:  # the source is slower than its rate: no burst to catch up
                due = time.monotonic()
            if stop.wait(max(0.0, due - time.monotonic())):
                break
            if options.max_seconds and time.monotonic() - begin >= options.max_seconds:
                stop.set()
                break
            step.publish()
            count += step.is_image
            if options.max_frames and count >= options.max_frames:
                stop.set()
                break
        if not options.loop or count == count_before:
            break
    seconds = time.monotonic() - begin
    if count == 0 and not stop.is_set():
        node.get_logger().error(f"{source.name} gave no image")
        return 1
    camera.images.wait_for_all_acked(Duration(seconds=1.0))
    time.sleep(SETTLE_S)  # best-effort readers take the last image out of our shared memory
    node.get_logger().info(f"published {count} images in {seconds:.1f} s")
    return 0


def _wait_for_subscribers(node, publisher, options: Replay, stop: StopEvent) -> bool:
    if not options.wait:
        return True
    begin = reminder = time.monotonic()
    while (found := publisher.get_subscription_count()) < options.subscribers:
        now = time.monotonic()
        if now - begin > options.wait:
            node.get_logger().error(f"{found} of {options.subscribers} subscribed {publisher.topic_name} within "
                                    f"{options.wait:g} s: is `hmr-ros live` running, in the same ROS_DOMAIN_ID and with the "
                                    "same topic name?")  # fmt: skip
            return False
        if now - reminder > REMINDER_S:
            reminder = now
            node.get_logger().info(f"waiting for a subscriber of {publisher.topic_name}")
        if stop.wait(0.02):
            return False
    return not stop.wait(SETTLE_S)


class _Step(NamedTuple):
    """One thing to publish, ``interval`` seconds after the one before."""

    interval: float
    publish: Callable[[], None]
    is_image: bool


class _PictureCamera:
    """Decoded pictures, each with a CameraInfo of a plausible pinhole camera."""

    def __init__(self, node, source: Source, options: Replay):
        from sensor_msgs.msg import CameraInfo, Image

        self._node, self._source, self._options = node, source, options
        self._interval = 1.0 / (options.rate or source.rate)
        self.images = node.create_publisher(Image, "image", 5)
        self._infos = node.create_publisher(CameraInfo, "camera_info", 5)

    def steps(self) -> Iterator[_Step]:
        for picture in self._source.pictures():
            yield _Step(self._interval, lambda picture=picture: self._publish(picture), True)

    def _publish(self, picture) -> None:
        from std_msgs.msg import Header

        from hmr_ros.geometry import pinhole
        from hmr_ros.ros.inputs import image_to_message, intrinsics_to_message

        height, width = picture.shape[:2]
        header = Header(frame_id=self._options.frame_id)
        message = image_to_message(picture, header)
        intrinsics = pinhole(width, height, self._options.fov)
        header.stamp = self._node.get_clock().now().to_msg()
        self._infos.publish(intrinsics_to_message(intrinsics, width, height, header))
        self.images.publish(message)


class _BagCamera:
    """Messages of a bag as they were recorded; CameraInfo of a plausible pinhole camera only where the bag has none."""

    def __init__(self, node, source: Source, options: Replay):
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        from hmr_ros.io.bags import INFO_TYPE, image_messages

        self._options, self._info_type = options, INFO_TYPE
        self._messages = lambda: image_messages(source.name, options.topic)
        first = next(iter(self._messages()), None)
        if first is None:
            raise ValueError(f"bag {source.name} holds no messages of its image topic")
        types = {m.type for m, _ in zip(self._messages(), range(50))}  # the beginning tells whether infos come along
        self._has_infos = INFO_TYPE in types
        compressed = "sensor_msgs/msg/CompressedImage" in types
        self._image_type = CompressedImage if compressed else Image
        topic = "image/compressed" if compressed else "image"
        if compressed:
            node.get_logger().info("the bag has compressed images: start live with image_transport:=compressed")
        self.images = node.create_publisher(self._image_type, topic, 5)
        self._infos = node.create_publisher(CameraInfo, "camera_info", 5)

    def steps(self) -> Iterator[_Step]:
        before = None
        for message in self._messages():
            is_image = message.type != self._info_type
            interval = 0.0 if before is None else message.time - before
            before = message.time
            if self._options.rate:
                interval = 1.0 / self._options.rate if is_image else 0.0
            yield _Step(interval, lambda message=message: self._publish(message), is_image)

    def _publish(self, message) -> None:
        if message.type == self._info_type:
            self._infos.publish(message.raw)
            return
        if not self._has_infos:
            self._publish_info(message.raw)
        self.images.publish(message.raw)

    def _publish_info(self, raw: bytes) -> None:
        from rclpy.serialization import deserialize_message
        from sensor_msgs.msg import Image

        from hmr_ros.geometry import pinhole
        from hmr_ros.io.decode import compressed_image_from_message
        from hmr_ros.ros.inputs import intrinsics_to_message

        image = deserialize_message(raw, self._image_type)
        if self._image_type is Image:
            height, width = image.height, image.width
        else:
            height, width = compressed_image_from_message(image).shape[:2]
        intrinsics = pinhole(width, height, self._options.fov)
        self._infos.publish(intrinsics_to_message(intrinsics, width, height, image.header))


if __name__ == "__main__":
    sys.exit(main())
