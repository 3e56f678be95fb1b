"""How a regressor does on the part of a recording that it did not learn from, without labels, and what changed from one to another.

    reprojection   detected joints against the regressed ones, as the weak-perspective camera sees them: percent of the box's diagonal
    depth          skin along the bones against the depth camera, each body's median distance aside: mm; where there is a depth camera
    fit            joints against those of bodies fitted over time, which know the frames before and after: mm, hips' midpoint at the origin
    jitter         acceleration of the joints against the pelvis, real motion included: m/s^2
    bones          how much the lengths of a person's bones vary from frame to frame: percent; not part of the verdict, since a stream holds one
                   shape for each person
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.geometry import to_crop, weak_perspective
from hmr_ros.proxies.depth import along_bones
from hmr_ros.skeleton import LIMB_KEYPOINTS, SMPL_BONES
from hmr_ros.training.adaptation.recordings import LONGEST_STEP, People
from hmr_ros.training.adaptation.teacher import Labels, Rays, bone_depths, regress, sure
from hmr_ros.training.metrics import COCO_HIPS, mpjpe, root_aligned

UNITS = {"reprojection": "% of the box", "depth": "mm", "fit": "mm", "jitter": "m/s²", "bones": "%", "mpjpe": "mm", "pa_mpjpe": "mm"}
ROUNDS = 2000  # of the bootstrap
TOLERANCE = 0.01  # of a measure: a change within it is none
_LIMBS = list(LIMB_KEYPOINTS)


class Part(NamedTuple):
    """A part of the recordings: its people, and the bodies fitted to them."""

    people: People
    labels: Labels


def measure(network: nn.Module, skeleton: PosedKeypoints, held: Part) -> dict[str, np.ndarray]:
    """Each measure of every detection (N,), NaN where it is not defined."""
    people, labels = held
    rays, confidence = Rays(people), sure(people)
    rotations, betas, cameras, _ = regress(network, skeleton, people)
    with torch.inference_mode():
        joints, keypoints = (points.numpy() for points in skeleton(torch.from_numpy(rotations), torch.from_numpy(betas)))
        fitted = skeleton(torch.from_numpy(labels.rotations), torch.from_numpy(labels.betas))[1].numpy()
    box, crop = people.rows["box"], people.rows["crop"]
    diagonal = 2 * np.linalg.norm(box[:, 2:] - box[:, :2], axis=1) / crop[:, 2]  # crop coordinates
    off = np.linalg.norm(weak_perspective(keypoints, cameras) - to_crop(people.rows["keypoints"][..., :2], crop), axis=-1) / diagonal[:, None]
    values = {"reprojection": 100 * _mean(off, confidence > 0)}
    if (depths := bone_depths(people, rays, confidence)) is not None:
        measured, valid = (some.numpy().reshape(len(people), -1) for some in depths)
        apart = np.where(valid > 0, along_bones(torch.from_numpy(keypoints))[..., 2].flatten(1).numpy() - measured, np.nan)
        with np.errstate(all="ignore"):
            apart = np.abs(apart - np.nanmedian(apart, axis=1, keepdims=True)) if len(apart) else apart
        values["depth"] = 1000 * _mean(apart, np.isfinite(apart))
    limbs = [root_aligned(torch.from_numpy(some), COCO_HIPS)[:, _LIMBS].numpy() for some in (keypoints, fitted)]
    values["fit"] = np.where(labels.kept, mpjpe(*limbs), np.nan)
    in_camera = (joints - joints[:, :1]) @ rays.axes
    values["jitter"] = _accelerations(in_camera, people)
    values["bones"] = _bone_variation(joints, people)
    return values


def _mean(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mean of the known values of each row (N, K) → (N,), NaN where none is."""
    count = known.sum(1)
    return np.where(count > 0, np.where(known, values, 0).sum(1) / np.maximum(count, 1), np.nan)


def _accelerations(joints: np.ndarray, people: People) -> np.ndarray:
    """(N,) m/s^2, mean over the joints (N, 24, 3), of frames with a neighbour on both sides."""
    passed, same = np.diff(people.stamp), np.diff(people.track) == 0
    near = same & (passed <= LONGEST_STEP) & (passed > 0)
    middle = np.flatnonzero(near[:-1] & near[1:]) + 1
    before, after = ((joints[middle + i] - joints[middle + i - 1]) / passed[middle + i - 1][:, None, None] for i in (0, 1))
    span = 0.5 * (passed[middle - 1] + passed[middle])[:, None, None]
    values = np.full(len(people), np.nan)
    values[middle] = np.linalg.norm((after - before) / span, axis=-1).mean(1)
    return values


def _bone_variation(joints: np.ndarray, people: People) -> np.ndarray:
    """(N,) percent: how far the bones' lengths are from the track's mean."""
    first, second = np.array(SMPL_BONES).T
    lengths = np.linalg.norm(joints[:, second] - joints[:, first], axis=-1)
    values = np.full(len(people), np.nan)
    for track in np.unique(people.track):
        here = people.track == track
        if here.sum() > 2:
            mean = lengths[here].mean(0)
            values[here] = 100 * (np.abs(lengths[here] - mean) / np.maximum(mean, 1e-3)).mean(1)
    return values


@dataclass(frozen=True)
class Change:
    """A measure before and after, and by what share it changed: with its 95 % interval, by bootstrap over tracks (or people)."""

    before: float
    after: float
    change: float
    low: float
    high: float
    groups: int  # tracks or people that were drawn from

    @property
    def verdict(self) -> str:
        return "better" if self.high < 0 else "worse" if self.low > TOLERANCE else "no difference"


def compare(before: np.ndarray, after: np.ndarray, groups: np.ndarray, seed: int = 0) -> Change | None:
    """Values (N,) before and after, of ``groups`` (N,) that are drawn whole. None where no value is known."""
    known = np.isfinite(before) & np.isfinite(after)
    if not known.any():
        return None
    names, group = np.unique(groups[known], return_inverse=True)
    sums = np.stack([np.bincount(group, values[known], len(names)) for values in (before, after, np.ones(len(before)))])
    drawn = np.random.default_rng(seed).integers(len(names), size=(ROUNDS, len(names)))
    old, new, _ = sums[:, drawn].sum(-1)
    low, high = np.percentile(new / np.maximum(old, 1e-12) - 1, [2.5, 97.5])
    mean = sums[:2].sum(1) / sums[2].sum()
    return Change(*map(float, mean), float(mean[1] / max(mean[0], 1e-12) - 1), float(low), float(high), len(names))


def verdict(recording: dict[str, Change], camera: dict[str, Change], others: dict[str, Change]) -> tuple[str, str]:
    """keep, no difference or worse, and why in words. ``recording``: its held-out part; ``camera``: rendered people before its camera;
    ``others``: rendered people before other cameras."""

    def named(changes: dict[str, Change], wanted: str) -> list[str]:
        return [name for name, change in changes.items() if change.verdict == wanted and name != "bones"]

    for what, changes in (("on the held-out part of the recording", recording), ("for rendered people before this camera", camera),
                          ("for rendered people before other cameras", others)):  # fmt: skip
        if worse := named(changes, "worse"):
            return "worse", f"{', '.join(worse)} got worse {what}"
    if better := named(recording, "better"):
        return "keep", f"{', '.join(better)} got better on the held-out part of the recording, and nothing got worse"
    if better := named(camera, "better"):
        return "keep", f"{', '.join(better)} got better for rendered people before this camera; on the recording itself no difference can be told"
    return "no difference", "no measure changed by more than chance"
