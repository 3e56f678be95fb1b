"""What the published benchmarks need and nobody may redistribute: SMPL's gendered models and `J_regressor_h36m.npy`.

The user brings them; here they are found by their usual names, checked, and asked for in words where they are missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hmr_ros.body.model import BodyModel
from hmr_ros.files import require_file

# As SPIN and smplx call them, and as they are downloaded.
_NAMES = re.compile(r"smpl_(neutral|male|female)|basicmodel_(neutral|m|f)_lbs_10_207_0_v1\.\d\.\d", re.IGNORECASE)
_GENDERS = {"m": "male", "f": "female"}
WHERE_SMPL = "ask for them at https://smpl.is.tue.mpg.de (male, female) and https://smplify.is.tue.mpg.de (neutral)"
WHERE_REGRESSOR = "it is in the data that https://github.com/nkolot/SPIN fetches (fetch_data.sh), and VIBE's"


def find_models(folder: Path, genders: Iterable[str]) -> dict[str, Path]:
    """The models' files by gender (neutral, male, female). FileNotFoundError that names those missing."""
    folder, found = Path(folder), {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            match = _NAMES.fullmatch(path.stem)
            if match and path.suffix in (".pkl", ".npz"):
                name = (match[1] or match[2]).lower()
                found.setdefault(_GENDERS.get(name, name), path)
    missing = [gender for gender in genders if gender not in found]
    if missing:
        expected = ", ".join(f"SMPL_{gender.upper()}.pkl" for gender in missing)
        raise FileNotFoundError(
            f"SMPL: {folder} lacks {expected} (.npz, and the names of the downloads such as "
            f"basicModel_f_lbs_10_207_0_v1.0.0.pkl, will do); {WHERE_SMPL}"
        )
    return {gender: found[gender] for gender in genders}


def load_regressor(path: Path, body: BodyModel) -> np.ndarray:
    """`J_regressor_h36m.npy`: (17, V) float32 from the body's vertices to Human3.6M's joints.

    Raises FileNotFoundError, or ValueError for anything else than weights of 17 joints that sum to one.
    """
    vertices = len(body.smpl.v_template)
    path = require_file(path, "joint regressor", f"J_regressor_h36m.npy (17, {vertices}); {WHERE_REGRESSOR}")
    try:
        regressor = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"joint regressor {path}: no readable .npy ({error}); {WHERE_REGRESSOR}") from error
    if regressor.shape != (17, vertices) or regressor.dtype.kind != "f" or not np.isfinite(regressor).all():
        raise ValueError(
            f"joint regressor {path}: found {regressor.dtype} of shape {regressor.shape}, expected finite floats "
            f"(17, {vertices}) for {body.name}"
        )
    off = np.abs(regressor.sum(1) - 1).max()
    if off > 0.02:
        raise ValueError(f"joint regressor {path}: weights of a joint must sum to 1, found a deviation of {off:.3g}")
    return regressor.astype(np.float32)
