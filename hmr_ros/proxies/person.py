"""What the networks see of a person: a core that every extractor can fill, and one record for what only BlazePose knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from hmr_ros.geometry import mirror_joints
from hmr_ros.skeleton import TORSO_KEYPOINTS

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDING_COUNT = 1152  # of the BlazePose embedding: 288 channels of 2 x 2
FEATURE_MAP = (88, 16, 16)  # shape of the BlazePose feature map: channels, rows, columns

DepthSource = Literal["coarse", "sensor", "monocular", "hdnet", "none"]


@dataclass(frozen=True, eq=False)
class BlazePoseRecord:
    """BlazePose's output for one RoI; numpy float32 unless stated. Needed by the lifter."""

    landmarks: np.ndarray  # (33, 4) x, y px in the original image, visibility, presence in [0, 1]
    world: np.ndarray  # (33, 3) world landmarks: camera axes, metres, relative to the hips' midpoint
    roi: np.ndarray  # (4,) the square that the network saw, turned until the person stands upright: cu, cv, size px, and its angle
    # against the image: radians, positive clockwise, 0 where the shoulders are above the hips
    embedding: np.ndarray  # (EMBEDDING_COUNT,) input of the network's last layers, in the RoI's frame
    feature_map: np.ndarray | None = None  # FEATURE_MAP, any float: activations halfway through the network; None: not kept
    agreed: bool = True  # the landmarks are of the same person as the detector's joints


class PersonTensors(NamedTuple):
    """What a regressor reads of one person, on the device that computed it: the same as the arrays of the record."""

    depth: Tensor  # (S, S)
    embedding: Tensor  # (EMBEDDING_COUNT,)
    feature_map: Tensor  # FEATURE_MAP


@dataclass(frozen=True, eq=False)
class PersonProxies:
    """Everything measured about one person in one image; numpy float32. S is the side of the crop's maps.

    ``depth_source`` says what ``depth`` is: "coarse", spread from world landmarks over the mask, hips at 4 m; "sensor", a depth
    camera's; "monocular", a depth network's; "hdnet", a map from a file; "none", unknown everywhere.
    """

    score: float  # of the person detector, [0, 1]
    box: np.ndarray  # (4,) x0, y0, x1, y1 px
    keypoints: np.ndarray  # (17, 3) COCO-17: x, y px in the original image, confidence in [0, 1]
    crop: np.ndarray  # (3,) cu, cv, size px: the square that mask and depth show
    mask: np.ndarray | None  # (S, S) probability that a crop pixel belongs to the person; None where the extractor has none
    depth: np.ndarray  # (S, S) metres, larger is farther, 0 where unknown; trimmed (T_IQR)
    depth_source: DepthSource
    confident: float  # keypoints above this confidence count as seen; calibrated for each extractor
    blazepose: BlazePoseRecord | None = None
    tensors: PersonTensors | None = None  # of extractors on a GPU; None: there are only the arrays
    mirrored: PersonProxies | None = None  # the same person flipped about the crop's centre, for flip test-time augmentation

    @cached_property
    def torso_is_seen(self) -> bool:
        """Two of the four torso joints and six joints in all are confident: with fewer there is no body to show."""
        sure = self.keypoints[:, 2] > self.confident
        return bool(sure[list(TORSO_KEYPOINTS)].sum() >= 2 and sure.sum() >= 6)

    @cached_property
    def confidence(self) -> np.ndarray:
        """(17,) of the keypoints, 0 where they do not count as seen."""
        return np.where(self.keypoints[:, 2] > self.confident, self.keypoints[:, 2], 0)


def flipped(person: PersonProxies, blazepose: BlazePoseRecord | None = None) -> PersonProxies:
    """The person flipped about the crop's centre. ``blazepose``: of the flipped image, in the flipped person's pixels."""
    shift = np.array([2 * person.crop[0], 0, 0], np.float32)
    x0, y0, x1, y1 = person.box
    return replace(
        person,
        box=np.array([shift[0] - x1, y0, shift[0] - x0, y1], np.float32),
        keypoints=mirror_joints(person.keypoints) + shift,
        mask=None if person.mask is None else np.ascontiguousarray(person.mask[:, ::-1]),
        depth=np.ascontiguousarray(person.depth[:, ::-1]),
        blazepose=blazepose,
        tensors=None,
        mirrored=None,
    )


class ProxyExtractor(Protocol):
    """Image → people.

    ``backend`` names what runs the detectors. ``provides`` names the optional parts of PersonProxies that everybody gets, of
    "mask" and "blazepose": a regressor that needs another is refused (estimator.py).

    Optional, for streams that shall not stall on a call: ``search(image, small_people)`` does a call's work in steps, a generator that
    returns detections (``score``, ``box``, ``keypoints``); ``confirm(image, detection, depth)`` makes one a person or None;
    ``follow_all(image, people, depth)`` follows them in one batch; and
    ``agrees(detection, person)`` says that a followed person needs no such new start. See EmbeddedExtractor.
    """

    backend: str
    provides: frozenset[str]

    def identity(self) -> dict:
        """Name, files' SHA-256 and options: what the proxies depend on, JSON-able. Shards and checkpoints carry it."""
        ...

    def __call__(self, image: np.ndarray, depth: np.ndarray | None = None, small_people: bool = True) -> list[PersonProxies]:
        """Everybody in the image. ``image`` uint8 (H, W, 3) BGR; ``depth`` optional float32 (H, W) metres aligned with it, 0 = unknown.

        Without ``small_people`` an extractor may skip the effort of finding people who are small in the image.
        """
        ...

    def follow(self, image: np.ndarray, person: PersonProxies, depth: np.ndarray | None = None) -> PersonProxies | None:
        """``person`` of the previous frame in this one, more cheaply than by a call of the extractor; None where it is lost."""
        ...
