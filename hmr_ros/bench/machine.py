"""What a benchmark ran on: processor, versions, how busy others kept it, and what a process uses. Read from /proc, so Linux only."""

from __future__ import annotations

import os
import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

IDLE_PERCENT = 5.0  # of all cores: more than that by other processes, and the machine was not idle
PACKAGES = ("numpy", "torch", "openvino", "opencv-python-headless", "numba", "ros-rclpy", "ros-rmw-fastrtps-cpp")
_TICKS = os.sysconf("SC_CLK_TCK")


def machine() -> dict:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "architecture": platform.machine(), "memory_gib": round(memory, 1),
            "system": f"{platform.system()} {platform.release()}"}  # fmt: skip


def versions() -> dict[str, str]:
    """Of Python and of what runs the networks and the messages; what is not installed as a package is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # from a ROS installation, say
            pass
    return found


class OthersWatch:
    """How much of the processors other processes took since this was made. Children count as ours once they have ended."""

    def __init__(self):
        self._begin = self._read()

    def percent(self) -> float:
        """Of all cores of the machine."""
        total, busy, own = (now - before for now, before in zip(self._read(), self._begin))
        return max(0.0, 100 * (busy - own) / max(total, 1e-9))

    @staticmethod
    def _read() -> tuple[float, float, float]:
        numbers = [int(word) / _TICKS for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        idle = numbers[3] + numbers[4]  # idle, iowait
        own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(numbers), sum(numbers) - idle, sum(usage.ru_utime + usage.ru_stime for usage in own)


class ProcessUsage:
    """CPU time and memory of a process by its id; FileNotFoundError or ProcessLookupError once it has ended."""

    def __init__(self, pid: int):
        self._folder = Path("/proc") / str(pid)

    def cpu_seconds(self) -> float:
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mb(self) -> float:
        """Resident, MiB."""
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
