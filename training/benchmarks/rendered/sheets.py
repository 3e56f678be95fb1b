"""The best and the worst people of a benchmark as pictures: made again from seed and number, with the estimated mesh."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.drawing import draw_overlay, draw_side_view
from hmr_ros.estimate import BodyEstimate
from hmr_ros.files import write_picture
from hmr_ros.geometry import crop_matrix, from_crop, project_weak, rotvec_from_matrix
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.data.rendered.dataset import photos_in, photos_sha256
from hmr_ros.training.data.rendered.scene import Scene, SceneConfig, SceneMaker
from hmr_ros.training.metrics import mpjpe
from hmr_ros.training.benchmarks.rendered.methods import Prediction
from hmr_ros.training.benchmarks.rendered.scores import Truth

_COUNT, _COLUMNS, _TILE = 12, 2, 224


class PicturesMissing(ValueError):
    """What the pictures of a data set are made of is not at hand."""


class PicturesAgain:
    """Pictures of rendered people, made again from their data set's seed: nobody stores them.

    Raises PicturesMissing where config.json or the photos are not there, ValueError where they are others.
    """

    def __init__(self, data: Path, backgrounds: Path | None):
        if not (data / "config.json").is_file():
            raise PicturesMissing(f"{data / 'config.json'}, which says how the pictures were made, is not there")
        self.data, self.config = data, json.loads((data / "config.json").read_text())
        photos = self.config["backgrounds"]
        if photos and backgrounds is None:
            raise PicturesMissing(f"they need the {photos} photos of the data; name them by --backgrounds")
        self.backgrounds = backgrounds if photos else None
        if photos_sha256(photos_in(self.backgrounds)) != self.config["backgrounds_sha256"]:
            raise ValueError(
                f"--backgrounds {backgrounds} are not the photos that {data} was made with; name those, or leave the option out"
            )
        self.maker = SceneMaker(self.config["split"], self.backgrounds, SceneConfig(**self.config["scene"]),
                                renderer=self.config.get("renderer", "painter"), rough=self.config.get("rough_camera", False),
                                cameras=self.config.get("cameras", "any"))  # fmt: skip

    def __call__(self, index: int, pose: np.ndarray) -> Scene:
        """Picture ``index``, in which somebody must have ``pose`` (24, 3)."""
        scene = rendered.picture(self.maker, self.config["seed"], self.config["split"], int(index))
        if not any(np.allclose(person.pose, pose, atol=1e-3) for person in scene.people):
            raise ValueError(
                f"the pictures of {self.data} cannot be made again: other people stand in them; were they made by another "
                f"version or with other photos than {self.backgrounds}?"
            )
        return scene


def save_sheets(
    prediction: Prediction, truth: Truth, body: BodyModel, data: Path, backgrounds: Path | None, folder: Path
) -> str:
    """best.png and worst.png: picture, overlay and side view of each person; returns one line that says what was done.

    Raises ValueError where the pictures made again are not those of the data.
    """
    try:
        pictures = PicturesAgain(data, backgrounds)
    except PicturesMissing as error:
        return f"no sheets of people: {error}"
    errors = mpjpe(prediction.limbs, truth.limbs[: truth.count_found])
    order = np.argsort(errors)
    for name, rows in (("best", order[:_COUNT]), ("worst", order[::-1][:_COUNT])):
        tiles = []
        for row in rows:
            scene = pictures(truth.found["index"][row], truth.found["pose"][row])
            tiles.append(_tile(scene, prediction, truth, body, int(row), f"{errors[row]:.0f} mm  {truth.category[row]}"))
        tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _COLUMNS)
        sheet = np.vstack([np.hstack(tiles[i : i + _COLUMNS]) for i in range(0, len(tiles), _COLUMNS)])
        write_picture(folder / f"{name}.png", sheet)
    return f"{folder}: best.png, worst.png (picture, overlay, side view)"


def _tile(scene: Scene, prediction: Prediction, truth: Truth, body: BodyModel, row: int, text: str) -> np.ndarray:
    """(_TILE + caption, 3 _TILE, 3) BGR."""
    crop = truth.found["crop"][row]
    affine = crop_matrix(crop, _TILE)
    picture = cv2.warpAffine(scene.image, affine, (_TILE, _TILE), flags=cv2.INTER_AREA, borderValue=(90, 90, 90))
    estimate = estimate_in(prediction, row, truth.found, body, np.array([(_TILE - 1) / 2, (_TILE - 1) / 2, _TILE], np.float32))
    faces = np.ascontiguousarray(body.faces, np.int32)
    panels = [picture, draw_overlay(picture, [estimate], faces), draw_side_view([estimate], faces, (_TILE, _TILE))]
    caption = np.full((24, 3 * _TILE, 3), 255, np.uint8)
    cv2.putText(caption, text, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([caption, np.hstack(panels)])


def estimate_in(
    prediction: Prediction, row: int, found: dict[str, np.ndarray], body: BodyModel, crop: np.ndarray
) -> BodyEstimate:
    """Somebody's body in a picture where the crop lies at ``crop`` (3,); ``found``: the rows' proxies."""
    rotations, betas, camera = prediction.rotations[row], prediction.betas[row], prediction.cameras[row]
    with torch.inference_mode():
        output = body(torch.from_numpy(rotations)[None], torch.from_numpy(betas)[None])
    vertices, joints, keypoints = (value[0].numpy() for value in output)
    rotvecs = rotvec_from_matrix(rotations)
    low, high = from_crop(np.array([[-1, -1], [1, 1]], np.float32), crop)
    return BodyEstimate(
        score=float(found["score"][row]),
        box=np.concatenate([low, high]),
        keypoints=found["keypoints"][row],
        reliability=prediction.reliability[row],
        global_orient=rotvecs[0],
        body_pose=rotvecs[1:].reshape(69),
        betas=betas,
        crop=crop,
        weak_camera=camera,
        translation=None,
        joints=joints,
        vertices=vertices,
        projected_keypoints=project_weak(keypoints, camera, crop),
    )
