"""VIBE's annotation files (Kocabas et al. 2020): `3dpw_test_db.pt` and its like, written by joblib.

A joblib file is a pickle; it is read without executing it and without joblib. Joints were regressed from the neutral SMPL
model by VIBE's own preparation. Beware of `3dpw_val_db.pt` as VIBE's script makes it: it holds the test split.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hmr_ros.body import inert_pickle
from hmr_ros.training.data.readers.records import J14, Corrupt, DamagedFile, Frame, Reading, Record, DatasetLayout, coco_from, numbers

SOURCE = DatasetLayout(
    "VIBE annotations",
    "a joblib file with vid_name, frame_id, joints3D, joints2D, shape, pose, bbox, img_name and valid (3dpw_test_db.pt), "
    "and the pictures it names below the data's folder",
    "https://github.com/mkocabas/VIBE (doc/train.md: lib/data_utils/threedpw_utils.py on the original data)",
)
NEEDED = ("vid_name", "frame_id", "joints3D", "joints2D", "shape", "pose", "bbox", "img_name", "valid")
_J14_OF_49 = slice(25, 39)  # where SPIN's 49 joints, which the training files hold, have the 14


def read(path: Path, root: Path) -> Reading:
    """Everybody in an annotation file, pictures below ``root``: `imageFiles/...` for 3DPW.

    Raises FileNotFoundError, or ValueError for a file that is none; single impossible rows are named in ``corrupt``.
    """
    path, reading = SOURCE.require(Path(path)), Reading()
    try:
        rows = _load(path)
    except DamagedFile as error:
        raise DamagedFile(f"{path}: {error}; expected {SOURCE.layout}") from error
    for index in range(len(rows["vid_name"])):
        row = {key: rows[key][index] for key in NEEDED}
        name = f"{row['vid_name']}/{int(row['frame_id']):05d}"
        try:
            reading.records.append(_record(row, name, Path(root)))
        except DamagedFile as error:
            reading.corrupt.append(Corrupt(name, str(error)))
    return reading


def _load(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        magic = file.read(2)
        if magic[:1] != b"\x80":
            raise DamagedFile(f"starts with {magic!r}, not as an uncompressed joblib file does")
        file.seek(0)
        try:
            rows = inert_pickle.load_joblib(file)
            if isinstance(rows, dict):
                rows = {key: inert_pickle.plain(rows[key]) for key in NEEDED if key in rows}
        except Exception as error:  # whatever a broken or hostile pickle makes the machine stumble over
            raise DamagedFile(f"not a readable joblib file ({type(error).__name__}: {error})") from error
    if not isinstance(rows, dict) or not set(NEEDED) <= rows.keys():
        found = ", ".join(map(str, rows)) if isinstance(rows, dict) else type(rows).__name__
        raise DamagedFile(f"holds {found}")
    lengths = {key: len(rows[key]) for key in NEEDED}
    if len(set(lengths.values())) != 1:
        raise DamagedFile(f"rows of different numbers: {lengths}")
    return rows


def _record(row: dict, name: str, root: Path) -> Record:
    parts = Path(str(row["img_name"])).parts
    if "imageFiles" in parts:  # wherever the data lay on the machine of who made the file
        parts = parts[len(parts) - 1 - parts[::-1].index("imageFiles") :]
        frame = Frame(Path(*parts[1:]).with_suffix("").as_posix(), root.joinpath(*parts))
    else:
        frame = Frame(Path(*parts[-2:]).with_suffix("").as_posix(), root / Path(*parts[-2:]))
    joints = np.asarray(row["joints3D"])
    joints = numbers(joints[_J14_OF_49] if len(joints) == 49 else joints, (len(J14), 3), "joints3D")
    centre_x, centre_y, width, height = numbers(row["bbox"], (4,), "bbox")
    half = np.array([width, height]) / 2
    if not (half > 0).all():
        raise DamagedFile(f"bbox is {width} x {height}, expected a width and height above 0")
    centre = np.array([centre_x, centre_y])
    return Record(
        name, frame, np.concatenate([centre - half, centre + half]).astype(np.float32),
        coco_from(numbers(row["joints2D"], (len(J14), 3), "joints2D"), J14),
        numbers(row["pose"], (72,), "pose").reshape(24, 3), numbers(row["shape"], (10,), "shape"),
        joints=joints, valid=bool(row["valid"]),
    )  # fmt: skip
