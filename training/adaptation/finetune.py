"""The task of adaptation: the lifter's members learn from pseudo-labels of a recording and from rendered people's truth in equal parts.

The rendered people (replay) keep it from forgetting what the recording does not show. The statistics of the inputs and of the image-feature
branch stay those of the checkpoint, and so does the network of the reliability.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.networks.lifter.net import Lifter
from hmr_ros.training.lifter.samples import Samples
from hmr_ros.training.loop import Learner, LoopConfig, Task, generator, one_cycle
from hmr_ros.training.losses.body import body_loss


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(LoopConfig):
    """How the lifter learns."""

    out: Path = Path("runs/adapted")
    batch: int = 128
    """Views a step, half of them of the recording, half of rendered people."""
    steps: int = 300
    lr: float = 3e-4
    weight_decay: float = 0.05
    average: float = 0.99
    """Of the weights, exponential moving average a step: what is kept."""
    save_every: int = 100


class AdaptationTask(Task):
    """Every member is a learner. Rows below the number of views of the recording are its, the others are of rendered people."""

    label, rows_are = "adaptation", "views"
    WEIGHTS = (10.0, 1.0, 0.2, 2.0)  # of joints, rotations, betas, projection: those of `hmr-ros train lifter`

    def __init__(self, config: FinetuneConfig, fabric: Fabric, lifter: Lifter, recorded: Samples, replay: Samples, skeleton: PosedKeypoints):
        self.config, self.lifter, self.parts, self.device = config, lifter, (recorded, replay), fabric.device
        self.posed = copy.deepcopy(skeleton).to(fabric.device)
        self.steps, self.per_epoch = config.steps, config.steps
        ema = torch.optim.swa_utils.get_ema_multi_avg_fn(config.average)
        self.average = torch.optim.swa_utils.AveragedModel(lifter.members, multi_avg_fn=ema, use_buffers=False)
        self.modules = {"members": lifter.members, "average": self.average}
        self.learners = []
        for member in lifter.members:
            optimizer = torch.optim.AdamW(member.parameters(), lr=config.lr, weight_decay=config.weight_decay)
            self.learners.append(Learner(member, optimizer, one_cycle(optimizer, config.lr, self.steps, warm_up=0.1)))
        self.branches = [hasattr(member, "branch") for member in lifter.members]

    def rows(self, step: int, learner: int) -> Tensor:
        dice, (recorded, replay) = generator(self.config.seed, step, learner), map(len, self.parts)
        half = self.config.batch // 2
        first = torch.randint(recorded, (half,), generator=dice)
        return torch.stack([first, recorded + torch.randint(replay, (half,), generator=dice)], 1).flatten()  # every process gets both kinds

    def losses(self, learner: int, network: nn.Module, rows: Tensor, step: int) -> dict[str, Tensor]:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # another camera's people must not move the statistics
        recorded, count = rows < len(self.parts[0]), len(self.parts[0])
        losses = {
            "recording": self._loss(learner, network, self.parts[0][rows[recorded]]),
            "replay": self._loss(learner, network, self.parts[1][rows[~recorded] - count]),
        }
        return {"loss": sum(losses.values()) / 2, **losses}

    def _loss(self, learner: int, network: nn.Module, some: Samples) -> Tensor:
        features, rotations, betas, xy = (value.to(self.device) for value in (some.features, some.rotations, some.betas, some.keypoints_xy))
        feature_map = some.feature_map.to(self.device) if self.branches[learner] else None
        output = network(self.lifter.normalized(features), feature_map)
        return body_loss(self.lifter.parameters_of(output.float()), (rotations, betas), xy, self.posed, *self.WEIGHTS)

    def after_step(self) -> None:
        self.average.update_parameters(self.lifter.members)
