"""The body with a sixth of its vertices: what losses on depth need of a surface, several times cheaper than all of it.

Vertices are chosen farthest-first over the T-pose and joined where their territories on the mesh touch (the dual of a
geodesic Voronoi diagram), so every one is a vertex of the whole body and moves exactly as it does there. Computed on
load for whatever body the user brings. Not for drawing: fingers and faces are blunt.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor, nn

from hmr_ros.body.model import BodyModel
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.rasterizer import vertex_normals
from hmr_ros.skeleton import SMPL_JOINTS

VERTICES = 1200
# Parts on which no depth is asked for get fewer vertices: lengths there count this much.
COARSER = {**dict.fromkeys(("left_hand", "right_hand", "left_foot", "right_foot"), 0.4), "head": 0.6}
ROUNDNESS = 0.1  # metres that a normal turned by one radian counts as: more vertices where the surface curves


class CoarseOutput(NamedTuple):
    """Metres, in the axes the global rotation turns into, as in hmr_ros.body.model.BodyOutput."""

    vertices: Tensor  # (B, V', 3)
    keypoints: Tensor  # (B, 17, 3), COCO's order, those of the whole body
    joints: Tensor  # (B, 24, 3), SMPL's order


class CoarseBody(nn.Module):
    """(rotations (B, 24, 3, 3), betas (B, 10)) → CoarseOutput; differentiable in both.

    `index` (V',) int64 are the vertices of the whole body, `faces` (F', 3) int32 index them; both numpy.
    """

    def __init__(self, body: BodyModel, vertices: int = VERTICES):
        super().__init__()
        smpl = body.smpl
        self.index, self.faces = coarsen(
            smpl.v_template.cpu().numpy(), body.faces, smpl.lbs_weights.cpu().numpy(), vertices
        )
        keep = torch.from_numpy(self.index).to(smpl.v_template.device)
        self.skeleton = PosedKeypoints(body)
        # Vertices come last, so that skinning is arithmetic on long rows, not on triples.
        self.register_buffer("template", smpl.v_template[keep].T.contiguous())
        self.register_buffer("dirs", smpl.shapedirs[keep].permute(2, 1, 0).flatten(1).contiguous())  # (10, 3 V')
        self.register_buffer("weights", smpl.lbs_weights[keep].T.contiguous())
        pose_dirs = smpl.posedirs.unflatten(1, (-1, 3))[:, keep].mT.flatten(1) if body.has_pose_blendshapes else None
        self.register_buffer("pose_dirs", pose_dirs)

    def forward(self, rotations: Tensor, betas: Tensor) -> CoarseOutput:
        """rotations (B, 24, 3, 3): [0] the global one, then SMPL's joints relative to their parents; betas (B, 10)."""
        shaped = self.template + (betas @ self.dirs).unflatten(1, (3, -1))
        if self.pose_dirs is not None:
            identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
            shaped = shaped + ((rotations[:, 1:] - identity).flatten(1) @ self.pose_dirs).unflatten(1, (3, -1))
        posed = self.skeleton.parts(rotations, betas)
        rest_joints = self.skeleton.joint_template + torch.einsum("jck,bk->bjc", self.skeleton.joint_dirs, betas)
        offset = posed.joints - (posed.world @ rest_joints.unsqueeze(-1)).squeeze(-1)
        transforms = torch.cat((posed.world, offset.unsqueeze(-1)), -1).flatten(2)  # (B, 24, 12): [R | t]
        turned, moved = (transforms.mT @ self.weights).unflatten(1, (3, 4)).split([3, 1], dim=2)  # (B, 3, 4, V')
        vertices = (turned * shaped.unsqueeze(1)).sum(2) + moved.squeeze(2)
        return CoarseOutput(vertices.mT.contiguous(), posed.keypoints, posed.joints)


def coarsen(template: np.ndarray, faces: np.ndarray, weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A coarser triangulation over some of the vertices.

    template (V, 3) metres, faces (F, 3) and skinning weights (V, 24) → index (V',) int64, sorted, and faces (F', 3)
    int32 over it, wound as before. V' is a little below `count`: chosen vertices that end in no face are dropped.
    """
    scale = np.ones(len(template))
    for joint, length in COARSER.items():
        scale -= weights[:, SMPL_JOINTS.index(joint)] * (1 - length)
    features = np.hstack([template, ROUNDNESS * vertex_normals(template, faces)]) * scale[:, None]
    chosen = _farthest_first(features, np.unique(faces), count)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    lengths = np.linalg.norm(features[edges[:, 0]] - features[edges[:, 1]], axis=1) + 1e-9
    graph = coo_array((lengths, edges.T), shape=2 * (len(template),)).tocsr()
    _, _, owner = dijkstra(graph, directed=False, indices=chosen, min_only=True, return_predecessors=True)
    corners = owner[faces]
    first, second, third = corners.T
    corners = corners[(corners >= 0).all(1) & (first != second) & (second != third) & (third != first)]
    index, corners = np.unique(corners, return_inverse=True)
    corners = corners.reshape(-1, 3)
    _, once = np.unique(np.sort(corners, 1), axis=0, return_index=True)
    return index.astype(np.int64), corners[np.sort(once)].astype(np.int32)


def _farthest_first(features: np.ndarray, candidates: np.ndarray, count: int) -> np.ndarray:
    """Of the candidates, `count` that leave none far away (Gonzalez 1985)."""
    points = features[candidates].astype(np.float32)
    chosen, distance = [int(points[:, 1].argmin())], np.full(len(points), np.inf, np.float32)
    for _ in range(min(count, len(points)) - 1):
        away = points - points[chosen[-1]]
        np.minimum(distance, np.einsum("ij,ij->i", away, away), out=distance)
        chosen.append(int(distance.argmax()))
    return candidates[chosen].astype(np.int64)
