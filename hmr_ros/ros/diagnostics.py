"""What the node counts and measures, and /diagnostics made of it: rates, drops, latencies of the stages, and the level by thresholds."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from hmr_ros.estimate import Bodies
from hmr_ros.ros.parameters import LiveParameters

WINDOW = 10  # reports, one a second: rates and shares are those of so many seconds
LATENCIES = 200  # frames
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class _Snapshot(NamedTuple):
    when: float
    received: int
    published: int
    dropped: int
    with_depth: int
    bad: int


class Statistics:
    """Counters of one activation. One thread writes each of them; reports read."""

    def __init__(self):
        self.published = self.malformed = self.failed = self.with_depth = 0
        self.people = Bodies()
        self.camera_info = "none received"
        self.frame_id = ""
        self._stages: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LATENCIES))
        self._snapshots: deque[_Snapshot] = deque([_Snapshot(time.monotonic(), 0, 0, 0, 0, 0)], maxlen=WINDOW)

    @contextmanager
    def stage(self, name: str):
        """Times what runs inside; "latency" is reserved for the whole."""
        begin = time.monotonic()
        yield
        self.took(name, time.monotonic() - begin)

    def took(self, name: str, seconds: float) -> None:
        self._stages[name].append(seconds)

    def percentiles(self, name: str) -> tuple[float, float] | None:
        """p50 and p95 of a stage in seconds."""
        times = list(self._stages[name]) if name in self._stages else []
        return tuple(np.percentile(times, [50, 95])) if times else None

    def values(self) -> dict[str, object]:
        """Of everything that was counted here, for a report."""
        people = self.people
        values = {"frames out": self.published, "frames malformed": self.malformed, "frames failed": self.failed, "people": len(people),
                  "people detected": people.detected, "people without a body: too few joints": people.too_few_joints,
                  "people without a body: mesh misses the joints": people.mesh_misses,
                  "people without a body: not finite": people.not_finite, "camera_info": self.camera_info}  # fmt: skip
        for name in list(self._stages):
            p50, p95 = (1e3 * seconds for seconds in self.percentiles(name))
            values |= {f"{name} p50 [ms]": f"{p50:.1f}", f"{name} p95 [ms]": f"{p95:.1f}"}
        return values

    def window(self, received: int, dropped: int) -> Window:
        """Rates since the oldest of the last reports; ``received`` and ``dropped`` so far. Call it once a report."""
        now = _Snapshot(time.monotonic(), received, self.published, dropped, self.with_depth, self.malformed + self.failed)
        then, last = self._snapshots[0], self._snapshots[-1]
        self._snapshots.append(now)
        seconds, frames, results = max(now.when - then.when, 1e-3), now.received - then.received, now.published - then.published
        return Window(frames / seconds, results / seconds, (now.dropped - then.dropped) / max(frames, 1),
                      (now.with_depth - then.with_depth) / max(results, 1), now.bad - last.bad)  # fmt: skip


class Window(NamedTuple):
    """Of the last ``WINDOW`` reports: frames a second in and out, shares in [0, 1]; ``unusable``: images since the last report."""

    rate_in: float
    rate_out: float
    drop_share: float
    depth_share: float
    unusable: int

    def values(self, use_depth: bool) -> dict[str, object]:
        values = {"rate in [Hz]": f"{self.rate_in:.1f}", "rate out [Hz]": f"{self.rate_out:.1f}", "drop share": f"{self.drop_share:.2f}"}
        return values | ({"depth share": f"{self.depth_share:.2f}"} if use_depth else {})


def judge(statistics: Statistics, window: Window, parameters: LiveParameters, silence: float, remarks: list[str]) -> tuple[bytes, str]:
    """Level and message of a report: everything that is over a threshold, the worst first. ``remarks``: further warnings."""
    found: list[tuple[bytes, str]] = []

    def compare(value: float, warn: float, error: float, text: str) -> None:
        if error and value > error:
            found.append((ERROR, text))
        elif warn and value > warn:
            found.append((WARN, text))

    compare(silence, parameters.warn_silence, parameters.error_silence, f"no image for {silence:.0f} s")
    compare(window.drop_share, parameters.warn_drop_share, parameters.error_drop_share, f"{100 * window.drop_share:.0f} % of the frames are dropped")
    latency = statistics.percentiles("latency")
    if latency is not None:
        compare(latency[1], parameters.warn_latency, parameters.error_latency, f"latency p95 is {1e3 * latency[1]:.0f} ms")
    if window.unusable:
        found.append((WARN, "some images could not be used, see the log"))
    found += [(WARN, remark) for remark in remarks]
    if not found:
        return OK, "running"
    found.sort(key=lambda one: one[0], reverse=True)
    return found[0][0], "; ".join(text for _, text in found)


def diagnostic_array(stamp, name: str, hardware_id: str, level: bytes, message: str, values: dict[str, object]) -> DiagnosticArray:
    """The message of one status."""
    status = DiagnosticStatus(name=name, hardware_id=hardware_id, level=level, message=message)
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array
