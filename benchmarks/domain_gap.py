"""Do rendered people look to BlazePose as real ones do? A linear classifier tells them apart; the worse it does, the better the renderer.

    python tools/collect_people.py runs/people && python tools/collect_backgrounds.py runs/backgrounds
    python benchmarks/domain_gap.py runs/people runs/backgrounds [--renderers painter gl] [--conditions "rough camera"] [--json benchmarks/results/domain_gap.json]

Matched: the estimator's bodies in real pictures are dressed and rendered where they stood, before photos without people; poses, sizes, truncation
and cameras are then the real ones, and only the look is different. Conditions "without ..." leave one ingredient of the renderer out
(scene.INGREDIENTS); "rough camera" is ``--rough-camera`` of `hmr-ros data rendered`.
"as drawn" are pictures as `hmr-ros data rendered` makes them, with its own poses, sizes and cameras.

Inputs are those of the lifter: its geometry features, BlazePose's embedding, and the feature map (means of 4 x 4 cells). Ridge regression of the
label, on standardised inputs. What is scored was never trained on: scenes of real pictures, their rendered twins and the photos behind those are
held out together, a fifth of the scenes at a time. AUC 0.5 is "cannot tell", 1 "always tells". Intervals are 90 %, by bootstrap over scenes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata

from hmr_ros import HumanMeshEstimator
from hmr_ros.camera import Camera
from hmr_ros.estimate import BodyEstimate
from hmr_ros.files import write_json
from hmr_ros.geometry import Intrinsics, pinhole, project_pinhole
from hmr_ros.io.decode import read_picture
from hmr_ros.networks.lifter.features import GEOMETRY_COUNT, person_features
from hmr_ros.proxies import PersonProxies
from hmr_ros.proxies.similarity import iou
from hmr_ros.training.data.rendered.dataset import photos_in
from hmr_ros.training.data.rendered.scene import FACING, INGREDIENTS, PersonTruth, PlacedPerson, RendererName, SceneMaker

FOLDS = 5
RIDGE = 0.3  # times the number of people, on standardised inputs
SAME_PERSON = 0.5  # overlap of the boxes of a real person and their rendered twin
NECK, PELVIS = 12, 0
INPUTS = ("geometry", "embedding", "feature map")
CONDITIONS = ("as drawn", "everything", "rough camera", *(f"without {name}" for name in (*INGREDIENTS, "photos")))  # photos: made-up rooms instead


@dataclass(frozen=True)
class Config:
    people: Annotated[Path, tyro.conf.Positional]
    """Real pictures, a sub-folder a scene (tools/collect_people.py)."""
    backgrounds: Annotated[Path, tyro.conf.Positional]
    """Photos without people (tools/collect_backgrounds.py)."""
    renderers: tuple[RendererName, ...] = ("painter", "gl")
    conditions: tuple[str, ...] = CONDITIONS
    """What is measured, one after the other."""
    seed: int = 0
    most: int = 40
    """People of one scene that count at most, so that no scene outweighs the others."""
    drawn: int = 60
    """Pictures of the condition "as drawn"."""
    longest_side: int = 640
    """Of the pictures, pixels."""
    field_of_view: float = 60.0
    """Horizontal, degrees; nobody knows the real cameras'."""
    threads: int | None = None
    json: Path | None = None
    """Rows in it that are not measured now are kept."""


class RealPicture(NamedTuple):
    scene: str
    image: np.ndarray  # (H, W, 3) uint8 BGR
    intrinsics: Intrinsics
    bodies: list[BodyEstimate]
    inputs: list[dict[str, np.ndarray]]  # of these people


class People(NamedTuple):
    """Inputs of people and the scenes that they stand in."""

    inputs: dict[str, np.ndarray]  # name: (N, D)
    scenes: np.ndarray  # (N,) str


def inputs_of(person: PersonProxies) -> dict[str, np.ndarray]:
    features, cells = person_features(person), np.asarray(person.blazepose.feature_map, np.float32).reshape(88, 4, 4, 4, 4)
    return {"geometry": features[:GEOMETRY_COUNT], "embedding": features[GEOMETRY_COUNT:], "feature map": cells.mean((2, 4)).ravel()}


def stacked(inputs: list[dict[str, np.ndarray]], scenes: list[str]) -> People:
    return People({name: np.stack([row[name] for row in inputs]) for name in INPUTS}, np.array(scenes))


def read_real(config: Config, estimator: HumanMeshEstimator) -> list[RealPicture]:
    """Everybody with a body in the pictures; of a scene with many people, an even choice of pictures."""
    pictures: list[RealPicture] = []
    for folder in sorted(path for path in config.people.iterdir() if path.is_dir()):
        found, people = [], 0
        for path in sorted(folder.iterdir()):
            image = read_picture(path)
            scale = config.longest_side / max(image.shape[:2])
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
            intrinsics = pinhole(image.shape[1], image.shape[0], config.field_of_view)
            seen = [person for person in estimator.extractor(image) if person.torso_is_seen]
            bodies = estimator.estimate(seen, Camera(intrinsics))
            proxies = [next(person for person in seen if np.array_equal(person.box, body.box)) for body in bodies]
            if bodies:
                found.append(RealPicture(folder.name, image, intrinsics, list(bodies), [inputs_of(person) for person in proxies]))
                people += len(bodies)
        step = int(np.ceil(people / config.most))
        pictures += found[::step] if step > 1 else found
    return pictures


def placed(maker: SceneMaker, body: BodyEstimate) -> PlacedPerson:
    pose = np.concatenate([body.global_orient[None], body.body_pose.reshape(23, 3)])
    vertices, joints, keypoints = maker.forward(pose, body.betas)
    vertices = (vertices + body.translation).astype(np.float32)
    pixels = project_pinhole(vertices, body.camera.intrinsics)
    truth = PersonTruth(
        pose=pose, betas=body.betas, translation=body.translation, joints=joints, keypoints3d=keypoints,
        keypoints=project_pinhole(keypoints + body.translation, body.camera.intrinsics).astype(np.float32), visible=np.zeros(17, bool),
        visible_fraction=1.0, box=np.concatenate([pixels.min(0), pixels.max(0)]).astype(np.float32), category="real", clip="", cut=False,
        occluded=False,
    )  # fmt: skip
    return PlacedPerson(truth, vertices)


def uprights(pictures: list[RealPicture]) -> dict[str, np.ndarray]:
    """Scene: rotation (3, 3) of level camera axes into the camera's, from the mean direction of the spines in it."""
    cameras = {}
    for scene in {picture.scene for picture in pictures}:
        spines = [body.joints[NECK] - body.joints[PELVIS] for picture in pictures if picture.scene == scene for body in picture.bodies]
        up = np.mean(spines, 0) / np.linalg.norm(np.mean(spines, 0))
        right = np.cross(FACING[2], up)  # level: y down is against up, x to the right
        right /= np.linalg.norm(right)
        cameras[scene] = np.stack([-right, -up, np.cross(-right, -up)], 1)
    return cameras


def folds_of(pictures: list[RealPicture]) -> dict[str, int]:
    """Scene: the fold that holds it out; large scenes first, each to the smallest fold."""
    names = [picture.scene for picture in pictures for _ in picture.bodies]
    scenes, counts = np.unique(names, return_counts=True)
    sizes, folds = np.zeros(FOLDS), {}
    for scene, count in sorted(zip(scenes.tolist(), counts.tolist()), key=lambda pair: (-pair[1], pair[0])):
        folds[scene] = int(sizes.argmin())
        sizes[folds[scene]] += count
    return folds


def makers_of(config: Config, renderer: RendererName, without: frozenset[str], rough: bool = False) -> list[SceneMaker]:
    """A scene maker for each fold, with photos of its own."""
    makers = []
    for fold in range(FOLDS):
        maker = SceneMaker("train", config.backgrounds, without=without - {"photos"}, renderer=renderer, rough=rough)
        maker.backgrounds.files = photos_in(config.backgrounds)[fold::FOLDS]
        maker.backgrounds.procedural = 1.0 if "photos" in without else 0.0
        makers.append(maker)
    return makers


def render_matched(config: Config, makers: list[SceneMaker], pictures: list[RealPicture], folds: dict[str, int]) -> Iterator[tuple]:
    """(picture's number, image, truth of the people in the picture's order)."""
    cameras = uprights(pictures)
    for number, picture in enumerate(pictures):
        maker = makers[folds[picture.scene]]
        rng = np.random.default_rng([config.seed, number])
        image, _, truths = maker.draw(rng, picture.image.shape[:2], picture.intrinsics, cameras[picture.scene],
                                      [placed(maker, body) for body in picture.bodies], objects=False)  # fmt: skip
        yield number, image, truths


def see_matched(config: Config, makers: list[SceneMaker], pictures, folds, extractor) -> tuple[People, float]:
    """People that are found where their real twin was, and the share of twins that are found."""
    inputs, scenes, twins = [], [], 0
    for number, image, _ in render_matched(config, makers, pictures, folds):
        boxes = [body.box for body in pictures[number].bodies]
        seen, twins = extractor(image), twins + len(boxes)
        for box in boxes:
            best = max(seen, key=lambda person: iou(person.box, box), default=None)
            if best is not None and iou(best.box, box) > SAME_PERSON:
                inputs.append(inputs_of(best))
                scenes.append(pictures[number].scene)
    return stacked(inputs, scenes), len(inputs) / twins


def see_drawn(config: Config, makers: list[SceneMaker], folds: dict[str, int], extractor) -> tuple[People, float]:
    """People as `data rendered` draws them, of each fold before its photos; each picture is a scene of its own."""
    inputs, scenes, twins = [], [], 0
    for number in range(config.drawn):
        scene = makers[number % FOLDS].make(np.random.default_rng([config.seed, 1, number]))
        twins += len(scene.people)
        name = f"drawn {number}"
        folds[name] = number % FOLDS
        seen = [person for person in extractor(scene.image) if person.torso_is_seen]
        inputs += [inputs_of(person) for person in seen]
        scenes += [name] * len(seen)
    return stacked(inputs, scenes), min(1.0, len(inputs) / twins)


# ---- telling them apart ------------------------------------------------------------------------------------------------


def auc(real: np.ndarray, rendered: np.ndarray) -> float:
    """Probability that a rendered person scores higher than a real one (Mann-Whitney)."""
    ranks = rankdata(np.concatenate([rendered, real]))[: len(rendered)]
    return float((ranks.sum() - len(rendered) * (len(rendered) + 1) / 2) / (len(rendered) * len(real)))


def held_out_scores(x: np.ndarray, label: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(N,) score of each row of (N, D) by a ridge regression that was fitted without its fold; both labels weigh the same."""
    scores = np.zeros(len(x))
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        mean, deviation = x[train].mean(0), x[train].std(0) + 1e-3 * x[train].std() + 1e-6
        a, b = (np.clip((x[rows] - mean) / deviation, -5, 5).astype(np.float64) for rows in (train, test))
        weight = np.where(label[train], 1 / label[train].mean(), 1 / (1 - label[train].mean())) / 2
        target = np.where(label[train], 1.0, -1.0)
        kernel = a @ a.T / a.shape[1]
        dual = np.linalg.solve(kernel + RIDGE * np.diag(1 / weight), target)
        scores[test] = (b @ a.T / a.shape[1]) @ dual
    return scores


def tell_apart(real: People, rendered: People, folds: dict[str, int], seed: int, rounds: int = 500) -> dict[str, dict[str, float]]:
    """AUC on each input, its 90 % interval over scenes, and d', the distance of the mean scores in standard deviations."""
    label = np.repeat([False, True], [len(real.scenes), len(rendered.scenes)])
    scenes = np.concatenate([real.scenes, rendered.scenes])
    fold = np.array([folds[scene] for scene in scenes])
    rng, result = np.random.default_rng(seed), {}
    for name in INPUTS:
        scores = held_out_scores(np.concatenate([real.inputs[name], rendered.inputs[name]]), label, fold)
        resampled = []
        for _ in range(rounds):
            chosen = [np.flatnonzero(scenes == scene) for scene in rng.choice(np.unique(scenes), len(np.unique(scenes)))]
            rows = np.concatenate(chosen)
            if label[rows].any() and not label[rows].all():
                resampled.append(auc(scores[rows][~label[rows]], scores[rows][label[rows]]))
        low, high = np.quantile(resampled, [0.05, 0.95])
        between = scores[label].mean() - scores[~label].mean()
        within = np.sqrt((scores[label].var() + scores[~label].var()) / 2)
        result[name] = {"auc": auc(scores[~label], scores[label]), "low": float(low), "high": float(high), "d_prime": float(between / within)}
    return result


def main() -> None:
    config = tyro.cli(Config)
    if unknown := set(config.conditions) - set(CONDITIONS):
        raise SystemExit(f"domain_gap.py: --conditions {', '.join(sorted(unknown))}: expected some of {', '.join(CONDITIONS)}")
    console, estimator = Console(), HumanMeshEstimator.from_default(threads=config.threads, precision="fp32")  # as training data
    pictures = read_real(config, estimator)
    if not pictures:
        raise SystemExit(f"domain_gap.py: nobody is seen in {config.people}; collect pictures: python tools/collect_people.py {config.people}")
    folds = folds_of(pictures)
    real = stacked([row for picture in pictures for row in picture.inputs], [picture.scene for picture in pictures for _ in picture.bodies])
    table = Table("renderer", "condition", "found", *INPUTS)
    result = {"seed": config.seed, "pictures": len(pictures), "people": len(real.scenes), "scenes": len(set(real.scenes.tolist())), "renderers": {}}
    if config.json and config.json.is_file():
        before = json.loads(config.json.read_text())
        if {**before, "renderers": {}} != result:
            raise SystemExit(f"domain_gap.py: {config.json} is about other pictures or another seed; name another file")
        result["renderers"] = before["renderers"]
    for renderer in config.renderers:
        rows = result["renderers"].setdefault(renderer, {})
        for condition in config.conditions:
            without = frozenset({condition.removeprefix("without ")}) if condition.startswith("without") else frozenset()
            makers = makers_of(config, renderer, without, condition == "rough camera")
            if condition == "as drawn":
                rendered, found = see_drawn(config, makers, folds, estimator.extractor)
            else:
                rendered, found = see_matched(config, makers, pictures, folds, estimator.extractor)
            inputs = tell_apart(real, rendered, folds, config.seed)
            rows[condition] = {"people": len(rendered.scenes), "found": round(found, 3), "inputs": inputs}
            cells = [f"{s['auc']:.3f} ({s['low']:.2f}-{s['high']:.2f}) d' {s['d_prime']:.2f}" for s in inputs.values()]
            table.add_row(renderer, condition, f"{found:.2f}", *cells)
            console.print(renderer, condition, f"{found:.2f}", *cells)
            if config.json:
                write_json(config.json, result)
    console.print(table)


if __name__ == "__main__":
    main()
