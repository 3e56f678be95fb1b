"""How good a pose prior is: what it reproduces, how evenly its box is filled, and whether what fills the box is human.

Held-out poses are the frames of the recorded clips of the validation and test splits, as they are, and everyday situations
of another seed; errors are millimetres on the mean body with the pelvis fixed and turned by nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from hmr_ros.body.model import BodyModel
from hmr_ros.drawing import draw_grid
from hmr_ros.networks.paper.prior import JOINTS, LATENT, PosePrior, rotations
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.skeleton import LIMB_KEYPOINTS, SMPL_JOINTS
from hmr_ros.training.data.rendered.poses import PoseSampler, canonical, embedded_clips, limit_joints, split_of_clip

BEYOND = np.radians(10)  # a joint further beyond its limits is counted
UNSEEN = np.radians(30)  # a rotation further from every one that the joint has in training is counted
FITTED = 1 / 30  # of the poses measured are fitted to their joints


def report(prior: PosePrior, body: BodyModel, learned: Tensor, count: int = 2000, seed: int = 0) -> dict:
    """All figures of a prior that learned from ``learned`` (N, 69); ``count`` poses of each kind at most."""
    skeleton = PosedKeypoints(body)
    rng = np.random.default_rng((seed, 1))
    held_out = {"mocap": held_out_motion(count, rng), "everyday": held_out_everyday(count, rng)}
    fitted = max(1, int(count * FITTED))
    result = {
        name: reconstruction(prior, skeleton, theta)
        | {"fitted_mm": round(float(fit(prior, skeleton, theta[:fitted])[1].mean()), 1)}
        for name, theta in held_out.items()
    }
    some = learned[torch.from_numpy(rng.permutation(len(learned))[:count])]
    generator = torch.Generator().manual_seed(seed)
    samples = prior.decode(2 * torch.rand(count, LATENT, generator=generator) - 1)
    known = learned[torch.from_numpy(rng.permutation(len(learned))[:5000])]
    return result | {
        "latent": {"training": evenness(prior.encode(some))}
        | {name: evenness(prior.encode(theta)) for name, theta in held_out.items()},
        "limits": {"decoded_samples": beyond_limits(samples), "training": beyond_limits(some)}
        | {name: beyond_limits(theta) for name, theta in held_out.items()},
        "unseen_rotations": {
            name: unseen_rotations(theta, known)
            for name, theta in {"decoded_samples": samples[:500], **{n: t[:500] for n, t in held_out.items()}}.items()
        },
        "start": start(prior, skeleton, learned),
        "poses": {name: len(theta) for name, theta in held_out.items()} | {"learned": len(learned)},
    }


# ---- held-out poses -------------------------------------------------------------------------------------------------


def held_out_motion(count: int, rng: np.random.Generator) -> Tensor:
    """Frames (N, 69) of the recorded clips of the validation and test splits, as recorded, in random order."""
    clips = [frames for name, frames in embedded_clips().items() if split_of_clip(name) != "train"]
    frames = np.concatenate(clips)[:, 1:]
    frames = frames[rng.permutation(len(frames))[:count]]
    return torch.from_numpy(canonical(frames.reshape(-1, 3)).reshape(-1, 3 * JOINTS).astype(np.float32))


def held_out_everyday(count: int, rng: np.random.Generator) -> Tensor:
    """Everyday situations (N, 69), drawn anew."""
    sampler = PoseSampler("val", everyday=1.0)
    return torch.from_numpy(np.stack([sampler.sample(rng).rotvec[1:].ravel() for _ in range(count)]))


# ---- figures --------------------------------------------------------------------------------------------------------


def reconstruction(prior: PosePrior, skeleton: PosedKeypoints, theta: Tensor) -> dict[str, float]:
    """Mean error over SMPL's 24 joints and over the 12 limb keypoints, and how it is spread, in millimetres."""
    (joints, limbs), (true_joints, true_limbs) = (posed(skeleton, t) for t in (prior.decode(prior.encode(theta)), theta))
    errors = 1000 * (joints - true_joints).norm(dim=-1)
    return {
        "reconstruction_mm": round(float(errors.mean()), 1),
        "reconstruction_limbs_mm": round(1000 * float((limbs - true_limbs).norm(dim=-1).mean()), 1),
        "worst_tenth_from_mm": round(float(errors.mean(1).quantile(0.9)), 1),
    }


def posed(skeleton: PosedKeypoints, theta: Tensor) -> tuple[Tensor, Tensor]:
    """theta (B, 69) → SMPL's joints (B, 24, 3) and limb keypoints (B, 12, 3) in metres, relative to the pelvis."""
    root = torch.eye(3).expand(len(theta), 1, 3, 3)
    joints, keypoints = skeleton(torch.cat([root, rotations(theta)], 1), theta.new_zeros(len(theta), 10))
    return joints - joints[:, :1], keypoints[:, list(LIMB_KEYPOINTS)] - joints[:, :1]


def fit(prior: PosePrior, skeleton: PosedKeypoints, theta: Tensor, steps: int = 200) -> tuple[Tensor, Tensor]:
    """Search the box for the poses whose joints are those of ``theta`` (B, 69), by Adam from its middle.

    Returns phi (B, 32) and the mean error (B,) of the 24 joints in millimetres.
    """
    target = posed(skeleton, theta)[0]
    free = torch.zeros(len(theta), LATENT, requires_grad=True)  # phi = tanh(free), as behind a regressor
    optimizer = torch.optim.Adam([free], lr=0.05)
    for _ in range(steps):
        distance = posed(skeleton, prior.decode(free.tanh()))[0] - target
        loss = distance.square().sum(-1).mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    phi = free.detach().tanh()
    return phi, 1000 * (posed(skeleton, prior.decode(phi))[0] - target).norm(dim=-1).mean(1)


def evenness(phi: Tensor) -> dict[str, float]:
    """How far phi (N, 32) is from even in [-1, 1]: Kolmogorov-Smirnov distances, correlations between dimensions."""
    values = np.sort(phi.numpy(), axis=0)
    uniform, ranks = (values + 1) / 2, np.arange(len(values))[:, None] / len(values)
    distance = np.maximum(uniform - ranks, ranks + 1 / len(values) - uniform).max(0)
    correlations = np.corrcoef(phi.numpy().T)[np.triu_indices(phi.shape[1], 1)]
    return {
        "ks_mean": round(float(distance.mean()), 3),
        "ks_max": round(float(distance.max()), 3),
        "correlation_mean_abs": round(float(np.abs(correlations).mean()), 3),
        "correlation_max_abs": round(float(np.abs(correlations).max()), 3),
    }


def beyond_limits(theta: Tensor) -> dict:
    """Share of poses (N, 69) with a joint more than 10° beyond poses.limit_joints, and the joints' own shares where not 0.

    Those limits are the hinges' (elbows and knees: backwards, too far, sideways) and the bend of spine, neck and head.
    """
    pose = np.concatenate([np.zeros((len(theta), 1, 3)), canonical(theta.numpy().reshape(-1, 3)).reshape(-1, JOINTS, 3)], 1)
    limited = np.stack([limit_joints(one) for one in pose])
    excess = (Rotation.from_rotvec(limited.reshape(-1, 3)).inv() * Rotation.from_rotvec(pose.reshape(-1, 3))).magnitude()
    beyond = excess.reshape(len(pose), -1) > BEYOND
    by_joint = {name: round(float(share), 4) for name, share in zip(SMPL_JOINTS, beyond.mean(0)) if share > 0}
    return {"share": round(float(beyond.any(1).mean()), 4), "joints_share": round(float(beyond.mean()), 4), "by_joint": by_joint}


def unseen_rotations(theta: Tensor, known: Tensor) -> float:
    """Share of joints in ``theta`` (N, 69) turned further than 30° from every rotation of that joint in ``known`` (M, 69)."""
    new, old = (
        Rotation.from_rotvec(t.numpy().reshape(-1, 3)).as_quat().reshape(-1, JOINTS, 4).astype(np.float32) for t in (theta, known)
    )
    nearest = np.stack([np.abs(new[:, j] @ old[:, j].T).max(1) for j in range(JOINTS)], 1)
    return round(float((nearest < np.cos(UNSEEN / 2)).mean()), 4)


def start(prior: PosePrior, skeleton: PosedKeypoints, learned: Tensor) -> dict:
    """The pose in the middle of the box, where self-supervised training begins."""
    middle = prior.decode(torch.zeros(1, LATENT))
    joints = posed(skeleton, learned[:5000])[0]
    mean = joints.mean(0, keepdim=True)
    return {
        "to_mean_joints_mm": round(1000 * float((posed(skeleton, middle)[0] - mean).norm(dim=-1).mean()), 1),
        "poses_to_mean_joints_mm": round(1000 * float((joints - mean).norm(dim=-1).mean()), 1),
        "beyond_limits": beyond_limits(middle)["share"],
    }


# ---- picture --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def draw_samples(prior: PosePrior, body: BodyModel, count: int = 25, seed: int = 0, tile: int = 220) -> np.ndarray:
    """Poses from anywhere in the box, as shaded bodies in a square sheet; BGR."""
    generator = torch.Generator().manual_seed(seed)
    theta = prior.decode(2 * torch.rand(count, LATENT, generator=generator) - 1)
    upright = Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec([0, -0.5, 0])  # into the camera, half from the side
    root = torch.from_numpy(upright.as_matrix().astype(np.float32)).expand(count, 1, 3, 3)
    vertices = body(torch.cat([root, rotations(theta)], 1), torch.zeros(count, 10)).vertices
    return draw_grid(vertices.numpy(), body.faces, tile)
