"""Keypoint R-CNN as the paper uses it: image → people with COCO-17 keypoints.

The networks (network.py) are compiled, one for each size of input; what lies between them (roi.py) stays in torch. Its numbers are
torchvision's own, as a test says. Its weights are brought by the user.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hmr_ros.geometry import crop_matrix
from hmr_ros.proxies.movenet import Detection
from hmr_ros.proxies.paper import roi
from hmr_ros.proxies.paper.config import PaperConfig
from hmr_ros.proxies.paper.network import BOX_SIDE, CHANNELS, KEYPOINT_SIDE, BoxHead, Features, KeypointHead, Pyramid, load_network
from hmr_ros.runtime import CompiledModel, compile

COCO_V1 = "keypointrcnn_resnet50_fpn_coco-fc266e95.pth"  # torchvision's name of the file
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB in [0, 1]
_STRIDE = 32  # inputs are padded to multiples
_MOST_SIZES = 8  # of inputs whose networks are kept
_BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the box head's deltas


def find_weights(path: Path | None = None) -> Path:
    """``path``, or torchvision's file in torch.hub's cache. FileNotFoundError that says how to get it; nothing is downloaded."""
    if path is not None:
        return path
    cached = Path(torch.hub.get_dir()) / "checkpoints" / COCO_V1
    if not cached.is_file():
        raise FileNotFoundError(
            f"Keypoint R-CNN's weights {COCO_V1} are not in {cached.parent}, and keypoint_rcnn names no file; where torchvision is "
            'installed: python -c "from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights as w; '
            'w.COCO_V1.get_state_dict()", or bring the file and name it (--keypoint-rcnn FILE)'
        )
    return cached


class KeypointRCNN:
    """Detects people; safe to share between threads."""

    def __init__(
        self, weights: Path, sha256: str = "", backend: str = "auto", threads: int | None = None, config: PaperConfig = PaperConfig()
    ):
        self.config = config
        self._network, self._options = load_network(weights, sha256), {"backend": backend, "threads": threads}
        self._box_head = compile(BoxHead(self._network), torch.zeros(2, CHANNELS, BOX_SIDE, BOX_SIDE), **self._options)
        self._keypoint_head = compile(KeypointHead(self._network), torch.zeros(2, CHANNELS, KEYPOINT_SIDE, KEYPOINT_SIDE), **self._options)
        self._features: OrderedDict[tuple[int, int], CompiledModel] = OrderedDict()
        self._lock = threading.Lock()
        self.backend = self._features_of(config.window_side, config.window_side).backend

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """People in an image uint8 (H, W, 3) BGR, best first, each once."""
        height, width = image.shape[:2]
        config = self.config
        scale = min(config.short_side / min(height, width), config.long_side / max(height, width))
        seen = F.interpolate(_normalised(image), size=(int(height * scale), int(width * scale)), mode="bilinear", align_corners=False)
        boxes, scores, places, logits = self.detect(seen)
        stretch = torch.tensor([width / seen.shape[3], height / seen.shape[2]])
        return self._people(boxes * stretch.repeat(2), scores, places * stretch, logits)

    def in_window(self, image: np.ndarray, window: np.ndarray) -> list[Detection]:
        """People in a square window (3,) cu, cv, size px of the image, which may reach beyond it."""
        import cv2

        side = self.config.window_side
        part = cv2.warpAffine(image, crop_matrix(window, side), (side, side), flags=cv2.INTER_AREA)
        boxes, scores, places, logits = self.detect(_normalised(part))
        scale, corner = float(window[2]) / side, torch.from_numpy(window[:2] - window[2] / 2 + 0.5)
        return self._people(boxes * scale + corner.repeat(2), scores, places * scale + corner, logits)

    @torch.inference_mode()
    def detect(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalised image (1, 3, H, W) → boxes (N, 4) px, scores (N,), keypoints' places (N, 17, 2) px and logits (N, 17), best first,
        as torchvision's model gives them; pixels are the input's, whose left edge is 0."""
        height, width = image.shape[2:]
        padded = F.pad(image, (0, -width % _STRIDE, 0, -height % _STRIDE))
        outputs = self._features_of(*padded.shape[2:])(padded.numpy())
        seen = Pyramid(*(torch.from_numpy(output)[0] for output in outputs))
        levels = seen[:4]
        proposals = self._proposals(seen, padded.shape[2:], height, width)
        logits, deltas = self._run(self._box_head, roi.pooled(levels, proposals, BOX_SIDE))
        scores = logits.softmax(1)[:, 1]
        boxes = roi.clipped(roi.moved(proposals, deltas, _BOX_WEIGHTS), height, width)
        good = (scores > self.config.min_score) & roi.large_enough(boxes, 1e-2)
        boxes, scores = boxes[good], scores[good]
        best = roi.suppressed(boxes, scores, self.config.detection_overlap)[: self.config.most]
        boxes, scores = boxes[best], scores[best]
        if not len(boxes):
            return boxes, scores, boxes.new_zeros(0, 17, 2), boxes.new_zeros(0, 17)
        (heatmaps,) = self._run(self._keypoint_head, roi.pooled(levels, boxes, KEYPOINT_SIDE))
        return boxes, scores, *roi.keypoints_of(heatmaps, boxes)

    def _proposals(self, seen: Pyramid, padded: tuple[int, int], height: int, width: int) -> Tensor:
        """Boxes (P, 4) that may hold a person, best first: the best of each level, suppressed by themselves."""
        boxes, counts = roi.anchors(*padded)
        found, scores = [], []
        for anchors, logits, deltas in zip(*(values.split(counts) for values in (boxes, seen.objectness, seen.deltas))):
            best = logits.topk(min(self.config.proposals, len(logits))).indices
            level, score = roi.clipped(roi.moved(anchors[best], deltas[best]), height, width), logits[best].sigmoid()
            large = roi.large_enough(level, 1e-3)
            level, score = level[large], score[large]
            kept = roi.suppressed(level, score, self.config.proposal_overlap)
            found.append(level[kept])
            scores.append(score[kept])
        order = torch.cat(scores).argsort(descending=True, stable=True)[: self.config.proposals]
        return torch.cat(found)[order]

    def _features_of(self, height: int, width: int) -> CompiledModel:
        with self._lock:
            size = height, width = height + -height % _STRIDE, width + -width % _STRIDE
            if size not in self._features:
                self._features[size] = compile(Features(self._network), torch.zeros(1, 3, height, width), **self._options)
                if len(self._features) > _MOST_SIZES:
                    self._features.popitem(last=False)
            self._features.move_to_end(size)
            return self._features[size]

    def _run(self, network: CompiledModel, rois: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in network(rois.numpy())]

    def _people(self, boxes: Tensor, scores: Tensor, places: Tensor, logits: Tensor) -> list[Detection]:
        confidence = ((logits - self.config.logit_middle) / self.config.logit_spread).sigmoid()
        keypoints = torch.cat([places - 0.5, confidence[..., None]], dim=2).numpy()  # here pixels' centres are integers
        sides = boxes[:, 2:] - boxes[:, :2]
        people = (sides >= self.config.min_side).all(1)
        return [Detection(float(scores[i]), boxes[i].numpy() - 0.5, keypoints[i]) for i in people.nonzero()[:, 0].tolist()]


def _normalised(image: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) BGR → (1, 3, H, W) as the networks get it."""
    rgb = torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)[None].float() / 255
    return (rgb - rgb.new_tensor(_MEAN)[:, None, None]) / rgb.new_tensor(_STD)[:, None, None]
