"""Statistics of a benchmark: one run at a fixed rate, several runs without the best and the worst, the highest sustained rate.

After NVIDIA's ros2_benchmark: frames and answers are matched by stamp, and the rate is raised until 5 % of the frames are lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LOST_LIMIT = 0.05  # share of the frames that may be lost at a rate that counts as sustained
GROWTH = 1.4  # steps of the rate until one rate is sustained and another is not
MIN_RUNS_TO_TRIM = 3


def percentiles_ms(seconds: Sequence[float] | np.ndarray) -> dict[str, float | None]:
    """p50, p95 and p99 in ms of times in seconds; None for each where there are no times."""
    values = np.percentile(seconds, [50, 95, 99]) if len(seconds) else [None] * 3
    return {f"p{q}_ms": None if value is None else 1e3 * float(value) for q, value in zip((50, 95, 99), values)}


@dataclass(frozen=True, eq=False)
class Run:
    """N frames, two or more, played at a fixed rate, each with its answer; times in seconds of one clock."""

    sent: np.ndarray  # (N,) when the frame was published
    answered: np.ndarray  # (N,) when the answer with its stamp came; NaN for a lost frame
    received: float | None = None  # share of the frames that reached the node, by its own count
    cpu_percent: float | None = None  # of the node's process; 100: one core
    memory_mb: float | None = None  # resident, at the end

    @property
    def lost(self) -> float:
        """Share of the frames without an answer."""
        return float(np.isnan(self.answered).mean())

    def summary(self) -> dict[str, float | None]:
        """Latency from publishing an image to its answer; jitter: standard deviation of the time between two answers."""
        came = ~np.isnan(self.answered)
        latency = percentiles_ms((self.answered - self.sent)[came])
        steps = np.diff(np.sort(self.answered[came]))
        played = (len(self.sent) - 1) / (self.sent[-1] - self.sent[0])
        return {
            "played_hz": float(played),
            "throughput_hz": float(played * came.mean()),
            **{f"latency_{name}": value for name, value in latency.items()},
            "jitter_ms": 1e3 * float(steps.std()) if len(steps) else None,
            "frames": len(self.sent),
            "answered": int(came.sum()),
            "lost_percent": 100 * self.lost,
            "received_percent": None if self.received is None else 100 * self.received,
            "cpu_percent": self.cpu_percent,
            "memory_mb": self.memory_mb,
        }


def without_best_and_worst(runs: Sequence[dict], key: str) -> list[dict]:
    """The runs without the one with the smallest and the one with the largest ``key`` (None: the largest); all where there are fewer than 3."""
    ordered = sorted(runs, key=lambda run: float("inf") if run[key] is None else run[key])
    return ordered[1:-1] if len(ordered) >= MIN_RUNS_TO_TRIM else ordered


def mean_of_runs(runs: Sequence[dict], key: str) -> dict[str, float | None]:
    """Mean of every number over the runs without the best and the worst by ``key``; None where no run has it."""
    kept = without_best_and_worst(runs, key)
    means = {}
    for name in kept[0]:
        values = [run[name] for run in kept if run[name] is not None]
        means[name] = float(np.mean(values)) if values else None
    return means


def highest_sustained_rate(
    lost_at: Callable[[float], float], start: float, tolerance: float = 0.03, lowest: float = 0.25, highest: float = 240.0
) -> tuple[float | None, list[tuple[float, float]]]:
    """The highest rate in Hz at which at most 5 % of the frames are lost, by bisection, and every (rate, share lost) that was tried.

    ``lost_at(rate)`` plays at a rate and gives the share lost. ``start``: a rate near the expected one. ``tolerance`` is relative. None where even the
    ``lowest`` rate is not sustained; ``highest`` where that one is.
    """
    tried: list[tuple[float, float]] = []
    good = bad = None
    rate = float(np.clip(start, lowest, highest))
    while True:
        tried.append((rate, lost_at(rate)))
        if tried[-1][1] <= LOST_LIMIT:
            good = rate
            if rate >= highest:
                return good, tried
        else:
            bad = rate
            if rate <= lowest:
                return None, tried
        if good is not None and bad is not None:
            if bad - good <= tolerance * good:
                return good, tried
            rate = (good + bad) / 2
        else:
            rate = float(np.clip(rate * GROWTH if bad is None else rate / GROWTH, lowest, highest))


def cost_of_one_more(people: Sequence[int], seconds: Sequence[float]) -> float | None:
    """Seconds a frame costs more with one person more: the slope through the medians of frames with the same number of people, each weighted
    by its frames. None where all frames have the same number, or nobody."""
    people, seconds = np.asarray(people), np.asarray(seconds)
    counts = np.unique(people[people > 0])
    if len(counts) < 2:
        return None
    medians = [np.median(seconds[people == count]) for count in counts]
    weights = np.sqrt([(people == count).sum() for count in counts])
    return float(np.polyfit(counts, medians, 1, w=weights)[0])


def growth_kb_per_frame(frames: Sequence[int], memory_mb: Sequence[float]) -> float:
    """Slope of memory over the second half of a long run: what starts up has long been allocated by then."""
    half = len(frames) // 2
    return 1024 * float(np.polyfit(frames[half:], memory_mb[half:], 1)[0])
