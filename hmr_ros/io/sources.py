"""Where replayed pictures come from: a picture, a folder of pictures, a video, a camera. ROS-free; bags are in bags.py."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator

import cv2
import numpy as np

from hmr_ros.io.decode import read_picture

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
PICTURE_RATE = 4.0  # Hz, for sources without a rate of their own


@dataclass(frozen=True)
class Source:
    """``kind`` is picture, folder, video, camera or bag; ``files`` the pictures in order; ``rate`` in Hz, 0 for a bag."""

    kind: str
    name: str
    rate: float
    files: tuple[Path, ...] = ()

    def pictures(self) -> Iterator[np.ndarray]:
        """uint8 (H, W, 3) BGR, once through. A file of a folder that cannot be decoded is left out, with a warning; ValueError where
        it is the only one."""
        if self.kind == "folder":
            yield from (picture for _, picture in self.decoded())
        elif self.files:
            yield from map(read_picture, self.files)
        else:
            yield from _captured(open_capture(self.name))

    def decoded(self) -> Iterator[tuple[Path, np.ndarray]]:
        """The files of a folder, but for those that cannot be decoded, and their pictures."""
        for file in self.files:
            try:
                yield file, read_picture(file)
            except ValueError as error:
                logger.warning("left out: %s", error)

    @property
    def length(self) -> int | None:
        """Number of pictures; None where it is not known."""
        if self.files:
            return len(self.files)
        if self.kind != "video":
            return None
        capture = open_capture(self.name)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        return count if count > 0 else None

    @property
    def stem(self) -> str:
        """A name for output files."""
        return f"camera{self.name}" if self.kind == "camera" else Path(self.name).stem


def open_source(text: str) -> Source:
    """What SOURCE on a command line means. ValueError, with what was found and expected, if it is none of these."""
    path = Path(text)
    if text.isdigit() and not path.exists():
        open_capture(text).release()
        return Source("camera", text, 30.0)
    if not path.exists():
        raise ValueError(f"source {text} does not exist, expected a picture, a folder, a video, a bag or a camera index")
    if path.suffix.lower() in (".mcap", ".db3") or (path / "metadata.yaml").is_file():
        return Source("bag", text, 0.0)
    if path.is_dir():
        return Source("folder", text, PICTURE_RATE, files_in(path, PICTURE_SUFFIXES))
    if path.suffix.lower() in PICTURE_SUFFIXES:
        read_picture(path)
        return Source("picture", text, PICTURE_RATE, (path,))
    capture = open_capture(text)
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return Source("video", text, rate if 0 < rate <= 240 else 25.0)


def files_in(folder: Path, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    """Its files with these endings, by name; subfolders are not opened. ValueError if there are none."""
    files = tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes))
    if not files:
        raise ValueError(f"folder {folder} holds nothing to look at, expected files with {', '.join(suffixes)}")
    return files


def unique_stems(inputs: Iterable[Path]) -> list[str]:
    """A name for each input's results; inputs of the same stem are numbered, so that none overwrites another."""
    stems: list[str] = []
    for path in inputs:
        stem, number = path.stem, 2
        while stem in stems:
            stem, number = f"{path.stem}-{number}", number + 1
        stems.append(stem)
    return stems


def open_capture(name: str) -> cv2.VideoCapture:
    """A video by its path or a camera by its index. ValueError if OpenCV cannot open it."""
    capture = cv2.VideoCapture(int(name) if name.isdigit() and not Path(name).exists() else name)
    if not capture.isOpened():
        raise ValueError(f"{name} cannot be opened, expected a video that OpenCV can read or the index of a camera")
    return capture


def _captured(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    try:
        while True:
            good, picture = capture.read()
            if not good:
                return
            yield picture
    finally:
        capture.release()
