"""Poses for synthetic people: recorded motion, recombined and mirrored, and procedural everyday situations.

A pose is (24, 3) axis-angle in SMPL's order; its first row turns the body (y up, facing +z) in a world with y up where
the viewer stands at +z, so that yaw 0 looks at the camera. Recorded clips are split by clip into train, validation and
test, so that no frame of a clip is seen on both sides; everyday poses come from everyday.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.random import Generator
from scipy.spatial.transform import Rotation

from hmr_ros.geometry import mirror_rotvec
from hmr_ros.skeleton import SMPL_MIRROR
from hmr_ros.training.data.rendered.everyday import EVERYDAY, JOINT, LEFT_ARM, RIGHT_ARM, SPINE

LOWER_BODY = tuple(JOINT[f"{side}_{part}"] for side in ("left", "right") for part in ("hip", "knee", "ankle", "foot"))
SPLITS = ("train", "val", "test")
NAMES = tuple(EVERYDAY)
SHARES = np.array([weight for _, weight in EVERYDAY.values()]) / sum(weight for _, weight in EVERYDAY.values())


@dataclass(frozen=True)
class SampledPose:
    """One pose and where it comes from."""

    rotvec: np.ndarray  # (24, 3) axis-angle, radians; row 0 in the upright world
    category: str  # "mocap" or the name of an everyday situation
    clip: str  # name of the recorded clip, "" for procedural poses


class PoseSampler:
    """Draws poses of one split: ``sample(rng)`` depends on the generator only."""

    def __init__(self, split: str = "train", everyday: float = 0.6, poses: dict[str, np.ndarray] | None = None):
        """``everyday``: share of procedural poses. ``poses``: frames by clip name; default the embedded motion."""
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; choose one of {', '.join(SPLITS)}")
        self.varied = split == "train"  # held-out people move as recorded; those to learn from in more ways than that
        clips = embedded_clips() if poses is None else poses
        self.clips = {name: frames for name, frames in clips.items() if split_of_clip(name) == split}
        self.everyday = everyday if self.clips else 1.0

    def sample(self, rng: Generator) -> SampledPose:
        if rng.random() < self.everyday:
            category = str(rng.choice(NAMES, p=SHARES))
            pose, clip = EVERYDAY[category][0](rng), ""
            pose[1:] += rng.normal(0, 0.03, (23, 3))
        else:
            pose, clip = self._recorded(rng)
            category = "mocap"
            pose[1:] += rng.normal(0, 0.04, (23, 3))
            if self.varied:
                pose = self._vary(pose, rng)
        if rng.random() < 0.5:
            pose = mirror_rotvec(pose, SMPL_MIRROR)
        pose = limit_joints(pose)
        pose[0] = _turned(pose[0], sample_yaw(rng), rng)
        return SampledPose(canonical(pose).astype(np.float32), category, clip)

    def _recorded(self, rng: Generator) -> tuple[np.ndarray, str]:
        pose, clip = self._frame(rng)
        if rng.random() < 0.35:  # legs of another moment
            pose[list(LOWER_BODY)] = self._frame(rng)[0][list(LOWER_BODY)]
        for arm in (LEFT_ARM, RIGHT_ARM):
            if rng.random() < 0.3:
                source = self._frame(rng)[0]
                if rng.random() < 0.5:
                    source = mirror_rotvec(source, SMPL_MIRROR)
                pose[list(arm)] = source[list(arm)]
        return pose, clip

    def _vary(self, pose: np.ndarray, rng: Generator) -> np.ndarray:
        """Between two recorded poses, arms and legs anywhere, or just less exactly as recorded: poses that no clip holds."""
        if rng.random() < 0.35:
            pose = interpolate(pose, self._frame(rng)[0], rng.uniform(0, 0.6))
        if rng.random() < 0.3:
            for limb in (LEFT_ARM, RIGHT_ARM, LOWER_BODY):
                if rng.random() < 0.4:
                    pose[list(limb)] = interpolate(pose[list(limb)], self._limb(limb, rng), rng.uniform(0.3, 1))
        if rng.random() < 0.4:
            pose[1:] += rng.normal(0, rng.uniform(0.05, 0.25), (23, 3))
        return pose

    def _limb(self, limb: tuple[int, ...], rng: Generator) -> np.ndarray:
        """Shoulders and hips turned anywhere they go, elbows and knees bent by any angle (len(limb), 3)."""
        rows = np.zeros((24, 3))
        for side, sign in (("left", 1.0), ("right", -1.0)):
            rows[JOINT[f"{side}_shoulder"]] = rng.normal(0, 0.9, 3) + [0, -0.3 * sign, -0.4 * sign]
            rows[JOINT[f"{side}_elbow"]] = [rng.normal(0, 0.4), -sign * rng.uniform(0, 2.2), 0]
            rows[JOINT[f"{side}_hip"]] = [rng.uniform(-2.0, 0.5), rng.normal(0, 0.3), sign * rng.uniform(-0.1, 0.8)]
            rows[JOINT[f"{side}_knee"]] = [rng.uniform(0, 2.2), 0, 0]
        return rows[list(limb)]

    def _frame(self, rng: Generator) -> tuple[np.ndarray, str]:
        """A moment between two frames of a clip, without its heading; clips are drawn by the root of their length."""
        names = list(self.clips)
        lengths = np.sqrt([len(self.clips[name]) for name in names])
        name = names[rng.choice(len(names), p=lengths / lengths.sum())]
        frames = self.clips[name]
        first = int(rng.integers(len(frames)))
        second = min(first + 1, len(frames) - 1)
        pose = interpolate(frames[first], frames[second], rng.random())
        pose[0] = without_heading(pose[0])
        return pose, name


# ---- recorded motion ------------------------------------------------------------------------------------------------


@cache
def embedded_clips() -> dict[str, np.ndarray]:
    """Clips of hmr_ros/assets/poses.npz: name → (N, 24, 3) float32; empty where the asset is not installed."""
    asset = resources.files("hmr_ros") / "assets" / "poses.npz"
    if not asset.is_file():
        return {}
    with asset.open("rb") as file, np.load(file, allow_pickle=False) as data:
        poses, clip, names = data["poses"].reshape(-1, 24, 3).astype(np.float32), data["clip"], data["clip_names"]
        return {str(name): poses[clip == index] for index, name in enumerate(names)}


VALIDATION_CLIPS = frozenset({"bullet/kick", "bullet/jump", "bullet/walker_turn_right0", "holosoma/climb_seq_3"})
TEST_CLIPS = frozenset({"bullet/dance_b", "bullet/cartwheel", "bullet/walk", "bullet/punch", "holosoma/climb_seq_4"})


def split_of_clip(name: str) -> str:
    """The split that a recorded clip belongs to: fixed lists, everything else trains."""
    return "val" if name in VALIDATION_CLIPS else "test" if name in TEST_CLIPS else "train"


def interpolate(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Geodesic interpolation of two poses (24, 3) joint by joint; share 0 is the first."""
    start = Rotation.from_rotvec(first)
    step = (start.inv() * Rotation.from_rotvec(second)).as_rotvec()
    return (start * Rotation.from_rotvec(share * step)).as_rotvec()


def without_heading(orient: np.ndarray) -> np.ndarray:
    """Turn a global orientation (3,) about the vertical so that the body faces +z (where it faces anywhere)."""
    rotation = Rotation.from_rotvec(orient)
    forward = rotation.apply([0.0, 0.0, 1.0])
    return (Rotation.from_rotvec([0, -np.arctan2(forward[0], forward[2]), 0]) * rotation).as_rotvec()


def sample_yaw(rng: Generator) -> float:
    """Heading in radians: 40 % within 60° of the camera, the rest from anywhere."""
    return rng.uniform(-np.pi / 3, np.pi / 3) if rng.random() < 0.4 else rng.uniform(-np.pi, np.pi)


def _turned(orient: np.ndarray, yaw: float, rng: Generator) -> np.ndarray:
    lean = Rotation.from_rotvec([rng.normal(0, 0.05), 0, rng.normal(0, 0.04)])
    return (Rotation.from_rotvec([0, yaw, 0]) * lean * Rotation.from_rotvec(orient)).as_rotvec()


def canonical(pose: np.ndarray) -> np.ndarray:
    """Axis-angle with angles in [0, pi]."""
    return Rotation.from_rotvec(pose).as_rotvec()


def limit_joints(pose: np.ndarray) -> np.ndarray:
    """Keep elbows and knees within what they can do: hinges that bend one way, forearms that twist (24, 3) → (24, 3).

    In SMPL's T-pose the left elbow flexes about -y, the right about +y, knees about +x.
    """
    pose = pose.copy()
    for joint, sign in ((JOINT["left_elbow"], -1.0), (JOINT["right_elbow"], 1.0)):
        twist, flexion, side = pose[joint]
        pose[joint] = np.clip(twist, -1.3, 1.3), sign * np.clip(sign * flexion, 0.02, 2.5), np.clip(side, -0.15, 0.15)
    for joint in (JOINT["left_knee"], JOINT["right_knee"]):
        flexion, twist, side = pose[joint]
        pose[joint] = np.clip(flexion, 0.02, 2.5), np.clip(twist, -0.3, 0.3), np.clip(side, -0.12, 0.12)
    for joint in (*SPINE, JOINT["neck"], JOINT["head"]):
        angle = np.linalg.norm(pose[joint])
        pose[joint] *= min(1.0, 0.8 / max(angle, 1e-9))
    return pose
