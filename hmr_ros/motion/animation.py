"""One person's track as an animation wants it: upright axes, a constant rate, one shape. The exact track is motion.py's.

Between two recorded poses, rotations are interpolated along the shortest arc (slerp) and positions linearly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from hmr_ros.motion.motion import Motion
from hmr_ros.skeleton import SMPL_JOINTS, SMPL_PARENTS

Up = Literal["y", "z"]
# From a camera's optical frame (x right, y down, z forward) that is held level, to axes with y up (SMPL's, +z towards the camera) or z up (AMASS's).
UPRIGHT = {"y": np.diag([1.0, -1.0, -1.0]), "z": np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])}
FROM_TARGET = {"y": np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]), "z": np.eye(3)}  # the same from a frame with z up (REP 103): odom, map
MOST_POSES = 1_000_000  # nine hours at 30 a second
GAP = 1.5  # images: a longer pause between two poses is one that is filled


@dataclass(frozen=True, eq=False)
class Animation:
    """T poses, ``rate`` a second, of somebody with constant bones; metres.

    ``rotations`` (T, 24, 3, 3): [0] turns the body model into the upright axes, the others are relative to the parent. ``offsets`` (24, 3): of
    each joint from its parent in the rest pose, the pelvis' from the body model's origin. ``pelvis`` (T, 3): its position. ``betas`` (10,).
    ``notes``: what was filled in or assumed, in words.
    """

    person: str
    rate: float
    rotations: np.ndarray
    offsets: np.ndarray
    pelvis: np.ndarray
    betas: np.ndarray
    notes: list[str]


def animation_of(motion: Motion, person: str, up: Up = "y", rate: float | None = None) -> Animation:
    """``person``'s track at ``rate`` (the recording's). ValueError where two of their bodies have the same stamp, or stand in frames that do not go together.

    Bones come from the recorded joints: turned back by the pose they are those of the rest pose, for any body model.
    """
    track = motion.track(person)
    rows, notes = track.rows, []
    times = rows["time"] - rows["time"][0]
    if (np.diff(times) <= 0).any():
        raise ValueError(f"{person or 'somebody without an id'} has several bodies with one stamp, expected one a person and image: record with "
                         "tracking, so that everybody has an id of their own")  # fmt: skip
    rate = rate or motion.rate
    if times[-1] * rate > MOST_POSES:
        raise ValueError(f"{person or 'somebody without an id'} was seen from {rows['time'][0]:.1f} to {rows['time'][-1]:.1f} s, which at {rate:.4g} a second "
                         f"is more than {MOST_POSES} poses: the stamps jump, expected those of one clock")  # fmt: skip
    pose = np.concatenate([rows["global_orient"], rows["body_pose"]], 1).reshape(-1, 24, 3).astype(np.float64)
    rotations = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    bones = _bones(rotations, rows["joints"].astype(np.float64))
    offsets = bones.mean(0)
    if (spread := float(np.linalg.norm(bones - offsets, axis=-1).max())) > 1e-3:
        notes.append(f"bones differ by up to {1e3 * spread:.0f} mm from image to image: their mean is taken")
    axes = np.unique(rows["axes"])
    if "target" in axes and len(axes) > 1:
        raise ValueError(f"the bodies of {person or 'somebody without an id'} stand in axes {' and '.join(axes)}, expected the same ones all the time: export parts "
                         "of the recording")  # fmt: skip
    upright = (FROM_TARGET if axes[0] == "target" else UPRIGHT)[up]
    if len(axes) > 1 or axes[0] == "ray":
        notes.append(f"axes are {' and '.join(axes)}, not the camera's: the person may lean by up to half the field of view")
    positions = rows["translation"].astype(np.float64)
    known = np.isfinite(positions).all(1)
    if not known.all():
        notes.append(f"{(~known).sum()} of {len(known)} poses have no position: the person is kept where they were last" if known.any()
                     else "no pose has a position (no CameraInfo was there): the person stays at the origin")  # fmt: skip
    pelvis = rows["joints"][:, 0].astype(np.float64) + _filled(positions, known)
    rotations[:, 0] = upright @ rotations[:, 0]
    pelvis = pelvis @ upright.T
    gaps = np.diff(times) * rate
    if (filled := gaps > GAP).any():
        notes.append(f"{filled.sum()} pauses filled in between, the longest {gaps.max() / rate:.1f} s")
    wanted = np.arange(int(np.floor(times[-1] * rate + 0.5)) + 1) / rate
    return Animation(person, rate, *_resampled(times, rotations, offsets, pelvis, np.clip(wanted, 0, times[-1])), rows["betas"].mean(0), notes)


def _bones(rotations: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """(T, 24, 3) offsets from the parent in the rest pose; of the pelvis, which the body turns about, its place itself."""
    world, bones = [rotations[:, 0]], [joints[:, 0]]
    for joint in range(1, len(SMPL_JOINTS)):
        parent = SMPL_PARENTS[joint]
        bones.append(np.einsum("tji,tj->ti", world[parent], joints[:, joint] - joints[:, parent]))
        world.append(world[parent] @ rotations[:, joint])
    return np.stack(bones, 1)


def _filled(positions: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Unknown positions replaced by the known one before (or the first); the origin where none is known."""
    if not known.any():
        return np.zeros_like(positions)
    last = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))
    return positions[np.where(last < 0, np.argmax(known), last)]


def _resampled(times: np.ndarray, rotations: np.ndarray, offsets: np.ndarray, pelvis: np.ndarray, wanted: np.ndarray):
    """rotations, offsets and pelvis at the times ``wanted``."""
    if len(times) == 1:
        return np.repeat(rotations, len(wanted), 0), offsets, np.repeat(pelvis, len(wanted), 0)
    turned = [Slerp(times, Rotation.from_matrix(rotations[:, joint]))(wanted).as_matrix() for joint in range(rotations.shape[1])]
    moved = [np.interp(wanted, times, pelvis[:, axis]) for axis in range(3)]
    return np.stack(turned, 1), offsets, np.stack(moved, 1)
