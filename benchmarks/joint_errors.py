"""How far off are the detectors' 2D joints, and does their confidence say so: on real people against rendered ones.

    python tools/collect_people.py runs/people && python tools/collect_backgrounds.py runs/backgrounds
    pip download --no-deps pose2sim==0.10.49 && unzip pose2sim-*.whl 'Pose2Sim/Demo_SinglePerson/*'
    python benchmarks/joint_errors.py runs/people runs/backgrounds [--clip Pose2Sim/Demo_SinglePerson] [--json benchmarks/results/joint_errors.json]

Rendered people are the real ones' twins (domain_gap.py): same poses, sizes and cameras, exact truth. Real people have none. What is measured
of both is the agreement of the two detectors; of the calibrated clip besides the distance to the point that the three other cameras
triangulate, which comes from the same detectors' joints in other views: an independent view, no independent judge.

Distances are shares of the diagonal of MoveNet's box. The twelve limb joints count; of rendered people those that are visible, of real ones all.
A joint is "near" within 5 %. Confidence is the detector's own; BlazePose's is visibility times presence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro
from calibrated_clip import Triangulation, at, read_cameras, with_confidence
from domain_gap import SAME_PERSON, RealPicture, folds_of, makers_of, read_real, render_matched
from domain_gap import Config as GapConfig
from rich.console import Console
from rich.table import Table

from hmr_ros import HumanMeshEstimator
from hmr_ros.files import write_json
from hmr_ros.io.sources import open_source
from hmr_ros.proxies import PersonProxies
from hmr_ros.proxies.embedded import EmbeddedExtractor
from hmr_ros.proxies.movenet import Detection
from hmr_ros.proxies.similarity import iou
from hmr_ros.skeleton import COCO_FROM_BLAZEPOSE, LIMB_KEYPOINTS
from hmr_ros.training.data.rendered.scene import RendererName

LIMBS = list(LIMB_KEYPOINTS)
DETECTORS = ("MoveNet", "BlazePose", "merged")
NEAR = 0.05  # of the diagonal
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # of confidence
PARTS = {"shoulders": (0, 1), "elbows": (2, 3), "wrists": (4, 5), "hips": (6, 7), "knees": (8, 9), "ankles": (10, 11)}  # of LIMBS


@dataclass(frozen=True)
class Config:
    people: Annotated[Path, tyro.conf.Positional]
    """Real pictures, a sub-folder a scene (tools/collect_people.py)."""
    backgrounds: Annotated[Path, tyro.conf.Positional]
    """Photos without people (tools/collect_backgrounds.py)."""
    clip: Path | None = None
    """Pose2Sim's Demo_SinglePerson (calibrated_clip.py)."""
    renderers: tuple[RendererName, ...] = ("painter", "gl")
    seed: int = 0
    threads: int | None = None
    json: Path | None = None
    plot: Path | None = None
    """Picture of the confidence curves."""


class Seen(NamedTuple):
    """What was detected of one person."""

    joints: np.ndarray  # (3 detectors, 17, 3) px, confidence
    diagonal: float  # px
    scene: str
    truth: np.ndarray  # (17, 2) px, NaN where there is none


class Found(NamedTuple):
    """Somebody who is confirmed."""

    detection: Detection  # MoveNet's
    joints: np.ndarray  # (3 detectors, 17, 3) px, confidence
    person: PersonProxies

    @property
    def diagonal(self) -> float:
        return self.detection.diagonal


def detect(extractor: EmbeddedExtractor, image: np.ndarray) -> list[Found]:
    """Everybody who is confirmed, and what each detector says."""
    found = []
    for detection in extractor.movenet(image):
        person = extractor.confirm(image, detection)
        if person is None:
            continue
        marks = person.blazepose.landmarks[list(COCO_FROM_BLAZEPOSE)]
        confidence = marks[:, 2:].prod(1) / (1.0 if person.blazepose.agreed else extractor.config.doubt**2)
        blazepose = np.column_stack([marks[:, :2], confidence])
        found.append(Found(detection, np.stack([detection.keypoints, blazepose, person.keypoints]), person))
    return found


def matched(found: list[Found], boxes: list[np.ndarray]) -> Iterator[tuple[int, Found]]:
    """Those who are found where the boxes (4,) are, with the box's place in the list."""
    for place, box in enumerate(boxes):
        best = max(found, key=lambda one: iou(one.detection.box, box), default=None)
        if best is not None and iou(best.detection.box, box) > SAME_PERSON:
            yield place, best


def real_people(extractor: EmbeddedExtractor, pictures: list[RealPicture]) -> list[Seen]:
    people = []
    for picture in pictures:
        for _, one in matched(detect(extractor, picture.image), [body.box for body in picture.bodies]):
            people.append(Seen(one.joints, one.diagonal, picture.scene, np.full((17, 2), np.nan)))
    return people


def rendered_people(extractor: EmbeddedExtractor, pictures: list[RealPicture], config: Config, renderer: RendererName, rough: bool) -> list[Seen]:
    folds, gap, people = folds_of(pictures), GapConfig(config.people, config.backgrounds, seed=config.seed), []
    for number, image, truths in render_matched(gap, makers_of(gap, renderer, frozenset(), rough), pictures, folds):
        picture = pictures[number]
        for place, one in matched(detect(extractor, image), [body.box for body in picture.bodies]):
            truth = np.where(truths[place].visible[:, None], truths[place].keypoints, np.nan)
            people.append(Seen(one.joints, one.diagonal, picture.scene, truth))
    return people


def clip_people(extractor: EmbeddedExtractor, folder: Path, tolerance: float = 20.0) -> list[Seen]:
    """The clip's person in each camera's view; truth is what the other three cameras triangulate, to ``tolerance`` px."""
    cameras = read_cameras(folder / "calibration" / "Calib.qca.txt")
    views = [
        [max(detect(extractor, picture), key=lambda one: one.diagonal, default=None)
         for picture in open_source(str(folder / "videos" / f"{camera.name}.mp4")).pictures()] for camera in cameras
    ]  # fmt: skip
    merged = [[None if one is None else with_confidence(one.person) for one in frames] for frames in views]
    triangulate = Triangulation(cameras, merged)
    shifts, people = triangulate.align(), []
    for frame in range(len(views[0])):
        for number, (camera, frames, shift) in enumerate(zip(cameras, views, shifts)):
            one = at(frames, frame + shift)
            if one is None:
                continue
            points, errors = triangulate(frame, shifts, without=number)
            known = errors < tolerance
            truth = np.full((17, 2), np.nan)
            truth[np.array(LIMBS)[known]] = camera.lens.project(points[known] @ camera.rotation.T + camera.translation)
            people.append(Seen(one.joints, one.diagonal, camera.name, truth))
    return people


# ---- curves ------------------------------------------------------------------------------------------------------------


def curves(people: list[Seen]) -> dict:
    """Of one set of people: error to the truth by detector, and distance between the two detectors."""
    joints = np.stack([one.joints for one in people])[:, :, LIMBS]  # (N, 3, 12, 3)
    diagonal = np.array([one.diagonal for one in people])[:, None]
    truth = np.stack([one.truth for one in people])[:, LIMBS]
    result = {"people": len(people), "scenes": len({one.scene for one in people})}
    apart = np.linalg.norm(joints[:, 0, :, :2] - joints[:, 1, :, :2], axis=-1) / diagonal
    known = np.isfinite(truth[..., 0]) | ~np.isfinite(truth).any()
    result["agreement"] = {name: _curve(np.where(known, apart, np.nan), joints[:, i, :, 2]) for i, name in enumerate(DETECTORS[:2])}
    if np.isfinite(truth).any():
        result["truth"] = {name: _curve(np.linalg.norm(joints[:, i, :, :2] - truth, axis=-1) / diagonal, joints[:, i, :, 2])
                           for i, name in enumerate(DETECTORS)}  # fmt: skip
    return result


def _curve(distance: np.ndarray, confidence: np.ndarray) -> dict:
    """distance (N, 12), NaN where unknown, and confidence (N, 12)."""
    known = np.isfinite(distance)
    bins = []
    for low, high in zip(BINS, BINS[1:]):
        chosen = known & (confidence >= low) & ((confidence < high) | (high == 1.0))
        if chosen.sum() >= 10:
            bins.append({"from": low, "to": high, "joints": int(chosen.sum()), "confidence": float(confidence[chosen].mean()),
                         "near": float((distance[chosen] < NEAR).mean()), "median": float(np.median(distance[chosen]))})  # fmt: skip
    parts = {name: _location(distance[:, rows][known[:, rows]]) for name, rows in ((name, list(rows)) for name, rows in PARTS.items())}
    return {"all": _location(distance[known]), "parts": parts, "by_confidence": bins}


def _location(distance: np.ndarray) -> dict:
    """Quantiles of distances, and the share of near ones."""
    if not len(distance):
        return {"joints": 0}
    return {"joints": len(distance), "median": float(np.median(distance)), "p90": float(np.quantile(distance, 0.9)), "near": float((distance < NEAR).mean())}


def save_plot(result: dict, path: Path) -> None:
    """Share of near joints over confidence, a panel a detector: near the truth (lines), near the other detector (dashed)."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for panel, detector in zip(axes, DETECTORS):
        for colour, (name, found) in zip(plt.rcParams["axes.prop_cycle"].by_key()["color"], result["sets"].items()):
            for kind, style in (("truth", "-"), ("agreement", "--")):
                if "rough" not in name and kind in found:
                    rows = found[kind][detector]["by_confidence"]
                    label = f"{name}: near {'the truth' if kind == 'truth' else 'the other'}"
                    panel.plot([row["confidence"] for row in rows], [row["near"] for row in rows], style, color=colour, marker=".", label=label)
        panel.set(xlabel=f"{detector}'s confidence", xlim=(0, 1), ylim=(0, 1))
        panel.grid(alpha=0.3)
    axes[0].set_ylabel(f"share within {100 * result['near']:.0f} % of the diagonal")
    axes[1].legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    config, console = tyro.cli(Config), Console()
    estimator = HumanMeshEstimator.from_default(threads=config.threads)
    extractor = estimator.extractor
    pictures = read_real(GapConfig(config.people, config.backgrounds, seed=config.seed), estimator)
    sets = {"real": real_people(extractor, pictures)}
    for renderer in config.renderers:
        for rough in (False, True):
            sets[f"{renderer}, rough camera" if rough else renderer] = rendered_people(extractor, pictures, config, renderer, rough)
    if config.clip:
        sets["calibrated clip"] = clip_people(extractor, config.clip)
    result = {"seed": config.seed, "near": NEAR, "bins": BINS, "sets": {name: curves(people) for name, people in sets.items()}}
    table = Table("people", "measured against", "joints", "median", "90 %", "near")
    for name, found in result["sets"].items():
        rows = {"each other": found["agreement"]["MoveNet"], **{f"truth: {detector}": curve for detector, curve in found.get("truth", {}).items()}}
        for what, curve in rows.items():
            one = curve["all"]
            table.add_row(name, what, str(one["joints"]), *(f"{100 * one[key]:.1f} %" for key in ("median", "p90", "near")))
    console.print(table)
    if config.json:
        write_json(config.json, result)
    if config.plot:
        save_plot(result, config.plot)


if __name__ == "__main__":
    main()
