"""How a recording's camera is mounted, where people stand before it, and how its pictures look without them.

All of it follows from the detected joints, the fitted bodies (teacher.py) and the frames; nothing is asked of the user.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.geometry import rotvec_from_matrix
from hmr_ros.skeleton import SMPL_JOINTS
from hmr_ros.training.adaptation.recordings import People
from hmr_ros.training.adaptation.teacher import Labels, Rays
from hmr_ros.training.data.rendered.scene import FACING
from hmr_ros.training.data.rendered.viewpoint import Viewpoint, level

SOLE = 0.06  # metres from the lowest joint down to the floor
ANKLE = 0.09  # metres of a standing person's ankles above the floor
STRAIGHT = 0.95  # share of the way along hips and knees that lies between the shoulders and the ankles of who stands straight
POLES = 30  # people who stand straight, from so many on their ankles and shoulders tell the vertical
SEEN = 0.3  # confidence of their detected joints
PIXEL = 0.012  # of a direction's x/z and y/z: how far a detected joint lies from where a straight pole would have it
LEANING = 0.3  # radians: who leans more against the others has little say about the vertical
STILL = 10.0  # levels of 255: median change of the pixels, exposure aside, below which a camera is mounted, not carried
_SHOULDERS, _HIPS, _KNEES, _FEET = (5, 6), (11, 12), (13, 14), (15, 16)  # COCO
_ANKLES, _NECK = [SMPL_JOINTS.index(f"{side}_ankle") for side in ("left", "right")], SMPL_JOINTS.index("neck")


def estimate(people: People, labels: Labels, skeleton: PosedKeypoints, frames: Sequence[np.ndarray]) -> Viewpoint:
    """The viewpoint of one recording from its fitted ``people`` and from ``frames`` (H, W, 3) uint8 BGR spread over its time.

    Raises ValueError where no label is kept.
    """
    if not labels.kept.any():
        raise ValueError(f"no body of {len(people)} detections is sure enough to learn from ({labels.left_out}): record people nearer, or in better light")
    rays, kept = Rays(people), labels.kept
    to_camera = np.swapaxes(rays.axes, 1, 2)[kept]
    with torch.no_grad():
        joints, keypoints = (some.numpy() for some in skeleton(*(torch.from_numpy(values[kept]) for values in (labels.rotations, labels.betas))))
    joints = (joints + labels.place[kept][:, None]) @ np.swapaxes(to_camera, 1, 2)
    up = standing = vertical(joints[:, _NECK] - joints[:, _ANKLES].mean(1))
    height = -float(np.median((joints @ up).min(1) - SOLE))
    detected = people.rows["keypoints"][kept]
    directions, known = rays.in_camera(people.rows["keypoints"][..., :2])
    length, straight = _stretched(keypoints)
    chosen = straight & (known[kept] & (detected[..., 2] > SEEN))[:, [*_SHOULDERS, *_FEET]].all(1)
    if chosen.sum() >= POLES:
        feet, shoulders = (directions[kept][chosen][:, which, :2].mean(1) for which in (_FEET, _SHOULDERS))
        up, height = poles(feet, shoulders, length[chosen], up, height)
    pelvis = joints[:, 0] @ level(up)
    # Where all bodies lean against the vertical it is the lifter that leans them.
    orient = Rotation.from_matrix((level(standing) @ FACING).T @ to_camera @ labels.rotations[kept, 0]).as_rotvec()
    poses = np.concatenate([orient[:, None], rotvec_from_matrix(labels.rotations[kept])[:, 1:]], axis=1)
    plates, noise = without_people(frames, people)
    number = int(people.recording[0])
    return Viewpoint(people.cameras[number].intrinsics, tuple(map(int, people.rows["image_size"][0])), up, height,
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


def poles(feet: np.ndarray, shoulders: np.ndarray, lengths: np.ndarray, up: np.ndarray, height: float) -> tuple[np.ndarray, float]:
    """The vertical (3,) and the camera's height above the floor, from people who stand straight: upright poles on one floor. Their pixels tell it, whatever
    the lifter says of how bodies lean (Lv et al. 2006, "Camera calibration from video of a walking human").

    ``feet``, ``shoulders`` (N, 2): directions to their middles, x/z and y/z; ``lengths`` (N,) metres between these; ``up`` and ``height``: where to start.
    """
    start, seen = level(up), np.stack([feet, shoulders], axis=1)

    def turn_of(angles: np.ndarray) -> np.ndarray:
        return Rotation.from_rotvec(start[:, [0, 2]] @ angles).as_matrix() @ start

    def residuals(parameters: np.ndarray) -> np.ndarray:
        turn = turn_of(parameters[:2])
        down = np.exp(parameters[2]) - ANKLE - np.stack([np.zeros_like(lengths), lengths], axis=1)  # (N, 2) metres, of both ends below the camera
        across = turn[:2] - seen[..., None] * turn[2]  # (N, 2, 2, 3): across @ point is 0 where the point is seen
        A, b = across[..., [0, 2]].reshape(-1, 4, 2), (-across[..., 1] * down[..., None]).reshape(-1, 4, 1)
        place = np.linalg.pinv(A) @ b  # where each stands: what fits best
        points = np.stack(np.broadcast_arrays(place[:, :1, 0], down, place[:, 1:, 0]), axis=-1) @ turn.T
        return ((points[..., :2] / np.maximum(points[..., 2:], 0.05) - seen) / PIXEL).ravel()

    found = least_squares(residuals, [0.0, 0.0, np.log(max(height, 2 * ANKLE))], loss="soft_l1").x
    return -turn_of(found[:2])[:, 1], float(np.exp(found[2]))


def _stretched(keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of bodies' COCO keypoints (N, 17, 3): metres from the ankles to the shoulders (N,), and whether legs and trunk are straight (N,) bool."""
    shoulders, hips, feet = (keypoints[:, which].mean(1) for which in (_SHOULDERS, _HIPS, _FEET))
    length = np.linalg.norm(shoulders - feet, axis=1)
    legs = np.linalg.norm(np.diff(keypoints[:, [_HIPS, _KNEES, _FEET]], axis=1), axis=-1).sum(1).mean(1)
    return length, length > STRAIGHT * (np.linalg.norm(shoulders - hips, axis=1) + legs)


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
