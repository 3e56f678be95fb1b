"""MCAP and SQLite files without a usable index, read from their start as far as they go: what a recorder leaves that lost its power.

MCAP: https://mcap.dev/spec. Nothing of what follows a damage inside a chunk is lost but the rest of this chunk.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import sys
from collections import Counter
from contextlib import ExitStack, closing
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Iterator, NamedTuple
from urllib.parse import quote
from zlib import crc32

from hmr_ros.io.report import printable

_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _INDEX, _STATISTICS, _LAST = 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0B, 0x0F
_PRIVATE = 0x80  # and above: records that applications define
_MAGIC_SIZE = 8
_STRETCH = 1 << 20  # bytes of a file, at least, that are searched for the messages of one time
_MESSAGE_HEAD = 22  # bytes before its data: channel, sequence, two times


class Topic(NamedTuple):
    name: str
    type: str


def zstd() -> Any:
    """The module, as rosbags uses it."""
    if sys.version_info >= (3, 14):
        from compression import zstd as module
    else:
        from backports import zstd as module
    return module


def has_footer(path: Path) -> bool:
    """Whether an MCAP file ends as the specification wants it, with a summary."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size < 2 * _MAGIC_SIZE + 29:
            return False
        file.seek(-_MAGIC_SIZE - 29, os.SEEK_END)
        operation, size, summary = struct.unpack("<BQQ", file.read(17))
        return operation == _FOOTER and size == 20 and summary > 0


class CutMcap:
    """``why`` it is not read by its index. ``topics``, ``problems`` and ``notes`` as in recordings.Recording."""

    def __init__(self, path: Path, why: str):
        self._path = path
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, Topic] = {}
        self.problems: list[str] = []
        self.notes = [f"{printable(path.name)} was read without its index: {why}"]
        self._at = 0  # byte where the record begins that is read
        self._stretches: list[list[int]] = []  # of the file: the byte where each begins, the first and last time of its messages
        found: Counter[int] = Counter()
        for channel, time, _ in self._walk(data=False):
            found[channel] += 1
            if not self._stretches or self._at >= self._stretches[-1][0] + _STRETCH:
                self._stretches.append([self._at, time, time])
            _, first, last = self._stretches[-1]
            self._stretches[-1][1:] = min(first, time), max(last, time)
        counts: dict[Topic, int] = Counter()
        for channel, topic in self._channels.items():
            counts[topic] += max(found[channel], self._indexed[channel], self._stated.get(channel, 0))
        # What lies behind a damage is not known.
        self.definitions: dict[str, str] = {}
        self.topics: dict[Topic, int | None] = {topic: None if self._found else count for topic, count in counts.items()}

    def messages(self, wanted: set[Topic], at: int | None = None) -> Iterator[tuple[Topic, int, bytes]]:
        for channel, time, raw in self._walk() if at is None else self._near(at):
            if (topic := self._channels.get(channel)) in wanted and topic is not None and at in (None, time):
                yield topic, time, raw

    def _near(self, wanted: int) -> Iterator[tuple[int, int, bytes]]:
        """The messages of all stretches that may hold some of this time."""
        with open(self._path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            ends = [begin for begin, _, _ in self._stretches[1:]] + [size]
            for (begin, first, last), end in zip(self._stretches, ends):
                if first <= wanted <= last:
                    file.seek(begin)
                    for message in self._records(file, size, True):
                        if self._at >= end:
                            break
                        yield message

    def _walk(self, data: bool = True) -> Iterator[tuple[int, int, bytes]]:
        """Channel, time and, where wanted, data of the messages; fills what is known of the file."""
        self._indexed: Counter[int] = Counter()  # messages by the index behind each chunk
        self._stated: dict[int, int] = {}  # and by the statistics at the end
        self._found: list[str] = []
        with open(self._path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(_MAGIC_SIZE)
            yield from self._records(file, size, data)
        for problem in self._found:
            if problem not in self.problems:
                self.problems.append(problem)

    def _records(self, file: BinaryIO, end: int, data: bool, chunk_at: int | None = None) -> Iterator[tuple[int, int, bytes]]:
        """Of the file, or of the chunk that begins at byte ``chunk_at``."""
        place = "" if chunk_at is None else f" of the chunk at byte {chunk_at}"
        while True:
            at = file.tell()
            self._at = at if chunk_at is None else self._at
            head = file.read(9)
            if not head and chunk_at is not None:
                return
            if len(head) < 9:
                self._found.append(f"it is cut: it ends at byte {at}{place} without a footer")
                return
            operation, size = struct.unpack("<BQ", head)
            if not (0 < operation <= _LAST or operation >= _PRIVATE) or (chunk_at is not None and operation not in (_SCHEMA, _CHANNEL, _MESSAGE)):
                self._found.append(f"it is damaged at byte {at}{place}: a record of unknown type {operation:#04x}")
                return
            there = min(size, end - at - 9)
            whole = there == size
            if not whole:
                self._found.append(f"it is cut: of the record at byte {at}{place} {there} of {size} bytes are there")
            content = file.read(there if data or operation != _MESSAGE else min(there, _MESSAGE_HEAD))
            file.seek(at + 9 + there)
            if operation == _FOOTER and whole:
                return
            try:
                if operation == _CHUNK:
                    yield from self._chunk(content, at, data)
                elif operation == _MESSAGE and whole:
                    channel, _, time, _ = struct.unpack_from("<HIQQ", content)
                    yield channel, time, content[_MESSAGE_HEAD:]
                elif whole:
                    self._take(operation, content)
            except (struct.error, ValueError) as error:
                self._found.append(f"it is damaged at byte {at}{place} ({error})")
            if not whole:
                return

    def _chunk(self, content: bytes, at: int, data: bool) -> Iterator[tuple[int, int, bytes]]:
        size, crc = struct.unpack_from("<QI", content, 16)
        compression, after = _text(content, 28)
        packed = content[after + 8 : after + 8 + struct.unpack_from("<Q", content, after)[0]]
        raw = _decompressed(packed, compression)
        if len(raw) == size and crc and crc32(raw) != crc:
            self._found.append(f"the chunk at byte {at} is damaged: its checksum is wrong")
        if len(raw) != size:
            self._found.append(f"the chunk at byte {at} is damaged: it has {len(raw)} of {size} bytes")
        yield from self._records(BytesIO(raw), len(raw), data, at)

    def _take(self, operation: int, content: bytes) -> None:
        """Of the copies in chunks and summary the first one counts."""
        if operation == _SCHEMA:
            self._schemas.setdefault(*struct.unpack_from("<H", content), _text(content, 2)[0])
        elif operation == _CHANNEL:
            channel, schema = struct.unpack_from("<HH", content)
            topic, after = _text(content, 4)
            if _text(content, after)[0] == "cdr":
                self._channels.setdefault(channel, Topic(topic, self._schemas.get(schema, "")))
        elif operation == _INDEX:
            channel, size = struct.unpack_from("<HI", content)
            self._indexed[channel] += size // 16
        elif operation == _STATISTICS:
            (size,) = struct.unpack_from("<I", content, 42)
            self._stated = dict(struct.iter_unpack("<HQ", content[46 : 46 + size]))


def _text(content: bytes, at: int) -> tuple[str, int]:
    """A string with its length before it, and where it ends. ValueError where it is none."""
    (size,) = struct.unpack_from("<I", content, at)
    text = content[at + 4 : at + 4 + size]
    if len(text) < size:
        raise ValueError(f"a text of {size} bytes does not fit")
    return text.decode(), at + 4 + size


def _decompressed(packed: bytes, compression: str) -> bytes:
    """As much as a perhaps cut stream gives. ValueError where it gives nothing."""
    if not compression:
        return packed
    try:
        if compression == "lz4":
            from lz4.frame import LZ4FrameDecompressor

            return LZ4FrameDecompressor().decompress(packed)
        if compression == "zstd":
            return zstd().ZstdDecompressor().decompress(packed)
    except Exception as error:  # RuntimeError of lz4, ZstdError
        raise ValueError(f"{compression}: {error}") from error
    raise ValueError(f"compression {compression!r} is not known, expected lz4 or zstd")


class CutSqlite:
    """rosbag2's tables, row by row in the order of recording. ValueError where not even the list of topics can be read."""

    def __init__(self, path: Path, why: str, stack: ExitStack):
        name = quote(os.fsencode(path.resolve()))
        self._database = stack.enter_context(closing(sqlite3.connect(f"file:{name}?mode=ro&immutable=1", uri=True, check_same_thread=False)))
        self._database.text_factory = lambda text: text.decode("utf-8", "backslashreplace")
        self.problems = [f"it is damaged ({why}): it was read as far as it goes"]
        self.notes: list[str] = []
        try:
            self._database.execute("PRAGMA writable_schema=ON")  # otherwise SQLite refuses a file that is shorter than it says
            rows = self._database.execute("SELECT id, name, type, serialization_format FROM topics").fetchall()
        except sqlite3.Error as error:
            raise ValueError(f"{printable(path)} is damaged ({error}), its topics cannot be read; `sqlite3 {printable(path.name)} .recover` "
                             "may save some of it") from error  # fmt: skip
        self._topics = {key: Topic(name, kind) for key, name, kind, encoding in rows if encoding == "cdr"}
        self.definitions: dict[str, str] = {}
        self.topics: dict[Topic, int | None] = dict.fromkeys(self._topics.values())

    def messages(self, wanted: set[Topic], at: int | None = None) -> Iterator[tuple[Topic, int, bytes]]:
        select = "SELECT topic_id, timestamp, data FROM messages NOT INDEXED"
        if at is not None:
            for key, topic in self._topics.items():
                if topic in wanted:  # of each the first: to look for others would lead into the damage
                    for _, time, raw in self._database.execute(f"{select} WHERE topic_id = ? AND timestamp = ? LIMIT 1", (key, at)):
                        yield topic, time, raw
            return
        for key, time, raw in self._database.execute(f"{select} ORDER BY rowid"):
            if (topic := self._topics.get(key)) in wanted and topic is not None:
                yield topic, time, raw
