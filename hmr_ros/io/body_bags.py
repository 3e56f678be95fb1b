"""Recorded results: the BodyArray topic of a bag, with its body model and CameraInfo, read without ROS. Needs the package rosbags.

Messages are read by the definitions in the bag, so that recordings outlive changes of msg/; by the installed ones where it holds none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hmr_ros.estimate import Bodies
from hmr_ros.files import share_file
from hmr_ros.io.bags import INFO_TYPE, BagFiles
from hmr_ros.io.body_messages import bodies_from_message
from hmr_ros.io.cut_recordings import Topic
from hmr_ros.io.report import ReadReport, printable

BODIES_TYPE, MODEL_TYPE = "hmr_ros/msg/BodyArray", "hmr_ros/msg/BodyModel"
OURS = ("Body", "BodyArray", "BodyModel")
_NEEDED = ("axes", "detected", "reliability_source")  # what the first recordings did not have


class BodyFrame(NamedTuple):
    """One BodyArray: ``index`` counts them, ``time`` is the image's stamp in seconds."""

    index: int
    time: float
    frame_id: str
    reliability_source: str
    bodies: Bodies


class BodyBag(BagFiles):
    """An open bag with a BodyArray topic, ``topic`` (the only one, unless named).

    ``body_model``: (name, SHA-256), and ``camera``: (fx, fy, cx, cy, width, height) of the CameraInfo in the bag, where there is one topic of
    it; both None until they are read, or where the bag has none.
    ValueError where there is no such topic, a choice to be made, or nothing that could be read.
    """

    def __init__(self, path: str | Path, topic: str = ""):
        self._asked = topic
        self.body_model: tuple[str, str] | None = None
        self.camera: tuple[float, ...] | None = None
        super().__init__(path)
        self._types = typestore(self.definitions())

    def frames(self, report: ReadReport | None = None) -> Iterator[BodyFrame]:
        """In order of recording; messages that cannot be read are skipped and reported."""
        report = ReadReport() if report is None else report
        report.unit, report.promised = "body arrays", self.promised
        index = 0
        for message in self.read(self._wanted, {self.topic}, report):
            try:
                decoded: Any = self._types.deserialize_cdr(message.raw, message.type)
            except Exception as error:  # whatever its parser stumbles over
                report.read -= message.topic == self.topic
                report.skip(f"a message of {message.topic} at {message.time:.3f} s", f"cannot be read as {message.type} ({error!r})")
                continue
            if message.type == MODEL_TYPE:
                self.body_model = (decoded.name, decoded.hash)
            elif message.type == INFO_TYPE:
                self.camera = camera_of(decoded)
            else:
                yield BodyFrame(index, 1e-9 * message.stamp, decoded.header.frame_id, decoded.reliability_source, bodies_from_message(decoded))
                index += 1

    def _choose(self) -> None:
        arrays = {topic.name: topic for topic in self.counts if topic.type == BODIES_TYPE}
        if self._asked not in arrays and (self._asked or len(arrays) != 1):
            found = ", ".join(sorted(map(printable, arrays))) or "none"
            raise ValueError(f"bag {printable(self.path)} has these topics of {BODIES_TYPE}: {found}; expected "
                             f"{f'topic {printable(self._asked)}' if self._asked else 'one'}, record them by `hmr-ros record`, or choose one "
                             f"with --topic{self._damage()}")  # fmt: skip
        chosen = arrays[self._asked] if self._asked else next(iter(arrays.values()))
        self.topic = chosen.name
        infos = [topic for topic in self.counts if topic.type == INFO_TYPE]
        self._wanted = {chosen, Topic(f"{chosen.name.rpartition('/')[0]}/body_model", MODEL_TYPE), *(infos if len(infos) == 1 else ())}
        self.promised = self.promised_of(chosen)


def camera_of(info) -> tuple[float, ...] | None:
    """fx, fy, cx, cy, width, height of a CameraInfo; None for an uncalibrated one."""
    camera = tuple(float(value) for value in (info.k[0], info.k[4], info.k[2], info.k[5], info.width, info.height))
    fx, fy, _, _, width, height = camera
    return camera if np.isfinite(camera).all() and min(fx, fy, width, height) > 0 else None


def has_bodies(path: Path) -> bool:
    """Whether a bag has a BodyArray topic. ValueError for what is no bag that can be read."""
    with BagFiles(path) as bag:
        return any(topic.type == BODIES_TYPE for topic in bag.counts)


def typestore(definitions: dict[str, str] | None = None):
    """rosbags' types of ROS 2 with ours: by ``definitions`` (type → text, as bags hold it), or as installed.

    ValueError for recordings of messages that are too old to be read.
    """
    from rosbags.typesys import Stores, get_typestore, get_types_from_msg

    types = {}
    for name in OURS:
        kind = f"hmr_ros/msg/{name}"
        text = (definitions or {}).get(kind) or share_file(f"msg/{name}.msg").read_text()
        found = get_types_from_msg(text, kind)
        types |= {key: value for key, value in found.items() if key.startswith("hmr_ros/")}
    fields = {name for name, _ in types[BODIES_TYPE][1]}
    if missing := [name for name in _NEEDED if name not in fields]:
        raise ValueError(f"the bag's {BODIES_TYPE} has no {', '.join(missing)}: it was recorded by an earlier version, record again")
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(types)
    return store
