"""The methods compared on rendered people, all from the same stored proxies: baselines, ours and variants of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.geometry import fit_weak_camera, matrix_from_6d, to_crop, weak_perspective
from hmr_ros.judgement import reliability as judged
from hmr_ros.networks.lifter.regressor import LifterRegressor
from hmr_ros.networks.lifter.net import Lifter
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.proxies import PersonProxies, registry
from hmr_ros.refinement import RefinementConfig, Refiner
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.benchmarks.rendered.mediapipe_correction import RAW
from hmr_ros.training.metrics import LIMB_HIPS, root_aligned
from hmr_ros.training.lifter.samples import proxies_of
from hmr_ros.training.benchmarks.rendered.smplify import Smplify, gather

_LIMBS = list(LIMB_KEYPOINTS)

MethodName = Literal[
    "mean_pose", "mediapipe", "mediapipe_corrected", "smplify", "ours", "ours_unrefined", "ours_30_steps", "ours_flip",
    "ours_depth_camera", "ours_ray_axes",
]  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """A method's predictions for the N found people."""

    limbs: np.ndarray  # (N, 12, 3) metres in ray axes, as the truth, so that errors are those in the camera's frame; hips' midpoint at 0
    seen: np.ndarray  # (N, 12, 2) where that projects to, crop coordinates
    betas: np.ndarray | None = None  # (N, 10)
    reliability: np.ndarray | None = None  # (N, 12)
    rotations: np.ndarray | None = None  # (N, 24, 3, 3)
    cameras: np.ndarray | None = None  # (N, 3)


def posed(skeleton: PosedKeypoints, rotations: np.ndarray, betas: np.ndarray, cameras: np.ndarray) -> Prediction:
    """Bodies of N people: rotations (N, 24, 3, 3) into ray axes, betas (N, 10), weak cameras (N, 3)."""
    with torch.inference_mode():
        limbs = skeleton(torch.from_numpy(rotations), torch.from_numpy(betas))[1][:, _LIMBS].numpy()
    return Prediction(root_aligned(limbs, LIMB_HIPS), weak_perspective(limbs, cameras), betas, None, rotations, cameras)


class Methods:
    """Everything the methods share: people's proxies, networks and body."""

    def __init__(
        self, found: dict[str, np.ndarray], activations: np.ndarray, lifter: Lifter, body: BodyModel, correction: np.ndarray
    ):
        """found: rows of ``rendered.load``, of which only proxies and the ray's rotation are read; activations: ``rendered.load_activations``'s. correction:
        (12, 33) of MediaPipe's landmarks."""
        self.found, self.activations, self.correction = found, activations, correction
        self.lifter, self.skeleton = lifter.eval(), PosedKeypoints(body)
        self.targets = to_crop(found["keypoints"][..., :2], found["crop"])
        self.confidence = np.where(found["keypoints"][..., 2] > registry.confident(None), found["keypoints"][..., 2], 0)

    def __call__(self, name: MethodName) -> Prediction:
        return METHODS[name].predict(self)

    def mean_pose(self) -> Prediction:
        rotations = matrix_from_6d(self.lifter.mean_rotations)[None].numpy()
        betas = np.zeros((1, 10), np.float32)
        limbs = posed(self.skeleton, rotations, betas, np.array([[1.0, 0, 0]], np.float32)).limbs
        return self._with_best_camera(np.repeat(limbs, len(self.targets), 0), betas.repeat(len(self.targets), 0))

    def mediapipe(self, weights: np.ndarray = RAW) -> Prediction:
        return self._with_best_camera(root_aligned((weights @ self.found["world"]).astype(np.float32), LIMB_HIPS))

    def smplify(self) -> Prediction:
        fit = Smplify(self.skeleton)(gather(list(proxies_of(self.found))))
        return posed(self.skeleton, fit.rotations, fit.betas, fit.weak_camera)

    def ours(
        self, people: list[PersonProxies] | None = None, refinement: RefinementConfig | None = RefinementConfig()
    ) -> Prediction:
        people = people or list(self._views("plain"))
        rotations, betas, cameras, reliability = LifterRegressor(self._regress, self._pelvis)(people)
        if refinement is not None:
            refine = Refiner(self.skeleton, refinement)
            rotations, cameras = refine(rotations, betas, cameras, self.targets, self.confidence)
        prediction = posed(self.skeleton, rotations, betas, cameras)
        away = np.linalg.norm(prediction.seen - self.targets[:, _LIMBS], axis=-1) / cameras[:, :1]  # metres
        return replace(prediction, reliability=judged(reliability, np.where(self.confidence[:, _LIMBS] > 0, away, np.nan)))

    def ours_flip(self) -> Prediction:
        views = zip(self._views("plain"), self._views("mirrored"), strict=True)
        return self.ours([replace(plain, mirrored=mirrored) for plain, mirrored in views])

    def ours_depth_camera(self) -> Prediction:
        return self.ours(list(self._views("plain", "sensor_depth")))

    def ours_ray_axes(self) -> Prediction:
        """As if the ray's axes were the camera's: turned once too often against the truth, which stands in ray axes."""
        prediction = self.ours()
        return replace(prediction, limbs=prediction.limbs @ np.swapaxes(self.found["ray_rotation"], 1, 2))

    def _views(self, flip: str, depth: str = "depth") -> Iterator[PersonProxies]:
        return proxies_of(self.found, flip, depth, self.activations)

    def _regress(self, features: np.ndarray, feature_maps: np.ndarray):
        with torch.inference_mode():
            return tuple(value.numpy() for value in self.lifter(torch.from_numpy(features), torch.from_numpy(feature_maps)))

    def _pelvis(self, betas: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self.skeleton.pelvis(torch.from_numpy(betas)).numpy()

    def _with_best_camera(self, limbs: np.ndarray, betas: np.ndarray | None = None) -> Prediction:
        """What has no camera of its own gets the one that brings it nearest to the detected joints."""
        cameras = fit_weak_camera(limbs, self.targets[:, _LIMBS], self.confidence[:, _LIMBS])
        return Prediction(limbs, weak_perspective(limbs, cameras), betas)


class Method(NamedTuple):
    label: str
    what: str
    predict: Callable[[Methods], Prediction]


METHODS: dict[MethodName, Method] = {
    "mean_pose": Method("mean pose", "the training people's mean pose and heading, upright", Methods.mean_pose),
    "mediapipe": Method("MediaPipe, raw", "its world landmarks as they are, which are our input too", Methods.mediapipe),
    "mediapipe_corrected": Method(
        "MediaPipe, corrected", "its world landmarks, one linear map to our joints fitted on training people",
        lambda methods: methods.mediapipe(methods.correction),
    ),
    "smplify": Method("SMPLify-like", "optimisation of the body on the same proxies, without learning", Methods.smplify),
    "ours": Method("ours", "lifter and refinement, as in the estimator", Methods.ours),
    "ours_unrefined": Method("ours, unrefined", "the lifter alone", lambda methods: methods.ours(refinement=None)),
    "ours_30_steps": Method(
        "ours, 30 steps", "refined ten times as long", lambda methods: methods.ours(refinement=RefinementConfig(steps=30))
    ),
    "ours_flip": Method("ours, flip TTA", "with flip test-time augmentation", Methods.ours_flip),
    "ours_depth_camera": Method(
        "ours, depth camera", "with a simulated depth camera's depth instead of the coarse one",
        Methods.ours_depth_camera,
    ),
    "ours_ray_axes": Method(
        "ours, ray axes", "what every crop-based method publishes: the axes of the viewing ray taken for the camera's", Methods.ours_ray_axes
    ),
}  # fmt: skip
