"""Writes test/data/golden_keypoint_rcnn.npz: what torchvision's own Keypoint R-CNN detects in two pictures with random weights.

torchvision is no dependency: its compiled operators need the build of torch that they were made with. In an environment of its own,
`pip install torch==2.14.1 torchvision==0.29.1`, then `python tools/make_golden_keypoint_rcnn.py`. hmr_ros is not needed there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision.models.detection import keypointrcnn_resnet50_fpn

TEST = Path(__file__).resolve().parents[1] / "test"
sys.path.insert(0, str(TEST))
from keypoint_rcnn_weights import SIDES, pictures, random_state  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=TEST / "data" / "golden_keypoint_rcnn.npz")
    out = parser.parse_args().out
    model = keypointrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=SIDES["short_side"], max_size=SIDES["long_side"]
    ).eval()  # fmt: skip
    state = random_state({name: tuple(value.shape) for name, value in model.state_dict().items()})
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()}, strict=False)
    arrays = {"torchvision": np.array(torchvision.__version__), "torch": np.array(torch.__version__)}
    for i, picture in enumerate(pictures()):
        rgb = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1).float() / 255
        with torch.inference_mode():
            (found,) = model([rgb])
            (nudged,) = model([rgb + 1e-6])  # a choice between near equals would show
        same = found["boxes"].shape == nudged["boxes"].shape
        moved = max(float((found[name] - nudged[name]).abs().max()) for name in ("boxes", "keypoints")) if same else np.inf
        print(f"picture {i}: {len(found['boxes'])} people, scores {found['scores'].min():.3f} to {found['scores'].max():.3f}, "
              f"nudged by 1e-6: {moved:.1e} px")  # fmt: skip
        for name in ("boxes", "scores", "keypoints", "keypoints_scores"):
            arrays[f"{name}_{i}"] = found[name].numpy()
    np.savez_compressed(out, **arrays)
    print(f"{out}: {out.stat().st_size} bytes, torchvision {torchvision.__version__}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
