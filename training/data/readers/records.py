"""What the readers of published datasets hand on: one picture (``Frame``), one annotated person (``Record``), and what one
pass over a dataset gave, the unreadable included (``Reading``). A reader knows its own format and nothing else."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hmr_ros.body import inert_pickle
from hmr_ros.camera import Camera
from hmr_ros.skeleton import COCO_KEYPOINTS

# The 14 joints of the benchmarks, LSP's order.
J14 = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
)  # fmt: skip
# The rows of J_regressor_h36m, and of Human3.6M's 17 joints, that they are (SPIN's H36M_TO_J14).
H36M_TO_J14 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)


class Frame(NamedTuple):
    """One picture: an image file, or frame ``index`` of the video ``path``."""

    name: str
    """Unique within its dataset and the same in every run: the key in shards."""
    path: Path
    index: int = 0


@dataclass(frozen=True, eq=False)
class Record:
    """One annotated person in one picture; what a dataset does not tell is None. Metres, radians, pixels of the picture.

    Camera axes are REP-103 optical (x right, y down, z forward), which all these datasets use.
    """

    name: str  # of the person in the frame, unique within the dataset
    frame: Frame
    box: np.ndarray | None = None  # (4,) x0, y0, x1, y1
    keypoints: np.ndarray | None = None  # (17, 3) COCO: x, y, confidence
    pose: np.ndarray | None = None  # (24, 3) SMPL's axis-angle, row 0 into camera axes
    betas: np.ndarray | None = None  # (10,) of SMPL of that gender
    gender: str = "neutral"  # or male, female
    joints: np.ndarray | None = None  # (14, 3) J14 in camera axes
    root: np.ndarray | None = None  # (3,) the pelvis that belongs to them, where the dataset has one
    camera: Camera | None = None  # that took the picture
    valid: bool = True  # the dataset itself trusts it (3DPW: the camera's pose is known)


class Corrupt(NamedTuple):
    """Something that could not be read."""

    name: str
    reason: str


@dataclass
class Reading:
    """One pass over a dataset: every record is either in ``records`` or named in ``corrupt``."""

    records: list[Record] = field(default_factory=list)
    corrupt: list[Corrupt] = field(default_factory=list)


class DamagedFile(ValueError):
    """A file that is there and cannot be used; the message says what was found and what was expected."""


@dataclass(frozen=True)
class DatasetLayout:
    """How a dataset is laid out and where it comes from: the second half of every complaint about a missing file."""

    name: str
    layout: str
    ask: str

    def require(self, path: Path) -> Path:
        """``path``, or FileNotFoundError that names it, the layout and where to ask for it."""
        if not path.exists():
            raise FileNotFoundError(
                f"{self.name}: {path} is missing; expected layout: {self.layout}; ask for it at {self.ask}"
            )
        return path

    def split(self, split: str, splits: Iterable[str]) -> str:
        """``split``, or ValueError that names those there are."""
        if split not in splits:
            raise ValueError(f"{self.name} has no split {split!r}; choose one of {', '.join(splits)}")
        return split


def read_pickle(path: Path, needed: Iterable[str], optional: Iterable[str] = ()) -> dict:
    """Those entries of a pickled dict, Python 2's included, read without executing it. DamagedFile for anything else."""
    needed = tuple(needed)
    try:
        content = inert_pickle.load(path.read_bytes())
        if not isinstance(content, dict):
            raise DamagedFile(f"holds {inert_pickle.kind(content)}, expected a dict")
        wanted = {key: inert_pickle.plain(content[key]) for key in (*needed, *optional) if key in content}
    except Exception as error:  # whatever a broken or hostile pickle makes the machine stumble over
        raise DamagedFile(f"not a readable pickle ({type(error).__name__}: {error})") from error
    missing = [key for key in needed if key not in wanted]
    if missing:
        raise DamagedFile(f"{path.name} lacks {', '.join(missing)}; found {', '.join(map(str, content)) or 'nothing'}")
    return wanted


def read_npz(path: Path, needed: Iterable[str], optional: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Those arrays of an .npz, Python objects refused. DamagedFile where one is missing or unreadable."""
    needed, arrays = tuple(needed), {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in needed if key not in archive.files]
            if missing:
                raise DamagedFile(f"lacks {', '.join(missing)}; found {', '.join(archive.files) or 'nothing'}")
            for key in (*needed, *optional):
                if key in archive.files:
                    arrays[key] = archive[key]
    except DamagedFile:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, AttributeError) as error:  # AttributeError: a bare .npy
        raise DamagedFile(f"not a readable .npz of plain arrays ({type(error).__name__}: {error})") from error
    return arrays


def numbers(value, shape: tuple[int | None, ...], name: str) -> np.ndarray:
    """Finite float32 of that shape (None: any length), or DamagedFile that names what was found."""
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise DamagedFile(f"{name} is no array of numbers ({error})") from error
    if len(array.shape) != len(shape) or any(s is not None and s != f for s, f in zip(shape, array.shape)):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise DamagedFile(f"{name} has shape {array.shape}, expected ({expected})")
    if not np.isfinite(array).all():
        raise DamagedFile(f"{name} has values that are not finite")
    return array


def coco_from(points: np.ndarray, names: Iterable[str]) -> np.ndarray:
    """(K, 3) x, y, confidence of joints called ``names`` → (17, 3) in COCO's order, zero where there is none."""
    keypoints, names = np.zeros((len(COCO_KEYPOINTS), 3), np.float32), list(names)
    for row, name in enumerate(COCO_KEYPOINTS):
        if name in names:
            keypoints[row] = points[names.index(name)]
    return keypoints


def box_around(points: np.ndarray) -> np.ndarray | None:
    """(K, 3) x, y, confidence → the box (4,) of those with confidence > 0; None where fewer than two have any."""
    seen = points[points[:, 2] > 0, :2]
    return None if len(seen) < 2 else np.concatenate([seen.min(0), seen.max(0)]).astype(np.float32)
