"""The image topic of a bag (rosbag2 or ROS 1) and the camera_info beside it, as raw CDR messages or decoded without ROS.

A folder's files are read one after the other; damaged ones as far as they go. Needs the package rosbags.
"""

from __future__ import annotations

import functools
import struct
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import Iterator, NamedTuple

import numpy as np

from hmr_ros.io.cut_recordings import Topic, zstd
from hmr_ros.io.decode import compressed_image_from_message, depth_from_message, image_from_message
from hmr_ros.io.recordings import ZSTD_MAGIC, Recording, by_number, kind_of_recording, open_recording, reason
from hmr_ros.io.report import ReadReport, printable

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
DEPTH_TYPES = IMAGE_TYPES
SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_HEADER_SIZE = 12  # bytes up to the end of a message's stamp


class BagMessage(NamedTuple):
    """``time`` in seconds of the recording; ``type`` such as one of IMAGE_TYPES or INFO_TYPE; ``raw`` as recorded; ``place``: for
    :meth:`BagFiles.message_at`."""

    time: float
    type: str
    raw: bytes
    topic: str = ""
    place: tuple[int, int] = (0, 0)

    @property
    def stamp(self) -> int:
        """Of its header, in nanoseconds: the first field of these messages, after four bytes that tell the byte order."""
        seconds, nanoseconds = struct.unpack_from("<iI" if self.raw[1] & 1 else ">iI", self.raw, 4)
        return seconds * 10**9 + nanoseconds

    def picture(self) -> np.ndarray:
        """uint8 (H, W, 3) BGR of an image message. ValueError for one that cannot be converted (decode.py)."""
        convert = image_from_message if self.type == IMAGE_TYPES[0] else compressed_image_from_message
        return convert(self.decoded())

    def depth(self) -> np.ndarray:
        """float32 (H, W) metres of a depth image, 0 where unknown. ValueError for a message that is none."""
        if self.type != IMAGE_TYPES[0]:
            raise ValueError(f"depth topic has type {self.type}, expected {IMAGE_TYPES[0]} with 16UC1 or 32FC1")
        return depth_from_message(self.decoded())

    def decoded(self):
        """Its fields, as rosbags gives them. ValueError for a message that does not have them."""
        try:
            return _typestore().deserialize_cdr(self.raw, self.type)
        except Exception as error:  # whatever its parser stumbles over
            raise ValueError(f"message of {len(self.raw)} bytes cannot be read as {self.type} ({error!r})") from error


@functools.cache
def _typestore():
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)  # the same image messages in every ROS 2


def is_bag(path: Path) -> bool:
    """Whether a file or folder is a bag, perhaps a damaged one: by the first bytes of a file, by the files of a folder. A file that has
    lost its first bytes is told by its suffix. OSError where it cannot be opened."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(_files_in(path))
    return path.is_file() and (path.name.lower().endswith((*SUFFIXES, ".bag")) or bool(kind_of_recording(path)))


def image_messages(path: str | Path, topic: str = "", report: ReadReport | None = None) -> Iterator[BagMessage]:
    """Messages of ``topic`` (or of the bag's only image topic) and of its camera_info, in order of recording. ``report`` counts the
    images, and says what was lost.

    ValueError where there is no such topic, a choice to be made, or nothing that could be read.
    """
    with Bag(path, topic) as bag:
        yield from bag.messages(report)


class BagFiles:
    """The files of an open bag. ``counts``: number of messages of each topic, None where the files do not tell.

    ValueError where nothing could be read.
    """

    def __init__(self, path: str | Path):
        self._stack = ExitStack()
        self._lost: dict[str, str] = {}  # files that cannot be read at all → reason
        self._notes: list[str] = []
        self._recordings: list[tuple[str, Recording]] = []
        self.path = Path(path)
        try:
            self._open(self.path)
            self.counts = self._count()
            self._choose()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def _choose(self) -> None:
        """For those who want certain topics: what they are. ValueError where they are not there."""

    def read(self, wanted: set[Topic], counted: set[str], report: ReadReport) -> Iterator[BagMessage]:
        """Messages of ``wanted`` from the beginning, in order of recording. ``report`` counts those on topics named ``counted``."""
        for name, why in self._lost.items():
            report.skip(name, why)
        for text in self._notes:
            report.note(text)
        for number, (name, recording) in enumerate(self._recordings):
            problems = []
            try:
                for topic, time, raw in recording.messages(wanted):
                    message, problem = _message(topic, time, raw)
                    if message is None:
                        report.skip(f"a message of {topic.name} at {time} ns", problem)
                        continue
                    report.read += topic.name in counted
                    yield message._replace(place=(number, time))
            except Exception as error:  # whatever rosbags, SQLite or a decompressor stumble over; what came before is kept
                problems = [f"it is damaged, its reading ended early ({reason(error)})"]
            if problems := [*recording.problems, *problems]:
                report.skip(name, "; ".join(problems))
            for text in recording.notes:
                report.note(text)
        if report.promised is not None:
            report.promised = max(report.promised, report.read)

    def message_at(self, topic: Topic, stamp: int, place: tuple[int, int]) -> BagMessage:
        """The message that :meth:`read` gave, again, without what stands before it. ValueError where it cannot be read."""
        number, time = place
        name, recording = self._recordings[number]
        try:
            for _, _, raw in recording.messages({topic}, time):
                message, _ = _message(topic, time, raw)
                if message is not None and message.stamp == stamp:
                    return message
        except Exception as error:  # as above
            raise ValueError(f"{name} cannot be read at {time} ns ({reason(error)})") from error
        raise ValueError(f"{name} has no message of {printable(topic.name)} at {time} ns any more")

    def promised_of(self, topic: Topic) -> int | None:
        """How many messages metadata.yaml and the files' indexes promise, None where they do not tell."""
        told = [count for count in (self.counts[topic], self._of_metadata.get(topic)) if count is not None]
        return None if self.counts[topic] is None and topic not in self._of_metadata else max(told)

    def definitions(self) -> dict[str, str]:
        """Message types → their definitions, as far as the files hold them."""
        return {kind: text for _, recording in self._recordings for kind, text in recording.definitions.items()}

    def _open(self, path: Path) -> None:
        try:
            import rosbags.rosbag2  # noqa: F401
        except ImportError as error:
            raise ValueError(f"reading bags needs the package rosbags: pip install 'rosbags>=0.11.7' ({error})") from error
        self._of_metadata: dict[Topic, int] = {}
        for file in self._listed(path) if path.is_dir() else [path]:
            try:
                self._recordings.append((printable(file.name), open_recording(file, self._stack)))
            except (ValueError, OSError) as error:
                if file == path:
                    raise
                self._lost[printable(file.name)] = str(error)
        if not self._recordings:
            raise ValueError(f"bag {printable(path)} has no file that can be read: "
                             + ("; ".join(f"{name} ({why})" for name, why in self._lost.items()) or "there is none"))  # fmt: skip

    def _listed(self, folder: Path) -> list[Path]:
        """The files of a bag's folder in their order: by metadata.yaml, or by their names where it is missing or damaged."""
        found = _files_in(folder)
        metadata = folder / "metadata.yaml"
        if not metadata.is_file():
            if not found:
                raise ValueError(f"{printable(folder)} is no bag: it has neither metadata.yaml nor files with {', '.join(SUFFIXES)}, "
                                 "expected a folder that `ros2 bag record` wrote")  # fmt: skip
            self._notes.append(f"no metadata.yaml, read in the order of their names: {_names(found)}")
            return found
        try:
            names, self._of_metadata = _metadata(metadata)
        except Exception as error:  # of its parser, or of what is not where it should be
            if not found:
                raise ValueError(f"{printable(metadata)} is damaged ({reason(error)}), and beside it are no files with "
                                 f"{', '.join(SUFFIXES)}; expected a folder that `ros2 bag record` wrote") from error  # fmt: skip
            self._notes.append(f"metadata.yaml is damaged ({reason(error)}), read in the order of their names: {_names(found)}")
            return found
        named = [folder / name for name in names]
        there = [path for path in named if path.is_file()]
        if not there and found:
            self._notes.append(f"metadata.yaml names {', '.join(map(printable, names))}, read were: {_names(found)}")
            return found
        for path in named:
            if path not in there:
                self._lost[printable(path.name)] = "metadata.yaml names it, but it is not there"
        if others := [path for path in found if path not in named]:
            self._notes.append(f"left out, not named in metadata.yaml: {_names(others)}")
        return there

    def _count(self) -> dict[Topic, int | None]:
        counts: dict[Topic, int | None] = {}
        for _, recording in self._recordings:
            for topic, count in recording.topics.items():
                if all(isinstance(text, str) for text in topic):  # in a damaged database it may be anything
                    before = counts.get(topic, 0)
                    counts[topic] = None if before is None or count is None else before + count
        return counts

    def _damage(self) -> str:
        """Of files that could not be read, for errors that this may be the cause of."""
        found = [f"{name}: {why}" for name, why in self._lost.items()]
        found += [f"{name}: {why}" for name, recording in self._recordings for why in (*recording.problems, *recording.notes)]
        return f" ({'; '.join(found)})" if found else ""


class Bag(BagFiles):
    """An open bag and its image topic: ``topic`` and its ``type``; ``info_topic`` beside it and ``has_infos``, whether there are messages of it;
    ``depth_topic``: None, or the depth images to read along, with ``depth_info_topic`` beside them where it is recorded;
    ``promised``, how many images metadata.yaml and the files' indexes promise, None where they do not tell.

    ``topic`` "": the only one. ``depth``: its topic, "" for none. ValueError where there is no such topic, a choice to be made, or nothing
    that could be read.
    """

    def __init__(self, path: str | Path, topic: str = "", depth: str = ""):
        self._asked, self._asked_depth = topic, depth
        super().__init__(path)

    def messages(self, report: ReadReport | None = None) -> Iterator[BagMessage]:
        """From the beginning: images, camera_info and depth in order of recording."""
        report = ReadReport() if report is None else report
        report.unit, report.promised = "images", self.promised
        yield from self.read(self._wanted, {self.topic}, report)

    def _choose(self) -> None:
        path, wanted, counts = self.path, self._asked, self.counts
        images = {topic.name: topic for topic in counts if topic.type in IMAGE_TYPES and topic.name != self._asked_depth}
        if wanted not in images and (wanted or len(images) != 1):
            raise ValueError(self._no_choice(path, wanted, sorted(images), {topic.name: topic.type for topic in counts}))
        chosen = images[wanted] if wanted else next(iter(images.values()))
        info = camera_info_of(chosen.name)
        self.topic, self.type = chosen
        self.info_topic = info.name
        self.has_infos = counts.get(info, 0) != 0
        self._wanted = {chosen, info}
        self.depth_topic = self.depth_info_topic = None
        if self._asked_depth:
            self._choose_depth(info)
        self.promised = self.promised_of(chosen)
        if self.promised == 0:
            raise ValueError(f"topic {printable(chosen.name)} of bag {printable(path)} holds no messages, expected images{self._damage()}")

    def _choose_depth(self, info: Topic) -> None:
        depth, expected = next((topic for topic in self.counts if topic.name == self._asked_depth), None), DEPTH_TYPES
        if depth is None or depth.type not in expected:
            found = "is not in" if depth is None else f"has type {printable(depth.type)} in"
            raise ValueError(f"depth topic {printable(self._asked_depth)} {found} bag {printable(self.path)}, expected {' or '.join(expected)}; its "
                             f"topics: {', '.join(sorted(printable(topic.name) for topic in self.counts))}{self._damage()}")  # fmt: skip
        self.depth_topic = depth.name
        self._wanted.add(depth)
        depth_info = camera_info_of(depth.name)
        if depth_info != info and self.counts.get(depth_info, 0) != 0:
            self.depth_info_topic = depth_info.name
            self._wanted.add(depth_info)

    def _no_choice(self, path: Path, wanted: str, images: list[str], types: dict[str, str]) -> str:
        bag, found = printable(path), ", ".join(map(printable, images)) or "none"
        if wanted in types:
            return (f"topic {printable(wanted)} of bag {bag} has type {printable(types[wanted])}, expected {' or '.join(IMAGE_TYPES)}; "
                    f"its image topics: {found}{self._damage()}")  # fmt: skip
        if not images:
            others = ", ".join(f"{printable(name)} ({printable(kind)})" for name, kind in sorted(types.items())[:10]) or "none"
            return f"bag {bag} has no image topic, expected {' or '.join(IMAGE_TYPES)}; its topics: {others}{self._damage()}"
        expected = f"topic {printable(wanted)}" if wanted else "one image topic"
        return f"bag {bag} has these image topics: {found}; expected {expected}, choose one with --topic{self._damage()}"


def camera_info_of(topic: str) -> Topic:
    """The CameraInfo beside an image topic, its /compressed or its /compressedDepth."""
    image = topic.removesuffix("/compressed").removesuffix("/compressedDepth")
    return Topic(f"{image.rpartition('/')[0]}/camera_info", INFO_TYPE)


def _message(topic: Topic, time: object, raw: object) -> tuple[BagMessage | None, str]:
    """A message, or None and why it is none."""
    if not isinstance(time, int) or not isinstance(raw, bytes | memoryview | bytearray):
        return None, f"a {type(raw).__name__} at {type(time).__name__}, expected bytes at nanoseconds"
    raw = bytes(raw)
    if raw.startswith(ZSTD_MAGIC):  # CDR begins with a zero
        try:
            raw = zstd().decompress(raw)
        except Exception as error:
            return None, f"cannot be decompressed ({reason(error)})"
    if len(raw) < _HEADER_SIZE:
        return None, f"{len(raw)} bytes, expected {topic.type}"
    return BagMessage(1e-9 * time, topic.type, raw, topic.name), ""


def _metadata(path: Path) -> tuple[list[str], dict[Topic, int]]:
    """The files that a metadata.yaml names, and its numbers of messages."""
    from ruamel.yaml import YAML

    content = YAML(typ="safe").load(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{path.stat().st_size} bytes that are no table")
    try:
        content = content["rosbag2_bagfile_information"]
        names = [PurePath(name).name for name in content["relative_file_paths"]]
        counts = {}
        for entry in content["topics_with_message_count"]:
            count, topic = entry["message_count"], entry["topic_metadata"]
            if type(count) is not int or not 0 <= count < 2**63:
                raise ValueError(f"message_count is {count}, expected a number")
            counts[Topic(str(topic["name"]), str(topic["type"]))] = count
    except KeyError as error:
        raise ValueError(f"it has no {error.args[0]}") from error
    if not names:
        raise ValueError("it names no files")
    return names, counts


def _files_in(folder: Path) -> list[Path]:
    """Recordings by their suffixes, in the order of their names; of a file and its compressed copy, the file."""
    found = [path for path in folder.iterdir() if path.name.lower().endswith(SUFFIXES) and path.is_file()]
    return sorted((path for path in found if path.suffix.lower() != ".zstd" or path.with_suffix("") not in found), key=by_number)


def _names(paths: list[Path]) -> str:
    return ", ".join(printable(path.name) for path in paths)
