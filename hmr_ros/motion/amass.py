"""AMASS-style `.npz` (Mahmood et al. 2019), for learning tools: poses, trans, betas, mocap_framerate, gender of one person.

SMPL+H's layout as in AMASS: 52 joints of which the hands' 30 are zero. Axes are SMPL's, y up (or z up, as AMASS itself has them).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from hmr_ros.files import atomic_write
from hmr_ros.motion.animation import Animation

BODY_JOINTS, JOINTS = 22, 52  # of SMPL+H: the body's without hands, and all
BETAS, DMPLS = 16, 8


def write_amass(path: str | Path, animation: Animation, body_model: str, sha256: str) -> None:
    """``betas`` belong to the body model that is named in the file; SMPL+H's fingers have no part in SMPL's hand joints, which are left out."""
    count = len(animation.rotations)
    poses = np.zeros((count, JOINTS, 3))
    poses[:, :BODY_JOINTS] = Rotation.from_matrix(animation.rotations[:, :BODY_JOINTS].reshape(-1, 3, 3)).as_rotvec().reshape(count, BODY_JOINTS, 3)
    betas = np.zeros(BETAS)
    betas[: len(animation.betas)] = animation.betas
    with atomic_write(path) as partial:
        np.savez_compressed(
            partial, poses=poses.reshape(count, -1), trans=animation.pelvis - animation.offsets[0], betas=betas, dmpls=np.zeros((count, DMPLS)),
            mocap_framerate=np.array(animation.rate), gender=np.array(gender_of(body_model)), body_model=np.array(body_model),
            body_model_sha256=np.array(sha256),
        )  # fmt: skip


def gender_of(body_model: str) -> str:
    """"female", "male" or "neutral", by the name of the body model's file, as SMPL's are called."""
    name = body_model.lower()
    return "female" if "female" in name or name.endswith("_f") else "male" if "male" in name or name.endswith("_m") else "neutral"
