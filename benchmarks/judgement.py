"""What the limits of hmr_ros/judgement.py discard, and how wrong it is: people of the frozen test split, and rendered gymnasts.

    python benchmarks/judgement.py --data runs/test --backgrounds runs/backgrounds --json benchmarks/results/judgement.json

Every person's proxies go through the estimator with the picture's intrinsics, with no limit at all. A row is a set of limits: how many
bodies it discards, their median MPJPE and PA-MPJPE (12 limb joints, hips' midpoint at 0) beside those of the bodies kept, and the share
of wrong ones (MPJPE above 150 mm) among both. Reliability before and after the judgement is over all these bodies. Gymnasts are pictures
of the held-out cartwheel clip and of the training clips with somersaults and spins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import hmr_ros
from hmr_ros import BodyEstimate, HumanMeshEstimator, estimator as estimator_module
from hmr_ros.camera import Camera
from hmr_ros.files import write_json
from hmr_ros.geometry import Intrinsics, matrix_from_rotvec
from hmr_ros.judgement import JudgementConfig, limb_distances, mesh_misses, reliability
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.benchmarks.rendered.scores import WORST, Truth, calibration
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.data.rendered.poses import PoseSampler, embedded_clips
from hmr_ros.training.data.rendered.scene import SceneConfig, SceneMaker
from hmr_ros.training.data.shards import match
from hmr_ros.training.lifter.samples import proxies_of
from hmr_ros.training.metrics import LIMB_HIPS, auroc, mpjpe, pa_mpjpe, root_aligned

LIMBS = list(LIMB_KEYPOINTS)
WRONG_MM = 150
RIGHT_M = 0.1
NONE = JudgementConfig(mean=np.inf, torso=np.inf, limb=np.inf)
CANDIDATES = {
    "mean alone, as before": replace(JudgementConfig(), torso=np.inf, limb=np.inf),
    **{f"torso {limit:g} m alone": replace(NONE, torso=limit) for limit in (0.15, 0.2, 0.25, 0.3)},
    **{f"limb {limit:g} m alone": replace(NONE, limb=limit) for limit in (0.4, 0.5, 0.6, 0.7)},
    "chosen": JudgementConfig(),
}
GYMNASTS = {"test": ("bullet/cartwheel",), "train": ("bullet/backflip", "bullet/roll", "bullet/spinkick", "bullet/getup_faceup")}


@dataclass(frozen=True)
class Config:
    data: Path
    """Folder of the frozen test split (`hmr-ros data rendered --frozen`)."""
    backgrounds: Path | None = None
    """Photos without people, for the gymnasts; without them made-up rooms."""
    gymnasts: int = 250
    """Pictures of each of the two kinds of gymnasts."""
    json: Path | None = None


@dataclass(frozen=True)
class Judged:
    """One body as regressed and refined, and the truth about its limb joints."""

    body: BodyEstimate
    regressed: np.ndarray  # (12,) reliability, before the judgement
    predicted: np.ndarray  # (12, 3) metres, hips' midpoint at 0
    truth: np.ndarray  # (12, 3)


def main() -> None:
    config, console = tyro.cli(Config), Console()
    estimator = HumanMeshEstimator.from_default()
    estimator_module.mesh_misses = lambda body: False  # every body is wanted, and what the regressor says of it
    estimator_module.reliability = lambda regressed, away: regressed
    groups = {"frozen test split": of_the_split(estimator, config.data), "gymnasts": []}
    for split, clips in GYMNASTS.items():
        groups["gymnasts"] += of_gymnasts(estimator, split, clips, config)
    result = {
        "wrong_above_mm": WRONG_MM, "version": hmr_ros.__version__, "backend": estimator.backend, "backgrounds": config.backgrounds is not None,
        "groups": {name: {"limits": {label: discarded(rows, limits) for label, limits in CANDIDATES.items()},
                          "reliability": {"before": probabilities(rows, False), "after": probabilities(rows, True)}}
                   for name, rows in groups.items()},
    }  # fmt: skip
    for name, group in result["groups"].items():
        table = Table("limits", "discarded", "MPJPE / PA, mm", "wrong", "kept: MPJPE / PA, mm", "wrong", title=name)
        for label, row in group["limits"].items():
            table.add_row(label, *_texts(row["discarded"]), *_texts(row["kept"])[1:])
        console.print(table, group["reliability"])
    if config.json:
        write_json(config.json, result)


def of_the_split(estimator: HumanMeshEstimator, folder: Path) -> list[Judged]:
    truth = Truth(rendered.load(folder))
    rows = []
    people = proxies_of(truth.found, activations=rendered.load_activations(folder))
    for i, person in enumerate(people):
        camera = Camera(Intrinsics(*map(float, truth.found["intrinsics"][i])))
        turn = truth.found["ray_rotation"][i]
        rows += [judged(estimator, body, truth.limbs[i] @ turn) for body in estimator.estimate([person], camera)]
    return rows


def of_gymnasts(estimator: HumanMeshEstimator, split: str, clips: tuple[str, ...], config: Config) -> list[Judged]:
    poses = PoseSampler(split, 0.0, {name: embedded_clips()[name] for name in clips})
    poses.varied = False
    maker = SceneMaker(split, config.backgrounds, SceneConfig(people=(1.0,), cut=0.1, occluded=0.05), poses)
    rows = []
    for index in range(config.gymnasts):
        scene = rendered.picture(maker, 99, split, index)
        people = estimator.extractor(scene.image)
        for i, j in match(people, scene.people):
            limbs = scene.people[j].keypoints3d[LIMBS]
            rows += [judged(estimator, body, limbs) for body in estimator.estimate([people[i]], Camera(scene.intrinsics))]
    return rows


def judged(estimator: HumanMeshEstimator, body: BodyEstimate, truth: np.ndarray) -> Judged:
    """``truth`` (12, 3) in the camera's axes."""
    rotations = matrix_from_rotvec(np.concatenate([body.global_orient, body.body_pose]).reshape(1, 24, 3))
    points = estimator.placing.skeleton(rotations, body.betas[None])[1][0]
    return Judged(body, body.reliability, root_aligned(points[LIMBS], LIMB_HIPS), root_aligned(truth, LIMB_HIPS))


def discarded(rows: list[Judged], limits: JudgementConfig) -> dict:
    out = np.array([mesh_misses(row.body, limits) for row in rows])
    predicted, truth = np.stack([row.predicted for row in rows]), np.stack([row.truth for row in rows])
    plain, aligned = mpjpe(predicted, truth), pa_mpjpe(predicted, truth)

    def of(chosen: np.ndarray) -> dict:
        return {"bodies": int(chosen.sum())} | ({} if not chosen.any() else {
            "mpjpe_median": float(np.median(plain[chosen])), "pa_mpjpe_median": float(np.median(aligned[chosen])),
            "wrong_share": float((plain[chosen] > WRONG_MM).mean()),
        })  # fmt: skip

    return {"discarded": of(out), "kept": of(~out)}


def probabilities(rows: list[Judged], after: bool) -> dict:
    """How well calibrated reliability is, and how well it tells the worst fifth of the joints."""
    values = np.stack([reliability(row.regressed, limb_distances(row.body)) if after else row.regressed for row in rows])
    errors = np.linalg.norm(np.stack([row.predicted - row.truth for row in rows]), axis=-1)
    worst = errors > np.quantile(errors, 1 - WORST)
    return {"ece": calibration(values, errors < RIGHT_M)["ece"], "auroc_worst_3d": auroc(-values.ravel(), worst.ravel()),
            "brier": float(((values - (errors < RIGHT_M)) ** 2).mean())}  # fmt: skip


def _texts(scores: dict) -> list[str]:
    if not scores["bodies"]:
        return ["0", "", ""]
    return [str(scores["bodies"]), f"{scores['mpjpe_median']:.0f} / {scores['pa_mpjpe_median']:.0f}", f"{100 * scores['wrong_share']:.0f} %"]


if __name__ == "__main__":
    main()
