"""What the regression of one person costs: proxies to parameters, without detectors, refinement and mesh; target 5 ms.

    python benchmarks/lifter_speed.py [--threads 2] [--json FILE]
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import tyro

from hmr_ros import HumanMeshEstimator
from hmr_ros.networks.checkpoints import EMBEDDED_CHECKPOINT
from hmr_ros.files import write_json
from hmr_ros.networks.lifter.features import person_features

TARGET_MS, TARGET_MB = 5.0, 25.0


@dataclass(frozen=True)
class Config:
    threads: int = 2
    backend: str = "auto"
    calls: int = 300
    json: Path | None = None


def main() -> int:
    config = tyro.cli(Config)
    estimator = HumanMeshEstimator.from_default(backend=config.backend, threads=config.threads)
    image = cv2.imread(str(files("hmr_ros") / "assets" / "demo" / "astronaut.jpg"))
    (person,) = estimator.extractor(image)
    steps = {
        "features": lambda: person_features(person),
        "features and network": lambda: estimator.regressor([person]),
    }
    result: dict = {"backend": estimator.regressor.backend, "threads": config.threads}
    for name, call in steps.items():
        times = []
        for _ in range(config.calls + 20):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        result[f"{name} p50 [ms]"], result[f"{name} p95 [ms]"] = (
            round(1e3 * float(np.percentile(times[20:], q)), 3) for q in (50, 95)
        )
    result["checkpoint [MB]"] = round(Path(str(EMBEDDED_CHECKPOINT)).stat().st_size / 1e6, 2)
    for name, value in result.items():
        print(f"{name:24} {value}")
    if config.json:
        write_json(config.json, result)
    return 0 if result["features and network p50 [ms]"] <= TARGET_MS and result["checkpoint [MB]"] <= TARGET_MB else 1


if __name__ == "__main__":
    sys.exit(main())
