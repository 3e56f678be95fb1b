"""The coarse body: its vertices are the body's own, its surface lies where the body's does, and it is closed as that is."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hmr_ros.body.model import BodyModel
from hmr_ros.proxies.depth import DEPTH_BONES
from hmr_ros.rasterizer import depth_at, visible_face
from hmr_ros.training.paper.coarse_body import CoarseBody, coarsen

PIXELS = torch.tensor([100.0, 100.0, 1.0])  # a body two metres high is 200 px high


@pytest.fixture(scope="module")
def posed():
    """Sixteen people in moderate random poses, from all sides."""
    body = BodyModel.load(None)
    rng = np.random.default_rng(5)
    vectors = rng.normal(0, 0.25, (16, 24, 3))
    turned = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(16, 24, 3, 3)
    around = Rotation.from_euler("y", np.linspace(0, 6, 16)[:, None])
    turned[:, 0] = (Rotation.from_rotvec([np.pi, 0, 0]) * around).as_matrix()
    rotations = torch.tensor(turned, dtype=torch.float32)
    betas = torch.tensor(rng.normal(0, 1, (16, 10)), dtype=torch.float32)
    return SimpleNamespace(body=body, coarse=CoarseBody(body), rotations=rotations, betas=betas)


def test_its_vertices_and_joints_are_those_of_the_whole_body(posed):
    whole, coarse = posed.body(posed.rotations, posed.betas), posed.coarse(posed.rotations, posed.betas)
    assert 1000 <= len(posed.coarse.index) <= 1200
    for ours, theirs in (
        (coarse.vertices, whole.vertices[:, posed.coarse.index]),
        (coarse.keypoints, whole.keypoints),
        (coarse.joints, whole.joints),
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)  # metres; sums in another order


def test_pose_blend_shapes_move_it_too(posed):
    body = BodyModel.load(None)
    body.smpl.posedirs = torch.randn(body.smpl.posedirs.shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    body.has_pose_blendshapes = True
    coarse = CoarseBody(body)
    ours = coarse(posed.rotations, posed.betas).vertices
    torch.testing.assert_close(ours, body(posed.rotations, posed.betas).vertices[:, coarse.index], atol=1e-5, rtol=0)


def test_depth_along_the_bones_is_that_of_the_whole_body_within_millimetres(posed):
    whole, coarse = posed.body(posed.rotations, posed.betas), posed.coarse(posed.rotations, posed.betas)
    ends = whole.keypoints[..., :2][:, np.array(DEPTH_BONES)]  # (16, 12, 2, 2)
    points = 100 * (ends[:, :, 0] * 0.4 + ends[:, :, 1] * 0.6)
    depths = []
    for vertices, faces in ((whole.vertices, posed.body.faces), (coarse.vertices, posed.coarse.faces)):
        seen = visible_face(points, vertices * PIXELS, faces)
        depths.append(depth_at(points, seen, vertices * PIXELS, faces).where(seen >= 0, torch.nan))
    error = (1000 * (depths[1] - depths[0])).abs()
    known = ~error.isnan()
    assert known.sum() >= 0.98 * (~depths[0].isnan()).sum()
    assert error[known].median() < 3  # measured 1.4 on the poses of people
    assert error[known].quantile(0.95) < 12  # measured 6.6; the rest are points near an outline


def test_gradients_reach_rotations_and_shape(posed):
    rotations, betas = posed.rotations[:1].clone().requires_grad_(), posed.betas[:1].clone().requires_grad_()
    posed.coarse(rotations, betas).vertices.square().sum().backward()
    assert rotations.grad.flatten(2).norm(dim=-1)[0].min() > 0 and betas.grad.abs().min() > 0


def test_faces_keep_their_winding_and_leave_no_holes():
    """A closed ball stays closed: every edge is walked once in each direction, and its volume is nearly kept."""
    around, polar = np.meshgrid(np.linspace(0, 2 * np.pi, 40, endpoint=False), np.linspace(0, np.pi, 24)[1:-1])
    rings = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], -1)
    vertices = np.concatenate([rings.reshape(-1, 3), [[0, 0, 1], [0, 0, -1]]])
    index = np.arange(22 * 40).reshape(22, 40)
    here, right, below, beside = index[:-1], np.roll(index, -1, 1)[:-1], index[1:], np.roll(index, -1, 1)[1:]
    caps = (
        np.stack([np.full(40, 880), index[0], np.roll(index[0], -1)], -1),
        np.stack([np.full(40, 881), np.roll(index[-1], -1), index[-1]], -1),
    )
    halves = np.stack([here, below, right], -1).reshape(-1, 3), np.stack([right, below, beside], -1).reshape(-1, 3)
    chosen, faces = coarsen(vertices, np.concatenate([*caps, *halves]), np.zeros((len(vertices), 24)), 200)
    a, b, c = vertices[chosen][faces].transpose(1, 0, 2)
    assert np.einsum("ij,ij->i", np.cross(a, b), c).sum() / 6 == pytest.approx(4 / 3 * np.pi, rel=0.08)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    forward, backward = ({tuple(edge) for edge in pairs} for pairs in (edges, edges[:, ::-1]))
    assert len(forward) == len(edges) and forward == backward
