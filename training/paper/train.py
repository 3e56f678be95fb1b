"""``hmr-ros train``: the paper's self-supervised training, from proxies shards alone.

The regressor says a body of every person's proxies, the body is projected and rendered, and must agree with the proxies
(losses/consistency.py). Lightning Fabric runs it on a CPU, a GPU or several (DDP). The order of people, their mirroring and so every step
depend on the seed and the step's number only: a killed run that goes on from ``resume.pt`` ends in the same weights.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

import hmr_ros
from hmr_ros.body.model import BodyModel
from hmr_ros.files import atomic_write, save_checkpoint
from hmr_ros.networks.checkpoints import load_resnet18
from hmr_ros.networks.paper.prior import load_pose_prior
from hmr_ros.networks.paper.net import RegressorConfig, Resnet18Regressor
from hmr_ros.networks.paper.reliability import Reliability
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.training.paper.coarse_body import CoarseBody
from hmr_ros.training.data import shard_work
from hmr_ros.training.paper.fits import fit_loss, load_fits, mirrored_fits
from hmr_ros.training.losses.consistency import LossConfig, Losses, consistency
from hmr_ros.training.paper.panels import consistency_picture
from hmr_ros.training.paper.proxy_data import Corruption, DepthSource, ProxyData, corrupt, load, mirrored, trimmed
from hmr_ros.training.schedule import one_cycle

WEIGHTS, RESUME = "regressor.safetensors", "resume.pt"


@dataclass(frozen=True)
class TrainConfig:
    """Train the paper's networks on proxies shards, without labels."""

    data: tuple[Path, ...] = ()
    """Folders of proxies shards: `hmr-ros extract` or `hmr-ros data rendered` (whose truth is not opened)."""
    out: Path = Path("runs/selfsup")
    """Where regressor.safetensors, resume.pt and TensorBoard's events go; an unfinished run in it is continued."""
    init: Path | None = None
    """Start from the weights of this regressor.safetensors; its options count, not --regressor."""
    reset_reliability: bool = False
    """With --init, let its reliability begin anew: one that is 1 or 0 everywhere learns no more."""
    prior: Path | None = None
    """pose_prior.safetensors of `hmr-ros train prior` instead of the embedded one; not with --init, which has its own."""
    depth: DepthSource = "depth"
    """The extractor's coarse depth, or that of a depth camera."""
    trim: bool = True
    """T_IQR (eq. 1-3); without it outliers go into input and loss (the paper's ablation)."""
    corruption: Corruption = field(default_factory=Corruption)
    """Faults added to the proxies, for experiments."""
    regressor: RegressorConfig = field(default_factory=RegressorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    fits: tuple[Path, ...] = ()
    """Learn from the bodies of these files of `hmr-ros fit` as well, in the order of their folders in --data: not the paper's,
    still without labels."""
    epochs: int = 50
    """[open in the paper]"""
    steps: int | None = None
    """Instead of epochs."""
    batch: int = 64
    """Over all processes."""
    lr: float = 1e-5
    """Adam's."""
    schedule: Literal["constant", "one_cycle"] = "constant"
    mirror: bool = True
    """Half of the people as a mirror shows them [open]."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Of the networks; losses are float32."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    """More than one: DDP."""
    nodes: int = 1
    save_every: int = 200
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between TensorBoard's scalars; pictures come ten times less often."""
    seed: int = 0


PRESETS = {
    "paper": ("256 x 256, ResNet-18, Adam 1e-5, batch 64, betas regularised after 10 epochs; for a GPU",
              TrainConfig(loss=LossConfig(beta_from_epoch=10))),
    "ablation": ("32 x 32, a thin ResNet-18: minutes on a CPU",
                 TrainConfig(regressor=RegressorConfig(size=32, width=16), steps=1200, lr=2e-3, schedule="one_cycle",
                             loss=LossConfig(alpha_depth=0.15))),
    "extended": ("as ablation, with what is not the paper's and helps most: joints as numbers, pose codes kept small",
                 TrainConfig(regressor=RegressorConfig(size=32, width=16, numbers=512), steps=8000, lr=1e-3, schedule="one_cycle",
                             loss=LossConfig(alpha_depth=0.15, pose=0.01))),
    "tiny": ("32 x 32, seconds: to see that it works",
             TrainConfig(regressor=RegressorConfig(size=32, width=8), steps=60, batch=32, lr=2e-3, schedule="one_cycle",
                         save_every=20, log_every=5)),
}  # fmt: skip


class SelfConsistency(nn.Module):
    """What is trained: (joints, depth) → the regressor's numbers and the joints' reliability (None where not in use)."""

    def __init__(self, regressor: Resnet18Regressor, weighted: bool):
        super().__init__()
        self.regressor, self.weighted = regressor, weighted
        regressor.reliability.requires_grad_(weighted)

    def forward(self, joints: Tensor, depth: Tensor) -> tuple[Tensor, Tensor | None]:
        reliability = self.regressor.reliability(joints, depth) if self.weighted else None
        return self.regressor.encode(joints, depth), reliability


def train(config: TrainConfig, console: Console = Console()) -> dict:
    """Train and write ``config.out``; returns the last losses. Raises ValueError for a setting or folder that does not fit,
    FloatingPointError with the people of the batch where the loss is no number."""
    for name in ("epochs", "steps", "batch", "save_every", "log_every"):
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}, expected at least 1")
    if config.accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("--accelerator is cuda, but torch finds no CUDA GPU here; expected auto or cpu")
    if config.reset_reliability and not config.init:
        raise ValueError("--reset-reliability needs --init: a new regressor's reliability is new")
    if config.init and config.prior:
        raise ValueError(f"--prior {config.prior} cannot be used with --init, whose regressor has learned with its own; leave one out")
    fabric = Fabric(accelerator=config.accelerator, devices=config.devices, num_nodes=config.nodes,
                    strategy="ddp" if config.devices * config.nodes > 1 else "auto", precision=config.precision)  # fmt: skip
    fabric.launch()
    if config.batch % fabric.world_size:
        raise ValueError(f"batch {config.batch} is not a multiple of the {fabric.world_size} processes")
    data, faults = prepare(config)
    if len(data) < config.batch:
        raise ValueError(f"{len(data)} people are fewer than one batch of {config.batch}: extract more, or lower --batch")
    return _Run(config, fabric, data, faults, console).run()


def prepare(config: TrainConfig, data: ProxyData | None = None) -> tuple[ProxyData, dict]:
    """People as the networks see them under ``config``: with its faults, trimmed if it says so; and what that changed."""
    data = corrupt(load(config.data, config.depth) if data is None else data, config.corruption)
    after, share = trimmed(data)
    return after if config.trim else data, {"people": len(data), "pixels_trimmed_share": share}


class _Run:
    """One training run in its folder."""

    def __init__(self, config: TrainConfig, fabric: Fabric, data: ProxyData, faults: dict, console: Console):
        self.fabric, self.data, self.faults, self.console = fabric, data, faults, console
        torch.manual_seed(config.seed)
        self.body_model = BodyModel.load(None)
        self.body = CoarseBody(self.body_model).to(fabric.device)
        regressor = load_resnet18(config.init)[0] if config.init else Resnet18Regressor(config.regressor, load_pose_prior(config.prior))
        if config.init and config.reset_reliability:
            regressor.reliability = Reliability(regressor.config.reliability)
        self.asked = config  # by which a run is known again
        self.config = config = replace(config, regressor=regressor.config, loss=config.loss.for_depth(config.depth))
        self.regressor = regressor.to(memory_format=torch.channels_last)
        self.fits, self.skeleton = None, None
        if config.fits:
            self.fits, self.skeleton = load_fits(config.fits, data), PosedKeypoints(self.body_model).to(fabric.device)
        self.per_epoch = len(data) // config.batch
        self.steps = config.epochs * self.per_epoch if config.steps is None else config.steps
        system = SelfConsistency(self.regressor, config.loss.weighted and config.loss.alpha_depth > 0)
        learned = [p for p in system.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(learned, lr=config.lr)
        self.system, self.optimizer = fabric.setup(system, optimizer)
        self.schedule = None
        if config.schedule == "one_cycle":
            self.schedule = one_cycle(optimizer, config.lr, self.steps, warm_up=0.1)
        self.step = 0
        self.last: dict = {}

    def run(self) -> dict:
        self._resume()
        if self.fabric.is_global_zero:
            self.console.print(
                f"{len(self.data)} people, {self.per_epoch} steps an epoch, {self.steps} steps in all from {self.step}; "
                f"{100 * self.faults['pixels_trimmed_share']:.2f} % of the depth's pixels trimmed"
            )
        started, first, said = time.monotonic(), self.step, "no loss yet"
        writer = self._writer()
        self.system.train()
        with self._progress() as progress:
            task = progress.add_task("", total=self.steps, completed=self.step, said="")
            while self.step < self.steps:
                rows, losses = self._learn()
                self.step += 1
                if self.step % self.config.log_every == 0 or self.step == self.steps:
                    self.last = {name: value.item() for name, value in zip(Losses._fields, losses)}
                    rate = (self.step - first) * self.config.batch / (time.monotonic() - started)
                    said = ", ".join(f"{name} {value:.4f}" for name, value in self.last.items())
                    progress.update(task, completed=self.step, said=f"{said}, {rate:.0f} people/s")
                    self._log(writer, rows, rate)
                if self.step % self.config.save_every == 0 and self.step < self.steps:
                    self._save()
                    if self.fabric.is_global_zero and not self.console.is_terminal:  # no bar in a log
                        self.console.print(f"step {self.step}: {said}", highlight=False)
        self._save()
        if writer:
            writer.close()
        seconds = time.monotonic() - started
        if self.fabric.is_global_zero:
            self.console.print(f"{self.step} steps, {seconds:.0f} s, {self.last}; {self.config.out / WEIGHTS}")
        return {**self.last, "steps": self.step, "seconds": round(seconds, 1), **self.faults}

    def _learn(self) -> tuple[Tensor, Losses]:
        """One step; returns the people and the losses."""
        rows, flip = self._rows(self.step)
        batch = self.data[rows]
        if self.config.mirror:
            batch = mirrored(batch, flip)
        joints, depth = (self.fabric.to_device(value) for value in (batch.joints, batch.depth))
        self.optimizer.zero_grad(set_to_none=True)
        said, reliability = self.system(joints, depth)
        losses = consistency(self.regressor, self.body, joints, depth, said, reliability, self.config.loss,
                             self.step / self.per_epoch)  # fmt: skip
        if self.fits is not None:
            fits = self.fits[rows]
            fits = (mirrored_fits(fits, flip) if self.config.mirror else fits).to(joints.device)
            distance = fit_loss(self.regressor.decode(said, joints, depth), fits, self.skeleton)
            losses = losses._replace(total=losses.total + distance)
        self._require_finite(losses, rows)
        self.fabric.backward(losses.total)
        self.fabric.clip_gradients(self.system, self.optimizer, max_norm=1.0)
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        return rows, losses

    def _require_finite(self, losses: Losses, rows: Tensor) -> None:
        """FloatingPointError in every process where the loss of one is no number: nobody waits for who has stopped."""
        broken = ~torch.isfinite(losses.total)
        if self.fabric.all_reduce(broken.float(), reduce_op="sum") > 0:
            whose = f"people {rows.tolist()} of {self.config.data}" if broken else "people of another process, which names them"
            raise FloatingPointError(f"loss is {losses.total.item()} in step {self.step} (joint {losses.joint.item()}, depth "
                                     f"{losses.depth.item()}); {whose}")  # fmt: skip

    def _rows(self, step: int) -> tuple[Tensor, Tensor]:
        """The people of a step that are this process's, and who is mirrored: from seed and step alone."""
        epoch, place = divmod(step, self.per_epoch)
        order = torch.randperm(len(self.data), generator=torch.Generator().manual_seed(1_000_003 * self.config.seed + epoch))
        rows = order[place * self.config.batch : (place + 1) * self.config.batch]
        flip = torch.rand(len(rows), generator=torch.Generator().manual_seed(7_919 * self.config.seed + step)) < 0.5
        share = slice(self.fabric.global_rank, None, self.fabric.world_size)
        return rows[share], flip[share]

    # ---- files ------------------------------------------------------------------------------------------------------

    def _state(self) -> dict:
        return {"model": self.regressor.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step,
                "schedule": self.schedule.state_dict() if self.schedule else None, "losses": self.last,
                "config": _plain(self.asked)}  # fmt: skip

    def _save(self) -> None:
        """Weights and everything to go on from, each file whole or not at all."""
        if self.fabric.is_global_zero:
            self.config.out.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.config.out / RESUME) as partial:
                torch.save(self._state(), partial)
            save_regressor(self.config.out / WEIGHTS, self.regressor, self.body_model, {
                "extractors": shard_work.extractors_of(self.config.data),
                "config": _plain(self.config), "step": self.step, "losses": self.last, "revision": _revision(),
                "data": {"people": len(self.data), **self.faults},
            })  # fmt: skip
        self.fabric.barrier()

    def _resume(self) -> None:
        path = self.config.out / RESUME
        if not path.is_file():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        require_same(self.asked, state)
        self.regressor.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        self.step, self.last = state["step"], state.get("losses", {})

    # ---- what people look at ----------------------------------------------------------------------------------------

    def _progress(self) -> Progress:
        columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
        hidden = not self.fabric.is_global_zero
        return Progress(*columns, TextColumn("{task.fields[said]}"), console=self.console, disable=hidden)

    def _writer(self):
        if not self.fabric.is_global_zero:
            return None
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.config.out), purge_step=self.step)

    def _log(self, writer, rows: Tensor, rate: float) -> None:
        if writer is None:
            return
        for name, value in self.last.items():
            writer.add_scalar(f"loss/{name}", value, self.step)
        writer.add_scalar("people_per_second", rate, self.step)
        writer.add_scalar("learning_rate", self.optimizer.param_groups[0]["lr"], self.step)
        if self.step % (10 * self.config.log_every) == 0 or self.step == self.steps:
            picture = consistency_picture(self.regressor, self.body_model, self.data[rows[:6]])
            writer.add_image("proxies and what was made of them", picture, self.step, dataformats="HWC")


def save_regressor(path: Path, regressor: Resnet18Regressor, body: BodyModel, training: dict) -> None:
    """Weights, matrices as float16, with their options and the body they are for."""
    metadata = {"network": "resnet18", "options": asdict(regressor.config), "version": hmr_ros.__version__,
                "body": {"name": body.name, "sha256": body.sha256}, "training": training}  # fmt: skip
    halved = {name: value.half() if value.ndim > 1 else value for name, value in regressor.state_dict().items()}
    save_checkpoint(path, halved, metadata)


def _plain(value):
    """A configuration as plain JSON values."""
    return json.loads(json.dumps(asdict(value), default=str))


def _without_place(config: dict) -> dict:
    """What a run's result depends on: not where it stands, or how often it is written down."""
    return {name: value for name, value in config.items()
            if name not in ("out", "save_every", "log_every", "accelerator", "devices", "nodes")}  # fmt: skip


def require_same(config: TrainConfig, state: dict | None = None) -> None:
    """ValueError where the run in ``config.out``, finished or not (its ``state``, by default resume.pt), has other settings."""
    path = config.out / RESUME
    state = torch.load(path, map_location="cpu", weights_only=True) if state is None else state
    expected, found = (_without_place(some) for some in (_plain(config), state["config"]))
    if expected != found:
        different = [name for name in expected if expected[name] != found.get(name)]
        raise ValueError(f"{path} is of a run with other settings ({', '.join(different)}); name another --out, or go on "
                         f"with {({name: found.get(name) for name in different})}")  # fmt: skip


def _revision() -> str:
    """Of the checkout that the run was started in, where there is one."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or f"hmr_ros {hmr_ros.__version__}"


def main(argv: list[str]) -> int:
    train(tyro.extras.overridable_config_cli(PRESETS, args=argv, prog="hmr-ros train"))
    return 0
