"""Rendered people as each 2D detector and the regressor see them, with exact truth: what third_opinion.py and keypoint_offsets.py measure on.

Two sets of everyday people and recorded motion as `hmr-ros data rendered` draws them: "validation", by the renderer gl before the validation
photos, on which choices are made; "test", the first pictures of the frozen test split (painter), on which they are only reported.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import tyro
from joint_errors import detect, matched

from hmr_ros import HumanMeshEstimator
from hmr_ros.proxies.blazepose import SIDE
from hmr_ros.proxies.crops import upright_roi
from hmr_ros.runtime import compile
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.data.rendered.scene import SceneMaker

DETECTORS = ("MoveNet MultiPose", "BlazePose", "merged", "MoveNet Thunder")
SETS = ("validation", "test")
SEED = 16  # of the validation pictures


@dataclass(frozen=True)
class OpinionsConfig:
    thunder: Annotated[Path, tyro.conf.Positional]
    """movenet_thunder.xml, by tools/convert_movenet.py."""
    backgrounds: Annotated[Path, tyro.conf.Positional]
    """Photos without people (tools/collect_backgrounds.py)."""
    pictures: int = 60
    """Of each set."""
    cache: Path = Path("runs/opinions.npz")
    """What was seen, written after every picture: an interrupted run goes on where it stopped."""


class Thunder:
    """MoveNet Thunder on one person's upright RoI, the one that BlazePose gets."""

    def __init__(self, model: Path, threads: int | None = 1):
        self._network = compile(model, threads=threads)

    def __call__(self, image: np.ndarray, to_image: np.ndarray) -> np.ndarray:
        """(17, 3) px, confidence. ``to_image`` (2, 3) from the RoI's pixels to the image's."""
        roi = cv2.warpAffine(image, to_image, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        joints = self._network(np.ascontiguousarray(roi[None, ..., ::-1], dtype=np.float32))[0][0, 0]
        return np.column_stack([(joints[:, 1::-1] * SIDE - 0.5) @ to_image[:, :2].T + to_image[:, 2], joints[:, 2]])


def opinions(config: OpinionsConfig) -> dict[str, np.ndarray]:
    """Arrays of N people: set (N,) of SETS; joints (N, 4 detectors, 17, 3) px, confidence; diagonal (N,) px; crop (N, 3); confidence (N, 17) of
    what the refinement gets; keypoints (N, 17, 2) px and visible (N, 17), truth; pose (N, 24, 3), betas, translation, keypoints3d, truth; intrinsics
    (N, 4); rotations (N, 24, 3, 3), regressed_betas, weak_camera, as regressed; milliseconds (N, 3) of processor time of MultiPose at 256, BlazePose,
    Thunder; pictures (), of each set."""
    data, done = {}, 0
    if config.cache.is_file():
        with np.load(config.cache) as stored:
            data = dict(stored)
        done = int(data["pictures"])
    if done >= config.pictures:
        return data
    estimator, thunder = HumanMeshEstimator.from_default(threads=1, precision="fp32"), Thunder(config.thunder)
    seeds = SEED, rendered.frozen_test()["seed"]
    makers = SceneMaker("val", config.backgrounds, renderer="gl"), SceneMaker("test", config.backgrounds)
    config.cache.parent.mkdir(parents=True, exist_ok=True)
    for index in range(done, config.pictures):
        for number, (maker, seed, split) in enumerate(zip(makers, seeds, ("val", "test"))):
            for row in _seen(estimator, thunder, rendered.picture(maker, seed, split, index)):
                row |= {"set": number}
                data |= {name: np.concatenate([data[name], [value]]) if name in data else np.array([value]) for name, value in row.items()}
        data["pictures"] = np.array(index + 1)
        np.savez(config.cache, **data)
    return data


def _seen(estimator: HumanMeshEstimator, thunder: Thunder, scene: rendered.Scene) -> Iterator[dict]:
    """A row of everybody who is detected and regressed."""
    extractor, image = estimator.extractor, scene.image
    last = np.array([0, 0, image.shape[1] - 1, image.shape[0] - 1])
    boxes = [np.clip(truth.box, 0, np.tile(last[2:], 2)) for truth in scene.people]
    for place, one in matched(detect(extractor, image), boxes):
        rows, regressed = estimator.regress([one.person])
        if not len(rows):
            continue
        to_image, angle = upright_roi(one.detection.keypoints, one.detection.box, SIDE, extractor.config)
        calls = (lambda: extractor.movenet.in_window(image, last), lambda: extractor.blazepose(image, to_image, angle),
                 lambda: thunder(image, to_image))  # fmt: skip
        spent = []
        for call in calls:
            started = time.process_time()
            result = call()
            spent.append(1000 * (time.process_time() - started))
        truth = scene.people[place]
        yield {
            "joints": np.concatenate([one.joints, result[None]]), "diagonal": one.diagonal, "crop": one.person.crop, "milliseconds": spent,
            "confidence": one.person.confidence, "keypoints": truth.keypoints, "visible": truth.visible, "pose": truth.pose, "betas": truth.betas,
            "translation": truth.translation, "keypoints3d": truth.keypoints3d, "intrinsics": np.array(scene.intrinsics[:4]),
            "rotations": regressed.rotations[0], "regressed_betas": regressed.betas[0], "weak_camera": regressed.weak_camera[0],
        }  # fmt: skip
