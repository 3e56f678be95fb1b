"""Whether a mesh lies on the detected keypoints: bodies that do not are not shown, joints that do not are less reliable.

A mean over all joints is small where a trunk stands beside the person and the rest fits; hence torso and worst limb count on their own.
Distances are in the image but in metres of the body, as its weak-perspective camera sees it, so that truncated people, whose box is
small, are judged as the others. Where mesh and keypoints disagree either may be wrong (left and right are swapped most often).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hmr_ros.estimate import BodyEstimate
from hmr_ros.skeleton import LIMB_CHAINS, LIMB_KEYPOINTS, LIMB_NAMES, TORSO_KEYPOINTS

_IS_HIP = np.array([name.endswith("hip") for name in LIMB_NAMES])


@dataclass(frozen=True)
class JudgementConfig:
    """Sources: [rendered] 2,187 bodies of the frozen test split and 447 of gymnasts (benchmarks/judgement.py: what each limit discards)."""

    mean: float = 0.15  # of the box's diagonal: mean over all joints beyond which a mesh is none [rendered]
    torso: float = 0.25  # metres: the same over shoulders and hips; half a torso [rendered]
    limb: float = 0.6  # metres: the same over shoulder, elbow and wrist, or hip, knee and ankle [rendered]
    torso_right: float = 0.1  # metres: with a torso as near as that, a far-off limb discards nobody: its joints are less reliable instead
    doubt: float = 0.4  # by so much the reliability of a joint is reduced at most [rendered]
    doubt_distance: float = 0.15  # metres: reduced by half of that; refinement's outlier distance [rendered]


def distances(body: BodyEstimate) -> np.ndarray:
    """(17,) metres from the mesh's COCO joints to the detected ones, perpendicular to the viewing ray; NaN where not confident."""
    metres = 2 / (body.weak_camera[0] * body.crop[2])  # per pixel
    off = metres * np.linalg.norm(body.projected_keypoints - body.keypoints[:, :2], axis=1)
    return np.where(body.keypoints[:, 2] > body.confident, off, np.nan)


def mesh_misses(body: BodyEstimate, config: JudgementConfig = JudgementConfig()) -> bool:
    """Whether the mesh is not on the detected keypoints: by their mean, the torso's, or the worst limb's."""
    error = body.reprojection_error()
    if error is None:
        return True
    away = distances(body).tolist()
    torso = _mean(away, TORSO_KEYPOINTS)
    limb = max(_mean(away, chain) for chain in LIMB_CHAINS)
    lies = error <= config.mean and torso <= config.torso and (limb <= config.limb or torso <= config.torso_right)
    return not lies  # NaN lies nowhere


def reliability(regressed: np.ndarray, away: np.ndarray, config: JudgementConfig = JudgementConfig()) -> np.ndarray:
    """A regressor's reliability (..., 12), reduced where a joint lies ``away`` (..., 12) metres from its confident detection, NaN where
    there is none. The factor falls from 1 to 1 - ``doubt``; it never falls where a joint comes nearer, and never rises beyond 1. Hips
    keep theirs: reliability is relative to the hips' midpoint, which moves with them [rendered]."""
    share = np.where(_IS_HIP, 0, np.nan_to_num(away) / config.doubt_distance) ** 2
    return (regressed * (1 - config.doubt * share / (1 + share))).astype(np.float32)


def limb_distances(body: BodyEstimate) -> np.ndarray:
    """``distances`` of the twelve joints that carry a reliability."""
    return distances(body)[list(LIMB_KEYPOINTS)]


def _mean(away: list[float], joints: Sequence[int]) -> float:
    """Of what is known; 0 where nothing is."""
    known = [away[joint] for joint in joints if math.isfinite(away[joint])]
    return sum(known) / len(known) if known else 0.0
