"""Where pictures come from: a picture, a folder of pictures, a video, a camera. ROS-free; bags are in bags.py."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable, Iterator

import cv2
import numpy as np

from hmr_ros.io.bags import is_bag
from hmr_ros.io.content import content_of, find_media
from hmr_ros.io.decode import read_picture
from hmr_ros.io.report import ReadReport, printable
from hmr_ros.io.sequences import SequenceFile, further_pages
from hmr_ros.io.videos import VideoFile, VideoFrame

logger = logging.getLogger(__name__)

PICTURE_RATE = 4.0  # Hz, for sources without a rate of their own


@dataclass
class Source:
    """``kind`` is picture, folder, video (an animation or a TIFF of several pages is one, too), camera or bag; ``files`` the pictures in
    order; ``rate`` in Hz, 0 for a bag. ``report`` says what became of the source, once its pictures have been read."""

    kind: str
    name: str
    rate: float
    files: tuple[Path, ...] = ()
    report: ReadReport = field(default_factory=ReadReport)
    _found: ReadReport = field(default_factory=ReadReport, repr=False)  # what listing a folder skipped and ignored
    _moving: VideoFile | SequenceFile | None = field(default=None, repr=False)

    def pictures(self) -> Iterator[np.ndarray]:
        """uint8 (H, W, 3) BGR, once through; begins a new ``report``. What cannot be decoded is left out, with a warning; ValueError
        where it is the only picture."""
        return (frame.picture for frame in self.frames())

    def frames(self) -> Iterator[VideoFrame]:
        """The same with their times in seconds."""
        self.report = ReadReport("frames" if self._moving or self.kind == "camera" else "pictures")
        if self._moving:
            return self._moving.frames(self.report)
        if self.kind == "camera":
            return _captured(_open_camera(self.name), self.report)
        return (VideoFrame(i, i / self.rate, picture) for i, (_, picture) in enumerate(self.decoded()))

    def decoded(self) -> Iterator[tuple[Path, np.ndarray]]:
        """The files of a folder, but for those that cannot be decoded, and their pictures; begins a new ``report``."""
        report = self.report = ReadReport(promised=len(self.files))
        report.add(self._found)
        for file in self.files:
            try:
                picture = read_file(file, report)
            except (ValueError, OSError) as error:
                if self.kind != "folder":
                    raise
                report.skip(file.name, error)
                logger.warning("left out: %s", error)
            else:
                report.read += 1
                yield file, picture

    @property
    def length(self) -> int | None:
        """Number of pictures; None where it is not known."""
        return self._moving.length if self._moving else len(self.files) or None

    @property
    def stem(self) -> str:
        """A name for output files."""
        return f"camera{self.name}" if self.kind == "camera" else Path(self.name).stem


def open_source(text: str) -> Source:
    """What SOURCE on a command line means, by content. ValueError, with what was found and expected, if it is none of these."""
    path = Path(text)
    if text.isdigit() and not path.exists():
        _open_camera(text).release()
        return Source("camera", text, 30.0)
    if not path.exists():
        found = "is a dangling link" if path.is_symlink() else "does not exist"
        raise ValueError(f"source {printable(text)} {found}, expected a picture, a folder, a video, a bag or a camera index")
    if is_bag(path):
        return Source("bag", text, 0.0)
    if path.is_dir():
        report = ReadReport()
        files = tuple(medium.path for medium in find_media(path, report, ("picture",)))
        if not files:
            raise ValueError(nothing_in(path, report, "pictures"))
        return Source("folder", text, PICTURE_RATE, files, _found=report)
    moving = open_moving(path)
    if moving is not None:
        return Source("video", text, moving.rate, _moving=moving)
    read_file(path)
    return Source("picture", text, PICTURE_RATE, (path,))


def open_moving(path: Path) -> VideoFile | SequenceFile | None:
    """A video, an animation or a TIFF of several pages; None for a single picture. ValueError for a file that is no medium,
    OSError where it cannot be opened."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{printable(path)} is no regular file, expected a picture or a video")
    content = content_of(path)
    if content.kind == "picture":
        return None
    if content.kind == "unsupported":
        raise ValueError(f"{printable(path)} is not supported: {content.name}")
    if content.kind == "none":
        raise ValueError(f"{printable(path)} ({path.stat().st_size} bytes) cannot be decoded ({content.name}), expected a picture or a video")
    return VideoFile(path) if content.kind == "video" else SequenceFile(path)


def read_file(path: Path, report: ReadReport | None = None) -> np.ndarray:
    """A picture by its path; ``report`` gets notes of what was assumed and left out. ValueError or OSError where it cannot be read."""
    picture = read_picture(path, report)
    if report is not None and path.suffix.lower() not in (".jpg", ".jpeg") and (pages := further_pages(path)):
        report.note(f"{printable(path.name)}: {pages} further pages are ignored, they have other sizes")
    return picture


def nothing_in(folder: Path, report: ReadReport, wanted: str) -> str:
    """Why a folder is no source, in one line."""
    found = [f"{name} ({reason})" for name, reason in report.skipped.items()] + report.ignored
    return (f"folder {printable(folder)} holds nothing to look at, expected {wanted}"
            + (f"; found {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}" if found else ""))  # fmt: skip


def unique_stems(inputs: Iterable[Path]) -> list[str]:
    """A name for each input's results; inputs of the same stem are numbered, so that none overwrites another."""
    stems: list[str] = []
    for path in inputs:
        stem, number = path.stem, 2
        while stem in stems:
            stem, number = f"{path.stem}-{number}", number + 1
        stems.append(stem)
    return stems


def _open_camera(name: str) -> cv2.VideoCapture:
    """A camera by its index. ValueError if OpenCV cannot open it."""
    capture = cv2.VideoCapture(int(name))
    if not capture.isOpened():
        raise ValueError(f"camera {name} cannot be opened, expected the index of a connected camera")
    return capture


def _captured(capture: cv2.VideoCapture, report: ReadReport) -> Iterator[VideoFrame]:
    report.promised = None
    try:
        while True:
            good, picture = capture.read()
            if not good:
                return
            yield VideoFrame(report.read, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, picture)
            report.read += 1
    finally:
        capture.release()
