"""Several pictures in one file: animated GIF, WebP and PNG, and TIFFs of several pages of one size. Read by Pillow, page by page."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Iterator

import cv2
import numpy as np

from hmr_ros.io.decode import bit_depth_of, to_8bit
from hmr_ros.io.report import ReadReport, printable
from hmr_ros.io.videos import VideoFrame

PAGE_RATE = 4.0  # Hz, of pages without a duration
_WIDE = ("I;16", "I;16B", "I;16L", "I;16N", "I")


class SequenceFile:
    """``length`` pictures at ``rate`` Hz on average. ValueError for a file that Pillow cannot open."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with _opened(self.path) as picture:
            try:
                self.length = getattr(picture, "n_frames", 1)
            except Exception:  # damaged behind its first picture
                self.length = 1
            if counted := _counted(self.path):
                self.length = counted[0]
            durations = list(_durations(picture, self.length))
        self.rate = len(durations) / sum(durations) if durations else PAGE_RATE

    def frames(self, report: ReadReport | None = None) -> Iterator[VideoFrame]:
        """All pictures that can be decoded, in order; one bit depth for all of them where they have more than 8 bits."""
        report = report or ReadReport("frames")
        report.promised, time, index, depth = self.length, 0.0, 0, None
        if counted := _counted(self.path):
            report.promised, whole = counted
            if not whole:
                report.promised = None
                report.skip(self.path.name, "damaged or cut, the number of its pictures is not known")
        with _opened(self.path) as picture:
            if picture.mode in _WIDE:
                depth = max((bit_depth_of(values) for _, values in _pages(picture, self.length, ReadReport())), default=16)
                report.note(f"{printable(self.path.name)}: 16-bit values read as {depth}-bit")
            for seconds, values in _pages(picture, self.length, report):
                if depth is not None:
                    values = cv2.cvtColor(to_8bit(values, depth), cv2.COLOR_GRAY2BGR)
                report.read += 1
                yield VideoFrame(index, time, values)
                index, time = index + 1, time + seconds
        if not index:
            raise ValueError(f"{printable(self.path)} holds no picture that can be decoded, expected {self.length}")

    def count(self, stop: int | None = None, report: ReadReport | None = None) -> int:
        """How many can be decoded, at most ``stop``."""
        number = 0
        for number, _ in enumerate(self.frames(report), start=1):
            if number == stop:
                break
        return number


def is_sequence(path: Path) -> bool:
    """Whether a file holds several pictures that follow one another: more than one, all of one size (a smaller page is a thumbnail).
    Of a damaged GIF nobody knows how many it had: it is one, too."""
    if counted := _counted(path):
        return counted != (1, True)
    try:
        with _opened(path) as picture:
            sizes = set()
            for page in range(getattr(picture, "n_frames", 1)):
                picture.seek(page)
                sizes.add(picture.size)
            return page > 0 and len(sizes) == 1
    except Exception:  # whatever Pillow makes of a damaged file: the picture's decoder shall say what is wrong
        return False


def further_pages(path: Path) -> int:
    """How many pictures a file holds beyond the first."""
    try:
        with _opened(path) as picture:
            return getattr(picture, "n_frames", 1) - 1
    except Exception:  # see above
        return 0


def _opened(path: Path):
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(path)
    except Exception as error:  # Pillow's plugins raise what they like
        raise ValueError(f"{printable(path)} cannot be decoded, expected an animation or a TIFF ({error})") from error


def _pages(picture, length: int, report: ReadReport) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds shown, BGR uint8 or 16-bit grey) of each page that can be decoded."""
    from PIL import ImageOps

    for page in range(length):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture.seek(page)
                if picture.mode in _WIDE:
                    values = np.clip(np.asarray(ImageOps.exif_transpose(picture)), 0, 65535).astype(np.uint16)
                else:
                    values = np.ascontiguousarray(np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))[..., ::-1])
                seconds = _duration(picture)
        except Exception as error:  # see above
            report.skip(f"{Path(picture.filename).name}#{page:06d}", f"cannot be decoded ({error})")
            continue
        yield seconds, values


def _counted(path: Path) -> tuple[int, bool] | None:
    """How many pictures a GIF or WebP holds, and whether its blocks follow one another up to its end; None for other files.

    Neither format says how many there are, and Pillow does not miss what damage has made unreadable.
    """
    with open(path, "rb") as file:
        head = file.read(12)
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return _counted_gif(path.read_bytes())
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return _counted_webp(path.read_bytes())
    return None


def _counted_gif(data: bytes) -> tuple[int, bool]:
    number = 0
    try:
        at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
        while data[at] != 0x3B:
            if data[at] == 0x21:  # extension: its label, then sub-blocks
                at += 2
            elif data[at] == 0x2C:  # picture: descriptor, colour table, code size, then sub-blocks
                number += 1
                at += 11 + (3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0)
            else:
                return number, False
            while size := data[at]:
                at += size + 1
            at += 1
    except IndexError:
        return number, False
    return number, True


def _counted_webp(data: bytes) -> tuple[int, bool]:
    at, number = 12, 0
    while at + 8 <= len(data):
        if not data[at : at + 4].strip().isalnum():
            return number, False
        number += data[at : at + 4] == b"ANMF"
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        at += at % 2
    return number, at == len(data)


def _durations(picture, length: int) -> Iterator[float]:
    for page in range(length):
        try:
            picture.seek(page)
        except Exception:  # damaged: reading will say so
            return
        yield _duration(picture)


def _duration(picture) -> float:
    milliseconds = picture.info.get("duration") or 0
    return 1e-3 * milliseconds if milliseconds > 10 else 0.1 if "duration" in picture.info else 1 / PAGE_RATE
