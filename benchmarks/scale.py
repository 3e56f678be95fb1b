"""What extraction costs: CPU seconds and bytes per 1,000 frames, and Ray's throughput beside that of `--workers 2`.

    python benchmarks/scale.py --json benchmarks/results/scale.json

Engines run in turns on the same frames, each in a session of its own, whose processes are summed (Ray's head and agents included). What is
measured begins with the first shard, when models are loaded, and ends with the last. CPU seconds hold on a busy machine, wall-clock ratios
only as far as nobody else uses it: the load is recorded. Linux only (/proc).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro

from hmr_ros.files import write_json
from hmr_ros.proxies import registry

ENGINES = {"processes": (), "ray": ("--engine", "ray")}
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Scale:
    """Measure extraction, a run of every engine in turn."""

    source: Path = Path(str(files("hmr_ros") / "assets" / "demo" / "pedestrians.mp4"))
    """A video."""
    frames: int = 90
    shard_size: int = 15
    rounds: int = 2
    json: Path = Path("benchmarks/results/scale.json")


def main() -> int:
    config = tyro.cli(Scale)
    runs: dict[str, list[dict]] = {name: [] for name in ENGINES}
    for _ in range(config.rounds):
        for name in ENGINES:
            runs[name].append(run(config, name))
            print(name, runs[name][-1], flush=True)
    result = {
        "source": config.source.name, "frames": config.frames, "shard_size": config.shard_size, "cpus": os.cpu_count(), "runs": runs,
        "cpu_seconds_per_1000_frames": {name: round(statistics.median(_rate(run, "cpu_seconds") for run in some), 1) for name, some in runs.items()},
        "cpu_seconds_per_1000_pictures": picture_costs(),
        "bytes_per_1000_frames": round(1000 * runs["ray"][0]["bytes"] / config.frames),
        "people_per_frame": round(runs["ray"][0]["people"] / config.frames, 2),
        "throughput_of_ray_by_that_of_processes": [
            round(_rate(processes, "seconds") / _rate(ray, "seconds"), 3) for processes, ray in zip(runs["processes"], runs["ray"])
        ],
    }  # fmt: skip
    write_json(config.json, result)
    print(json.dumps(result, indent=1))
    return 0


def picture_costs(count: int = 6) -> dict[str, float]:
    """CPU seconds of the detectors on pictures of 640x480, one thread, in this process."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    extractor = registry.make_extractor(threads=1)
    person = cv2.resize(cv2.imread(str(files("hmr_ros") / "assets" / "demo" / "astronaut.jpg")), (640, 480))
    costs = {}
    for name, picture in (("nobody", np.full_like(person, 90)), ("one person", person)):
        extractor(picture)
        before = time.process_time()
        for _ in range(count):
            extractor(picture)
        costs[name] = round(1000 * (time.process_time() - before) / count, 1)
    return costs


def _rate(run: dict, what: str) -> float:
    return 1000 * run[what] / run["measured_frames"]


def run(config: Scale, engine: str) -> dict:
    """CPU and wall seconds from the first shard to the last and the frames between them, peak memory (PSS) of all processes, bytes
    written, people found."""
    with tempfile.TemporaryDirectory() as out:
        shards = Path(out, "shards")
        command = [sys.executable, "-P", "-m", "hmr_ros.cli", "extract", str(config.source), "--out", str(shards), "--workers", "2",
                   "--frames", "0", str(config.frames), "--shard-size", str(config.shard_size), *ENGINES[engine]]  # fmt: skip
        log = Path(out, "log").open("w+")
        process = subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)
        cpu, memory, seen = {}, 0, []  # seen: (shards, wall, CPU seconds) whenever there is one more
        while process.poll() is None:
            found = _session(process.pid)
            cpu |= found
            memory = max(memory, sum(map(_pss, found)))
            made = len(list(shards.glob("proxies-*.npz")))
            if made and (not seen or made > seen[-1][0]):
                seen.append((made, time.monotonic(), sum(cpu.values())))
            time.sleep(0.1)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}: {Path(out, 'log').read_text()}")
        (first, began, before), (last, ended, after) = seen[0], seen[-1]
        return {
            "seconds": round(ended - began, 2), "cpu_seconds": round(after - before, 2), "measured_frames": (last - first) * config.shard_size,
            "whole_cpu_seconds": round(sum(cpu.values()), 2), "peak_mb": round(memory / 1e6), "load": round(os.getloadavg()[0], 1),
            "bytes": sum(path.stat().st_size for path in shards.glob("*.np[yz]")),
            "people": json.loads((shards / "manifest.json").read_text())["people"],
        }  # fmt: skip


def _session(session: int) -> dict[int, float]:
    """CPU seconds of every process of a session so far."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == session:
            found[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    return found


def _pss(pid: int) -> int:
    """Bytes of a process, shared pages by the number of those who share them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    sys.exit(main())
