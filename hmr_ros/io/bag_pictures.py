"""The pictures that belong to recorded bodies, found by their stamps and read one at a time from where they lie in a bag. Needs the package rosbags."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from hmr_ros.io.bags import IMAGE_TYPES, INFO_TYPE, BagFiles, BagMessage, camera_info_of
from hmr_ros.io.body_bags import camera_of
from hmr_ros.io.cut_recordings import Topic
from hmr_ros.io.report import ReadReport, printable


class BagPictures(BagFiles):
    """An open bag that was read once for where its pictures lie; none of them is kept.

    ``times``: stamps in seconds that are looked for, as in body_bags.BodyFrame. ``topic``: that of the pictures, unless it is asked for the one
    with most of them, then the first by name; None where none of them has a picture. ``count``: how many there are. ``camera``: of the
    CameraInfo beside it, as in BodyBag.
    ValueError where the topic that is asked for is no image topic of the bag, or has no picture of these times.
    """

    def __init__(self, path: str | Path, times: Iterable[float], topic: str = "", report: ReadReport | None = None):
        self._asked, self.topic, self.camera = topic, None, None
        super().__init__(path)
        try:
            self._find(set(times), ReadReport() if report is None else report)
        except BaseException:
            self._stack.close()
            raise

    @property
    def count(self) -> int:
        return len(self._places[self.topic]) if self.topic else 0

    def at(self, time: float) -> np.ndarray | None:
        """uint8 (H, W, 3) BGR, None where there is none. ValueError for one that cannot be read or converted."""
        return self._picture(self.topic, time) if self.topic else None

    def _choose(self) -> None:
        self._images = {topic for topic in self.counts if topic.type in IMAGE_TYPES}
        if self._asked and self._asked not in {topic.name for topic in self._images}:
            found = ", ".join(sorted(printable(topic.name) for topic in self._images)) or "none"
            raise ValueError(f"bag {printable(self.path)} has these image topics: {found}; expected topic {printable(self._asked)}{self._damage()}")
        self._images = {topic for topic in self._images if self._asked in ("", topic.name)}

    def _find(self, times: set[float], report: ReadReport) -> None:
        report.unit, report.promised = "images", None
        infos: dict[str, BagMessage] = {}
        self._places: dict[Topic, dict[float, tuple[int, tuple[int, int]]]] = {topic: {} for topic in self._images}
        for message in self.read(self._images | {camera_info_of(topic.name) for topic in self._images}, {topic.name for topic in self._images}, report):
            if message.type == INFO_TYPE:
                infos[message.topic] = message
            elif (time := 1e-9 * message.stamp) in times:
                self._places[Topic(message.topic, message.type)][time] = message.stamp, message.place
        by_count = sorted(self._images, key=lambda topic: (-len(self._places[topic]), topic.name))
        self.topic = next(filter(self._is_of_pictures, by_count), None)
        if self._asked and self.topic is None:
            raise ValueError(f"topic {printable(self._asked)} of bag {printable(self.path)} has no picture at the stamps of the bodies{self._damage()}")
        if self.topic and (info := infos.get(camera_info_of(self.topic.name).name)):
            self.camera = camera_of(info.decoded())

    def _is_of_pictures(self, topic: Topic) -> bool:
        """Depth images have stamps of bodies, too."""
        if not self._places[topic]:
            return False
        try:
            self._picture(topic, next(iter(self._places[topic])))
        except ValueError:
            return False
        return True

    def _picture(self, topic: Topic, time: float) -> np.ndarray | None:
        place: Any = self._places[topic].get(time)
        return None if place is None else self.message_at(topic, *place).picture()
