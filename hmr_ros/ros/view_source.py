"""The node `view`: listens to a live node's results and a camera's images, for viewer/. It publishes nothing and offers no service."""

from __future__ import annotations

import time

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from hmr_ros.io.body_messages import bodies_from_message
from hmr_ros.io.decode import compressed_image_from_message, image_from_message
from hmr_ros.msg import BodyArray, BodyModel
from hmr_ros.io.camera_info import camera_from_message
from hmr_ros.ros.qos import LATCHED, NEWEST
from hmr_ros.ros.stamped_buffer import StampedBuffer
from hmr_ros.ros.stamps import nanoseconds
from hmr_ros.viewer.meshes import MeshMaker
from hmr_ros.viewer.shots import NOT_SHOWN, History, Shot, small_jpeg

IMAGES = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)  # an image is there before its bodies: those before are needed too


class ViewSource(Node):
    """Subscribes `bodies`, `body_model`, `image` (or `image/compressed`; an overlay does as well) and `camera_info`, and fills ``history``.

    At most ``rate`` BodyArrays a second are taken, each with the image of its stamp where that has come.
    """

    def __init__(self, history: History, make_mesh: MeshMaker, rate: float, compressed: bool = False, **node_arguments):
        super().__init__("view", start_parameter_services=False, enable_rosout=False, **node_arguments)
        self._history, self._make_mesh = history, make_mesh
        self._interval, self._taken = 1 / rate, -np.inf
        self._received = 0
        self._info: CameraInfo | None = None
        self._images = StampedBuffer()
        self._convert = compressed_image_from_message if compressed else image_from_message
        self.create_subscription(BodyModel, "body_model", self._on_model, LATCHED)
        self.create_subscription(BodyArray, "bodies", self._on_bodies, NEWEST)
        self.create_subscription(CameraInfo, "camera_info", self._on_info, NEWEST)
        self.create_subscription(CompressedImage if compressed else Image, "image/compressed" if compressed else "image", self._on_image, IMAGES)

    def words(self) -> str:
        """What has come, or what is waited for."""
        if self._received:
            return f"{self._received} body arrays received"
        return f"waiting for {self.resolve_topic_name('bodies')}"

    def _on_model(self, message: BodyModel) -> None:
        self._make_mesh.expect(message.name, message.hash, np.asarray(message.faces))

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._images.put(nanoseconds(message.header.stamp), message)

    def _on_bodies(self, message: BodyArray) -> None:
        self._received += 1
        now = time.monotonic()
        if now < self._taken + self._interval:
            return
        self._taken = now
        jpeg, size = self._picture(message)
        bodies = bodies_from_message(message)
        if message.axes == "target":
            self.get_logger().warning(NOT_SHOWN, once=True)
            bodies = []
        self._history.add(Shot(1e-9 * nanoseconds(message.header.stamp), bodies, message.detected, jpeg, self._camera(size)), now)

    def _picture(self, message: BodyArray) -> tuple[bytes | None, tuple[int, int] | None]:
        image = self._images.nearest(nanoseconds(message.header.stamp), 0, 0.0)
        if image is None:
            return None, None
        try:
            picture = self._convert(image)
        except ValueError as error:
            self.get_logger().warning(f"no picture: {error}", throttle_duration_sec=5.0)
            return None, None
        return small_jpeg(picture), picture.shape[1::-1]

    def _camera(self, size: tuple[int, int] | None) -> tuple[float, ...] | None:
        """fx, fy, cx, cy, width, height, as far as they are known."""
        if self._info is None:
            return None
        width, height = size or (self._info.width, self._info.height)
        if not width or not height:  # CameraInfo may have neither
            return None
        try:
            camera = camera_from_message(self._info, width, height)
        except ValueError as error:
            self.get_logger().warning(f"the camera is drawn as a usual one: {error}", throttle_duration_sec=5.0)
            return None
        return None if camera is None else (*camera.intrinsics, width, height)
