"""The learning rate's course, for all that is trained."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR


def one_cycle(optimizer: Optimizer, lr: float, steps: int, warm_up: float, **options) -> OneCycleLR:
    """Up to ``lr`` in a share ``warm_up`` of the steps, and down. A warm-up of a single step, by which OneCycleLR would divide
    zero by zero, is left out."""
    return OneCycleLR(optimizer, lr, total_steps=steps, pct_start=warm_up if warm_up * steps > 1 else 0.0, **options)
