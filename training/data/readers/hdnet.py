"""Depth of people computed beforehand by HDNet (Jafarian & Park 2021), which needs TensorFlow 1 and runs elsewhere.

HDNet's `HDNet_Inference.py` writes `<name>.txt`: 256 lines of 256 numbers, depth about 4 + relative along the viewing
ray of a square crop around one person, and zero outside the person. `<name>.npy` of the same numbers is read as well.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hmr_ros.geometry import crop_matrix
from hmr_ros.training.data.readers.records import DamagedFile, DatasetLayout

SOURCE = DatasetLayout(
    "HDNet depth",
    "<name>.txt for each picture's name, as HDNet_Inference.py writes it (or <name>.npy)",
    "https://github.com/yasaminjafarian/HDNet_TikTok (run it on the crops, with their DensePose and mask)",
)


def find(root: Path, name: str) -> Path:
    """The file of a picture or person called ``name`` (slashes are folders). FileNotFoundError that says what to do."""
    for suffix in (".txt", ".npy"):
        path = Path(root) / f"{name}{suffix}"
        if path.is_file():
            return path
    return SOURCE.require(Path(root) / f"{name}.txt")


def read(path: Path) -> np.ndarray:
    """One map (H, W) float32, zero where there is no depth. DamagedFile, named, for anything that is no depth map."""
    try:
        if path.suffix == ".npy":
            depth = np.load(path, allow_pickle=False)
        else:  # blanks at inference, commas in HDNet's own training data
            depth = np.array(
                [line.replace(",", " ").split() for line in path.read_text().splitlines() if line.strip()], np.float32
            )
    except (ValueError, OSError, EOFError) as error:
        raise DamagedFile(f"{path}: no readable depth map ({error}); expected lines of as many numbers each") from error
    if depth.ndim != 2 or depth.dtype.kind != "f" or min(depth.shape) < 2:
        raise DamagedFile(f"{path}: found {depth.dtype} of shape {depth.shape}, expected floats (height, width)")
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def resized(depth: np.ndarray, size: int) -> np.ndarray:
    """(H, W) → (size, size), by the nearest value: a mean of depth and nothing is no depth."""
    return cv2.resize(depth, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)


def in_picture(depth: np.ndarray, crop: np.ndarray, height: int, width: int) -> np.ndarray:
    """A square map of ``crop`` (3,) cu, cv, size px, laid into the picture it was cut from: (height, width), else zero."""
    if depth.shape[0] != depth.shape[1]:
        raise ValueError(f"depth has shape {depth.shape}, expected a square: that of a crop")
    matrix = crop_matrix(np.asarray(crop, np.float32), depth.shape[0])
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(depth, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
