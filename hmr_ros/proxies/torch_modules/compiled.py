"""The detectors' torch modules, compiled: with which examples and options, in one place for the extractors and for `hmr-ros export`, whose
engines are found again only where these are the same."""

from __future__ import annotations

from importlib.resources import files

import cv2
import numpy as np
import torch
from torch import Tensor

from hmr_ros.proxies.torch_modules.blazepose import BlazePoseNet
from hmr_ros.proxies.torch_modules.movenet import MoveNetMultiPose, MoveNetTrunk
from hmr_ros.runtime import MAX_BATCH, CompiledModel, compile, cpu_is_faster_in_bf16

MOVENET_SIDES = 256, 384, 512  # px of the letterboxed image, one for each kind of pass
_ROIS = ((230.0, 300.0, 900.0), (240.0, 250.0, 700.0))  # of the portrait: centre and side, px


def detector_precision(precision: str) -> str:
    """What the detectors run in where the regressor runs in ``precision``: the same of "auto" and "fp16", else "fp32". torch's
    bf16 has 8 significant bits: in it landmarks are off by pixels."""
    return precision if precision in ("auto", "fp16") else "fp32"


def file_precision(precision: str) -> str:
    """What OpenVINO runs the model files in: bf16 for "auto" where the CPU is faster in it, and for "bf16", else fp32. Unlike torch's, OpenVINO's bf16
    sums in float32 and leaves the landmarks where they are (docs/gpu.md has the figures)."""
    return "bf16" if precision == "bf16" or (precision == "auto" and cpu_is_faster_in_bf16()) else "fp32"


def example_rois() -> Tensor:
    """(2, 256, 256, 3) RGB, 0..1: two views of a real person. On noise, where there is nobody, rounding to fp16 moves landmarks by pixels."""
    picture, views = _portrait(), []
    for x, y, side in _ROIS:
        k = side / 256
        to_image = np.array([[k, 0, x - side / 2], [0, k, y - side / 2]])
        views.append(cv2.warpAffine(picture, to_image, (256, 256), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
    return torch.from_numpy(np.stack(views).astype(np.float32) / 255)


def example_image(side: int) -> Tensor:
    """(1, side, side, 3) RGB, 0..255: a portrait."""
    return torch.from_numpy(cv2.resize(_portrait(), (side, side), interpolation=cv2.INTER_AREA).astype(np.float32))[None]


def _portrait() -> np.ndarray:
    data = np.frombuffer((files("hmr_ros") / "assets" / "demo" / "astronaut.jpg").read_bytes(), np.uint8)
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def movenet_trunk() -> MoveNetTrunk:
    """Without the decoding, which stays in torch and in single precision: places are not to be rounded."""
    return MoveNetMultiPose.load().trunk


def compile_movenet(side: int, backend: str, threads: int | None = None, precision: str = "fp32") -> CompiledModel:
    """The trunk for one image of side x side."""
    options = {"threads": threads, "precision": detector_precision(precision), "max_batch": 1}
    return compile(movenet_trunk(), example_image(side), backend=backend, **options)


def compile_blazepose(backend: str, threads: int | None = None, precision: str = "fp32", max_people: int = MAX_BATCH) -> CompiledModel:
    """The whole network for any number of RoIs; ``max_people``: in one call of a TensorRT engine."""
    options = {"threads": threads, "precision": detector_precision(precision), "max_batch": max_people}
    return compile(BlazePoseNet.load(), example_rois(), backend=backend, **options)
