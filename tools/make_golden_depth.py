"""Writes test/data/golden_depth.npz: which face of the embedded body 300 points see and how far away, by a ray tracer.

Independent of the package's rasterisers: Intel's Embree casts a ray through every point, in metres, where those compare
pixels. Only the body model is shared. Embree is no dependency; the file was made with embreex 4.4.0.post1 (Embree 4.4.0),
from `pip install --target /tmp/embree embreex==4.4.0.post1`, by
`PYTHONPATH=/tmp/embree python tools/make_golden_depth.py` in the environment the package is installed in.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from scipy.spatial.transform import Rotation

from hmr_ros.body.model import BodyModel
from hmr_ros.skeleton import SMPL_JOINTS

OUT = Path(__file__).parents[1] / "test" / "data" / "golden_depth.npz"
POINTS = 300
SCALE, CENTRE = 110.0, (128.0, 140.0)  # weak perspective: px per metre, px
FOCAL, DISTANCE = 520.0, 2.4  # perspective: px, metres to the body's origin; strong on purpose
# An arm before the chest, a bent knee, the body turned and leaning: much hides much.
TURNED = {
    "pelvis": (2.9, 0.25, 0.45), "left_shoulder": (0.2, -0.9, -0.9), "left_elbow": (0.3, -1.6, 0.2),
    "right_shoulder": (-0.3, 0.7, 1.1), "right_elbow": (0.2, 1.2, 0.1), "left_hip": (-0.9, 0.2, 0.1),
    "left_knee": (1.3, 0.0, 0.0), "neck": (0.2, 0.3, 0.0),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    body, rng = BodyModel.load(None), np.random.default_rng(20)
    pose = np.zeros((24, 3))
    for joint, vector in TURNED.items():
        pose[SMPL_JOINTS.index(joint)] = vector
    betas = rng.normal(0, 1, 10).astype(np.float32)
    rotations = Rotation.from_rotvec(pose).as_matrix().astype(np.float32)
    vertices = body(torch.from_numpy(rotations)[None], torch.from_numpy(betas)[None]).vertices[0].numpy()
    answers = {}
    for name, offset in (("weak", (0, 0, 0)), ("perspective", (0, 0, DISTANCE))):
        placed = vertices + np.array(offset, np.float32)
        scale = SCALE if name == "weak" else FOCAL / placed[:, 2:]
        pixels = placed[:, :2] * scale + CENTRE
        near_body = pixels[rng.integers(0, len(pixels), POINTS - 60)] + rng.normal(0, 3, (POINTS - 60, 2))
        around = rng.uniform(pixels.min(0) - 5, pixels.max(0) + 5, (60, 2))
        points = np.concatenate([near_body, around]).astype(np.float32)
        if name == "weak":
            start = np.column_stack([(points - CENTRE) / SCALE, np.full(POINTS, placed[:, 2].min() - 0.1)])
            direction = np.tile([0.0, 0.0, 1.0], (POINTS, 1))
        else:
            start = np.zeros((POINTS, 3))
            direction = np.column_stack([(points - CENTRE) / FOCAL, np.ones(POINTS)])  # depth 1 a unit
        scene = EmbreeScene(robust=True)
        TriangleMesh(scene, placed[body.faces].astype(np.float32))
        hit = scene.run(start.astype(np.float32), direction.astype(np.float32), output=True)
        face = np.where(hit["geomID"] >= 0, hit["primID"], -1).astype(np.int16)
        depth = np.where(face >= 0, start[:, 2] + hit["tfar"], 0).astype(np.float32)
        answers |= {f"{name}_points": points, f"{name}_face": face, f"{name}_depth": depth}
        print(f"{name}: {(face >= 0).sum()} of {POINTS} points see the body, {depth[face >= 0].min():.2f} m and more")
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out,
        pose=pose.astype(np.float32),
        betas=betas,
        scale=SCALE,
        centre=CENTRE,
        focal=FOCAL,
        distance=DISTANCE,
        body_sha256=body.sha256,
        made_with=f"embreex {version('embreex')}",
        **answers,
    )


if __name__ == "__main__":
    main()
