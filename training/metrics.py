"""Error measures of 3D poses, as the benchmarks define them (Human3.6M: MPJPE; after Procrustes alignment: PA-MPJPE), and the
alignment at the root that goes before them."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar
from scipy.stats import rankdata

from hmr_ros.geometry import similarity_align


# What stands at the origin, in each joint order: the hips' midpoint, or the pelvis.
COCO_HIPS, LIMB_HIPS, J14_HIPS = (11, 12), (6, 7), (2, 3)  # of the 17 keypoints, the 12 limb joints, the 14 joints of LSP
SMPL_PELVIS = (0,)


def root(joints, at: tuple[int, ...]):
    """Mean of the joints with the indices ``at``: numpy or torch (..., J, 3) → (..., 3)."""
    return joints[..., list(at), :].mean(-2)


def root_aligned(joints, at: tuple[int, ...]):
    """Joints relative to their :func:`root`: numpy or torch (..., J, 3) → the same. Differentiable."""
    return joints - root(joints, at)[..., None, :]


def mpjpe(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Mean per-joint position error: (N, J, 3) metres, twice → (N,) millimetres. Aligns nothing: :func:`root_aligned` goes before.

    Raises ValueError where the shapes differ or are not (N, J, 3).
    """
    _check(pred, gt)
    return 1000.0 * np.linalg.norm(pred - gt, axis=-1).mean(-1)


def pa_mpjpe(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """MPJPE after the best similarity a sample (Procrustes, mirror images not accepted): (N, J, 3) → (N,) millimetres."""
    _check(pred, gt)
    return mpjpe(similarity_align(pred.astype(np.float64), gt.astype(np.float64)), gt)


def acceleration_error(pred: np.ndarray, gt: np.ndarray) -> float:
    """Mean over frames and joints of the distance between accelerations: (T, J, 3) metres, twice → mm/frame² (Kanazawa et al. 2019)."""
    _check(pred, gt)
    return float(1000.0 * np.linalg.norm(np.diff(pred - gt, n=2, axis=0), axis=-1).mean())


def delay(pred: np.ndarray, gt: np.ndarray, rate: float, most: float = 0.2) -> float:
    """Seconds by which ``pred`` (T, J, 3) comes after ``gt`` at ``rate`` Hz: where their cross-correlation is highest, in [-most, most].

    Between frames the truth is a cubic spline. Frames nearer than ``most`` to either end do not count.
    """
    _check(pred, gt)
    times = np.arange(len(gt)) / rate
    inside = (times >= most) & (times <= times[-1] - most)
    truth, seen = CubicSpline(times, gt.astype(np.float64)), pred[inside] - pred[inside].mean(0)

    def correlation(late: float) -> float:
        true = truth(times[inside] - late)
        true -= true.mean(0)
        return float((seen * true).sum() / np.sqrt((true**2).sum()))

    lates = np.arange(-most, most, 0.5 / rate)
    best = lates[np.argmax([correlation(late) for late in lates])]
    return float(minimize_scalar(lambda late: -correlation(late), bounds=(best - 0.5 / rate, best + 0.5 / rate), method="bounded").x)


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
