"""Depth of a person by Depth Anything V2 (Yang et al. 2024), through `transformers`; the user brings the weights.

The network sees the square crop of one person, at its own training resolution. Its metric variant predicts metres. The relative one
predicts disparity, an unknown multiple of 1 / depth plus an unknown constant: both are fitted to a coarse depth, or, without one, the
constant is taken for 0 and the hips stand at 4 m, so that depth is known up to scale.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from hmr_ros.geometry import crop_matrix
from hmr_ros.proxies.depth import RELATIVE_ORIGIN
from hmr_ros.runtime import compile

WEIGHTS = "model.safetensors"
_MEAN, _STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])  # of ImageNet's RGB in [0, 1]
_ENOUGH = 50  # pixels that scale and shift are fitted to
_FARTHEST = 20.0  # metres: disparity that comes out smaller, or negative, is no farther
_ROUNDS = 5  # of reweighting
_EXPECTED = "a folder of Depth Anything V2 with config.json and model.safetensors (Depth-Anything-V2-Small-hf or a metric one)"


class DepthAnything:
    """Image and crop → what the network predicts there; safe to share between threads.

    ``relative``: it predicts disparity, larger is nearer; else metres.
    """

    def __init__(self, folder: Path, backend: str = "auto", threads: int | None = None):
        """``folder`` as :func:`find_network` gives it. ValueError where it holds another network, or not all of its weights."""
        self.network, config = _load(folder)
        self.relative = config.depth_estimation_type == "relative"
        self.side = config.backbone_config.image_size
        self._compiled = compile(
            self.network, torch.rand(1, 3, self.side, self.side), backend=backend, threads=threads, name="DepthAnything"
        )  # fmt: skip
        self.backend = self._compiled.backend

    def __call__(self, image: np.ndarray, crop: np.ndarray, size: int) -> np.ndarray:
        """Of the crop (3,) cu, cv, size px of an image uint8 (H, W, 3) BGR: (size, size) disparity, or metres.

        Metres are those of the whole image: a network takes a person who fills its input for one who is near, as if the crop were
        taken from nearer and not enlarged (Yin et al. 2023, Metric3D).
        """
        to_input = crop_matrix(crop, self.side)
        flags = cv2.INTER_AREA if to_input[0, 0] < 1 else cv2.INTER_LINEAR
        part = cv2.warpAffine(image, to_input, (self.side, self.side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        pixels = (part[..., ::-1].astype(np.float32) / 255 - _MEAN) / _STD
        (predicted,) = self._compiled(pixels.transpose(2, 0, 1)[None])
        predicted = cv2.resize(predicted[0], (size, size), interpolation=cv2.INTER_LINEAR)
        return predicted if self.relative else predicted * (max(image.shape[:2]) / float(crop[2]))


def find_network(name: str | Path) -> Path:
    """The folder of that path, or of that name (owner/model) in Hugging Face's cache on this machine; nothing is downloaded.

    Raises FileNotFoundError that says what to bring, ValueError where `transformers` is missing.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        _transformers()
        from transformers.utils import cached_file

        try:
            folder = Path(cached_file(str(name), WEIGHTS, local_files_only=True)).parent
        except Exception as error:  # names that cannot be one, and those that are not in the cache
            raise FileNotFoundError(f"depth_network {name} is no folder and not in Hugging Face's cache; expected {_EXPECTED}") from error
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"depth_network {folder} holds no {WEIGHTS}; expected {_EXPECTED}")
    return folder


def fitted(disparity: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Disparity (S, S) as depth, metres, with the scale and shift that bring it to ``reference`` (S, S; 0 = unknown) inside ``mask``.

    Least squares on 1 / depth, reweighted (Geman-McClure), because the reference is coarse and may be wrong in a limb. 0 outside the
    mask. None where the two do not grow together, or have too few pixels in common.
    """
    inside = mask > 0.5
    common = inside & (reference > 0) & np.isfinite(disparity)
    if common.sum() < _ENOUGH:
        return None
    x, y = disparity[common].astype(np.float64), 1 / reference[common].astype(np.float64)
    weight, scale, shift = np.ones_like(x), 0.0, 0.0
    for _ in range(_ROUNDS):
        mean_x, mean_y = np.average(x, weights=weight), np.average(y, weights=weight)
        variance = np.average((x - mean_x) ** 2, weights=weight)
        scale = np.average((x - mean_x) * (y - mean_y), weights=weight) / max(variance, 1e-12)
        shift = mean_y - scale * mean_x
        error = (y - scale * x - shift) ** 2
        weight = 1 / (1 + error / max(np.median(error), 1e-12)) ** 2
    if not (np.isfinite(scale) and scale > 0):
        return None
    inverse = scale * np.where(np.isfinite(disparity), disparity, 0) + shift
    return np.where(inside, 1 / np.maximum(inverse, 1 / _FARTHEST), 0).astype(np.float32)


def up_to_scale(disparity: np.ndarray, hips: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Disparity (S, S) as depth with ``hips`` (H, 2), pixels of the map, at 4 m; the median of the mask where there are none.

    0 outside the mask and where there is no disparity.
    """
    inside = (mask > 0.5) & np.isfinite(disparity) & (disparity > 0)
    if not inside.any():
        return np.zeros(disparity.shape, np.float32)
    column, row = np.rint(hips).astype(int).reshape(-1, 2).T
    known = (column >= 0) & (column < inside.shape[1]) & (row >= 0) & (row < inside.shape[0])
    known[known] = inside[row[known], column[known]]
    near = disparity[row[known], column[known]] if known.any() else disparity[inside]
    depth = RELATIVE_ORIGIN * float(np.median(near)) / np.where(inside, disparity, 1)
    return np.where(inside, np.minimum(depth, _FARTHEST), 0).astype(np.float32)


class PredictedDepth(nn.Module):
    """Depth Anything with one output: images (B, 3, side, side), normalised → (B, side, side)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(pixel_values=image).predicted_depth


def _load(folder: Path):
    _transformers()
    from transformers import DepthAnythingForDepthEstimation
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, report = DepthAnythingForDepthEstimation.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
        )  # fmt: skip
    except Exception as error:  # of json, safetensors and transformers, each its own
        raise ValueError(f"depth_network {folder} cannot be loaded ({str(error).splitlines()[0]}); expected {_EXPECTED}") from error
    lacking = sorted(map(str, [*report["missing_keys"], *report.get("mismatched_keys", ())]))
    if lacking:
        raise ValueError(f"depth_network {folder} lacks {len(lacking)} weights, the first is {lacking[0]}; expected {_EXPECTED}")
    return PredictedDepth(model.eval().requires_grad_(False)), model.config


def _transformers() -> None:
    from importlib.util import find_spec

    if find_spec("transformers") is None:
        raise ValueError("depth_network needs the package transformers, which is not installed: pip install 'hmr_ros[paper]', or transformers")
