"""What a file is, by its first bytes, whatever it is called: a picture, several pictures in one file, a video, or no medium."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Iterator, Literal, NamedTuple

from hmr_ros.io.report import ReadReport, printable
from hmr_ros.io.sequences import is_sequence

Kind = Literal["picture", "sequence", "video", "unsupported", "none"]
MEDIA: tuple[Kind, ...] = ("picture", "sequence", "video")

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif", ".heic")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")
# Annotations and notes are never opened, not even for their first bytes: extraction promises to see no truth.
NEVER_OPENED = (".npz", ".npy", ".pkl", ".pickle", ".json", ".txt", ".csv", ".xml", ".yaml", ".yml", ".mat", ".cdf", ".h5", ".hdf5",
                ".md", ".py", ".log", ".safetensors", ".pt", ".pth", ".zip", ".gz", ".tar", ".zst")  # fmt: skip
_HEAD = 4096


class Content(NamedTuple):
    """``kind``: a picture; a "sequence" of pictures in one file (animated, or of several pages); a video; "unsupported", a medium that
    is not read; or "none". ``name`` of the format or, where it is none, what was found."""

    kind: Kind
    name: str


class Medium(NamedTuple):
    path: Path
    kind: Kind


def content_of(path: Path) -> Content:
    """By its first bytes. OSError where it cannot be opened."""
    with open(path, "rb") as file:
        content = _by_head(file.read(_HEAD))
    if content.name in ("GIF", "TIFF") and not is_sequence(path):
        return Content("picture", content.name)
    return content


def _by_head(head: bytes) -> Content:
    if not head:
        return Content("none", "an empty file")
    for start, name in (
        (b"\xff\xd8\xff", "JPEG"), (b"BM", "BMP"), (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"),
    ):  # fmt: skip
        if head.startswith(start):
            return Content("picture", name)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        animated = 0 <= head.find(b"acTL") < (head.find(b"IDAT") if b"IDAT" in head else _HEAD)
        return Content("sequence", "animated PNG") if animated else Content("picture", "PNG")
    if head[:4] == b"RIFF":
        if head[8:12] == b"WEBP":
            animated = head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 2
            return Content("sequence", "animated WebP") if animated else Content("picture", "WebP")
        return Content("video", "AVI") if head[8:12] == b"AVI " else Content("none", f"RIFF {head[8:12]!r}")
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return Content("sequence", "GIF")
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return Content("sequence", "TIFF")
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return Content("picture", "PNM")
    if head[4:8] == b"ftyp":
        return _iso(head[8:12])
    for start, kind, name in (
        (b"\x1aE\xdf\xa3", "video", "Matroska"), (b"\0\0\1\xba", "video", "MPEG-PS"), (b"\0\0\1\xb3", "video", "MPEG"),
        (b"FLV\1", "video", "FLV"), (b"OggS", "video", "Ogg"), (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video", "ASF"),
        (b"YUV4MPEG2", "video", "Y4M"), (b"DKIF", "video", "IVF"),
        (b"8BPS", "unsupported", "Photoshop"), (b"v/1\1", "unsupported", "OpenEXR"), (b"#?RADIANCE", "unsupported", "Radiance HDR"),
        (b"\xff\x0a", "unsupported", "JPEG XL"), (b"\0\0\0\x0cJXL ", "unsupported", "JPEG XL"),
    ):  # fmt: skip
        if head.startswith(start):
            return Content(kind, name)
    if head[4:8] in (b"moov", b"mdat", b"wide", b"moof", b"styp", b"skip", b"free"):
        return Content("video", "QuickTime")
    if any(len(head) > at + 188 and head[at] == head[at + stride] == 0x47 for at, stride in ((0, 188), (4, 192)) if len(head) > at + stride):
        return Content("video", "MPEG-TS")
    return Content("none", f"no picture or video, it starts with {head[:8].hex(' ')}")


def _iso(brand: bytes) -> Content:
    """ISO base media files by their major brand."""
    if brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"):
        return Content("unsupported", "HEIC, convert it to JPEG, for example with heif-convert")
    if brand == b"crx ":
        return Content("unsupported", "Canon raw")
    if brand in (b"avif", b"avis"):
        return Content("picture", "AVIF")
    return Content("none", "audio") if brand in (b"M4A ", b"M4B ") else Content("video", "MP4")


def find_media(folder: Path, report: ReadReport, kinds: tuple[Kind, ...] = MEDIA, recursive: bool = False) -> list[Medium]:
    """The media of a folder in the order of their paths. Everything else goes into ``report``: media that are not read, or not of these
    ``kinds``, as skipped with the reason; other files as ignored. Hidden files and, unless ``recursive``, subfolders are left alone.
    """
    found: list[Medium] = []
    for path in _entries(folder, recursive, report):
        name = path.relative_to(folder).as_posix()
        try:
            mode = path.stat().st_mode
        except OSError as error:
            report.skip(name, "a dangling link" if path.is_symlink() else _reason(error))
            continue
        if not stat.S_ISREG(mode):  # opening a pipe would wait for its writer
            report.ignored.append(printable(name) + ("/" if stat.S_ISDIR(mode) else ""))
            continue
        suffix = path.suffix.lower()
        if suffix in NEVER_OPENED:
            report.ignored.append(printable(name))
            continue
        try:
            content = content_of(path)
        except OSError as error:
            report.skip(name, _reason(error))
            continue
        if content.kind in kinds:
            found.append(Medium(path, content.kind))
        elif content.kind in MEDIA:
            report.skip(name, f"a {content.kind} ({content.name}), expected {' or '.join(kinds)} here; name the file itself")
        elif content.kind == "unsupported":
            report.skip(name, f"not supported: {content.name}")
        elif suffix in PICTURE_SUFFIXES + VIDEO_SUFFIXES:
            report.skip(name, content.name)  # called a medium and is none: it was one, perhaps
        else:
            report.ignored.append(printable(name))
    return found


def _entries(folder: Path, recursive: bool, report: ReadReport) -> Iterator[Path]:
    if not recursive:
        yield from sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        return
    def failed(error: OSError) -> None:
        report.skip(Path(error.filename).relative_to(folder), _reason(error))

    paths = []
    for where, folders, names in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(where, name) for name in names if not name.startswith(".")]
    yield from sorted(paths)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
