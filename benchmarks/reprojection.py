"""How far the mesh's joints lie from the detected ones on real pictures, beside a mean pose with the best camera.

    python benchmarks/reprojection.py PICTURE_OR_DIRECTORY... [--json FILE]

Figures are shares of the person's diagonal over confidently detected joints. The mean pose is the training set's; its
weak camera is fitted by least squares to the same joints, and it may face the camera or away from it ("mean pose"), or
turn to the best of 24 headings ("mean pose, turned").
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from hmr_ros import HumanMeshEstimator
from hmr_ros.estimate import BodyEstimate
from hmr_ros.estimator import EMBEDDED_CHECKPOINT, load_lifter
from hmr_ros.geometry import fit_weak_camera, matrix_from_6d, matrix_from_rotvec, project_weak, to_crop
from hmr_ros.sources import PICTURE_SUFFIXES

LIMBS = slice(5, 17)
HEADINGS = np.radians(np.arange(0, 360, 15))  # 0 faces the camera


@dataclass(frozen=True)
class Config:
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]
    json: Path | None = None


def mean_pose_keypoints(estimator: HumanMeshEstimator) -> np.ndarray:
    """(24, 17, 3): the mean pose's COCO joints at each heading, camera axes."""
    lifter, _ = load_lifter(EMBEDDED_CHECKPOINT)
    rotations = matrix_from_6d(lifter.mean_rotations).repeat(len(HEADINGS), 1, 1, 1)
    upright = matrix_from_rotvec(np.array([np.pi, 0, 0]))
    turned = matrix_from_rotvec(np.stack([0 * HEADINGS, HEADINGS, 0 * HEADINGS], 1))
    rotations[:, 0] = torch.from_numpy(turned @ upright)
    with torch.no_grad():
        return estimator.body_model(rotations, torch.zeros(len(HEADINGS), 10)).keypoints.numpy()


def with_mean_pose(body: BodyEstimate, mean: np.ndarray) -> list[BodyEstimate]:
    """The same person, seen as the mean pose at each heading."""
    weights = np.where(body.keypoints[:, 2] > 0.3, body.keypoints[:, 2], 0)
    target = to_crop(body.keypoints[:, :2], body.crop)
    cameras = fit_weak_camera(mean, np.broadcast_to(target, (len(mean), 17, 2)), np.broadcast_to(weights, (len(mean), 17)))
    return [
        replace(body, projected_keypoints=project_weak(points, camera, body.crop)) for points, camera in zip(mean, cameras)
    ]


def main() -> None:
    config = tyro.cli(Config)
    pictures = [q for p in config.paths for q in (sorted(p.iterdir()) if p.is_dir() else [p]) if q.suffix.lower() in PICTURE_SUFFIXES]
    estimator = HumanMeshEstimator.from_default()
    mean = mean_pose_keypoints(estimator)
    front_and_back = [0, len(HEADINGS) // 2]
    rows = []
    for path in pictures:
        image = cv2.imread(str(path))
        for number, body in enumerate(estimator(image)):
            poses = with_mean_pose(body, mean)
            row = {"picture": path.name, "person": number}
            for name, joints in (("all", slice(None)), ("limbs", LIMBS)):
                errors = [pose.reprojection_error(joints) for pose in poses]
                if errors[0] is None:
                    continue
                row[name] = {
                    "ours": body.reprojection_error(joints),
                    "mean_pose": min(errors[i] for i in front_and_back),
                    "mean_pose_turned": min(errors),
                }
            rows.append(row)
    table = Table("picture", "person", *(f"{n}: {k}" for n in ("all", "limbs") for k in ("ours", "mean pose", "turned")))
    summary: dict[str, dict[str, float]] = {}
    for name in ("all", "limbs"):
        known = [row[name] for row in rows if name in row]
        summary[name] = {key: float(np.mean([row[key] for row in known])) for key in known[0]} if known else {}
    for row in [*rows, {"picture": "mean", "person": len(rows), **summary}]:
        cells = [f"{100 * v:.1f} %" for name in ("all", "limbs") for v in row.get(name, {}).values()]
        table.add_row(row["picture"], str(row["person"]), *cells)
    Console().print(table)
    if config.json:
        config.json.write_text(json.dumps({"people": rows, "mean": summary}, indent=1))


if __name__ == "__main__":
    main()
