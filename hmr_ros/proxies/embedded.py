"""The embedded extractor: MoveNet MultiPose detects people and 2D keypoints, BlazePose sees each person's RoI.

Both are merged into one set of keypoints. The depth map is spread from BlazePose's world landmarks over its mask, unless a depth
camera's image is given. Between detections a person is followed by BlazePose alone.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import cv2
import numpy as np

from hmr_ros.geometry import crop_matrix
from hmr_ros.proxies.blazepose import BLAZEPOSE_FILES, SIDE, BlazePose, BlazePoseOutput
from hmr_ros.proxies.config import EmbeddedConfig
from hmr_ros.proxies.crops import joints_box, last_pixel, person_crop, truncated, upright_roi
from hmr_ros.proxies.depth import coarse_depth, sensor_depth, trim_depth
from hmr_ros.proxies.movenet import MOVENET_FILES, Detection, MoveNet, is_duplicate
from hmr_ros.proxies.person import PersonProxies, flipped
from hmr_ros.proxies.registry import identity_of
from hmr_ros.proxies.similarity import iou, same_person
from hmr_ros.runtime import MAX_BATCH


class EmbeddedExtractor:
    """uint8 BGR image → people, by the networks in ``hmr_ros/assets``; implements ``ProxyExtractor``. Stateless."""

    name = "embedded"
    Config = EmbeddedConfig
    FILES = MOVENET_FILES + BLAZEPOSE_FILES
    provides = frozenset({"mask", "blazepose"})

    def __init__(
        self, threads: int | None = None, config: EmbeddedConfig = EmbeddedConfig(), backend: str = "auto", precision: str = "fp32",
        max_people: int = MAX_BATCH,
    ):  # fmt: skip
        """``backend``: "openvino", and "auto" without a GPU, run the files on OpenVINO, every other one the same networks as torch modules,
        on CUDA where there is a GPU: the same people but for rounding, and the same identity. ``precision``, ``max_people``: of these."""
        self.config = config
        self.movenet = MoveNet(threads, config, backend, precision)
        self.blazepose = BlazePose(threads, backend, precision, max_people)
        self.backend = self.blazepose.backend

    def __call__(self, image: np.ndarray, depth: np.ndarray | None = None, small_people: bool = True) -> list[PersonProxies]:
        people: list[PersonProxies] = []
        kept: list[Detection] = []
        for detection in self.movenet(image, small_people):
            confirmed = self._confirmed(image, detection)
            if confirmed is not None and not any(is_duplicate(confirmed[0], other, self.config) for other in kept):
                kept.append(confirmed[0])
                people.append(self._proxies(image, *confirmed, depth))
        return people

    def search(self, image: np.ndarray, small_people: bool = True) -> Generator[None, None, list[Detection]]:
        """What a call looks for, in steps: yields between network passes, returns detections, which `confirm` makes people."""
        return self.movenet.search(image, small_people)

    def confirm(self, image: np.ndarray, detection: Detection, depth: np.ndarray | None = None) -> PersonProxies | None:
        """The person of one detection in the image that was searched; None where it is none."""
        confirmed = self._confirmed(image, detection)
        return None if confirmed is None else self._proxies(image, *confirmed, depth)

    def agrees(self, detection: Detection, person: PersonProxies) -> bool:
        """BlazePose, which followed ``person``, sees the joints where MoveNet detects them."""
        return _disagreement(detection, person.keypoints, self.config) <= self.config.max_disagreement

    def follow(self, image: np.ndarray, person: PersonProxies, depth: np.ndarray | None = None) -> PersonProxies | None:
        """The person a moment later, by BlazePose alone, in the RoI of the last keypoints.

        A truncated person is followed by MoveNet in the neighbourhood, then BlazePose, as in a detection: BlazePose invents hips and
        legs below the border, and its next RoI would be built on them. So is whoever BlazePose loses.
        """
        if person.blazepose.agreed and not truncated(person.box, image, self.config):
            view = self._view(image, person.keypoints, person.box)
            keypoints = view.joints.astype(np.float32)
            box = np.clip(joints_box(keypoints, person.box, self.config), 0, last_pixel(image))
            if view.presence >= self.config.min_presence and np.all(box[2:] - box[:2] >= self.config.min_side):
                now = self._proxies(image, Detection(person.score, box, keypoints), view, True, depth)
                if now.torso_is_seen or not person.torso_is_seen:
                    return now
        return self._found_again(image, person, depth)

    def _found_again(self, image: np.ndarray, person: PersonProxies, depth: np.ndarray | None) -> PersonProxies | None:
        reach = self.config.neighbourhood * person.crop[2] / 2
        window = np.concatenate([person.crop[:2] - reach, person.crop[:2] + reach])
        candidates = self.movenet.in_window(image, np.clip(window, 0, last_pixel(image)))
        if not candidates:
            return None
        nearest = max(candidates, key=lambda candidate: iou(candidate.box, person.box))
        if not same_person(nearest, person, self.config, overlap_suffices=True):
            return None
        return self.confirm(image, nearest, depth)

    def identity(self) -> dict:
        """What the proxies depend on (proxies/registry.py)."""
        return identity_of(type(self), self.config)

    # ---- the merge ---------------------------------------------------------------------------------------------------

    def _confirmed(self, image: np.ndarray, detection: Detection) -> tuple[Detection, BlazePoseOutput, bool] | None:
        return self._merge(detection, self._view(image, detection.keypoints, detection.box))

    def _merge(self, detection: Detection, view: BlazePoseOutput) -> tuple[Detection, BlazePoseOutput, bool] | None:
        """The detection with the keypoints of both networks, BlazePose's output, and whether it agrees; None for no person."""
        agreed = (
            view.presence >= self.config.min_presence
            and _disagreement(detection, view.joints, self.config) <= self.config.max_disagreement
        )
        if agreed:
            return replace(detection, keypoints=_merged(detection, view.joints, self.config)), view, True
        if detection.score < self.config.min_score:
            return None
        # BlazePose saw somebody else or nobody: MoveNet stays alone, and nothing downstream may lean on the landmarks.
        return detection, view.doubted(self.config.doubt), False

    def _view(self, image: np.ndarray, keypoints: np.ndarray, box: np.ndarray, flip: bool = False) -> BlazePoseOutput:
        return self.blazepose(image, *upright_roi(keypoints, box, SIDE, self.config), flip)

    def _proxies(
        self, image: np.ndarray, person: Detection, view: BlazePoseOutput, agreed: bool, depth: np.ndarray | None
    ) -> PersonProxies:
        size = self.config.size
        crop = person_crop(person.keypoints, person.box, self.config)
        to_crop = crop_matrix(crop, size)
        mask = cv2.warpAffine(view.mask, _composed(to_crop, view.to_image), (size, size), flags=cv2.INTER_LINEAR)
        if depth is None:
            points = view.landmarks[:, :2] @ to_crop[:, :2].T + to_crop[:, 2]
            depth_map = coarse_depth(points, view.world, view.landmarks[:, 2:].prod(1), mask)
        else:
            depth_map = sensor_depth(depth, crop, mask)
        proxies = PersonProxies(
            score=person.score,
            box=person.box.astype(np.float32),
            keypoints=person.keypoints.astype(np.float32),
            crop=crop,
            mask=mask,
            depth=trim_depth(depth_map),
            depth_source="coarse" if depth is None else "sensor",
            confident=self.config.confident,
            blazepose=view.record(agreed),
        )
        return replace(proxies, mirrored=self._flipped(image, person, proxies)) if self.config.flip else proxies

    def _flipped(self, image: np.ndarray, person: Detection, proxies: PersonProxies) -> PersonProxies:
        """For flip test-time augmentation: BlazePose sees the flipped RoI."""
        view = self._view(image, person.keypoints, person.box, flip=True)
        if not proxies.blazepose.agreed or view.presence < self.config.min_presence:
            view = view.doubted(self.config.doubt)
        record = view.record(proxies.blazepose.agreed)
        landmarks, roi = record.landmarks.copy(), record.roi.copy()
        for points in (landmarks, roi):
            points[..., 0] = 2 * proxies.crop[0] - points[..., 0]
        return flipped(proxies, replace(record, landmarks=landmarks, roi=roi))


def _disagreement(person: Detection, blazepose: np.ndarray, config: EmbeddedConfig) -> float:
    """Median distance of the limb keypoints that both networks are sure of, relative to the person's diagonal."""
    sure = np.minimum(person.keypoints[:, 2], blazepose[:, 2]) > config.disagreement_confidence
    sure[:5] = False
    if sure.sum() < 2:
        return 0.0
    distance = np.linalg.norm(person.keypoints[sure, :2] - blazepose[sure, :2], axis=1)
    return float(np.median(distance)) / person.diagonal


def _merged(person: Detection, blazepose: np.ndarray, config: EmbeddedConfig) -> np.ndarray:
    """One COCO-17 from two: the weighted mean where they agree, the surer one, with less confidence, where they do not."""
    movenet = person.keypoints
    distance = np.linalg.norm(movenet[:, :2] - blazepose[:, :2], axis=1) / person.diagonal
    weight_a, weight_b = movenet[:, 2], config.blazepose_weight * blazepose[:, 2]
    share = weight_a / np.maximum(weight_a + weight_b, 1e-6)
    agree = distance < config.agreement
    share = np.where(agree, share, weight_a >= weight_b)
    xy = share[:, None] * movenet[:, :2] + (1 - share[:, None]) * blazepose[:, :2]
    confidence = np.where(agree, np.maximum(movenet[:, 2], blazepose[:, 2]), config.conflict * np.maximum(weight_a, weight_b))
    return np.concatenate([xy, confidence[:, None]], axis=1)


def _composed(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The affine (2, 3) that is ``first`` and then ``second``, (2, 3) both."""
    second = second.astype(np.float64)
    affine = second[:, :2] @ first
    affine[:, 2] += second[:, 2]
    return affine
