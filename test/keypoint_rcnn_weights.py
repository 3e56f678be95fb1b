"""Random weights for Keypoint R-CNN under which people are detected, the same on every machine: numpy's frozen RandomState, by name.

Shared by the tests and tools/make_golden_keypoint_rcnn.py, which runs torchvision's own model on them.
"""

import zlib

import numpy as np

SIDES = {"short_side": 192, "long_side": 256}  # px: small enough for a test; torchvision's min_size and max_size
SHAPES = ((120, 160), (171, 97))  # px: of the pictures; neither is a multiple of 32 when it is resized
_GAIN = {"rpn.head.cls_logits.weight": 0.15, "rpn.head.bbox_pred.weight": 0.02, "roi_heads.box_predictor.cls_score.weight": 0.2,
         "roi_heads.box_predictor.bbox_pred.weight": 0.02, "roi_heads.keypoint_predictor.kps_score_lowres.weight": 0.2}  # fmt: skip


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """float32 arrays by torchvision's names: activations stay of the order of one, scores spread over (0, 1)."""
    return {name: _values(name, shape) for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}


def pictures() -> list[np.ndarray]:
    """uint8 (H, W, 3) BGR: blots of colour."""
    random = np.random.RandomState(14)
    coarse = [random.randint(0, 256, (-(-height // 8), -(-width // 8), 3)) for height, width in SHAPES]
    return [blots.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8) for blots, (height, width) in zip(coarse, SHAPES)]


def _values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.RandomState(zlib.crc32(name.encode()))
    layer, _, kind = name.rpartition(".")
    if kind == "running_var":
        values = random.uniform(0.5, 1.5, shape)
    elif kind in ("running_mean", "bias"):
        values = 0.1 * random.standard_normal(shape)
    elif len(shape) == 1:  # batch normalisation; the last of a block adds little, so that sixteen blocks do not explode
        values = random.uniform(0.8, 1.2, shape) * (0.2 if layer.endswith("bn3") else 1.0)
    else:
        fan_in = shape[0] * 4 if "kps_score_lowres" in name else int(np.prod(shape[1:]))
        values = _GAIN.get(name, 1.0) * np.sqrt(2.0 / fan_in) * random.standard_normal(shape)
    if name == "roi_heads.box_predictor.cls_score.bias":
        values = np.array([5.5, 0.0])  # most proposals are background
    return values.astype(np.float32)
