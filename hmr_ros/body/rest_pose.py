"""Whether a body model's rest pose stands as SMPL's does: in metres, y up, facing +z, left at +x, faces outwards.

A file in centimetres or with z up has the right shapes everywhere, and would give wrong distances and lying people without a word.
"""

from __future__ import annotations

import numpy as np

from hmr_ros.skeleton import SMPL_JOINTS

# Stature of a template, metres. The official ones have 1.6 to 1.8; 1.2 and 2.3 leave room for children and giants, and exclude bodies
# normalised to a height of 1 and infants (SMIL, 0.6), whose proportions no network here was trained on.
SHORTEST, TALLEST = 1.2, 2.3
# How much of each unit is a metre. No stature from 1.2 to 2.3 m is one in two of these units.
UNITS = {"centimetres": 0.01, "millimetres": 0.001, "inches": 0.0254, "feet": 0.3048}
ALONG = 0.97  # cosine above which a direction is called by an axis' name: 14 degrees, far more than a rest pose leans

_LEFT = [index for index, name in enumerate(SMPL_JOINTS) if name.startswith("left_")]
_RIGHT = [SMPL_JOINTS.index(SMPL_JOINTS[index].replace("left_", "right_")) for index in _LEFT]
_PELVIS, _HEAD = SMPL_JOINTS.index("pelvis"), SMPL_JOINTS.index("head")
_ANKLES, _FEET = ([SMPL_JOINTS.index(f"{side}_{part}") for side in ("left", "right")] for part in ("ankle", "foot"))


def faults_of_rest_pose(vertices: np.ndarray, joints: np.ndarray, faces: np.ndarray) -> list[str]:
    """What is unlike SMPL's rest pose: what was found, what is expected, what to do; empty where nothing is.

    vertices (V, 3) of the template, joints (24, 3) in SMPL's order, faces (F, 3). The origin may be anywhere.
    """
    vertices, joints = np.asarray(vertices, np.float64), np.asarray(joints, np.float64)
    with np.errstate(all="ignore"):  # of numbers so large or small that they overflow: no such body passes
        ankles = joints[_ANKLES].mean(0)
        up = _unit(joints[_HEAD] - ankles)
        forward = joints[_FEET].mean(0) - ankles
        forward = _unit(forward - (forward @ up) * up)
        left = _unit((joints[_LEFT] - joints[_RIGHT]).mean(0))
        heights = vertices @ up
        stature = float(np.ptp(heights))
        pelvis = (joints[_PELVIS] - ankles) @ up / ((joints[_HEAD] - ankles) @ up)
        corners = (vertices - vertices.mean(0))[faces]
        volume = float(np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)
        sidedness = float(np.cross(up, forward) @ left)

    faults = []
    if not SHORTEST <= stature <= TALLEST:
        unit = next((name for name, metres in UNITS.items() if SHORTEST <= stature * metres <= TALLEST), None)
        faults.append(
            f"v_template is {stature:.4g} m tall, expected {SHORTEST} to {TALLEST} m"
            + (f": if these are {unit}, multiply v_template, shapedirs and posedirs by {UNITS[unit]:g}" if unit else "")
        )
    found, expected = [_axis(direction) for direction in (up, forward, left)], ["+y", "+z", "+x"]
    if not 0.1 < pelvis < 0.9:
        faults.append("the pelvis is not between ankles and head, expected SMPL's 24 joints in SMPL's order and in its rest pose")
    elif sidedness < 0.5:
        faults.append(
            f"left and right are exchanged (up is {found[0]}, the front {found[1]}, the joints called left are at {found[2]}), expected left "
            "joints at +x: the body is mirrored, or its joints are; use SMPL's original file"
        )
    elif found != expected:
        faults.append(
            f"up is {found[0]}, the front {found[1]} and left {found[2]}, expected +y, +z and +x: use SMPL's original file, or turn the model back"
        )
    if not volume > 0:
        faults.append(f"the faces enclose {volume:.3g} m³, expected more than 0: they face inwards, reverse the corners of f")
    return faults


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector / length if 0 < length < np.inf else np.zeros(3)


def _axis(direction: np.ndarray) -> str:
    """"+y" for a direction along y, its three numbers for one along no axis."""
    largest = int(np.abs(direction).argmax())
    if abs(direction[largest]) >= ALONG:
        return "+-"[int(direction[largest] < 0)] + "xyz"[largest]
    return f"({', '.join(f'{part:.2f}' for part in direction)})"
