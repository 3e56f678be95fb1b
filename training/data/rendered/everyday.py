"""Everyday situations that a robot meets people in, as distributions of SMPL poses: standing, sitting, waving, reaching.

Written as directions of upper arms and forearms or wrist targets in the frame of the chest, and joint angles for the legs.
A situation is a function of a random generator that gives (24, 3) axis-angle in SMPL's order, facing +z with y up; small
noise, joint limits, mirroring and the heading are added by poses.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from scipy.spatial.transform import Rotation

from hmr_ros.skeleton import SMPL_JOINTS

JOINT = {name: index for index, name in enumerate(SMPL_JOINTS)}
SPINE = (JOINT["spine1"], JOINT["spine2"], JOINT["spine3"])
LEFT_ARM = tuple(JOINT[f"left_{part}"] for part in ("collar", "shoulder", "elbow", "wrist", "hand"))
RIGHT_ARM = tuple(JOINT[f"right_{part}"] for part in ("collar", "shoulder", "elbow", "wrist", "hand"))

UPPER_ARM, FOREARM = 0.28, 0.25  # metres; only their ratio and the reach of wrist targets depend on them


# ---- building blocks ---------------------------------------------------------------------------------------------------
# Arms are written for the left side (+x is outwards) in the frame of the chest: x left, y up, z forward.


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _set_arm(pose: np.ndarray, side: str, upper: np.ndarray, fore: np.ndarray, collar: np.ndarray) -> None:
    """Point an arm: directions of upper arm and forearm in the frame of the chest; the collarbone follows a raised arm."""
    upper, fore = _unit(np.asarray(upper, float)), _unit(np.asarray(fore, float))
    flexion = np.arccos(np.clip(upper @ fore, -1, 1))
    bend = fore - (fore @ upper) * upper  # the forearm leaves the upper arm towards here: the arm's own z
    usual = np.array([-0.4, 0.3, 1.0])
    bend = _unit(bend + 0.15 * (usual - (usual @ upper) * upper))
    bend = _unit(bend - (bend @ upper) * upper)
    shoulder = Rotation.from_matrix(np.stack([upper, np.cross(bend, upper), bend], axis=1))
    raised = Rotation.from_rotvec([0, 0, 0.3 * max(0.0, upper[1] + 0.2)] + collar)
    rows = np.zeros((3, 3))
    rows[0] = raised.as_rotvec()
    rows[1] = (raised.inv() * shoulder).as_rotvec()
    rows[2] = [0, -min(flexion, 2.5), 0]
    arm = LEFT_ARM if side == "left" else RIGHT_ARM
    pose[list(arm[:3])] = rows if side == "left" else rows * [1, -1, -1]


def _reach_for(target: np.ndarray, pole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two-bone inverse kinematics: wrist target relative to the shoulder (m), elbow towards ``pole`` → directions."""
    distance = float(np.clip(np.linalg.norm(target), 0.08, 0.995 * (UPPER_ARM + FOREARM)))
    along = _unit(target)
    pole = _unit(pole - (pole @ along) * along)
    cosine = np.clip((UPPER_ARM**2 + distance**2 - FOREARM**2) / (2 * UPPER_ARM * distance), -1, 1)
    upper = cosine * along + np.sqrt(1 - cosine**2) * pole
    return upper, _unit(distance * along - UPPER_ARM * upper)


class _Figure:
    """A pose in the making, with the vocabulary that the everyday situations are written in."""

    def __init__(self, rng: Generator):
        self.rng = rng
        self.pose = np.zeros((24, 3))
        self.pose[JOINT["neck"]] = rng.normal(0, (0.12, 0.25, 0.06))
        self.pose[JOINT["head"]] = rng.normal(0, (0.12, 0.15, 0.06))
        for joint in SPINE:
            self.pose[joint] = rng.normal(0, (0.05, 0.07, 0.04))
        for side in ("left", "right"):
            self.pose[JOINT[f"{side}_wrist"]] = rng.normal(0, (0.25, 0.15, 0.25))
            self.pose[JOINT[f"{side}_ankle"]] = rng.normal(0, (0.08, 0.12, 0.05))
            self.hang(side)

    def arm(self, side: str, upper, fore, spread: float = 0.12) -> None:
        noise = self.rng.normal(0, spread, (2, 3))
        _set_arm(self.pose, side, np.asarray(upper) + noise[0], np.asarray(fore) + noise[1], self._collar())

    def wrist(self, side: str, target, pole=(0.6, -1.0, -0.3), spread: float = 0.04) -> None:
        target = np.asarray(target, float) + self.rng.normal(0, spread, 3)
        upper, fore = _reach_for(target, np.asarray(pole, float) + self.rng.normal(0, 0.25, 3))
        _set_arm(self.pose, side, upper, fore, self._collar())

    def _collar(self) -> np.ndarray:
        return self.rng.normal(0, (0.03, 0.06, 0.05))

    def hang(self, side: str) -> None:
        out, forward, bent = self.rng.uniform(0.1, 0.4), self.rng.normal(0.0, 0.15), abs(self.rng.normal(0.15, 0.25))
        inward = self.rng.normal(0.0, 0.1)
        _set_arm(self.pose, side, np.array([out, -1, forward]), np.array([out - inward, -1, forward + bent]), self._collar())

    def side(self) -> str:
        return str(self.rng.choice(["left", "right"]))

    def leg(self, side: str, flexion: float, knee: float, out: float = 0.06, turn: float = 0.1) -> None:
        """Angles in radians: thigh forwards, shin backwards, thigh outwards, foot outwards; the foot stays level."""
        sign = 1.0 if side == "left" else -1.0
        hip = Rotation.from_euler("YZX", [sign * turn, sign * out, -flexion])
        self.pose[JOINT[f"{side}_hip"]] = hip.as_rotvec()
        self.pose[JOINT[f"{side}_knee"]] = [knee, 0, 0]
        self.pose[JOINT[f"{side}_ankle"]][0] += np.clip(flexion - knee, -0.6, 0.5)

    def stand(self) -> None:
        rng, relaxed = self.rng, self.side()
        for side in ("left", "right"):
            bent = abs(rng.normal(0, 0.25)) if side == relaxed else abs(rng.normal(0, 0.06))
            self.leg(side, 0.6 * bent + rng.normal(0, 0.05), bent, rng.uniform(-0.05, 0.13), rng.normal(0.1, 0.12))
        self.pose[0] = rng.normal(0, (0.03, 0.0, 0.03))

    def walk(self) -> None:
        rng = self.rng
        phase, stride = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.6)
        for side, offset in (("left", 0.0), ("right", np.pi)):
            swing = np.sin(phase + offset)
            lift = max(0.0, np.cos(phase + offset))  # the leg that moves forward is lifted
            self.leg(side, stride * swing + 0.35 * lift, 0.1 + 1.2 * stride * lift * rng.uniform(0.8, 1.5), 0.04)
            forward = -0.9 * stride * swing
            self.arm(side, [0.2, -1, forward], [0.1, -1, forward + rng.uniform(0.1, 0.7)], 0.07)
        self.pose[0] = [rng.uniform(0, 0.1), 0.15 * stride * np.sin(phase), 0]

    def lean_forward(self, pelvis: float, spine: float) -> None:
        """Tip the pelvis (radians) over legs that stay where they are, and bend the spine further."""
        self.pose[0] += [pelvis, 0, 0]
        for side in ("left", "right"):
            hip = Rotation.from_rotvec([-pelvis, 0, 0]) * Rotation.from_rotvec(self.pose[JOINT[f"{side}_hip"]])
            self.pose[JOINT[f"{side}_hip"]] = hip.as_rotvec()
        for joint in SPINE:
            self.pose[joint] += [spine / 3, 0, 0]

    def busy_arms(self) -> None:
        """What arms do while the legs have the leading part: mostly hang, sometimes something else."""
        for side in ("left", "right"):
            choice = self.rng.random()
            if choice < 0.15:
                self.wrist(side, self.rng.uniform((-0.2, -0.35, 0.15), (0.15, 0.1, 0.45)))
            elif choice < 0.3:
                self.arm(side, self.rng.normal(0, 1, 3) * [0.5, 0.8, 0.5] + [0.5, 0, 0.4], self.rng.normal(0, 1, 3))


# ---- the situations ---------------------------------------------------------------------------------------------------


def standing(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.stand()
    return figure.pose


def walking(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.walk()
    if rng.random() < 0.2:
        figure.busy_arms()
    return figure.pose


def stepping(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.stand()
    side = figure.side()
    flexion = rng.uniform(0.5, 1.5)
    figure.leg(side, flexion, flexion * rng.uniform(0.7, 1.3), rng.uniform(0, 0.3))
    figure.lean_forward(rng.uniform(0, 0.25), rng.uniform(0, 0.2))
    figure.busy_arms()
    return figure.pose


def sitting(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    for side in ("left", "right"):
        figure.leg(side, rng.uniform(1.2, 1.7), rng.uniform(0.7, 1.9), rng.uniform(-0.05, 0.35), rng.normal(0.1, 0.15))
    figure.pose[0] = [rng.uniform(-0.35, 0.15), 0, rng.normal(0, 0.05)]
    for joint in SPINE:
        figure.pose[joint][0] += rng.uniform(-0.05, 0.2)
    arms = rng.random()
    if arms < 0.55:  # hands in the lap or on the knees
        for side in ("left", "right"):
            figure.wrist(side, [rng.uniform(-0.15, 0.1), rng.uniform(-0.42, -0.3), rng.uniform(0.15, 0.38)])
    elif arms < 0.85:
        figure.busy_arms()
    return figure.pose


def waving(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.stand()
    side = figure.side()
    sway = rng.uniform(-0.7, 0.7)
    figure.arm(side, [1, rng.uniform(-0.7, 0.8), rng.uniform(-0.1, 0.6)], [sway, 1, rng.uniform(-0.1, 0.5)])
    return figure.pose


def pointing(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.stand()
    direction = np.array([rng.uniform(-0.4, 1.0), rng.uniform(-0.5, 0.6), rng.uniform(-0.1, 1.0)])
    figure.arm(figure.side(), direction, direction + rng.normal(0, 0.2, 3) * np.linalg.norm(direction), 0.05)
    return figure.pose


def reaching(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.stand()
    figure.lean_forward(rng.uniform(0, 0.5), rng.uniform(0, 0.4))
    target = np.array([rng.uniform(-0.2, 0.3), rng.uniform(-0.35, 0.45), rng.uniform(0.25, 0.5)])
    side = figure.side()
    figure.wrist(side, target)
    if rng.random() < 0.3:
        figure.wrist("left" if side == "right" else "right", target)
    return figure.pose


def handing_over(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.stand()
    target = np.array([rng.uniform(-0.15, 0.1), rng.uniform(-0.3, -0.05), rng.uniform(0.3, 0.48)])
    for side in ("left", "right") if rng.random() < 0.4 else (figure.side(),):
        figure.wrist(side, target)
    figure.lean_forward(rng.uniform(0, 0.25), rng.uniform(0, 0.2))
    return figure.pose


def arms_raised(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.stand()
    for side in ("left", "right"):
        if rng.random() < 0.85:
            upper = np.array([rng.uniform(0.0, 1.2), rng.uniform(0.1, 1.2), rng.uniform(-0.2, 0.4)])
            figure.arm(side, upper, upper + [rng.uniform(-1.2, 0.2), rng.uniform(0, 1), rng.uniform(-0.2, 0.4)])
    return figure.pose


def arms_spread(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.stand()
    for side in ("left", "right"):
        upper = np.array([1, rng.uniform(-0.5, 0.3), rng.uniform(-0.2, 0.5)])
        figure.arm(side, upper, upper + rng.normal(0, 0.4, 3))
    return figure.pose


def arms_crossed(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.stand()
    front = rng.uniform(0.02, 0.06)
    figure.wrist("left", [-0.24, -0.2, 0.17 + front], (0.7, -1, 0), 0.02)
    figure.wrist("right", [-0.22, -0.22, 0.17 - front], (0.7, -1, 0), 0.02)
    return figure.pose


def hands_on_hips(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.stand()
    for side in ("left", "right"):
        if rng.random() < 0.85:
            target = [rng.uniform(-0.02, 0.06), rng.uniform(-0.42, -0.34), rng.uniform(-0.04, 0.1)]
            figure.wrist(side, target, (1, 0, -0.5), 0.02)
    return figure.pose


def hands_together(rng: Generator) -> np.ndarray:
    """In front of the belly, or behind the back."""
    figure = _Figure(rng)
    figure.stand()
    if rng.random() < 0.7:
        height, ahead = rng.uniform(-0.48, -0.1), rng.uniform(0.15, 0.3)
        for side in ("left", "right"):
            figure.wrist(side, [-0.14, height, ahead], (0.8, -1, -0.2), 0.02)
    else:
        for side in ("left", "right"):
            figure.wrist(side, [-0.1, rng.uniform(-0.45, -0.35), -0.12], (0.8, 0, -1), 0.02)
    return figure.pose


def carrying(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.walk() if rng.random() < 0.35 else figure.stand()
    apart, height, ahead = rng.uniform(-0.1, 0.08), rng.uniform(-0.42, -0.15), rng.uniform(0.2, 0.4)
    for side in ("left", "right"):
        figure.wrist(side, [apart, height, ahead], (0.6, -1, -0.4), 0.02)
    for joint in SPINE:
        figure.pose[joint][0] += rng.uniform(-0.08, 0.02)
    return figure.pose


def phone(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.walk() if rng.random() < 0.25 else figure.stand()
    side = figure.side()
    if rng.random() < 0.5:  # at the ear
        figure.wrist(side, [-0.06, 0.12, 0.07], (0.8, -1, 0.3), 0.02)
    else:  # looked at
        for holding in ("left", "right") if rng.random() < 0.5 else (side,):
            figure.wrist(holding, [-0.13, rng.uniform(-0.2, 0.0), rng.uniform(0.2, 0.35)], (0.5, -1, -0.2), 0.03)
        figure.pose[JOINT["head"]][0] += 0.3
        figure.pose[JOINT["neck"]][0] += 0.2
    return figure.pose


def bending(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    figure.stand()
    knee = rng.uniform(0, 0.6)
    for side in ("left", "right"):
        figure.leg(side, 0.5 * knee, knee, rng.uniform(0.02, 0.2))
    figure.lean_forward(rng.uniform(0.4, 1.3), rng.uniform(0.1, 0.9))
    for side in ("left", "right"):
        if rng.random() < 0.7:
            figure.arm(side, [0.15, rng.uniform(-1, 0.1), 1], [0.0, rng.uniform(-1, 0.3), 1])
    return figure.pose


def crouching(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    for side in ("left", "right"):
        knee = rng.uniform(1.4, 2.3)
        figure.leg(side, knee * rng.uniform(0.55, 0.8), knee, rng.uniform(0.1, 0.5), rng.uniform(0, 0.4))
    figure.lean_forward(rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.6))
    for side in ("left", "right"):
        if rng.random() < 0.7:
            figure.wrist(side, [rng.uniform(-0.15, 0.1), rng.uniform(-0.4, -0.1), rng.uniform(0.2, 0.45)])
    return figure.pose


def kneeling(rng: Generator) -> np.ndarray:
    figure = _Figure(rng)
    front = figure.side()
    both = rng.random() < 0.3
    for side in ("left", "right"):
        if side == front and not both:
            flexion = rng.uniform(1.2, 1.7)
            figure.leg(side, flexion, flexion * rng.uniform(0.9, 1.15), rng.uniform(0.05, 0.3))
        else:
            figure.leg(side, rng.uniform(-0.1, 0.5), rng.uniform(1.4, 2.2), rng.uniform(0.0, 0.2))
    figure.lean_forward(rng.uniform(0, 0.4), rng.uniform(0, 0.4))
    figure.busy_arms()
    return figure.pose


def gesturing(rng: Generator) -> np.ndarray:
    """Talking with one's hands: wrists anywhere in front of the chest."""
    figure = _Figure(rng)
    figure.stand()
    for side in ("left", "right"):
        if rng.random() < 0.8:
            figure.wrist(side, rng.uniform((-0.2, -0.35, 0.12), (0.25, 0.25, 0.4)), (0.7, -1, -0.2))
    return figure.pose


def anything(rng: Generator) -> np.ndarray:
    """Arms anywhere, legs anywhere within reason: what no list of situations foresees."""
    figure = _Figure(rng)
    for side in ("left", "right"):
        flexion = rng.uniform(-0.4, 1.6)
        knee = np.clip(flexion * rng.uniform(0, 1.6) + rng.normal(0, 0.3), 0, 2.3)
        figure.leg(side, flexion, knee, rng.uniform(-0.1, 0.6))
        figure.arm(side, rng.normal(0, 1, 3) + [0.5, 0, 0.4], rng.normal(0, 1, 3) + [0.2, 0, 0.5])
    figure.lean_forward(rng.uniform(-0.2, 0.5), rng.uniform(-0.3, 0.6))
    return figure.pose


# name → (how, relative weight)
EVERYDAY: dict[str, tuple[Callable[[Generator], np.ndarray], float]] = {
    "standing": (standing, 1.0),
    "walking": (walking, 1.6),
    "stepping": (stepping, 0.8),
    "sitting": (sitting, 1.6),
    "waving": (waving, 1.0),
    "pointing": (pointing, 1.0),
    "reaching": (reaching, 1.2),
    "handing_over": (handing_over, 0.8),
    "arms_raised": (arms_raised, 1.2),
    "arms_spread": (arms_spread, 0.6),
    "arms_crossed": (arms_crossed, 0.7),
    "hands_on_hips": (hands_on_hips, 0.7),
    "hands_together": (hands_together, 0.7),
    "carrying": (carrying, 0.9),
    "phone": (phone, 0.8),
    "bending": (bending, 1.2),
    "crouching": (crouching, 1.2),
    "kneeling": (kneeling, 0.9),
    "gesturing": (gesturing, 1.0),
    "anything": (anything, 1.5),
}
