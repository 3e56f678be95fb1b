"""Scores of predictions against the truth of rendered people: joints, projection, shape, reliability.

People whom the detectors missed count as the mean pose, in every method: a method's score is over everybody in the pictures.
All figures are plain numbers in dictionaries, ready for JSON; what is undefined (nobody of a kind) is None or absent.
"""

from __future__ import annotations

import numpy as np

from hmr_ros.body.model import BodyModel
from hmr_ros.geometry import matrix_from_rotvec, similarity_align, to_crop
from hmr_ros.networks.lifter.net import RIGHT
from hmr_ros.skeleton import LIMB_KEYPOINTS, LIMB_NAMES
from hmr_ros.training.metrics import LIMB_HIPS, auroc, mpjpe, pa_mpjpe, root_aligned
from hmr_ros.training.benchmarks.rendered.methods import Prediction

_LIMBS = list(LIMB_KEYPOINTS)
_TRUTH = ("index", "ray_orient", "keypoints3d", "category", "people", "cut", "occluded", "visible", "betas")
PARTS = ("all", "found", "mocap", "everyday", "cut", "occluded", "several")
VIEWS = ("front", "side", "back")
WRONG_2D = 0.1  # of the person's diagonal
WORST = 0.2  # share of joints that count as wrong in 3D


class Truth:
    """N found people, then M missed ones, of ``rendered.load``'s rows."""

    def __init__(self, data: dict[str, np.ndarray]):
        self.found = {name: rows for name, rows in data.items() if not name.startswith("missed_")}
        parts = [[data[name]] + ([data[f"missed_{name}"]] if f"missed_{name}" in data else []) for name in _TRUTH]
        everybody = dict(zip(_TRUTH, map(np.concatenate, parts), strict=True))
        self.count_found, self.count = len(self.found["index"]), len(everybody["index"])
        self.limbs = root_aligned(everybody["keypoints3d"][:, _LIMBS], LIMB_HIPS)  # (N + M, 12, 3)
        self.betas, self.visible = everybody["betas"], everybody["visible"][:, _LIMBS]
        self.category = everybody["category"]
        self.yaw = yaw_to_viewer(everybody["ray_orient"])  # (N + M,) degrees
        found = np.arange(self.count) < self.count_found
        mocap = self.category == "mocap"
        everyone, several = np.ones(self.count, bool), everybody["people"] > 1
        masks = (everyone, found, mocap, ~mocap, everybody["cut"], everybody["occluded"], several)
        self.parts = dict(zip(PARTS, masks, strict=True))
        turned = np.abs(self.yaw)
        self.views = dict(zip(VIEWS, (turned < 45, (turned >= 45) & (turned <= 135), turned > 135), strict=True))
        # Of the found: true joints in the crop, and the detected box's diagonal in its coordinates.
        box, crop = self.found["box"], self.found["crop"]
        self.seen = to_crop(self.found["keypoints2d"], crop)[:, _LIMBS]
        self.diagonal = 2 * np.linalg.norm(box[:, 2:] - box[:, :2], axis=1) / crop[:, 2]

    def missed_by_category(self) -> dict[str, int]:
        names, counts = np.unique(self.category[self.count_found :], return_counts=True)
        return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def yaw_to_viewer(ray_orient: np.ndarray) -> np.ndarray:
    """Heading against the viewing ray: axis-angle into ray axes (N, 3) → degrees (N,), 0 faces the viewer, 180 turns away,
    positive looks to the image's right; in [-180, 180)."""
    forward = matrix_from_rotvec(ray_orient)[..., 2]  # the body faces its own +z
    return (np.degrees(np.arctan2(forward[:, 0], -forward[:, 2])) + 180) % 360 - 180


def complete(prediction: Prediction, mean_limbs: np.ndarray, missed: int) -> np.ndarray:
    """Limb joints of the found (N, 12, 3), and the mean pose (12, 3) for each missed → (N + M, 12, 3)."""
    return np.concatenate([prediction.limbs, np.broadcast_to(mean_limbs, (missed, *mean_limbs.shape))])


def score(prediction: Prediction, mean_limbs: np.ndarray, truth: Truth, body: BodyModel) -> dict:
    """All figures of one method but those of its reliability; millimetres and percent."""
    limbs = complete(prediction, mean_limbs, truth.count - truth.count_found)
    plain, aligned = mpjpe(limbs, truth.limbs), pa_mpjpe(limbs, truth.limbs)

    def means(mask: np.ndarray) -> dict:
        known = {"mpjpe": float(plain[mask].mean()), "pa_mpjpe": float(aligned[mask].mean())} if mask.any() else {}
        return {"people": int(mask.sum()), "mpjpe": None, "pa_mpjpe": None} | known

    both = limbs, similarity_align(limbs, truth.limbs)
    by_joint = [1000 * np.linalg.norm(some - truth.limbs, axis=-1).mean(0) for some in both]
    edges = range(-180, 180, 30)
    per_joint = zip(LIMB_NAMES, *by_joint, strict=True)
    return {
        "parts": {name: means(mask) for name, mask in truth.parts.items()},
        "views": {name: means(mask) for name, mask in truth.views.items()},
        "categories": {str(name): means(truth.category == name) for name in np.unique(truth.category)},
        "yaw": [{"from": edge, "to": edge + 30} | means((truth.yaw >= edge) & (truth.yaw < edge + 30)) for edge in edges],
        "joints": {name: {"mpjpe": float(a), "pa_mpjpe": float(b)} for name, a, b in per_joint},
        "projection": projection(prediction, truth),
        "shape_mm": float(shape_errors(prediction, truth, body).mean()) if prediction.betas is not None else None,
    }  # fmt: skip


def projection(prediction: Prediction, truth: Truth) -> dict[str, float | None]:
    """Share of the truly visible limb joints that project to within 5 and 10 % of the person's diagonal, those of missed
    people counting as not; the mean distance in percent of the diagonal is over the found alone."""
    visible = truth.visible[: truth.count_found]
    off = (np.linalg.norm(prediction.seen - truth.seen, axis=-1) / truth.diagonal[:, None])[visible]
    everything = max(int(truth.visible.sum()), 1)
    return {
        "pck_5": 100 * float((off < 0.05).sum() / everything),
        "pck_10": 100 * float((off < 0.10).sum() / everything),
        "mean_error_percent": 100 * float(off.mean()) if len(off) else None,
    }


def shape_errors(prediction: Prediction, truth: Truth, body: BodyModel) -> np.ndarray:
    """Mean distance of the T-pose's vertices with the pelvis joints on each other (N + M,), millimetres; the missed have the
    mean shape."""
    smpl = body.smpl
    directions = (smpl.shapedirs - (smpl.J_regressor[:1] @ smpl.shapedirs.flatten(1)).unflatten(1, (3, -1))).numpy()
    betas = np.zeros_like(truth.betas)
    betas[: truth.count_found] = prediction.betas
    batches = np.array_split(betas - truth.betas, max(1, len(betas) // 64))
    moved = (np.einsum("vcb,nb->nvc", directions, batch, optimize=True) for batch in batches)
    return np.concatenate([1000 * np.linalg.norm(some, axis=-1).mean(1) for some in moved])


# ---- reliability ----------------------------------------------------------------------------------------------------


def reliability(prediction: Prediction, truth: Truth) -> dict:
    """How well reliability, and beside it the detector's own confidence, tells good joints of the found from bad ones."""
    errors = np.linalg.norm(prediction.limbs - truth.limbs[: truth.count_found], axis=-1)  # metres
    keypoints = to_crop(truth.found["keypoints"][..., :2], truth.found["crop"])[:, _LIMBS]
    detected_wrong = np.linalg.norm(keypoints - truth.seen, axis=-1) / truth.diagonal[:, None] > WRONG_2D
    visible = truth.visible[: truth.count_found]
    worst = errors > np.quantile(errors, 1 - WORST)
    worst_of_joint = errors > np.quantile(errors, 1 - WORST, axis=0)
    scores = {"reliability": prediction.reliability, "detector_confidence": truth.found["keypoints"][:, _LIMBS, 2]}
    result: dict = {
        "right_within_m": RIGHT,
        "right_share": float((errors < RIGHT).mean()),
        "worst_3d_begins_at_mm": 1000 * float(np.quantile(errors, 1 - WORST)),
        "detected_wrong_share": {"visible": _share(detected_wrong[visible]), "all": _share(detected_wrong)},
    }
    for name, values in scores.items():
        by_joint = {joint: _auroc(-values[:, j], worst_of_joint[:, j]) for j, joint in enumerate(LIMB_NAMES)}
        known = [value for value in by_joint.values() if value is not None]
        result[name] = {
            "auroc_worst_3d": _auroc(-values, worst),
            "auroc_worst_3d_mean_over_joints": float(np.mean(known)) if known else None,
            "auroc_worst_3d_by_joint": by_joint,
            "auroc_detected_wrong_visible": _auroc(-values[visible], detected_wrong[visible]),
            "auroc_detected_wrong_all": _auroc(-values, detected_wrong),
            **calibration(values, errors < RIGHT),
        }
    return result


def calibration(predicted: np.ndarray, observed: np.ndarray, bins: int = 10) -> dict:
    """Predicted probabilities against what happened (bool), same shapes, in equal bins of [0, 1]; ``ece`` is the expected
    calibration error, the bins' mean gap weighted by their size."""
    which = np.clip((predicted * bins).astype(int), 0, bins - 1)
    rows = []
    for number in np.unique(which):
        inside = which == number
        rows.append(
            {
                "from": float(number / bins),
                "joints": int(inside.sum()),
                "predicted": float(predicted[inside].mean()),
                "observed": float(observed[inside].mean()),
            }
        )
    gaps = [row["joints"] * abs(row["predicted"] - row["observed"]) for row in rows]
    return {"ece": float(sum(gaps) / max(which.size, 1)), "calibration": rows}


def _auroc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """None where there are none of one kind, as in a handful of pictures."""
    return auroc(scores.ravel(), positive.ravel()) if positive.any() and not positive.all() else None


def _share(wrong: np.ndarray) -> float | None:
    return float(wrong.mean()) if wrong.size else None
