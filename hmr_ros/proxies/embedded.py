"""The embedded proxy extractor: MoveNet MultiPose finds people and 2D joints, BlazePose looks at each person closely.

MoveNet (256², and 512² when small people are to be expected) gives every person's box and COCO-17 joints. BlazePose gives
33 landmarks, a mask and world landmarks of an upright-rotated region around the hips. Both are merged into one set of
joints; the depth map is spread from the world landmarks over the mask unless a depth camera's image is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files

import cv2
import numpy as np

from hmr_ros.geometry import crop_matrix, rotation_about_z, square_crop
from hmr_ros.proxies import ACTIVATIONS, DOUBT, PersonProxies, in_a_mirror
from hmr_ros.proxies.depth import coarse_depth, sensor_depth, trim_depth
from hmr_ros.runtime import compile
from hmr_ros.skeleton import COCO_FROM_BLAZEPOSE, COCO_SIGMAS

_SHOULDERS, _HIPS = [5, 6], [11, 12]
_BLAZEPOSE_SIZE = 256
_BLAZEPOSE_HEAD = "model_1/model/convworld_3d/Conv2D_dequantize"  # weight of its last layer
_BLAZEPOSE_MIDDLE = "model_1/model/conv2d_22/Conv2D_dequantize"  # weight of the layer after its last 16 x 16 block
_MOVENET_PEOPLE = 6  # at most, a pass


@dataclass(frozen=True)
class ExtractorConfig:
    """Thresholds, measured on pedestrians of vtest.avi and photos of a few people."""

    min_score: float = 0.2  # of a person whom MoveNet alone is sure of
    min_agreed_score: float = 0.14  # of one in whose place BlazePose sees the same joints; MoveNet's noise stays below 0.13
    min_confidence: float = 0.2  # of a joint that shapes a region or a crop
    min_hip_confidence: float = 0.1  # of hips that centre a region: a guess below the image border beats the box's centre
    small_person: float = 0.4  # of the image height: smaller people call for the 512² pass
    duplicate_similarity: float = 0.5  # object keypoint similarity above which two detections are one person
    duplicate_overlap: float = 0.4  # of boxes (IoU), the same for detections of different passes
    max_disagreement: float = 0.08  # of the person's diagonal: beyond, BlazePose looked at somebody else
    crop_enlargement: float = 1.2  # paper: the box is enlarged 1.2x
    size: int = 128  # side of mask and depth
    mirrored: bool = False  # look at everybody a second time, in a mirror: for averaging, at one more landmark pass a person


@dataclass(frozen=True, eq=False)
class _Detection:
    score: float
    box: np.ndarray  # (4,)
    keypoints: np.ndarray  # (17, 3)
    side: int = 0  # of the picture it was found in: which pass

    @property
    def diagonal(self) -> float:
        return float(np.hypot(*(self.box[2:] - self.box[:2])))


@dataclass(frozen=True, eq=False)
class _CloseView:
    """BlazePose's answer about one region."""

    landmarks: np.ndarray  # (33, 4) x, y px in the image, visibility, presence
    world: np.ndarray  # (33, 3) metres, camera axes
    presence: float  # that there is a person at all
    mask: np.ndarray  # (256, 256) probability, in the region's pixels
    to_image: np.ndarray  # (2, 3) from the region's pixels to the image's
    angle: float  # of the region, radians
    appearance: np.ndarray  # (APPEARANCE_COUNT,) activations before the last layer
    activations: np.ndarray  # ACTIVATIONS, those halfway

    @property
    def joints(self) -> np.ndarray:
        """(17, 3) COCO: x, y px, confidence."""
        chosen = self.landmarks[list(COCO_FROM_BLAZEPOSE)]
        return np.concatenate([chosen[:, :2], chosen[:, 2:].prod(1, keepdims=True)], axis=1)


class EmbeddedExtractor:
    """uint8 BGR image → people, by the networks in ``hmr_ros/assets``; implements ``ProxyExtractor``."""

    def __init__(self, threads: int | None = None, config: ExtractorConfig = ExtractorConfig()):
        assets = files("hmr_ros") / "assets"
        self.config = config
        self._movenet = {
            side: compile(assets / "movenet_multipose.xml", shapes={"input": (1, side, side, 3)}, threads=threads)
            for side in (256, 384, 512)
        }
        self._blazepose = compile(assets / "pose_landmark_full.tflite", expose=(_BLAZEPOSE_HEAD, _BLAZEPOSE_MIDDLE), threads=threads)
        self.backend = self._blazepose.backend

    def __call__(
        self, image: np.ndarray, depth: np.ndarray | None = None, small_people: bool = True
    ) -> list[PersonProxies]:
        people: list[PersonProxies] = []
        found: list[_Detection] = []
        for person in self._detect(image, small_people):
            view = self._look_closely(image, person)
            agreed = view.presence >= 0.5 and _disagreement(person, view.joints) <= self.config.max_disagreement
            if not agreed and person.score < self.config.min_score:
                continue
            if agreed:
                keypoints = _merge(person, view.joints)
            else:
                # It saw somebody else or nobody: MoveNet stays alone, and nothing downstream may lean on the landmarks.
                view.landmarks[:, 2:] *= DOUBT
                keypoints = person.keypoints
            merged = replace(person, keypoints=keypoints)
            if not any(_same_person(merged, other, self.config) for other in found):
                found.append(merged)
                people.append(self._proxies(image, merged, view, depth, agreed))
        return people

    def follow(
        self, image: np.ndarray, people: list[PersonProxies], depth: np.ndarray | None = None
    ) -> list[PersonProxies] | None:
        """The same people a moment later, by BlazePose alone: without MoveNet's passes over the image.

        None where somebody is not seen well enough to be followed, was lost, or two of them became one: then it is time
        to look for people again. Nobody whom the upper or lower border cuts is followed: BlazePose invents hips and legs
        below it, and its next region would be built on them.
        """
        margin = 0.02 * image.shape[0]
        for before in people:
            if not before.agreed or before.box[1] < margin or before.box[3] > image.shape[0] - 1 - margin:
                return None
        found: list[tuple[_Detection, _CloseView]] = []
        for before in reversed(people):  # whoever is lost is among the last: find out early
            view = self._look_closely(image, _Detection(before.score, before.box, before.keypoints))
            keypoints = view.joints.astype(np.float32)
            box = _joints_box(keypoints, before.box, self.config.min_confidence)
            now = _Detection(before.score, np.clip(box, 0, _last_pixel(image)), keypoints)
            if view.presence < 0.5 or np.any(now.box[2:] - now.box[:2] < 4):
                return None
            if any(_same_person(now, other, self.config) for other, _ in found):
                return None
            found.append((now, view))
        return [self._proxies(image, person, view, depth) for person, view in reversed(found)]

    # ---- people ------------------------------------------------------------------------------------------------------

    def _detect(self, image: np.ndarray, small_people: bool = True) -> list[_Detection]:
        """People in the image, best first, each once; those below ``min_score`` are to be confirmed.

        Without ``small_people`` 512² only if 256² hints at some.
        """
        config = self.config
        found = self._detect_at(image, 256)
        heights = [person.box[3] - person.box[1] for person in found]
        people = [person for person in found if person.score >= config.min_agreed_score]
        hint = all(person.score < config.min_score for person in people) or min(heights) < config.small_person * image.shape[0]
        if max(image.shape[:2]) > 256 and (small_people or hint):
            fine = self._detect_at(image, 512)
            if len(fine) == _MOVENET_PEOPLE:  # there may be more than it can tell: look at both halves
                fine += self._detect_in_halves(image)
            fine = [person for person in fine if person.score >= config.min_agreed_score]
            # Each scale has its strength: 256² keeps large people whole, 512² finds the limbs of small ones.
            limit = 0.45 * max(image.shape[:2])

            def by_strength(person: _Detection) -> int:
                if person.score < config.min_score:
                    return 4
                large, coarse = max(person.box[2:] - person.box[:2]) > limit, person.side == 256
                return (0 if coarse else 3) if large else (2 if coarse else 1)

            people = sorted(_by_score([*people, *fine]), key=by_strength)
        else:
            people = _by_score(people)
        kept: list[_Detection] = []
        for person in people:
            if not any(_same_person(person, other, config) for other in kept):
                kept.append(person)
        return _by_score(kept)

    def _detect_in_halves(self, image: np.ndarray) -> list[_Detection]:
        """People in two overlapping windows along the longer side, but for those whom a window cuts."""
        axis = 0 if image.shape[1] >= image.shape[0] else 1  # of (x, y)
        length = image.shape[1 - axis]
        span = round(0.6 * length)
        found = []
        for first in (0, length - span):
            window = image[:, first : first + span] if axis == 0 else image[first : first + span]
            for person in self._detect_at(window, 384):  # people as large as in the 512² of the whole
                near, far = person.box[axis], person.box[axis + 2]
                if (first > 0 and near < 2) or (first == 0 and far > span - 3):
                    continue
                shift = np.zeros(2, np.float32)
                shift[axis] = first
                moved = person.keypoints + np.append(shift, 0)
                found.append(replace(person, box=person.box + np.tile(shift, 2), keypoints=moved.astype(np.float32), side=span))
        return found

    def _detect_at(self, image: np.ndarray, side: int) -> list[_Detection]:
        """MoveNet's answers (at most six) above its noise, on the image letterboxed to side x side."""
        height, width = image.shape[:2]
        scale = side / max(height, width)
        w, h = max(round(width * scale), 1), max(round(height * scale), 1)
        x0, y0 = (side - w) // 2, (side - h) // 2
        padded = np.zeros((1, side, side, 3), np.float32)
        resized = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        padded[0, y0 : y0 + h, x0 : x0 + w] = resized[..., ::-1]
        rows = self._movenet[side](padded)[0][0]  # (6, 56): 17 x (y, x, score), ymin, xmin, ymax, xmax, score
        rows = rows[rows[:, 55] > 0.13]
        offset, stretch = np.array([x0, y0], np.float32), np.array([w / width, h / height], np.float32)
        joints = rows[:, :51].reshape(-1, 17, 3)
        xy = (joints[..., 1::-1] * side - offset + 0.5) / stretch - 0.5
        corners = (rows[:, [52, 51, 54, 53]].reshape(-1, 2, 2) * side - offset + 0.5) / stretch - 0.5
        corners = np.clip(corners.reshape(-1, 4), 0, _last_pixel(image))
        keypoints = np.concatenate([xy, joints[..., 2:]], axis=-1).astype(np.float32)
        return [
            _Detection(float(row[55]), box.astype(np.float32), points, side)
            for row, box, points in zip(rows, corners, keypoints)
            if np.all(box[2:] - box[:2] >= 4)
        ]

    # ---- one person --------------------------------------------------------------------------------------------------

    def _look_closely(self, image: np.ndarray, person: _Detection, mirrored: bool = False) -> _CloseView:
        """BlazePose's answer about a person. ``mirrored``: about the mirror image of the region; landmarks stand in the image's
        pixels all the same, world and mask are those of the mirror image."""
        to_image, angle = _upright_region(person, self.config)
        region = cv2.warpAffine(
            image, to_image, (_BLAZEPOSE_SIZE, _BLAZEPOSE_SIZE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        if mirrored:
            region, angle = region[:, ::-1], -angle
        answers = self._blazepose((region[None, ..., ::-1] / 255.0).astype(np.float32))
        shapes, expected = [answer.shape for answer in answers[5:]], [(1, 288, 2, 2), (1, *ACTIVATIONS)]
        if shapes != expected:
            raise RuntimeError(
                f"{self.backend} gives BlazePose's activations as {shapes}, expected {expected}, the order of "
                "channels that checkpoints were trained with; install another version of openvino (constraints.txt names one)"
            )
        raw, presence, mask_logits, _, world, appearance = (answer.reshape(-1) for answer in answers[:6])
        raw, world = raw.reshape(39, 5)[:33], world.reshape(39, 3)[:33]
        if mirrored:
            raw[:, 0] = _BLAZEPOSE_SIZE - 1 - raw[:, 0]
        xy = raw[:, :2] @ to_image[:, :2].T + to_image[:, 2]
        return _CloseView(
            landmarks=np.concatenate([xy, _sigmoid(raw[:, 3:])], axis=1).astype(np.float32),
            world=(world @ rotation_about_z(angle).T).astype(np.float32),
            presence=float(presence[0]),
            mask=_sigmoid(mask_logits.reshape(_BLAZEPOSE_SIZE, _BLAZEPOSE_SIZE)),
            to_image=to_image,
            angle=angle,
            appearance=appearance,
            activations=answers[6][0],
        )

    def _proxies(
        self, image: np.ndarray, person: _Detection, view: _CloseView, depth: np.ndarray | None, agreed: bool = True
    ) -> PersonProxies:
        size = self.config.size
        crop = square_crop(_joints_box(person.keypoints, person.box, self.config.min_confidence), self.config.crop_enlargement)
        to_crop = crop_matrix(crop, size)
        mask = cv2.warpAffine(
            view.mask, (_homogeneous(to_crop) @ _homogeneous(view.to_image))[:2], (size, size), flags=cv2.INTER_LINEAR
        )
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
            landmarks=view.landmarks,
            world=view.world,
            mask=mask,
            depth=trim_depth(depth_map),
            region=_region(view),
            appearance=view.appearance,
            activations=view.activations,
            agreed=agreed,
        )
        if not self.config.mirrored:
            return proxies
        second = self._look_closely(image, person, mirrored=True)
        landmarks, region = second.landmarks.copy(), _region(second)
        if not agreed or second.presence < 0.5:
            landmarks[:, 2:] *= DOUBT
        for points in (landmarks, region):
            points[..., 0] = 2 * crop[0] - points[..., 0]
        return replace(proxies, mirrored=in_a_mirror(proxies, landmarks, second.world, region, second.appearance, second.activations))


def _region(view: _CloseView) -> np.ndarray:
    centre = view.to_image @ [(_BLAZEPOSE_SIZE - 1) / 2, (_BLAZEPOSE_SIZE - 1) / 2, 1]
    size = _BLAZEPOSE_SIZE * np.hypot(*view.to_image[:, 0])
    return np.array([*centre, size, view.angle], np.float32)


def _by_score(people: list[_Detection]) -> list[_Detection]:
    return sorted(people, key=lambda person: -person.score)


def _same_person(a: _Detection, b: _Detection, config: ExtractorConfig) -> bool:
    """Object keypoint similarity (COCO) over the joints that both are sure of; boxes decide where those are few.

    Between passes overlapping boxes are enough: the coarser one's joints of a small person may lie anywhere on it.
    """
    overlap = np.minimum(a.box[2:], b.box[2:]) - np.maximum(a.box[:2], b.box[:2])
    intersection = np.prod(np.maximum(overlap, 0))
    areas = [np.prod(person.box[2:] - person.box[:2]) for person in (a, b)]
    if a.side != b.side and intersection > config.duplicate_overlap * (sum(areas) - intersection):
        return True
    common = np.minimum(a.keypoints[:, 2], b.keypoints[:, 2]) > config.min_confidence
    if common.sum() >= 3:
        squared = ((a.keypoints[common, :2] - b.keypoints[common, :2]) ** 2).sum(1)
        similarity = np.exp(-squared / (2 * min(areas) * (2 * np.array(COCO_SIGMAS)[common]) ** 2)).mean()
        return bool(similarity > config.duplicate_similarity)
    return bool(intersection > 0.6 * min(areas))


def _upright_region(person: _Detection, config: ExtractorConfig) -> tuple[np.ndarray, float]:
    """BlazePose's region: square around the hips, turned so that the shoulders are up.

    Returns the affine (2, 3) from region pixels to image pixels and the angle in radians.
    """
    xy, confidence = person.keypoints[:, :2], person.keypoints[:, 2]
    sure = confidence > config.min_confidence
    centre = (person.box[:2] + person.box[2:]) / 2
    angle, torso = 0.0, 0.0
    if (confidence[_HIPS] > config.min_hip_confidence).all() or sure[_HIPS].any():
        centre = xy[_HIPS].mean(0)
        if sure[_SHOULDERS].any():
            up = xy[_SHOULDERS].mean(0) - centre
            torso = float(np.hypot(*up))
            if sure[_HIPS].all() and sure[_SHOULDERS].all():
                angle = float(np.arctan2(up[0], -up[1]))
    reach = np.linalg.norm(xy[sure] - centre, axis=1).max() if sure.any() else person.diagonal / 2
    size = 2.5 * max(float(reach), 1.5 * torso, 8.0)
    k, c, s = size / _BLAZEPOSE_SIZE, np.cos(angle), np.sin(angle)
    linear = k * np.array([[c, -s], [s, c]])
    shift = centre - linear @ np.full(2, (_BLAZEPOSE_SIZE - 1) / 2)
    return np.hstack([linear, shift[:, None]]).astype(np.float32), angle


def _disagreement(person: _Detection, blazepose: np.ndarray) -> float:
    """Median distance of the limb joints that both networks are sure of, relative to the person's diagonal."""
    sure = (person.keypoints[:, 2] > 0.3) & (blazepose[:, 2] > 0.3)
    sure[:5] = False
    if sure.sum() < 2:
        return 0.0
    distance = np.linalg.norm(person.keypoints[sure, :2] - blazepose[sure, :2], axis=1)
    return float(np.median(distance)) / person.diagonal


def _merge(person: _Detection, blazepose: np.ndarray) -> np.ndarray:
    """One COCO-17 from two: the weighted mean where they agree, the surer one, less sure, where they do not."""
    movenet = person.keypoints
    distance = np.linalg.norm(movenet[:, :2] - blazepose[:, :2], axis=1) / person.diagonal
    # MoveNet says 0.3-0.8 of a visible joint where BlazePose says 0.9-1: halve the latter to compare them.
    weight_a, weight_b = movenet[:, 2], 0.5 * blazepose[:, 2]
    share = weight_a / np.maximum(weight_a + weight_b, 1e-6)
    agree = distance < 0.05
    share = np.where(agree, share, weight_a >= weight_b)
    xy = share[:, None] * movenet[:, :2] + (1 - share[:, None]) * blazepose[:, :2]
    confidence = np.where(agree, np.maximum(movenet[:, 2], blazepose[:, 2]), 0.7 * np.maximum(weight_a, weight_b))
    return np.concatenate([xy, confidence[:, None]], axis=1)


def _joints_box(keypoints: np.ndarray, box: np.ndarray, min_confidence: float) -> np.ndarray:
    """Box of the confident joints, with room for the head and the feet; the detector's box where they are few."""
    sure = keypoints[keypoints[:, 2] > min_confidence, :2]
    if len(sure) < 4:
        return box
    low, high = sure.min(0), sure.max(0)
    margin = 0.08 * max(*(high - low), 8.0)
    return np.concatenate([low - margin, high + margin])


def _last_pixel(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return np.array([width - 1, height - 1, width - 1, height - 1], np.float32)


def _homogeneous(affine: np.ndarray) -> np.ndarray:
    return np.vstack([affine, [0, 0, 1]])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))
