"""How the lifter is adapted: it goes on learning from the recording, from people rendered before its camera, and from other rendered people.

    recording   pseudo-labels (teacher.py): real pictures, bodies that may be wrong
    viewpoint   people before the recording's camera (rendered/viewpoint.py): rendered pictures, exact bodies
    replay      people before all kinds of cameras, and what the lifter said of them before: so it does not forget (Li and Hoiem 2016)

Only the MLPs learn: what the image-feature branch says of every view is computed once. That is fast, and the branch has seen far more people than
a recording holds. The statistics of the inputs stay those of the checkpoint, and so does the network of the reliability, which reliability.py
calibrates afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.networks.checkpoints import load_lifter
from hmr_ros.networks.lifter.net import Lifter
from hmr_ros.training.adaptation.reliability import calibrate
from hmr_ros.training.data.mapped import Rows
from hmr_ros.training.lifter.samples import DEPTHS, FLIPS, Samples, make_samples
from hmr_ros.training.lifter.tasks import errors, predictions
from hmr_ros.training.lifter.train import WEIGHTS, halved
from hmr_ros.training.loop import Learner, LoopConfig, Task, generator, launch, one_cycle, run
from hmr_ros.training.losses.body import body_loss

SOURCES = ("recording", "viewpoint", "replay")
LOSS_WEIGHTS = (10.0, 1.0, 0.2, 2.0)  # of joints, rotations, betas, projection: those of `hmr-ros train lifter`


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(LoopConfig):
    """How a regressor goes on learning."""

    out: Path = Path("runs/adapted")
    """Folder of the run."""
    batch: int = 256
    """Views a step."""
    steps: int = 500
    """Of each of its networks."""
    lr: float = 3e-4
    weight_decay: float = 0.05
    average: float = 0.99
    """Of the weights, exponential moving average a step: what is kept."""
    shares: tuple[float, float, float] = (0.2, 0.5, 0.3)
    """Of a batch: the recording, people rendered before its camera, other rendered people."""
    save_every: int = 100


class Mix:
    """Which rows a batch has, of sources whose rows follow each other."""

    def __init__(self, batch: int, shares: Sequence[float], lengths: dict[str, int]):
        """``shares`` of the batch, by SOURCES; ``lengths`` of the sources that there are."""
        used = {name: share for name, share in zip(SOURCES, shares) if name in lengths and share}
        self.parts, first = [], 0  # name, first row, rows, rows of a batch
        for name, share in used.items():
            self.parts.append((name, first, lengths[name], max(1, round(batch * share / sum(used.values())))))
            first += lengths[name]

    def draw(self, dice: torch.Generator) -> Tensor:
        return torch.cat([first + torch.randint(length, (count,), generator=dice) for _, first, length, count in self.parts])


class AdaptationTask(Task):
    """The MLP of every member of the lifter is a learner. Rows count through the views of one source after the other."""

    label, rows_are = "adaptation", "views"

    def __init__(
        self, config: FinetuneConfig, fabric: Fabric, lifter: Lifter, sources: dict[str, Samples], branches: dict[str, list[Tensor]],
        skeleton: PosedKeypoints,
    ):  # fmt: skip
        """``sources``: views by the names of SOURCES; a source that is left out takes no part. ``branches``: their ``branch_outputs``."""
        self.config, self.lifter, self.device = config, lifter, fabric.device
        self.posed = copy.deepcopy(skeleton).to(fabric.device)
        self.mix = Mix(config.batch, config.shares, {name: len(samples) for name, samples in sources.items()})
        self.sources = [(name, first, sources[name], branches[name]) for name, first, _, _ in self.mix.parts]
        self.steps = self.per_epoch = config.steps
        heads = nn.ModuleList(getattr(member, "mlp", member) for member in lifter.members)
        ema = torch.optim.swa_utils.get_ema_multi_avg_fn(config.average)
        self.heads, self.average = heads, torch.optim.swa_utils.AveragedModel(heads, multi_avg_fn=ema)
        self.modules = {"heads": heads, "average": self.average}
        self.learners = []
        for head in heads:
            optimizer = torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay)
            self.learners.append(Learner(head, optimizer, one_cycle(optimizer, config.lr, self.steps, warm_up=0.1)))

    def rows(self, step: int, learner: int) -> Tensor:
        return self.mix.draw(generator(self.config.seed, step, learner))

    def losses(self, learner: int, network: nn.Module, rows: Tensor, step: int) -> dict[str, Tensor]:
        losses, total = {}, 0.0
        for name, first, samples, outputs in self.sources:
            some = rows[(rows >= first) & (rows < first + len(samples))] - first
            if len(some):
                losses[name] = self._loss(network, samples[some], outputs[learner][some])
                total = total + losses[name] * len(some) / len(rows)
        return {"loss": total, **losses}

    def _loss(self, network: nn.Module, some: Samples, branch: Tensor) -> Tensor:
        features, branch, rotations, betas, xy = (
            value.to(self.device) for value in (some.features, branch.float(), some.rotations, some.betas, some.keypoints_xy)
        )
        output = network(torch.cat([self.lifter.normalized(features), branch], dim=1), None)
        return body_loss(self.lifter.parameters_of(output.float()), (rotations, betas), xy, self.posed, *LOSS_WEIGHTS)

    def after_step(self) -> None:
        self.average.update_parameters(self.heads)

    def finish(self) -> None:
        """The lifter gets the averaged weights."""
        self.heads.load_state_dict(self.average.module.state_dict())


def as_before(lifter: Lifter, samples: Samples) -> Samples:
    """Views whose bodies are what ``lifter`` says of them, not the truth: the lifter that learns them stays as it was."""
    bodies = [body for _, body in predictions(lifter, samples)]
    return replace(samples, rotations=torch.cat([body.rotations for body in bodies]), betas=torch.cat([body.betas for body in bodies]))


@torch.no_grad()
def branch_outputs(lifter: Lifter, samples: Samples) -> list[Tensor]:
    """(N, COUNT) float16 of each member's image-feature branch, (N, 0) of a member without one. Views of one feature map share them."""
    lifter.eval()
    rows, view = torch.unique(torch.as_tensor(np.asarray(samples.map_row)), return_inverse=True)
    parts: list[list[Tensor]] = [[] for _ in lifter.members]
    for some in rows.split(256):
        maps = torch.as_tensor(samples.maps[some]).float().to(lifter.feature_mean.device)
        for member, found in zip(lifter.members, parts):
            found.append(member.branch(maps).half().cpu() if hasattr(member, "branch") else maps.new_empty(len(maps), 0).half().cpu())
    return [torch.cat(found)[view] for found in parts]


def blend(network: nn.Module, before: nn.Module, scores: Callable[[nn.Module], dict[str, float]], worse: float) -> float:
    """Mix the learned weights, in place, with those ``before`` (WiSE-FT, Wortsman et al. 2022): as much of the learned ones as makes none of the
    ``scores``, of people before other cameras, worse by more than a share ``worse``. Returns the learned weights' share."""
    learned = {name: value.clone() for name, value in network.state_dict().items()}
    old, start = before.state_dict(), scores(before)
    for share in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        network.load_state_dict({name: torch.lerp(old[name], new, share) if new.is_floating_point() else new for name, new in learned.items()})
        found = scores(network)
        if all(found[name] <= (1 + worse) * start[name] for name in start):
            return share
    network.load_state_dict(old)
    return 0.0


class LifterViews(NamedTuple):
    """Views to learn from, and what the image-feature branches say of them."""

    samples: Samples
    branches: list[Tensor]


class AdaptableLifter:
    """The lifter, for `hmr-ros adapt` (adaptable.py)."""

    weights = WEIGHTS

    def __init__(self, checkpoint: Path):
        self.before, self.body = load_lifter(checkpoint)

    def views(self, data: dict, maps: Rows, skeleton: PosedKeypoints, people: np.ndarray, depths: Sequence[str] = DEPTHS) -> Samples:
        return make_samples(data, maps, skeleton, FLIPS, depths, people)

    def held_out(self, data: dict, maps: Rows, skeleton: PosedKeypoints, people: np.ndarray) -> Samples:
        return make_samples(data, maps, skeleton, FLIPS[:1], DEPTHS[:1], people)

    def as_before(self, views: Samples) -> Samples:
        return as_before(self.before, views)

    def ready(self, views: Samples) -> LifterViews:
        return LifterViews(views, branch_outputs(self.before, views))

    def learn(self, config: FinetuneConfig, sources: dict[str, LifterViews], skeleton: PosedKeypoints, console: Console) -> Lifter:
        fabric, lifter = launch(config, self.weights), copy.deepcopy(self.before)
        samples, branches = ({name: views[i] for name, views in sources.items()} for i in (0, 1))
        task = AdaptationTask(config, fabric, lifter, samples, branches, skeleton)
        run(task, config, fabric, console)
        task.finish()
        return lifter

    def errors(self, network: Lifter, views: Samples, skeleton: PosedKeypoints) -> dict[str, np.ndarray]:
        return errors(network, views, skeleton)

    def calibrate(self, network: Lifter, known: dict[str, Samples], held: dict[str, Samples], skeleton: PosedKeypoints, worse: float) -> dict:
        return calibrate(network, self.before, known, held, skeleton, worse)

    def halved(self, network: Lifter) -> dict[str, Tensor]:
        return halved(network)
