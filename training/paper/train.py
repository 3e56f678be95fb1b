"""``hmr-ros train``: the paper's self-supervised training, from proxies shards alone.

The regressor predicts a body from every person's proxies; the body is projected and rendered, and must agree with the proxies
(losses/consistency.py). training/loop.py runs it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

import hmr_ros
from hmr_ros.body.model import BodyModel
from hmr_ros.files import save_checkpoint
from hmr_ros.networks.checkpoints import load_resnet18
from hmr_ros.networks.paper.prior import load_pose_prior
from hmr_ros.networks.paper.net import RegressorConfig, Resnet18Regressor
from hmr_ros.networks.paper.reliability import Reliability
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.rasterizer import require
from hmr_ros.training.loop import Learner, LoopConfig, Task, launch, one_cycle, order, plain, run
from hmr_ros.training.paper.coarse_body import CoarseBody
from hmr_ros.training.data import shard_work
from hmr_ros.training.paper.fits import fit_loss, load_fits, mirrored_fits
from hmr_ros.training.losses.consistency import LossConfig, consistency
from hmr_ros.training.paper.panels import consistency_picture
from hmr_ros.training.paper.proxy_data import Corruption, DepthKind, ProxyData, corrupt, load, mirrored, trimmed

WEIGHTS = "regressor.safetensors"


@dataclass(frozen=True, kw_only=True)
class SelfSupervisedConfig(LoopConfig):
    """Train the paper's networks on proxies shards, without labels."""

    data: tuple[str | Path, ...] = ()
    """Folders of proxies shards, or their URLs: `hmr-ros extract` or `hmr-ros data rendered` (whose truth is not opened)."""
    out: Path = Path("runs/selfsup")
    """Where regressor.safetensors, resume.pt and TensorBoard's events go; an unfinished run in it is continued."""
    init: Path | None = None
    """Start from the weights of this regressor.safetensors; its options count, not --regressor."""
    reset_reliability: bool = False
    """With --init, let its reliability begin anew: one that is 1 or 0 everywhere learns no more."""
    prior: Path | None = None
    """pose_prior.safetensors of `hmr-ros train prior` instead of the embedded one; not with --init, which has its own."""
    depth: DepthKind = "depth"
    """The extractor's coarse depth, or that of a depth camera."""
    trim: bool = True
    """T_IQR (eq. 1-3); without it outliers go into input and loss (the paper's ablation)."""
    corruption: Corruption = field(default_factory=Corruption)
    """Corruptions added to the proxies, for experiments."""
    regressor: RegressorConfig = field(default_factory=RegressorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    fits: tuple[Path, ...] = ()
    """Train on these pseudo-ground-truth bodies of `hmr-ros fit` as well, in the order of their folders in --data: not the paper's,
    still without labels."""
    epochs: int = 50
    """[open in the paper]"""
    steps: int | None = None
    """Instead of epochs."""
    lr: float = 1e-5
    """Adam's."""
    schedule: Literal["constant", "one_cycle"] = "constant"
    mirror: bool = True
    """Half of the people mirrored [open]."""


PRESETS = {
    "paper": ("256 x 256, ResNet-18, Adam 1e-5, batch 64, betas regularised after 10 epochs; for a GPU, on people extracted with --depth-size 256",
              SelfSupervisedConfig(loss=LossConfig(beta_from_epoch=10))),
    "ablation": ("32 x 32, a thin ResNet-18: minutes on a CPU",
                 SelfSupervisedConfig(regressor=RegressorConfig(size=32, width=16), steps=1200, lr=2e-3, schedule="one_cycle",
                             loss=LossConfig(alpha_depth=0.15))),
    "extended": ("as ablation, with what is not the paper's and helps most: joints as numbers, pose codes kept small",
                 SelfSupervisedConfig(regressor=RegressorConfig(size=32, width=16, numbers=512), steps=8000, lr=1e-3, schedule="one_cycle",
                             loss=LossConfig(alpha_depth=0.15, pose=0.01))),
    "tiny": ("32 x 32, seconds: to see that it works",
             SelfSupervisedConfig(regressor=RegressorConfig(size=32, width=8), steps=60, batch=32, lr=2e-3, schedule="one_cycle",
                         save_every=20, log_every=5)),
}  # fmt: skip


class SelfConsistency(nn.Module):
    """What is trained: (joints, depth) → the regressor's outputs and the joints' reliability (None where not in use)."""

    def __init__(self, regressor: Resnet18Regressor, weighted: bool):
        super().__init__()
        self.regressor, self.weighted = regressor, weighted
        regressor.reliability.requires_grad_(weighted)

    def forward(self, joints: Tensor, depth: Tensor) -> tuple[Tensor, Tensor | None]:
        reliability = self.regressor.reliability(joints, depth) if self.weighted else None
        return self.regressor.encode(joints, depth), reliability


def train(config: SelfSupervisedConfig, console: Console = Console(markup=False)) -> dict:
    """Train and write ``config.out``; returns the last losses. Raises ValueError for a setting or folder that does not fit,
    FloatingPointError with the people of the batch where the loss is not finite."""
    if config.reset_reliability and not config.init:
        raise ValueError("--reset-reliability needs --init: a new regressor's reliability is new")
    if config.init and config.prior:
        raise ValueError(f"--prior {config.prior} cannot be used with --init, whose regressor has learned with its own; leave one out")
    require(config.loss.rasterizer)
    fabric = launch(config, WEIGHTS, ("epochs", "steps"))
    data, quality = prepare(config, scratch=config.out, fabric=fabric)
    if len(data) < config.batch:
        raise ValueError(f"{len(data)} people are fewer than one batch of {config.batch}: extract more, or lower --batch")
    task = SelfSupervision(config, fabric, data, quality)
    if fabric.is_global_zero:
        wanted = task.config.regressor.size
        if data.size < wanted:
            console.print(f"depth maps of --data are {data.size} x {data.size} pixels, the network's {wanted} x {wanted}: they are enlarged; "
                          f"extract again: hmr-ros extract SOURCE --out NEW_FOLDER --depth-size {wanted}", highlight=False, soft_wrap=True)  # fmt: skip
        console.print(f"{len(data)} people; {100 * quality['pixels_trimmed_share']:.2f} % of the depth's pixels trimmed")
    result = run(task, config, fabric, console)
    return {**result.losses, "steps": task.steps, "seconds": result.seconds, **quality}


def prepare(
    config: SelfSupervisedConfig, data: ProxyData | None = None, scratch: Path | None = None, fabric: Fabric | None = None
) -> tuple[ProxyData, dict]:
    """People as the networks see them under ``config``: corrupted and trimmed as it says, in memory or in a folder ``scratch``; and
    how many pixels trimming changed."""
    data = corrupt(load(config.data, config.depth) if data is None else data, config.corruption)
    after, share = trimmed(data, scratch, fabric)
    return after if config.trim else data, {"people": len(data), "pixels_trimmed_share": share}


class SelfSupervision(Task):
    """Row v * N + i is person i of N, mirrored where v is 1."""

    def __init__(self, config: SelfSupervisedConfig, fabric: Fabric, data: ProxyData, quality: dict):
        self.fabric, self.data, self.quality = fabric, data, quality
        torch.manual_seed(config.seed)
        self.body_model = BodyModel.load(None)
        self.body = CoarseBody(self.body_model).to(fabric.device)
        regressor = load_resnet18(config.init)[0] if config.init else Resnet18Regressor(config.regressor, load_pose_prior(config.prior))
        if config.init and config.reset_reliability:
            regressor.reliability = Reliability(regressor.config.reliability)
        self.config = config = replace(config, regressor=regressor.config, loss=config.loss.for_depth(config.depth))
        self.regressor = regressor.to(fabric.device, memory_format=torch.channels_last)
        self.fits, self.skeleton = None, None
        if config.fits:
            self.fits, self.skeleton = load_fits(config.fits, data), PosedKeypoints(self.body_model).to(fabric.device)
        self.modules = {"regressor": regressor}
        self.per_epoch = len(data) // config.batch
        self.steps = config.epochs * self.per_epoch if config.steps is None else config.steps
        system = SelfConsistency(regressor, config.loss.weighted and config.loss.alpha_depth > 0)
        optimizer = torch.optim.Adam([p for p in system.parameters() if p.requires_grad], lr=config.lr)
        schedule = one_cycle(optimizer, config.lr, self.steps, warm_up=0.1) if config.schedule == "one_cycle" else None
        self.learners = [Learner(system, optimizer, schedule)]

    def rows(self, step: int, learner: int) -> Tensor:
        epoch, place = divmod(step, self.per_epoch)
        batch, seed = self.config.batch, self.config.seed
        people = order(len(self.data), 1_000_003 * seed + epoch)[place * batch : (place + 1) * batch]
        if not self.config.mirror:
            return people
        flip = torch.rand(len(people), generator=torch.Generator().manual_seed(7_919 * seed + step)) < 0.5
        return people + len(self.data) * flip

    def losses(self, learner: int, network: nn.Module, rows: Tensor, step: int) -> dict[str, Tensor]:
        people, flip = rows % len(self.data), rows >= len(self.data)
        batch = mirrored(self.data[people], flip)
        joints, depth = (self.fabric.to_device(value) for value in (batch.joints, batch.depth))
        output, reliability = network(joints, depth)
        epoch = step / self.per_epoch
        losses = consistency(self.regressor, self.body, joints, depth, output, reliability, self.config.loss, epoch)
        if self.fits is not None:
            fits = mirrored_fits(self.fits[people], flip).to(joints.device)
            distance = fit_loss(self.regressor.decode(output, joints, depth), fits, self.skeleton)
            losses = losses._replace(total=losses.total + distance)
        return losses._asdict()

    def whose(self, rows: Tensor) -> str:
        return f"people {(rows % len(self.data)).tolist()} of {', '.join(map(str, self.config.data))}"

    def save(self, step: int, losses: dict[str, float]) -> None:
        save_regressor(self.config.out / WEIGHTS, self.regressor, self.body_model, {
            "extractors": shard_work.extractors_of(self.config.data), "config": plain(self.config), "step": step, "losses": losses,
            "data": self.quality,
        })  # fmt: skip

    def picture(self, rows: Tensor):
        people = self.data[rows % len(self.data)]
        return "proxies and predicted bodies", consistency_picture(self.regressor, self.body_model, people, self.config.loss.rasterizer)


def save_regressor(path: Path, regressor: Resnet18Regressor, body: BodyModel, training: dict) -> None:
    """Weights, matrices as float16, with their options and the body they are for."""
    metadata = {"network": "resnet18", "options": asdict(regressor.config), "version": hmr_ros.__version__,
                "body": {"name": body.name, "sha256": body.sha256}, "training": training}  # fmt: skip
    halved = {name: value.half() if value.ndim > 1 else value for name, value in regressor.state_dict().items()}
    save_checkpoint(path, halved, metadata)


def main(argv: list[str]) -> int:
    train(tyro.extras.overridable_config_cli(PRESETS, args=argv, prog="hmr-ros train"))
    return 0
