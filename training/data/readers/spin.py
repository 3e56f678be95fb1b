"""SPIN's annotation files (Kolotouros et al. 2019): `3dpw_test.npz`, `h36m_valid_protocol2.npz` and their like.

Made by SPIN's `datasets/preprocess/*.py` from the original data, whose pictures are still needed. Poses are in camera axes;
3DPW's frames are those with a valid camera only.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from hmr_ros.training.data.readers import human36m
from hmr_ros.training.data.readers.records import (
    J14,
    Corrupt,
    DamagedFile,
    Frame,
    Reading,
    Record,
    DatasetLayout,
    coco_from,
    numbers,
    read_npz,
)

SOURCE = DatasetLayout(
    "SPIN annotations",
    "an .npz with imgname, center, scale and pose, shape, gender (3dpw_test.npz) or S (h36m_valid_protocol2.npz), and the "
    "pictures it names below the data's folder",
    "https://github.com/nkolot/SPIN (fetch_data.sh, or its preprocess_datasets.py on the original data)",
)
_J14_FROM_24 = (*range(13), 18)  # of `S`: SPIN's 24 joints; the last is Human3.6M's head
_PELVIS_OF_24 = 14
_GENDERS = {"m": "male", "f": "female"}


def read(path: Path, root: Path) -> Reading:
    """Everybody in an annotation file, pictures below ``root`` (or, for Human3.6M, the original videos there).

    Raises FileNotFoundError, or ValueError for a file that is none; single impossible rows are named in ``corrupt``.
    """
    path, reading, seen = SOURCE.require(Path(path)), Reading(), Counter()
    try:
        rows = read_npz(path, ("imgname", "center", "scale"), ("pose", "shape", "gender", "S", "part"))
        count = len(rows["imgname"])
        short = {name: len(part) for name, part in rows.items() if len(part) != count}
        if short:
            raise DamagedFile(f"{count} pictures, but other numbers of {short}")
        if not {"pose", "shape"} <= rows.keys() and "S" not in rows:
            raise DamagedFile(f"has {', '.join(rows)}, and neither pose and shape nor S to compare with")
    except DamagedFile as error:
        raise DamagedFile(f"{path}: {error}; expected {SOURCE.layout}") from error
    for index in range(count):
        picture = rows["imgname"][index]
        picture = picture.decode() if isinstance(picture, bytes) else str(picture)
        frame = _frame(Path(root), picture)
        name = f"{frame.name}/{seen[frame.name]}"
        seen[frame.name] += 1
        try:
            reading.records.append(_record({key: part[index] for key, part in rows.items()}, frame, name))
        except DamagedFile as error:
            reading.corrupt.append(Corrupt(name, str(error)))
    return reading


def _frame(root: Path, picture: str) -> Frame:
    relative = Path(picture)
    parts = relative.parts[1:] if relative.parts[0] in ("imageFiles", "images") else relative.parts
    name = Path(*parts).with_suffix("").as_posix()
    if not (root / picture).is_file() and (in_video := human36m.frame_named(root, name)):
        return in_video
    return Frame(name, root / picture)


def _record(row: dict, frame: Frame, name: str) -> Record:
    centre, half = numbers(row["center"], (2,), "center"), 100 * float(numbers(row["scale"], (), "scale"))
    if not half > 0:
        raise DamagedFile(f"scale is {half / 100}, expected the box's side / 200, above 0")
    known: dict = {"box": np.concatenate([centre - half, centre + half])}
    if "part" in row:
        known["keypoints"] = coco_from(numbers(row["part"], (24, 3), "part"), J14)
    if "pose" in row and "shape" in row:
        known["pose"] = numbers(row["pose"], (72,), "pose").reshape(24, 3)
        known["betas"] = numbers(row["shape"], (10,), "shape")
    if "gender" in row:
        gender = row["gender"].decode() if isinstance(row["gender"], bytes) else str(row["gender"])
        if gender not in _GENDERS:
            raise DamagedFile(f"gender is {gender!r}, expected m or f")
        known["gender"] = _GENDERS[gender]
    if "S" in row:
        joints = numbers(row["S"], (24, 4), "S")
        needed = joints[[*_J14_FROM_24, _PELVIS_OF_24]]
        if not (needed[:, 3] > 0).all():
            raise DamagedFile("S lacks some of the 14 joints or the pelvis (confidence 0)")
        known |= {"joints": needed[:14, :3], "root": needed[14, :3]}
    return Record(name, frame, **known)
