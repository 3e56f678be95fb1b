"""People over time as arrays, a row for each person and image, and as `.npz`: what is recorded, not smoothed, resampled or filled in.

``joints[ids == "a1b2c"]`` is one person's track. `hmr-ros image` writes the same arrays (docs/views.md lists them).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmr_ros.estimate import Bodies, BodyEstimate
from hmr_ros.files import atomic_write
from hmr_ros.io.report import printable
from hmr_ros.skeleton import COCO_KEYPOINTS, LIMB_NAMES, SMPL_JOINTS, SMPL_PARENTS

# Fields of BodyEstimate and their shapes; each is an array (N, *shape) float32 of the file.
NUMBERS = {
    "score": (), "box": (4,), "keypoints": (17, 3), "reliability": (12,), "global_orient": (3,), "body_pose": (69,), "betas": (10,),
    "crop": (3,), "weak_camera": (3,), "translation": (3,), "joints": (24, 3), "projected_keypoints": (17, 2),
}  # fmt: skip
TEXTS = ("id", "axes", "translation_source")  # (N,) texts; "" for None
NAMES = {"joint_names": SMPL_JOINTS, "parents": SMPL_PARENTS, "keypoint_names": COCO_KEYPOINTS, "reliability_names": LIMB_NAMES}
FALLBACK_RATE = 30.0  # of recordings with fewer than two images


@dataclass(frozen=True, eq=False)
class Motion:
    """``rows``: NUMBERS and TEXTS of N bodies, with ``time`` (N,) float64, the stamps in seconds, and ``frame`` (N,) int32, the images' numbers.

    ``translation`` is NaN where it is not known. Frames, units and joint orders are those of BodyEstimate. ``camera``: None, or fx, fy, cx,
    cy in pixels, width and height of the images. ``times``: stamps of all images (F,), also of those without anybody.
    """

    rows: dict[str, np.ndarray]
    times: np.ndarray
    body_model: str
    sha256: str
    reliability_source: str
    camera: tuple[float, ...] | None = None

    @property
    def ids(self) -> list[str]:
        """Of all people, in order of appearance; "" for those without an id."""
        return list(dict.fromkeys(self.rows["id"].tolist()))

    @property
    def rate(self) -> float:
        """Images a second: the median of the stamps' intervals."""
        intervals = np.diff(self.times)
        intervals = intervals[intervals > 0]
        return float(1 / np.median(intervals)) if len(intervals) else FALLBACK_RATE

    def track(self, person: str) -> Motion:
        """One person's rows, in order of time."""
        chosen = np.flatnonzero(self.rows["id"] == person)
        if not len(chosen):
            raise ValueError(f"nobody is called {person!r}, expected one of {', '.join(map(repr, self.ids)) or 'nobody at all'}")
        chosen = chosen[np.argsort(self.rows["time"][chosen], kind="stable")]
        return Motion({name: array[chosen] for name, array in self.rows.items()}, self.times, self.body_model, self.sha256,
                      self.reliability_source, self.camera)  # fmt: skip

    def at(self, frame: int) -> Bodies:
        """The bodies of image number ``frame``, without vertices and camera."""
        return Bodies(self._body(row) for row in np.flatnonzero(self.rows["frame"] == frame))

    def _body(self, row: int) -> BodyEstimate:
        values = {name: self.rows[name][row] for name in NUMBERS}
        texts = {name: str(self.rows[name][row]) for name in TEXTS}
        known = np.isfinite(values["translation"]).all()
        return BodyEstimate(**values | texts | {  # fmt: skip
            "score": float(values["score"]), "translation": values["translation"] if known else None, "vertices": np.zeros((0, 3), np.float32),
            "translation_source": texts["translation_source"] or None,
        })

    def save(self, path: str | Path) -> None:
        """One compressed `.npz`."""
        with atomic_write(path) as partial:
            np.savez_compressed(partial, **self.arrays())

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, as it stands in the file."""
        head = {"times": self.times, "body_model": np.array(self.body_model), "body_model_sha256": np.array(self.sha256),
                "reliability_source": np.array(self.reliability_source)}  # fmt: skip
        if self.camera is not None:
            head["camera"] = np.asarray(self.camera, np.float64)
        return self.rows | head | {name: np.asarray(value) for name, value in NAMES.items()}


def motion_of(frames: Iterable[tuple[int, float, Sequence[BodyEstimate]]], body_model: str, sha256: str, reliability_source: str,
              camera: tuple[float, ...] | None = None) -> Motion:  # fmt: skip
    """From (number, stamp in seconds, bodies) of each image. Without a given order they are sorted by time."""
    frames = list(frames)
    bodies = [(number, time, body) for number, time, found in frames for body in found]
    unknown = np.full(3, np.nan, np.float32)
    rows = {name: np.array([unknown if (value := getattr(body, name)) is None else value for _, _, body in bodies], np.float32).reshape(-1, *shape)
            for name, shape in NUMBERS.items()}  # fmt: skip
    rows |= {name: np.array([getattr(body, name) or "" for _, _, body in bodies], np.str_) for name in TEXTS}
    rows["time"] = np.array([time for _, time, _ in bodies], np.float64)
    rows["frame"] = np.array([number for number, _, _ in bodies], np.int32)
    return Motion(rows, np.array([time for _, time, _ in frames], np.float64), body_model, sha256, reliability_source, camera)


def load_motion(path: str | Path) -> Motion:
    """What :meth:`Motion.save` or `hmr-ros image` wrote. ValueError for anything else."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # numpy's parser raises several types for damaged bytes
        raise ValueError(f"{printable(path)} cannot be read as .npz ({error}); expected what `hmr-ros bodies` or `hmr-ros image` writes") from error
    rows, wrong = {}, []
    count = arrays["id"].shape if "id" in arrays else (0,)
    for name, shape in {**NUMBERS, **dict.fromkeys(TEXTS, ()), "time": (), "frame": ()}.items():
        found, kind = arrays.get(name), "U" if name in TEXTS else "fiu"
        if found is None or found.shape != (*count, *shape) or found.dtype.kind not in kind:
            wrong.append(f"{name} " + ("is missing" if found is None else f"is {found.dtype} {found.shape}, expected {(*count, *shape)}"))
        rows[name] = found
    wrong += [f"{name} is missing" for name in ("times", "body_model", "body_model_sha256", "reliability_source") if name not in arrays]
    if wrong:
        raise ValueError(f"{printable(path)} is no recording of bodies: {'; '.join(wrong[:3])}; expected what `hmr-ros bodies` or `hmr-ros image` "
                         "writes of a video")  # fmt: skip
    if bad := [name for name in NUMBERS if name != "translation" and not np.isfinite(rows[name]).all()]:
        raise ValueError(f"{printable(path)} has numbers in {', '.join(bad)} that are not finite, expected none but in translation")
    return Motion(rows, arrays["times"], *(str(arrays[name]) for name in ("body_model", "body_model_sha256", "reliability_source")),
                  tuple(arrays["camera"].tolist()) if "camera" in arrays else None)  # fmt: skip
