"""How stable the estimate of a truncated person is: the same picture, encoded, shifted, scaled and lit a little differently.

    python benchmarks/truncation_stability.py --json benchmarks/results/truncation_stability.json

Pictures are of real people who are cut by the border: the astronaut's portrait, and pedestrians of the embedded video cut at the hips, at
the knees or at the chest (enlarged to 480 px). Each is estimated as it is and in 14 versions that nobody could tell apart: JPEG of quality
60 to 100, shifts by one pixel, size +-2 %, brightness +-3 %. Spread: mean distance of the 24 joints to their mean over the versions, mm,
with the pelvis at the origin, and after Procrustes alignment; of the distance: standard deviation over mean, with a field of view of 60
degrees. Two solutions: two clusters of versions lie more than 50 mm and three times their own width apart; flips are the versions in the
smaller one.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import hmr_ros
from hmr_ros import BodyEstimate, HumanMeshEstimator
from hmr_ros.files import write_json
from hmr_ros.geometry import pinhole, similarity_align
from hmr_ros.proxies.similarity import iou

DEMO = files("hmr_ros") / "assets" / "demo"
SIDE = 480  # px: height of an enlarged crop
FOV = 60.0  # degrees
CUTS = {"chest": 0.45, "hips": 1.0, "knees": 1.75}  # where the border cuts, in lengths of the torso below the shoulders
APART_MM, APART_WIDTHS = 50.0, 3.0


@dataclass(frozen=True)
class Config:
    frames: int = 6
    """Frames of the embedded video, spread over it."""
    people: int = 3
    """The largest people of each frame."""
    json: Path | None = None


def versions(image: np.ndarray) -> dict[str, np.ndarray]:
    """The picture as it is (as in a PNG file), and changed a little."""
    height, width = image.shape[:2]
    some = {"png": image}
    for quality in (60, 70, 80, 90, 95, 100):
        some[f"jpeg {quality}"] = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        shift = np.float32([[1, 0, dx], [0, 1, dy]])
        some[f"shift {dx} {dy}"] = cv2.warpAffine(image, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
    for factor in (0.98, 1.02):
        some[f"size {factor}"] = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    for factor in (0.97, 1.03):
        some[f"brightness {factor}"] = cv2.convertScaleAbs(image, alpha=factor)
    return some


def pictures(estimator: HumanMeshEstimator, config: Config) -> dict[str, np.ndarray]:
    """Truncated people by name; every frame's largest ones who are seen whole."""
    (portrait,) = [path for path in DEMO.iterdir() if path.suffix == ".jpg"]
    (video,) = [path for path in DEMO.iterdir() if path.suffix == ".mp4"]
    image = cv2.imread(str(portrait))
    some = {"portrait": image, "portrait, upper part": image[: image.shape[0] * 2 // 3]}
    capture = cv2.VideoCapture(str(video))
    frames = [frame for _, frame in iter(capture.read, (False, None))]
    for number in np.linspace(0, len(frames) - 1, config.frames).astype(int):
        people = [person for person in estimator.extractor(frames[number]) if (person.keypoints[5:, 2] > person.confident).all()]
        people.sort(key=lambda person: -person.box[3] + person.box[1])
        for i, person in enumerate(people[: config.people]):
            some |= {f"frame {number}, person {i}, cut at the {where}": cut(frames[number], person, share) for where, share in CUTS.items()}
    return some


def cut(frame: np.ndarray, person, share: float) -> np.ndarray:
    """The person and what is around, down to ``share`` torsos below the shoulders; enlarged."""
    points = person.keypoints[:, :2]
    shoulders, hips = points[[5, 6]].mean(0), points[[11, 12]].mean(0)
    torso = hips[1] - shoulders[1]
    bottom = shoulders[1] + share * torso
    top = max(person.box[1] - 0.4 * torso, 0)
    half = max(0.6 * (bottom - top), 1.2 * torso)
    x0, x1 = max(shoulders[0] - half, 0), min(shoulders[0] + half, frame.shape[1])
    part = frame[int(top) : int(bottom), int(x0) : int(x1)]
    return cv2.resize(part, None, fx=SIDE / part.shape[0], fy=SIDE / part.shape[0], interpolation=cv2.INTER_CUBIC)


def stability(estimator: HumanMeshEstimator, image: np.ndarray) -> dict | None:
    """Spread of one person over the versions; None where the picture itself gives no body."""
    bodies: list[BodyEstimate] = []
    without = 0
    for version in versions(image).values():
        height, width = version.shape[:2]
        # boxes as in the picture itself, so that the same person is found in a larger one
        found = [(body, body.box * image.shape[1] / width) for body in estimator(version, intrinsics=pinhole(width, height, FOV))]
        if not bodies:
            if not found:
                return None
            reference = max(found, key=lambda one: np.prod(one[1][2:] - one[1][:2]))[1]
        same = [body for body, box in found if iou(box, reference) > 0.4]
        bodies += same[:1]
        without += not same
    joints = np.stack([1000 * (body.joints - body.joints[0]) for body in bodies]).astype(np.float64)
    distance = np.array([float((body.joints[0] + body.translation)[2]) for body in bodies])
    mean = joints.mean(0)
    aligned = similarity_align(joints, np.broadcast_to(mean, joints.shape))
    separation, width, smaller = two_clusters(joints)
    two = separation > APART_MM and separation > APART_WIDTHS * width
    return {
        "versions": len(bodies), "without_a_body": without,
        "joints_mm": _mean_distance(joints, mean), "upper_body_mm": _mean_distance(joints[:, UPPER], mean[UPPER]),
        "pa_joints_mm": _mean_distance(aligned, aligned.mean(0)),
        "distance_m": float(distance.mean()), "distance_percent": float(100 * distance.std() / distance.mean()),
        "distance_range_percent": float(100 * np.ptp(distance) / distance.mean()),
        "two_solutions": bool(two), "flips": int(smaller if two else 0), "clusters_apart_mm": separation,
    }  # fmt: skip


UPPER = [0, 3, 6, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]  # of the 24 joints: trunk, head and arms


def two_clusters(joints: np.ndarray) -> tuple[float, float, int]:
    """2-means of (N, 24, 3) mm, started at the two that are furthest apart: how far the centres are apart and how wide the clusters
    are (mean over joints), and how many are in the smaller one."""
    between = np.linalg.norm(joints[:, None] - joints[None], axis=-1).mean(-1)
    centres = joints[list(np.unravel_index(between.argmax(), between.shape))]
    for _ in range(10):
        to = np.linalg.norm(joints[:, None] - centres[None], axis=-1).mean(-1)
        nearest = to.argmin(1)
        if nearest.min() == nearest.max():
            return 0.0, 0.0, 0
        centres = np.stack([joints[nearest == k].mean(0) for k in (0, 1)])
    separation = float(np.linalg.norm(centres[0] - centres[1], axis=-1).mean())
    return separation, float(to.min(1).mean()), int(min((nearest == 0).sum(), (nearest == 1).sum()))


def _mean_distance(points: np.ndarray, centre: np.ndarray) -> float:
    return float(np.linalg.norm(points - centre, axis=-1).mean())


def summary(rows: list[dict]) -> dict:
    columns = {name: np.array([row[name] for row in rows], float) for name in rows[0]}
    means = ("joints_mm", "upper_body_mm", "pa_joints_mm", "distance_percent", "distance_range_percent")
    return {
        "people": len(rows), **{name: float(columns[name].mean()) for name in means},
        "joints_mm_p90": float(np.quantile(columns["joints_mm"], 0.9)), "two_solutions_people": int(columns["two_solutions"].sum()),
        "flips_percent": float(100 * columns["flips"].sum() / columns["versions"].sum()), "without_a_body": int(columns["without_a_body"].sum()),
    }  # fmt: skip


def main() -> None:
    config, console = tyro.cli(Config), Console()
    estimator = HumanMeshEstimator.from_default()
    rows = {name: stability(estimator, image) for name, image in pictures(estimator, config).items()}
    known = {name: row for name, row in rows.items() if row is not None}
    kinds = {"portrait": "portrait", **{where: f"cut at the {where}" for where in CUTS}, "all": ""}
    result = {
        "machine": f"{platform.machine()}, {estimator.backend}", "date": str(date.today()), "version": hmr_ros.__version__,
        "versions": list(versions(np.zeros((8, 8, 3), np.uint8))), "no_body_in_the_picture_itself": [name for name in rows if name not in known],
        "summary": {kind: summary([row for name, row in known.items() if words in name]) for kind, words in kinds.items()},
        "people": known,
    }  # fmt: skip
    table = Table("", "people", "joints, mm (p90)", "upper body", "PA", "distance, %", "two solutions", "flips, %", "without a body")
    for kind, row in result["summary"].items():
        table.add_row(kind, str(row["people"]), f"{row['joints_mm']:.1f} ({row['joints_mm_p90']:.1f})", f"{row['upper_body_mm']:.1f}",
                      f"{row['pa_joints_mm']:.1f}", f"{row['distance_percent']:.2f}", str(row["two_solutions_people"]),
                      f"{row['flips_percent']:.1f}", str(row["without_a_body"]))  # fmt: skip
    console.print(table)
    if config.json:
        write_json(config.json, result)


if __name__ == "__main__":
    main()
