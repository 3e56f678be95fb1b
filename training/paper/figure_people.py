"""People for figures: those of a rendered benchmark and of footage, what a regressor says of them, and their panels.

Bodies are the regressor's own words, in one pass as in the paper: nothing is refined afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import cv2
import numpy as np

from hmr_ros.body.model import BodyModel
from hmr_ros.files import load_checkpoint
from hmr_ros.drawing import draw_overlay, draw_side_view
from hmr_ros.networks.checkpoints import load_resnet18
from hmr_ros.geometry import crop_matrix
from hmr_ros.networks.paper.net import Resnet18Regressor
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.proxies.registry import make_extractor
from hmr_ros.io.sources import open_source
from hmr_ros.rasterizer import Backend
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.data import shards
from hmr_ros.training.paper.panels import depth_picture, with_skeleton
from hmr_ros.training.paper.proxy_data import Corruption, DepthKind, ProxyData, of_rows
from hmr_ros.training.benchmarks.rendered.methods import Prediction, posed
from hmr_ros.training.benchmarks.rendered.scores import Truth
from hmr_ros.training.benchmarks.rendered.sheets import PicturesAgain, estimate_in
from hmr_ros.training.paper.optimise import decoded, regress
from hmr_ros.training.paper.train import SelfSupervisedConfig, prepare

_LINE = 17  # pixels of a line of text


@dataclass(frozen=True)
class Trained:
    """A regressor, and how the people were shown to it in training."""

    regressor: Resnet18Regressor
    sha256: str
    steps: int | None = None  # of training; None where the file does not say
    depth: DepthKind = "depth"
    trim: bool = True
    corruption: Corruption = field(default_factory=Corruption)

    @classmethod
    def load(cls, path: Path) -> Trained:
        """Of a regressor.safetensors. Raises as ``load_resnet18``."""
        regressor, _ = load_resnet18(path)
        training = load_checkpoint(path)[1].get("training", {})
        config = training.get("config", {})
        known = {name: config[name] for name in ("depth", "trim") if name in config}
        names = {some.name for some in fields(Corruption)}
        faults = Corruption(**{name: value for name, value in config.get("corruption", {}).items() if name in names})
        sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        return cls(regressor.eval(), sha256, training.get("step"), corruption=faults, **known)

    def people(self, rows: dict[str, np.ndarray], faults: bool = False, depth: DepthKind | None = None) -> ProxyData:
        """Proxies as training showed them: its depth and trimming, and its ``faults`` where asked for."""
        config = SelfSupervisedConfig(trim=self.trim, corruption=self.corruption if faults else Corruption())
        return prepare(config, of_rows(rows, depth or self.depth))[0]


class Painter:
    """Panels of people: a square of their picture, with the body over it, or the body from its side."""

    def __init__(self, side: int, rasterizer: Backend = "auto"):
        self.side, self.body, self.rasterizer = side, BodyModel.load(None), rasterizer
        self.skeleton = PosedKeypoints(self.body)
        self.faces = np.ascontiguousarray(self.body.faces, np.int32)
        self.crop = np.array([(side - 1) / 2, (side - 1) / 2, side], np.float32)

    def predict(self, trained: Trained, people: ProxyData) -> Prediction:
        """What a regressor says of N people."""
        outputs, reliability = regress(trained.regressor, people)
        prediction = posed(self.skeleton, *decoded(trained.regressor, people, outputs))
        return replace(prediction, reliability=reliability.numpy())

    def picture(self, image: np.ndarray, crop: np.ndarray) -> np.ndarray:
        """The crop (3,) of an image as a panel."""
        large = cv2.warpAffine(image, crop_matrix(crop, 2 * self.side), (2 * self.side,) * 2, borderValue=(90, 90, 90))
        return cv2.resize(large, (self.side, self.side), interpolation=cv2.INTER_AREA)

    def body_panels(
        self, picture: np.ndarray, prediction: Prediction, row: int, found: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Somebody's body over ``picture``, a panel, and the same from the side."""
        bodies = [estimate_in(prediction, row, found, self.body, self.crop)]
        over = draw_overlay(picture, bodies, self.faces, rasterizer=self.rasterizer)
        return over, draw_side_view(bodies, self.faces, (self.side, self.side), self.rasterizer)

    def proxies(self, people: ProxyData, row: int) -> np.ndarray:
        """Somebody's depth and joints."""
        grey = depth_picture(people.depth[row].float().numpy(), self.side)
        return with_skeleton(grey, people.joints[row].numpy())


class Rendered:
    """The found people of a rendered data set, with their truth and pictures."""

    def __init__(self, data: Path, backgrounds: Path | None):
        self.truth = Truth(rendered.load(data))
        self.rows = self.truth.found
        self._pictures = PicturesAgain(data, backgrounds)

    def image(self, row: int) -> np.ndarray:
        """The whole picture that somebody was found in."""
        return self._pictures(self.rows["index"][row], self.rows["pose"][row]).image

    def evenly(self, count: int) -> list[int]:
        """One person of each of ``count`` categories, which lie evenly in their alphabetical list: of each its middle one, in
        the order of pictures. All categories where there are fewer."""
        category = self.rows["category"]
        names = np.unique(category)
        chosen = names[np.unique(np.linspace(0, len(names) - 1, count).round().astype(int))]
        members = [np.flatnonzero(category == name) for name in chosen]
        return [int(rows[len(rows) // 2]) for rows in members]


def people_in_footage(source: Path, count: int) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Proxies of up to ``count`` people, as rows of shards, and their pictures: footage in ``count`` equal spans, of each the
    first picture in which somebody's torso is seen, of that the person whose box is highest.

    Raises ValueError where the footage cannot be read, or nobody is in it.
    """
    footage = open_source(str(source))
    if footage.length is None:
        raise ValueError(f"--footage {source} has no known length, expected a picture, a folder of them or a video")
    extractor, rows, images = make_extractor(threads=1), {}, []
    done = -1
    for number, image in enumerate(footage.pictures()):
        span = number * count // footage.length
        if span == done:
            continue
        people = [person for person in extractor(image) if person.torso_is_seen]
        if people:
            done = span
            person = max(people, key=lambda some: some.box[3] - some.box[1])
            shards.add_row(rows, shards.proxy_row(number, image.shape[:2], replace(person, mirrored=None)))
            images.append(image)
    if not images:
        raise ValueError(f"nobody's torso is seen in --footage {source}; name other pictures, or leave it out")
    return {name: np.stack([np.asarray(value) for value in values]) for name, values in rows.items()}, images


def labelled(panels: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """``panels`` under lines of text."""
    head = np.full((_LINE * len(lines) + 4, panels.shape[1], 3), 255, np.uint8)
    for number, line in enumerate(lines):
        place = 4, _LINE * (number + 1) - 4
        cv2.putText(head, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([head, panels])


def grid(cells: Sequence[np.ndarray], columns: int, gap: int = 6) -> np.ndarray:
    """Cells of one size in rows of ``columns``, white between them."""
    height, width = cells[0].shape[:2]
    columns = min(columns, len(cells))
    lines = -(-len(cells) // columns)
    canvas = np.full((lines * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for number, cell in enumerate(cells):
        y, x = number // columns * (height + gap), number % columns * (width + gap)
        canvas[y : y + height, x : x + width] = cell
    return canvas
