"""3DPW (von Marcard et al. 2018) as it is downloaded: `sequenceFiles/<split>/*.pkl` and `imageFiles/<sequence>/*.jpg`.

Poses come in world axes and are turned into the camera's by `cam_poses`, as SPIN and VIBE do it. The pickles are read
without executing them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hmr_ros.camera import Camera
from hmr_ros.geometry import Intrinsics, matrix_from_rotvec, rotvec_from_matrix
from hmr_ros.training.data.readers.records import (
    Corrupt,
    DamagedFile,
    Frame,
    Reading,
    Record,
    DatasetLayout,
    box_around,
    coco_from,
    numbers,
    read_pickle,
)

SOURCE = DatasetLayout(
    "3DPW",
    "sequenceFiles/<train|validation|test>/<sequence>.pkl and imageFiles/<sequence>/image_00000.jpg",
    "https://virtualhumans.mpi-inf.mpg.de/3DPW/",
)
NEEDED = ("poses", "betas", "genders", "poses2d", "cam_poses", "campose_valid")
SPLITS = ("train", "validation", "test")
# poses2d: OpenPose's 18 joints.
OPENPOSE = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear",
    "left_ear",
)  # fmt: skip
GENDERS = {"m": "male", "f": "female"}


def frames(root: Path, split: str) -> list[Frame]:
    """Every picture of a split (train, validation, test), sequence by sequence, named `<sequence>/image_00000`."""
    found = []
    for path in _sequences(Path(root), split):
        folder = SOURCE.require(Path(root) / "imageFiles" / path.stem)
        pictures = sorted(folder.glob("image_*.jpg"))
        if not pictures:
            SOURCE.require(folder / "image_00000.jpg")
        found += [Frame(f"{path.stem}/{picture.stem}", picture) for picture in pictures]
    return found


def read(root: Path, split: str = "test") -> Reading:
    """Everybody in every frame of a split, frames without a valid camera pose (``valid``) included.

    A sequence that cannot be read, a person of one, or a single frame with impossible numbers is named in ``corrupt``.
    Raises FileNotFoundError where a folder of the layout, or the pictures of a sequence, are missing.
    """
    reading = Reading()
    for path in _sequences(Path(root), split):
        folder = SOURCE.require(Path(root) / "imageFiles" / path.stem)
        try:
            content = read_pickle(path, NEEDED, ("jointPositions", "cam_intrinsics"))
            people, lens = range(len(content["poses"])), _camera(content)
            cameras = np.asarray(content["cam_poses"], np.float32)
            if cameras.ndim != 3 or cameras.shape[1:] != (4, 4):
                raise DamagedFile(f"cam_poses has shape {cameras.shape}, expected (frames, 4, 4)")
        except (DamagedFile, TypeError, ValueError) as error:
            reading.corrupt.append(Corrupt(path.stem, str(error)))
            continue
        for person in people:
            try:
                _read_person(content, cameras, lens, person, path.stem, folder, reading)
            except (DamagedFile, IndexError, TypeError, ValueError) as error:
                reading.corrupt.append(Corrupt(f"{path.stem}, person {person}", str(error)))
    return reading


def _sequences(root: Path, split: str) -> list[Path]:
    SOURCE.split(split, SPLITS)
    folder = SOURCE.require(root / "sequenceFiles" / split)
    paths = sorted(folder.glob("*.pkl"))
    if not paths:
        SOURCE.require(folder / "<sequence>.pkl")
    return paths


def _camera(content: dict) -> Camera | None:
    """The pictures' camera, which 3DPW gives without distortion; None where the file does not tell."""
    if "cam_intrinsics" not in content:
        return None
    matrix = numbers(np.asarray(content["cam_intrinsics"]), (3, 3), "cam_intrinsics").astype(float)
    return Camera(Intrinsics(*matrix[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()))


def _read_person(
    content: dict, cameras: np.ndarray, lens: Camera | None, person: int, sequence: str, folder: Path, reading: Reading
) -> None:
    count = len(cameras)
    poses = np.array(content["poses"][person], np.float32)
    openpose = np.array(content["poses2d"][person], np.float32)  # (frames, 3, 18)
    if poses.shape != (count, 72) or openpose.shape != (count, 3, len(OPENPOSE)):
        raise DamagedFile(
            f"poses {poses.shape} and poses2d {openpose.shape}, expected ({count}, 72) and "
            f"({count}, 3, 18) for {count} cameras"
        )
    betas = numbers(np.asarray(content["betas"][person]).reshape(-1)[:10], (10,), "betas")
    valid = np.asarray(content["campose_valid"][person]).astype(bool)
    if valid.shape != (count,):
        raise DamagedFile(f"campose_valid has shape {valid.shape}, expected ({count},)")
    gender = str(content["genders"][person])
    if gender not in GENDERS:
        raise DamagedFile(f"gender is {gender!r}, expected m or f")
    openpose = openpose.transpose(0, 2, 1)
    projected = _projected(content, cameras, person)
    finite = [np.isfinite(part.reshape(count, -1)).all(1) for part in (poses, cameras, openpose)]
    usable = np.logical_and.reduce(finite) & (np.abs(poses) < 1e3).all(1)
    for index in np.flatnonzero(~usable):
        reading.corrupt.append(
            Corrupt(f"{sequence}/image_{index:05d}/{person}", "pose, camera or 2D joints are no finite numbers")
        )
    chosen = np.flatnonzero(usable)
    if not len(chosen):
        return
    turned = matrix_from_rotvec(poses[chosen, :3])
    poses[chosen, :3] = rotvec_from_matrix(cameras[chosen, :3, :3] @ turned)
    for index in chosen:
        name = f"{sequence}/image_{index:05d}"
        box = box_around(openpose[index])
        if box is None and projected is not None:  # nothing was detected when the dataset was made: where the body is
            box = box_around(projected[index])
        reading.records.append(
            Record(
                f"{name}/{person}", Frame(name, folder / f"image_{index:05d}.jpg"), box,
                coco_from(openpose[index], OPENPOSE), poses[index].reshape(24, 3), betas, GENDERS[gender],
                camera=lens, valid=bool(valid[index]),
            )
        )  # fmt: skip


def _projected(content: dict, cameras: np.ndarray, person: int) -> np.ndarray | None:
    """SMPL's joints in the picture (frames, 24, 3: x, y, 1 where they are before the camera); None where not told."""
    if "jointPositions" not in content or "cam_intrinsics" not in content:
        return None
    joints = np.asarray(content["jointPositions"][person], np.float32).reshape(-1, 24, 3)
    if len(joints) != len(cameras):
        return None
    seen = joints @ cameras[:, :3, :3].transpose(0, 2, 1) + cameras[:, None, :3, 3]
    with np.errstate(all="ignore"):
        pixels = (seen @ np.asarray(content["cam_intrinsics"], np.float32).T)[..., :2] / seen[..., 2:]
    before = (seen[..., 2:] > 0) & np.isfinite(pixels).all(-1, keepdims=True)
    return np.concatenate([np.where(before, pixels, 0), before], -1).astype(np.float32)
