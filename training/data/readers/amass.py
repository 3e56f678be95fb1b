"""AMASS (Mahmood et al. 2019): motion capture as SMPL-H poses, for the pose prior. Poses only, no pictures.

Layout of the downloads: `<dataset>/<subject>/<motion>_poses.npz` (SMPL+H) below one folder. AMASS has z up; what is
handed on has y up, like the embedded clips (poses.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from hmr_ros.training.data.readers.records import Corrupt, DamagedFile, DatasetLayout, numbers, read_npz

SOURCE = DatasetLayout("AMASS", "<dataset>/<subject>/<motion>_poses.npz (SMPL+H)", "https://amass.is.tue.mpg.de/")
BODY_JOINTS = 22  # the pelvis and 21 joints that SMPL and SMPL-H share; after them SMPL has two hands, SMPL-H fingers
FRAME_RATES = ("mocap_framerate", "mocap_frame_rate")
_Z_TO_Y_UP = Rotation.from_rotvec([-np.pi / 2, 0, 0])


def clips(root: Path, rate: float = 10.0, corrupt: list[Corrupt] | None = None) -> dict[str, np.ndarray]:
    """Every motion below ``root`` at about ``rate`` frames a second: name → (N, 24, 3) float32 axis-angle, y up.

    Hands are flat (zero). Motions that cannot be read are named in ``corrupt``; without that list the first of them is
    a ValueError, so that none gets lost. Raises FileNotFoundError where there is not one motion.
    """
    root = Path(root)
    paths = [path for path in sorted(SOURCE.require(root).rglob("*.npz")) if path.stem not in ("shape", "neutral_stagei")]
    if not paths:
        SOURCE.require(root / "<dataset>" / "<subject>" / "<motion>_poses.npz")
    found = {}
    for path in paths:
        name = path.relative_to(root).with_suffix("").as_posix()
        try:
            found[name] = read_clip(path, rate)
        except DamagedFile as error:
            if corrupt is None:
                raise DamagedFile(f"AMASS: {path}: {error}") from error
            corrupt.append(Corrupt(name, str(error)))
    return found


def read_clip(path: Path, rate: float = 10.0) -> np.ndarray:
    """One motion (N, 24, 3). DamagedFile for a file that is none."""
    arrays = read_npz(path, ("poses",), FRAME_RATES)
    poses = numbers(arrays["poses"], (None, None), "poses")
    if poses.shape[1] < 3 * BODY_JOINTS or poses.shape[1] % 3 or not len(poses):
        raise DamagedFile(f"poses has shape {poses.shape}, expected (frames, 156) of SMPL+H or (frames, 72) of SMPL")
    recorded = next((float(arrays[key]) for key in FRAME_RATES if key in arrays), None)
    if recorded is None or not recorded > 0:
        raise DamagedFile(f"mocap_framerate is {recorded}, expected frames a second")
    poses = poses[:: max(1, round(recorded / rate)), : 3 * BODY_JOINTS].reshape(-1, BODY_JOINTS, 3)
    root = (_Z_TO_Y_UP * Rotation.from_rotvec(poses[:, 0])).as_rotvec()
    hands = np.zeros((len(poses), 24 - BODY_JOINTS, 3))
    return np.concatenate([root[:, None], poses[:, 1:], hands], 1).astype(np.float32)
