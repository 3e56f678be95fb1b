"""BlazePose (full): an RoI of the image → 33 landmarks, world landmarks, a mask, and the features that the lifter reads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from importlib.resources import files

import cv2
import numpy as np

from hmr_ros.geometry import rotation_about_z
from hmr_ros.proxies.crops import roi_of
from hmr_ros.proxies.person import FEATURE_MAP, BlazePoseRecord
from hmr_ros.proxies.torch_modules import compile_blazepose, file_precision, run_as_files
from hmr_ros.runtime import MAX_BATCH, compile
from hmr_ros.skeleton import COCO_FROM_BLAZEPOSE

BLAZEPOSE_FILES = ("pose_landmark_full.tflite",)
SIDE = 256  # px of the RoI as the network gets it
_HEAD = "model_1/model/convworld_3d/Conv2D_dequantize"  # weight of its last layer, which reads the embedding
_HEATMAPS = "Identity_3"  # an output that nobody reads
_MIDDLE = "model_1/model/conv2d_22/Conv2D_dequantize"  # weight of the layer after its last 16 x 16 block, which reads the feature map


@dataclass(frozen=True, eq=False)
class BlazePoseOutput:
    """Of one RoI."""

    landmarks: np.ndarray  # (33, 4) x, y px in the image, visibility, presence
    world: np.ndarray  # (33, 3) metres, camera axes
    presence: float  # that there is a person at all
    mask: np.ndarray  # (SIDE, SIDE) probability, in the RoI's pixels
    to_image: np.ndarray  # (2, 3) from the RoI's pixels to the image's
    angle: float  # of the RoI, radians
    embedding: np.ndarray  # (EMBEDDING_COUNT,)
    feature_map: np.ndarray  # FEATURE_MAP

    @property
    def joints(self) -> np.ndarray:
        """(17, 3) COCO: x, y px, confidence."""
        chosen = self.landmarks[list(COCO_FROM_BLAZEPOSE)]
        return np.concatenate([chosen[:, :2], chosen[:, 2:].prod(1, keepdims=True)], axis=1)

    def doubted(self, factor: float) -> BlazePoseOutput:
        """With visibility and presence times ``factor``: the landmarks are not to be relied on."""
        return replace(self, landmarks=self.landmarks * np.array([1, 1, factor, factor], np.float32))

    def record(self, agreed: bool = True) -> BlazePoseRecord:
        """For the proxies."""
        return BlazePoseRecord(
            landmarks=self.landmarks,
            world=self.world,
            roi=roi_of(self.to_image, SIDE, self.angle),
            embedding=self.embedding,
            feature_map=self.feature_map,
            agreed=agreed,
        )


class BlazePose:
    """The landmark network; stateless. RuntimeError where the runtime gives its features in another form.

    ``backend``: "openvino", and "auto" without a GPU, run the model file, every other one the torch module that equals it, in ``precision`` and for
    ``max_people`` (torch_modules/compiled.py).
    """

    def __init__(self, threads: int | None = None, backend: str = "auto", precision: str = "fp32", max_people: int = MAX_BATCH):
        if run_as_files(backend):
            file, options = files("hmr_ros") / "assets" / BLAZEPOSE_FILES[0], {"threads": threads, "precision": file_precision(precision)}
            self._network = compile(file, expose=(_HEAD, _MIDDLE), leave_out=(_HEATMAPS,), **options)
        else:
            self._network = compile_blazepose(backend, threads, precision, max_people)
        self.backend = self._network.backend
        self._of_thread = threading.local()  # large arrays are kept: the system would hand out and take back their memory in every frame

    def __call__(self, image: np.ndarray, to_image: np.ndarray, angle: float, flip: bool = False) -> BlazePoseOutput:
        """image uint8 (H, W, 3) BGR; ``to_image`` (2, 3) and ``angle`` of the RoI (crops.upright_roi).

        ``flip``: the RoI is flipped before. Landmarks stand in the image's pixels all the same, world and mask are those of the
        flipped RoI.
        """
        roi = self._warped(image, to_image)
        if flip:
            roi, angle = cv2.flip(roi, 1), -angle
        outputs = self._network(self._in_unit(cv2.cvtColor(roi, cv2.COLOR_BGRA2RGB)))
        shapes, expected = [output.shape for output in outputs[-2:]], [(1, 288, 2, 2), (1, *FEATURE_MAP)]
        if shapes != expected:
            raise RuntimeError(
                f"{self.backend} gives BlazePose's embedding and feature map as {shapes}, expected {expected}, the order of "
                "channels that checkpoints were trained with; install another version of openvino (constraints.txt names one)"
            )
        raw, presence, mask_logits, *_, world, embedding = (output.reshape(-1) for output in outputs[:-1])
        raw, world = raw.reshape(39, 5)[:33], world.reshape(39, 3)[:33]
        if flip:
            raw[:, 0] = SIDE - 1 - raw[:, 0]
        xy = raw[:, :2] @ to_image[:, :2].T + to_image[:, 2]
        return BlazePoseOutput(
            landmarks=np.concatenate([xy, _sigmoid(raw[:, 3:])], axis=1).astype(np.float32),
            world=(world @ rotation_about_z(angle).T).astype(np.float32),
            presence=float(presence[0]),
            mask=_sigmoid(mask_logits.reshape(SIDE, SIDE)),
            to_image=to_image,
            angle=angle,
            embedding=embedding,
            feature_map=outputs[-1][0],
        )

    def _warped(self, image: np.ndarray, to_image: np.ndarray) -> np.ndarray:
        """The RoI (SIDE, SIDE, 4) BGRA: OpenCV warps four channels in less than half the time of three, to the same values."""
        kept = self._of_thread
        kept.image = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA, dst=getattr(kept, "image", None))
        return cv2.warpAffine(kept.image, to_image, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    def _in_unit(self, rgb: np.ndarray) -> np.ndarray:
        """8-bit values (SIDE, SIDE, 3) → [0, 1], (1, SIDE, SIDE, 3); the next call writes into the same memory."""
        kept = self._of_thread
        if not hasattr(kept, "input"):
            kept.input = np.empty((1, SIDE, SIDE, 3), np.float32)
        return np.divide(rgb, np.float32(255), out=kept.input[0])[None]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))
