"""How a recording's camera is mounted, where people stand before it, and how its pictures look without them.

All of it follows from the fitted bodies (teacher.py) and from the frames; nothing is asked of the user.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.geometry import rotvec_from_matrix
from hmr_ros.skeleton import SMPL_JOINTS
from hmr_ros.training.adaptation.recordings import People
from hmr_ros.training.adaptation.teacher import Labels, Rays
from hmr_ros.training.data.rendered.scene import FACING
from hmr_ros.training.data.rendered.viewpoint import Viewpoint, level

SOLE = 0.06  # metres from the lowest joint down to the floor
LEANING = 0.3  # radians: who leans more against the others has little say about the vertical
STILL = 10.0  # levels of 255: median change of the pixels, exposure aside, below which a camera is mounted, not carried
_ANKLES, _NECK = [SMPL_JOINTS.index(f"{side}_ankle") for side in ("left", "right")], SMPL_JOINTS.index("neck")


def estimate(people: People, labels: Labels, skeleton: PosedKeypoints, frames: Sequence[np.ndarray]) -> Viewpoint:
    """The viewpoint of one recording from its fitted ``people`` and from ``frames`` (H, W, 3) uint8 BGR spread over its time.

    Raises ValueError where no label is kept.
    """
    if not labels.kept.any():
        raise ValueError(f"no body of {len(people)} detections is sure enough to learn from ({labels.left_out}): record people nearer, or in better light")
    to_camera = np.swapaxes(Rays(people).axes, 1, 2)[labels.kept]
    with torch.no_grad():
        joints = skeleton(*(torch.from_numpy(values[labels.kept]) for values in (labels.rotations, labels.betas)))[0].numpy()
    joints = (joints + labels.place[labels.kept][:, None]) @ np.swapaxes(to_camera, 1, 2)
    up = vertical(joints[:, _NECK] - joints[:, _ANKLES].mean(1))
    turn = level(up)
    floor = (joints @ up).min(1) - SOLE
    pelvis = joints[:, 0] @ turn
    orient = Rotation.from_matrix((turn @ FACING).T @ to_camera @ labels.rotations[labels.kept, 0]).as_rotvec()
    poses = np.concatenate([orient[:, None], rotvec_from_matrix(labels.rotations[labels.kept])[:, 1:]], axis=1)
    plates, noise = without_people(frames, people)
    number = int(people.recording[0])
    return Viewpoint(people.cameras[number].intrinsics, tuple(map(int, people.rows["image_size"][0])), up, float(-np.median(floor)),
                     pelvis[:, [0, 2]].astype(np.float32), poses.astype(np.float32), plates, noise)  # fmt: skip


def vertical(axes: np.ndarray) -> np.ndarray:
    """The direction (3,) in which most bodies stand, of the axes (N, 3) from their feet to their necks."""
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    up = np.median(axes, axis=0)
    for _ in range(20):
        up /= np.linalg.norm(up)
        angle = np.arccos(np.clip(axes @ up, -1, 1))
        up = (axes / (1 + (angle / LEANING) ** 2)[:, None] ** 2).sum(0)
    return up / np.linalg.norm(up)


def without_people(frames: Sequence[np.ndarray], people: People) -> tuple[np.ndarray, float]:
    """Pictures without people (P, H, W, 3) and the noise of a pixel, in levels: the median over time of a camera that stands still, none of one
    that moves."""
    none = np.empty((0, *people.rows["image_size"][0], 3), np.uint8), 0.0
    if len(frames) < 3:
        return none
    stack = np.stack(frames)
    plate = np.median(stack, axis=0)
    exposure = (plate.mean() + 1) / (stack.mean((1, 2, 3)) + 1)
    change = float(np.median([np.median(np.abs(some * gain - plate)) for some, gain in zip(stack, exposure)]))
    return (plate.astype(np.uint8)[None], 1.4826 * change) if change < STILL else none
