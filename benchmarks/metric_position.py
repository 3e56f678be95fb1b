"""Where people stand, what the covariance says of it, and how good their pose is in the camera's own axes: rendered people of known stature, 1 to 5 m away.

    python benchmarks/metric_position.py --backgrounds runs/backgrounds --json benchmarks/results/metric_position.json --errors benchmarks/results/position_errors.csv
    python benchmarks/metric_position.py --backgrounds runs/backgrounds --split val --seed 13 --calibrate

Pictures are made like those of `hmr-ros data rendered --split test`, with statures from 1.49 to 1.93 m and distances of 1 to 5 m, and go
through the estimator four times: the image alone, with the stature told, with the simulated depth camera (noise that grows with z², holes,
lost edges), and with it but the stature as regressed. Position error: Euclidean, of the pelvis, over people found. MPJPE: 12 limb joints,
root at the hips' midpoint. "ray axes" scores the same bodies as if the axes of the viewing ray were the camera's, as this package did
before; "weak perspective" places them as it did before.

Errors along the viewing ray and across it are those of the pelvis. Covered: the share of them within one and two standard deviations of the published
covariance; 0.68 and 0.95 where errors are normally distributed as it says. ``--calibrate`` prints the numbers of hmr_ros/uncertainty.py that fit these people
best (maximum likelihood); people of ``--split test`` are kept out of it. ``--errors`` writes each person's errors.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.linalg import block_diag
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

import hmr_ros
from hmr_ros import HumanMeshEstimator
from hmr_ros.camera import Camera, ray_axes
from hmr_ros.estimate import BodyEstimate
from hmr_ros.files import atomic_write, write_json
from hmr_ros.geometry import matrix_from_rotvec, ray_rotation
from hmr_ros.metric import MetricConfig, StatureDirection
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.data.rendered.dataset import picture
from hmr_ros.training.data.rendered.scene import PersonTruth, RendererName, SceneConfig, SceneMaker
from hmr_ros.training.data.shards import match
from hmr_ros.training.metrics import COCO_HIPS, root_aligned
from hmr_ros.uncertainty import Spread, pose_covariance

LIMBS = list(LIMB_KEYPOINTS)
SCENE = SceneConfig(beta0_sigma=1.0, distance=(1.0, 5.0), nearest_when_cut=1.0)
ANGLES = (0, 10, 20, 26, 40)
ALLOWED = "3 cm + 1 % of the distance"
AXES = {"along": slice(0, 1), "across": slice(1, 3), "turn": slice(3, 6)}  # of an error (6,)
ROOT = [1, 2, 3]  # SMPL joints that the global orientation alone turns about the pelvis


@dataclass(frozen=True)
class Config:
    backgrounds: Path | None = None
    """Photos without people (tools/collect_backgrounds.py); without them made-up rooms."""
    count: int = 600
    """Pictures."""
    seed: int = 12
    split: Literal["val", "test"] = "test"
    renderer: RendererName = "painter"
    regressor: str = "lifter"
    calibrate: bool = False
    json: Path | None = None
    errors: Path | None = None
    """A row for each person and setting, .csv."""


class Setting:
    """One way to run the estimator, and what came of it."""

    def __init__(self, what: str):
        self.what, self.rows = what, []

    def add(self, body: BodyEstimate, points: np.ndarray, truth: PersonTruth, intrinsics, direction: StatureDirection) -> None:
        """``points`` (17, 3) are the body's keypoints as ``joints`` stand."""
        pelvis = truth.joints[0] + truth.translation
        turn = ray_axes(Camera(intrinsics), body.crop[None, :2])[0]
        error, sigma = errors(body, truth)
        self.rows.append({
            "error": error, "sigma": sigma, "reliability": body.reliability.mean(), "source": body.translation_source,
            "published_distance": np.linalg.norm(body.joints[0] + body.translation),
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
        rows = {name: np.array([row[name] for row in self.rows], float) for name in self.rows[0] if name != "source"}
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
                **{axis: spread(rows["error"][chosen, part], rows["sigma"][chosen, part]) for axis, part in AXES.items()},
            })  # fmt: skip

        by_angle = zip(ANGLES, ANGLES[1:])
        by_metre = [(m, m + 1) for m in range(1, 5)]
        return {"what": self.what, "all": of(np.ones(len(allowed), bool)),
                "angle": {f"{a}-{b}": of((rows["angle"] >= a) & (rows["angle"] < b)) for a, b in by_angle},
                "distance": {f"{a}-{b}": of((rows["distance"] >= a) & (rows["distance"] < b)) for a, b in by_metre}}  # fmt: skip


def errors(body: BodyEstimate, truth: PersonTruth) -> tuple[np.ndarray, np.ndarray]:
    """Errors (6,) and what the covariance says of them: of the pelvis along the viewing ray and across it, metres, and of the orientation about the
    body's axes (to the left, along the trunk, forward), radians."""
    pelvis = body.joints[0] + body.translation
    across_x, across_y, along = ray_rotation(pelvis[:2] / pelvis[2])
    turn = Rotation.align_vectors(body.joints[ROOT] - body.joints[0], truth.joints[ROOT] - truth.joints[0])[0]
    axes = block_diag([along, across_x, across_y], Rotation.from_rotvec(body.global_orient).inv().as_matrix())
    error = axes @ np.concatenate([pelvis - truth.joints[0] - truth.translation, turn.as_rotvec()])
    return error, np.sqrt(np.diag(axes @ pose_covariance(body) @ axes.T))


def spread(error: np.ndarray, sigma: np.ndarray) -> dict[str, float]:
    """Errors (N, K) in metres or radians against their standard deviations."""
    away = np.abs(error) / sigma
    return {"rms": float(np.sqrt(np.mean(error**2))), "mean": float(error.mean()), "sigma_median": float(np.median(sigma)),
            "within_1_sigma": float((away < 1).mean()), "within_2_sigma": float((away < 2).mean())}  # fmt: skip


def fitted(error: np.ndarray, doubt: np.ndarray) -> Spread:
    """Of errors (N, K) of people with mean unreliabilities (N,): maximum likelihood of a normal distribution without bias."""
    def cost(of: np.ndarray) -> float:
        log_sigma = of[0] + of[1] * doubt[:, None]
        return float(np.mean(log_sigma + 0.5 * (error * np.exp(-log_sigma)) ** 2))

    sure, growth = minimize(cost, [np.log(error.std()), 0.0]).x
    return Spread(round(float(np.exp(sure)), 4), round(float(growth), 2))


def calibrate(settings: dict[str, Setting]) -> dict[str, Spread | tuple[Spread, ...]]:
    """The numbers of hmr_ros/uncertainty.py."""
    def of(name: str, source: str, part: slice, share: bool = False) -> tuple[np.ndarray, np.ndarray]:
        rows = [row for row in settings[name].rows if row["source"] == source]
        error = np.stack([row["error"][part] / (row["published_distance"] if share else 1) for row in rows])
        return error, np.array([1 - row["reliability"] for row in rows])

    across = [of(name, source, AXES["across"]) for name, source in (("image", "apparent size"), ("depth", "depth"))]
    return {
        "DEPTH": fitted(*of("depth", "depth", AXES["along"])),
        "KNOWN_STATURE": fitted(*of("stature", "known stature", AXES["along"], share=True)),
        "APPARENT_SIZE": fitted(*of("image", "apparent size", AXES["along"], share=True)),
        "ACROSS": fitted(*(np.concatenate(part) for part in zip(*across))),
        "TURN": tuple(fitted(*of("image", "apparent size", slice(axis, axis + 1))) for axis in range(3, 6)),
    }


def write_errors(path: Path, settings: dict[str, Setting]) -> None:
    """Distance and mean reliability as published; errors in metres and radians."""
    with atomic_write(path) as partial, open(partial, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["setting", "source", "distance", "reliability", "along", "across_x", "across_y", "turn_left", "turn_trunk", "turn_forward"])
        for name in ("image", "stature", "depth"):
            for row in settings[name].rows:
                numbers = [row["published_distance"], row["reliability"], *row["error"]]
                table.writerow([name, row["source"], *(f"{number:.3f}" for number in numbers)])


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
    maker = SceneMaker(config.split, config.backgrounds, SCENE, renderer=config.renderer)
    estimator = HumanMeshEstimator.from_default(regressor=config.regressor)
    as_regressed = replace(MetricConfig(), stature_sigma=1e-6)
    place, direction = estimator.placing, StatureDirection(estimator.body_model)
    settings = {
        "image": Setting("the image alone"), "stature": Setting("the person's true stature is told"),
        "depth": Setting("depth camera"), "depth_stature_as_regressed": Setting("depth camera; the stature stays as regressed"),
    }  # fmt: skip
    missed = 0
    for index in track(range(config.count), "pictures", console=console):
        scene = picture(maker, config.seed, config.split, index)
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
        "pictures": config.count, "seed": config.seed, "split": config.split, "renderer": config.renderer, "missed": missed, "allowed": ALLOWED,
        "backgrounds": config.backgrounds is not None, "version": hmr_ros.__version__, "backend": estimator.backend,
        "settings": {name: setting.scores() for name, setting in settings.items()},
    }  # fmt: skip
    table = Table("", "people", "position median / p90, m", "of allowed", "MPJPE, mm", "stature error, mm")
    covered = Table("error: rms, within 1 and 2 σ", *AXES)
    for name, scores in result["settings"].items():
        row = scores["all"]
        table.add_row(scores["what"], str(row["people"]), f"{row['position_median_m']:.3f} / {row['position_p90_m']:.3f}",
                      f"{row['position_over_allowed_median']:.2f}", f"{row['mpjpe_mm']:.1f}", f"{row['stature_error_mm']:.0f}")  # fmt: skip
        covered.add_row(scores["what"], *(f"{row[axis]['rms']:.3f}, {row[axis]['within_1_sigma']:.2f} {row[axis]['within_2_sigma']:.2f}" for axis in AXES))
    console.print(table, covered)
    if config.calibrate:
        for name, numbers in calibrate(settings).items():
            console.print(f"{name} = {numbers}")
    if config.json:
        write_json(config.json, result)
    if config.errors:
        write_errors(config.errors, settings)


def keypoints(estimator: HumanMeshEstimator, body: BodyEstimate) -> np.ndarray:
    """COCO (17, 3) of the body, as its joints stand."""
    rotations = matrix_from_rotvec(np.concatenate([body.global_orient, body.body_pose]).reshape(1, 24, 3))
    return estimator.placing.skeleton(rotations, body.betas[None])[1][0]


if __name__ == "__main__":
    main()
