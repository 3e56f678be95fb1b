"""Where people stand, and how good their pose is in the camera's own axes: rendered people of known stature, 1 to 5 m away.

    python benchmarks/metric_position.py --backgrounds runs/backgrounds --json benchmarks/results/metric_position.json

Pictures are made like those of `hmr-ros data rendered --split test`, with statures from 1.49 to 1.93 m and distances of 1 to 5 m, and go
through the estimator four times: the image alone, with the stature told, with the simulated depth camera (noise that grows with z², holes,
lost edges), and with it but the stature as regressed. Position error: Euclidean, of the pelvis, over people found. MPJPE: 12 limb joints,
root at the hips' midpoint. "ray axes" scores the same bodies as if the axes of the viewing ray were the camera's, as this package did
before; "weak perspective" places them as it did before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

import hmr_ros
from hmr_ros import HumanMeshEstimator
from hmr_ros.camera import Camera, ray_axes
from hmr_ros.estimate import BodyEstimate
from hmr_ros.files import write_json
from hmr_ros.geometry import matrix_from_rotvec
from hmr_ros.metric import MetricConfig, StatureDirection
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.data.rendered.dataset import picture
from hmr_ros.training.data.rendered.scene import PersonTruth, SceneConfig, SceneMaker
from hmr_ros.training.data.shards import match
from hmr_ros.training.metrics import COCO_HIPS, root_aligned

LIMBS = list(LIMB_KEYPOINTS)
SCENE = SceneConfig(beta0_sigma=1.0, distance=(1.0, 5.0), nearest_when_cut=1.0)
ANGLES = (0, 10, 20, 26, 40)
ALLOWED = "3 cm + 1 % of the distance"


@dataclass(frozen=True)
class Config:
    backgrounds: Path | None = None
    """Photos without people (tools/collect_backgrounds.py); without them made-up rooms."""
    count: int = 600
    """Pictures."""
    seed: int = 12
    json: Path | None = None


class Setting:
    """One way to run the estimator, and what came of it."""

    def __init__(self, what: str):
        self.what, self.rows = what, []

    def add(self, body: BodyEstimate, points: np.ndarray, truth: PersonTruth, intrinsics, direction: StatureDirection) -> None:
        """``points`` (17, 3) are the body's keypoints as ``joints`` stand."""
        pelvis = truth.joints[0] + truth.translation
        turn = ray_axes(Camera(intrinsics), body.crop[None, :2])[0]
        self.rows.append({
            "position": np.linalg.norm(body.joints[0] + body.translation - pelvis),
            "weak_position": np.linalg.norm(weak_place(body, turn, intrinsics) - pelvis),
            "distance": np.linalg.norm(pelvis),
            "mpjpe": 1000 * limb_error(points, truth.keypoints3d),
            "mpjpe_ray": 1000 * limb_error(points @ turn.T, truth.keypoints3d),
            "angle": np.degrees(np.arccos(turn[2, 2])),
            "stature": abs(float(direction(body.betas[None])[0] - direction(truth.betas[None])[0])),
            "depth": body.translation_source == "depth",
        })  # fmt: skip

    def scores(self) -> dict:
        rows = {name: np.array([row[name] for row in self.rows], float) for name in self.rows[0]}
        allowed = 0.03 + 0.01 * rows["distance"]

        def of(chosen: np.ndarray) -> dict:
            return {"people": int(chosen.sum())} | ({} if not chosen.any() else {
                "position_median_m": float(np.median(rows["position"][chosen])),
                "position_p90_m": float(np.quantile(rows["position"][chosen], 0.9)),
                "weak_perspective_position_median_m": float(np.median(rows["weak_position"][chosen])),
                "position_over_allowed_median": float(np.median((rows["position"] / allowed)[chosen])),
                "mpjpe_mm": float(rows["mpjpe"][chosen].mean()),
                "ray_axes_mpjpe_mm": float(rows["mpjpe_ray"][chosen].mean()),
                "stature_error_mm": float(1000 * rows["stature"][chosen].mean()),
                "from_depth": float(rows["depth"][chosen].mean()),
            })  # fmt: skip

        by_angle = zip(ANGLES, ANGLES[1:])
        by_metre = [(m, m + 1) for m in range(1, 5)]
        return {"what": self.what, "all": of(np.ones(len(allowed), bool)),
                "angle": {f"{a}-{b}": of((rows["angle"] >= a) & (rows["angle"] < b)) for a, b in by_angle},
                "distance": {f"{a}-{b}": of((rows["distance"] >= a) & (rows["distance"] < b)) for a, b in by_metre}}  # fmt: skip


def limb_error(points: np.ndarray, truth: np.ndarray) -> float:
    """Metres, hips' midpoints on each other: (17, 3) each."""
    return float(np.linalg.norm(root_aligned(points - truth, COCO_HIPS)[LIMBS], axis=1).mean())


def weak_place(body: BodyEstimate, turn: np.ndarray, intrinsics) -> np.ndarray:
    """Pelvis (3,) where the weak-perspective camera's magnification puts it: Z = 2 fx / (s size), in camera axes."""
    (s, tx, ty), (cu, cv, size), (fx, fy, cx, cy) = body.weak_camera, body.crop, intrinsics
    z = 2 * fx / (s * size)
    x, y = tx + 2 * (cu - cx) / (s * size), (fx / fy) * (ty + 2 * (cv - cy) / (s * size))
    return np.array([x, y, z]) + body.joints[0]  # the body turns about its pelvis: the same in both axes


def main() -> None:
    config, console = tyro.cli(Config), Console()
    maker = SceneMaker("test", config.backgrounds, SCENE)
    estimator = HumanMeshEstimator.from_default()
    as_regressed = replace(MetricConfig(), stature_sigma=1e-6)
    place, direction = estimator.placing, StatureDirection(estimator.body_model)
    settings = {
        "image": Setting("the image alone"), "stature": Setting("the person's true stature is told"),
        "depth": Setting("depth camera"), "depth_stature_as_regressed": Setting("depth camera; the stature stays as regressed"),
    }  # fmt: skip
    missed = 0
    for index in track(range(config.count), "pictures", console=console):
        scene = picture(maker, config.seed, "test", index)
        statures = direction(np.stack([person.betas for person in scene.people])) if scene.people else []
        plain, with_depth = estimator.extractor(scene.image), estimator.extractor(scene.image, scene.depth)
        pairs = match(plain, scene.people)
        missed += len(scene.people) - len(pairs)
        told = np.full(len(plain), np.nan)
        for i, j in pairs:
            told[i] = statures[j]
        camera = Camera(scene.intrinsics)
        for name, people, depth, known, metric in (
            ("image", plain, None, None, MetricConfig()), ("stature", plain, None, told, MetricConfig()),
            ("depth", with_depth, scene.depth, None, MetricConfig()), ("depth_stature_as_regressed", with_depth, scene.depth, None, as_regressed),
        ):  # fmt: skip
            place.config = metric
            bodies = estimator.estimate(people, camera, depth, known)
            for i, j in match([body for body in bodies], scene.people):
                settings[name].add(bodies[i], keypoints(estimator, bodies[i]), scene.people[j], scene.intrinsics, direction)
    place.config = MetricConfig()
    result = {
        "pictures": config.count, "seed": config.seed, "split": "test", "missed": missed, "allowed": ALLOWED,
        "backgrounds": config.backgrounds is not None, "version": hmr_ros.__version__, "backend": estimator.backend,
        "settings": {name: setting.scores() for name, setting in settings.items()},
    }  # fmt: skip
    table = Table("", "people", "position median / p90, m", "of allowed", "MPJPE, mm", "stature error, mm")
    for name, scores in result["settings"].items():
        row = scores["all"]
        table.add_row(scores["what"], str(row["people"]), f"{row['position_median_m']:.3f} / {row['position_p90_m']:.3f}",
                      f"{row['position_over_allowed_median']:.2f}", f"{row['mpjpe_mm']:.1f}", f"{row['stature_error_mm']:.0f}")  # fmt: skip
    console.print(table)
    if config.json:
        write_json(config.json, result)


def keypoints(estimator: HumanMeshEstimator, body: BodyEstimate) -> np.ndarray:
    """COCO (17, 3) of the body, as its joints stand."""
    rotations = matrix_from_rotvec(np.concatenate([body.global_orient, body.body_pose]).reshape(1, 24, 3))
    with torch.inference_mode():
        return estimator.placing.skeleton(torch.from_numpy(rotations), torch.from_numpy(body.betas[None]))[1][0].numpy()


if __name__ == "__main__":
    main()
