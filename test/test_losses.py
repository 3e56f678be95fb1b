"""The self-consistency losses against the paper's equations written out anew, and the remedy against w -> 0."""

import numpy as np
import pytest
import torch
from smplx.lbs import batch_rodrigues

from hmr_ros.body.model import BodyModel
from hmr_ros.networks.paper.reliability import Reliability
from hmr_ros.proxies.depth import DEPTH_BONES, along_bones
from hmr_ros.rasterizer import rasterize
from hmr_ros.training.paper.coarse_body import CoarseBody
from hmr_ros.training.metrics import auroc
from hmr_ros.training.losses import consistency
from hmr_ros.training.losses.consistency import (
    DepthPoints,
    LossConfig,
    collapse_penalty,
    depth_errors,
    depth_loss,
    joint_loss,
    point_reliability,
    read_depth,
    self_consistency,
)

PLAIN = LossConfig(weighted=False, beta=0.0)  # nothing but equations 5 and 6
SIZE = 64


@pytest.fixture(scope="module")
def body():
    return CoarseBody(BodyModel.load(None))


def pose_of(*bent):
    """Axis-angle (1, 24, 3) of a body that stands upright and faces the camera, with some joints bent."""
    pose = torch.zeros(1, 24, 3)
    pose[0, 0, 0] = torch.pi
    for joint, *vector in bent:
        pose[0, joint] = torch.tensor(vector)
    return pose


def shown(body, pose, betas, camera):
    """vertices (1, V, 3) in camera axes and projected joints (1, 17, 2)."""
    posed = body(batch_rodrigues(pose.reshape(-1, 3)).reshape(-1, 24, 3, 3), betas)
    return posed.vertices, camera[:, None, :1] * (posed.keypoints[..., :2] + camera[:, None, 1:])


def proxies_of(body, vertices, projected, camera):
    """What a perfect detector and a perfect depth estimator would say of a body: joints (1, 17, 3), depth (1, SIZE, SIZE)."""
    u, v = (camera[:, None, :1] * (vertices[..., :2] + camera[:, None, 1:]))[0].T
    pixels = torch.stack([(u + 1) * SIZE / 2 - 0.5, (v + 1) * SIZE / 2 - 0.5, vertices[0, :, 2] + 4], dim=1)
    depth = rasterize(pixels.numpy().astype(np.float32), body.faces, (SIZE, SIZE)).depth
    joints = torch.cat([projected, torch.ones_like(projected[..., :1])], dim=-1)
    return joints, torch.from_numpy(np.asarray(depth, np.float32))[None]


@pytest.fixture(scope="module")
def truth(body):
    """A bent person: pose, betas, camera, joints, depth."""
    pose = pose_of((16, 0.0, -0.7, -0.6), (17, 0.0, 0.0, 0.9), (1, -0.6, 0.0, 0.0), (4, 0.7, 0.0, 0.0), (3, 0.3, 0.2, 0.0))
    betas, camera = torch.tensor([[0.8, -0.5] + 8 * [0.0]]), torch.tensor([[0.8, 0.05, -0.25]])
    vertices, projected = shown(body, pose, betas, camera)
    return pose, betas, camera, *proxies_of(body, vertices, projected, camera)


def losses(body, truth, config=PLAIN, pose=None, betas=None, camera=None, joints=None, depth=None, **more):
    """Losses of a body, by default the true one, against the proxies of the true one."""
    given = (pose, betas, camera, joints, depth)
    pose, betas, camera, joints, depth = (old if new is None else new for old, new in zip(truth, given))
    vertices, projected = shown(body, pose, betas, camera)
    reliability = more.pop("reliability", None)
    return self_consistency(joints, depth, projected, vertices, camera, betas, reliability, body.faces,
                            config.for_depth("sensor_depth"), **more)  # fmt: skip


def test_the_joint_loss_is_equation_5():
    rng = np.random.default_rng(0)
    joints, projected = rng.normal(size=(4, 17, 3)), rng.normal(size=(4, 17, 2))
    joints[..., 2] = rng.uniform(0.3, 1, (4, 17))
    joints[:, 3] = 0  # not seen
    plain = [sum(sum((j[:2] - p) ** 2) for j, p in zip(a, b) if j[2] > 0) for a, b in zip(joints, projected)]
    weighted = [sum(j[2] * sum((j[:2] - p) ** 2) for j, p in zip(a, b)) for a, b in zip(joints, projected)]
    a, b = torch.from_numpy(joints), torch.from_numpy(projected)
    np.testing.assert_allclose(joint_loss(a, b, by_confidence=False), plain)
    np.testing.assert_allclose(joint_loss(a, b), weighted)


def test_points_lie_evenly_along_bones_and_keep_both_joints():
    joints = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 17, 2)))
    points = along_bones(joints).numpy()
    np.testing.assert_array_equal(along_bones(joints.numpy()), points)
    for i, (a, b) in enumerate(DEPTH_BONES):
        np.testing.assert_allclose(points[:, i, 0], joints[:, a])
        np.testing.assert_allclose(points[:, i, -1], joints[:, b])
        steps = np.diff(points[:, i], axis=1)
        np.testing.assert_allclose(steps, np.broadcast_to(steps[:, :1], steps.shape), atol=1e-12)
    assert points.shape[1] * points.shape[2] == 60


def test_depth_is_read_at_the_nearest_pixel_and_is_unknown_outside():
    depth = torch.arange(1.0, 33).reshape(2, 4, 4)
    centres = (torch.arange(4) + 0.5) / 2 - 1  # of the pixels, in crop coordinates
    x, y = centres[1] + 0.2, centres[2] - 0.2  # a pixel is 0.5 wide
    outside = [(-1.01, 0), (1.01, 0), (0, -1.01), (0, 1.01), (float("nan"), 0), (float("inf"), 0)]
    points = torch.tensor([[(x, y), (centres[3], centres[0]), *outside]]).expand(2, -1, -1)
    expected = torch.tensor([[10.0, 4.0], [26.0, 20.0]])
    assert torch.equal(read_depth(points, depth), torch.cat([expected, torch.zeros(2, len(outside))], dim=1))


def test_a_point_has_the_reliability_of_the_nearer_joint():
    w = torch.rand(3, 12, generator=torch.Generator().manual_seed(0))
    points = point_reliability(w).reshape(3, len(DEPTH_BONES), 5)
    for i, (a, b) in enumerate(DEPTH_BONES):
        first, last = w[:, a - 5], w[:, b - 5]
        expected = torch.stack([first, first, (first + last) / 2, last, last], dim=1)
        assert torch.allclose(points[:, i], expected)


def test_the_depth_losses_are_equations_6_and_7():
    rng = np.random.default_rng(2)
    proxy, rendered, w = rng.normal(4, 0.3, (3, 60)), rng.normal(0, 0.3, (3, 60)), rng.uniform(0, 1, (3, 60))
    known = rng.random((3, 60)) < 0.7
    known[2] = False
    points = DepthPoints(*map(torch.from_numpy, (proxy, rendered, known)))
    for align in ("shift", "none"):
        plain, weighted = [], []
        for i in range(3):
            difference = (proxy[i] - rendered[i])[known[i]]
            if align == "shift" and len(difference):
                difference = difference - np.sort(difference)[(len(difference) - 1) // 2]
            plain.append((difference**2).sum())
            weighted.append((w[i][known[i]] * difference**2).sum())
        errors = depth_errors(points, LossConfig(align=align))
        np.testing.assert_allclose(depth_loss(errors, points.known), plain)
        np.testing.assert_allclose(depth_loss(errors, points.known, torch.from_numpy(w)), weighted)
    squares, robust = (depth_errors(points, LossConfig(robust=metres)) for metres in (None, 0.2))
    np.testing.assert_allclose(robust, squares / (1 + squares / 0.04))


def test_the_whole_is_equation_8_with_its_weights_and_what_is_added_to_it(body, truth):
    other = {"pose": pose_of((16, 0.0, 0.5, 0.0)), "betas": torch.full((1, 10), 0.5)}
    w = torch.linspace(0.2, 0.9, 12)[None]
    assert (LossConfig().alpha_joint, LossConfig().alpha_depth) == (1.0, 0.04)  # the paper's
    bare = losses(body, truth, LossConfig(collapse=0, beta=0), reliability=w, **other)
    assert bare.joint > 0.01 and bare.depth > 0.01
    assert bare.total.item() == pytest.approx(bare.joint.item() + 0.04 * bare.depth.item(), rel=1e-5)
    unweighted = losses(body, truth, PLAIN, **other)
    assert 0.2 * unweighted.depth < bare.depth < 0.9 * unweighted.depth
    shaped = LossConfig(collapse=0, beta=0.1, beta_from_epoch=10)
    assert losses(body, truth, shaped, reliability=w, epoch=9.9, **other).total == bare.total
    assert losses(body, truth, shaped, reliability=w, epoch=10, **other).total.item() == pytest.approx(bare.total.item() + 0.25, rel=1e-5)
    kept = losses(body, truth, LossConfig(collapse=0.5, beta=0), reliability=torch.full((1, 12), 0.5), **other)
    points = round(60 * kept.known.item())
    assert kept.total.item() == pytest.approx(kept.joint.item() + 0.04 * (kept.depth.item() + 0.5 * points * np.log(2)), rel=1e-5)


def test_the_truth_scores_next_to_nothing_and_every_change_of_it_more(body, truth):
    pose, betas, camera = truth[:3]
    right = losses(body, truth)
    # The sensor's pixels are 4 cm wide: that much is left of the depth term, a centimetre and a half a point.
    assert right.joint < 1e-9 and right.depth < 60 * 0.015**2 and right.known > 0.8
    changes = {
        "arm": {"pose": pose + torch.zeros(1, 24, 3).index_fill(1, torch.tensor([18]), 0.6)},
        "arm forwards": {"pose": pose_of((16, 0.0, 0.7, -0.6), *((j, *pose[0, j].tolist()) for j in (17, 1, 4, 3)))},
        "shape": {"betas": betas + 1},
        "camera": {"camera": camera + torch.tensor([[0.0, 0.05, 0.0]])},
    }
    for name, change in changes.items():
        assert losses(body, truth, **change).total > right.total + 1e-3, name
    # An arm bent to the front instead of the back looks much the same from here: only depth tells.
    forwards = losses(body, truth, **changes["arm forwards"])
    assert forwards.depth > 10 * right.depth


def test_a_constant_added_to_depth_changes_nothing_unless_depths_are_absolute(body, truth):
    depth = truth[4]
    moved = torch.where(depth > 0, depth + 0.75, depth)
    for points in ("bones", "pixels"):
        config = LossConfig(weighted=False, points=points)
        one, two = losses(body, truth, config), losses(body, truth, config, depth=moved)
        assert two.depth.item() == pytest.approx(one.depth.item(), abs=1e-4) and two.known == one.known
    absolute = LossConfig(weighted=False, align="none")
    assert losses(body, truth, absolute, depth=moved).depth > 10 + losses(body, truth, absolute).depth


def test_points_outside_the_mask_beside_the_mesh_or_of_unseen_joints_drop_out_and_are_counted(body, truth):
    joints, depth = truth[3], truth[4]
    everything = losses(body, truth).known.item()
    left, unseen = depth.clone(), joints.clone()
    left[..., : SIZE // 2] = 0
    half = losses(body, truth, depth=left)
    assert 0.3 * everything < half.known < 0.7 * everything and half.depth < 60 * 0.015**2
    unseen[:, 7] = 0  # the left elbow: two bones
    assert losses(body, truth, joints=unseen).known.item() == pytest.approx(everything - 10 / 60, abs=2.5 / 60)
    away = torch.tensor([[0.8, 5.0, -0.25]], requires_grad=True)
    aside = losses(body, truth, camera=away)
    # Points move with the body's own joints: what is asked is still there. A body that is asked beside itself is not.
    assert aside.known.item() == pytest.approx(everything, abs=0.1)
    grid = losses(body, truth, LossConfig(weighted=False, points="pixels"), camera=away)
    assert grid.known == 0 and grid.depth == 0
    nothing = losses(body, truth, LossConfig(), depth=torch.zeros_like(depth), camera=away, reliability=torch.full((1, 12), 0.5))
    assert nothing.known == 0 and nothing.depth == 0
    nothing.total.backward()
    assert torch.isfinite(nothing.total) and torch.isfinite(away.grad).all()


@pytest.mark.parametrize("rasterizer", ["numba", "torch", "pytorch3d"])
def test_the_rasterizer_that_is_asked_for_decides_what_depth_points_see(body, truth, rasterizer, monkeypatch):
    if rasterizer == "pytorch3d":
        pytest.importorskip("pytorch3d")
    asked = []
    visible_face = consistency.visible_face
    monkeypatch.setattr(consistency, "visible_face", lambda *a, **k: asked.append(k["backend"]) or visible_face(*a, **k))
    found = {}
    for name in ("auto", rasterizer):
        camera = (truth[2] * 1.05).requires_grad_()
        found[name] = losses(body, truth, LossConfig(weighted=False, beta=0, align="none", rasterizer=name), camera=camera)
        found[name].total.backward()
        found[name] = *found[name], camera.grad
    assert asked == ["auto", rasterizer] and found["auto"][2] > 0
    near = {"rtol": 0.1, "atol": 0.02} if rasterizer == "pytorch3d" else {"rtol": 0, "atol": 0}  # pytorch3d rounds points to a grid
    for ours, theirs in zip(found["auto"], found[rasterizer]):
        torch.testing.assert_close(theirs, ours, **near)


@pytest.mark.parametrize("config", [
    LossConfig(weighted=False, alpha_depth=0, beta=0), LossConfig(weighted=False, alpha_joint=0, alpha_depth=1, beta=0),
    LossConfig(weighted=False, alpha_joint=0, alpha_depth=1, beta=0, points="pixels"),
])  # fmt: skip
def test_gradients_reach_pose_shape_and_camera(config, body, truth):
    unknown = {"pose": (truth[0] + 0.1).requires_grad_(), "betas": (truth[1] + 0.3).requires_grad_()}
    unknown["camera"] = (truth[2] * 1.1).requires_grad_()
    losses(body, truth, config, **unknown).total.backward()
    for name, value in unknown.items():
        # Points along bones move with the camera: the same places of the body are asked, whatever it is.
        nothing = name == "camera" and config.points == "bones" and config.alpha_joint == 0
        assert torch.isfinite(value.grad).all() and (value.grad.abs().max() > 1e-4) != nothing, name
    assert (unknown["pose"].grad[0, [0, 1, 4, 16, 17]].abs().amax(-1) > 1e-5).all()  # those with bones below them


def learned_reliability(collapse):
    """Train the network on people with displaced wrists and ankles, whose depth errors are large there: w and who is wrong."""
    rng = np.random.default_rng(0)
    rest = np.zeros((17, 2))
    rest[5:] = [(0.2, -0.5), (-0.2, -0.5), (0.3, -0.2), (-0.3, -0.2), (0.35, 0.1), (-0.35, 0.1), (0.12, 0.05), (-0.12, 0.05),
                (0.13, 0.45), (-0.13, 0.45), (0.14, 0.85), (-0.14, 0.85)]  # fmt: skip
    joints = np.ones((256, 17, 3), np.float32)
    joints[..., :2] = rest + rng.normal(0, 0.03, (256, 17, 2))
    wrong = np.zeros((256, 12), bool)
    wrong[:, [4, 5, 10, 11]] = rng.random((256, 4)) < 0.3
    joints[:, 5:, :2] += wrong[..., None] * 1.2 * (joints[:, 5:, :2] - np.roll(joints[:, 5:, :2], 2, axis=1))  # bones too long
    errors = point_reliability(torch.from_numpy(np.where(wrong, 0.3**2, 0.03**2).astype(np.float32)))
    joints, depth, known = torch.from_numpy(joints), torch.full((256, 8, 8), 4.0), torch.ones(256, 60, dtype=torch.bool)
    torch.manual_seed(0)
    network = Reliability()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        w = point_reliability(network(joints, depth))
        (depth_loss(errors, known, w) + collapse * collapse_penalty(w, known)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        return network(joints, depth).numpy(), wrong


def test_reliability_collapses_without_the_remedy_and_tells_right_from_wrong_with_it():
    w, _ = learned_reliability(collapse=0.0)
    assert w.max() < 0.02  # equation 7 alone is smallest where nothing counts
    w, wrong = learned_reliability(collapse=0.002)
    assert w.mean(0).min() > 0.5 and w[~wrong].mean() > 0.8  # of every joint over people
    assert 0.005 < w[wrong].mean() < 0.2  # lambda / error = 0.02 where it can tell
    ends = [4, 5, 10, 11]
    assert w[:, ends][~wrong[:, ends]].mean() > 3 * w[wrong].mean()
    assert auroc(w[:, ends].ravel(), ~wrong[:, ends].ravel()) > 0.9


def test_the_remedy_for_a_depth_camera_prevents_collapse_though_it_hardly_tells_right_from_wrong_here():
    w, wrong = learned_reliability(collapse=LossConfig().for_depth("sensor_depth").collapse)
    assert w[~wrong].mean() > 0.8 and w.mean(0).min() > 0.5
    # Ten times less tells them apart on these data (above); the default gave 0.79 for wrong joints when it was measured.
    assert w[wrong].mean() < w[~wrong].mean() - 0.05
