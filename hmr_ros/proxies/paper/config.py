"""Files that the user brings, and every threshold of the paper's proxies: meaning, unit, source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hmr_ros.proxies.config import EmbeddedConfig


@dataclass(frozen=True)
class ProxyFiles:
    """What the user brings for `extractor: paper`, and depth maps for either extractor. Nothing is ever downloaded."""

    keypoint_rcnn: Path | None = None
    """Weights of torchvision's keypointrcnn_resnet50_fpn (.pth); without it those in torch.hub's cache."""
    depth_network: Path | None = None
    """Folder of Depth Anything V2 as Hugging Face has it (config.json, model.safetensors); without it the coarse depth of BlazePose."""
    depth_maps: Path | None = None
    """Folder of depth maps made beforehand, as HDNet writes them, one a picture: NAME.txt or NAME.npy, aligned with the picture."""


@dataclass(frozen=True)
class PaperConfig(EmbeddedConfig):
    """Crops, RoIs, BlazePose's thresholds and duplicates are as in the embedded extractor; here is what Keypoint R-CNN adds.

    Sources: [torchvision] its defaults; [Detectron] the threshold of its pictures; [open] chosen here, on no data.
    """

    # the detector
    short_side: int = 800  # px: the image is resized to it [torchvision]
    long_side: int = 1333  # px: unless the longer side would be longer [torchvision]
    window_side: int = 320  # px: of the square around a known person in which he is found again [open]
    proposals: int = 1000  # a level before suppression, and in all after it [torchvision]
    proposal_overlap: float = 0.7  # IoU of two proposals above which the worse one is dropped [torchvision]
    detection_overlap: float = 0.5  # IoU of two detections, the same [torchvision]
    most: int = 100  # detections an image [torchvision]
    min_score: float = 0.7  # of a person; torchvision itself gives everybody above 0.05 [open]

    # keypoints: confidence = sigmoid((logit - middle) / spread). Not calibrated: the COCO weights could not be had where this was written.
    # A logistic regression of "within 10 % of the person's diagonal" on the logits of labelled people gives both numbers.
    logit_middle: float = 2.0  # the logit of confidence 0.5 [Detectron: keypoints above 2 are drawn]
    logit_spread: float = 2.0  # [open]
    confident: float = 0.5  # of a keypoint that counts as seen: a logit above 2 [Detectron]

    # depth
    depth: Literal["coarse", "monocular"] = "coarse"  # BlazePose's, or a depth network's
    fit: bool = True  # relative disparity gets scale and shift from BlazePose's coarse depth; False: hips at 4 m, scale unknown
    limb_width: float = 0.14  # of the torso's length: radius of limbs in the mask of a person whom BlazePose does not see [open]
    torso_width: float = 0.3  # of the torso's length: as far the torso's and head's mask reaches beyond the keypoints [open]

    size: int = 256  # px: side of mask and depth [paper]
