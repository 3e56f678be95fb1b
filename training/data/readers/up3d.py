"""UP-3D (Lassner et al. 2017): pictures with SMPL fits, of which training uses the pictures only.

Layout of the download (`up-3d.zip`): everything in one folder, the list in `trainval.txt`. The fits are Python 2 pickles
and are read without executing them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hmr_ros.training.data.readers.records import (
    J14,
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
    "UP-3D",
    "trainval.txt and, for each line /<number>_image.png in it, <number>_image.png, <number>_joints.npy, <number>_body.pkl",
    "https://files.is.tuebingen.mpg.de/classner/up/",
)
LISTS = {"train": ("trainval.txt",)}  # the paper trains on it and reports nothing on it


def frames(root: Path, split: str = "train") -> list[Frame]:
    """Every picture that trainval.txt lists, named by its number. FileNotFoundError for the first that is missing."""
    return [Frame(name, SOURCE.require(Path(root) / f"{name}_image.png")) for name in _names(Path(root), split)]


def read(root: Path, split: str = "train") -> Reading:
    """The person of each picture: 2D joints, SMPL pose in camera axes and shape of the neutral model."""
    root, reading = Path(root), Reading()
    for name in _names(root, split):
        frame = Frame(name, root / f"{name}_image.png")
        try:
            for path in (frame.path, root / f"{name}_joints.npy", root / f"{name}_body.pkl"):
                if not path.is_file():
                    raise DamagedFile(f"{path.name} is missing")
            points = numbers(_npy(root / f"{name}_joints.npy"), (3, len(J14)), f"{name}_joints.npy").T
            body = read_pickle(root / f"{name}_body.pkl", ("pose", "betas"))
            pose = numbers(np.ravel(body["pose"]), (72,), "pose").reshape(24, 3)
            betas = numbers(np.ravel(body["betas"])[:10], (10,), "betas")
        except DamagedFile as error:
            reading.corrupt.append(Corrupt(name, str(error)))
            continue
        reading.records.append(Record(name, frame, box_around(points), coco_from(points, J14), pose, betas))
    return reading


def _names(root: Path, split: str) -> list[str]:
    SOURCE.split(split, LISTS)
    names = []
    for list_name in LISTS[split]:
        for line in SOURCE.require(root / list_name).read_text().splitlines():
            if line.strip():  # "/00001_image.png", in some copies followed by numbers
                names.append(line.split()[0].lstrip("/").removesuffix("_image.png"))
    return names


def _npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DamagedFile(f"{path.name} is no readable .npy ({error})") from error
