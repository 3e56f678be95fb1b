"""`hmr-ros replay`: a picture, folder, video, camera or bag published as a camera's `image` and `camera_info`, with its `depth`.

Pictures get the stamp of their publication, so that latencies can be measured; messages of a bag go out as recorded.
"""

from __future__ import annotations

import struct
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Callable, Iterator, NamedTuple

import tyro

from hmr_ros.files import write_json
from hmr_ros.io.bags import IMAGE_TYPES, INFO_TYPE, Bag, BagMessage
from hmr_ros.io.report import ReadReport, printable
from hmr_ros.io.sources import Source, open_source
from hmr_ros.ros.process import StopEvent, ignore_signals, start_ros, stop_event, without_ros_arguments

SETTLE_S = 0.5  # after the match: the subscriber's side must have found us as well, or best-effort data is lost
REMINDER_S = 10.0  # between two lines that say what is waited for
LONGEST_WAIT_S = 1e9  # select() takes no more than 2^63 nanoseconds
BACKWARDS_S = 1.0  # a clock that steps back this far is worth a line; recorders interleave their topics by less


@dataclass(frozen=True)
class Replay:
    """Publish SOURCE as a camera would, on `image` and `camera_info` (remap with --ros-args -r image:=...)."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A picture, a folder of pictures, a video, the index of a camera, or a bag."""
    rate: float = 0.0
    """Images a second; 0: the source's own rate (4 for pictures)."""
    loop: bool = False
    """Begin again at the end of the source."""
    start: float = 0.0
    """Begin so many seconds after the beginning of the source."""
    max_frames: int = 0
    """Stop after so many images; 0: no limit."""
    max_seconds: float = 0.0
    """Stop after so many seconds; 0: no limit."""
    fov: float = 60.0
    """Horizontal field of view in degrees, for the camera_info of sources that have none."""
    max_gap: float = 5.0
    """Longest pause between two messages of a bag in seconds; a longer one is shortened to this. 0: pauses as recorded."""
    frame_id: str = "camera"
    """Frame of the images (optical: x right, y down, z forward)."""
    topic: str = ""
    """Image topic inside the bag, where it has several."""
    depth_topic: str = ""
    """Depth topic inside the bag, published on `depth` (or `depth/compressedDepth`), its CameraInfo on `depth_camera_info`."""
    wait: float = 120.0
    """Seconds to wait for subscribers of `image`; 0: begin at once."""
    subscribers: int = 1
    """How many subscribers to wait for."""
    clock: bool = False
    """Publish the stamps of the images as /clock, for nodes with use_sim_time."""
    json: Path | None = None
    """Write what was read and what was lost to this file."""

    def __post_init__(self):
        for name in ("rate", "start", "max_frames", "max_seconds", "max_gap", "wait", "subscribers"):
            if not getattr(self, name) >= 0:  # NaN as well
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected 0 or more")
        if not 0 < self.fov < 180:
            raise ValueError(f"--fov is {self.fov}, expected degrees between 0 and 180")
        if not self.frame_id:
            raise ValueError("--frame-id is empty, expected the name of a frame")
        if printable(self.frame_id) != self.frame_id:
            raise ValueError(f"--frame-id is {printable(self.frame_id)}, expected printable UTF-8")


def main(argv: list[str] | None = None) -> int:
    """Replay until the source ends: 0 if all of it was read, 1 if something was lost, 2 if there was no image (io/report.py). 0 as well
    once a limit is reached or a signal comes; 1 if nobody subscribes. ValueError for a source that is none."""
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
    if options.depth_topic and source.kind != "bag":
        raise ValueError(f"--depth-topic is {printable(options.depth_topic)}, but {printable(source.name)} is no bag")
    with Bag(source.name, options.topic, options.depth_topic) if source.kind == "bag" else nullcontext() as bag:
        camera = _PictureCamera(node, source, options) if bag is None else _BagCamera(node, bag, printable(source.name), options)
        if options.clock:
            camera.on_stamp = _clock(node)
        if not _wait_for_subscribers(node, camera.images, options, stop):
            return 0 if stop.is_set() else 1
        count, seconds = _play(camera, options, stop)
    report, code = camera.report, camera.report.exit_code
    if stop.is_set():  # what was asked for was done
        report, code = replace(report, promised=count, read=count), 0
        report.note("stopped before the end, as asked")
    if options.json:
        write_json(options.json, report.as_json() | {"exit_code": code, "line": report.line()})
    if count == 0 and code:
        node.get_logger().error(f"{printable(source.name)} gave no image: {report.line()}")
        return code
    _let_subscribers_finish(camera.images)
    say = node.get_logger().warning if code else node.get_logger().info
    say(f"published {count} images in {seconds:.1f} s; {report.line()}")
    return code


def _play(camera: _PictureCamera | _BagCamera, options: Replay, stop: StopEvent) -> tuple[int, float]:
    """How many images were published, in how many seconds; ``stop`` is set where that was before the end of the source."""
    begin = due = time.monotonic()
    end = begin + (options.max_seconds or LONGEST_WAIT_S)
    count = 0
    while not stop.is_set():
        count_before = count
        for step in camera.steps():
            due += step.interval
            if due < time.monotonic() - 1.0:  # the source is slower than its rate: no burst to catch up
                due = time.monotonic()
            if stop.wait(max(0.0, min(due, end) - time.monotonic())):
                break
            if time.monotonic() >= end:
                stop.set()
                break
            step.publish()
            count += step.is_image
            if options.max_frames and count >= options.max_frames:
                stop.set()
                break
        if not options.loop or count == count_before:
            break
    return count, time.monotonic() - begin


def _clock(node) -> Callable[[object], None]:
    """A function that publishes a stamp as /clock."""
    from rosgraph_msgs.msg import Clock

    publisher = node.create_publisher(Clock, "/clock", 1)
    return lambda stamp: publisher.publish(Clock(clock=stamp))


def _let_subscribers_finish(publisher) -> None:
    from rclpy.duration import Duration

    publisher.wait_for_all_acked(Duration(seconds=1.0))
    time.sleep(SETTLE_S)  # best-effort readers take the last image out of our shared memory


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


def _stamp_of(raw: bytes):
    """The stamp of a serialised message that begins with a header: CDR, four bytes in, seconds and nanoseconds."""
    from builtin_interfaces.msg import Time

    seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
    return Time(sec=seconds, nanosec=nanoseconds)


class _PictureCamera:
    """Decoded pictures, each with a CameraInfo of a plausible pinhole camera."""

    on_stamp = staticmethod(lambda stamp: None)  # called with the stamp of each image

    def __init__(self, node, source: Source, options: Replay):
        from sensor_msgs.msg import CameraInfo, Image

        self._node, self._source, self._options = node, source, options
        self._interval = 1.0 / (options.rate or source.rate)
        self.images = node.create_publisher(Image, "image", 5)
        self._infos = node.create_publisher(CameraInfo, "camera_info", 5)

    @property
    def report(self) -> ReadReport:
        return self._source.report

    def steps(self) -> Iterator[_Step]:
        for number, picture in enumerate(self._source.pictures()):
            if number < self._options.start * self._source.rate:
                continue
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
        self.on_stamp(header.stamp)
        self._infos.publish(intrinsics_to_message(intrinsics, width, height, header))
        self.images.publish(message)


class _BagCamera:
    """Messages of a bag as they were recorded; CameraInfo of a plausible pinhole camera only where the bag has none.

    What cannot be decoded is not published: rclpy's subscribers would end by it. ValueError if there is no image at all.
    """

    on_stamp = staticmethod(lambda stamp: None)

    def __init__(self, node, bag: Bag, name: str, options: Replay):
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        self.report = ReadReport()
        self._log, self._bag, self._options = node.get_logger(), bag, options
        if not any(message.topic == bag.topic for message in bag.messages(self.report)):
            raise ValueError(f"bag {name} holds no image of {printable(bag.topic)} that can be read: {self.report.line()}")
        compressed = bag.type == IMAGE_TYPES[1]
        self._image_type = CompressedImage if compressed else Image
        topic = "image/compressed" if compressed else "image"
        if compressed:
            self._log.info("the bag has compressed images: start live with image_transport:=compressed")
        self.images = node.create_publisher(self._image_type, topic, 5)
        self._infos = node.create_publisher(CameraInfo, "camera_info", 5)
        self._publishers = {bag.topic: self.images, bag.info_topic: self._infos}
        if bag.depth_topic:
            compressed = bag.depth_topic.endswith("/compressedDepth")
            self._publishers[bag.depth_topic] = node.create_publisher(
                CompressedImage if compressed else Image, "depth/compressedDepth" if compressed else "depth", 5
            )
        if bag.depth_info_topic:
            self._publishers[bag.depth_info_topic] = node.create_publisher(CameraInfo, "depth_camera_info", 5)

    def steps(self) -> Iterator[_Step]:
        self.report = ReadReport()
        before = first = None
        started = not self._options.start
        infos: dict[str, BagMessage] = {}  # of before --start: what follows needs them
        for number, message in enumerate(self._bag.messages(self.report)):
            first = message.time if first is None else first
            started = started or message.time >= first + self._options.start
            if not started:
                if message.type == INFO_TYPE:
                    infos[message.topic] = message
                continue
            for info in infos.values():
                yield _Step(0.0, lambda info=info: self._publish(info, None), False)
            infos = {}
            is_image = message.topic == self._bag.topic
            try:
                message.decoded()
                made_up = None if self._bag.has_infos or not is_image else self._made_up_info(message)
            except ValueError as error:
                self.report.read -= is_image
                self.report.skip(f"message {number}", error)
                continue
            interval = 0.0 if before is None else self._pause(before, message.time)
            before = message.time
            if self._options.rate:
                interval = 1.0 / self._options.rate if is_image else 0.0
            yield _Step(interval, lambda message=message, made_up=made_up: self._publish(message, made_up), is_image)

    def _pause(self, before: float, now: float) -> float:
        """Seconds between two messages; none where the recording's clock goes back, and --max-gap at most."""
        pause, longest = now - before, self._options.max_gap
        if pause < -BACKWARDS_S:
            self._log.info(f"the clock of the recording goes back by {-pause:.1f} s: played without a pause")
        if longest and pause > longest and not self._options.rate:
            self._log.info(f"nothing was recorded for {pause:.1f} s: shortened to {longest:g} s (--max-gap)")
            return longest
        return max(pause, 0.0)

    def _publish(self, message: BagMessage, made_up) -> None:
        if made_up is not None:
            self._infos.publish(made_up)
        if message.topic == self._bag.topic:
            self.on_stamp(_stamp_of(message.raw))
        self._publishers[message.topic].publish(message.raw)

    def _made_up_info(self, message: BagMessage):
        """ValueError for a picture whose size cannot be told."""
        from rclpy.serialization import deserialize_message
        from sensor_msgs.msg import Image

        from hmr_ros.geometry import pinhole
        from hmr_ros.io.decode import compressed_image_from_message
        from hmr_ros.ros.inputs import intrinsics_to_message

        image = deserialize_message(message.raw, self._image_type)
        if self._image_type is Image:
            height, width = image.height, image.width
        else:
            height, width = compressed_image_from_message(image).shape[:2]
        intrinsics = pinhole(width, height, self._options.fov)
        return intrinsics_to_message(intrinsics, width, height, image.header)


if __name__ == "__main__":
    sys.exit(main())
