"""What is shown: bodies and the picture of one moment, and the latest of them."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import cv2
import numpy as np

from hmr_ros.estimate import BodyEstimate
from hmr_ros.motion.motion import Motion

PICTURE_WIDTH = 480  # pixels: what a history of hundreds of pictures can afford
JPEG_QUALITY = 80
NOT_SHOWN = 'bodies have axes "target" (target_frame), expected "camera" or "ray": look at them in RViz, or run the node without target_frame'
KEPT_PICTURES = 300  # of a recording: those that were shown last
RATE_OVER_S = 3.0  # the rate is that of the last seconds


@dataclass(frozen=True, eq=False)
class Shot:
    """``bodies`` at ``time`` (seconds; the image's stamp). ``jpeg``: the picture, small, or what gets it; ``camera``: fx, fy, cx, cy,
    width, height; or None."""

    time: float
    bodies: Sequence[BodyEstimate]
    detected: int
    jpeg: bytes | Callable[[], bytes | None] | None = None
    camera: tuple[float, ...] | None = None

    def picture(self) -> np.ndarray | None:
        """uint8 (H, W, 3) RGB."""
        jpeg = self.jpeg() if callable(self.jpeg) else self.jpeg
        if jpeg is None:
            return None
        return cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def small_jpeg(picture: np.ndarray) -> bytes:
    """uint8 (H, W, 3) BGR → a JPEG of at most PICTURE_WIDTH."""
    height, width = picture.shape[:2]
    if width > PICTURE_WIDTH:
        picture = cv2.resize(picture, (PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width))), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


class History:
    """The latest ``length`` shots; ``count`` were there in all. Written by one thread, read by others."""

    def __init__(self, length: int):
        self._shots: deque[Shot] = deque(maxlen=length)
        self._arrivals: deque[float] = deque()
        self._lock = threading.Lock()
        self.count = 0

    def add(self, shot: Shot, arrival: float) -> None:
        """``arrival``: seconds of a clock that does not jump."""
        with self._lock:
            self._shots.append(shot)
            self.count += 1
            self._arrivals.append(arrival)
            while self._arrivals[0] < arrival - RATE_OVER_S:
                self._arrivals.popleft()

    def shots(self) -> list[Shot]:
        """Oldest first."""
        with self._lock:
            return list(self._shots)

    def rate(self, now: float) -> float:
        """Shots a second, lately; 0 where none comes any more."""
        with self._lock:
            recent = [arrival for arrival in self._arrivals if arrival >= now - RATE_OVER_S]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0


class RecordedPictures:
    """The small JPEGs of a recording, read when they are shown. ``read``: seconds → uint8 (H, W, 3) BGR or None, or ValueError, which
    ``problem`` tells."""

    def __init__(self, read: Callable[[float], np.ndarray | None]):
        self._read = read
        self.at = lru_cache(KEPT_PICTURES)(self._at)
        self.problem = ""

    def _at(self, time: float) -> bytes | None:
        try:
            picture = self._read(time)
        except ValueError as error:
            self.problem = f"no picture at {time:.3f} s: {error}"
            return None
        return None if picture is None else small_jpeg(picture)


def shots_of(motion: Motion, pictures: RecordedPictures | None = None) -> list[Shot]:
    """A recording's, in order of time; images without anybody are among them. ValueError for bodies that stand in no camera's frame."""
    if "target" in motion.rows["axes"]:
        raise ValueError(NOT_SHOWN)
    numbers, rows = motion.rows["frame"], motion.rows["time"]
    stamps = dict(zip(numbers.tolist(), rows.tolist()))
    by_time = OrderedDict((time, number) for number, time in stamps.items())
    shots = []
    for time in np.unique(motion.times).tolist():
        bodies = motion.at(by_time[time]) if time in by_time else []
        shots.append(Shot(time, bodies, len(bodies), pictures and partial(pictures.at, time), motion.camera))
    return shots
