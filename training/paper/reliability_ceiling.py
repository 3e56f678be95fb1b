"""How well the reliability network could tell bad joints if labels said which they are: the ceiling of its inputs.

The same network on the same inputs (networks/reliability.py), trained with labels, on other people than it is scored on. Only a
yardstick: what self-supervision cannot exceed whatever its loss.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from hmr_ros.networks.paper.reliability import Inputs, Reliability, relations
from hmr_ros.training.metrics import auroc
from hmr_ros.training.paper.proxy_data import ProxyData

FOLDS, STEPS = 5, 300


def ceiling(people: ProxyData, bad: np.ndarray, inputs: Inputs, seed: int = 0) -> float:
    """AUROC for bad (N, 12) joints of a network trained with ``bad`` of four fifths of the people, on the last fifth; each
    fifth in turn, the answers pooled."""
    features = relations(people.joints, people.depth.float(), inputs)
    labels = torch.from_numpy(~bad).float()
    fold = torch.randperm(len(bad), generator=torch.Generator().manual_seed(seed)) % FOLDS
    logits = torch.empty_like(labels)
    for number in range(FOLDS):
        held_out = fold == number
        torch.manual_seed(seed)
        network = Reliability(inputs)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1)
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            F.binary_cross_entropy_with_logits(network.layers(features[~held_out]), labels[~held_out]).backward()
            optimizer.step()
        with torch.no_grad():
            logits[held_out] = network.layers(features[held_out])
    return float(auroc(-logits.numpy().ravel(), bad.ravel()))
