"""The paper's extractor: Keypoint R-CNN's people and joints, and a learned depth map of each, trimmed by T_IQR (equations 1-3).

Depth is, in this order: a depth camera's where an image of it is given; the depth network's, where the user brings one; the coarse
depth of BlazePose. The mask that cuts it out is BlazePose's where it sees the same person, else the limbs' hull.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from hmr_ros.files import require_file
from hmr_ros.geometry import crop_matrix
from hmr_ros.proxies.blazepose import BLAZEPOSE_FILES, SIDE, BlazePose, BlazePoseOutput
from hmr_ros.proxies.crops import person_crop, upright_roi
from hmr_ros.proxies.depth import coarse_depth, sensor_depth, trim_depth
from hmr_ros.proxies.movenet import Detection
from hmr_ros.proxies.paper import monocular_depth
from hmr_ros.proxies.paper.config import PaperConfig, ProxyFiles
from hmr_ros.proxies.paper.keypoint_rcnn import KeypointRCNN, find_weights
from hmr_ros.proxies.person import DepthSource, PersonProxies, flipped
from hmr_ros.proxies.registry import identity_of
from hmr_ros.proxies.similarity import iou, same_person
from hmr_ros.skeleton import COCO_BONES

_TORSO, _HIPS, _HEAD = [5, 6, 12, 11], [11, 12], slice(0, 5)


class PaperExtractor:
    """uint8 BGR image → people; implements ``ProxyExtractor``. Safe to share between threads."""

    name = "paper"
    Config = PaperConfig
    FILES = BLAZEPOSE_FILES
    provides = frozenset({"mask"})

    def __init__(
        self, threads: int | None = None, config: PaperConfig = PaperConfig(), files: ProxyFiles = ProxyFiles(), backend: str = "auto"
    ):
        """``backend``, ``threads``: what runs the networks (runtime.compile). FileNotFoundError or ValueError that names what is wrong
        with a file, and how to get it."""
        self._identity = self.identify(files, config)
        self.config = _with_depth(config, files)
        digest = self._identity["files"]["keypoint_rcnn"]
        self.detector = KeypointRCNN(find_weights(files.keypoint_rcnn), digest, backend, threads, self.config)
        self.blazepose = BlazePose(threads, backend)
        self.depth_network = None
        if files.depth_network is not None:
            self.depth_network = monocular_depth.DepthAnything(monocular_depth.find_network(files.depth_network), backend, threads)
        depth = "coarse" if self.depth_network is None else f"Depth Anything on {self.depth_network.backend}"
        self.backend = f"Keypoint R-CNN on {self.detector.backend}, depth: {depth}"

    @classmethod
    def identify(cls, files: ProxyFiles, config: PaperConfig) -> dict:
        """Identity of the extractor with these files, without loading its networks. Raises as the constructor."""
        known = identity_of(cls, _with_depth(config, files))
        known["files"]["keypoint_rcnn"] = _sha256(find_weights(files.keypoint_rcnn))
        if files.depth_network is not None:
            known["files"]["depth_network"] = _sha256(monocular_depth.find_network(files.depth_network) / monocular_depth.WEIGHTS)
        return known

    def identity(self) -> dict:
        """What the proxies depend on (proxies/registry.py)."""
        return self._identity

    def __call__(self, image: np.ndarray, depth: np.ndarray | None = None, small_people: bool = True) -> list[PersonProxies]:
        kept: list[Detection] = []
        for person in self.detector(image):
            if not any(same_person(person, other, self.config) for other in kept):
                kept.append(person)
        return [self._proxies(image, person, depth) for person in kept]

    def follow(self, image: np.ndarray, person: PersonProxies, depth: np.ndarray | None = None) -> PersonProxies | None:
        """The person a moment later: the detector runs again, on a small square around where he was."""
        window = person.crop * np.float32([1, 1, self.config.neighbourhood])
        candidates = self.detector.in_window(image, window)
        if not candidates:
            return None
        nearest = max(candidates, key=lambda candidate: iou(candidate.box, person.box))
        if not same_person(nearest, person, self.config, overlap_suffices=True):
            return None
        return self._proxies(image, nearest, depth)

    # ---- mask and depth ----------------------------------------------------------------------------------------------

    def _proxies(self, image: np.ndarray, person: Detection, depth: np.ndarray | None) -> PersonProxies:
        crop = person_crop(person.keypoints, person.box, self.config)
        view = self._view(image, person)
        mask = limb_mask(person, crop, self.config) if view is None else self._mask(view, crop)
        values, source = self._depth(image, person, crop, mask, view, depth)
        height, width = image.shape[:2]
        proxies = PersonProxies(
            score=person.score,
            box=np.clip(person.box, 0, [width - 1, height - 1, width - 1, height - 1]).astype(np.float32),
            keypoints=person.keypoints.astype(np.float32),
            crop=crop,
            mask=mask,
            depth=trim_depth(values),
            depth_source=source,
            confident=self.config.confident,
        )
        return replace(proxies, mirrored=flipped(proxies)) if self.config.flip else proxies

    def _depth(
        self, image: np.ndarray, person: Detection, crop: np.ndarray, mask: np.ndarray, view: BlazePoseOutput | None, depth: np.ndarray | None
    ) -> tuple[np.ndarray, DepthSource]:
        if depth is not None:
            return sensor_depth(depth, crop, mask), "sensor"
        coarse = None if view is None else self._coarse(view, crop, mask)
        if self.depth_network is None:
            return (np.zeros_like(mask), "none") if coarse is None else (coarse, "coarse")
        seen = self.depth_network(image, crop, self.config.size)
        if not self.depth_network.relative:
            return np.where(mask > 0.5, np.maximum(np.nan_to_num(seen, posinf=0.0), 0), 0).astype(np.float32), "monocular"
        values = None
        if coarse is not None and self.config.fit:
            values = monocular_depth.fitted(seen, coarse, mask)
        if values is None:
            to_crop, sure = crop_matrix(crop, self.config.size), person.keypoints[_HIPS, 2] > self.config.confident
            values = monocular_depth.up_to_scale(seen, person.keypoints[_HIPS][sure, :2] @ to_crop[:, :2].T + to_crop[:, 2], mask)
        return values, "monocular"

    def _view(self, image: np.ndarray, person: Detection) -> BlazePoseOutput | None:
        """BlazePose's output for the person; None where it sees nobody, or somebody else."""
        view = self.blazepose(image, *upright_roi(person.keypoints, person.box, SIDE, self.config))
        sure = np.minimum(person.keypoints[:, 2], view.joints[:, 2]) > self.config.disagreement_confidence
        sure[_HEAD] = False
        distance = np.linalg.norm(person.keypoints[sure, :2] - view.joints[sure, :2], axis=1)
        agreed = len(distance) < 2 or np.median(distance) <= self.config.max_disagreement * person.diagonal
        return view if agreed and view.presence >= self.config.min_presence else None

    def _mask(self, view: BlazePoseOutput, crop: np.ndarray) -> np.ndarray:
        size = self.config.size
        to_image, to_crop = (np.vstack([affine, [0, 0, 1]]) for affine in (view.to_image, crop_matrix(crop, size)))
        return cv2.warpAffine(view.mask, (to_crop @ to_image)[:2], (size, size), flags=cv2.INTER_LINEAR)

    def _coarse(self, view: BlazePoseOutput, crop: np.ndarray, mask: np.ndarray) -> np.ndarray:
        to_crop = crop_matrix(crop, self.config.size)
        points = view.landmarks[:, :2] @ to_crop[:, :2].T + to_crop[:, 2]
        return coarse_depth(points, view.world, view.landmarks[:, 2:].prod(1), mask)


def limb_mask(person: Detection, crop: np.ndarray, config: PaperConfig) -> np.ndarray:
    """(S, S) 1 on the limbs', torso's and head's hull around the confident keypoints, the box where the torso is not known; else 0."""
    to_crop = crop_matrix(crop, config.size)
    points = person.keypoints[:, :2] @ to_crop[:, :2].T + to_crop[:, 2]
    sure = person.keypoints[:, 2] > config.confident
    mask = np.zeros((config.size, config.size), np.uint8)
    if not sure[_TORSO].all():
        (x0, y0), (x1, y1) = np.rint(person.box.reshape(2, 2) @ to_crop[:, :2].T + to_crop[:, 2]).astype(int).tolist()
        cv2.rectangle(mask, (x0, y0), (x1, y1), 1, cv2.FILLED)
        return mask.astype(np.float32)
    length = max(float(np.linalg.norm(points[[5, 6]].mean(0) - points[_HIPS].mean(0))), float(np.linalg.norm(points[5] - points[6])))
    pixel = np.rint(np.clip(points, -config.size, 2 * config.size)).astype(np.int32)
    limb, reach = (max(1, round(2 * share * length)) for share in (config.limb_width, config.torso_width))
    for a, b in COCO_BONES:
        if sure[a] and sure[b]:
            cv2.line(mask, pixel[a].tolist(), pixel[b].tolist(), 1, limb)
    cv2.fillConvexPoly(mask, cv2.convexHull(pixel[_TORSO]), 1)
    cv2.polylines(mask, [pixel[_TORSO]], True, 1, limb)
    if sure[_HEAD].any():
        head = points[_HEAD][sure[_HEAD]].mean(0)
        neck = points[[5, 6]].mean(0)
        cv2.circle(mask, np.rint(head).astype(int).tolist(), reach // 2, 1, cv2.FILLED)
        cv2.line(mask, np.rint(head).astype(int).tolist(), np.rint(neck).astype(int).tolist(), 1, limb)
    return mask.astype(np.float32)


def _with_depth(config: PaperConfig, files: ProxyFiles) -> PaperConfig:
    return replace(config, depth="coarse" if files.depth_network is None else "monocular")


def _sha256(path: Path) -> str:
    state = require_file(path, "weights", "a file that torch or safetensors has written").stat()
    return _digest(path.expanduser(), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _digest(path: Path, modified: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
