"""A node that listens to a live node's inputs and outputs and pairs them by stamp: what the demo and benchmarks measure."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from hmr_ros.estimate import BodyEstimate
from hmr_ros.io.decode import image_from_message
from hmr_ros.msg import BodyArray, BodyModel
from hmr_ros.io.camera_info import camera_from_message
from hmr_ros.ros.messages import bodies_from_message
from hmr_ros.ros.qos import LATCHED

MAX_PENDING = 64  # images whose answer may still come; older ones were dropped by the live node


@dataclass(frozen=True)
class Answer:
    """One image and its bodies: ``index`` counts the images received, ``latency`` is stamp to reception in seconds."""

    index: int
    stamp: float
    latency: float
    jpeg: bytes
    bodies: list[BodyEstimate]

    def image(self) -> np.ndarray:
        return cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)


@dataclass
class Session:
    """What was seen since it began."""

    images: int = 0
    answers: list[Answer] = field(default_factory=list)


class Collector(Node):
    """Subscribes `image`, `camera_info`, `bodies` and `body_model`; ``ready`` is set when a body model has come, so the node is active."""

    def __init__(self, **node_arguments):
        super().__init__("collector", **node_arguments)
        self.ready = threading.Event()
        self.model: BodyModel | None = None
        self.session = Session()
        self._pending: OrderedDict[tuple[int, int], tuple[int, Image]] = OrderedDict()
        reliable = QoSProfile(depth=30, reliability=QoSReliabilityPolicy.RELIABLE)
        self._info: CameraInfo | None = None
        self.create_subscription(BodyModel, "body_model", self._on_model, LATCHED)
        self.create_subscription(CameraInfo, "camera_info", self._on_camera_info, reliable)
        self.create_subscription(Image, "image", self._on_image, reliable)
        self.create_subscription(BodyArray, "bodies", self._on_bodies, reliable)

    def begin(self) -> Session:
        """Start a new session and return it."""
        self._pending.clear()
        self.session = Session()
        return self.session

    def waiting(self) -> bool:
        """Whether the newest image is still unanswered."""
        newest = next(reversed(self._pending.values()), None)
        return newest is not None and newest[0] == self.session.images - 1

    def _on_model(self, message: BodyModel) -> None:
        self.model = message
        self.ready.set()

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_image(self, message: Image) -> None:
        stamp = message.header.stamp
        self._pending[stamp.sec, stamp.nanosec] = (self.session.images, message)
        self.session.images += 1
        while len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)

    def _on_bodies(self, message: BodyArray) -> None:
        received = time.time()
        stamp = message.header.stamp
        index, image = self._pending.pop((stamp.sec, stamp.nanosec), (None, None))
        if image is None:
            return
        seconds = stamp.sec + 1e-9 * stamp.nanosec
        good, jpeg = cv2.imencode(".jpg", image_from_message(image), [cv2.IMWRITE_JPEG_QUALITY, 95])
        camera = None if self._info is None else camera_from_message(self._info, image.width, image.height)
        if good:
            self.session.answers.append(
                Answer(index, seconds, received - seconds, jpeg.tobytes(), bodies_from_message(message, camera))
            )
