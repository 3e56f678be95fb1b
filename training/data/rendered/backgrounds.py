"""What stands behind synthetic people: crops of photos without people, or procedural rooms where there are no photos.

Photos are split into train, validation and test by their place in the sorted list, so that a background is never seen
on both sides.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from hmr_ros.io.decode import read_picture

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
LONGEST_SIDE = 1280  # px: photos are kept in memory no larger than this


class Backgrounds:
    """Draws pictures to put people into: ``sample(rng, (H, W))`` → uint8 BGR."""

    def __init__(self, folder: Path | None = None, split: str = "train", procedural: float = 0.1):
        """``procedural``: share of pictures that use no photo; 1 where no folder is given.

        Raises ValueError for a folder without photos for the split.
        """
        self.files: list[Path] = []
        self.procedural = 1.0 if folder is None else procedural
        if folder is not None:
            if not Path(folder).is_dir():
                raise ValueError(f"the folder of backgrounds, {folder}, does not exist")
            files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
            self.files = [path for i, path in enumerate(files) if split_of_file(i) == split]
            if not self.files:
                raise ValueError(f"{folder} has {len(files)} photos, none of them for the split {split!r}; 10 suffice")

    def sample(self, rng: Generator, size: tuple[int, int], plain: bool = False) -> np.ndarray:
        """``plain`` leaves brightness and sharpness as they are (for textures of objects)."""
        if rng.random() < self.procedural:
            picture = room(rng, size)
        else:
            picture = _crop(_photo(self.files[rng.integers(len(self.files))]), rng, size)
        if plain:
            return picture
        if rng.random() < 0.35:  # out of focus
            picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.6, 4.0))
        gain, lift = rng.uniform(0.65, 1.25), rng.uniform(-12, 18)
        return cv2.convertScaleAbs(np.maximum(picture.astype(np.float32) * gain + lift, 0))


def split_of_file(index: int) -> str:
    """The split of a photo at this place of the sorted list: of every ten, one validates and one tests."""
    return {8: "val", 9: "test"}.get(index % 10, "train")


@lru_cache(maxsize=128)
def _photo(path: Path) -> np.ndarray:
    try:
        picture = read_picture(path)
    except ValueError as error:
        raise ValueError(f"{error}; remove it from the folder of backgrounds") from error
    scale = LONGEST_SIDE / max(picture.shape[:2])
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture


def _crop(photo: np.ndarray, rng: Generator, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    largest = min(photo.shape[1] / width, photo.shape[0] / height)
    scale = largest * rng.uniform(0.45, 1.0)
    w, h = max(1, int(width * scale)), max(1, int(height * scale))
    x, y = rng.integers(photo.shape[1] - w + 1), rng.integers(photo.shape[0] - h + 1)
    interpolation = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    picture = cv2.resize(photo[y : y + h, x : x + w], (width, height), interpolation=interpolation)
    return np.ascontiguousarray(picture[:, ::-1]) if rng.random() < 0.5 else picture


def room(rng: Generator, size: tuple[int, int]) -> np.ndarray:
    """A made-up place: wall, floor, boxes and lines in muted colours with some texture."""
    height, width = size
    horizon = int(height * rng.uniform(0.35, 0.85))
    picture = np.empty((height, width, 3), np.float32)
    shade = np.linspace(rng.uniform(0.7, 1.0), rng.uniform(0.8, 1.2), width, dtype=np.float32)[:, None]
    picture[:horizon] = _muted(rng) * shade
    floor_shade = np.linspace(0.75, 1.15, height - horizon, dtype=np.float32)[:, None, None]
    picture[horizon:] = _muted(rng) * floor_shade
    for _ in range(rng.integers(0, 9)):  # doors, windows, cupboards, pictures
        x, y = rng.integers(width), rng.integers(-height // 4, height)
        w, h = (int(v) for v in rng.uniform(0.05, 0.45, 2) * (width, height))
        colour = [float(v) for v in _muted(rng)]
        cv2.rectangle(picture, (int(x), int(y)), (int(x) + w, int(y) + h), colour, -1)
        if rng.random() < 0.5:
            edge = [0.6 * v for v in colour]
            cv2.rectangle(picture, (int(x), int(y)), (int(x) + w, int(y) + h), edge, int(rng.integers(1, 6)))
    for _ in range(rng.integers(0, 12)):
        ends = rng.uniform(-0.2, 1.2, (2, 2)) * (width, height)
        colour = [float(v) for v in _muted(rng)]
        cv2.line(picture, ends[0].astype(int).tolist(), ends[1].astype(int).tolist(), colour, int(rng.integers(1, 7)))
    for cells, strength in ((6, 22.0), (24, 12.0), (96, 8.0)):
        grain = rng.standard_normal((cells, cells, 1), dtype=np.float32) * (strength * rng.uniform(0, 1))
        picture += cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 1.5)), 0, 255).astype(np.uint8)


def _muted(rng: Generator) -> np.ndarray:
    grey = rng.uniform(40, 220)
    return np.clip(grey * (1 + rng.normal(0, 0.08, 3)), 0, 255).astype(np.float32)
