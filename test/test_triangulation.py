"""hmr-ros adapt --rig: joints that several calibrated cameras see, against those of bodies whose every joint is known."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.spatial.transform import Rotation

from hmr_ros.body.model import BodyModel
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.camera import Camera, ray_axes
from hmr_ros.geometry import Intrinsics, matrix_from_rotvec, pinhole
from hmr_ros.networks.regressor import BodyParameters
from hmr_ros.skeleton import COCO_FROM_BLAZEPOSE, COCO_MIRROR
from hmr_ros.training.adaptation import teacher
from hmr_ros.training.adaptation.recordings import People, split
from hmr_ros.training.adaptation.triangulation import ALLOWED, Mount, linear, read_rig, triangulated
from hmr_ros.training.data.mapped import Rows
from hmr_ros.training.data.rendered.clips import recorded, turned

SIZE, RATE, FRAMES = (480, 640), 10.0, 40
LENSES = (
    Camera(pinhole(640, 480, 75.0)), Camera(Intrinsics(430.0, 432.0, 325.0, 236.0), "plumb_bob", (-0.25, 0.06, 0.001, -0.001)),
    Camera(pinhole(640, 480, 80.0)), Camera(pinhole(640, 480, 70.0)),
)  # fmt: skip
PLACES = np.array([[3.2, 1.6, 3.0], [-3.0, 2.2, 2.8], [-3.1, 1.2, -2.9], [2.8, 1.9, -3.3]])  # of the cameras: corners of a room, y up
LEFT_AND_RIGHT, CROSSING = (-0.9, 0.9), (1.2, -1.2)


def looking(place: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) from the optical frame of a camera at ``place`` that looks ``at`` a point into a world with y up."""
    forward = (at - place) / np.linalg.norm(at - place)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    return np.column_stack([right, np.cross(forward, right), forward])


RIG = tuple(Mount(name, looking(place, np.array([0, 0.9, 0])), place) for name, place in zip(("door", "window", "desk", "shelf"), PLACES))


class Room:
    """Two people who walk past each other, what cameras detect of them, and where their joints are."""

    def __init__(self, skeleton: PosedKeypoints, ends=CROSSING, rig=RIG):
        self.skeleton, self.rig = skeleton, rig
        rng = np.random.default_rng(0)
        self.times = np.arange(FRAMES) / RATE
        self.poses, self.places, self.betas = [], [], rng.normal(0, 0.7, (2, 10)).astype(np.float32)
        for number in range(2):
            start, end = (-ends[0], -ends[1]) if number else ends
            yaw = np.pi / 2 if end > start else -np.pi / 2
            self.poses.append(matrix_from_rotvec(turned(recorded("bullet/walk", RATE, FRAMES, start=2.0 * number), yaw)).astype(np.float32))
            self.places.append(np.column_stack([np.linspace(start, end, FRAMES), np.full(FRAMES, 0.95), np.full(FRAMES, 0.5 * number - 0.25)]))

    def joints(self, number: int, times: np.ndarray) -> np.ndarray:
        """(T, 17, 3) in the world at any time."""
        with torch.no_grad():
            points = self.skeleton(torch.from_numpy(self.poses[number]), torch.from_numpy(self.betas[number]).expand(FRAMES, -1))[1].numpy()
        points = (points + self.places[number][:, None]).reshape(FRAMES, -1)
        return np.stack([np.interp(times, self.times, column) for column in points.T], axis=1).reshape(-1, 17, 3)

    def filmed(self, cameras=(0, 1, 2, 3), noise=3.5, late=0.0, wrong=0.0, shows=None) -> tuple[People, np.ndarray, np.ndarray]:
        """Detections by some cameras, their true joints (N, 17, 3) in camera axes, and who they are (N,). ``late``: seconds between the frames of
        one camera and the next; ``wrong``: the share of the first camera's joints that lie anywhere; ``shows``: camera → who is seen by it."""
        rng, parts, truth, who, track = np.random.default_rng(1), [], [], [], 0
        for number, camera in enumerate(cameras):
            times = self.times[:-2] + number * late
            for actor in (0, 1) if shows is None else shows[camera]:
                true = (self.joints(actor, times) - self.rig[camera].position) @ self.rig[camera].rotation
                pixels = LENSES[camera].project(true) + rng.normal(0, noise, (len(times), 17, 2))
                if number == 0:
                    far = rng.random(pixels.shape[:2]) < wrong
                    pixels[far] += rng.choice([-1, 1], (far.sum(), 2)) * rng.uniform(50, 150, (far.sum(), 2))
                    turned_round = rng.random(len(times)) < wrong / 2  # left is taken for right
                    pixels[turned_round] = pixels[turned_round][:, list(COCO_MIRROR)]
                confidence = np.where(rng.random(pixels.shape[:2]) < 0.1, 0.05, 0.9)
                low, high = pixels.min(1), pixels.max(1)
                known = np.argmax(np.array(COCO_FROM_BLAZEPOSE)[None] == np.arange(33)[:, None], axis=1)
                middle = true[:, 11:13].mean(1, keepdims=True)
                parts.append({
                    "stamp": times, "keypoints": np.concatenate([pixels, confidence[..., None]], -1).astype(np.float32), "box": np.concatenate([low, high], 1),
                    "crop": np.column_stack([(low + high) / 2, 1.25 * (high - low).max(1)]).astype(np.float32), "image_size": np.tile(SIZE, (len(times), 1)),
                    "index": np.arange(len(times)), "landmarks": pixels[:, known].astype(np.float32), "world": (true - middle)[:, known].astype(np.float32),
                    "track": np.full(len(times), track), "recording": np.full(len(times), number), "agreed": np.ones(len(times), bool),
                })  # fmt: skip
                truth.append(true), who.append(np.full(len(times), actor))
                track += 1
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        track, recording = rows.pop("track"), rows.pop("recording")
        people = People(rows, Rows([np.empty((0, 1))]), track, recording, tuple(LENSES[camera] for camera in cameras))
        return people, np.concatenate(truth), np.concatenate(who)


@pytest.fixture(scope="module")
def skeleton():
    return PosedKeypoints(BodyModel.load(None))


def off(points, truth) -> np.ndarray:
    """Millimetres of every joint that is triangulated."""
    apart = 1000 * np.linalg.norm(points - truth, axis=-1)
    return apart[np.isfinite(apart)]


def rig_of(*cameras) -> list[Mount]:
    return [RIG[camera] for camera in cameras]


def fitted(room: Room, people: People, rig: Sequence[Mount], who: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Joints (N, 17, 3) in camera axes of the bodies that the teacher fits, from what a mediocre lifter would have said."""
    rng, axes = np.random.default_rng(2), np.concatenate([ray_axes(camera, people.rows["crop"][people.recording == number, :2])
                                                          for number, camera in enumerate(people.cameras)])  # fmt: skip
    frame, betas = people.rows["index"], room.betas[who]
    to_ray = axes @ np.stack([rig[number].rotation.T for number in people.recording])
    rotations = np.stack([room.poses[actor][i] for actor, i in zip(who, frame)])
    rotations[:, 0] = to_ray @ rotations[:, 0]
    rotations = (matrix_from_rotvec(rng.normal(0, 0.2, (len(who), 24, 3))) @ rotations).astype(np.float32)
    rest = room.skeleton.pelvis(torch.from_numpy(betas)).numpy()
    there = np.stack([room.places[actor][i] for actor, i in zip(who, frame)]) + rest - np.stack([rig[number].position for number in people.recording])
    place = np.einsum("nij,nj->ni", to_ray, there) - rest
    place[:, 2] *= 1.15  # as of somebody taken for taller
    focal = np.array([camera.intrinsics.fx for camera in people.cameras])[people.recording]
    cameras = np.column_stack([2 * focal / place[:, 2] / people.rows["crop"][:, 2], place[:, :2]]).astype(np.float32)
    regressed = BodyParameters(rotations, 0 * betas, cameras, np.full((len(who), 12), 0.7, np.float32))
    rotations, betas, place, _ = teacher._Fit(room.skeleton, people, regressed, points, teacher.TeacherConfig()).run()
    with torch.no_grad():
        joints = room.skeleton(torch.from_numpy(rotations), torch.from_numpy(betas))[1].numpy()
    return (joints + place[:, None]) @ axes
