"""3D errors on real pictures: a person before four calibrated cameras, whose joints are triangulated from the detections of all four.

    pip download --no-deps pose2sim==0.10.49 && unzip pose2sim-*.whl 'Pose2Sim/Demo_SinglePerson/*'     # BSD-3-Clause
    python benchmarks/calibrated_clip.py Pose2Sim/Demo_SinglePerson [--checkpoints FILE...] [--json FILE]

A hint and no benchmark: one person, a second and a half, and a truth that comes from this package's own 2D joints. Frames count in which
all twelve limb joints re-project to ``--tolerance`` pixels (mean over cameras). Scores are those of the rendered benchmark (12 limb joints,
root at the hips' midpoint, axes of the ray through the crop's centre); every camera's view is a person of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from hmr_ros.body.model import BodyModel
from hmr_ros.networks.checkpoints import EMBEDDED_CHECKPOINT, load_lifter
from hmr_ros.files import write_json
from hmr_ros.geometry import Intrinsics, to_crop
from hmr_ros.networks.lifter.regressor import LifterRegressor
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.proxies import PersonProxies
from hmr_ros.proxies.config import EmbeddedConfig
from hmr_ros.proxies.embedded import EmbeddedExtractor
from hmr_ros.refinement import Refiner
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.benchmarks.rendered import mediapipe_correction
from hmr_ros.training.data.shards import ray_rotation
from hmr_ros.training.metrics import LIMB_HIPS, mpjpe, pa_mpjpe, root_aligned

LIMBS = list(LIMB_KEYPOINTS)
SEEN_BY = 3  # cameras: a joint seen by fewer has no truth
SHIFTS = range(-12, 13)  # frames that one camera may be behind the first


@dataclass(frozen=True)
class Config:
    demo: Annotated[Path, tyro.conf.Positional]
    """Pose2Sim's Demo_SinglePerson: calibration/Calib.qca.txt and videos/cam0*.mp4."""
    checkpoints: tuple[Path, ...] = (Path(str(EMBEDDED_CHECKPOINT)),)
    tolerance: float = 20.0
    """Of the triangulated joints, pixels."""
    json: Path | None = None


class Camera(NamedTuple):
    name: str
    matrix: np.ndarray  # (3, 3)
    distortion: np.ndarray  # (4,) OpenCV's k1, k2, p1, p2
    rotation: np.ndarray  # (3, 3) world to camera (OpenCV's axes)
    translation: np.ndarray  # (3,) metres

    @property
    def projection(self) -> np.ndarray:
        return self.matrix @ np.column_stack([self.rotation, self.translation])


def read_cameras(path: Path) -> list[Camera]:
    """Cameras of a Qualisys calibration: 1/64 pixels and millimetres, camera to world, y up and z towards the viewer."""
    cameras = []
    for camera in ElementTree.parse(path).getroot().findall("cameras/camera"):
        lens, place = ({key: float(value) for key, value in camera.find(name).attrib.items()} for name in ("intrinsic", "transform"))
        matrix = np.array([[lens["focalLengthU"], 0, lens["centerPointU"]], [0, lens["focalLengthV"], lens["centerPointV"]], [0, 0, 64]]) / 64
        distortion = np.array([lens[f"{kind}{i}"] for kind in ("radialDistortion", "tangentalDistortion") for i in (1, 2)]) / 64
        to_world = np.array([[place[f"r{row}{column}"] for row in "123"] for column in "123"]).T
        rotation = np.diag([1.0, -1, -1]) @ to_world
        centre = np.array([place[axis] for axis in "xyz"]) / 1000
        cameras.append(Camera(camera.get("serial"), matrix, distortion, rotation, -rotation @ centre))
    return cameras


def watch(extractor: EmbeddedExtractor, video: Path) -> list[PersonProxies | None]:
    """The largest person of each frame."""
    capture, people = cv2.VideoCapture(str(video)), []
    while (frame := capture.read()[1]) is not None:
        seen = [person for person in extractor(frame) if person.torso_is_seen]
        people.append(max(seen, key=lambda person: person.score * np.prod(person.box[2:] - person.box[:2]), default=None))
    if not people:
        raise ValueError(f"{video} holds no frame that OpenCV can read")
    return people


class Triangulation:
    """Joints in the world from what the cameras see at one moment."""

    def __init__(self, cameras: list[Camera], watched: list[list[PersonProxies | None]]):
        self.projections = [camera.projection for camera in cameras]
        self.seen = [
            [None if person is None else np.column_stack([_undistorted(camera, person.keypoints[:, :2]), person.keypoints[:, 2]])
             for person in people] for camera, people in zip(cameras, watched)
        ]  # fmt: skip

    def __call__(self, frame: int, shifts: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Limb joints (12, 3) in metres and how far they re-project (12,) px; inf where too few cameras see one."""
        points, errors = np.zeros((len(LIMBS), 3)), np.full(len(LIMBS), np.inf)
        views = [at(seen, frame + shift) for seen, shift in zip(self.seen, shifts)]
        for row, joint in enumerate(LIMBS):
            use = [(P, view[joint]) for P, view in zip(self.projections, views) if view is not None and view[joint, 2] >= EmbeddedConfig.confident]
            if len(use) < SEEN_BY:
                continue
            equations = np.concatenate([c * np.stack([u * P[2] - P[0], v * P[2] - P[1]]) for P, (u, v, c) in use])
            point = np.linalg.svd(equations)[2][-1]
            points[row] = point[:3] / point[3]
            projected = np.array([P @ np.append(points[row], 1) for P, _ in use])
            errors[row] = np.linalg.norm(projected[:, :2] / projected[:, 2:] - [view[:2] for _, view in use], axis=1).mean()
        return points, errors

    def align(self) -> list[int]:
        """How many frames each camera is behind the first: where the joints re-project best, one camera at a time."""
        shifts = [0] * len(self.seen)
        frames = range(0, len(self.seen[0]), 7)
        for _ in range(2):
            for camera in range(1, len(shifts)):
                def off(shift: int) -> float:
                    tried = [*shifts[:camera], shift, *shifts[camera + 1 :]]
                    errors = np.concatenate([self(frame, tried)[1] for frame in frames])
                    return float(np.median(errors[np.isfinite(errors)]))

                shifts[camera] = min(SHIFTS, key=off)
        return shifts


def at(seen: list, frame: int):
    """What a camera saw at a frame; None beyond its ends."""
    return seen[frame] if 0 <= frame < len(seen) else None


def _undistorted(camera: Camera, points: np.ndarray) -> np.ndarray:
    return cv2.undistortPoints(points[:, None].astype(float), camera.matrix, camera.distortion, P=camera.matrix)[:, 0]


def main() -> None:
    config, console = tyro.cli(Config), Console()
    cameras = read_cameras(config.demo / "calibration" / "Calib.qca.txt")
    extractor = EmbeddedExtractor()
    videos = [config.demo / "videos" / f"{camera.name}.mp4" for camera in cameras]
    watched = [watch(extractor, video) for video in track(videos, "detecting", console=console)]
    triangulate = Triangulation(cameras, watched)
    shifts = triangulate.align()
    people, truth, frames = [], [], 0
    for frame in range(len(watched[0])):
        points, errors = triangulate(frame, shifts)
        if errors.max() >= config.tolerance:
            continue
        frames += 1
        for camera, seen, shift in zip(cameras, watched, shifts):
            person = at(seen, frame + shift)
            if person is None:
                continue
            turn = ray_rotation(person.crop[:2], Intrinsics(*camera.matrix[[0, 1, 0, 1], [0, 1, 2, 2]]))
            truth.append((points @ camera.rotation.T + camera.translation) @ turn.T)
            people.append(person)
    if not people:
        raise ValueError(f"no frame has all joints to {config.tolerance:g} pixels; raise --tolerance")
    truth = root_aligned(np.stack(truth), LIMB_HIPS)
    result = {"frames": frames, "views": len(people), "shifts": shifts, "tolerance_px": config.tolerance, "methods": {}}
    world = np.stack([person.blazepose.world for person in people])
    limbs = {
        "MediaPipe, raw": mediapipe_correction.RAW @ world,
        "MediaPipe, corrected": np.array(mediapipe_correction.load(None)["weights"]) @ world,
    }
    for path in config.checkpoints:
        limbs |= {f"{path.name}{suffix}": points for suffix, points in regressed(path, people).items()}
    for name, points in limbs.items():
        errors = root_aligned(points.astype(np.float64), LIMB_HIPS)
        result["methods"][name] = {"mpjpe": float(mpjpe(errors, truth).mean()), "pa_mpjpe": float(pa_mpjpe(errors, truth).mean())}
    table = Table(f"{len(people)} views of {frames} frames", "MPJPE", "PA-MPJPE")
    for name, scores in result["methods"].items():
        table.add_row(name, f"{scores['mpjpe']:.1f}", f"{scores['pa_mpjpe']:.1f}")
    console.print(table)
    if config.json:
        write_json(config.json, result)


def regressed(checkpoint: Path, people: list[PersonProxies]) -> dict[str, np.ndarray]:
    """Limb joints (N, 12, 3) of a lifter, not refined and refined as in the estimator."""
    lifter, skeleton = load_lifter(checkpoint)[0].eval(), PosedKeypoints(BodyModel.load(None))

    def say(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(value.numpy() for value in lifter(*map(torch.from_numpy, inputs)))

    def joints(rotations: np.ndarray, betas: np.ndarray) -> np.ndarray:
        return skeleton(torch.from_numpy(rotations), torch.from_numpy(betas))[1][:, LIMBS].numpy()

    with torch.inference_mode():
        rotations, betas, cameras, _ = LifterRegressor(say, lambda betas: skeleton.pelvis(torch.from_numpy(betas)).numpy())(people)
        unrefined = joints(rotations, betas)
    detected = np.stack([person.keypoints for person in people])
    targets = to_crop(detected[..., :2], np.stack([person.crop for person in people]))
    rotations, _ = Refiner(skeleton)(rotations, betas, cameras, targets, np.stack([person.confidence for person in people]))
    with torch.inference_mode():
        return {", unrefined": unrefined, ", refined": joints(rotations, betas)}


if __name__ == "__main__":
    main()
