"""What the networks see of a person: 2D joints with confidences, a mask and a depth map, merged by an extractor.

An extractor turns an image into one :class:`PersonProxies` a person. The embedded detectors are one; a robot's own depth camera
fits the same protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from hmr_ros.skeleton import COCO_MIRROR, TORSO_KEYPOINTS

CONFIDENT = 0.3  # of a joint that counts as seen
DOUBT = 0.3  # factor on the visibility and presence of landmarks that are somebody else's
APPEARANCE_COUNT = 1152  # BlazePose's last activations, 288 channels of 2 x 2
ACTIVATIONS = (88, 16, 16)  # shape of those halfway through it: channels, rows, columns


@dataclass(frozen=True, eq=False)
class PersonProxies:
    """Everything measured about one person in one image; numpy float32. S is the side of the crop's pictures."""

    score: float  # person detector, [0, 1]
    box: np.ndarray  # (4,) x0, y0, x1, y1 px
    keypoints: np.ndarray  # (17, 3) COCO-17: x, y px in the original image, confidence in [0, 1]
    crop: np.ndarray  # (3,) cu, cv, size px: the square that mask and depth show
    landmarks: np.ndarray  # (33, 4) BlazePose: x, y px in the original image, visibility, presence in [0, 1]
    world: np.ndarray  # (33, 3) BlazePose world landmarks: camera axes, metres, relative to the hips' midpoint
    mask: np.ndarray  # (S, S) probability that a crop pixel belongs to the person
    depth: np.ndarray  # (S, S) metres, larger is farther, 0 where unknown; trimmed (T_IQR)
    region: np.ndarray  # (4,) the upright square that the landmark network looked at: cu, cv, size px, and how far it is
    # turned against the image: radians, positive clockwise, 0 where the shoulders are above the hips
    appearance: np.ndarray  # (APPEARANCE_COUNT,) what the landmark network makes its answers from, in the region's frame
    agreed: bool = True  # the landmarks are of the same person as the detector's joints
    activations: np.ndarray | None = None  # ACTIVATIONS, any float: how the landmark network sees the region before it makes up its
    # mind; None where nobody needs them
    mirrored: PersonProxies | None = None  # the same person in a mirror, mirrored about the crop's centre; by another look

    @property
    def torso_is_seen(self) -> bool:
        """Two of the four torso joints and six joints in all are confident: less says too little of a body to show one."""
        sure = self.keypoints[:, 2] > CONFIDENT
        return bool(sure[list(TORSO_KEYPOINTS)].sum() >= 2 and sure.sum() >= 6)


def in_a_mirror(
    person: PersonProxies, landmarks: np.ndarray, world: np.ndarray, region: np.ndarray, appearance: np.ndarray,
    activations: np.ndarray | None = None,
) -> PersonProxies:
    """The person mirrored about the crop's centre, with what a second look at the mirror image gave (in its own pixels)."""
    flip = np.array([-1, 1, 1], np.float32)
    shift = np.array([2 * person.crop[0], 0, 0], np.float32)
    x0, y0, x1, y1 = person.box
    return replace(
        person,
        box=np.array([shift[0] - x1, y0, shift[0] - x0, y1], np.float32),
        keypoints=(person.keypoints * flip + shift)[list(COCO_MIRROR)],
        landmarks=landmarks,
        world=world,
        mask=np.ascontiguousarray(person.mask[:, ::-1]),
        depth=np.ascontiguousarray(person.depth[:, ::-1]),
        region=region,
        appearance=appearance,
        activations=activations,
        mirrored=None,
    )


class ProxyExtractor(Protocol):
    """Image → people. ``backend`` says what runs the detectors, for logs and the doctor."""

    backend: str

    def __call__(
        self, image: np.ndarray, depth: np.ndarray | None = None, small_people: bool = True
    ) -> list[PersonProxies]:
        """``image`` uint8 (H, W, 3) BGR; ``depth`` optional float32 (H, W) metres aligned with it (0 = unknown).

        Without ``small_people`` an extractor may save the effort of looking for people who are small in the image.
        """
        ...

    def follow(
        self, image: np.ndarray, people: list[PersonProxies], depth: np.ndarray | None = None
    ) -> list[PersonProxies] | None:
        """The same people in the next frame, more cheaply; None where it is better to call the extractor again."""
        ...
