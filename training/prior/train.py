"""`hmr-ros train prior`: the pose prior, an adversarial auto-encoder of poses (Makhzani et al. 2015; Kundu et al. 2020).

An encoder and a decoder reproduce poses as rotation matrices and as joints; a discriminator that tells the encoder's output
from numbers drawn evenly in [-1, 1] makes the encoder fill that box. Poses come from poses.py: recorded motion, recombined,
and everyday situations; AMASS in addition where the user has it. How good it became is measured by report.py.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

import hmr_ros
from hmr_ros.body.model import BodyModel, pose_joints
from hmr_ros.files import save_checkpoint, write_json
from hmr_ros.networks.paper.prior import JOINTS, LATENT, PosePrior, rotations
from hmr_ros.skeleton import SMPL_JOINTS
from hmr_ros.training.data.rendered.everyday import LEFT_ARM, RIGHT_ARM
from hmr_ros.training.data.rendered.poses import PoseSampler, canonical, embedded_clips, limit_joints
from hmr_ros.training.prior.report import draw_samples, report
from hmr_ros.training.schedule import one_cycle

_CHUNK = 1000  # poses drawn by one process at a time, from a seed of their own
_SAMPLED = 32  # even samples of a step that are held against the limits of joints
_LEGS = tuple(
    tuple(SMPL_JOINTS.index(f"{side}_{part}") for part in ("hip", "knee", "ankle", "foot")) for side in ("left", "right")
)
_LIMBS = [[joint - 1 for joint in limb] for limb in (LEFT_ARM, RIGHT_ARM, sum(_LEGS, ()))]  # of the 23 joints


@dataclass(frozen=True)
class PriorConfig:
    """Train the pose prior; the defaults made the embedded one."""

    out: Path = Path("runs/prior")
    """Where pose_prior.safetensors, metrics.json and samples.png go."""
    amass: Path | None = None
    """Folder of AMASS motions (SMPL+H), learned from beside the embedded clips."""
    poses: int = 60_000
    """Poses drawn before training; limbs are exchanged between them all along."""
    everyday: float = 0.5
    """Share of everyday situations among them; the rest is recorded motion."""
    exchanged: float = 0.15
    """Probability that an arm, or the legs, of a pose come from another one."""
    steps: int = 6000
    batch: int = 128
    lr: float = 1e-3
    weight_adversarial: float = 0.002
    """Of the encoder's part against the discriminator, cross-entropy."""
    weight_even: float = 0.5
    """Of the sliced Wasserstein distance between the encoder's output and even numbers (Kolouri et al. 2018)."""
    weight_joints: float = 2.0
    """Of the 24 joints of the mean body, L1 in metres, beside the rotation matrices, mean squared."""
    weight_limits: float = 0.3
    """Of what evenly drawn samples are beyond the limits of joints, squared radians a pose."""
    evaluated: int = 2000
    """Poses of each held-out part, and decoded samples, that the figures are made from."""
    workers: int = 2
    """Processes that draw poses."""
    seed: int = 0


def train_prior(config: PriorConfig, console: Console = Console()) -> dict:
    """Train, write checkpoint, figures and picture to ``config.out``; returns the figures."""
    for name in ("poses", "steps", "batch", "evaluated", "workers"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}, expected at least 1")
    if not 0 <= config.everyday <= 1:
        raise ValueError(f"everyday is {config.everyday}, expected a share between 0 and 1")
    started = time.monotonic()
    body = BodyModel.load(None)
    poses = torch.from_numpy(draw_poses(config, console))
    prior, history = learn(config, poses, body, console)
    prior.load_state_dict(_halved(prior))  # measured as it will be read
    seconds = round(time.monotonic() - started, 1)
    weights = config.out / "pose_prior.safetensors"
    save_checkpoint(weights, _halved(prior), _metadata(config, {}))  # measuring takes minutes, too
    with console.status("measuring"):
        figures = report(prior, body, poses, config.evaluated, config.seed)
        picture = draw_samples(prior, body, seed=config.seed)
    save_checkpoint(weights, _halved(prior), _metadata(config, figures))
    metrics = figures | {"training": _told(config), "history": history, "seconds": seconds}
    write_json(config.out / "metrics.json", metrics, allow_nan=True)
    cv2.imwrite(str(config.out / "samples.png"), picture)
    console.print(
        f"reconstruction on held-out motion {figures['mocap']['reconstruction_mm']:.1f} mm, everyday "
        f"{figures['everyday']['reconstruction_mm']:.1f} mm; {weights}"
    )
    return metrics


# ---- poses ----------------------------------------------------------------------------------------------------------


def draw_poses(config: PriorConfig, console: Console = Console()) -> np.ndarray:
    """Poses to learn from (N, 69) float32, canonical axis-angle: the same for the same seed, however many workers."""
    clips = None
    if config.amass is not None:
        from hmr_ros.training.data.readers.amass import clips as amass_clips

        clips = embedded_clips() | amass_clips(config.amass)
    sampler = PoseSampler("train", config.everyday, clips)
    counts = [min(_CHUNK, config.poses - first) for first in range(0, config.poses, _CHUNK)]
    jobs = [(config.seed, index, count) for index, count in enumerate(counts)]
    if min(config.workers, len(jobs)) == 1:
        _use(sampler)
        return np.concatenate([_draw(job) for job in jobs])
    with ProcessPoolExecutor(config.workers, initializer=_use, initargs=(sampler,)) as pool:
        return np.concatenate(list(track(pool.map(_draw, jobs), "poses", total=len(jobs), console=console)))


_sampler: PoseSampler | None = None  # of a drawing process


def _use(sampler: PoseSampler) -> None:
    global _sampler
    _sampler = sampler


def _draw(job: tuple[int, int, int]) -> np.ndarray:
    seed, index, count = job
    rng = np.random.default_rng((seed, index))
    return np.stack([canonical(_sampler.sample(rng).rotvec[1:]).ravel() for _ in range(count)]).astype(np.float32)


def _exchange(matrices: Tensor, probability: float) -> Tensor:
    """Give some of the poses (B, 23, 3, 3) an arm, or the legs, of another one."""
    mixed = matrices.clone()
    for limb in _LIMBS:
        chosen = (torch.rand(len(matrices)) < probability).nonzero().squeeze(1)
        others = torch.randint(len(matrices), (len(chosen),))
        mixed[chosen[:, None], torch.tensor(limb)] = matrices[others[:, None], torch.tensor(limb)]
    return mixed


# ---- training -------------------------------------------------------------------------------------------------------


def learn(
    config: PriorConfig, poses: Tensor, body: BodyModel, console: Console = Console()
) -> tuple[PosePrior, list[dict]]:
    """Train on ``poses`` (N, 69); returns the prior, frozen, and the mean losses of each twentieth of the steps."""
    torch.manual_seed(config.seed)
    prior = PosePrior()
    discriminator = nn.Sequential(
        nn.Linear(LATENT, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
    )
    optimizer = torch.optim.Adam(prior.parameters(), lr=config.lr, fused=True)
    against = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    schedule = one_cycle(optimizer, config.lr, config.steps, warm_up=0.05)
    schedule_against = one_cycle(against, 2e-4, config.steps, warm_up=0.3, cycle_momentum=False)
    rest = body.rest_joints(torch.zeros(1, BodyModel.num_betas))
    all_matrices = rotations(poses)
    every = max(1, config.steps // 20)
    history, losses = [], []
    for step in track(range(config.steps), "prior", console=console):
        matrices = _exchange(all_matrices[torch.randint(len(poses), (config.batch,))], config.exchanged)
        phi = prior.encode_matrices(matrices)
        even = 2 * torch.rand_like(phi) - 1
        told = discriminator(torch.cat([even, phi.detach()])).squeeze(1)
        truth = torch.cat([torch.ones(config.batch), torch.zeros(config.batch)])
        distinction = F.binary_cross_entropy_with_logits(told, truth)
        against.zero_grad(set_to_none=True)
        distinction.backward()
        against.step()

        said = rotations(prior.decode(phi))
        rotation = F.mse_loss(said, matrices)
        joints = F.l1_loss(_joints(said, rest), _joints(matrices, rest))
        adversarial = F.softplus(-discriminator(phi)).mean()
        evenness = _sliced_distance(phi, even)
        beyond = _beyond_limits(prior.decode(even[:_SAMPLED]))
        loss = (
            rotation + config.weight_joints * joints + config.weight_adversarial * adversarial + config.weight_even * evenness
            + config.weight_limits * beyond
        )
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} in step {step}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(prior.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        schedule_against.step()
        losses.append([value.item() for value in (rotation, joints, evenness, beyond, adversarial, distinction)])
        if (step + 1) % every == 0 or step + 1 == config.steps:
            names = ("rotation", "joints", "evenness", "limits", "adversarial", "discriminator")
            history.append({"step": step + 1} | dict(zip(names, np.mean(losses, 0).round(5).tolist())))
            losses = []
            if len(history) % 4 == 0:
                console.print(", ".join(f"{name} {value}" for name, value in history[-1].items()), highlight=False)
    return prior.eval().requires_grad_(False), history


def _sliced_distance(phi: Tensor, even: Tensor) -> Tensor:
    """Mean squared distance of two sets (B, 32) in order, seen along every axis and along four times as many directions."""
    directions = torch.cat([torch.eye(LATENT), F.normalize(torch.randn(LATENT, 4 * LATENT), dim=0)], 1)
    return F.mse_loss((phi @ directions).sort(0).values, (even @ directions).sort(0).values)


def _beyond_limits(theta: Tensor) -> Tensor:
    """Squared radians by which poses (B, 69) are beyond limit_joints, mean over the poses."""
    root = np.zeros((1, 3))
    limited = [limit_joints(np.concatenate([root, pose.reshape(JOINTS, 3)]))[1:].ravel() for pose in theta.detach().numpy()]
    return (theta - torch.from_numpy(np.stack(limited)).float()).square().sum(1).mean()


def _joints(matrices: Tensor, rest: Tensor) -> Tensor:
    """(B, 23, 3, 3) → joints (B, 24, 3) in metres of the body with ``rest`` joints, root turned by nothing."""
    root = torch.eye(3).expand(len(matrices), 1, 3, 3)
    return pose_joints(torch.cat([root, matrices], 1), rest.expand(len(matrices), -1, -1))[0]


# ---- the checkpoint -------------------------------------------------------------------------------------------------


def _halved(prior: PosePrior) -> dict[str, Tensor]:
    """Weight matrices as float16: half the file; biases stay float32."""
    return {name: value.half() if value.ndim == 2 else value for name, value in prior.state_dict().items()}


def _told(config: PriorConfig) -> dict:
    return asdict(config) | {"out": config.out.name, "amass": config.amass and config.amass.name}


def _metadata(config: PriorConfig, figures: dict) -> dict:
    return {
        "network": "pose_prior",
        "options": {},
        "training": _told(config),
        "scores": figures,
        "version": hmr_ros.__version__,
    }


def main(argv: list[str]) -> int:
    train_prior(tyro.cli(PriorConfig, args=argv, prog="hmr-ros train prior"))
    return 0
