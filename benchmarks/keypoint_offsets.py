"""Do the detectors mean other points by their joints than the mesh's keypoints, and is that why refinement does not help in 3D?

    python benchmarks/keypoint_offsets.py runs/thunder/movenet_thunder.xml runs/backgrounds [--json benchmarks/results/keypoint_offsets.json]

Of each joint and detector the offset in the axes of the bone that ends there (of the trunk for shoulders and hips) is fitted to the detections of
half of the validation people (rendered_opinions.py): x outwards, y up, z forwards in the T-pose, millimetres, both sides together. Explained is
how much of the mean 2D error it takes away on the other half, in millimetres at the person's depth. Then everybody is refined towards
detections that are shifted by these offsets, posed as regressed, and towards true 2D joints: what better 2D joints could gain at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rendered_opinions import DETECTORS, OpinionsConfig, opinions
from rich.console import Console
from rich.table import Table

from hmr_ros.body.model import BodyModel
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.camera import Camera, ray_axes
from hmr_ros.files import write_json
from hmr_ros.geometry import Intrinsics, matrix_from_rotvec, to_crop
from hmr_ros.refinement import Refiner
from hmr_ros.skeleton import LIMB_KEYPOINTS, SMPL_JOINTS
from hmr_ros.training.metrics import LIMB_HIPS, mpjpe, pa_mpjpe, root_aligned

LIMBS = np.array(LIMB_KEYPOINTS)
PAIRS = {"shoulder": "spine3", "elbow": "shoulder", "wrist": "elbow", "hip": "pelvis", "knee": "hip", "ankle": "knee"}  # joint: the bone's
FRAMES = [SMPL_JOINTS.index(bone if bone in SMPL_JOINTS else f"{side}_{bone}") for bone in PAIRS.values() for side in ("left", "right")]  # of LIMBS
MIRROR = np.where(np.arange(12) % 2, -1.0, 1.0)  # left, right, ...: x points to the left in the body's axes
WIDTH = 0.05  # metres: an error of this size has half weight (Geman-McClure)
ROUNDS = 5  # of reweighting


@dataclass(frozen=True)
class Config(OpinionsConfig):
    json: Path | None = None


def world_rotations(rotations: np.ndarray, skeleton: PosedKeypoints) -> np.ndarray:
    """(N, 24, 3, 3) relative to parents → of each joint's frame."""
    rotations = torch.from_numpy(np.ascontiguousarray(rotations, np.float32))
    return skeleton.parts(rotations, torch.zeros(len(rotations), 10)).world.numpy()


class Errors:
    """2D errors of detections in metres at the person's depth, and how an offset in a bone's axes shows there."""

    def __init__(self, data: dict[str, np.ndarray], skeleton: PosedKeypoints):
        world = world_rotations(matrix_from_rotvec(data["pose"]), skeleton)[:, FRAMES]  # (N, 12, 3, 3), camera axes
        points = (data["keypoints3d"] + data["translation"][:, None])[:, LIMBS]
        self._metres_a_pixel = points[..., 2] / data["intrinsics"][:, :1]
        ray = points[..., :2] / points[..., 2:]
        seen = np.concatenate([np.broadcast_to(np.eye(2), (*ray.shape, 2)), -ray[..., None]], -1)  # (N, 12, 2, 3)
        self.design = (seen @ world) * np.stack([MIRROR, np.ones(12), np.ones(12)], 1)[:, None]  # of an offset with x outwards
        self.truth, self.visible = data["keypoints"][:, LIMBS], data["visible"][:, LIMBS]

    def of(self, joints: np.ndarray) -> np.ndarray:
        """(N, 12, 2) metres of joints (N, 17, 2+)."""
        return (joints[:, LIMBS, :2] - self.truth) * self._metres_a_pixel[..., None]

    def offsets(self, joints: np.ndarray, people: np.ndarray) -> np.ndarray:
        """(6, 3) metres of shoulders, elbows, ... by iteratively reweighted least squares over ``people``."""
        error, result = self.of(joints), np.zeros((6, 3))
        for part in range(6):
            rows = slice(2 * part, 2 * part + 2)
            keep = self.visible[people, rows]
            design, target = self.design[people, rows][keep], error[people, rows][keep]  # (M, 2, 3), (M, 2)
            for _ in range(ROUNDS):
                left = target - design @ result[part]
                weight = 1 / (1 + (left**2).sum(-1) / WIDTH**2) ** 2
                system = np.einsum("m,mca,mcb->ab", weight, design, design) + 1e-3 * weight.sum() * np.eye(3)
                result[part] = np.linalg.solve(system, np.einsum("m,mca,mc->a", weight, design, target))
        return result

    def shown(self, offsets: np.ndarray) -> np.ndarray:
        """(N, 12, 2) metres: how offsets (6, 3) show in the picture."""
        return (self.design @ offsets.repeat(2, 0)[:, :, None])[..., 0]


def shifted(data: dict[str, np.ndarray], joints: np.ndarray, offsets: np.ndarray, skeleton: PosedKeypoints) -> np.ndarray:
    """Targets (N, 17, 2) in crop coordinates, without the offsets as they show in the regressed pose."""
    targets = to_crop(joints[..., :2], data["crop"])
    world = world_rotations(data["rotations"], skeleton)[:, FRAMES]
    by_joint = offsets.repeat(2, 0) * np.stack([MIRROR, np.ones(12), np.ones(12)], 1)
    targets[:, LIMBS] -= data["weak_camera"][:, None, :1] * np.einsum("njab,jb->nja", world, by_joint)[..., :2]
    return targets


def main() -> None:
    config, console = tyro.cli(Config), Console()
    data = opinions(config)
    skeleton = PosedKeypoints(BodyModel.load(None))
    refine, errors = Refiner(skeleton), Errors(data, skeleton)
    number, validation = np.arange(len(data["set"])), data["set"] == 0
    learned, held_out = validation & (number % 2 == 0), validation & (number % 2 == 1)
    result = {"pictures": int(data["pictures"]), "people": int(validation.sum()), "offsets_mm": {}, "explained": {}, "refinement": {}}
    table, offsets = Table("offset, mm (out, up, forwards)", *PAIRS, "2D error, mm", "without offset"), {}
    for i, name in enumerate(DETECTORS):
        joints = data["joints"][:, i]
        offsets[name] = errors.offsets(joints, learned)
        seen = errors.visible & held_out[:, None]
        before, after = (1000 * np.linalg.norm(error, axis=-1)[seen] for error in (errors.of(joints), errors.of(joints) - errors.shown(offsets[name])))
        result["offsets_mm"][name] = {part: row for part, row in zip(PAIRS, (1000 * offsets[name]).round(1).tolist())}
        result["explained"][name] = {"joints": int(seen.sum()), **{f"{key}_{when}": float(f(some)) for key, f in (("mean", np.mean), ("median", np.median))
                                     for when, some in (("before", before), ("after", after))}}  # fmt: skip
        table.add_row(name, *(" ".join(f"{1000 * value:.0f}" for value in row) for row in offsets[name]),
                      f"{before.mean():.1f} ({np.median(before):.1f})", f"{after.mean():.1f} ({np.median(after):.1f})")
    console.print(table)

    lenses = [Camera(Intrinsics(*row)) for row in data["intrinsics"]]
    turns = np.stack([ray_axes(lens, crop[None, :2])[0] for lens, crop in zip(lenses, data["crop"])])
    true = root_aligned(data["keypoints3d"][:, LIMBS].astype(np.float64), LIMB_HIPS)

    def score(rotations: np.ndarray, people: np.ndarray) -> dict:
        with torch.inference_mode():
            points = skeleton(torch.from_numpy(rotations), torch.from_numpy(data["regressed_betas"]))[1].numpy()[:, LIMBS] @ turns
        points = root_aligned(points.astype(np.float64), LIMB_HIPS)
        return {"mpjpe": float(mpjpe(points, true)[people].mean()), "pa_mpjpe": float(pa_mpjpe(points, true)[people].mean())}

    def refined(targets: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        return refine(data["rotations"], data["regressed_betas"], data["weak_camera"], targets, confidence)[0]

    merged, sure = data["joints"][:, 2], data["confidence"]
    shown = np.where(data["visible"], 1.0, 0.0).astype(np.float32)
    exact, ours = to_crop(data["keypoints"], data["crop"]), to_crop(merged[..., :2], data["crop"])
    ways = {
        "not refined": data["rotations"],
        "towards merged detections": refined(ours, sure),
        "towards merged detections without offsets": refined(shifted(data, merged, offsets["merged"], skeleton), sure),
        "towards true joints where detections are": refined(np.where(data["visible"][..., None], exact, ours), sure),
        "towards all visible true joints": refined(exact, shown),
    }
    table = Table("MPJPE / PA-MPJPE", "held-out half of validation", "test pictures")
    for name, rotations in ways.items():
        rows = result["refinement"][name] = {key: score(rotations, people) for key, people in (("held_out", held_out), ("test", ~validation))}
        table.add_row(name, *(f"{row['mpjpe']:.1f} / {row['pa_mpjpe']:.1f}" for row in rows.values()))
    console.print(table)
    if config.json:
        write_json(config.json, result)


if __name__ == "__main__":
    main()
