"""A proxy extractor that is not ours: it fills the core of PersonProxies only, from the truth of bodies that it has rendered."""

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hmr_ros.body.model import BodyModel
from hmr_ros.estimator import HumanMeshEstimator
from hmr_ros.geometry import crop_matrix, square_crop
from hmr_ros.networks.checkpoints import load_regressor
from hmr_ros.proxies import PersonProxies
from hmr_ros.proxies.depth import trim_depth
from hmr_ros.rasterizer import rasterize
from hmr_ros.runtime import compile

PLACES = ((180.0, 250.0, 0.0), (460.0, 240.0, 50.0))  # px, px, heading in degrees
PIXELS_PER_METRE = 200.0
SIDE = 96  # px of depth maps
UPRIGHT = np.diag([1.0, -1.0, -1.0])  # y up to y down, facing the camera


class RenderedTruth:
    """Two people who stand with hanging arms, in every image that is not black."""

    backend, provides = "truth", frozenset()

    def __init__(self, body: BodyModel):
        self.people = [_person(body, *place) for place in PLACES]

    def identity(self) -> dict:
        return {"name": "rendered truth", "files": {}, "options": {"places": PLACES, "confident": 0.5}}

    def __call__(self, image, depth=None, small_people=True):
        return list(self.people) if image.any() else []

    def follow(self, image, person, depth=None):
        return replace(person, score=0.8) if image.any() else None


def heading(place) -> np.ndarray:
    """(3,) where a person faces, camera axes."""
    return UPRIGHT @ Rotation.from_euler("y", place[2], degrees=True).apply([0, 0, 1.0])


def make_estimator(parameters=None) -> HumanMeshEstimator:
    """With the paper's regressor; also an ``estimator_factory`` of the live node."""
    model = BodyModel.load(None)
    rest_pose = (torch.eye(3).repeat(1, 24, 1, 1), torch.zeros(1, 10))
    return HumanMeshEstimator(
        RenderedTruth(model), load_regressor("resnet18", body_model=model, backend="openvino"), model,
        compile(model, rest_pose, backend="openvino"),
    )  # fmt: skip


def _person(body: BodyModel, x: float, y: float, yaw: float) -> PersonProxies:
    rotations = np.tile(np.eye(3), (24, 1, 1))
    rotations[0] = UPRIGHT @ Rotation.from_euler("y", yaw, degrees=True).as_matrix()
    rotations[[16, 17]] = Rotation.from_euler("z", [[-75], [75]], degrees=True).as_matrix()  # shoulders
    with torch.no_grad():
        posed = body(torch.from_numpy(rotations).float()[None], torch.zeros(1, 10))
    vertices, keypoints = posed.vertices[0].numpy(), posed.keypoints[0].numpy()
    middle = (vertices.max(0) + vertices.min(0)) / 2

    def pixels(points):
        return (PIXELS_PER_METRE * (points - middle)[:, :2] + [x, y]).astype(np.float32)

    outline = pixels(vertices)
    box = np.concatenate([outline.min(0), outline.max(0)])
    crop = square_crop(box)
    to_crop = crop_matrix(crop, SIDE)
    surface = np.column_stack([outline @ to_crop[:, :2].T + to_crop[:, 2], vertices[:, 2] - middle[2] + 4]).astype(np.float32)
    depth = rasterize(surface, body.faces, (SIDE, SIDE)).depth
    joints = np.column_stack([pixels(keypoints), np.full(17, 0.9)]).astype(np.float32)
    return PersonProxies(0.9, box, joints, crop, None, trim_depth(depth), "monocular", confident=0.5)
