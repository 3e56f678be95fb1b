"""Which CameraInfo belongs to an image: tied to it by stamp and frame_id, and for a time only. A restarted driver may have another lens."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from sensor_msgs.msg import CameraInfo

from hmr_ros.camera import Camera
from hmr_ros.io.camera_info import NO_POSITIONS, camera_from_message, camera_remarks

KEPT = 10  # CameraInfos; a zoom lens has another one for every image


class _Received(NamedTuple):
    info: CameraInfo
    arrival: float  # seconds, monotonic
    latched: bool


class CameraState:
    """Takes CameraInfo messages and gives the camera of an image. ``state`` says in words what it has, for diagnostics.

    A CameraInfo is used for images of its own frame_id (an empty one is anybody's), for ``timeout`` seconds after its stamp and after its arrival
    (0: for ever). A latched one, published once and kept by the middleware, is used until ``forget_latched``: its publisher is gone.
    """

    def __init__(self, timeout: float = 0.0, rectified: bool = False):
        self.timeout, self._rectified = timeout, rectified
        self._received: deque[_Received] = deque(maxlen=KEPT)
        self.state = "none received"
        self.problem = ""  # why the last image has no camera, in words; empty where it has one, or CameraInfo says that there is none
        self.remarks: list[str] = []  # what the last CameraInfo that was used misses, a line each

    def put(self, info: CameraInfo, arrival: float, latched: bool = False) -> None:
        """``latched``: out of the subscription for those that were published before it."""
        if not latched and self._received and self._received[-1].latched and self._received[-1].info == info:
            latched = True
        self._received.append(_Received(info, arrival, latched))

    def forget_latched(self) -> None:
        self._received = deque((received for received in self._received if not received.latched), maxlen=KEPT)

    @property
    def empty(self) -> bool:
        return not self._received

    def camera(self, header, width: int, height: int, arrival: float) -> Camera | None:
        """The camera of an image of ``width`` x ``height`` pixels with ``header``; None where there is none (``problem``)."""
        self.problem, self.remarks = "", []
        received = self._belonging(header, arrival)
        if received is None:
            return None
        try:
            camera = camera_from_message(received.info, width, height, self._rectified)
        except ValueError as error:
            self.problem, self.state = f"{NO_POSITIONS}: {error}", "unusable, see the log"
            return None
        self.remarks = camera_remarks(received.info, width, height, self._rectified)
        self.state = "uncalibrated" if camera is None else "latched" if received.latched else "current"
        return camera

    def _belonging(self, header, arrival: float) -> _Received | None:
        if not self._received:
            self.state = "none received"
            return None
        same_frame = [r for r in self._received if not (r.info.header.frame_id and header.frame_id) or r.info.header.frame_id == header.frame_id]
        if not same_frame:
            self.state = "of another frame_id"
            self.problem = (f'{NO_POSITIONS}: CameraInfo has frame_id "{self._received[-1].info.header.frame_id}", the image "{header.frame_id}", expected '
                            "the same; remap camera_info to the topic beside the image")  # fmt: skip
            return None
        stamp = _seconds(header.stamp)
        nearest = min(reversed(same_frame), key=lambda r: abs(_seconds(r.info.header.stamp) - stamp))
        if nearest.latched or not self.timeout:
            return nearest
        silent = arrival - max(r.arrival for r in same_frame)
        apart = abs(_seconds(nearest.info.header.stamp) - stamp) if stamp and _seconds(nearest.info.header.stamp) else 0.0
        if max(silent, apart) <= self.timeout:
            return nearest
        self.state = "expired"
        old = f"none has come for {silent:.1f} s" if silent > self.timeout else f"its stamp and that of the image are {apart:.1f} s apart"
        self.problem = (f"{NO_POSITIONS}: CameraInfo has expired, {old}, expected one within {self.timeout:g} s of each image; look at the camera "
                        "driver, or set camera_info_timeout (0: never)")  # fmt: skip
        return None


def _seconds(stamp) -> float:
    return stamp.sec + 1e-9 * stamp.nanosec
