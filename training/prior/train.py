"""`hmr-ros train prior`: the pose prior, an adversarial auto-encoder of poses (Makhzani et al. 2015; Kundu et al. 2020).

An encoder and a decoder reproduce poses as rotation matrices and as joints; a discriminator that tells the encoder's output
from numbers drawn evenly in [-1, 1] makes the encoder fill that box. Poses come from poses.py: recorded motion, recombined,
and everyday situations; AMASS in addition where the user has it. How good it became is measured by report.py.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

import hmr_ros
from hmr_ros.body.model import BodyModel, pose_joints
from hmr_ros.files import save_checkpoint, write_json, write_picture
from hmr_ros.networks.paper.prior import JOINTS, LATENT, PosePrior, rotations
from hmr_ros.skeleton import SMPL_JOINTS
from hmr_ros.training.data.rendered.everyday import LEFT_ARM, RIGHT_ARM
from hmr_ros.training.data.rendered.poses import PoseSampler, canonical, embedded_clips, limit_joints
from hmr_ros.training.loop import Learner, LoopConfig, Result, Task, generator, launch, one_cycle, require_same, run
from hmr_ros.training.processes import everyones, own_part, own_rows
from hmr_ros.training.prior.report import draw_samples, report

WEIGHTS = "pose_prior.safetensors"
_CHUNK = 1000  # poses drawn by one process at a time, from a seed of their own
_SAMPLED = 32  # even samples of a step that are held against the limits of joints
_LEGS = tuple(
    tuple(SMPL_JOINTS.index(f"{side}_{part}") for part in ("hip", "knee", "ankle", "foot")) for side in ("left", "right")
)
_LIMBS = [[joint - 1 for joint in limb] for limb in (LEFT_ARM, RIGHT_ARM, sum(_LEGS, ()))]  # of the 23 joints


@dataclass(frozen=True, kw_only=True)
class PriorConfig(LoopConfig):
    """Train the pose prior; the defaults made the embedded one."""

    out: Path = Path("runs/prior")
    """Where pose_prior.safetensors, metrics.json, samples.png, resume.pt and TensorBoard's events go; an unfinished run in it is
    continued."""
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
    save_every: int = 500
    """Steps between checkpoints."""


def train_prior(config: PriorConfig, console: Console = Console(markup=False)) -> dict:
    """Train, write checkpoint, figures and picture to ``config.out``; returns the figures."""
    if not 0 <= config.everyday <= 1:
        raise ValueError(f"everyday is {config.everyday}, expected a share between 0 and 1")
    fabric = launch(config, WEIGHTS, ("poses", "steps", "evaluated", "workers"))
    weights, path = config.out / WEIGHTS, config.out / "metrics.json"
    if weights.exists() and path.exists():
        require_same(config)
        console.print(f"{weights} is finished")
        return json.loads(path.read_text())
    body = BodyModel.load(None)
    poses = torch.from_numpy(draw_poses(config, console, fabric))
    prior, result = learn(config, poses, body, fabric, console)
    if not fabric.is_global_zero:
        return {}
    prior.load_state_dict(_halved(prior))  # measured as it will be read
    save_checkpoint(weights, _halved(prior), _metadata(config, {}))  # measuring takes minutes, too
    with console.status("measuring"):
        figures = report(prior, body, poses, config.evaluated, config.seed)
        picture = draw_samples(prior, body, seed=config.seed)
    save_checkpoint(weights, _halved(prior), _metadata(config, figures))
    write_picture(config.out / "samples.png", picture)
    metrics = figures | {"training": _settings(config), "history": result.history, "seconds": result.seconds}
    write_json(path, metrics, allow_nan=True)
    console.print(
        f"reconstruction on held-out motion {figures['mocap']['reconstruction_mm']:.1f} mm, everyday "
        f"{figures['everyday']['reconstruction_mm']:.1f} mm; {weights}"
    )
    return metrics


# ---- poses ----------------------------------------------------------------------------------------------------------


def draw_poses(config: PriorConfig, console: Console = Console(markup=False), fabric: Fabric | None = None) -> np.ndarray:
    """Poses to learn from (N, 69) float32, canonical axis-angle: the same for the same seed, however many workers and processes of a
    ``fabric``, each of which draws a part."""
    clips = None
    if config.amass is not None:
        from hmr_ros.training.data.readers.amass import clips as amass_clips

        clips = embedded_clips() | amass_clips(config.amass)
    sampler = PoseSampler("train", config.everyday, clips)
    counts = [min(_CHUNK, config.poses - first) for first in range(0, config.poses, _CHUNK)]
    jobs = [(config.seed, index, counts[index]) for index in own_part(len(counts), fabric)]
    if min(config.workers, len(jobs)) <= 1:
        _use(sampler)
        own = [_draw(job) for job in jobs]
    else:
        with ProcessPoolExecutor(config.workers, initializer=_use, initargs=(sampler,)) as pool:
            own = list(track(pool.map(_draw, jobs), "poses", total=len(jobs), console=console))
    return np.concatenate(sum(everyones(own, fabric), []))


_sampler: PoseSampler | None = None  # of a drawing process


def _use(sampler: PoseSampler) -> None:
    global _sampler
    _sampler = sampler


def _draw(job: tuple[int, int, int]) -> np.ndarray:
    seed, index, count = job
    rng = np.random.default_rng((seed, index))
    return np.stack([canonical(_sampler.sample(rng).rotvec[1:]).ravel() for _ in range(count)]).astype(np.float32)


# ---- training -------------------------------------------------------------------------------------------------------


def learn(
    config: PriorConfig, poses: Tensor, body: BodyModel, fabric: Fabric | None = None, console: Console = Console(markup=False)
) -> tuple[PosePrior, Result]:
    """Train on ``poses`` (N, 69); returns the prior, frozen and on the CPU, and the run's losses."""
    fabric = fabric or launch(config, WEIGHTS)
    task = AdversarialAutoEncoder(config, fabric, poses, body)
    result = run(task, config, fabric, console)
    return task.prior.eval().requires_grad_(False).cpu(), result


class _System(nn.Module):
    """Poses as matrices (B, 23, 3, 3), even numbers (E, 32) → their codes (B, 32), and the poses (B + E, 69) that codes and even
    numbers are decoded to."""

    def __init__(self, prior: PosePrior):
        super().__init__()
        self.prior = prior

    def forward(self, matrices: Tensor, even: Tensor) -> tuple[Tensor, Tensor]:
        phi = self.prior.encode_matrices(matrices)
        return phi, self.prior.decode(torch.cat([phi, even]))


class AdversarialAutoEncoder(Task):
    """The discriminator learns first in every step, then the auto-encoder against it. A row is a pose."""

    label, rows_are = "prior", "poses"

    def __init__(self, config: PriorConfig, fabric: Fabric, poses: Tensor, body: BodyModel):
        torch.manual_seed(config.seed)
        self.config, self.poses, self.fabric, self.device = config, poses, fabric, fabric.device
        self.prior = PosePrior().to(fabric.device)
        self.discriminator = nn.Sequential(
            nn.Linear(LATENT, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
        ).to(fabric.device)
        self.modules = {"prior": self.prior, "discriminator": self.discriminator}
        self.steps, self.per_epoch = config.steps, max(1, config.steps // 20)
        self.rest = body.rest_joints(torch.zeros(1, BodyModel.num_betas)).to(fabric.device)
        against = torch.optim.Adam(self.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        optimizer = torch.optim.Adam(self.prior.parameters(), lr=config.lr, fused=True)
        self.learners = [
            Learner(self.discriminator, against, one_cycle(against, 2e-4, config.steps, warm_up=0.3, cycle_momentum=False), None),
            Learner(_System(self.prior), optimizer, one_cycle(optimizer, config.lr, config.steps, warm_up=0.05)),
        ]
        # Of a step, the same for both learners: matrices and even numbers of this process, even numbers of all, and what more is random.
        self.seen: tuple[Tensor, Tensor] | None = None
        self.even: Tensor | None = None
        self.random = torch.Generator()

    def rows(self, step: int, learner: int) -> Tensor:
        return torch.randint(len(self.poses), (self.config.batch,), generator=generator(self.config.seed, step))

    def losses(self, learner: int, network: nn.Module, rows: Tensor, step: int) -> dict[str, Tensor]:
        if learner == 0:  # random numbers are drawn for the rows of all processes, so that they do not depend on how many there are
            self.random, share = generator(self.config.seed, step, 0), own_rows(self.fabric)
            every = rotations(self.poses[self.rows(step, 0)])
            matrices = _exchange(every, self.config.exchanged, self.random)[share].to(self.device)
            self.even = 2 * torch.rand(len(every), LATENT, generator=self.random).to(self.device) - 1
            self.seen = matrices, self.even[share]
            return {"discriminator": self._distinction(network, *self.seen)}
        return self._auto_encoding(network, *self.seen)

    def _everyones(self, phi: Tensor) -> Tensor:
        """Codes (batch, 32) of all processes. Those of this one have their gradient times the processes, of whose gradients DDP takes the
        mean, weighted by their rows."""
        batch, world, rank = self.config.batch, self.fabric.world_size, self.fabric.global_rank
        if world == 1:
            return phi
        padded = F.pad(phi.detach(), (0, 0, 0, -(-batch // world) - len(phi)))
        codes = [some[: len(range(other, batch, world))] for other, some in enumerate(self.fabric.all_gather(padded))]
        codes[rank] = codes[rank] + batch / len(phi) * (phi - phi.detach())
        return torch.cat(codes)

    def _distinction(self, discriminator: nn.Module, matrices: Tensor, even: Tensor) -> Tensor:
        with torch.no_grad():
            phi = self.prior.encode_matrices(matrices)
        output = discriminator(torch.cat([even, phi])).squeeze(1)
        truth = torch.cat([torch.ones(len(even)), torch.zeros(len(phi))]).to(output.device)
        return F.binary_cross_entropy_with_logits(output, truth)

    def _auto_encoding(self, network: nn.Module, matrices: Tensor, even: Tensor) -> dict[str, Tensor]:
        phi, theta = network(matrices, even[: -(-_SAMPLED // self.fabric.world_size)])
        output = rotations(theta[: len(phi)])
        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        parts = {
            "rotation": F.mse_loss(output, matrices),
            "joints": F.l1_loss(_joints(output, self.rest), _joints(matrices, self.rest)),
            "evenness": _sliced_distance(self._everyones(phi), self.even, self.random),
            "limits": _beyond_limits(theta[len(phi) :]),
            "adversarial": F.softplus(-torch.func.functional_call(self.discriminator, frozen, phi)).mean(),
        }
        config = self.config
        weights = 1.0, config.weight_joints, config.weight_even, config.weight_limits, config.weight_adversarial
        return {"loss": sum(weight * part for weight, part in zip(weights, parts.values()))} | parts


def _exchange(matrices: Tensor, probability: float, random: torch.Generator) -> Tensor:
    """Give some of the poses (B, 23, 3, 3) an arm, or the legs, of another one."""
    mixed = matrices.clone()
    for limb in _LIMBS:
        chosen = (torch.rand(len(matrices), generator=random) < probability).nonzero().squeeze(1)
        others = torch.randint(len(matrices), (len(chosen),), generator=random)
        mixed[chosen[:, None], torch.tensor(limb)] = matrices[others[:, None], torch.tensor(limb)]
    return mixed


def _sliced_distance(phi: Tensor, even: Tensor, random: torch.Generator) -> Tensor:
    """Mean squared distance of two sets (B, 32) in order, seen along every axis and along four times as many directions."""
    directions = torch.cat([torch.eye(LATENT), F.normalize(torch.randn(LATENT, 4 * LATENT, generator=random), dim=0)], 1).to(phi.device)
    return F.mse_loss((phi @ directions).sort(0).values, (even @ directions).sort(0).values)


def _beyond_limits(theta: Tensor) -> Tensor:
    """Squared radians by which poses (B, 69) are beyond limit_joints, mean over the poses."""
    root = np.zeros((1, 3))
    limited = [limit_joints(np.concatenate([root, pose.reshape(JOINTS, 3)]))[1:].ravel() for pose in theta.detach().cpu().numpy()]
    return (theta - torch.from_numpy(np.stack(limited)).to(theta)).square().sum(1).mean()


def _joints(matrices: Tensor, rest: Tensor) -> Tensor:
    """(B, 23, 3, 3) → joints (B, 24, 3) in metres of the body with ``rest`` joints, root turned by nothing."""
    root = torch.eye(3).to(matrices).expand(len(matrices), 1, 3, 3)
    return pose_joints(torch.cat([root, matrices], 1), rest.expand(len(matrices), -1, -1))[0]


# ---- the checkpoint -------------------------------------------------------------------------------------------------


def _halved(prior: PosePrior) -> dict[str, Tensor]:
    """Weight matrices as float16: half the file; biases stay float32."""
    return {name: value.half() if value.ndim == 2 else value for name, value in prior.state_dict().items()}


def _settings(config: PriorConfig) -> dict:
    return asdict(config) | {"out": config.out.name, "amass": config.amass and config.amass.name}


def _metadata(config: PriorConfig, figures: dict) -> dict:
    return {
        "network": "pose_prior",
        "options": {},
        "training": _settings(config),
        "scores": figures,
        "version": hmr_ros.__version__,
    }


def main(argv: list[str]) -> int:
    train_prior(tyro.cli(PriorConfig, args=argv, prog="hmr-ros train prior"))
    return 0
