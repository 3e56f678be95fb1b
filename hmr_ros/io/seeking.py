"""Frames of a video by their numbers, without decoding it from the start: the same frames, to the bit.

A number says nothing about where a frame lies in a file, and a codec may need frames from before the place that was sought. So the whole
video is decoded once, when its frames are counted: that gives the key frames by their stamps, and a checksum of every frame. A frame that is
read later must have its checksum; in a file where seeking does not give it, frames are found by decoding from the start.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from hmr_ros.io.report import ReadReport, printable
from hmr_ros.io.videos import VideoFile, VideoFrame

_ROWS = 4  # one row in so many is part of the checksum: blocks of every codec are at least as high


@dataclass(frozen=True)
class VideoIndex:
    """Of a video's first N frames. ``checksums`` (N,) uint32; ``keys`` (K,) numbers of key frames that can be sought and ``stamps`` (K,)
    their pts; ``first`` seconds of frame 0 by its own pts."""

    checksums: np.ndarray
    keys: list[int]
    stamps: list[int]
    first: float

    def __len__(self) -> int:
        return len(self.checksums)


def index_video(video: VideoFile, stop: int | None = None, report: ReadReport | None = None) -> VideoIndex:
    """Decode a video, or its first ``stop`` frames; nothing is converted. ``report`` is filled as by ``VideoFile.frames``."""
    checksums, keys, stamps, first, latest = [], [], [], 0.0, None
    with closing(video.decoded(report or ReadReport("frames"))) as frames:
        for number, (_, frame) in enumerate(frames):
            if number == 0:
                first = frame.time or 0.0
            in_order = frame.pts is not None and (latest is None or frame.pts > latest)
            if in_order:
                latest = frame.pts
                if frame.key_frame:
                    keys.append(number)
                    stamps.append(frame.pts)
            checksums.append(checksum(frame))
            if number + 1 == stop:
                break
    return VideoIndex(np.array(checksums, np.uint32), keys, stamps, first)


def checksum(frame) -> int:
    """CRC-32 of an av.VideoFrame's first plane (luma, or all components where they are interleaved), a row in four."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height : _ROWS, : frame.width]
    return zlib.crc32(np.ascontiguousarray(rows))


class SeekingReader:
    """Frames of a video by number, cheapest in their order. ``index`` is ``index_video``'s of the same file."""

    def __init__(self, video: VideoFile, index: VideoIndex):
        self._video, self._index = video, index
        self._convert = video.converter()
        self._frames: Iterator = iter(())
        self._next = len(index)  # number of the frame that comes next
        self.exact = True
        """Every frame found by seeking was the right one, so far."""

    def __call__(self, number: int) -> VideoFrame:
        """ValueError where there is no such frame, or it cannot be converted."""
        if not 0 <= number < len(self._index):
            raise ValueError(f"{printable(self._video.path)} ends at frame {len(self._index)}, expected frame {number}")
        key = bisect_right(self._index.keys, number) - 1 if self.exact else -1
        if number < self._next or (key >= 0 and self._index.keys[key] > self._next):
            self._start(key)
        found = next((frame for frame in self._frames if self._count() == number), None)
        if self.exact and (found is None or checksum(found) != self._index.checksums[number]):
            self.exact = False
            self._start(-1)
            found = next((frame for frame in self._frames if self._count() == number), None)
        if found is None:
            raise ValueError(f"{printable(self._video.path)} ends at frame {self._next}, expected frame {number}; it was longer when its "
                             "frames were counted")  # fmt: skip
        time = found.time - self._index.first if found.time is not None else number / self._video.rate
        return VideoFrame(number, time, self._convert(found))

    def _count(self) -> int:
        self._next += 1
        return self._next - 1

    def _start(self, key: int) -> None:
        """At a key frame, or at the start where ``key`` is -1."""
        if key >= 0:
            self._frames, self._next = self._video.decoded_from(self._index.stamps[key]), self._index.keys[key]
        else:
            self._frames, self._next = (frame for _, frame in self._video.decoded(ReadReport("frames"))), 0
