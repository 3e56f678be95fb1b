"""What `hmr-ros adapt` asks of a regressor: AdaptableLifter (finetune.py), AdaptableResnet18 (finetune_paper.py)."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from torch import Tensor, nn

from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.training.adaptation.finetune import FinetuneConfig
from hmr_ros.training.data.mapped import Rows
from hmr_ros.training.lifter.samples import DEPTHS


class PersonViews(Sized, Protocol):
    """People as the network's inputs, and their bodies."""

    person: Tensor  # (N,) row of the data set


class Adaptable(Protocol):
    """A regressor in a checkpoint, and how it learns."""

    weights: str  # name of its checkpoint's file
    before: nn.Module  # the network in the checkpoint
    body: dict[str, str]  # "name" and "sha256" of the body model that it was trained with

    def __init__(self, checkpoint: Path): ...

    def views(self, data: dict, maps: Rows, skeleton: PosedKeypoints, people: np.ndarray, depths: Sequence[str] = DEPTHS) -> PersonViews:
        """Some ``people`` (N,) of lifter/samples.py's ``load_people`` and feature ``maps``, in all views that are learned from; ``depths``: which
        columns there are."""
        ...

    def held_out(self, data: dict, maps: Rows, skeleton: PosedKeypoints, people: np.ndarray) -> PersonViews:
        """The same in one view each, to measure on."""
        ...

    def as_before(self, views: PersonViews) -> PersonViews:
        """With the bodies that the network in the checkpoint gives, not the true ones."""
        ...

    def ready(self, views: PersonViews) -> Any:
        """What ``learn`` takes of them."""
        ...

    def learn(self, config: FinetuneConfig, sources: dict[str, Any], skeleton: PosedKeypoints, console: Console) -> nn.Module:
        """Another network that went on learning from ``ready`` views by the names of finetune.SOURCES; resumed."""
        ...

    def errors(self, network: nn.Module, views: PersonViews, skeleton: PosedKeypoints) -> dict[str, np.ndarray]:
        """``mpjpe`` and ``pa_mpjpe`` (N,), mm."""
        ...

    def calibrate(self, network: nn.Module, known: dict[str, PersonViews], held: dict[str, PersonViews], skeleton: PosedKeypoints, worse: float) -> dict | None:
        """Calibrate its reliability in place (reliability.py), and return the figures for the report; None where it is no probability."""
        ...

    def halved(self, network: nn.Module) -> dict[str, Tensor]:
        """Its weights as its checkpoints hold them."""
        ...
