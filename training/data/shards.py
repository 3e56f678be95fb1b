"""Proxies and truth on disk: numbered npz shards, ``proxies-00012.npz`` for the detectors' predictions and ``truth-00012.npz`` for
the truth. Self-supervised training opens the first kind only. Beside the truth, and beside the proxies of `hmr-ros extract
--feature-maps`, ``activations-00012.npy`` (n, V, *FEATURE_MAP) float16: BlazePose's feature maps of the plain and, where V is 2, the
mirrored view, 45 KB each. Shards are not compressed and are read through memory maps; compressed ones, as earlier versions wrote them,
are read into memory.

Row i of a truth shard belongs to row i of its proxies shard and of its feature maps. False negatives (missed people) are in the
truth alone, under the same names with ``missed_`` before them.

Proxies: ``index`` (n,) picture, ``image_size`` (n, 2: H, W), ``score`` (n,), ``box`` (n, 4), ``keypoints`` (n, 17, 3),
``crop`` (n, 3), ``mask`` (n, S, S) uint8 of 255, ``depth`` (n, S, S) float16 metres, ``agreed`` (n,) bool, ``landmarks``
(n, 33, 4), ``world`` (n, 33, 3), ``region`` (n, 4), ``appearance`` (n, 1152) float16. Where they are known: ``sensor_depth``
(n, S, S) float16 metres, what a depth camera's image would have given in the place of ``depth``; ``mirrored_landmarks``
and so on, of the mirrored view; ``name`` (n,) str, the picture; ``stamp`` (n,) float64 seconds, NaN where a source has none; ``intrinsics`` (n, 4) of
rendered recordings. S is 64 unless the folder was made with another --depth-size.
Beside them ``images`` (2,), the shard's pictures, and ``ghosts`` (), its false positives.

Truth: ``pose`` (n, 24, 3) axis-angle with row 0 into camera axes, ``ray_orient`` (n, 3) row 0 into ray axes,
``ray_rotation`` (n, 3, 3) camera axes to ray axes, ``betas`` (n, 10), ``translation`` (n, 3), ``intrinsics`` (n, 4),
``keypoints2d`` (n, 17, 2) px, ``visible`` (n, 17) bool, ``visible_fraction`` (n,), ``joints`` (n, 24, 3) and ``keypoints3d``
(n, 17, 3) metres in ray axes as the body model gives them for ``ray_orient``, ``category``, ``clip`` (n,) str, ``people``
(n,) in the picture, ``cut``, ``occluded`` (n,) bool, ``index`` (n,).

Ray axes are camera axes turned (the shortest way) so that z passes through the centre of the crop: a regressor that sees
the crop only cannot know more.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation

from hmr_ros.files import atomic_write
from hmr_ros.camera import Camera, ray_axes
from hmr_ros.geometry import square_crop
from hmr_ros.io.remote import local
from hmr_ros.networks.paper.maps import MAP_SIZE
from hmr_ros.proxies import FEATURE_MAP, PersonProxies
from hmr_ros.proxies.depth import sensor_depth, trim_depth
from hmr_ros.training.data.mapped import Rows, map_npy, map_npz
from hmr_ros.training.data.rendered.scene import PersonTruth, Scene

MATCH = 0.15  # of the true person's diagonal: a detection whose confident joints are further off is of somebody else
NOT_ROWS = ("images", "ghosts", "unreadable", "reasons", "backend")  # of a shard as a whole

RowLists = dict[str, list]


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
    """Collects the rows of one shard, of people with a mirrored view; ``save`` writes all its files atomically, the proxies last.
    ``size`` is the side of masks and depth maps."""

    def __init__(self, size: int = MAP_SIZE):
        self.size = size
        self.proxies: RowLists = {}
        self.truth: RowLists = {}
        self.activations: list[np.ndarray] = []
        self.false_positives = 0

    def add(self, index: int, scene: Scene, detected: list[PersonProxies]) -> None:
        pairs = match(detected, scene.people)
        self.false_positives += len(detected) - len(pairs)
        for i, j in sorted(pairs, key=lambda pair: pair[1]):
            known = {} if scene.stamp is None else {"stamp": np.float64(scene.stamp), "intrinsics": np.array(scene.intrinsics, np.float32)}
            add_row(self.proxies, proxy_row(index, scene.image.shape[:2], detected[i], scene.depth, self.size) | known)
            add_row(self.truth, _truth_row(index, scene, scene.people[j], detected[i].crop))
            self.activations.append(feature_maps(detected[i]))
        found = {j for _, j in pairs}
        for j, person in enumerate(scene.people):
            if j not in found:
                row = _truth_row(index, scene, person, square_crop(person.box))
                add_row(self.truth, {f"missed_{name}": value for name, value in row.items()})

    def save(self, folder: Path, shard: int, images: range) -> None:
        span = np.array([images.start, images.stop])
        save_activations(folder, shard, self.activations, views=2)
        _save(truth_path(folder, shard), {**_stack(self.truth), "images": span})
        save_proxies(folder, shard, images, self.proxies, ghosts=np.array(self.false_positives))


def add_row(rows: RowLists, row: dict[str, object]) -> None:
    """One person more; every row of a shard has the same names."""
    for name, value in row.items():
        rows.setdefault(name, []).append(value)


def save_proxies(folder: Path, shard: int, images: range, rows: RowLists, **extra: np.ndarray) -> None:
    """Write a proxies shard atomically; ``extra`` (names of NOT_ROWS) is about the shard as a whole."""
    _save(proxies_path(folder, shard), _proxies(images, rows, extra))


def pack(shard: int, images: range, rows: RowLists, maps: list[np.ndarray] | None, views: int, **extra: np.ndarray) -> dict[str, bytes]:
    """Files of a shard without truth, by name, the proxies last: what ``save_activations`` (with ``maps``) and ``save_proxies`` write."""
    contents = []
    if maps is not None:
        np.save(buffer := io.BytesIO(), _activations(maps, views))
        contents.append(buffer.getvalue())
    np.savez(buffer := io.BytesIO(), **_proxies(images, rows, extra))
    contents.append(buffer.getvalue())
    return dict(zip(names(shard, maps is not None), contents, strict=True))


def _proxies(images: range, rows: RowLists, extra: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**_stack(rows), "images": np.array([images.start, images.stop]), **extra}


def feature_maps(person: PersonProxies) -> np.ndarray:
    """(V, *FEATURE_MAP) float16 of a person and, where there is one, of the mirrored view. ValueError where an extractor gives none."""
    views = [person] if person.mirrored is None else [person, person.mirrored]
    maps = [None if view.blazepose is None else view.blazepose.feature_map for view in views]
    if any(some is None for some in maps):
        raise ValueError("the extractor gives no BlazePose feature map, expected one of everybody: take the extractor embedded, or leave "
                         "--feature-maps out")  # fmt: skip
    return np.stack(maps).astype(np.float16)


def save_activations(folder: Path, shard: int, maps: list[np.ndarray], views: int) -> None:
    """Write a shard's ``feature_maps`` (n, ``views``, *FEATURE_MAP) atomically."""
    with atomic_write(activations_path(folder, shard)) as partial:
        np.save(partial, _activations(maps, views))


def _activations(maps: list[np.ndarray], views: int) -> np.ndarray:
    return np.stack(maps) if maps else np.empty((0, views, *FEATURE_MAP), np.float16)


def size_identity(depth_size: int) -> dict:
    """What the side of maps adds to a folder's identity: nothing where it is the usual one, so that older folders stay valid.
    Raises ValueError for a side that makes no sense."""
    if depth_size < 16:
        raise ValueError(f"--depth-size is {depth_size}, expected 16 pixels or more")
    return {} if depth_size == MAP_SIZE else {"depth_size": depth_size}


def names(shard: int, activations: bool = False) -> list[str]:
    """Of a shard's files without truth, the proxies last."""
    return [activations_path("", shard).name] * activations + [proxies_path("", shard).name]


def proxies_path(folder: Path, shard: int) -> Path:
    return Path(folder) / f"proxies-{shard:05d}.npz"


def truth_path(folder: Path, shard: int) -> Path:
    return Path(folder) / f"truth-{shard:05d}.npz"


def activations_path(folder: Path, shard: int) -> Path:
    return Path(folder) / f"activations-{shard:05d}.npy"


def is_complete(folder: Path, shard: int, images: range, truth: bool = True, activations: bool = True) -> bool:
    """The shard is there, for exactly these pictures: the proxies, and the ``truth`` and ``activations`` that belong to them."""
    paths = [proxies_path(folder, shard)] + ([truth_path(folder, shard)] if truth else [])
    complete = all(path.is_file() and _span(path) == [images.start, images.stop] for path in paths)
    return complete and (not activations or activations_path(folder, shard).is_file())


def open_proxies(folder: Path | str, names: Sequence[str] | None = None) -> dict[str, Rows]:
    """The rows of the proxies shards in a folder, or those of some ``names``, as memory maps; opens nothing else. Raises
    FileNotFoundError when there are no shards."""
    rows, held = _open(folder, "proxies-*.npz", names)
    _report(folder, held)
    return rows


def open_people(folder: Path | str) -> dict[str, Rows]:
    """Proxies and truth together, row by row, by the names in this module's docstring, as memory maps.

    Raises FileNotFoundError when there are no shards, ValueError where nobody is in them or they do not belong together.
    """
    rows, held = _open_people(folder)
    _report(folder, held)
    return rows


def open_activations(*folders: Path | str) -> Rows:
    """(n, V, *FEATURE_MAP) float16 as memory maps, row by row as ``open_people``'s or ``open_proxies``' of one folder after the other: the
    feature maps of every person's plain and, where V is 2, mirrored view. ValueError where a folder lacks some."""
    paths = []
    for folder in map(local, folders):
        some, expected = sorted(folder.glob("activations-*.npy")), len(list(folder.glob("proxies-*.npz")))
        if len(some) != expected:
            raise ValueError(f"{folder} has {len(some)} activations-*.npy for {expected} shards: proxies need `hmr-ros extract --feature-maps`; "
                             "of rendered people the same `hmr-ros data rendered` makes the missing ones")  # fmt: skip
        paths += some
    return Rows(map(map_npy, paths))


def load_proxies(folder: Path | str) -> dict[str, np.ndarray]:
    """``open_proxies``, all in memory."""
    return _in_memory(_open(folder, "proxies-*.npz")[0])


def load_truth(folder: Path | str) -> dict[str, np.ndarray]:
    """All rows of the truth shards in a folder, in memory. Raises FileNotFoundError when there are none."""
    return _in_memory(_open(folder, "truth-*.npz")[0])


def load_activations(*folders: Path | str) -> np.ndarray:
    """``open_activations``, all in memory."""
    return np.asarray(open_activations(*folders))


def load(folder: Path | str) -> dict[str, np.ndarray]:
    """``open_people``, all in memory."""
    return _in_memory(_open_people(folder)[0])


def unpack(folder: Path) -> int:
    """Write the compressed shards in a folder again without compression, each atomically; returns how many they were."""
    count = 0
    for path in sorted([*folder.glob("proxies-*.npz"), *folder.glob("truth-*.npz")]):
        if map_npz(path)[1]:
            with np.load(path, allow_pickle=False) as data:
                _save(path, dict(data))
            count += 1
    return count


def _open_people(folder: Path | str) -> tuple[dict[str, Rows], list[int]]:
    truth, truth_held = _open(folder, "truth-*.npz")
    proxies, proxies_held = _open(folder, "proxies-*.npz")
    if "index" not in proxies:
        raise ValueError(f"{folder}: the detectors found nobody in any picture; make more pictures")
    if "mirrored_region" not in proxies:
        raise ValueError(f"{folder} was made by an earlier version of hmr_ros; make it again: hmr-ros data rendered")
    if not np.array_equal(proxies["index"], truth["index"]):
        raise ValueError(f"{folder}: proxies and truth are not of the same pictures; make the data again")
    return {**truth, **proxies}, truth_held + proxies_held


def _open(folder: Path | str, pattern: str, names: Sequence[str] | None = None) -> tuple[dict[str, Rows], list[int]]:
    """Rows of all shards of a kind, and the bytes of each shard that are held in memory."""
    paths = sorted(local(folder).glob(pattern))
    if not paths:
        how = (
            "people with their truth are made by `hmr-ros data rendered --out ANOTHER_FOLDER`" if "truth" in pattern
            else "proxies are made by `hmr-ros extract SOURCE` or `hmr-ros data rendered`"
        )  # fmt: skip
        raise FileNotFoundError(f"no {pattern} in {folder}; {how}")
    shards, held = zip(*(map_npz(path, names) for path in paths))
    found = dict.fromkeys(name for shard in shards for name in shard if name not in NOT_ROWS)
    return {name: Rows(shard[name] for shard in shards if name in shard) for name in found}, list(held)


def _report(folder: Path | str, held: list[int]) -> None:
    if any(held):
        Console(stderr=True, markup=False).print(
            f"{sum(map(bool, held))} compressed shards of {folder} are held in memory ({sum(held) / 1e6:.0f} MB); to have them read "
            f"batch by batch: hmr-ros data unpack {folder}", highlight=False, soft_wrap=True,
        )  # fmt: skip


def _in_memory(rows: dict[str, Rows]) -> dict[str, np.ndarray]:
    return {name: np.asarray(some) for name, some in rows.items()}


def _span(path: Path) -> list[int]:
    with np.load(path, allow_pickle=False) as data:
        return data["images"].tolist()


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic_write(path) as partial:
        np.savez(partial, **arrays)


def _stack(rows: RowLists) -> dict[str, np.ndarray]:
    return {name: np.stack([np.asarray(value) for value in values]) for name, values in rows.items()}


def proxy_row(
    index: int, image_size: tuple[int, int], person: PersonProxies, depth: np.ndarray | None = None, size: int = MAP_SIZE
) -> dict[str, object]:
    """A person's row, by the names in this module's docstring.

    ``image_size`` (H, W); ``depth`` (H, W) metres aligned with the picture, 0 = unknown, gives ``sensor_depth``; ``size`` is the
    side of mask and depth maps. What the extractor does not give (mask, BlazePose's record, the flipped person) is not in the row.
    ValueError for depth without a mask.
    """
    row = {
        "index": np.int32(index),
        "image_size": np.array(image_size, np.int32),
        "score": np.float32(person.score),
        "box": person.box.astype(np.float32),
        "keypoints": person.keypoints.astype(np.float32),
        "crop": person.crop.astype(np.float32),
        "depth": _resized(person.depth, size),
        **_blazepose(person),
    }
    if person.mask is not None:
        mask = cv2.resize(person.mask, (size, size), interpolation=cv2.INTER_AREA)
        row["mask"] = np.rint(np.clip(mask, 0, 1) * 255).astype(np.uint8)
    if person.blazepose is not None:
        row["agreed"] = person.blazepose.agreed
    if depth is not None:
        if person.mask is None:
            raise ValueError("PersonProxies.mask is None, expected (S, S): a depth camera's depth is cut out by it; use an extractor with masks")
        row["sensor_depth"] = _resized(trim_depth(sensor_depth(depth, person.crop, person.mask)), size)
    if person.mirrored is not None:
        row |= {f"mirrored_{name}": value for name, value in _blazepose(person.mirrored).items()}
    return row


def _resized(depth: np.ndarray, size: int) -> np.ndarray:
    nearest = cv2.INTER_NEAREST  # unknown (0) must not blend with known
    return cv2.resize(depth, (size, size), interpolation=nearest).astype(np.float16)


def _blazepose(person: PersonProxies) -> dict[str, np.ndarray]:
    record = person.blazepose
    return {} if record is None else {
        "landmarks": record.landmarks.astype(np.float32),
        "world": record.world.astype(np.float32),
        "region": record.roi.astype(np.float32),
        "appearance": np.clip(record.embedding, -6e4, 6e4).astype(np.float16),
    }


def _truth_row(index: int, scene: Scene, person: PersonTruth, crop: np.ndarray) -> dict[str, object]:
    turn = ray_axes(Camera(scene.intrinsics), crop[None, :2])[0]
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
