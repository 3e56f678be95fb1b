"""The estimator without ROS: a stream over a clip, block by block, so that it can take turns with something else."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from hmr_ros.bench.clips import Clip
from hmr_ros.bench.statistics import cost_of_one_more, percentiles_ms
from hmr_ros.estimator import HumanMeshEstimator
from hmr_ros.geometry import pinhole
from hmr_ros.runtime.timing import time_networks

FIELD_OF_VIEW = 60.0  # degrees, of every clip's camera


class FrameTime(NamedTuple):
    """One frame: seconds in all, seconds of each network by name, people who were detected and who have a body."""

    seconds: float
    networks: dict[str, float]
    detected: int
    bodies: int


class TimedStream:
    """A stream over a clip at the clip's own rate; every block goes on where the one before stopped."""

    def __init__(self, estimator: HumanMeshEstimator, clip: Clip):
        self._stream, self._clip = estimator.stream(), clip
        self._intrinsics = pinhole(*clip.size, FIELD_OF_VIEW)
        self._number = 0

    def block(self, count: int) -> list[FrameTime]:
        """The next ``count`` frames."""
        times = []
        for number in range(self._number, self._number + count):
            image, stamp = self._clip.frames[self._clip.index(number)], number / self._clip.rate
            with time_networks() as networks:
                begin = time.perf_counter()
                bodies = self._stream(image, stamp, intrinsics=self._intrinsics)
                seconds = time.perf_counter() - begin
            times.append(FrameTime(seconds, dict(networks), bodies.detected, len(bodies)))
        self._number += count
        return times


def describe_frames(times: list[FrameTime]) -> dict:
    """Percentiles of a frame, the networks' part in it, and what one more person costs."""
    seconds = np.array([t.seconds for t in times])
    networks = np.array([sum(t.networks.values()) for t in times])
    names = sorted({name for t in times for name in t.networks})
    further = cost_of_one_more([t.detected for t in times], seconds)
    return {
        "frames": len(times),
        **percentiles_ms(seconds),
        "networks_p50_ms": 1e3 * float(np.median(networks)),
        "networks_percent": 100 * float(networks.sum() / seconds.sum()),
        "networks_mean_ms": {name: 1e3 * float(np.mean([t.networks.get(name, 0) for t in times])) for name in names},
        "people_detected": float(np.mean([t.detected for t in times])),
        "people_with_a_body": float(np.mean([t.bodies for t in times])),
        "further_person_ms": None if further is None else 1e3 * further,
    }
