"""What extraction costs: CPU seconds and bytes per 1,000 frames, and Ray's throughput beside that of `--workers 2`.

    python benchmarks/scale.py --json benchmarks/results/scale.json

Engines run in turns on the same frames, each in a session of its own, whose processes are summed (Ray's head and agents included). Models are
loaded in every run: `loading` is measured by a run of one frame and left out of the costs per frame. Wall-clock ratios hold only as far as
nobody else uses the machine; the load is recorded. Linux only (/proc).
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

import tyro

from hmr_ros.files import write_json

ENGINES = {"one process": ("--workers", "1"), "two processes": ("--workers", "2"), "ray": ("--workers", "2", "--engine", "ray")}
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
    load = [os.getloadavg()[0]]
    loading = {name: run(config, name, 1) for name in ENGINES}
    for _ in range(config.rounds):
        for name in ENGINES:
            runs[name].append(run(config, name, config.frames))
        load.append(os.getloadavg()[0])
    result = {
        "source": config.source.name, "frames": config.frames, "shard_size": config.shard_size, "cpus": os.cpu_count(),
        "load_before_and_after_every_round": [round(value, 1) for value in load], "loading": loading, "runs": runs,
        "cpu_seconds_per_1000_frames": {name: _per_1000(config, "cpu_seconds", runs[name], loading[name]) for name in ENGINES},
        "bytes_per_1000_frames": round(1000 * runs["one process"][0]["bytes"] / config.frames),
        "people_per_frame": runs["one process"][0]["people"] / config.frames,
        "throughput_of_ray_by_that_of_two_processes": [
            round(_net(two, loading["two processes"]) / _net(ray, loading["ray"]), 3) for two, ray in zip(runs["two processes"], runs["ray"])
        ],
    }  # fmt: skip
    write_json(config.json, result)
    print(json.dumps(result, indent=1))
    return 0


def _net(run: dict, loading: dict) -> float:
    return run["seconds"] - loading["seconds"]


def _per_1000(config: Scale, what: str, runs: list[dict], loading: dict) -> float:
    return round(1000 * (statistics.median(run[what] for run in runs) - loading[what]) / (config.frames - 1), 1)


def run(config: Scale, engine: str, frames: int) -> dict:
    """CPU and wall seconds, peak memory (PSS) of all processes, bytes written, people found."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-P", "-m", "hmr_ros.cli", "extract", str(config.source), "--out", f"{out}/shards",
                   "--frames", "0", str(frames), "--shard-size", str(config.shard_size), *ENGINES[engine]]  # fmt: skip
        started, cpu, memory = time.monotonic(), {}, 0
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            found = _session(process.pid)
            cpu |= {pid: seconds for pid, seconds in found.items()}
            memory = max(memory, sum(map(_pss, found)))
            time.sleep(0.2)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
        manifest = json.loads(Path(out, "shards", "manifest.json").read_text())
        return {
            "seconds": round(time.monotonic() - started, 2), "cpu_seconds": round(sum(cpu.values()), 2), "peak_mb": round(memory / 1e6),
            "bytes": sum(path.stat().st_size for path in Path(out, "shards").glob("*.np[yz]")), "people": manifest["people"],
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
