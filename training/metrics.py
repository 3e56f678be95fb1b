"""Error measures of 3D poses, as the benchmarks define them (Human3.6M: MPJPE; after Procrustes alignment: PA-MPJPE)."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from hmr_ros.geometry import similarity_align


def mpjpe(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Mean per-joint position error: (N, J, 3) metres, twice → (N,) millimetres. Aligns nothing: subtract the root first.

    Raises ValueError where the shapes differ or are not (N, J, 3).
    """
    _check(pred, gt)
    return 1000.0 * np.linalg.norm(pred - gt, axis=-1).mean(-1)


def pa_mpjpe(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """MPJPE after the best similarity a sample (Procrustes, mirror images not accepted): (N, J, 3) → (N,) millimetres."""
    _check(pred, gt)
    return mpjpe(similarity_align(pred.astype(np.float64), gt.astype(np.float64)), gt)


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a positive scores higher than a negative, ties counting half.

    scores (N,), positive (N,) bool. Raises ValueError where there are none of one kind.
    """
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        raise ValueError(f"{count} positives and {others} negatives: an ROC curve needs both")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def _check(pred: np.ndarray, gt: np.ndarray) -> None:
    if pred.ndim != 3 or pred.shape != gt.shape or pred.shape[-1] != 3:
        raise ValueError(f"prediction {pred.shape} and truth {gt.shape} must both be (N, J, 3)")
