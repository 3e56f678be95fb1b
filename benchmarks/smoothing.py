"""How steady are bodies, and how late? Smoothing on and off, against the exact joints of rendered people at 30 Hz.

    python benchmarks/smoothing.py [--json FILE]

One person: the clip of `hmr-ros bench` (``one``: somebody dances across the room), and two who are rendered here and walk and punch.
A person who kicks is left out: four frames have no body. The 24 joints are relative to the pelvis, in the camera's axes.
Acceleration error: mean distance between predicted and true acceleration, mm/frame². Delay: of the highest cross-correlation with the truth, ms.
``moving``: the mean true acceleration, which a frozen body would have as error.

Position: errors of the pelvis along the viewing ray and across it, RMS, metres; ``varying`` is what is left along it about its mean over the clip.
Covered: the share of all three within two standard deviations of the published covariance.

``zero phase`` filters the joints without smoothing forwards and backwards (Butterworth, order 2). It knows the future, so that it has no
delay: what no causal low-pass of this cutoff can beat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.signal import butter, sosfiltfilt

from hmr_ros import HumanMeshEstimator
from hmr_ros.bench.clips import load_clip
from hmr_ros.estimate import BodyEstimate
from hmr_ros.files import write_json
from hmr_ros.geometry import Intrinsics, ray_rotation
from hmr_ros.stream import StreamConfig
from hmr_ros.training.data.rendered.clips import Actor, ClipMaker, recorded, turned
from hmr_ros.training.metrics import SMPL_PELVIS, acceleration_error, delay, mpjpe, root_aligned

RATE, FRAMES = 30.0, 150
MOTIONS = {"walk": "bullet/walk", "punch": "bullet/punch"}
MODES = {"off": StreamConfig(smooth_pose=False, smooth_translation=False, steady_shape=False), "on": StreamConfig()}
CUTOFFS = (2.0, 3.0, 4.0, 6.0)  # Hz


@dataclass(frozen=True)
class Config:
    first_seed: int = 2000
    """Of rooms, clothes and shapes; constants were chosen on other motions and seeds below."""
    json: Path | None = None


@dataclass(frozen=True)
class Moving:
    """One person in a rendered clip."""

    name: str
    images: list[np.ndarray]
    joints: np.ndarray  # (T, 24, 3) metres in the camera frame
    intrinsics: Intrinsics


def bench_clip() -> Moving:
    """Frames as they are embedded; the truth is that of tools/make_bench_clip.py."""
    side = 0.7 * np.sin(2 * np.pi * np.arange(FRAMES) / FRAMES)
    actor = Actor(recorded("bullet/dance_b", RATE, FRAMES), np.column_stack([side, np.full(FRAMES, 3.6)]))
    maker = ClipMaker(11)
    joints = np.stack([frame.joints[0] for frame in maker.frames([actor], np.zeros((1, 10)))])
    return Moving("one", load_clip("one").frames, joints, maker.intrinsics)


def rendered_clip(name: str, motion: str, seed: int) -> Moving:
    """Somebody who walks to and fro sideways, or stands and turns slowly."""
    rng = np.random.default_rng(seed)
    t = np.arange(FRAMES) / RATE
    poses = recorded(motion, RATE, FRAMES, start=rng.uniform(0, 1))
    walks = "walk" in motion
    yaw = np.full(FRAMES, np.pi / 2) if walks else rng.uniform(-0.8, 0.8) + 0.2 * t
    x = (0.6 * (t - t.mean())) if walks else np.zeros(FRAMES)
    maker = ClipMaker(seed)
    frames = list(maker.frames([Actor(turned(poses, yaw), np.column_stack([x, np.full(FRAMES, 3.6)]))]))
    return Moving(name, [frame.image for frame in frames], np.stack([frame.joints[0] for frame in frames]), maker.intrinsics)


def clips(first_seed: int) -> Iterator[Moving]:
    yield bench_clip()
    for seed, (name, motion) in enumerate(MOTIONS.items(), first_seed):
        yield rendered_clip(name, motion, seed)


def follow(estimator: HumanMeshEstimator, clip: Moving, config: StreamConfig) -> list[BodyEstimate]:
    """The person in every frame. ValueError where there is none."""
    stream, followed = estimator.stream(config), []
    for i, image in enumerate(clip.images):
        bodies = stream(image, 1 + i / RATE, intrinsics=clip.intrinsics)
        if len(bodies) != 1:
            raise ValueError(f"{len(bodies)} bodies in frame {i} of {clip.name}, expected 1 in every frame")
        followed.append(replace(bodies[0], vertices=np.zeros((0, 3), np.float32)))
    return followed


def joints_of(bodies: list[BodyEstimate]) -> np.ndarray:
    """(T, 24, 3) in the camera's axes, relative to the pelvis."""
    return root_aligned(np.stack([body.joints for body in bodies]), SMPL_PELVIS)


def position(bodies: list[BodyEstimate], truth: np.ndarray) -> dict[str, float]:
    """``truth`` (T, 3): pelvis in the camera frame."""
    pelvis = np.stack([body.joints[0] + body.translation for body in bodies])
    axes = ray_rotation(pelvis[:, :2] / pelvis[:, 2:])
    errors = np.einsum("tij,tj->ti", axes, pelvis - truth)
    covariances = np.einsum("tij,tjk,tik->ti", axes, np.stack([body.position_covariance for body in bodies]), axes)
    return {"along_m": round(float(np.sqrt(np.mean(errors[:, 2] ** 2))), 3), "varying_along_m": round(float(errors[:, 2].std()), 3),
            "across_m": round(float(np.sqrt(np.mean(errors[:, :2] ** 2))), 3),
            "within_2_sigma": round(float(np.mean(np.abs(errors) < 2 * np.sqrt(covariances))), 2)}  # fmt: skip


def measures(joints: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {
        "acceleration_error": round(acceleration_error(joints, truth), 2),
        "delay_ms": round(1000 * delay(joints, truth, RATE), 1),
        "mpjpe_mm": round(float(mpjpe(joints, truth).mean()), 2),
    }


def zero_phase(joints: np.ndarray, cutoff: float) -> np.ndarray:
    return sosfiltfilt(butter(2, cutoff, fs=RATE, output="sos"), joints, axis=0)


def main(config: Config) -> None:
    cv2.setNumThreads(1)
    estimator, result = HumanMeshEstimator.from_default(threads=1), {}
    table = Table("clip", "", "acceleration error, mm/frame²", "delay, ms", "MPJPE, mm", "along, m", "varying", "across, m", "covered")
    for clip in clips(config.first_seed):
        truth = root_aligned(clip.joints, SMPL_PELVIS)
        bodies = {mode: follow(estimator, clip, options) for mode, options in MODES.items()}
        joints = {mode: joints_of(followed) for mode, followed in bodies.items()}
        joints |= {f"zero phase {cutoff:g} Hz": zero_phase(joints["off"], cutoff) for cutoff in CUTOFFS}
        rows = {mode: measures(values, truth) for mode, values in joints.items()}
        places = {mode: position(followed, clip.joints[:, 0]) for mode, followed in bodies.items()}
        result[clip.name] = {"moving": round(acceleration_error(np.zeros_like(truth), truth), 2), **rows, "position": places}
        for mode, row in rows.items():
            table.add_row(clip.name, mode, *(f"{value:.1f}" for value in row.values()), *(f"{value:g}" for value in places.get(mode, {}).values()))
    Console().print(table)
    if config.json:
        write_json(config.json, {"rate_hz": RATE, "frames": FRAMES, "first_seed": config.first_seed, "clips": result})


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
