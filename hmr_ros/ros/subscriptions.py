"""What the node subscribes while it is active: images, CameraInfo, depth. It keeps what belongs to an image and says what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.qos import QoSDurabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from hmr_ros.ros.camera_state import CameraState
from hmr_ros.ros.depth_input import DepthInput
from hmr_ros.io.camera_info import NO_POSITIONS
from hmr_ros.ros.parameters import LiveParameters, depth_transform
from hmr_ros.ros.qos import LATCHED, NEWEST, SilenceWatch, SubscriptionEventCallbacks, beside, newest
from hmr_ros.ros.stamps import FrameGaps, RateLimit, nanoseconds
from hmr_ros.ros.transforms import Tf2Lookup, tf2_lookup, transform_of


class Subscriptions:
    """Subscribes through ``node``; every image that may be processed goes to ``submit(message, arrival)``, arrivals in s of time.monotonic.

    ``settings()`` are the parameters now, ``warn(text)`` writes a line of the log, once each.
    """

    def __init__(self, node, settings: Callable[[], LiveParameters], submit: Callable, warn: Callable[[str], None]):
        self._node, self._settings, self._submit, self._warn = node, settings, submit, warn
        now = settings()
        self.cameras = CameraState(now.camera_info_timeout, now.rectified)
        self.depth: DepthInput | None = None
        self.gaps, self.received, self.spared = FrameGaps(), 0, 0
        self.last_image = time.monotonic()
        self._first_image: float | None = None
        self._rate = RateLimit()
        self._told = ""  # why it is silent, as it stands in the log
        self._latched: dict[str, object] = {}  # topic → subscription
        if now.image_transport == "compressed":
            self._images = self._watch(CompressedImage, beside(node, "image", "compressed"), self._on_image, newest(now.image_reliability))
        else:
            self._images = self._watch(Image, "image", self._on_image, newest(now.image_reliability))
        self._infos = [(self._watch(CameraInfo, "camera_info", self._putter(self.cameras, False), NEWEST), self.cameras)]
        self._depths: SilenceWatch | None = None
        self._tf2: Tf2Lookup | None = None
        if now.use_depth:
            self._subscribe_depth(now)
        self._subscribe_latched()

    @property
    def image_topic(self) -> str:
        return self._images.topic

    def destroy(self) -> None:
        for watch in (self._images, *(watch for watch, _ in self._infos), *([self._depths] if self._depths else [])):
            watch.destroy()
        for subscription in self._latched.values():
            self._node.destroy_subscription(subscription)
        if self._tf2 is not None:
            self._tf2.close()

    def check(self) -> list[str]:
        """Once a second: what is missing, a remark for /diagnostics each; a line in the log when it begins, and when its reason changes."""
        now, settings = time.monotonic(), self._settings()
        remarks = []
        self.cameras.timeout = settings.camera_info_timeout
        if self.depth is not None:
            self.depth.cameras.timeout = settings.camera_info_timeout
        self._subscribe_latched()
        for watch, cameras in self._infos:
            if not watch.publishers():
                cameras.forget_latched()
        silence = now - self.last_image
        if silence <= settings.warn_silence:
            self._told = ""
        elif (reason := self._images.reason()) != self._told:
            self._told = reason
            self._node.get_logger().warning(f"no image for {silence:.0f} s: {reason}")
        images_come = self._first_image is not None and silence <= settings.warn_silence
        if images_come and now - self._first_image > settings.warn_silence and self.cameras.empty:
            info = self._infos[0][0]
            self._warn(f"images come without CameraInfo on {info.topic}: {NO_POSITIONS}; remap camera_info to the topic beside the image, or "
                       f"calibrate the camera ({info.reason()})")  # fmt: skip
            remarks.append("images come without CameraInfo")
        elif images_come and self.cameras.problem:
            remarks.append(f"CameraInfo is {self.cameras.state}")
        return remarks

    def _watch(self, message_type, topic: str, callback: Callable, profile) -> SilenceWatch:
        return SilenceWatch(self._node, message_type, topic, callback, profile, self._warn)

    def _subscribe_depth(self, now: LiveParameters) -> None:
        numbers, aligned = depth_transform(now.depth_to_image), now.depth_to_image == "aligned"
        lookup = self._tf2 = None if numbers or aligned else tf2_lookup(self._node)
        self.depth = DepthInput(CameraState(now.camera_info_timeout, rectified=False), transform_of(numbers) if numbers else None, aligned, lookup)
        if now.depth_transport == "compressedDepth":
            self._depths = self._watch(CompressedImage, beside(self._node, "depth", "compressedDepth"), self._on_depth, NEWEST)
        else:
            self._depths = self._watch(Image, "depth", self._on_depth, NEWEST)
        cameras = self.depth.cameras
        self._infos.append((self._watch(CameraInfo, "depth_camera_info", self._putter(cameras, False), NEWEST), cameras))

    def _subscribe_latched(self) -> None:
        """Once more where CameraInfo is kept for those who come late: who asks for that hears no other publisher, and is a warning in its log."""
        quiet = SubscriptionEventCallbacks(use_default_callbacks=False)  # the other publishers are heard by the first one
        for watch, cameras in self._infos:
            offers = [publisher.qos_profile.durability for publisher in watch.publishers()]
            if watch.topic not in self._latched and QoSDurabilityPolicy.TRANSIENT_LOCAL in offers:
                self._latched[watch.topic] = self._node.create_subscription(
                    CameraInfo, watch.topic, self._putter(cameras, True), LATCHED, event_callbacks=quiet
                )

    def _putter(self, cameras: CameraState, latched: bool) -> Callable[[CameraInfo], None]:
        return lambda message: cameras.put(message, time.monotonic(), latched)

    def _on_depth(self, message: Image | CompressedImage) -> None:
        self.depth.put(message, time.monotonic())

    def _on_image(self, message: Image | CompressedImage) -> None:
        now = self.last_image = time.monotonic()
        self._first_image = self._first_image or now
        self.received += 1
        self.gaps.add(nanoseconds(message.header.stamp))
        self._rate.rate = self._settings().max_rate
        if self._rate.passes(now):
            self._submit(message, now)
        else:
            self.spared += 1
