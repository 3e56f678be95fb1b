"""What training on a robot's own unlabelled frames does to the paper's regressor: re-projection there, error on rendered people.

    hmr-ros extract vtest.avi --out runs/vtest_train --frames 0 600 --every 2
    hmr-ros extract vtest.avi --out runs/vtest_held --frames 600 795 --every 2
    hmr-ros train ablation --init BEFORE --data runs/vtest_train ... --depth depth --out runs/vtest
    python benchmarks/real_frames.py --weights before BEFORE "after 800 steps" runs/vtest/regressor.safetensors \
        --held runs/vtest_held --test runs/test --json benchmarks/results/real_frames.json

Re-projection is the mean distance of the projected joints to the confidently detected ones, in percent of the diagonal of the
detected box; of the network's own answer, not refined. Rendered people: MPJPE and PA-MPJPE in mm, missed people as the mean pose.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console

from hmr_ros.geometry import weak_perspective
from hmr_ros.networks.checkpoints import load_resnet18
from hmr_ros.files import write_json
from hmr_ros.networks.paper.net import Resnet18Regressor
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.paper.ablation import Benchmark
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.data import shards
from hmr_ros.training.paper.proxy_data import of_rows, trimmed
from hmr_ros.training.paper.optimise import decoded, regress


@dataclass(frozen=True)
class RealFramesConfig:
    weights: tuple[tuple[str, Path], ...]
    """What to call them, and the regressor.safetensors: before training on real frames, after, and so on."""
    held: Path
    """Proxies of real frames that were not trained on."""
    test: Path
    """Folder of rendered people with their truth."""
    json: Path | None = None
    """Rows of other names in it are kept."""


def reprojection(regressor: Resnet18Regressor, rows: dict[str, np.ndarray], benchmark: Benchmark) -> dict[str, float]:
    """Percent of the diagonal: all joints and the twelve of the limbs, mean over people."""
    people = trimmed(of_rows(rows, "depth"))[0]
    rotations, betas, cameras = decoded(regressor, people, regress(regressor, people)[0])
    with torch.inference_mode():
        keypoints = benchmark.skeleton(torch.from_numpy(rotations), torch.from_numpy(betas))[1].numpy()
    seen = weak_perspective(keypoints, cameras)
    diagonal = 2 * np.linalg.norm(rows["box"][:, 2:] - rows["box"][:, :2], axis=1) / rows["crop"][:, 2]
    off = 100 * np.linalg.norm(seen - people.joints[..., :2].numpy(), axis=-1) / diagonal[:, None]
    sure = people.joints[..., 2].numpy() > 0
    result = {"people": len(off)}
    for name, joints in (("all", range(17)), ("limbs", LIMB_KEYPOINTS)):
        rows_off = np.where(sure, off, np.nan)[:, list(joints)]
        result[name] = float(np.nanmean(np.nanmean(rows_off[sure[:, list(joints)].any(1)], axis=1)))
    return result


def main(config: RealFramesConfig) -> None:
    console = Console()
    benchmark = Benchmark(rendered.load(config.test), "depth")
    held = shards.load_proxies(config.held)
    result = json.loads(config.json.read_text()) if config.json and config.json.is_file() else {}
    for name, path in config.weights:
        regressor = load_resnet18(path)[0].eval()
        people = trimmed(benchmark.proxies)[0]
        result[name] = {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "held_frames_percent": reprojection(regressor, held, benchmark),
            "rendered_frames_percent": reprojection(regressor, benchmark.truth.found, benchmark),
            "rendered_mm": benchmark.errors_of(regressor, people),
        }
        console.print(name, result[name])
    if config.json:
        write_json(config.json, result)


if __name__ == "__main__":
    main(tyro.cli(RealFramesConfig))
