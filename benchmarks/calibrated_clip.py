"""3D errors on real pictures: a person before four calibrated cameras, whose joints are triangulated from the detections of all four.

    pip download --no-deps pose2sim==0.10.49 && unzip pose2sim-*.whl 'Pose2Sim/Demo_SinglePerson/*'     # BSD-3-Clause
    python benchmarks/calibrated_clip.py Pose2Sim/Demo_SinglePerson [--checkpoints FILE...] [--json FILE]

A hint and no benchmark: one person, a second and a half, and a truth that comes from this package's own 2D joints. Frames count in which
all twelve limb joints re-project to ``--tolerance`` pixels (mean over cameras). Scores are those of the rendered benchmark (12 limb joints,
root at the hips' midpoint), in the camera's frame: what comes in the axes of the viewing ray is turned by the ray's rotation. "ray axes"
leaves that out. Position is that of the hips' midpoint, the stature being unknown. Every camera's view is a person of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from hmr_ros import HumanMeshEstimator
from hmr_ros.camera import Camera, ray_axes
from hmr_ros.files import write_json
from hmr_ros.geometry import Intrinsics
from hmr_ros.networks.checkpoints import EMBEDDED_CHECKPOINT
from hmr_ros.networks.regressor import BodyParameters
from hmr_ros.proxies import PersonProxies
from hmr_ros.proxies.embedded import EmbeddedExtractor
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.adaptation.triangulation import linear
from hmr_ros.training.benchmarks.rendered import mediapipe_correction
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


class MountedCamera(NamedTuple):
    name: str
    lens: Camera
    rotation: np.ndarray  # (3, 3) world to camera (OpenCV's axes)
    translation: np.ndarray  # (3,) metres


def read_cameras(path: Path) -> list[MountedCamera]:
    """Cameras of a Qualisys calibration: 1/64 pixels and millimetres, camera to world, y up and z towards the viewer."""
    cameras = []
    for camera in ElementTree.parse(path).getroot().findall("cameras/camera"):
        lens, place = ({key: float(value) for key, value in camera.find(name).attrib.items()} for name in ("intrinsic", "transform"))
        intrinsics = Intrinsics(*(lens[name] / 64 for name in ("focalLengthU", "focalLengthV", "centerPointU", "centerPointV")))
        coefficients = tuple(lens[f"{kind}{i}"] / 64 for kind in ("radialDistortion", "tangentalDistortion") for i in (1, 2))
        to_world = np.array([[place[f"r{row}{column}"] for row in "123"] for column in "123"]).T
        rotation = np.diag([1.0, -1, -1]) @ to_world
        centre = np.array([place[axis] for axis in "xyz"]) / 1000
        cameras.append(MountedCamera(camera.get("serial"), Camera(intrinsics, "plumb_bob", coefficients), rotation, -rotation @ centre))
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

    def __init__(self, cameras: list[MountedCamera], watched: list[list[np.ndarray | None]]):
        """``watched``: of each camera and frame the joints (17, 3) px, confidence; 0 where a joint does not count."""
        self.cameras = cameras
        self.seen = [
            [None if joints is None else np.column_stack([camera.lens.directions(joints[:, :2])[0], joints[:, 2]]) for joints in frames]
            for camera, frames in zip(cameras, watched)
        ]  # fmt: skip

    def __call__(self, frame: int, shifts: list[int], without: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Limb joints (12, 3) in metres and how far they re-project (12,) px; inf where too few cameras see one. ``without``: a camera
        that is left out."""
        points, errors = np.zeros((len(LIMBS), 3)), np.full(len(LIMBS), np.inf)
        views = [None if camera == without else at(seen, frame + shift) for camera, (seen, shift) in enumerate(zip(self.seen, shifts))]
        for row, joint in enumerate(LIMBS):
            use = [(camera, view[joint]) for camera, view in zip(self.cameras, views) if view is not None and view[joint, 2] > 0]
            if len(use) < SEEN_BY:
                continue
            rays = np.stack([seen for _, seen in use])
            points[row] = linear(rays[:, :2], rays[:, 2] ** 2, np.stack([np.column_stack([camera.rotation, camera.translation]) for camera, _ in use]))[0]
            projected = [camera.rotation @ points[row] + camera.translation for camera, _ in use]
            off = [camera.lens.intrinsics.fx * np.linalg.norm(at[:2] / at[2] - seen[:2]) for at, (camera, seen) in zip(projected, use)]
            errors[row] = np.mean(off)
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


def with_confidence(person: PersonProxies) -> np.ndarray:
    """(17, 3) px, confidence; 0 where a joint does not count as seen."""
    return np.column_stack([person.keypoints[:, :2], person.confidence])


def at(seen: list, frame: int):
    """What a camera saw at a frame; None beyond its ends."""
    return seen[frame] if 0 <= frame < len(seen) else None


def main() -> None:
    config, console = tyro.cli(Config), Console()
    cameras = read_cameras(config.demo / "calibration" / "Calib.qca.txt")
    extractor = EmbeddedExtractor()
    videos = [config.demo / "videos" / f"{camera.name}.mp4" for camera in cameras]
    watched = [watch(extractor, video) for video in track(videos, "detecting", console=console)]
    triangulate = Triangulation(cameras, [[None if person is None else with_confidence(person) for person in people] for people in watched])
    shifts = triangulate.align()
    people, lenses, truth, frames = [], [], [], 0
    for frame in range(len(watched[0])):
        points, errors = triangulate(frame, shifts)
        if errors.max() >= config.tolerance:
            continue
        frames += 1
        for camera, seen, shift in zip(cameras, watched, shifts):
            person = at(seen, frame + shift)
            if person is None:
                continue
            truth.append(points @ camera.rotation.T + camera.translation)
            people.append(person)
            lenses.append(camera.lens)
    if not people:
        raise ValueError(f"no frame has all joints to {config.tolerance:g} pixels; raise --tolerance")
    truth = np.stack(truth)
    turns = np.stack([ray_axes(lens, person.crop[None, :2])[0] for lens, person in zip(lenses, people)])
    result = {"frames": frames, "views": len(people), "shifts": shifts, "tolerance_px": config.tolerance,
              "ray_degrees": {"median": float(np.median(angles := np.degrees(np.arccos(turns[:, 2, 2])))), "largest": float(angles.max())},
              "methods": {}}  # fmt: skip
    world = np.stack([person.blazepose.world for person in people])
    limbs = {
        "MediaPipe, raw": mediapipe_correction.RAW @ world @ turns,
        "MediaPipe, corrected": np.array(mediapipe_correction.load(None)["weights"]) @ world @ turns,
    }
    for path in config.checkpoints:
        limbs |= {f"{path.name}, {how}": points for how, points in estimated(path, people, lenses).items()}
    table = Table(f"{len(people)} views of {frames} frames", "MPJPE", "PA-MPJPE", "MPJPE, ray axes", "position, median")
    for name, points in limbs.items():
        result["methods"][name] = scores = score(points.astype(np.float64), truth, turns)
        place = f"{scores['position_median_m']:.2f} m" if "position_median_m" in scores else "-"
        table.add_row(name, *(f"{scores[key]:.1f}" for key in ("mpjpe", "pa_mpjpe", "ray_axes_mpjpe")), place)
    console.print(table)
    if config.json:
        write_json(config.json, result)


def score(points: np.ndarray, truth: np.ndarray, turns: np.ndarray) -> dict:
    """Limb joints (N, 12, 3) against the truth, both in camera axes; the position only where the points have one."""
    aligned, true = root_aligned(points, LIMB_HIPS), root_aligned(truth, LIMB_HIPS)
    by_ray = aligned @ np.swapaxes(turns, 1, 2)
    scores = {"mpjpe": float(mpjpe(aligned, true).mean()), "pa_mpjpe": float(pa_mpjpe(aligned, true).mean()),
              "ray_axes_mpjpe": float(mpjpe(by_ray, true).mean())}  # fmt: skip
    hips, true_hips = (some[:, LIMB_HIPS].mean(1) for some in (points, truth))
    if hips[:, 2].min() > 0.5:  # a root-relative pose has none
        off = np.linalg.norm(hips - true_hips, axis=1)
        scores |= {"position_median_m": float(np.median(off)), "distance_median_m": float(np.median(np.linalg.norm(true_hips, axis=1)))}
    return scores


def estimated(checkpoint: Path, people: list[PersonProxies], lenses: list[Camera]) -> dict[str, np.ndarray]:
    """Limb joints (N, 12, 3) in each camera's frame by the estimator's steps, without its refinement and with it."""
    estimator = HumanMeshEstimator.from_default(checkpoint=checkpoint)
    rows, unrefined = estimator.regress(people)
    if len(rows) < len(people):
        raise ValueError(f"{checkpoint} gives no finite parameters for {len(people) - len(rows)} of {len(people)} people")
    return {"unrefined": placed(estimator, people, unrefined, lenses), "refined": placed(estimator, people, estimator.refine(people, unrefined), lenses)}


def placed(estimator: HumanMeshEstimator, people: list[PersonProxies], parameters: BodyParameters, lenses: list[Camera]) -> np.ndarray:
    points = []
    for i, (person, lens) in enumerate(zip(people, lenses)):
        rotations, betas, weak_camera, _ = parameters.rows([i])
        body = estimator.placing(rotations, betas, weak_camera, person.keypoints[None, :, :2], person.confidence[None], person.crop[None], lens)
        joints, keypoints = estimator.placing.skeleton(body.rotations, body.betas)
        points.append((keypoints[0] - joints[0, 0])[LIMBS] + body.pelvis[0])
    return np.stack(points)


if __name__ == "__main__":
    main()
