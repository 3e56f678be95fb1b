"""Pictures of proxies beside what a regressor makes of them, for TensorBoard and figures."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from hmr_ros.body.model import BodyModel
from hmr_ros.drawing import draw_keypoints
from hmr_ros.networks.paper.net import Resnet18Regressor
from hmr_ros.rasterizer import Backend, rasterize
from hmr_ros.training.paper.proxy_data import ProxyData

SIDE = 128


def consistency_picture(
    regressor: Resnet18Regressor, body: BodyModel, people: ProxyData, rasterizer: Backend = "auto"
) -> np.ndarray:
    """A row for each person: depth and joints as they were seen, as the body gives them, and the body from its left side.

    RGB uint8 (N x SIDE, 3 x SIDE, 3), as TensorBoard takes it; everything else here is BGR.
    """
    training = regressor.training
    regressor.eval()
    device = next(regressor.parameters()).device
    with torch.no_grad():
        joints, depth = people.joints.to(device), people.depth.to(device)
        rotations, betas, camera, _ = (value.float().cpu() for value in regressor(joints, depth))
        posed = body(rotations, betas)
    regressor.train(training)
    rows = [
        np.hstack([
            with_skeleton(depth_picture(people.depth[i].numpy()), people.joints[i].numpy()),
            *body_pictures(posed.vertices[i], posed.keypoints[i], camera[i], body.faces, rasterizer),
        ])
        for i in range(len(people.joints))
    ]  # fmt: skip
    return np.ascontiguousarray(np.vstack(rows)[..., ::-1])


def body_pictures(
    vertices: Tensor, keypoints: Tensor, camera: Tensor, faces: np.ndarray, rasterizer: Backend = "auto"
) -> list[np.ndarray]:
    """Depth of a body as its camera sees it, with its joints, and from the side: (V, 3), (17, 3), (3,)."""
    pictures = []
    middle = vertices.mean(0)
    for side in (False, True):
        views = []
        for points in (vertices, keypoints):
            x, y, z = (points if not side else _from_the_side(points, middle)).unbind(-1)
            u, v = camera[0] * (x + camera[1]), camera[0] * (y + camera[2])
            views.append(torch.stack([(u + 1) * SIDE / 2 - 0.5, (v + 1) * SIDE / 2 - 0.5, z], dim=-1).numpy())
        depth = rasterize(views[0], faces, (SIDE, SIDE), backend=rasterizer).depth
        picture = depth_picture(np.where(depth != 0, depth + 10, 0))
        joints = np.column_stack([2 * (views[1][:, :2] + 0.5) / SIDE - 1, np.ones(17)])
        pictures.append(with_skeleton(picture, joints))
    return pictures


def _from_the_side(points: Tensor, middle: Tensor) -> Tensor:
    x, y, z = (points - middle).unbind(-1)
    return torch.stack([z, y, -x], dim=-1) + middle


def depth_picture(depth: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Depth (S, S) metres as grey, from its nearest (dark) to its farthest value (bright), black where unknown: uint8
    (side, side, 3)."""
    depth = cv2.resize(np.asarray(depth, np.float32), (side, side), interpolation=cv2.INTER_NEAREST)
    known = depth > 0
    grey = np.zeros((side, side), np.uint8)
    if known.any():
        near, far = depth[known].min(), depth[known].max()
        grey[known] = 40 + 215 * (depth[known] - near) / max(far - near, 1e-6)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


def with_skeleton(picture: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Bones of (17, 3) joints in crop coordinates over a BGR picture of the crop; joints without confidence are left out."""
    pixels = (joints[:, :2] + 1) * len(picture) / 2 - 0.5
    return draw_keypoints(picture, np.column_stack([pixels, joints[:, 2]]), min_confidence=1e-6, thickness=2)
