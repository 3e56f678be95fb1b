"""The poses of calibrated cameras that see one scene: from a JSON file, or from /tf_static of their bags."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from hmr_ros.io.bags import Bag, BagFiles, is_bag
from hmr_ros.io.cut_recordings import Topic
from hmr_ros.io.report import ReadReport, printable

TF_STATIC = Topic("/tf_static", "tf2_msgs/msg/TFMessage")
Edges = dict[str, tuple[str, np.ndarray]]  # frame → its parent, (4, 4) frame → parent


class Mount(NamedTuple):
    """How a camera is mounted, and which of a bag's topics are its own."""

    name: str
    rotation: np.ndarray  # (3, 3) optical frame (REP 103) → world
    position: np.ndarray  # (3,) metres, in the world
    clock: float = 0.0  # seconds; added to the recording's stamps they are the rig's
    topic: str = ""
    depth_topic: str = ""

    @property
    def pose(self) -> np.ndarray:
        """(3, 4) world → optical frame."""
        return np.column_stack([self.rotation.T, -self.rotation.T @ self.position])


def read_rig(path: Path, recordings: Sequence[Path], topic: str = "") -> tuple[Mount, ...]:
    """The cameras of a rig in the order of their ``recordings``, from a JSON file (docs/adapt.md).

    Where the file gives no poses, /tf_static of the recordings does, for the frame of the images on a camera's topic (``topic``, where the file names
    none). ValueError where poses are missing, or make no sense.
    """
    try:
        entries = [dict(entry) for entry in json.loads(path.read_text())["cameras"]]
        for number, entry in enumerate(entries):
            entry["name"] = str(entry.get("name") or f"camera {number}")
        unplaced = [entry["name"] for entry in entries if not entry.keys() & {"T_world_camera", "translation", "rotation"}]
        mounts = tuple(_mount(**entry, **({"T_world_camera": np.eye(4)} if entry["name"] in unplaced else {})) for entry in entries)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f'{printable(path)} is no rig ({error}), expected {{"cameras": [{{"name", "translation": [x, y, z] in metres, "rotation": '
                         '[x, y, z, w]}, ...]} with the pose of every camera in the world, one a recording: docs/adapt.md') from error  # fmt: skip
    if len(mounts) != len(recordings) or len(mounts) < 2:
        raise ValueError(f"{printable(path)} has {len(mounts)} cameras, expected one for each of the {len(recordings)} recordings, and two at least")
    if unplaced:
        if len(unplaced) < len(mounts):
            raise ValueError(f"{printable(path)} has no pose of {', '.join(unplaced)}, expected the poses of all cameras in one world, or of none: "
                             "then /tf_static of the recordings is read")  # fmt: skip
        mounts = _from_tf(path, mounts, recordings, topic)
    for one, other in combinations(mounts, 2):
        if (baseline := np.linalg.norm(one.position - other.position)) < 0.05 or baseline > 200:
            raise ValueError(f"{printable(path)}: {one.name} and {other.name} are {baseline:.3g} m apart, expected 0.05 to 200 m: translations are "
                             "those of the cameras in the world, in metres")  # fmt: skip
    return mounts


def _mount(name: str, T_world_camera=None, translation=None, rotation=None, clock=0.0, topic="", depth_topic="") -> Mount:
    if T_world_camera is not None:
        matrix = np.array(T_world_camera, np.float64)
        if matrix.shape != (4, 4):
            raise ValueError(f"T_world_camera of {name} has shape {matrix.shape}, expected 4 rows of 4")
        turn, position = matrix[:3, :3], matrix[:3, 3]
    else:
        turn, position = np.array(rotation, np.float64), np.array(translation, np.float64)
        if turn.shape == (4,):
            turn = Rotation.from_quat(turn).as_matrix()
    if turn.shape != (3, 3) or not np.abs(turn.T @ turn - np.eye(3)).max() <= 1e-2 or np.linalg.det(turn) < 0:
        raise ValueError(f"rotation of {name} is {turn.tolist()}, expected a quaternion [x, y, z, w] or a rotation matrix")
    if position.shape != (3,) or not np.isfinite([*position, clock]).all():
        raise ValueError(f"translation of {name} is {position.tolist()} and its clock {clock}, expected three finite numbers and one")
    return Mount(name, Rotation.from_matrix(turn).as_matrix(), position, float(clock), str(topic), str(depth_topic))


# ---- poses from tf ----------------------------------------------------------------------------------------------------


def _from_tf(path: Path, mounts: Sequence[Mount], recordings: Sequence[Path], topic: str) -> tuple[Mount, ...]:
    """Cameras whose poses the file does not tell: in the frame at the root of /tf_static. Joints that move are not known."""
    edges: Edges = {}
    for mount, recording in zip(mounts, recordings):
        if not is_bag(recording):
            raise ValueError(f"{printable(path)} has no pose of {mount.name}, and {printable(recording)} is no bag with /tf_static: expected its "
                             "translation and rotation (docs/adapt.md)")  # fmt: skip
        edges |= static_transforms(recording)
    frames = [_frame(recording, mount.topic or topic) for mount, recording in zip(mounts, recordings)]
    placed = [_to_root(edges, frame) for frame in frames]
    if len({root for root, _ in placed}) > 1:
        words = ", ".join(f"{mount.name} ({printable(frame)}) in {printable(root)}" for mount, frame, (root, _) in zip(mounts, frames, placed))
        raise ValueError(f"{printable(path)} gives no poses, and /tf_static does not connect the cameras: {words}; expected one tree of frames: record "
                         f"/tf_static, or write the poses to the file")  # fmt: skip
    return tuple(mount._replace(rotation=matrix[:3, :3], position=matrix[:3, 3]) for mount, (_, matrix) in zip(mounts, placed))


@functools.lru_cache(maxsize=16)
def static_transforms(bag: Path) -> Edges:
    """The frames of a bag's /tf_static, the last message of each counts; empty where none was recorded."""
    edges = {}
    with BagFiles(bag) as files:
        for message in files.read({TF_STATIC}, set(), ReadReport()):
            for transform in message.decoded().transforms:
                turn, place = transform.transform.rotation, transform.transform.translation
                matrix, quaternion = np.eye(4), np.array([turn.x, turn.y, turn.z, turn.w])
                if not 0.9 < np.linalg.norm(quaternion) < 1.1 or not np.isfinite([place.x, place.y, place.z]).all():
                    raise ValueError(f"/tf_static of {printable(bag)}: the transform of {printable(transform.child_frame_id)} has rotation "
                                     f"{quaternion.tolist()}, expected a unit quaternion, and finite numbers")  # fmt: skip
                matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat(quaternion).as_matrix(), (place.x, place.y, place.z)
                edges[_bare(transform.child_frame_id)] = _bare(transform.header.frame_id), matrix
    return edges


@functools.lru_cache(maxsize=16)
def _frame(bag: Path, topic: str) -> str:
    """frame_id of the images on a topic."""
    with Bag(bag, topic) as images:
        for message in images.messages():
            if message.topic == images.topic:
                return _bare(message.decoded().header.frame_id)
    raise ValueError(f"topic {printable(topic)} of bag {printable(bag)} holds no image that can be read, expected one that names its frame")


def _to_root(edges: Edges, frame: str) -> tuple[str, np.ndarray]:
    """The frame above all others of ``frame``, and (4, 4) frame → that."""
    matrix, passed = np.eye(4), [frame]
    while frame in edges:
        frame, step = edges[frame]
        if frame in passed:
            raise ValueError(f"/tf_static goes round in a circle: {' → '.join(map(printable, [*passed, frame]))}, expected a tree")
        passed.append(frame)
        matrix = step @ matrix
    return frame, matrix


def _bare(frame: str) -> str:
    """tf2 knows no slash before a frame, old bags have it."""
    return frame.removeprefix("/")
