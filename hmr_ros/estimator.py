"""HumanMeshEstimator: image → one BodyEstimate a person, the whole pipeline on one page.

    people = extractor(image)                        proxies: joints, mask, depth, activations; in a mirror as well, if asked
    rotations, betas, camera, reliability = regress(people)
    rotations, camera = refine(...)                  bent towards the confident joints
    rotations, betas, pelvis = place(...)            into the camera's frame: orientation, position, stature (where intrinsics are known)
    vertices, joints, keypoints = body(...)          the mesh

It knows nothing of ROS, files or drawing.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from hmr_ros.body.model import BodyModel, fit_betas_map
from hmr_ros.files import load_checkpoint
from hmr_ros.estimate import BodyEstimate
from hmr_ros.camera import Camera, as_camera
from hmr_ros.geometry import Intrinsics, rotvec_from_matrix, to_crop
from hmr_ros.metric import MetricFrame
from hmr_ros.networks.lifter.features import FEATURE_COUNT, FEATURE_LAYOUT
from hmr_ros.networks.lifter.regressor import Answers, regress, regress_maps
from hmr_ros.networks.lifter.net import Lifter
from hmr_ros.networks.paper.maps import MAP_SIZE
from hmr_ros.networks.paper.prior import EMBEDDED_PRIOR, load_pose_prior
from hmr_ros.networks.paper.net import RegressorConfig, Resnet18Regressor
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.proxies import FEATURE_MAP, PersonProxies, ProxyExtractor
from hmr_ros.proxies.registry import make_extractor
from hmr_ros.refinement import Refiner
from hmr_ros.runtime import CompiledModel, compile

logger = logging.getLogger(__name__)

EMBEDDED_CHECKPOINT = files("hmr_ros") / "assets" / "lifter.safetensors"
EMBEDDED = {"lifter": EMBEDDED_CHECKPOINT, "resnet18": files("hmr_ros") / "assets" / "resnet18.safetensors"}
_WRONG = 0.15  # of the person's diagonal: a mesh whose joints lie further from the detected ones, on average, is none


class HumanMeshEstimator:
    """Estimates the SMPL-style body of everybody in an image. Stateless and safe to share between threads.

    ``backend`` names what runs the networks; ``reliability_source`` says what ``reliability`` means (msg/BodyArray.msg); ``body_model``
    gives faces, name and hash.
    """

    def __init__(
        self,
        extractor: ProxyExtractor,
        regressor: CompiledModel,
        body: CompiledModel,
        body_model: BodyModel,
        betas_map: tuple[np.ndarray, np.ndarray],
        reliability_source: str = "learned",
    ):
        """``regressor`` and ``body`` are the compiled Lifter, or Resnet18Regressor, and ``body_model``; betas go through A betas + b.

        People whose proxies carry a second look (``PersonProxies.mirrored``) are regressed from both and averaged.
        """
        self.extractor, self.body_model = extractor, body_model
        self._regressor, self._body, self._betas_map = regressor, body, betas_map
        self._reads_features = regressor.input_specs[0].shape[1:] == (FEATURE_COUNT,)
        self.reliability_source = reliability_source
        self._refine = Refiner(PosedKeypoints(body_model))
        self.placing = MetricFrame(self._refine.skeleton, body_model, body)
        self.backend = f"regressor: {regressor.backend}; detectors: {extractor.backend}"

    @classmethod
    def from_default(
        cls,
        backend: str = "auto",
        body_model: str | Path | None = None,
        checkpoint: str | Path | None = None,
        threads: int | None = None,
        flip_averaging: bool = False,
        regressor: str = "lifter",
    ) -> HumanMeshEstimator:
        """Load the embedded detectors and checkpoint.

        backend: "auto" (OpenVINO, else torch; TensorRT is not in this version), "openvino" or "torch"; an explicit one
        never falls back. It runs the regressor and the body; the embedded detectors are OpenVINO's files and run there.
        body_model: SMPL's .pkl or .npz instead of the embedded body. regressor: "lifter" (trained with rendered people's truth), or
        "resnet18", the paper's, trained without labels, whose reliability ("agreement") says how far the proxies agree and is no
        probability. checkpoint: one of that kind, written by ``hmr-ros train``.
        flip_averaging: look at everybody in a mirror as well and average both; one more landmark pass a person.
        Raises FileNotFoundError or ValueError that name what is wrong with a file or a backend.
        """
        body_model = BodyModel.load(body_model)
        if regressor not in EMBEDDED:
            raise ValueError(f"regressor is {regressor!r}, expected one of {', '.join(EMBEDDED)}")
        load, inputs, reliability_source = _KINDS[regressor]
        network, trained_with = load(checkpoint or EMBEDDED[regressor])
        options = {"backend": backend, "threads": threads}
        compiled = compile(network.eval(), inputs, **options)
        rest_pose = (torch.eye(3).repeat(1, 24, 1, 1), torch.zeros(1, 10))
        body = compile(body_model, rest_pose, **options)
        betas_map = _betas_map(trained_with, body_model)
        extractor = make_extractor(threads=threads, flip=flip_averaging)
        estimator = cls(extractor, compiled, body, body_model, betas_map, reliability_source)
        logger.info("body model %s; %s", body_model.name, estimator.backend)
        return estimator

    def __call__(
        self, image: np.ndarray, depth: np.ndarray | None = None, intrinsics: Intrinsics | Camera | None = None, stature: float | None = None
    ) -> list[BodyEstimate]:
        """Everybody in one image, best score first.

        image: uint8 (H, W, 3) BGR. depth: optional (H, W) metres aligned with the image, 0 or non-finite = unknown; it gives distance
        and stature. intrinsics: of this image, a ``Camera`` where the lens distorts it; without them bodies stand in ray axes and
        ``translation`` is None. stature: metres, where the people's is known. Raises ValueError on other input.
        """
        camera = check_input(image, depth, intrinsics, stature)
        people = self.extractor(image, depth)
        return self.estimate(people, camera, depth, None if stature is None else np.full(len(people), stature))

    def estimate(
        self, people: list[PersonProxies], camera: Camera | None = None, depth: np.ndarray | None = None, statures: np.ndarray | None = None
    ) -> list[BodyEstimate]:
        """Bodies of people whose proxies are known. ``statures`` (N,) metres, NaN where unknown.

        Left out, because no mesh is better than a wrong one, are those with too few confident joints, and those whose mesh
        does not come to lie on them.
        """
        statures = np.full(len(people), np.nan) if statures is None else statures
        seen = [person.torso_is_seen for person in people]
        people, statures = [person for person, good in zip(people, seen) if good], statures[seen]
        if not people:
            return []
        answers = self._regress(people)
        finite = np.logical_and.reduce([np.isfinite(a.reshape(len(people), -1)).all(1) for a in answers])
        if not finite.all():
            logger.error("%d of %d bodies came out of %s with non-finite numbers and are left out",
                         (~finite).sum(), len(people), self._regressor.backend)  # fmt: skip
            people, statures = [person for person, good in zip(people, finite) if good], statures[finite]
            if not people:
                return []
        rotations, betas, cameras, reliability = (answer[finite] for answer in answers)
        betas = self._mapped(betas)
        detected = np.stack([person.keypoints for person in people])
        crops = np.stack([person.crop for person in people])
        confidence = np.stack([person.confidence for person in people])
        rotations, cameras = self._refine(rotations, betas, cameras, to_crop(detected[..., :2], crops), confidence)
        placed = None
        if camera is not None:
            placed = self.placing(rotations, betas, cameras, detected[..., :2], confidence, crops, camera, depth, statures)
            rotations, betas, cameras = placed.rotations, placed.betas, placed.weak_cameras
        vertices, joints, keypoints = self._body(rotations, betas)
        rotvecs = rotvec_from_matrix(rotations)
        bodies = []
        for i, person in enumerate(people):
            body = BodyEstimate(
                score=float(np.clip(person.score, 0, 1)),
                box=person.box,
                keypoints=person.keypoints,
                reliability=reliability[i],
                global_orient=rotvecs[i, 0],
                body_pose=rotvecs[i, 1:].reshape(69),
                betas=betas[i],
                crop=person.crop,
                weak_camera=cameras[i],
                translation=None if placed is None else placed.pelvis[i] - joints[i, 0],
                joints=joints[i],
                vertices=vertices[i],
                projected_keypoints=np.zeros((17, 2), np.float32),
                axes="ray" if placed is None else "camera",
                translation_source=None if placed is None else "depth" if placed.from_depth[i] else "apparent size",
                camera=camera,
            )
            bodies.append(replace(body, projected_keypoints=body.pixels(keypoints[i])))
        return [body for body, person in zip(bodies, people) if body.reprojection_error(min_confidence=person.confident) <= _WRONG]

    def _regress(self, people: list[PersonProxies]) -> Answers:
        if self._reads_features:
            return regress(self._regressor, self._pelvis, people)
        return regress_maps(self._regressor, people)

    def _mapped(self, betas: np.ndarray) -> np.ndarray:
        matrix, offset = self._betas_map
        return (betas @ matrix.T + offset).astype(np.float32)

    def _pelvis(self, betas: np.ndarray) -> np.ndarray:
        return self._refine.skeleton.pelvis(torch.from_numpy(self._mapped(betas))).numpy()

    def stream(self) -> Stream:
        """An estimator with memory, for the frames of one video or camera."""
        return Stream(self)


class Stream:
    """Frames of one video in order: ``stream(image, stamp)``. One instance a camera; not for several threads.

    Everybody is looked for every ``DETECT_EVERY`` seconds and when the stamps or the image's size jump. In between the extractor follows those
    it knows, which is what makes several people affordable; where it cannot, they are looked for again, small ones only
    if there were any.
    """

    DETECT_EVERY = 0.8  # seconds: how long somebody new may stay unseen
    LONGEST_GAP = 0.8  # seconds: after a longer pause people may be anywhere
    SMALL = 0.45  # of the image height

    def __init__(self, estimator: HumanMeshEstimator):
        self._estimator = estimator
        self._people: list[PersonProxies] = []
        self._small_people = True
        self._shape: tuple[int, ...] = ()
        self._detected = self._stamp = -np.inf

    def __call__(
        self,
        image: np.ndarray,
        stamp: float,
        depth: np.ndarray | None = None,
        intrinsics: Intrinsics | Camera | None = None,
        stature: float | None = None,
    ) -> list[BodyEstimate]:
        """``stamp`` in seconds; the rest as in ``HumanMeshEstimator.__call__``."""
        camera = check_input(image, depth, intrinsics, stature)
        extractor = self._estimator.extractor
        jump = image.shape != self._shape or not 0 < stamp - self._stamp < self.LONGEST_GAP
        due = jump or stamp - self._detected >= self.DETECT_EVERY
        people = None
        if self._people and not due:
            people = [extractor.follow(image, person, depth) for person in self._people]
        if people is None or any(now is None or before.torso_is_seen and not now.torso_is_seen for before, now in zip(self._people, people)):
            people = extractor(image, depth, small_people=due or self._small_people)
        if due:
            self._detected = stamp
            self._small_people = any(p.box[3] - p.box[1] < self.SMALL * image.shape[0] for p in people)
        self._people, self._stamp, self._shape = people, stamp, image.shape
        return self._estimator.estimate(people, camera, depth, None if stature is None else np.full(len(people), stature))


def load_lifter(path: str | Path) -> tuple[Lifter, dict]:
    """The lifter in a checkpoint and the ``body`` it was trained with ({"name", "sha256"}).

    Raises ValueError where the checkpoint holds another network or another feature layout.
    """
    tensors, metadata = _load(path, "lifter", "hmr-ros train lifter")
    layout = [[name, list(shape)] for name, shape in FEATURE_LAYOUT]
    if metadata.get("feature_layout") != layout:
        raise ValueError(
            f"{path} was trained with other features ({metadata.get('feature_layout', 'of an earlier version')}), expected "
            f"{layout}; train it again with this version: hmr-ros train lifter"
        )
    lifter = Lifter(**metadata["options"])
    lifter.load_state_dict(tensors)
    return lifter, metadata["body"]


def load_resnet18(path: str | Path) -> tuple[Resnet18Regressor, dict]:
    """The paper's regressor in a checkpoint and the ``body`` it was trained with. Raises as :func:`load_lifter`."""
    tensors, metadata = _load(path, "resnet18", "hmr-ros train")
    expected = metadata.get("pose_prior_sha256")  # of the embedded prior, where the file leaves its decoder to it
    if expected:
        found = hashlib.sha256(EMBEDDED_PRIOR.read_bytes()).hexdigest()
        if found != expected:
            raise ValueError(f"{path} needs the pose prior {expected[:8]}, but {EMBEDDED_PRIOR} is {found[:8]}: they belong to different "
                             "versions of hmr_ros; install one of them whole")  # fmt: skip
        tensors |= {f"pose_decoder.{name}": value for name, value in load_pose_prior().decoder.state_dict().items()}
    regressor = Resnet18Regressor(RegressorConfig(**metadata["options"]))
    regressor.load_state_dict(tensors)
    return regressor, metadata["body"]


def _load(path: str | Path, network: str, command: str) -> tuple[dict, dict]:
    tensors, metadata = load_checkpoint(path)
    if metadata.get("network") != network:
        raise ValueError(f"{path} holds network {metadata.get('network')!r}, expected {network!r}, as {command} writes it")
    return tensors, metadata


# regressor → what reads its checkpoint, and an example of its inputs
_KINDS = {
    "lifter": (load_lifter, (torch.zeros(1, FEATURE_COUNT), torch.zeros(1, *FEATURE_MAP)), "learned"),
    "resnet18": (load_resnet18, (torch.zeros(1, 17, 3), torch.zeros(1, MAP_SIZE, MAP_SIZE)), "agreement"),
}


def _betas_map(trained_with: dict, body: BodyModel) -> tuple[np.ndarray, np.ndarray]:
    """Carry betas to a body that the checkpoint was not trained with; zeros, and one warning, where that fails."""
    if body.sha256 == trained_with["sha256"]:
        return np.eye(10, dtype=np.float32), np.zeros(10, np.float32)
    source = BodyModel.load(None)
    if source.sha256 == trained_with["sha256"]:
        try:
            return fit_betas_map(source, body)
        except (ValueError, np.linalg.LinAlgError) as error:
            logger.warning("no map of shapes from %s to %s (%s): betas are zero", source.name, body.name, error)
    else:
        logger.warning(
            "the checkpoint was trained with body %s (%s), which is not here: betas of %s are zero",
            trained_with["name"], trained_with["sha256"][:8], body.name,
        )  # fmt: skip
    return np.zeros((10, 10), np.float32), np.zeros(10, np.float32)


def check_input(
    image: np.ndarray, depth: np.ndarray | None, intrinsics: Intrinsics | Camera | None, stature: float | None = None
) -> Camera | None:
    """The camera of the intrinsics; ValueError, with what was found and what was expected, for anything that is no input of the
    estimator."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}"
        raise ValueError(f"image is {found}, expected uint8 (height, width, 3) in BGR order")
    if image.size == 0:
        raise ValueError(f"image is empty: shape {image.shape}; expected at least one pixel")
    if depth is not None:
        if np.shape(depth) != image.shape[:2]:
            raise ValueError(f"depth has shape {np.shape(depth)}, expected {image.shape[:2]}: align it with the image first")
        if not np.issubdtype(np.asarray(depth).dtype, np.floating):
            raise ValueError(f"depth is {np.asarray(depth).dtype}, expected floats in metres: divide millimetres by 1000")
    if stature is not None and not 0.5 <= stature <= 2.5:
        raise ValueError(f"stature is {stature}, expected metres between 0.5 and 2.5")
    return as_camera(intrinsics)
