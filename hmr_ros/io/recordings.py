"""One recorded file of a bag: MCAP or SQLite (rosbag2), a ROS 1 bag, or one of these compressed by zstd; told apart by content.

Whole files are read by rosbags, by their index. An MCAP or SQLite file that it cannot open, as a recorder leaves it that lost its power, is
read from its start as far as it goes (cut_recordings.py). Needs the package rosbags.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Iterator, Protocol

from hmr_ros.io.cut_recordings import CutMcap, CutSqlite, Topic, has_footer, zstd
from hmr_ros.io.report import printable

MCAP_MAGIC = b"\x89MCAP0\r\n"
SQLITE_MAGIC = b"SQLite format 3\0"
ROS1_MAGIC = b"#ROSBAG V"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_HEAD = 65536  # SQLite's first pages hold the text of its tables


class Recording(Protocol):
    """An open file. ``topics`` → number of messages, None where the file does not tell; ``definitions``: of message types, as far as it holds
    them; ``problems`` that cost messages, in words, and ``notes`` that cost none, both complete after a pass. ``messages`` raises whatever its
    library does where the file is damaged; with a time ``at`` (nanoseconds of the recording) it gives those of this time alone, without reading
    the whole file."""

    topics: dict[Topic, int | None]
    definitions: dict[str, str]
    problems: list[str]
    notes: list[str]

    def messages(self, wanted: set[Topic], at: int | None = None) -> Iterator[tuple[Topic, int, bytes]]: ...


def kind_of_recording(path: Path) -> str:
    """"mcap", "sqlite", "ros1" or "zstd" by the first bytes of a file; "" for any other. OSError where it cannot be opened."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    for magic, kind in ((MCAP_MAGIC, "mcap"), (ROS1_MAGIC, "ros1"), (ZSTD_MAGIC, "zstd")):
        if head.startswith(magic):
            return kind
    return "sqlite" if head.startswith(SQLITE_MAGIC) and b"topics" in head and b"messages" in head else ""


def open_recording(path: Path, stack: ExitStack) -> Recording:
    """``path``, open until ``stack`` closes. ValueError, in words, where nothing can be read from it."""
    size, kind = path.stat().st_size, kind_of_recording(path)
    if kind == "zstd":
        return _decompressed(path, stack)
    if kind == "mcap":
        return _indexed_or_cut("mcap", path, stack) if has_footer(path) else CutMcap(path, "it has no footer: its recorder was not closed")
    if kind == "sqlite":
        recording = _indexed_or_cut("sqlite", path, stack)
        wal = path.with_name(path.name + "-wal")
        if wal.is_file() and wal.stat().st_size:
            recording.problems.append(f"messages in {printable(wal.name)} are not read; move them into the file by "
                                      f"`sqlite3 {printable(path.name)} 'PRAGMA wal_checkpoint(TRUNCATE)'`")  # fmt: skip
        return recording
    if kind == "ros1":
        try:
            return _Ros1(path, stack)
        except Exception as error:
            raise ValueError(f"{printable(path)} is a damaged ROS 1 bag ({reason(error)}); mend it by `rosbag reindex` of ROS 1") from error
    with open(path, "rb") as file:
        found = f"{size} bytes, starting {file.read(8).hex(' ')}" if size else "an empty file"
    raise ValueError(f"{printable(path)} is no recording ({found}), expected MCAP, SQLite with rosbag2's tables, or a ROS 1 bag; "
                     "record again, or copy it again")  # fmt: skip


def reason(error: Exception, path: Path | None = None) -> str:
    """What a library says of a damaged file, in one short line."""
    text = printable(" ".join(str(error).split()))
    if path is not None:
        text = text.replace(printable(path), printable(path.name))
    name = "" if type(error).__name__ in ("ReaderError", "ValueError") else type(error).__name__
    return ": ".join(part for part in (name, text[:200].rstrip(".")) if part)


class _Indexed:
    """A whole file of rosbag2, read by rosbags."""

    def __init__(self, suffix: str, path: Path, stack: ExitStack):
        from rosbags.rosbag2 import Reader

        self._reader: Any = Reader.STORAGE_PLUGINS[suffix](path)
        self._reader.open()
        stack.callback(self._reader.close)
        self._take_topics(self._reader.metadata.message_count)

    @property
    def has_chunks(self) -> bool:
        """Of MCAP; a recorder that is told to write fast makes none."""
        return bool(self._reader.chunks)

    def _take_topics(self, total: int) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.topics: dict[Topic, int | None] = {}
        self.definitions = {c.msgtype: c.msgdef.data for c in self._reader.connections if c.msgdef.data}
        for topic, count in ((Topic(c.topic, c.msgtype), c.msgcount) for c in self._reader.connections):
            self.topics[topic] = (self.topics.get(topic) or 0) + count
        if (counted := sum(count or 0 for count in self.topics.values())) != total:  # two places that a damage hits one by one
            self.problems.append(f"it counts {total} messages, but {counted} by topics: it is damaged")

    def messages(self, wanted: set[Topic], at: int | None = None) -> Iterator[tuple[Topic, int, bytes]]:
        chosen = [c for c in self._reader.connections if Topic(c.topic, c.msgtype) in wanted]
        if not chosen:  # to rosbags this would mean all
            return
        for connection, time, raw in self._reader.messages(chosen, at, None if at is None else at + 1):
            yield Topic(connection.topic, connection.msgtype), time, raw


class _Ros1(_Indexed):
    """Its messages come out as CDR; image messages and CameraInfo have the same fields in ROS 1 and 2."""

    def __init__(self, path: Path, stack: ExitStack):
        from rosbags.rosbag1 import Reader
        from rosbags.typesys import Stores, get_typestore

        self._reader: Any = Reader(path)
        self._reader.open()
        stack.callback(self._reader.close)
        self._to_cdr = get_typestore(Stores.ROS2_HUMBLE).ros1_to_cdr
        self._take_topics(self._reader.message_count)

    def messages(self, wanted: set[Topic], at: int | None = None) -> Iterator[tuple[Topic, int, bytes]]:
        for topic, time, raw in super().messages(wanted, at):
            yield topic, time, bytes(self._to_cdr(raw, topic.type))


def _indexed_or_cut(kind: str, path: Path, stack: ExitStack) -> Recording:
    try:
        if kind == "sqlite":
            return _Indexed(".db3", _plainly_named(path, stack), stack)
        recording = _Indexed(".mcap", path, stack)
        if not recording.has_chunks:  # rosbags ends at messages that are not in the order of their times, recorders write such
            return CutMcap(path, "it has none")
        return recording
    except Exception as error:  # whatever rosbags stumbles over
        return CutMcap(path, reason(error, path)) if kind == "mcap" else CutSqlite(path, reason(error, path), stack)


def _plainly_named(path: Path, stack: ExitStack) -> Path:
    """A link to a database whose name rosbags would take for a part of an URI, or could not encode."""
    if not set("?#%") & set(str(path)) and "".join(c for c in str(path) if not "\udc80" <= c <= "\udcff") == str(path):
        return path
    link = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hmr-ros-bag-")), "bag.db3")
    link.symlink_to(path.resolve())
    return link


def _decompressed(path: Path, stack: ExitStack) -> Recording:
    """What a file compressed by zstd holds; of a cut one, what comes before the cut."""
    whole = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hmr-ros-bag-")), "bag")
    problem = ""
    with open(whole, "wb") as out:
        try:
            with zstd().open(path, "rb") as packed:
                while block := packed.read1(1 << 20):
                    out.write(block)
        except (EOFError, zstd().ZstdError) as error:
            problem = f"its zstd stream is damaged ({reason(error)})"
    if kind_of_recording(whole) in ("", "zstd"):
        held = problem or f"holds {whole.stat().st_size} bytes that are none"
        raise ValueError(f"{printable(path)} is no recording compressed by zstd ({held}), expected MCAP, SQLite with rosbag2's tables, "
                         "or a ROS 1 bag; `zstd -d` shows what it is")  # fmt: skip
    try:
        recording = open_recording(whole, stack)
    except ValueError as error:
        raise ValueError(str(error).replace(printable(whole), printable(path))) from error
    if problem:
        recording.problems.append(problem)
    return recording


def by_number(path: Path) -> list[str | int]:
    """A key for sorting: numbers in names count as numbers, bag_2 stands before bag_10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", path.name))]
