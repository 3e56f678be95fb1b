"""The reliability of an adapted lifter, calibrated: Platt scaling (Platt 1999) of what the checkpoint's reliability network says, by one slope and one
offset, on rendered people whom the lifter did not learn from. Which joints are more reliable than others, and so the AUROC, stays.

Learning the network again on as few people is no better: of the embedded lifter, on 80 people of another renderer than it knows, cross-entropy on the
others went from 0.428 to 0.436 (0.428 at a fifth of the learning rate), AUROC from 0.854 to 0.849.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.networks.lifter.net import RIGHT, Lifter
from hmr_ros.training.benchmarks.rendered.scores import WORST, calibration
from hmr_ros.training.lifter.samples import Samples
from hmr_ros.training.lifter.tasks import joint_errors
from hmr_ros.training.metrics import auroc

_PRIOR = 0.5  # standard deviation of the slope's logarithm and of the offset: a handful of people changes little


class Rated(NamedTuple):
    """Joints of N views."""

    logits: Tensor  # (N, 12) float64, of their reliability
    errors: Tensor  # (N, 12) metres, refined as in the estimator

    def scaled(self, slope: float, offset: float) -> Rated:
        return self._replace(logits=slope * self.logits + offset)

    def scores(self) -> dict[str, float]:
        """``ece``: expected calibration error; ``auroc``: of telling the worst fifth of the joints; ``entropy``: cross-entropy, a proper score."""
        probability, right = self.logits.sigmoid(), self.errors < RIGHT
        worst = self.errors.numpy() > np.quantile(self.errors.numpy(), 1 - WORST)
        return {
            "ece": calibration(probability.numpy(), right.numpy())["ece"],
            "auroc": auroc(-probability.numpy().ravel(), worst.ravel()),
            "entropy": float(F.binary_cross_entropy_with_logits(self.logits, right.double())),
        }


@torch.no_grad()
def rate(lifter: Lifter, samples: Samples, skeleton: PosedKeypoints) -> Rated:
    """What a lifter says of its joints, and how far off they are."""
    lifter.eval()
    logits = [lifter.reliability(lifter.outputs(some.features, some.feature_map)[1]) for some in samples.parts()]
    return Rated(torch.cat(logits).double(), joint_errors(lifter, samples, skeleton))


def platt(rated: Rated) -> tuple[float, float]:
    """Slope (positive) and offset of the logits with the highest posterior probability."""
    unknown = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # the slope's logarithm, the offset
    right = (rated.errors < RIGHT).double()
    optimizer = torch.optim.LBFGS([unknown], max_iter=100, line_search_fn="strong_wolfe")

    def energy() -> Tensor:
        optimizer.zero_grad()
        scaled = rated.scaled(unknown[0].exp(), unknown[1]).logits
        value = F.binary_cross_entropy_with_logits(scaled, right, reduction="sum") + 0.5 * (unknown / _PRIOR).square().sum()
        value.backward()
        return value

    optimizer.step(energy)
    slope, offset = unknown.detach()
    return float(slope.exp()), float(offset)


def calibrate(
    lifter: Lifter, before: Lifter, known: dict[str, Samples], held: dict[str, Samples], skeleton: PosedKeypoints, worse: float
) -> dict:  # fmt: skip
    """Calibrate the reliability, in place, on ``known`` people, where that makes it better for ``held`` ones before the recording's camera ("viewpoint")
    and by at most a share ``worse`` worse for those before others ("replay"), by cross-entropy. Returns the figures for the report: the scores of each of
    ``held`` with the lifter ``before``, ``as_it_was`` (the adapted one, not calibrated) and ``after``; ``kept``: "calibrated" or "as it was"."""
    parts = [rate(lifter, samples, skeleton) for samples in known.values()]
    slope, offset = platt(Rated(*map(torch.cat, zip(*parts)))) if parts else (1.0, 0.0)
    figures = {}
    for name, samples in held.items():
        rated = rate(lifter, samples, skeleton)
        figures[name] = {"before": rate(before, samples, skeleton).scores(), "as_it_was": rated.scores(), "after": rated.scaled(slope, offset).scores()}
    old, new = ({name: some[which]["entropy"] for name, some in figures.items()} for which in ("as_it_was", "after"))
    better = new["viewpoint"] < old["viewpoint"] and new["replay"] <= (1 + worse) * old["replay"]
    if better:
        last: nn.Linear = lifter.reliability[-1]
        with torch.no_grad():
            last.weight.mul_(slope)
            last.bias.mul_(slope).add_(offset)
    else:
        for some in figures.values():
            some["after"] = some["as_it_was"]
    return {"kept": "calibrated" if better else "as it was", "slope": slope, "offset": offset, "scores": figures}
