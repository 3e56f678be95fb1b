"""Small files in the formats that datasets are published in, for the tests of their readers."""

import cdflib.cdfwrite
import cv2
import numpy as np


def picture(path, shape=(48, 64, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(shape, 127, np.uint8))


class Call:
    """Pickled, it is a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write_video(path, count, size=(64, 48)):
    """Each frame's grey value is 2 for each frame before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 50, size)
    for index in range(count):
        writer.write(np.full((size[1], size[0], 3), 2 * index, np.uint8))
    writer.release()


def write_cdf(path, millimetres):
    """As Human3.6M writes it: one record of a variable Pose, (frames, 96)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = cdflib.cdfwrite.CDF(path)
    file.write_var(
        {"Variable": "Pose", "Data_Type": 45, "Num_Elements": 1, "Rec_Vary": True, "Dim_Sizes": list(millimetres.shape)},
        var_data=millimetres[None].astype(np.float64),
    )
    file.close()


def write_h36m(root, positions, subjects=("S9", "S11"), cameras=("60457274",), videos=12):
    for subject in subjects:
        for camera in cameras:
            name = f"Walking 1.{camera}"
            write_video(root / subject / "Videos" / f"{name}.mp4", videos)
            write_cdf(root / subject / "MyPoseFeatures" / "D3_Positions_mono" / f"{name}.cdf", positions)
