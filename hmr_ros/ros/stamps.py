"""The time by which people are followed, where a camera's stamps cannot be trusted, and how regular its frames are. Imports no ROS."""

from __future__ import annotations

from collections import deque

PAUSE = 10.0  # seconds: what a single jump of the stamps becomes; nobody is followed over it
FORGIVEN = 1  # jump back within MEMORY frames, such as a recording that begins again
MEMORY = 10  # frames


def nanoseconds(stamp) -> int:
    """Of a builtin_interfaces/Time."""
    return 10**9 * stamp.sec + stamp.nanosec


class FollowingClock:
    """Stamps of images → seconds that always increase, as ``Stream`` needs them.

    Differences are those of the stamps. Where these stand still, are zero or go back again and again, differences are those of the times of
    arrival, and ``remark`` says so. One jump back is a recording that begins again: a long pause.
    """

    def __init__(self):
        self.remark = ""  # what is wrong with the stamps, in words
        self._now = 0.0
        self._stamp: int | None = None
        self._arrival = 0.0
        self._bad: deque[bool] = deque(maxlen=MEMORY)

    def __call__(self, stamp: int, arrival: float) -> float:
        """``stamp`` in nanoseconds, ``arrival`` in seconds of a clock that only goes forward."""
        if self._stamp is None:
            self._stamp, self._arrival = stamp, arrival
            return self._now
        step = 1e-9 * (stamp - self._stamp)
        self._bad.append(stamp == 0 or step <= 0)
        if sum(self._bad) > FORGIVEN:
            if self._bad[-1] and not self.remark:
                kind = "are zero" if stamp == 0 else "stand still" if step == 0 else "go back"
                self.remark = (f"stamps of the images {kind} (last {1e-9 * self._stamp:.3f} s, now {1e-9 * stamp:.3f} s), expected increasing ones: people are "
                               "followed by the times of arrival; correct the camera driver")  # fmt: skip
            step = arrival - self._arrival
        elif self._bad[-1]:
            step = PAUSE
        self._now += max(step, 1e-6)
        self._stamp, self._arrival = stamp, arrival
        return self._now


class RateLimit:
    """Lets at most ``rate`` frames a second pass (0: all), evenly even where they come at nearly this rate."""

    def __init__(self, rate: float = 0.0):
        self.rate = rate
        self._due = float("-inf")

    def passes(self, arrival: float) -> bool:
        if not self.rate:
            return True
        period = 1 / self.rate
        if arrival < self._due:
            return False
        self._due = max(self._due + period, arrival + period / 2)
        return True


class FrameGaps:
    """Counts frames that were lost before they arrived: gaps of the stamps against the usual period."""

    LONGEST = 3.0  # seconds; a longer gap is a camera that paused

    def __init__(self):
        self.lost = 0
        self._stamp: int | None = None
        self._periods: deque[float] = deque(maxlen=30)

    def add(self, stamp: int) -> None:
        """``stamp`` in nanoseconds."""
        step = 0.0 if self._stamp is None else 1e-9 * (stamp - self._stamp)
        self._stamp = stamp
        if not 0 < step < self.LONGEST:
            return
        self._periods.append(step)
        if len(self._periods) >= 10:
            self.lost += max(round(step / self._usual()) - 1, 0)

    def _usual(self) -> float:
        """The period of the camera: the lower quartile, so that many lost frames do not make it longer."""
        return sorted(self._periods)[len(self._periods) // 4]
