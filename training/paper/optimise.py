"""Optimisation of one person's body by the losses of training: refinement of what the regressor says, or, from the mean pose,
the baseline without learning (SMPLify-like, Bogo et al. 2016, on the same losses and pose prior)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hmr_ros.networks.paper.net import Resnet18Regressor
from hmr_ros.training.paper.coarse_body import CoarseBody
from hmr_ros.training.losses.consistency import LossConfig, consistency
from hmr_ros.training.paper.proxy_data import ProxyData


@dataclass(frozen=True)
class OptimiseConfig:
    steps: int = 50
    lr: float = 0.03
    batch: int = 256


def regress(regressor: Resnet18Regressor, people: ProxyData, batch: int = 256) -> tuple[Tensor, Tensor]:
    """What the regressor says of N people: (N, 48), and their joints' reliability (N, 12)."""
    regressor.eval()
    outputs, reliability = [], []
    with torch.no_grad():
        for rows in torch.arange(len(people)).split(batch):
            some = people[rows]
            outputs.append(regressor.encode(some.joints, some.depth))
            reliability.append(regressor.reliability(some.joints, some.depth))
    return torch.cat(outputs), torch.cat(reliability)


def optimise(
    regressor: Resnet18Regressor, body: CoarseBody, people: ProxyData, outputs: Tensor, reliability: Tensor | None,
    loss: LossConfig, config: OptimiseConfig = OptimiseConfig(),
) -> Tensor:  # fmt: skip
    """Adam on the 48 numbers themselves, from ``outputs`` (N, 48); zeros are the mean pose at the start's heading. Reliability
    stays as it is: it may not grow at somebody's expense."""
    weighted = loss.weighted and reliability is not None
    loss = replace(loss, weighted=weighted, collapse=0.0, beta_from_epoch=0)
    regressor.requires_grad_(False)
    answers = []
    for rows in torch.arange(len(people)).split(config.batch):
        some = people[rows]
        unknown = outputs[rows].clone().requires_grad_()
        optimizer = torch.optim.Adam([unknown], lr=config.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps, 0.1 * config.lr)
        weights = reliability[rows] if weighted else None
        for _ in range(config.steps):
            optimizer.zero_grad(set_to_none=True)
            losses = consistency(regressor, body, some.joints, some.depth, unknown, weights, loss)
            (losses.total * len(rows)).backward()  # bodies do not mix
            optimizer.step()
            schedule.step()
        answers.append(unknown.detach())
    return torch.cat(answers)


def decoded(regressor: Resnet18Regressor, people: ProxyData, outputs: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rotations (N, 24, 3, 3), betas (N, 10), weak cameras (N, 3)."""
    with torch.no_grad():
        return tuple(value.numpy() for value in regressor.decode(outputs, people.joints, people.depth.float()))
