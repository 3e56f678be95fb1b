"""The clip `one` of `hmr-ros bench`: one rendered person who dances across a made-up room, 5 s at 30 Hz, 640x480.

    python -P tools/make_bench_clip.py --out hmr_ros/assets/bench/one.mp4        # with the installed package

The motion is a recorded clip of the test split (poses.npz, `bullet/dance_b`), there and back at its own speed, so that nothing jumps where the
clip ends and begins again. Room, light, clothes and camera are drawn from one seed, the same for every frame. The whole body is always visible.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hmr_ros.body.model import BodyModel
from hmr_ros.files import atomic_write
from hmr_ros.geometry import pinhole, project_pinhole
from hmr_ros.io.videos import VideoWriter
from hmr_ros.rasterizer import vertex_normals
from hmr_ros.training.data.rendered.backgrounds import Backgrounds
from hmr_ros.training.data.rendered.clips import recorded
from hmr_ros.training.data.rendered.effects import photograph, shade_floor
from hmr_ros.training.data.rendered.painting import paint, random_light
from hmr_ros.training.data.rendered.scene import FACING, SceneMaker

SEED, MOTION = 11, "bullet/dance_b"
WIDTH, HEIGHT, RATE, FRAMES = 640, 480, 30.0, 150
DISTANCE, PATH = 3.6, 0.7  # metres: from the camera, and to either side of the middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    maker = SceneMaker("test")
    intrinsics = pinhole(WIDTH, HEIGHT, 60.0)
    camera = Rotation.from_rotvec([0.06, 0, 0]).as_matrix()  # a level camera looks a little downwards
    up = camera @ FACING @ np.array([0.0, 1.0, 0.0])
    rng = np.random.default_rng(SEED)
    look, room = maker.dresser.look(rng), Backgrounds().sample(rng, (HEIGHT, WIDTH)).astype(np.float32)
    light = random_light(rng, up, tint=np.ones(3))
    floor = None
    smallest = np.inf
    with atomic_write(out) as partial, VideoWriter(partial, RATE) as writer:
        for i, pose in enumerate(recorded(MOTION, RATE, FRAMES)):
            pose[0] = (Rotation.from_matrix(camera @ FACING) * Rotation.from_rotvec(pose[0])).as_rotvec()
            vertices = body_vertices(maker.body, pose)
            floor = (vertices @ up).min() if floor is None else floor
            side = PATH * np.sin(2 * np.pi * i / FRAMES)
            vertices = vertices + np.array([side, 0.0, DISTANCE]) + up * -(floor + 0.86)
            steady = np.random.default_rng(SEED)  # the same shadows and the same grain in every frame
            canvas = room.copy()
            shade_floor(canvas, vertices, up, intrinsics, 0.4)
            dressed = (vertices + vertex_normals(vertices, maker.faces) * look.offsets[:, None]).astype(np.float32)
            pixels = np.column_stack([project_pinhole(dressed, intrinsics), dressed[:, 2]]).astype(np.float32)
            low, high = pixels[:, :2].min(0), pixels[:, :2].max(0)
            smallest = min(smallest, *low, WIDTH - 1 - high[0], HEIGHT - 1 - high[1])
            paint(canvas, pixels, dressed, maker.faces, maker.dresser, look, light, 1.0, steady)
            writer.write(photograph(steady, canvas))
    if smallest < 0:
        raise ValueError(f"the person leaves the picture by {-smallest:.0f} px; expected the whole body in every frame")
    print(f"{out}: {FRAMES} frames at {RATE:g} Hz, {out.stat().st_size / 1e6:.2f} MB; at least {smallest:.0f} px to the border")


def body_vertices(body: BodyModel, pose: np.ndarray) -> np.ndarray:
    """(V, 3) of the mean body in a pose (24, 3)."""
    rotations = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix()[None].astype(np.float32))
    with torch.inference_mode():
        return body.forward(rotations, torch.zeros(1, 10)).vertices[0].numpy()


if __name__ == "__main__":
    main()
