"""Human3.6M (Ionescu et al. 2014), Protocol 2, as it is downloaded: videos and mono 3D positions of each camera.

Trained on S1, S5, S6, S7, S8 (all four cameras), tested on S9, S11 seen by the front camera 60457274; every fifth frame of
50 a second. Positions are read with cdflib (`pip install hmr_ros[benchmarks]`); frames are named as SPIN names its pictures.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from hmr_ros.camera import Camera
from hmr_ros.geometry import Intrinsics
from hmr_ros.io.videos import VideoFile
from hmr_ros.training.data.readers.records import H36M_TO_J14, Corrupt, DamagedFile, Frame, Reading, Record, DatasetLayout

SOURCE = DatasetLayout(
    "Human3.6M",
    "S9/Videos/Directions 1.60457274.mp4 and S9/MyPoseFeatures/D3_Positions_mono/Directions 1.60457274.cdf, "
    "for S1, S5, S6, S7, S8 (train) and S9, S11 (test)",
    "http://vision.imar.ro/human3.6m/ (Videos and Poses > D3 Positions mono, of each subject)",
)
SUBJECTS = {"train": ("S1", "S5", "S6", "S7", "S8"), "test": ("S9", "S11")}
FRONT_CAMERA = "60457274"
# Of the front camera, the same for all subjects; the dataset's own calibration, as public code prints it (VideoPose3D, MIT). Coefficients
# in OpenCV's order: radial 1 and 2, tangential, radial 3.
CAMERA = Camera(
    Intrinsics(1145.51133842318, 1144.77392807652, 514.968197319863, 501.882018537695), "plumb_bob",
    (-0.198384093827848, 0.218323676298049, -0.00181336200488089, -0.000587205583421232, -0.00894780704152122),
)  # fmt: skip
STEP = 5  # 50 to 10 frames a second
# Human3.6M's 17 joints among its 32, in the order of J_regressor_h36m.
H36M_FROM_32 = (11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27)
_PICTURE = re.compile(r"(S\d+)_(.+)\.(\d+)_(\d+)")


def frames(root: Path, split: str, corrupt: list[Corrupt] | None = None) -> list[Frame]:
    """Every fifth frame of a split's videos (train, test), named like `S9_Directions_1.60457274_000001`, counted from 1.

    A video that cannot be opened is named in ``corrupt``; without that list it is an error.
    """
    found = []
    for path in _videos(Path(root), split):
        try:
            found += [_frame(path, index) for index in range(0, _length(path), STEP)]
        except DamagedFile as error:
            if corrupt is None:
                raise DamagedFile(f"Human3.6M: {path}: {error}") from error
            corrupt.append(Corrupt(f"{path.parts[-3]}/{path.stem}", str(error)))
    return found


def read(root: Path, split: str = "test") -> Reading:
    """The person of each of ``frames``: 14 joints in camera axes and the pelvis, metres. Frame i is position i.

    A video or a file of positions that cannot be read is named in ``corrupt``, and so is every frame with impossible
    positions. Raises FileNotFoundError for a missing one.
    """
    reading = Reading()
    for path in _videos(Path(root), split):
        cdf = SOURCE.require(path.parents[1] / "MyPoseFeatures" / "D3_Positions_mono" / f"{path.stem}.cdf")
        try:
            joints = read_positions(cdf)[:, list(H36M_FROM_32)]
            count = min(_length(path), len(joints))
        except DamagedFile as error:
            reading.corrupt.append(Corrupt(f"{path.parts[-3]}/{path.stem}", str(error)))
            continue
        for index in range(0, count, STEP):
            frame = _frame(path, index)
            if np.isfinite(joints[index]).all() and np.abs(joints[index]).max() < 100:
                reading.records.append(
                    Record(frame.name, frame, joints=joints[index, list(H36M_TO_J14)], root=joints[index, 0],
                           camera=CAMERA if FRONT_CAMERA in path.stem else None)
                )
            else:
                reading.corrupt.append(Corrupt(frame.name, "positions are no finite numbers below 100 m"))
    return reading


def read_positions(path: Path) -> np.ndarray:
    """One `D3_Positions_mono/*.cdf`: (frames, 32, 3) float32, camera axes, metres. DamagedFile where it is none."""
    import cdflib

    try:
        pose = cdflib.CDF(str(path)).varget("Pose")
    except Exception as error:  # cdflib raises whatever its parsing stumbles over
        raise DamagedFile(f"{path.name}: no readable CDF with a variable Pose ({type(error).__name__}: {error})") from error
    pose = np.asarray(pose, np.float32)
    if pose.ndim == 3 and len(pose) == 1:  # one record of (frames, 96)
        pose = pose[0]
    if pose.ndim != 2 or pose.shape[1] != 96 or not len(pose):
        raise DamagedFile(f"{path.name}: Pose has shape {pose.shape}, expected (frames, 96): 32 joints in millimetres")
    return pose.reshape(-1, 32, 3) / 1000


def frame_named(root: Path, name: str) -> Frame | None:
    """The frame of a video below ``root`` that SPIN calls ``name``; None where there is no such video."""
    match = _PICTURE.fullmatch(name)
    if match is None:
        return None
    subject, action, camera, number = match.groups()
    path = Path(root) / subject / "Videos" / f"{action.replace('_', ' ')}.{camera}.mp4"
    return Frame(name, path, int(number) - 1) if path.is_file() else None


def _videos(root: Path, split: str) -> list[Path]:
    SOURCE.split(split, SUBJECTS)
    found = []
    for subject in SUBJECTS[split]:
        folder = SOURCE.require(root / subject / "Videos")
        pattern = f"*.{FRONT_CAMERA}.mp4" if split == "test" else "*.mp4"
        videos = [path for path in sorted(folder.glob(pattern)) if not path.name.startswith("_ALL")]
        if not videos:
            SOURCE.require(folder / f"Directions 1.{FRONT_CAMERA}.mp4")
        found += videos
    return found


def _length(path: Path) -> int:
    try:
        count = VideoFile(path).length
    except ValueError:
        count = None
    if not count:
        raise DamagedFile("not a readable video; download it again")
    return count


def _frame(path: Path, index: int) -> Frame:
    return Frame(f"{path.parts[-3]}_{path.stem.replace(' ', '_')}_{index + 1:06d}", path, index)
