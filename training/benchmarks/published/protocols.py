"""What MPJPE and PA-MPJPE mean on 3DPW and Human3.6M: the same two words, counted differently by different papers.

SPIN's and VIBE's definitions as their published code has them (SPIN `eval.py`, VIBE `lib/core/evaluate.py`). Everything is
numbers to numbers: no pictures, no networks. Predictions are 17 joints regressed from vertices, in camera axes, metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.geometry import matrix_from_rotvec
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.data.readers.records import H36M_TO_J14, Record
from hmr_ros.training.metrics import J14_HIPS, mpjpe, pa_mpjpe, root

ProtocolName = Literal["spin", "vibe", "paper"]


@dataclass(frozen=True)
class Protocol:
    """Who is counted, against which ground truth, and what is put at the origin."""

    summary: str
    gendered: bool  # ground truth by SMPL of the person's gender, else by the neutral one
    pelvis_joint: bool  # root is the regressed joint 0, else the hips' midpoint
    valid_only: bool  # 3DPW: only frames with a valid camera pose
    min_visible: int  # more than so many of the 12 limb joints detected above 0.3; -1: not asked


_SPIN = {"gendered": True, "pelvis_joint": True, "valid_only": True, "min_visible": -1}
PROTOCOLS: dict[ProtocolName, Protocol] = {
    "spin": Protocol("SPIN's: gendered truth, root is the regressed pelvis, frames with a valid camera", **_SPIN),
    "vibe": Protocol(
        "VIBE's: neutral truth, root between the hips, more than 6 limb joints visible", False, False, False, 6
    ),
    "paper": Protocol("the paper does not define its own; counted as SPIN's", **_SPIN),
}


def counts(record: Record, protocol: Protocol) -> bool:
    """Whether a person is part of the benchmark. Where a dataset has no 2D joints, visibility is not asked."""
    if protocol.valid_only and not record.valid:
        return False
    if protocol.min_visible < 0 or record.keypoints is None:
        return True
    return int((record.keypoints[list(LIMB_KEYPOINTS), 2] > 0.3).sum()) > protocol.min_visible


def regress_joints(vertices: np.ndarray, regressor: np.ndarray) -> np.ndarray:
    """Vertices (N, V, 3), J_regressor_h36m (17, V) → Human3.6M's 17 joints (N, 17, 3)."""
    return np.einsum("jv,nvc->njc", regressor, vertices, optimize=True)


@torch.inference_mode()
def ground_truth(
    records: Sequence[Record], bodies: dict[str, BodyModel], regressor: np.ndarray, protocol: Protocol, batch: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """14 joints (N, 14, 3) and root (N, 3) of the records: those that the dataset has, else of its SMPL pose and shape.

    Raises ValueError for a record with neither.
    """
    joints, roots = np.empty((len(records), 14, 3), np.float32), np.empty((len(records), 3), np.float32)
    to_pose: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        if record.joints is not None:
            joints[row], roots[row] = record.joints, _root(record.joints[None], record.root, protocol)
        elif record.pose is not None and record.betas is not None:
            to_pose.setdefault(record.gender if protocol.gendered else "neutral", []).append(row)
        else:
            raise ValueError(f"{record.name}: no 3D joints and no SMPL pose to compare with")
    for gender, rows in to_pose.items():
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            rotations = torch.from_numpy(matrix_from_rotvec(np.stack([records[row].pose for row in some])))
            betas = torch.from_numpy(np.stack([records[row].betas for row in some]))
            h36m = regress_joints(bodies[gender](rotations, betas).vertices.numpy(), regressor)
            joints[some] = h36m[:, H36M_TO_J14]
            roots[some] = _root(joints[some], h36m[:, 0], protocol)
    return joints, roots


def errors(
    predicted: np.ndarray, joints: np.ndarray, roots: np.ndarray, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """MPJPE and PA-MPJPE (N,), millimetres, of predicted joints (N, 17, 3) against ``ground_truth``'s."""
    of_body = predicted[:, H36M_TO_J14]
    ours = of_body - _root(of_body, predicted[:, 0], protocol)[:, None]
    truth = joints - roots[:, None]
    return mpjpe(ours, truth), pa_mpjpe(ours, truth)


def _root(joints: np.ndarray, pelvis: np.ndarray | None, protocol: Protocol) -> np.ndarray:
    if not protocol.pelvis_joint:
        return root(joints, J14_HIPS)
    if pelvis is None:
        raise ValueError("these annotations have no pelvis, which the protocols spin and paper put at the origin; use vibe")
    return pelvis
