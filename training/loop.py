"""The training loop of all networks: Lightning Fabric on a CPU, a GPU or several (DDP), resumed exactly, checked, logged.

What is trained is a :class:`Task`: its networks, its losses, its rows. Every step depends on the seed and the step's number only,
rows and dropout included: a killed run that goes on from ``resume.pt`` ends in the same weights. The lifter (lifter/train.py), the
paper's self-supervised networks (paper/train.py) and the pose prior (prior/train.py) are such tasks.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from hmr_ros.files import atomic_write
from hmr_ros.training.data.mapped import SHARED
from hmr_ros.training.processes import own_rows

RESUME = "resume.pt"
_ELSEWHERE = ("out", "save_every", "log_every", "accelerator", "devices", "nodes")  # settings that do not change a run's result


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Settings that all training runs share."""

    out: Path
    """Folder for the weights, resume.pt and TensorBoard's events; an unfinished run in it is continued."""
    batch: int = 64
    """Over all processes."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Of the networks; losses are float32. bf16-mixed is fast on GPUs and on CPUs with units for it, and far slower on others."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    """More than one: DDP."""
    nodes: int = 1
    save_every: int = 200
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between TensorBoard's scalars; pictures come ten times less often."""
    seed: int = 0


@dataclass(frozen=True)
class Learner:
    """One network with its optimiser; ``max_norm`` is the limit of its gradient's norm."""

    network: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler | None = None
    max_norm: float | None = 1.0


class Task(ABC):
    """What a run trains.

    A step asks each of ``learners`` in turn for the losses of its rows, and updates it. A row is a view of a person (or a pose):
    ``rows`` of a step follow from seed and step alone, and several processes share them.
    """

    label = "training"
    rows_are = "people"
    learners: list[Learner]
    modules: dict[str, nn.Module]  # whatever has weights or statistics that a resumed run needs
    steps: int
    per_epoch: int  # steps

    @abstractmethod
    def rows(self, step: int, learner: int) -> Tensor:
        """Rows (B,) of all processes that a learner sees in a step."""

    @abstractmethod
    def losses(self, learner: int, network: nn.Module, rows: Tensor, step: int) -> dict[str, Tensor]:
        """Named losses () of rows; the first one is minimised. ``network`` is the learner's, to be called instead of it: it runs
        in the chosen precision and, with several processes, averages gradients."""

    def whose(self, rows: Tensor) -> str:
        """Names rows in the message about a loss that is not finite."""
        return f"{self.rows_are} {rows.tolist()}"

    def after_step(self) -> None:
        """Called after all learners' updates."""

    def evaluate(self) -> dict[str, float]:
        """Scores at the end of an epoch, in every process; networks may be left in evaluation mode."""
        return {}

    def save(self, step: int, losses: dict[str, float]) -> None:
        """Write weights that can be used already; called with every checkpoint, in one process."""

    def picture(self, rows: Tensor) -> tuple[str, np.ndarray] | None:
        """Title and RGB picture (H, W, 3) uint8 of rows for TensorBoard."""
        return None


@dataclass(frozen=True)
class Result:
    """Of a finished run: the last step's losses, their means and the scores of each epoch, seconds of training."""

    losses: dict[str, float]
    history: list[dict[str, float]]
    seconds: float


def launch(config: LoopConfig, weights: str, positive: Sequence[str] = ()) -> Fabric:
    """Check the settings that all runs share and start the processes. ``positive`` names more settings that are at least 1.

    Raises ValueError for a setting that makes no sense, FileExistsError where ``config.out`` holds ``weights`` that no resume.pt
    belongs to.
    """
    for name in (*positive, "batch", "save_every", "log_every", "devices", "nodes"):
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}, expected at least 1")
    if config.seed < 0:
        raise ValueError(f"seed is {config.seed}, expected at least 0")
    if config.accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("--accelerator is cuda, but torch finds no CUDA GPU here; expected auto or cpu")
    if (config.out / weights).exists() and not (config.out / RESUME).exists():
        raise FileExistsError(f"{config.out / weights} exists, without a {RESUME} to go on from; name another --out, or remove it")
    fabric = Fabric(accelerator=config.accelerator, devices=config.devices, num_nodes=config.nodes,
                    strategy="ddp" if config.devices * config.nodes > 1 else "auto", precision=config.precision)  # fmt: skip
    fabric.launch()
    if fabric.world_size > 1 and fabric.is_global_zero:
        for left in config.out.glob(f"{SHARED}*"):  # by a run that was killed
            left.unlink()
    if config.batch < fabric.world_size:
        raise ValueError(f"batch is {config.batch}, expected a row or more for each of the {fabric.world_size} processes")
    return fabric


def run(task: Task, config: LoopConfig, fabric: Fabric, console: Console) -> Result:
    """Train ``task`` to its last step, from ``resume.pt`` in ``config.out`` where there is one.

    Raises ValueError where that is of a run with other settings, FloatingPointError with the rows of the batch where a loss is
    not finite; all processes stop then.
    """
    return _Run(task, config, fabric, console).run()


class _Run:
    def __init__(self, task: Task, config: LoopConfig, fabric: Fabric, console: Console):
        self.task, self.config, self.fabric, self.console = task, config, fabric, console
        for module in task.modules.values():
            module.to(fabric.device)
        ready = [fabric.setup(learner.network, learner.optimizer) for learner in task.learners]
        self.networks, self.optimizers = ([pair[i] for pair in ready] for i in (0, 1))
        self.step, self.seconds = 0, 0.0
        self.last: dict[str, float] = {}
        self.epoch: dict[str, tuple[float, int]] = {}  # sums and counts of its losses so far
        self.history: list[dict[str, float]] = []
        self.text = "no loss yet"

    def run(self) -> Result:
        self._resume()
        self._print(f"{self.task.per_epoch} steps an epoch, {self.task.steps} steps in all from {self.step}")
        started, before, first = time.monotonic(), self.seconds, self.step
        writer = self._writer()
        self._train_mode()
        with self._progress() as progress:
            bar = progress.add_task("", total=self.task.steps, completed=self.step, losses="")
            while self.step < self.task.steps:
                rows, losses = self._learn()
                self.step += 1
                self.seconds = before + time.monotonic() - started
                for name, value in losses.items():
                    total, count = self.epoch.get(name, (0.0, 0))
                    self.epoch[name] = total + value, count + 1
                if self.step % self.config.log_every == 0 or self.step == self.task.steps:
                    self.last = losses
                    rate = (self.step - first) * self.config.batch / (time.monotonic() - started)
                    self.text = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
                    progress.update(bar, completed=self.step, losses=f"{self.text}, {rate:.0f} {self.task.rows_are}/s")
                    self._log(writer, rows, rate)
                if self.step % self.task.per_epoch == 0 or self.step == self.task.steps:
                    self._end_epoch(writer)
                if self.step % self.config.save_every == 0 and self.step < self.task.steps:
                    self._save()
                    if not self.console.is_terminal:  # no bar in a log
                        self._print(f"step {self.step}: {self.text}")
        self._save()
        if writer:
            writer.close()
        self._print(f"{self.step} steps, {self.seconds:.0f} s, {self.last}")
        return Result(self.last, self.history, round(self.seconds, 1))

    def _learn(self) -> tuple[Tensor, dict[str, float]]:
        """One step; returns the last learner's rows, and the losses: those of one name averaged."""
        share, world = own_rows(self.fabric), self.fabric.world_size
        torch.manual_seed(seed_of(self.config.seed, self.step, self.fabric.global_rank))
        values = defaultdict(list)
        for number, (learner, network, optimizer) in enumerate(zip(self.task.learners, self.networks, self.optimizers)):
            every = self.task.rows(self.step, number)
            rows = every[share]
            optimizer.zero_grad(set_to_none=True)
            losses = self.task.losses(number, network, rows, self.step)
            weight = len(rows) * world / len(every)  # 1, but for shares that are not equal: DDP averages over processes, not rows
            means = self.fabric.all_reduce(weight * torch.stack([value.detach() for value in losses.values()]), reduce_op="mean")
            self._require_finite(means, losses, rows)
            self.fabric.backward(weight * next(iter(losses.values())))
            if learner.max_norm is not None:
                self.fabric.clip_gradients(network, optimizer, max_norm=learner.max_norm)
            optimizer.step()
            if learner.schedule:
                learner.schedule.step()
            for name, value in zip(losses, means.tolist()):
                values[name].append(value)
        self.task.after_step()
        return rows, {name: sum(some) / len(some) for name, some in values.items()}

    def _require_finite(self, means: Tensor, losses: dict[str, Tensor], rows: Tensor) -> None:
        """FloatingPointError in every process where the loss of one is not finite, and so its mean: no process waits for one that has
        stopped."""
        total, *others = losses.values()
        broken = ~torch.isfinite(total)
        if not torch.isfinite(means[0]):
            parts = ", ".join(f"{name} {value.item()}" for name, value in zip(list(losses)[1:], others)) or "its only part"
            whose = self.task.whose(rows) if broken else f"{self.task.rows_are} of another process, which names them"
            raise FloatingPointError(f"loss is {total.item()} in step {self.step} ({parts}); {whose}")

    def _end_epoch(self, writer) -> None:
        scores = self.task.evaluate()
        self._train_mode()
        means = {name: total / count for name, (total, count) in self.epoch.items()}
        self.epoch = {}
        entry = {"epoch": len(self.history), "step": self.step, **means, **scores}
        self.history.append(entry)
        if writer:
            for name, value in scores.items():
                writer.add_scalar(f"score/{name}", value, self.step)
        epochs = -(-self.task.steps // self.task.per_epoch)
        if scores and len(self.history) % max(1, epochs // 10) == 0:
            self._print(f"epoch {len(self.history)}: " + ", ".join(f"{name} {value:.3f}" for name, value in (means | scores).items()))

    def _train_mode(self) -> None:
        for network in self.networks:
            network.train()

    # ---- files ------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Weights and everything to go on from, each file whole or not at all."""
        if self.fabric.is_global_zero:
            with atomic_write(self.config.out / RESUME) as partial:
                torch.save(self._state(), partial)
            self.task.save(self.step, self.last)
        self.fabric.barrier()

    def _state(self) -> dict:
        return {
            "modules": {name: module.state_dict() for name, module in self.task.modules.items()},
            "optimizers": [learner.optimizer.state_dict() for learner in self.task.learners],
            "schedules": [learner.schedule and learner.schedule.state_dict() for learner in self.task.learners],
            "scaler": self.fabric.strategy.precision.state_dict(),  # of 16-mixed's loss
            "step": self.step, "losses": self.last, "epoch": self.epoch, "history": self.history, "seconds": self.seconds,
            "config": plain(self.config),
        }  # fmt: skip

    def _resume(self) -> None:
        path = self.config.out / RESUME
        if not path.is_file():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        require_same(self.config, state)
        if "modules" not in state:
            raise ValueError(f"{path} was written by an earlier version of hmr_ros; finish the run with that version, or name another --out")
        for name, module in self.task.modules.items():
            module.load_state_dict(state["modules"][name])
        for learner, optimizer, schedule in zip(self.task.learners, state["optimizers"], state["schedules"]):
            learner.optimizer.load_state_dict(optimizer)
            if learner.schedule:
                learner.schedule.load_state_dict(schedule)
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        names = "step", "losses", "seconds", "history", "epoch"
        self.step, self.last, self.seconds, self.history, self.epoch = (state[name] for name in names)

    # ---- what people look at ----------------------------------------------------------------------------------------

    def _print(self, line: str) -> None:
        if self.fabric.is_global_zero:
            self.console.print(f"{self.task.label}: {line}", highlight=False)

    def _progress(self) -> Progress:
        columns = TextColumn(self.task.label), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn(), TimeRemainingColumn()
        hidden = not self.fabric.is_global_zero
        return Progress(*columns, TextColumn("{task.fields[losses]}"), console=self.console, disable=hidden)

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
        writer.add_scalar(f"{self.task.rows_are}_per_second", rate, self.step)
        writer.add_scalar("learning_rate", self.task.learners[-1].optimizer.param_groups[0]["lr"], self.step)
        if self.step % (10 * self.config.log_every) == 0 or self.step == self.task.steps:
            picture = self.task.picture(rows[:6])
            if picture is not None:
                writer.add_image(*picture, self.step, dataformats="HWC")


# ---- settings of a run in its folder ----------------------------------------------------------------------------------


def plain(config) -> dict:
    """A configuration as plain JSON values."""
    return _as_json(asdict(config))


def _as_json(value):
    return json.loads(json.dumps(value, default=str))


def completed(written: dict, config) -> dict:
    """A configuration as it was ``written`` by an older version, with the defaults of those options of ``config`` that it lacks."""
    defaults = {}
    for option in fields(config):
        now = getattr(config, option.name)
        if is_dataclass(now):
            defaults[option.name] = completed(written.get(option.name, {}), now)
        elif option.name not in written and option.default is not MISSING:
            defaults[option.name] = _as_json(option.default)
    return written | defaults


def require_same(config: LoopConfig, state: dict | None = None) -> None:
    """ValueError where the run in ``config.out``, finished or not (its ``state``, by default resume.pt), has other settings."""
    path = config.out / RESUME
    state = torch.load(path, map_location="cpu", weights_only=True) if state is None else state
    expected, found = ({name: value for name, value in some.items() if name not in _ELSEWHERE}
                       for some in (plain(config), completed(state["config"], config)))  # fmt: skip
    if expected != found:
        different = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        raise ValueError(f"{path} is of a run with other settings ({', '.join(different)}); name another --out, or go on "
                         f"with {({name: found.get(name) for name in different})}")  # fmt: skip


# ---- seeds and schedules ----------------------------------------------------------------------------------------------


def seed_of(*numbers: int) -> int:
    """A seed for torch, which depends on these numbers alone."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def generator(*numbers: int) -> torch.Generator:
    """Of random numbers that depend on these numbers alone."""
    return torch.Generator().manual_seed(seed_of(*numbers))


@lru_cache(maxsize=8)
def order(count: int, seed: int) -> Tensor:
    """A permutation (count,) that depends on the seed alone; an epoch asks for it in every step."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def one_cycle(optimizer: Optimizer, lr: float, steps: int, warm_up: float, **options) -> OneCycleLR:
    """Learning rate up to ``lr`` in a share ``warm_up`` of the steps, and down. A warm-up of a single step, by which OneCycleLR
    would divide zero by zero, is left out."""
    return OneCycleLR(optimizer, lr, total_steps=steps, pct_start=warm_up if warm_up * steps > 1 else 0.0, **options)
