"""The paper's uncertainty module (equation 4): how far each joint's proxies can be trusted, from their own consistency.

A body is symmetric: where the left upper arm is longer in the image than the right one, depth must say why. Lengths of ten bones
and depth differences of their ends go through layers of 128, 64 and 12 neurons. Nothing here prevents w → 0; see
``collapse_penalty`` in training/losses/consistency.py.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hmr_ros.networks.paper.maps import depth_at_joints
from hmr_ros.skeleton import COCO_BONES, COCO_KEYPOINTS, LIMB_KEYPOINTS

Inputs = Literal["paper", "extended"]
_FIRST, _LAST = (list(ends) for ends in zip(*COCO_BONES))
_COUNTS = {"paper": 2 * len(COCO_BONES), "extended": 3 * len(COCO_BONES) + 4 * len(COCO_KEYPOINTS)}
_DEPTH_SCALE = 0.25  # metres that become 1, about what the ends of a bone differ by
_CLIP = 2.0  # metres: longer differences carry no more information


class Reliability(nn.Module):
    """w = Sigmoid(FC(FC(v_Len ⊕ v_DD))): (joints (B, 17, 3), depth (B, H, W) trimmed) → (B, 12) in (0, 1), COCO 5..16.

    ``inputs``: "paper" (20) or "extended" (98, not the paper's: signed depth differences, coordinates, confidences and whether
    depth is known). What either allows with labels is measured by ``hmr-ros ablate`` (training/paper/reliability_ceiling.py).
    """

    def __init__(self, inputs: Inputs = "paper"):
        super().__init__()
        if inputs not in _COUNTS:
            raise ValueError(f"reliability inputs are {inputs!r}, expected one of {', '.join(_COUNTS)}")
        self.inputs = inputs
        self.layers = nn.Sequential(
            nn.Linear(_COUNTS[inputs], 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, len(LIMB_KEYPOINTS))
        )

    def forward(self, joints: Tensor, depth: Tensor) -> Tensor:
        return self.layers(relations(joints, depth, self.inputs)).sigmoid()


def relations(joints: Tensor, depth: Tensor, inputs: Inputs = "paper") -> Tensor:
    """v_Len ⊕ v_DD (B, 20): 2D lengths of the ten bones in crop units (the crop follows the person's size, so they are
    normalised), and the absolute depth differences of their ends, in quarters of a metre; 0 where an end is not seen.
    "extended" appends what its name says, (B, 98)."""
    z, known = depth_at_joints(joints, depth)
    sure = joints[..., 2] > 0
    both = sure[:, _FIRST] & sure[:, _LAST]
    lengths = (joints[:, _FIRST, :2] - joints[:, _LAST, :2]).norm(dim=-1) * both
    signed = (z[:, _FIRST] - z[:, _LAST]).clamp(-_CLIP, _CLIP) / _DEPTH_SCALE * (known[:, _FIRST] & known[:, _LAST])
    if inputs == "paper":
        return torch.cat([lengths, signed.abs()], dim=1)
    coordinates = (joints[..., :2] * sure[..., None]).flatten(1)
    return torch.cat([lengths, signed.abs(), signed, coordinates, joints[..., 2], known.to(joints)], dim=1)
