"""A node that plays frames, made into messages beforehand, into a live node at a fixed rate, and matches the answers by stamp: for `hmr-ros bench`."""

from __future__ import annotations

import threading
import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from hmr_ros.bench.clips import Clip
from hmr_ros.bench.machine import ProcessUsage
from hmr_ros.bench.statistics import Run
from hmr_ros.geometry import Intrinsics
from hmr_ros.msg import BodyArray, BodyModel
from hmr_ros.ros.inputs import image_to_message, intrinsics_to_message
from hmr_ros.ros.qos import LATCHED

DEPTH = 10
LAST_ANSWER_S = 3.0  # a frame whose answer has not come so long after the last one was sent is lost
DIAGNOSTICS_S = 3.0  # they come once a second


class Player(Node):
    """Publishes `image` and `camera_info`; listens to `bodies`, `body_model` and /diagnostics. ``ready``: a node has become active."""

    def __init__(self, **node_arguments):
        super().__init__("player", **node_arguments)
        self.ready = threading.Event()
        self._images = self.create_publisher(Image, "image", 5)
        self._infos = self.create_publisher(CameraInfo, "camera_info", 5)
        self._clip: Clip | None = None
        self._messages: list[Image] = []
        self._info: CameraInfo | None = None
        self._changed = threading.Condition()
        self._answers: dict[int, tuple[float, int]] = {}
        self._frames_in = self._reports = 0
        self._counted: int | None = None  # of the live node's count, while nothing was published since
        self._number = 0
        self.create_subscription(BodyArray, "bodies", self._on_bodies, QoSProfile(depth=DEPTH))
        self.create_subscription(BodyModel, "body_model", lambda _: self.ready.set(), LATCHED)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, DEPTH)

    def load(self, clip: Clip, intrinsics: Intrinsics) -> None:
        """Make the clip's messages; it is played from its beginning."""
        header = Header(frame_id="camera")
        self._clip, self._number = clip, 0
        self._messages = [image_to_message(frame, header) for frame in clip.frames]
        self._info = intrinsics_to_message(intrinsics, *clip.size, header)

    def connected(self) -> bool:
        """Whether somebody listens to the images."""
        return self._images.get_subscription_count() > 0

    def publish(self, number: int, stamp: int) -> float:
        """Frame ``number`` with a stamp in ns; returns when, in seconds of time.perf_counter."""
        message = self._messages[self._clip.index(number)]
        for header in (message.header, self._info.header):
            header.stamp.sec, header.stamp.nanosec = divmod(stamp, 10**9)
        self._counted = None
        self._infos.publish(self._info)
        begin = time.perf_counter()
        self._images.publish(message)
        return begin

    def answer(self, stamp: int, patience: float) -> tuple[float, int] | None:
        """(when the answer came, people with a body) for a stamp in ns, as soon as it is there; None after ``patience`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: stamp in self._answers, patience)
            return self._answers.pop(stamp, None)

    def any_answer(self, patience: float) -> float | None:
        """When the first answer since ``forget`` came; None after ``patience`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._answers, patience)
            return min(came for came, _ in self._answers.values()) if self._answers else None

    def forget(self) -> None:
        """What has come so far is of no interest."""
        with self._changed:
            self._answers.clear()

    def play(self, rate: float, seconds: float, warm_up: float, process: ProcessUsage) -> Run:
        """The clip at ``rate`` Hz, as a camera of that rate would see it, for ``seconds`` after ``warm_up`` seconds that do not count.

        ``process`` is the live node's, whose CPU time and memory are read.
        """
        self.forget()
        before = self._frames_received() if self._counted is None else self._counted
        first, last = int(np.ceil(warm_up * rate)), int(np.ceil(warm_up * rate)) + max(round(seconds * rate), 2)
        stamps = time.time_ns() + np.round(np.arange(last) * 1e9 / rate).astype(np.int64)
        sent = np.zeros(last)
        begin = time.perf_counter() + 0.01
        for i in range(last):
            if i == first:
                cpu, since = process.cpu_seconds(), time.perf_counter()
            time.sleep(max(0.0, begin + i / rate - time.perf_counter()))
            sent[i] = self.publish(self._number + round(i * self._clip.rate / rate), int(stamps[i]))
        cpu_percent = 100 * (process.cpu_seconds() - cpu) / (time.perf_counter() - since)
        self._number += round(last * self._clip.rate / rate)
        with self._changed:
            self._changed.wait_for(lambda: int(stamps[-1]) in self._answers, LAST_ANSWER_S)
            answered = np.array([self._answers.get(int(stamp), (np.nan,))[0] for stamp in stamps])
        self._counted = self._frames_received()
        return Run(sent[first:], answered[first:], (self._counted - before) / last, cpu_percent, process.memory_mb())

    def _frames_received(self) -> int:
        """The live node's own count, from its next report. ValueError where none comes."""
        with self._changed:
            wanted = self._reports + 1
            if not self._changed.wait_for(lambda: self._reports >= wanted, DIAGNOSTICS_S):
                raise ValueError(f"no /diagnostics from the live node within {DIAGNOSTICS_S:g} s, expected one a second; see live.log")
            return self._frames_in

    def _on_bodies(self, message: BodyArray) -> None:
        now = time.perf_counter()
        stamp = message.header.stamp
        with self._changed:
            self._answers[10**9 * stamp.sec + stamp.nanosec] = (now, len(message.bodies))
            self._changed.notify_all()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        values = {pair.key: pair.value for status in message.status for pair in status.values}
        if "frames in" in values:
            with self._changed:
                self._frames_in = int(values["frames in"])
                self._reports += 1
                self._changed.notify_all()
