"""Proxies and truth on disk: numbered npz shards, ``proxies-00012.npz`` for what the detectors said and
``truth-00012.npz`` for what was really there. Self-supervised training opens the first kind only. Beside the truth,
``activations-00012.npy`` (n, 2, *FEATURE_MAP) float16: the landmark network's, of the plain and the mirrored look, 90 KB a person.

Row i of a truth shard belongs to row i of its proxies shard and of its activations. People whom the detectors missed are in the
truth alone, under the same names with ``missed_`` before them.

Proxies: ``index`` (n,) picture, ``image_size`` (n, 2: H, W), ``score`` (n,), ``box`` (n, 4), ``keypoints`` (n, 17, 3),
``crop`` (n, 3), ``mask`` (n, 64, 64) uint8 of 255, ``depth`` (n, 64, 64) float16 metres, ``agreed`` (n,) bool, ``landmarks``
(n, 33, 4), ``world`` (n, 33, 3), ``region`` (n, 4), ``appearance`` (n, 1152) float16. Where they are known: ``sensor_depth``
(n, 64, 64) float16 metres, what a depth camera's image would have given in the place of ``depth``; ``mirrored_landmarks``
and so on, of a second look in a mirror; ``name`` (n,) str, the picture. Beside them ``images`` (2,), the shard's pictures.

Truth: ``pose`` (n, 24, 3) axis-angle with row 0 into camera axes, ``ray_orient`` (n, 3) row 0 into ray axes,
``ray_rotation`` (n, 3, 3) camera axes to ray axes, ``betas`` (n, 10), ``translation`` (n, 3), ``intrinsics`` (n, 4),
``keypoints2d`` (n, 17, 2) px, ``visible`` (n, 17) bool, ``visible_fraction`` (n,), ``joints`` (n, 24, 3) and ``keypoints3d``
(n, 17, 3) metres in ray axes as the body model gives them for ``ray_orient``, ``category``, ``clip`` (n,) str, ``people``
(n,) in the picture, ``cut``, ``occluded`` (n,) bool, ``index`` (n,).

Ray axes are camera axes turned (the shortest way) so that z passes through the centre of the crop: a regressor that sees
the crop only cannot know more.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation

from hmr_ros.files import atomic_write
from hmr_ros.geometry import Intrinsics, square_crop
from hmr_ros.networks.paper.maps import MAP_SIZE
from hmr_ros.proxies import FEATURE_MAP, PersonProxies
from hmr_ros.proxies.depth import sensor_depth, trim_depth
from hmr_ros.training.data.rendered.scene import PersonTruth, Scene

MATCH = 0.15  # of the true person's diagonal: a detection whose confident joints are further off is of somebody else
NOT_ROWS = ("images", "ghosts", "unreadable", "reasons", "backend")  # of a shard as a whole

Rows = dict[str, list]


def ray_rotation(centre: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """Camera axes → ray axes (3, 3): the shortest turn that puts the ray through a pixel (2,) on the z axis."""
    fx, fy, cx, cy = intrinsics
    ray = np.array([(centre[0] - cx) / fx, (centre[1] - cy) / fy, 1.0])
    axis = np.array([ray[1], -ray[0], 0.0])
    sine = np.linalg.norm(axis)
    angle = np.arctan2(sine, 1.0)
    return Rotation.from_rotvec(axis * (angle / max(sine, 1e-12))).as_matrix()


def match(detected: list[PersonProxies], true: list[PersonTruth]) -> list[tuple[int, int]]:
    """Pairs (detection, person): each at most once, by the median distance of confident joints."""
    if not detected or not true:
        return []
    costs = np.empty((len(detected), len(true)))
    for i, proxy in enumerate(detected):
        confident = proxy.keypoints[:, 2] > 0.2
        for j, person in enumerate(true):
            distances = np.linalg.norm(proxy.keypoints[confident, :2] - person.keypoints[confident], axis=1)
            diagonal = np.linalg.norm(person.box[2:] - person.box[:2])
            costs[i, j] = np.median(distances) / diagonal if confident.any() else np.inf
    costs = np.minimum(costs, 1e3)
    return [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(costs), strict=True) if costs[i, j] < MATCH]


class ShardWriter:
    """Collects the rows of one shard, of people who were looked at in a mirror, too; ``save`` writes all its files atomically, the
    proxies last."""

    def __init__(self):
        self.proxies: Rows = {}
        self.truth: Rows = {}
        self.activations: list[np.ndarray] = []
        self.ghosts = 0  # detections of nobody

    def add(self, index: int, scene: Scene, detected: list[PersonProxies]) -> None:
        pairs = match(detected, scene.people)
        self.ghosts += len(detected) - len(pairs)
        for i, j in sorted(pairs, key=lambda pair: pair[1]):
            add_row(self.proxies, proxy_row(index, scene.image.shape[:2], detected[i], scene.depth))
            add_row(self.truth, _truth_row(index, scene, scene.people[j], detected[i].crop))
            maps = [person.blazepose.feature_map for person in (detected[i], detected[i].mirrored)]
            self.activations.append(np.stack(maps).astype(np.float16))
        found = {j for _, j in pairs}
        for j, person in enumerate(scene.people):
            if j not in found:
                row = _truth_row(index, scene, person, square_crop(person.box))
                add_row(self.truth, {f"missed_{name}": value for name, value in row.items()})

    def save(self, folder: Path, shard: int, images: range) -> None:
        span = np.array([images.start, images.stop])
        with atomic_write(activations_path(folder, shard)) as partial:
            np.save(partial, np.stack(self.activations) if self.activations else np.empty((0, 2, *FEATURE_MAP), np.float16))
        _save(truth_path(folder, shard), {**_stack(self.truth), "images": span})
        save_proxies(folder, shard, images, self.proxies, ghosts=np.array(self.ghosts))


def add_row(rows: Rows, row: dict[str, object]) -> None:
    """One person more; every row of a shard has the same names."""
    for name, value in row.items():
        rows.setdefault(name, []).append(value)


def save_proxies(folder: Path, shard: int, images: range, rows: Rows, **extra: np.ndarray) -> None:
    """Write a proxies shard atomically; ``extra`` (names of NOT_ROWS) is about the shard as a whole."""
    _save(proxies_path(folder, shard), {**_stack(rows), "images": np.array([images.start, images.stop]), **extra})


def proxies_path(folder: Path, shard: int) -> Path:
    return Path(folder) / f"proxies-{shard:05d}.npz"


def truth_path(folder: Path, shard: int) -> Path:
    return Path(folder) / f"truth-{shard:05d}.npz"


def activations_path(folder: Path, shard: int) -> Path:
    return Path(folder) / f"activations-{shard:05d}.npy"


def is_complete(folder: Path, shard: int, images: range, truth: bool = True) -> bool:
    """The shard is there, for exactly these pictures: all its files, or the proxies alone where there is no ``truth``."""
    paths = [proxies_path(folder, shard)] + ([truth_path(folder, shard)] if truth else [])
    complete = all(path.is_file() and _span(path) == [images.start, images.stop] for path in paths)
    return complete and (not truth or activations_path(folder, shard).is_file())


def load_proxies(folder: Path | str) -> dict[str, np.ndarray]:
    """All rows of the proxies shards in a folder; opens nothing else. Raises FileNotFoundError when there are none."""
    return _concatenate(folder, "proxies-*.npz")


def load_truth(folder: Path | str) -> dict[str, np.ndarray]:
    """All rows of the truth shards in a folder. Raises FileNotFoundError when there are none."""
    return _concatenate(folder, "truth-*.npz")


def load_activations(*folders: Path | str) -> np.ndarray:
    """(n, 2, *FEATURE_MAP) float16, row by row as ``load``'s of one folder after the other: the plain and the mirrored look at
    everybody. ValueError where a folder lacks some."""
    shards = []
    for folder in folders:
        paths, expected = sorted(Path(folder).glob("activations-*.npy")), len(list(Path(folder).glob("truth-*.npz")))
        if len(paths) != expected:
            raise ValueError(f"{folder} has {len(paths)} activations-*.npy for {expected} shards: it was made by an earlier version of "
                             "hmr_ros; run the same hmr-ros data rendered again, it makes the missing ones")  # fmt: skip
        shards += [np.load(path, mmap_mode="r") for path in paths]
    every = np.empty((sum(map(len, shards)), 2, *FEATURE_MAP), np.float16)  # filled one by one: at no time twice in memory
    np.concatenate(shards, out=every)
    return every


def load(folder: Path | str) -> dict[str, np.ndarray]:
    """Proxies and truth together, row by row, by the names in this module's docstring."""
    truth, proxies = load_truth(folder), load_proxies(folder)
    if "index" not in proxies:
        raise ValueError(f"{folder}: the detectors found nobody in any picture; make more pictures")
    if "mirrored_region" not in proxies:
        raise ValueError(f"{folder} was made by an earlier version of hmr_ros; make it again: hmr-ros data rendered")
    if not np.array_equal(proxies["index"], truth["index"]):
        raise ValueError(f"{folder}: proxies and truth are not of the same pictures; make the data again")
    return {**truth, **proxies}


def _concatenate(folder: Path | str, pattern: str) -> dict[str, np.ndarray]:
    paths = sorted(Path(folder).glob(pattern))
    if not paths:
        how = (
            "people with their truth are made by `hmr-ros data rendered --out ANOTHER_FOLDER`" if "truth" in pattern
            else "proxies are made by `hmr-ros extract SOURCE` or `hmr-ros data rendered`"
        )  # fmt: skip
        raise FileNotFoundError(f"no {pattern} in {folder}; {how}")
    shards = [_read(path) for path in paths]
    names = dict.fromkeys(name for shard in shards for name in shard if name not in NOT_ROWS)
    return {name: np.concatenate([shard[name] for shard in shards if name in shard]) for name in names}


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as data:
        return dict(data)


def _span(path: Path) -> list[int]:
    with np.load(path, allow_pickle=False) as data:
        return data["images"].tolist()


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic_write(path) as partial:
        np.savez_compressed(partial, **arrays)


def _stack(rows: Rows) -> dict[str, np.ndarray]:
    return {name: np.stack([np.asarray(value) for value in values]) for name, values in rows.items()}


def proxy_row(
    index: int, image_size: tuple[int, int], person: PersonProxies, depth: np.ndarray | None = None
) -> dict[str, object]:
    """A person's row, by the names in this module's docstring.

    ``image_size`` (H, W); ``depth`` (H, W) metres aligned with the picture, 0 = unknown, gives ``sensor_depth``. What the
    extractor does not give (mask, BlazePose's record, the flipped person) is not in the row. ValueError for depth without a mask.
    """
    size = (MAP_SIZE, MAP_SIZE)
    row = {
        "index": np.int32(index),
        "image_size": np.array(image_size, np.int32),
        "score": np.float32(person.score),
        "box": person.box.astype(np.float32),
        "keypoints": person.keypoints.astype(np.float32),
        "crop": person.crop.astype(np.float32),
        "depth": _small(person.depth),
        **_blazepose(person),
    }
    if person.mask is not None:
        mask = cv2.resize(person.mask, size, interpolation=cv2.INTER_AREA)
        row["mask"] = np.rint(np.clip(mask, 0, 1) * 255).astype(np.uint8)
    if person.blazepose is not None:
        row["agreed"] = person.blazepose.agreed
    if depth is not None:
        if person.mask is None:
            raise ValueError("PersonProxies.mask is None, expected (S, S): a depth camera's depth is cut out by it; use an extractor with masks")
        row["sensor_depth"] = _small(trim_depth(sensor_depth(depth, person.crop, person.mask)))
    if person.mirrored is not None:
        row |= {f"mirrored_{name}": value for name, value in _blazepose(person.mirrored).items()}
    return row


def _small(depth: np.ndarray) -> np.ndarray:
    nearest = cv2.INTER_NEAREST  # unknown (0) must not blend with known
    return cv2.resize(depth, (MAP_SIZE, MAP_SIZE), interpolation=nearest).astype(np.float16)


def _blazepose(person: PersonProxies) -> dict[str, np.ndarray]:
    record = person.blazepose
    return {} if record is None else {
        "landmarks": record.landmarks.astype(np.float32),
        "world": record.world.astype(np.float32),
        "region": record.roi.astype(np.float32),
        "appearance": np.clip(record.embedding, -6e4, 6e4).astype(np.float16),
    }


def _truth_row(index: int, scene: Scene, person: PersonTruth, crop: np.ndarray) -> dict[str, object]:
    turn = ray_rotation(crop[:2], scene.intrinsics)
    orient = Rotation.from_matrix(turn @ Rotation.from_rotvec(person.pose[0]).as_matrix()).as_rotvec()
    pelvis = person.joints[0]  # the body model turns about it, not about its origin

    def about_pelvis(points: np.ndarray) -> np.ndarray:
        return ((points - pelvis) @ turn.T + pelvis).astype(np.float32)

    return {
        "index": np.int32(index),
        "pose": person.pose,
        "ray_orient": orient.astype(np.float32),
        "ray_rotation": turn.astype(np.float32),
        "betas": person.betas,
        "translation": person.translation,
        "intrinsics": np.array(scene.intrinsics, np.float32),
        "keypoints2d": person.keypoints,
        "visible": person.visible,
        "visible_fraction": np.float32(person.visible_fraction),
        "joints": about_pelvis(person.joints),
        "keypoints3d": about_pelvis(person.keypoints3d),
        "category": person.category,
        "clip": person.clip,
        "people": np.int32(len(scene.people)),
        "cut": person.cut,
        "occluded": person.occluded,
    }
