"""Which frames a source has (pictures, a video, a bag, a published dataset) and how a worker reads one of them.

Listing happens once, reading in every worker; neither opens anything but pictures, videos and bags. Frames of a video are counted by
decoding all of it, and found by exact seeking (io/seeking.py), so that a worker decodes its own part only. Messages of a bag are found by
their number from the start; workers keep their place, so that this costs each of them one pass.
"""

from __future__ import annotations

import importlib
from bisect import bisect_left
from itertools import islice
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np

from hmr_ros.io.bags import IMAGE_TYPES, BagMessage, image_messages, is_bag
from hmr_ros.io.content import find_media
from hmr_ros.io.report import ReadReport, printable
from hmr_ros.io.seeking import SeekingReader, VideoIndex, index_video
from hmr_ros.io.sources import nothing_in, open_moving, open_source, read_file
from hmr_ros.io.videos import VideoFile, VideoFrame
from hmr_ros.training.data.readers.records import Frame

READERS = {"human36m": "human36m", "3dpw": "threedpw", "up3d": "up3d"}  # kind: module with ``frames(root, split)``
DEPTH_TOLERANCE = 20_000_000  # nanoseconds between an image and the depth image that is taken for it


class FrameList(NamedTuple):
    """``depth``: number of the depth message that belongs to an image message of a bag, by the image's number. ``lost``: files
    of a dataset whose frames could not even be counted, with the reason. ``report``: what listing found of a folder, video or bag.
    ``index``: of a video, where its frames lie."""

    kind: str
    frames: list[Frame]
    depth: dict[int, int] = {}
    lost: dict[str, str] = {}
    report: ReadReport | None = None
    index: VideoIndex | None = None


class ImageAndDepth(NamedTuple):
    """``image`` uint8 (H, W, 3) BGR; ``depth`` float32 (H, W) metres, None where there is none; ``stamp`` seconds, NaN for pictures."""

    image: np.ndarray
    depth: np.ndarray | None = None
    stamp: float = float("nan")


def require(source: Path) -> None:
    if not source.exists():
        raise ValueError(f"source {printable(source)} does not exist, expected pictures, a video, a bag or a dataset")


def kind_of(source: Path) -> str:
    """What a source is, by what it looks like. ValueError if it does not exist or cannot be opened."""
    require(source)
    markers = {"3dpw": "imageFiles", "human36m": "S*/Videos", "up3d": "trainval.txt"}
    found = [kind for kind, pattern in markers.items() if source.is_dir() and any(source.glob(pattern))]
    if found:
        return found[0]
    if source.is_dir() and not is_bag(source):
        return "images"
    kind = open_source(str(source)).kind
    if kind == "camera":
        raise ValueError(f"source {source} is a camera, expected pictures, a video, a bag or a dataset; record it first")
    return "images" if kind == "picture" else kind


def list_frames(
    source: Path, kind: str, split: str = "", topic: str = "", depth_topic: str = "", stop: int | None = None
) -> FrameList:
    """Frames of a source in their order, at least up to number ``stop``. ValueError if it is of another kind or empty."""
    require(source)
    if kind in READERS:
        reader = importlib.import_module(f"hmr_ros.training.data.readers.{READERS[kind]}")
        corrupt: list = []
        found = reader.frames(source, split, corrupt) if kind == "human36m" else reader.frames(source, split)
        listing = FrameList(kind, list(found), lost={name: reason for name, reason in corrupt})
    elif kind == "images":
        listing = _pictures(source)
    elif kind == "video":
        listing = _video_frames(source, stop)
    else:
        listing = _bag_frames(source, topic, depth_topic)
    if not listing.frames:
        raise ValueError(f"{source} holds no frames, expected {'split ' + split + ' of ' if kind in READERS else ''}{kind}")
    if len({frame.name for frame in listing.frames}) < len(listing.frames):
        raise ValueError(f"{source}: frames of the same name; the reader of {kind} must name each differently")
    return listing


def _pictures(source: Path) -> FrameList:
    if source.is_file():
        return FrameList("images", [Frame(printable(source.name), source)], report=ReadReport(promised=1, read=1))
    report = ReadReport()
    found = [medium.path for medium in find_media(source, report, ("picture",), recursive=True)]
    if not found:
        raise ValueError(nothing_in(source, report, "pictures"))
    report.promised = report.read = len(found)
    frames = [Frame(printable(path.relative_to(source).as_posix()), path) for path in found]
    return FrameList("images", frames, report=report)


def _video_frames(source: Path, stop: int | None) -> FrameList:
    moving, report = open_moving(source), ReadReport("frames")
    if moving is None:
        raise ValueError(f"{printable(source)} is a picture, expected a video")
    index = index_video(moving, stop, report) if isinstance(moving, VideoFile) else None
    number = moving.count(stop, report) if index is None else len(index)
    frames = [Frame(f"{printable(source.name)}#{i:06d}", source, i) for i in range(number)]
    return FrameList("video", frames, report=report, index=index)


def _bag_frames(source: Path, topic: str, depth_topic: str) -> FrameList:
    report = ReadReport()
    stamps = [message.stamp for message in _images(source, topic, report)]
    if not stamps:
        raise ValueError(f"bag {printable(source)} holds no image that can be read: {report.line()}")
    frames = [Frame(f"{i:06d}@{stamp / 1e9:.6f}", source, i) for i, stamp in enumerate(stamps)]
    if not depth_topic:
        return FrameList("bag", frames, report=report)
    depths = sorted((message.stamp, i) for i, message in enumerate(_images(source, depth_topic)))
    pairs = {}
    for i, stamp in enumerate(stamps):
        place = bisect_left(depths, (stamp, -1))
        nearest = min(depths[max(place - 1, 0) : place + 1], key=lambda d: abs(d[0] - stamp), default=None)
        if nearest is not None and abs(nearest[0] - stamp) <= DEPTH_TOLERANCE:
            pairs[i] = nearest[1]
    if not pairs:
        raise ValueError(f"bag {printable(source)} has no message of {depth_topic} within {DEPTH_TOLERANCE / 1e6:g} ms of an image, "
                         "expected one for most images; compare their stamps, or leave out --depth-topic")  # fmt: skip
    return FrameList("bag", frames, pairs, report=report)


def _images(bag: Path, topic: str, report: ReadReport | None = None) -> Iterator[BagMessage]:
    return (message for message in image_messages(bag, topic, report) if message.type in IMAGE_TYPES)


class FileReader:
    """Frames of pictures and videos; cheapest in their order. With the ``index`` of the one video that they are of, they are sought."""

    def __init__(self, index: VideoIndex | None = None):
        self._index = index
        self._seeking: SeekingReader | None = None
        self._path: Path | None = None
        self._frames: Iterator[VideoFrame] | None = None  # None: the file is a picture
        self._next = 0

    def __call__(self, frame: Frame) -> ImageAndDepth:
        """ValueError or OSError where a frame cannot be read."""
        if self._index is not None:
            self._seeking = self._seeking or SeekingReader(VideoFile(frame.path), self._index)
            found = self._seeking(frame.index)
            return ImageAndDepth(found.picture, stamp=found.time)
        if frame.path != self._path or frame.index < self._next:
            self._path = None
            moving = open_moving(frame.path)
            self._frames, self._path, self._next = None if moving is None else moving.frames(), frame.path, 0
        if self._frames is None:
            return ImageAndDepth(read_file(frame.path))
        for found in self._frames:
            self._next = found.index + 1
            if found.index == frame.index:
                return ImageAndDepth(found.picture, stamp=found.time)
        raise ValueError(f"{printable(frame.path)} ends at frame {self._next}, expected frame {frame.index}")


class BagReader:
    """Image messages of a bag by their number, with the depth message of ``pairs`` where there is one."""

    def __init__(self, topic: str, depth_topic: str, pairs: dict[int, int]):
        self._images, self._depths, self._pairs = _BagTopic(topic), _BagTopic(depth_topic), pairs

    def __call__(self, frame: Frame) -> ImageAndDepth:
        """ValueError where a message cannot be converted."""
        message = self._images.message(frame.path, frame.index)
        depth = self._depths.message(frame.path, self._pairs[frame.index]).depth() if frame.index in self._pairs else None
        return ImageAndDepth(message.picture(), depth, 1e-9 * message.stamp)


class _BagTopic:
    def __init__(self, topic: str):
        self._topic, self._next = topic, 0
        self._messages: Iterator[BagMessage] | None = None

    def message(self, bag: Path, number: int) -> BagMessage:
        if self._messages is None or number < self._next:
            self._messages, self._next = _images(bag, self._topic), 0
        message = next(islice(self._messages, number - self._next, None), None)
        if message is None:
            raise ValueError(f"{bag} ends before message {number} of {self._topic or 'its image topic'}")
        self._next = number + 1
        return message
