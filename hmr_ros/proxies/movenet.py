"""MoveNet MultiPose: image → people with COCO-17 keypoints, in as many passes as it takes to find small ones."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from importlib.resources import files

import cv2
import numpy as np
import torch

from hmr_ros.proxies.config import EmbeddedConfig
from hmr_ros.proxies.crops import last_pixel
from hmr_ros.proxies.similarity import same_person
from hmr_ros.proxies.torch_modules import MoveNetMaps, compile_movenet, decode, file_precision, run_as_files
from hmr_ros.runtime import CompiledModel, compile

MOVENET_FILES = ("movenet_multipose.xml", "movenet_multipose.bin")
_MOST = 6  # people a pass


@dataclass(frozen=True, eq=False)
class Detection:
    score: float
    box: np.ndarray  # (4,) px
    keypoints: np.ndarray  # (17, 3) px, confidence
    side: int = 0  # of the letterboxed input in which it was found: which pass

    @property
    def diagonal(self) -> float:
        return float(np.hypot(*(self.box[2:] - self.box[:2])))


class MoveNet:
    """Detects people; stateless. ``backend``: "openvino", and "auto" without a GPU, run the model file, every other one the torch module that equals it, in
    ``precision`` (torch_modules/compiled.py)."""

    def __init__(self, threads: int | None = None, config: EmbeddedConfig = EmbeddedConfig(), backend: str = "auto", precision: str = "fp32"):
        self.config = config
        self._networks = {side: _network(side, backend, threads, precision) for side in (256, 384, 512)}

    def __call__(self, image: np.ndarray, small_people: bool = True) -> list[Detection]:
        """People in the image, best first, each once; those below ``min_score`` are to be confirmed.

        Without ``small_people`` the 512² pass runs only where the 256² one hints at some.
        """
        return _finished(self.search(image, small_people))

    def search(self, image: np.ndarray, small_people: bool = True) -> Generator[None, None, list[Detection]]:
        """The same in steps, for several frames to share the work: it yields between network passes, and returns the people."""
        config = self.config
        found = self._pass(image, 256)
        heights = [person.box[3] - person.box[1] for person in found]
        people = [person for person in found if person.score >= config.min_agreed_score]
        hint = all(person.score < config.min_score for person in people) or min(heights) < config.small_person * image.shape[0]
        if max(image.shape[:2]) > 256 and (small_people or hint):
            yield
            fine = self._pass(image, 512)
            if len(fine) == _MOST:  # there may be more than it can tell
                fine += yield from self._in_halves(image)
            fine = [person for person in fine if person.score >= config.min_agreed_score]
            # Each scale has its strength: 256² keeps large people whole, 512² finds the limbs of small ones.
            limit = config.large_person * max(image.shape[:2])

            def by_strength(person: Detection) -> int:
                if person.score < config.min_score:
                    return 4
                large, coarse = max(person.box[2:] - person.box[:2]) > limit, person.side == 256
                return (0 if coarse else 3) if large else (2 if coarse else 1)

            people = sorted(by_score([*people, *fine]), key=by_strength)
        else:
            people = by_score(people)
        kept: list[Detection] = []
        for person in people:
            if not any(is_duplicate(person, other, config) for other in kept):
                kept.append(person)
        return by_score(kept)

    def in_window(self, image: np.ndarray, window: np.ndarray) -> list[Detection]:
        """People in one window (4,) px of the image, by the 256² pass, best first."""
        x0, y0, x1, y1 = (int(edge) for edge in (*np.floor(np.maximum(window[:2], 0)), *np.ceil(window[2:])))
        part = image[y0 : y1 + 1, x0 : x1 + 1]
        if min(part.shape[:2]) < self.config.min_side:
            return []
        found = (_moved(person, np.array([x0, y0], np.float32)) for person in self._pass(part, 256))
        return by_score([person for person in found if person.score >= self.config.min_agreed_score])

    def _in_halves(self, image: np.ndarray) -> Generator[None, None, list[Detection]]:
        """People in two overlapping windows along the longer side, but for those whom a window truncates; in steps."""
        axis = 0 if image.shape[1] >= image.shape[0] else 1  # of (x, y)
        length = image.shape[1 - axis]
        span = round(self.config.window * length)
        found = []
        for first in (0, length - span):
            yield
            window = image[:, first : first + span] if axis == 0 else image[first : first + span]
            for person in self._pass(window, 384):  # people as large as in the 512² of the whole
                near, far = person.box[axis], person.box[axis + 2]
                if (first > 0 and near < 2) or (first == 0 and far > span - 3):
                    continue
                shift = np.zeros(2, np.float32)
                shift[axis] = first
                found.append(replace(_moved(person, shift), side=span))
        return found

    def _pass(self, image: np.ndarray, side: int) -> list[Detection]:
        """At most six detections above MoveNet's noise, on the image letterboxed to side x side."""
        height, width = image.shape[:2]
        scale = side / max(height, width)
        w, h = max(round(width * scale), 1), max(round(height * scale), 1)
        x0, y0 = (side - w) // 2, (side - h) // 2
        rows = self._rows(image, side, (x0, y0, w, h))
        rows = rows[rows[:, 55] > self.config.noise_score]
        offset, stretch = np.array([x0, y0], np.float32), np.array([w / width, h / height], np.float32)
        joints = rows[:, :51].reshape(-1, 17, 3)
        xy = (joints[..., 1::-1] * side - offset + 0.5) / stretch - 0.5
        corners = (rows[:, [52, 51, 54, 53]].reshape(-1, 2, 2) * side - offset + 0.5) / stretch - 0.5
        corners = np.clip(corners.reshape(-1, 4), 0, last_pixel(image))
        keypoints = np.concatenate([xy, joints[..., 2:]], axis=-1).astype(np.float32)
        return [
            Detection(float(row[55]), box.astype(np.float32), points, side)
            for row, box, points in zip(rows, corners, keypoints)
            if np.all(box[2:] - box[:2] >= self.config.min_side)
        ]

    def _rows(self, image: np.ndarray, side: int, place: tuple[int, int, int, int]) -> np.ndarray:
        """(6, 56): 17 x (y, x, score), ymin, xmin, ymax, xmax, score. ``place``: x, y, width, height of the image in the letterbox."""
        x0, y0, w, h = place
        padded = np.zeros((1, side, side, 3), np.float32)
        resized = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if side < max(image.shape[:2]) else cv2.INTER_LINEAR)
        padded[0, y0 : y0 + h, x0 : x0 + w] = resized[..., ::-1]
        return self._networks[side](padded)[0]


def _network(side: int, backend: str, threads: int | None, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    """Function: image (1, side, side, 3) RGB, float32, 0..255 → its people (1, 6, 56)."""
    if run_as_files(backend):
        model = files("hmr_ros") / "assets" / MOVENET_FILES[0]
        return _only_output(compile(model, shapes={"input": (1, side, side, 3)}, threads=threads, precision=file_precision(precision)))
    return decoded(compile_movenet(side, backend, threads, precision))


def _only_output(network: CompiledModel) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: network(image)[0]


def decoded(trunk: CompiledModel) -> Callable[[np.ndarray], np.ndarray]:
    """``_network`` of a compiled ``MoveNetTrunk``: its maps are decoded here, in single precision."""
    return lambda image: decode(MoveNetMaps(*trunk.tensors(torch.from_numpy(image)))).cpu().numpy()


def is_duplicate(a: Detection, b: Detection, config: EmbeddedConfig) -> bool:
    """Two detections of one person."""
    return same_person(a, b, config, overlap_suffices=a.side != b.side)


def _finished(steps: Generator[None, None, list[Detection]]) -> list[Detection]:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def by_score(people: list[Detection]) -> list[Detection]:
    return sorted(people, key=lambda person: -person.score)


def _moved(person: Detection, shift: np.ndarray) -> Detection:
    keypoints = person.keypoints + np.append(shift, 0)
    return replace(person, box=person.box + np.tile(shift, 2), keypoints=keypoints.astype(np.float32))
