"""HumanMeshEstimator: image → one BodyEstimate a person, the whole pipeline on one page.

    people = extractor(image, depth)                 proxies: keypoints, mask, depth, BlazePose's record
    parameters = regress(people)                     rotations, betas, weak-perspective camera, reliability; flip-averaged, if asked
    parameters = refine(people, parameters)          the pose bent towards the confident keypoints
    bodies = bodies(people, parameters, camera)      into the camera's frame where intrinsics are known (metric.py), the mesh, and whether it lies
                                                     on the keypoints (judgement.py)

Each step is a method of its own. What links frames (stream.py) works on the proxies before the first, or on the parameters before the
last. It knows nothing of ROS, files or drawing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.body.posed_kernel import Skeleton
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.body.skinning_kernel import Skinning
from hmr_ros.camera import Camera
from hmr_ros.estimate import Bodies, BodyEstimate, TranslationSource
from hmr_ros.geometry import Intrinsics, rotvec_from_matrix, to_crop
from hmr_ros.inputs import check_input
from hmr_ros.judgement import limb_distances, mesh_misses, reliability
from hmr_ros.metric import MetricFrame
from hmr_ros.networks.checkpoints import load_regressor
from hmr_ros.networks.regressor import BodyParameters, Regressor
from hmr_ros.proxies import PersonProxies, ProxyExtractor
from hmr_ros.proxies.paper.config import ProxyFiles
from hmr_ros.proxies.registry import make_extractor
from hmr_ros.proxies.torch_modules import run_as_files
from hmr_ros.refinement import Refiner
from hmr_ros.runtime import MAX_BATCH, CompiledModel, compile
from hmr_ros.smoothing import Smoother, smooth_poses, steady_shapes
from hmr_ros.stream import Stream, StreamConfig
from hmr_ros.uncertainty import position_covariance

logger = logging.getLogger(__name__)


class HumanMeshEstimator:
    """Estimates the SMPL-style body of everybody in an image. Stateless and safe to share between threads.

    ``backend`` names what runs the networks; ``reliability_source`` says what ``reliability`` means (msg/BodyArray.msg); ``body_model``
    gives faces, name and hash.
    """

    def __init__(self, extractor: ProxyExtractor, regressor: Regressor, body_model: BodyModel, body: CompiledModel | None = None):
        """``body`` is the compiled ``body_model``, whose parameters ``regressor`` gives; None: a kernel poses it, for models without pose blend
        shapes.

        Raises ValueError where the regressor requires proxies that the extractor does not give.
        """
        missing = regressor.requires - extractor.provides
        if missing:
            raise ValueError(
                f"the regressor {regressor.name} requires {', '.join(sorted(missing))} of everybody, but {type(extractor).__name__} gives "
                f"{', '.join(sorted(extractor.provides)) or 'the core of PersonProxies only'}: take the extractor embedded, or the "
                "regressor resnet18, which reads keypoints and depth alone"
            )
        self.extractor, self.regressor, self.body_model = extractor, regressor, body_model
        self.reliability_source = regressor.reliability_source
        self.backend = f"regressor: {regressor.backend}; detectors: {extractor.backend}"
        self._refine = Refiner(PosedKeypoints(body_model))
        skeleton = Skeleton(self._refine.skeleton)
        self._body = body or Skinning(body_model, skeleton)
        self.placing = MetricFrame(skeleton, body_model, self._body)

    @classmethod
    def from_default(
        cls,
        backend: str = "auto",
        body_model: str | Path | None = None,
        checkpoint: str | Path | None = None,
        threads: int | None = None,
        flip_averaging: bool = False,
        regressor: str | None = "auto",
        extractor: str = "embedded",
        proxy_files: ProxyFiles = ProxyFiles(),
        precision: str = "auto",
        max_people: int = MAX_BATCH,
    ) -> HumanMeshEstimator:
        """Load detectors and checkpoint, by default the embedded ones.

        backend: "auto" (TensorRT where it is there, else torch on a GPU, else OpenVINO, else torch), "tensorrt", "openvino" or "torch"; an
        explicit one never falls back. It runs the regressor, the embedded detectors and the body, which on a CPU, without pose blend shapes, is
        a kernel's. precision: "auto" (fp16 on a GPU; else fp32, and detectors and lifter bf16 where the CPU is faster in it), "fp32", "fp16" or "bf16"
        (runtime.compile); docs/gpu.md says what the detectors run in. max_people: rows of the largest TensorRT engine.
        body_model: SMPL's .pkl or .npz instead of the embedded body. checkpoint: written by ``hmr-ros train``. regressor: "lifter"
        (trained with rendered people's truth), or "resnet18", the paper's, trained without labels, whose reliability ("agreement") says
        how far the proxies agree and is no probability; "auto" (or None): what the checkpoint holds, without one the lifter.
        flip_averaging: flip test-time augmentation, at one more BlazePose pass a person. extractor: a name of proxies/registry.py;
        proxy_files: what it reads of the user's (weights of the extractor "paper").
        Raises FileNotFoundError or ValueError that name what is wrong with a file, a name or a backend.
        """
        body_model = BodyModel.load(body_model)
        options = {"backend": backend, "threads": threads, "precision": precision, "max_batch": max_people}
        regressor = load_regressor(regressor, checkpoint, body_model=body_model, **options)
        body = None  # where the CPU runs the rest, too
        if body_model.has_pose_blendshapes or not run_as_files(backend):
            rest_pose = (torch.eye(3).repeat(1, 24, 1, 1), torch.zeros(1, 10))
            body = compile(body_model, rest_pose, **options)
        proxies = make_extractor(extractor, threads, flip_averaging, regressor.depth_size, proxy_files, backend, precision, max_people)
        estimator = cls(proxies, regressor, body_model, body)
        logger.info("body model %s; %s", body_model.name, estimator.backend)
        return estimator

    def __call__(
        self, image: np.ndarray, depth: np.ndarray | None = None, intrinsics: Intrinsics | Camera | None = None, stature: float | None = None
    ) -> Bodies:
        """Everybody in one image, best score first, and who is detected but has no body.

        image: uint8 (H, W, 3) BGR. depth: optional (H, W) metres aligned with the image, 0 or non-finite = unknown; it gives distance
        and stature. intrinsics: of this image, a ``Camera`` where the lens distorts it; without them bodies stand in ray axes and
        ``translation`` is None. stature: metres, where the people's is known. Raises ValueError on other input.
        """
        camera = check_input(image, depth, intrinsics, stature)
        people = self.extractor(image, depth)
        return self.estimate(people, camera, depth, None if stature is None else np.full(len(people), stature))

    def stream(self, config: StreamConfig = StreamConfig()) -> Stream:
        """An estimator with memory, for the frames of one video or camera: identities, smoothed bodies."""
        return Stream(self, config)

    # ---- the steps ---------------------------------------------------------------------------------------------------

    def estimate(
        self, people: list[PersonProxies], camera: Camera | None = None, depth: np.ndarray | None = None, statures: np.ndarray | None = None,
        smoothers: Sequence[Smoother] | None = None,
    ) -> Bodies:
        """Bodies of people whose proxies are known. ``statures`` (N,) metres, NaN where unknown. ``smoothers``: their memories (smoothing.py).

        Left out and counted, because no mesh is better than a wrong one, are those with too few confident keypoints, and those whose
        mesh does not come to lie on them.
        """
        statures = np.full(len(people), np.nan) if statures is None else statures
        rows, parameters = self.regress(people)
        enough = sum(person.torso_is_seen for person in people)
        without = {"too_few_joints": len(people) - enough, "not_finite": enough - len(rows)}
        if not len(rows):
            return Bodies(**without)
        people = [people[row] for row in rows]
        smoothers = None if smoothers is None else [smoothers[row] for row in rows]
        if smoothers is None:
            parameters = self.refine(people, parameters)
        else:
            parameters = self.refine(people, steady_shapes(smoothers, parameters))
            parameters = smooth_poses(smoothers, parameters, np.stack([person.crop for person in people]), camera)
        bodies = self.bodies(people, parameters, camera, depth, statures[rows], smoothers)
        return Bodies(bodies, **without, mesh_misses=bodies.mesh_misses)

    def regress(self, people: list[PersonProxies]) -> tuple[np.ndarray, BodyParameters | None]:
        """Which of the people (M,) get parameters, and those, of M people; None for nobody. Without are those of whom too little is
        seen, and those for whom the network's output is not finite, which is logged."""
        rows = np.flatnonzero([person.torso_is_seen for person in people])
        if not len(rows):
            return rows, None
        parameters = self.regressor([people[row] for row in rows])
        finite = parameters.finite()
        if not finite.all():
            logger.error("%d of %d bodies came out of %s with non-finite numbers and are left out",
                         (~finite).sum(), len(rows), self.regressor.backend)  # fmt: skip
        return rows[finite], parameters.rows(finite)

    def refine(self, people: list[PersonProxies], parameters: BodyParameters) -> BodyParameters:
        """Poses bent towards the confident keypoints, cameras fitted to them, where the parameters are (refinement/); numpy from here on."""
        targets = to_crop(np.stack([person.keypoints[:, :2] for person in people]), np.stack([person.crop for person in people]))
        confidence = np.stack([person.confidence for person in people])
        if isinstance(parameters.rotations, torch.Tensor):
            targets, confidence = (torch.from_numpy(values).to(parameters.rotations.device) for values in (targets, confidence))
        rotations, cameras = self._refine(parameters.rotations, parameters.betas, parameters.weak_camera, targets, confidence)
        return parameters._replace(rotations=rotations, weak_camera=cameras).numpy()

    def bodies(
        self, people: list[PersonProxies], parameters: BodyParameters, camera: Camera | None, depth: np.ndarray | None, statures: np.ndarray,
        smoothers: Sequence[Smoother] | None = None,
    ) -> Bodies:
        """Into the camera's frame, where there is a camera, and the mesh; without those whose mesh misses the detected keypoints, who are
        counted; joints far from theirs are less reliable (judgement.py)."""
        rotations, betas, cameras, regressed = parameters
        placed = None
        if camera is not None:
            keypoints, crops = np.stack([person.keypoints[:, :2] for person in people]), np.stack([person.crop for person in people])
            confidence = np.stack([person.confidence for person in people])
            placed = self.placing(rotations, betas, cameras, keypoints, confidence, crops, camera, depth, statures)
            if smoothers is not None:
                placed = placed._replace(pelvis=np.stack([one.place(pelvis) for one, pelvis in zip(smoothers, placed.pelvis)]))
            rotations, betas, cameras = placed.rotations, placed.betas, placed.weak_cameras
        vertices, joints, keypoints = self._body(rotations, betas)
        rotvecs = rotvec_from_matrix(rotations)
        bodies = []
        for i, person in enumerate(people):
            translation = None if placed is None else placed.pelvis[i] - joints[i, 0]
            body = BodyEstimate(
                score=min(max(float(person.score), 0.0), 1.0),
                box=person.box,
                keypoints=person.keypoints,
                reliability=regressed[i],
                global_orient=rotvecs[i, 0],
                body_pose=rotvecs[i, 1:].reshape(69),
                betas=betas[i],
                crop=person.crop,
                weak_camera=cameras[i],
                translation=translation,
                joints=joints[i],
                vertices=vertices[i],
                projected_keypoints=np.zeros((17, 2), np.float32),
                axes="ray" if placed is None else "camera",
                translation_source=None if placed is None else _translation_source(placed.from_depth[i], statures[i]),
                measured_stature=float(placed.stature[i]) if placed is not None and placed.from_depth[i] else None,
                camera=camera,
                confident=person.confident,
                **({} if smoothers is None else _followed(smoothers[i], translation, joints[i])),
            )
            body = replace(body, projected_keypoints=body.pixels(keypoints[i]))
            if not mesh_misses(body):
                body = replace(body, reliability=reliability(regressed[i], limb_distances(body)))
                bodies.append(body if placed is None else replace(body, position_covariance=position_covariance(body)))
        return Bodies(bodies, mesh_misses=len(people) - len(bodies))


def _translation_source(from_depth: bool, stature: float) -> TranslationSource:
    """``stature``: metres, NaN where it is not known."""
    return "depth" if from_depth else "known stature" if np.isfinite(stature) else "apparent size"


def _followed(smoother: Smoother, translation: np.ndarray | None, joints: np.ndarray) -> dict:
    """Whose body it is, and the velocities of position and joints, where the position is known."""
    if translation is None:
        return {"id": smoother.id}
    velocities = smoother.velocities(np.concatenate([np.zeros((1, 3), np.float32), joints]) + translation)
    return {"id": smoother.id} | ({} if velocities is None else {"velocity": velocities[0], "joint_velocities": velocities[1:]})
