"""Biovision Hierarchy (.bvh), for animation tools: the body model's skeleton and one person's poses.

Centimetres, y up, the rest pose is the body model's T-pose. Rotations are Z, X, Y (R = Rz Rx Ry), degrees, as most tools write them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from hmr_ros.files import atomic_write
from hmr_ros.motion.animation import Animation
from hmr_ros.skeleton import SMPL_JOINTS, SMPL_PARENTS

CENTIMETRES = 100.0
TIP = 0.4  # length of a hand, foot or head behind its joint, as a share of the bone before
ORDER = "ZXY"
POSITION = "Xposition Yposition Zposition"
ROTATION = " ".join(f"{axis}rotation" for axis in ORDER)


def write_bvh(path: str | Path, animation: Animation) -> None:
    """``animation`` must be y up."""
    order = list(_depth_first(0))
    angles = _euler(animation.rotations[:, order])
    offsets = CENTIMETRES * animation.offsets
    lines = ["HIERARCHY", *_joint(0, offsets, 0), "MOTION", f"Frames: {len(angles)}", f"Frame Time: {1 / animation.rate:.8f}"]
    moved = CENTIMETRES * animation.pelvis
    for place, turned in zip(moved, angles):
        lines.append(" ".join(f"{value:.6f}" for value in (*place, *turned.ravel())))
    with atomic_write(path) as partial:
        partial.write_text("\n".join(lines) + "\n")


def _depth_first(joint: int):
    """A joint and those below it, in the order of the file."""
    yield joint
    for child in _children(joint):
        yield from _depth_first(child)


def _children(joint: int) -> list[int]:
    return [child for child, parent in enumerate(SMPL_PARENTS) if parent == joint]


def _joint(joint: int, offsets: np.ndarray, depth: int) -> list[str]:
    indent, children = "  " * depth, _children(joint)
    offset = np.zeros(3) if joint == 0 else offsets[joint]  # the root's channels hold its whole position
    channels = f"CHANNELS 6 {POSITION} {ROTATION}" if joint == 0 else f"CHANNELS 3 {ROTATION}"
    lines = [f"{indent}{'JOINT' if joint else 'ROOT'} {SMPL_JOINTS[joint]}", f"{indent}{{", f"{indent}  OFFSET {_numbers(offset)}",
             f"{indent}  {channels}"]  # fmt: skip
    for child in children:
        lines += _joint(child, offsets, depth + 1)
    if not children:
        lines += [f"{indent}  End Site", f"{indent}  {{", f"{indent}    OFFSET {_numbers(TIP * offset)}", f"{indent}  }}"]
    return [*lines, f"{indent}}}"]


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.6f}" for value in values)


def _euler(rotations: np.ndarray) -> np.ndarray:
    """(T, J, 3, 3) → degrees (T, J, 3) in ORDER, without jumps of 360° from frame to frame.

    Where X is at ±90° the other two turn about one axis: any pair with their sum does, and the reader gets the same rotation.
    """
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gimbal lock")
        angles = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_euler(ORDER).reshape(*rotations.shape[:2], 3)
    return np.degrees(np.unwrap(angles, axis=0))
