"""Makes docs/sheet.jpg: 24 people in real pictures, each as picture, overlay and side view.

    python tools/make_sheet.py PICTURE... [--people 24] [--out docs/sheet.jpg]

People are taken in turn, one a picture and round, best detected first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import tyro

from hmr_ros import HumanMeshEstimator
from hmr_ros.drawing import draw_overlay, draw_side_view
from hmr_ros.estimate import BodyEstimate
from hmr_ros.geometry import crop_matrix

TILE, COLUMNS = 200, 3


@dataclass(frozen=True)
class Config:
    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional]
    people: int = 24
    out: Path = Path("docs/sheet.jpg")
    checkpoint: Path | None = None


def tile(image: np.ndarray, body: BodyEstimate, faces: np.ndarray) -> np.ndarray:
    """(TILE, 3 TILE, 3): the person's crop, with the mesh, and the mesh from the side."""
    crop = np.array([*body.crop[:2], 1.1 * body.crop[2]], np.float32)
    picture = cv2.warpAffine(image, crop_matrix(crop, TILE), (TILE, TILE), flags=cv2.INTER_AREA, borderValue=(90, 90, 90))
    centred = np.array([(TILE - 1) / 2, (TILE - 1) / 2, TILE / 1.1], np.float32)
    moved = replace(body, crop=centred, translation=None)
    return np.hstack([picture, draw_overlay(picture, [moved], faces), draw_side_view([moved], faces, (TILE, TILE))])


def main() -> None:
    config = tyro.cli(Config)
    estimator = HumanMeshEstimator.from_default(checkpoint=config.checkpoint)
    faces = np.ascontiguousarray(estimator.body_model.faces, np.int32)
    seen = []
    for path in config.pictures:
        image = cv2.imread(str(path))
        if image is None:
            raise SystemExit(f"{path} is not a readable picture")
        seen.append([(image, body) for body in estimator(image)])
    in_turn = [entry for entry in chain.from_iterable(zip_longest(*seen)) if entry is not None][: config.people]
    if not in_turn:
        raise SystemExit("nobody is seen in these pictures")
    tiles = [tile(image, body, faces) for image, body in in_turn]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    sheet = np.vstack([np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)])
    if not cv2.imwrite(str(config.out), sheet, [cv2.IMWRITE_JPEG_QUALITY, 80]):
        raise SystemExit(f"{config.out} cannot be written")
    print(f"{len(in_turn)} people in {config.out}")


if __name__ == "__main__":
    main()
