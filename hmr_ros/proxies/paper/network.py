"""Keypoint R-CNN (He et al. 2017), ResNet-50 with a feature pyramid (Lin et al. 2017): the layers, by the names of torchvision's state dict.

The same architecture as ``torchvision.models.detection.keypointrcnn_resnet50_fpn``, whose weights it loads, in the three parts that can be
compiled. torchvision itself is not needed: its compiled operators fit one build of torch only.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmr_ros.files import require_file
from hmr_ros.skeleton import COCO_KEYPOINTS

CHANNELS = 256  # of the pyramid's maps
ANCHORS_PER_CELL = 3
BOX_SIDE, KEYPOINT_SIDE = 7, 14  # cells of a RoI as the heads get it
_STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))  # blocks, width and stride of ResNet-50's stages
_COCO_V1 = "fc266e95"  # SHA-256 begins so: torchvision runs these weights with an epsilon of 0 in batch normalisation
_OLD_NAMES = (  # torchvision's before 0.13, which its files still have → today's
    (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$", r"\1.0.\2"),
    (r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"),
)


class Pyramid(NamedTuple):
    """What the first part gives of images (B, 3, H, W), H and W multiples of 32: features of strides 4, 8, 16 and 32, and for these
    levels and stride 64, one after the other, a logit and four box deltas an anchor: rows, columns, anchors."""

    p2: Tensor  # (B, 256, H / 4, W / 4)
    p3: Tensor
    p4: Tensor
    p5: Tensor
    objectness: Tensor  # (B, A)
    deltas: Tensor  # (B, A, 4)


class Bottleneck(nn.Module):
    """ResNet-50's block, the stride in the 3 x 3 convolution."""

    def __init__(self, inputs: int, width: int, stride: int, eps: float):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width, eps)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width, eps)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width, eps)
        self.downsample = None
        if stride > 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width, eps))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(seen)) + (x if self.downsample is None else self.downsample(x))).relu()


class _Body(nn.Module):
    def __init__(self, eps: float):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64, eps)
        inputs = 64
        for i, (blocks, width, stride) in enumerate(_STAGES):
            stage = [Bottleneck(inputs if j == 0 else 4 * width, width, stride if j == 0 else 1, eps) for j in range(blocks)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*stage))
            inputs = 4 * width

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps


class _FeaturePyramid(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [4 * width for _, width, _ in _STAGES]
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(width, CHANNELS, 1)) for width in widths)
        self.layer_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)) for _ in widths)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        inner = self.inner_blocks[-1](maps[-1])
        levels = [self.layer_blocks[-1](inner)]
        for level in reversed(range(len(maps) - 1)):
            lateral = self.inner_blocks[level](maps[level])
            inner = lateral + F.interpolate(inner, size=lateral.shape[-2:], mode="nearest")
            levels.insert(0, self.layer_blocks[level](inner))
        return levels


class _ProposalHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU()))
        self.cls_logits = nn.Conv2d(CHANNELS, ANCHORS_PER_CELL, 1)
        self.bbox_pred = nn.Conv2d(CHANNELS, 4 * ANCHORS_PER_CELL, 1)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        seen = [self.conv(level) for level in levels]
        logits = torch.cat([self.cls_logits(x).permute(0, 2, 3, 1).flatten(1) for x in seen], dim=1)
        return logits, torch.cat([self.bbox_pred(x).permute(0, 2, 3, 1).flatten(1) for x in seen], dim=1).unflatten(1, (-1, 4))


class Features(nn.Module):
    """First part: backbone, pyramid and proposal head. Images (B, 3, H, W), normalised → Pyramid."""

    def __init__(self, network: KeypointRCNNNetwork):
        super().__init__()
        self.backbone, self.head = network.backbone, network.rpn.head

    def forward(self, image: Tensor) -> Pyramid:
        levels = self.backbone.fpn(self.backbone.body(image))
        return Pyramid(*levels, *self.head([*levels, F.max_pool2d(levels[-1], 1, 2, 0)]))


class BoxHead(nn.Module):
    """Second part: RoIs (N, 256, 7, 7) → logits (N, 2) of background and person, box deltas (N, 4) of the person."""

    def __init__(self, network: KeypointRCNNNetwork):
        super().__init__()
        self.head, self.predictor = network.roi_heads.box_head, network.roi_heads.box_predictor

    def forward(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.head.fc7(self.head.fc6(rois.flatten(1)).relu()).relu()
        return self.predictor.cls_score(seen), self.predictor.bbox_pred(seen)[:, 4:]


class KeypointHead(nn.Module):
    """Third part: RoIs (N, 256, 14, 14) → logits of the keypoints' places (N, 17, 56, 56)."""

    def __init__(self, network: KeypointRCNNNetwork):
        super().__init__()
        self.head, self.predictor = network.roi_heads.keypoint_head, network.roi_heads.keypoint_predictor

    def forward(self, rois: Tensor) -> Tensor:
        low = self.predictor.kps_score_lowres(self.head(rois))
        return F.interpolate(low, scale_factor=2.0, mode="bilinear", align_corners=False)


class KeypointRCNNNetwork(nn.Module):
    """All layers, by torchvision's names. ``Features``, ``BoxHead`` and ``KeypointHead`` run them."""

    def __init__(self, eps: float = 1e-5):
        super().__init__()
        self.backbone = nn.ModuleDict({"body": _Body(eps), "fpn": _FeaturePyramid()})
        self.rpn = nn.ModuleDict({"head": _ProposalHead()})
        keypoints = [nn.Conv2d(CHANNELS if i == 0 else 512, 512, 3, padding=1) for i in range(8)]
        self.roi_heads = nn.ModuleDict({
            "box_head": nn.ModuleDict({"fc6": nn.Linear(CHANNELS * BOX_SIDE**2, 1024), "fc7": nn.Linear(1024, 1024)}),
            "box_predictor": nn.ModuleDict({"cls_score": nn.Linear(1024, 2), "bbox_pred": nn.Linear(1024, 8)}),
            "keypoint_head": nn.Sequential(*(layer for conv in keypoints for layer in (conv, nn.ReLU()))),
            "keypoint_predictor": nn.ModuleDict({"kps_score_lowres": nn.ConvTranspose2d(512, len(COCO_KEYPOINTS), 4, 2, 1)}),
        })  # fmt: skip


def load_network(path: str | Path, sha256: str = "") -> KeypointRCNNNetwork:
    """The network with the weights in a file that torchvision has published, or that was trained with it (``torch.save`` of the state
    dict). ``sha256``: of the file. Nothing in the file is executed. Raises FileNotFoundError, or ValueError that says what it holds."""
    path = require_file(path, "Keypoint R-CNN's weights", "the state dict of torchvision's keypointrcnn_resnet50_fpn (.pth)")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its pickle reader or zip reader meets
        raise ValueError(f"{path} is no file of weights ({str(error).splitlines()[0]}); expected the state dict of torchvision's "
                         "keypointrcnn_resnet50_fpn; copy it again") from error  # fmt: skip
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds a {type(state).__name__}, expected the state dict of torchvision's keypointrcnn_resnet50_fpn")
    for old, new in _OLD_NAMES:
        state = {re.sub(old, new, name): value for name, value in state.items()}
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    network = KeypointRCNNNetwork(eps=0.0 if sha256.startswith(_COCO_V1) else 1e-5).eval().requires_grad_(False)
    expected = {name: value.shape for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    wrong = sorted(name for name in {*expected, *state} if name not in expected or name not in state or expected[name] != state[name].shape)
    if wrong:
        raise ValueError(f"{path} holds other weights ({len(wrong)} of {len(expected)} tensors do not fit, the first is {wrong[0]}); expected "
                         "the state dict of torchvision's keypointrcnn_resnet50_fpn")  # fmt: skip
    network.load_state_dict(state, strict=False)
    return network
