"""What the lifter knows, on rendered people with exact truth: beside the mean pose and MediaPipe's world landmarks.

    python benchmarks/lifter.py FOLDER... [--checkpoint FILE] [--json FILE]

FOLDER was written by `hmr-ros data rendered`. MPJPE and PA-MPJPE in millimetres over the 12 limb joints, root at the hips'
midpoint; re-projection as a share of the person's diagonal, against the true 2D joints that are visible. MediaPipe's world
landmarks are those of the embedded landmark network, which is also the lifter's input; their joints are not quite COCO's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from hmr_ros.body_model import BodyModel
from hmr_ros.estimator import EMBEDDED_CHECKPOINT, load_lifter
from hmr_ros.geometry import matrix_from_6d, to_crop
from hmr_ros.posed_keypoints import PosedKeypoints
from hmr_ros.refinement import Refiner
from hmr_ros.skeleton import COCO_FROM_BLAZEPOSE
from hmr_ros.training.datasets import rendered
from hmr_ros.training.evaluate import mpjpe, pa_mpjpe
from hmr_ros.training.train import load_samples


@dataclass(frozen=True)
class Config:
    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    checkpoint: Path | None = None
    """Another one than the embedded checkpoint."""
    json: Path | None = None


def limbs_from_hips(keypoints: np.ndarray) -> np.ndarray:
    return (keypoints - keypoints[:, [11, 12]].mean(1, keepdims=True))[:, 5:]


def main() -> None:
    config = tyro.cli(Config)
    data = [rendered.load(folder) for folder in config.folders]
    data = {name: np.concatenate([part[name] for part in data]) for name in data[0] if not name.startswith("missed_")}
    samples = load_samples(config.folders)
    sensor = load_samples(config.folders, with_sensor=True)[slice(len(samples), None)]
    skeleton = PosedKeypoints(BodyModel.load(None))
    lifter = load_lifter(config.checkpoint or EMBEDDED_CHECKPOINT)[0].eval()
    refine = Refiner(skeleton)
    targets = to_crop(data["keypoints"][..., :2], data["crop"])
    confidence = np.where(data["keypoints"][..., 2] > 0.3, data["keypoints"][..., 2], 0)

    def posed(rotations, betas):
        with torch.no_grad():
            return skeleton(torch.as_tensor(rotations), torch.as_tensor(betas))[1].numpy()

    with torch.no_grad():
        plain, with_depth = (
            [value.numpy() for value in lifter(some.features)] for some in (samples, sensor)
        )
    methods = {"mean pose": (posed(matrix_from_6d(lifter.mean_rotations).repeat(len(samples), 1, 1, 1), samples.betas * 0), None)}
    methods["MediaPipe world landmarks, raw"] = (data["world"][:, list(COCO_FROM_BLAZEPOSE)], None)
    for name, (rotations, betas, cameras) in (("lifter", plain), ("lifter with a simulated depth camera", with_depth)):
        methods[name] = (posed(rotations, betas), cameras)
        refined, fitted = refine(rotations, betas, cameras, targets, confidence)
        methods[f"{name}, refined"] = (posed(refined, betas), fitted)

    truth = limbs_from_hips(posed(samples.rotations, samples.betas))
    mocap = data["category"] == "mocap"
    groups = {"all": np.ones(len(mocap), bool), "mocap": mocap, "everyday": ~mocap, "cut": data["cut"]}
    diagonal = np.linalg.norm(data["box"][:, 2:] - data["box"][:, :2], axis=1) / (data["crop"][:, 2] / 2)
    result: dict[str, dict] = {}
    for name, (keypoints, cameras) in methods.items():
        errors = mpjpe(limbs_from_hips(keypoints), truth), pa_mpjpe(limbs_from_hips(keypoints), truth)
        row = {key: {"mpjpe": float(errors[0][m].mean()), "pa_mpjpe": float(errors[1][m].mean())} for key, m in groups.items()}
        if cameras is not None:
            seen = cameras[:, None, :1] * (keypoints[..., :2] + cameras[:, None, 1:])
            off = np.linalg.norm(seen - samples.keypoints_xy.numpy(), axis=-1) / diagonal[:, None]
            row["reprojection_percent"] = float(100 * off[data["visible"]].mean())
        result[name] = row
    table = Table("", *(f"{key}: {m}" for key in groups for m in ("MPJPE", "PA")), "2D")
    for name, row in result.items():
        cells = [f"{row[key][m]:.1f}" for key in groups for m in ("mpjpe", "pa_mpjpe")]
        table.add_row(name, *cells, f"{row['reprojection_percent']:.2f} %" if "reprojection_percent" in row else "")
    Console(width=160).print(table, f"{len(mocap)} people: {', '.join(f'{k} {m.sum()}' for k, m in groups.items())}")
    if config.json:
        people = {key: int(m.sum()) for key, m in groups.items()}
        config.json.write_text(json.dumps({"people": people, "methods": result}, indent=1))


if __name__ == "__main__":
    main()
