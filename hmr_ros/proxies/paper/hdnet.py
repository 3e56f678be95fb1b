"""Depth of people computed beforehand by HDNet (Jafarian & Park 2021), which needs TensorFlow 1 and runs elsewhere.

HDNet's `HDNet_Inference.py` writes `<name>.txt`: 256 lines of 256 numbers, depth about 4 + relative along the viewing
ray of a square crop around one person, and zero outside the person. `<name>.npy` of the same numbers is read as well.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from hmr_ros.geometry import crop_matrix
from hmr_ros.proxies.depth import sensor_depth, trim_depth
from hmr_ros.proxies.person import PersonProxies

_LAYOUT = (
    "<name>.txt for each picture's name, as HDNet_Inference.py writes it (or <name>.npy); "
    "https://github.com/yasaminjafarian/HDNet_TikTok (run it on the crops, with their DensePose and mask)"
)
_ASPECT = 0.02  # by which the sides' ratios of a map and its picture may differ, relative: a map may be coarser, by whole pixels


def find(root: Path, name: str) -> Path:
    """The file of a picture or person called ``name`` (slashes are folders). FileNotFoundError that says what to do."""
    for suffix in (".txt", ".npy"):
        path = Path(root) / f"{name}{suffix}"
        if path.is_file():
            return path
    raise FileNotFoundError(f"HDNet depth: {Path(root) / name}.txt is missing; expected layout: {_LAYOUT}")


def read(path: Path) -> np.ndarray:
    """One map (H, W) float32, zero where there is no depth. ValueError, named, for anything that is no depth map."""
    try:
        if path.suffix == ".npy":
            depth = np.load(path, allow_pickle=False)
        else:  # blanks at inference, commas in HDNet's own training data
            depth = np.array(
                [line.replace(",", " ").split() for line in path.read_text().splitlines() if line.strip()], np.float32
            )
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: no readable depth map ({error}); expected lines of as many numbers each") from error
    if depth.ndim != 2 or depth.dtype.kind != "f" or min(depth.shape) < 2:
        raise ValueError(f"{path}: found {depth.dtype} of shape {depth.shape}, expected floats (height, width)")
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


def with_map_of(root: Path | None, name: str, people: list[PersonProxies], shape: tuple[int, int]) -> list[PersonProxies]:
    """People of the picture called ``name``, of this shape (height, width), with the depth of its map in ``root``; as they are without a
    ``root``. The picture's ending does not count. FileNotFoundError or ValueError as :func:`find`, :func:`read` and :func:`with_map`."""
    if root is None or not people:
        return people
    stem = Path(name).with_suffix("") if "#" not in name else Path(name)  # frames of a video are called clip.mp4#000012
    depth = read(find(root, str(stem)))
    return [with_map(person, depth, *shape) for person in people]


def with_map(person: PersonProxies, depth: np.ndarray, height: int, width: int) -> PersonProxies:
    """The person with the depth of a map (h, w) that is aligned with the picture (height, width), cut out by the mask and trimmed.

    The map may be coarser or finer than the picture. ValueError for a map of another aspect, such as one of a crop (:func:`in_picture`).
    """
    if abs(depth.shape[0] * width / (depth.shape[1] * height) - 1) > _ASPECT:
        raise ValueError(
            f"depth map has {depth.shape[1]}x{depth.shape[0]} pixels, the picture {width}x{height}: expected one of the same aspect; lay a "
            "crop's map into its picture first (hmr_ros.proxies.paper.hdnet.in_picture)"
        )
    whole = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    mask = np.ones_like(person.depth) if person.mask is None else person.mask
    cut = trim_depth(sensor_depth(whole, person.crop, mask))
    mirrored = None if person.mirrored is None else replace(person.mirrored, depth=np.ascontiguousarray(cut[:, ::-1]), depth_source="hdnet")
    return replace(person, depth=cut, depth_source="hdnet", tensors=None, mirrored=mirrored)
