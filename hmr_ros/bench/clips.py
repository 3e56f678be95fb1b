"""The frames that a benchmark plays: decoded, scaled and in memory before anything is timed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hmr_ros.io.report import printable
from hmr_ros.io.sources import open_source

ASSETS = Path(__file__).resolve().parents[1] / "assets"
EMBEDDED = {"one": ASSETS / "bench" / "one.mp4", "pedestrians": ASSETS / "demo" / "pedestrians.mp4"}
MOST_FRAMES = 300


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames uint8 (H, W, 3) BGR of one size at ``rate`` Hz; ``original`` is the size (W, H) before it was scaled."""

    name: str
    frames: list[np.ndarray]
    rate: float
    original: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        height, width = self.frames[0].shape[:2]
        return width, height

    def index(self, number: int) -> int:
        """Which frame is shown as number 0, 1, 2, ...: there and back without end, so that nobody jumps."""
        turn = max(2 * len(self.frames) - 2, 1)
        return min(number % turn, turn - number % turn)

    def describe(self) -> dict:
        digest = hashlib.sha256(b"".join(frame.tobytes() for frame in self.frames)).hexdigest()
        return {"frames": len(self.frames), "rate_hz": self.rate, "size": list(self.size), "original_size": list(self.original),
                "sha256_of_frames": digest}  # fmt: skip


def load_clip(name: str, size: tuple[int, int] = (640, 480)) -> Clip:
    """``one``, ``pedestrians``, or a video, folder or picture by its path; at most the first 300 frames.

    size: width and height into which frames are scaled, with their own aspect ratio; (0, 0) leaves them as they are. Raises ValueError where it is none of
    these, or has frames of several sizes.
    """
    if name not in EMBEDDED and not Path(name).exists():
        raise ValueError(f"clip {printable(name)} is not there, expected {', '.join(EMBEDDED)}, or the path of a video, a folder or a picture")
    source = open_source(str(EMBEDDED.get(name, name)))
    if source.kind in ("bag", "camera"):
        raise ValueError(f"clip {printable(name)} is a {source.kind}, expected {', '.join(EMBEDDED)}, or the path of a video, a folder or a picture")
    frames: list[np.ndarray] = []
    for picture in source.pictures():
        original = picture.shape[1::-1]
        frames.append(_fitted(picture, size))
        if frames[-1].shape != frames[0].shape:
            raise ValueError(f"clip {printable(name)} has frames of {frames[0].shape[1::-1]} and {frames[-1].shape[1::-1]} pixels, expected one size")
        if len(frames) == MOST_FRAMES:
            break
    if not frames:
        raise ValueError(f"clip {printable(name)} has no frame that can be decoded, expected at least one")
    return Clip(name if name in EMBEDDED else source.stem, frames, source.rate, tuple(original))


def _fitted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    scale = min(size[0] / picture.shape[1], size[1] / picture.shape[0])
    if scale in (0, 1):
        return np.ascontiguousarray(picture)
    width, height = (max(round(scale * side), 1) for side in picture.shape[1::-1])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
