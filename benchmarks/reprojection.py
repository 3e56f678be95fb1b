"""How far the mesh's joints lie from the detected ones on real pictures, beside a mean pose with the best camera.

    python benchmarks/reprojection.py PICTURE_OR_DIRECTORY... [--checkpoint FILE] [--unrefined] [--json FILE]
    python benchmarks/reprojection.py --video FILE [--first N] [--last N] [--checkpoint FILE] [--unrefined] [--json FILE]

Figures are shares of the person's diagonal over confidently detected joints. The mean pose is the training set's; its
weak camera is fitted by least squares to the same joints, and it may face the camera or away from it ("mean pose"), or
turn to the best of 24 headings ("mean pose, turned").

A video goes through the estimator's stream, frame by frame, those before --first too. Its jitter is the mean acceleration of
root-relative joints of people who are followed through three frames in a row; what they really do is part of it, the more so
the fewer frames a second.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment

from hmr_ros import HumanMeshEstimator
from hmr_ros.estimate import BodyEstimate
from hmr_ros.networks.checkpoints import EMBEDDED_CHECKPOINT, load_lifter
from hmr_ros.files import write_json
from hmr_ros.geometry import fit_weak_camera, matrix_from_6d, matrix_from_rotvec, project_weak, to_crop
from hmr_ros.io.decode import read_picture
from hmr_ros.io.content import PICTURE_SUFFIXES
from hmr_ros.io.sources import open_source

LIMBS = slice(5, 17)
SAME_PERSON = 0.3  # overlap of boxes in consecutive frames
HEADINGS = np.radians(np.arange(0, 360, 15))  # 0 faces the camera


@dataclass(frozen=True)
class Config:
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    video: Path | None = None
    """Instead of pictures: a video, as a stream."""
    first: int = 0
    """Of the video's frames, the first whose figures count."""
    last: int | None = None
    """The last one; default: the video's last."""
    checkpoint: Path | None = None
    """Another than the embedded one."""
    unrefined: bool = False
    """The lifter's own bodies. Refinement bends every lifter's bodies to the detected joints, and hides how far they were from them."""
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


def errors_of(body: BodyEstimate, mean: np.ndarray) -> dict[str, dict[str, float]]:
    """Shares of the diagonal, over all joints and over the limbs; what has no confident joint is left out."""
    poses, rows = with_mean_pose(body, mean), {}
    for name, joints in (("all", slice(None)), ("limbs", LIMBS)):
        errors = [pose.reprojection_error(joints) for pose in poses]
        if errors[0] is None:
            continue
        rows[name] = {
            "ours": body.reprojection_error(joints),
            "mean_pose": min(errors[0], errors[len(HEADINGS) // 2]),
            "mean_pose_turned": min(errors),
        }
    return rows


def pictures_of(config: Config, estimator: HumanMeshEstimator) -> Iterator[tuple[str, list[BodyEstimate]]]:
    """Name and people of each picture, or of each frame of the video that counts."""
    if config.video is None:
        for path in (q for p in config.paths for q in (sorted(p.iterdir()) if p.is_dir() else [p])):
            if path.suffix.lower() in PICTURE_SUFFIXES:
                yield path.name, estimator(read_picture(path))
        return
    source, stream = open_source(str(config.video)), estimator.stream()
    for number, image in enumerate(source.pictures()):
        if config.last is not None and number > config.last:
            return
        bodies = stream(image, number / source.rate)
        if number >= config.first:
            yield f"frame {number}", bodies


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Overlap of boxes (N, 4) and (M, 4), xyxy: intersection over union (N, M)."""
    a, b = a[:, None], b[None]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    areas = [np.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (a, b)]
    inside = sides.prod(-1)
    return inside / np.maximum(areas[0] + areas[1] - inside, 1e-9)


def follow(before: Sequence[BodyEstimate], now: Sequence[BodyEstimate]) -> dict[int, int]:
    """Who of now (index) was whom before (index): pairs of boxes with the largest overlap, at least SAME_PERSON."""
    if not before or not now:
        return {}
    overlap = box_iou(np.stack([body.box for body in now]), np.stack([body.box for body in before]))
    return {i: j for i, j in zip(*linear_sum_assignment(-overlap)) if overlap[i, j] >= SAME_PERSON}


def accelerations(frames: Sequence[list[BodyEstimate]]) -> np.ndarray:
    """Mean over the 24 joints, relative to the pelvis, of |x(t+1) - 2 x(t) + x(t-1)|, in mm per frame²: one for each person
    in each three consecutive frames through which they are followed."""
    links = [follow(a, b) for a, b in zip(frames, frames[1:])]
    found = []
    for t in range(1, len(frames) - 1):
        for i, j in links[t].items():
            if j in links[t - 1]:
                bodies = frames[t - 1][links[t - 1][j]], frames[t][j], frames[t + 1][i]
                first, second, third = (body.joints - body.joints[0] for body in bodies)
                found.append(1000 * np.linalg.norm(third - 2 * second + first, axis=-1).mean())
    return np.array(found)


def main() -> None:
    config = tyro.cli(Config)
    if bool(config.paths) == bool(config.video):
        raise SystemExit("reprojection.py: name either pictures or folders of them, or a video as --video")
    estimator = HumanMeshEstimator.from_default(checkpoint=config.checkpoint)
    if config.unrefined:
        estimator.refine = lambda people, parameters: parameters.numpy()
    mean = mean_pose_keypoints(estimator)
    names, frames = [], []
    for name, bodies in pictures_of(config, estimator):
        names.append(name)
        frames.append(bodies)
    rows = [
        {"picture": name, "person": number, **errors_of(body, mean)}
        for name, bodies in zip(names, frames)
        for number, body in enumerate(bodies)
    ]
    if not rows:
        raise SystemExit(f"reprojection.py: nobody found in {len(frames)} pictures; name pictures with people in them")
    table = Table("picture", "person", *(f"{n}: {k}" for n in ("all", "limbs") for k in ("ours", "mean pose", "turned")))
    summary: dict[str, dict[str, float]] = {}
    for name in ("all", "limbs"):
        known = [row[name] for row in rows if name in row]
        summary[name] = {key: float(np.mean([row[key] for row in known])) for key in known[0]} if known else {}
    shown = rows if config.video is None else []
    for row in [*shown, {"picture": "mean", "person": len(rows), **summary}]:
        cells = [f"{100 * v:.1f} %" for name in ("all", "limbs") for v in row.get(name, {}).values()]
        table.add_row(row["picture"], str(row["person"]), *cells)
    console, result = Console(), {"people": rows, "mean": summary}
    console.print(table)
    if config.video is not None:
        jitter = accelerations(frames)
        figures = {"mean": float(jitter.mean()), "median": float(np.median(jitter))} if len(jitter) else {}
        rate = open_source(str(config.video)).rate
        result["jitter_mm_per_frame2"] = {**figures, "count": len(jitter), "frames": len(frames), "frames_a_second": rate}
        told = ", ".join(f"{key} {value:.1f}" for key, value in figures.items()) or "nobody was followed"
        console.print(f"{len(frames)} frames at {rate:.1f} Hz; acceleration in mm/frame², {len(jitter)} times: {told}")
    if config.json:
        rounded = json.loads(json.dumps(result), parse_float=lambda number: round(float(number), 5))  # thousands of rows
        write_json(config.json, rounded, indent=None)


if __name__ == "__main__":
    main()
