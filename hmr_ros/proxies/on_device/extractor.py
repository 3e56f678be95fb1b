"""The embedded extractor on a device: the picture goes there once, everybody's crops, masks and depth maps are made there in one batch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hmr_ros.geometry import crop_matrix
from hmr_ros.proxies.blazepose import SIDE, BlazePoseOutput
from hmr_ros.proxies.config import EmbeddedConfig
from hmr_ros.proxies.crops import joints_box, last_pixel, person_crop, truncated, upright_roi
from hmr_ros.proxies.depth import trim_depth
from hmr_ros.proxies.embedded import EmbeddedExtractor
from hmr_ros.proxies.movenet import Detection, is_duplicate
from hmr_ros.proxies.on_device.depth_maps import coarse_depths, sensor_depths
from hmr_ros.proxies.on_device.detectors import DeviceBlazePose, DeviceMoveNet
from hmr_ros.proxies.on_device.warps import inverse, warp_affine
from hmr_ros.proxies.person import PersonProxies, PersonTensors
from hmr_ros.runtime import MAX_BATCH

Confirmed = tuple[Detection, BlazePoseOutput, bool]  # keypoints of both networks, BlazePose's output, and whether it agrees


class DeviceExtractor(EmbeddedExtractor):
    """`EmbeddedExtractor` on the device of its networks: the same people but for rounding, and the same identity.

    Beside the numpy arrays of everybody, what a regressor reads stays on the device (``PersonProxies.tensors``).
    """

    def __init__(
        self, threads: int | None = None, config: EmbeddedConfig = EmbeddedConfig(), backend: str = "auto", precision: str = "fp32",
        max_people: int = MAX_BATCH,
    ):  # fmt: skip
        self.config = config
        self.movenet = DeviceMoveNet(threads, config, backend, precision)
        self.blazepose = DeviceBlazePose(threads, backend, precision, max_people)
        self.backend, self.device = self.blazepose.backend, self.blazepose.device

    @torch.no_grad()
    def __call__(self, image: np.ndarray, depth: np.ndarray | None = None, small_people: bool = True) -> list[PersonProxies]:
        picture = self._uploaded(image)
        kept: list[Confirmed] = []
        detections = self.movenet(picture, small_people)
        for detection, view in zip(detections, self._views(picture, detections)):
            confirmed = self._merge(detection, view)
            if confirmed is not None and not any(is_duplicate(confirmed[0], other, self.config) for other, _, _ in kept):
                kept.append(confirmed)
        return self._people(picture, kept, depth)

    def search(self, image: np.ndarray, small_people: bool = True) -> Generator[None, None, list[Detection]]:
        return self.movenet.search(self._uploaded(image), small_people)

    @torch.no_grad()
    def confirm(self, image: np.ndarray | Tensor, detection: Detection, depth: np.ndarray | None = None) -> PersonProxies | None:
        """``image``: or what became of it on the device."""
        return super().confirm(image if isinstance(image, Tensor) else self._uploaded(image), detection, depth)

    def follow(self, image: np.ndarray, person: PersonProxies, depth: np.ndarray | None = None) -> PersonProxies | None:
        return self.follow_all(image, [person], depth)[0]

    @torch.no_grad()
    def follow_all(self, image: np.ndarray, people: Sequence[PersonProxies], depth: np.ndarray | None = None) -> list[PersonProxies | None]:
        """`follow` of each of them, in one batch; those whom BlazePose alone cannot follow one after the other."""
        picture, config = self._uploaded(image), self.config
        alone = [i for i, person in enumerate(people) if person.blazepose.agreed and not truncated(person.box, image, config)]
        found: dict[int, Confirmed] = {}
        for i, view in zip(alone, self._views(picture, [people[i] for i in alone])):
            keypoints = view.joints.astype(np.float32)
            box = np.clip(joints_box(keypoints, people[i].box, config), 0, last_pixel(image))
            if view.presence >= config.min_presence and np.all(box[2:] - box[:2] >= config.min_side):
                found[i] = Detection(people[i].score, box, keypoints), view, True
        followed = dict(zip(found, self._people(picture, list(found.values()), depth)))
        return [
            now
            if (now := followed.get(i)) is not None and (now.torso_is_seen or not person.torso_is_seen)
            else self._found_again(picture, person, depth)
            for i, person in enumerate(people)
        ]

    def _uploaded(self, image: np.ndarray) -> Tensor:
        """uint8 BGR → (H, W, 3) RGB, float, 0..255, on the device."""
        array = np.ascontiguousarray(image)
        return torch.from_numpy(array if array.flags.writeable else array.copy()).to(self.device).flip(-1).float()  # torch wants writable memory

    def _views(self, picture: Tensor, people: Sequence, flip: bool = False) -> list[BlazePoseOutput]:
        """BlazePose's of everybody with ``keypoints`` and ``box``."""
        return self.blazepose(picture, [upright_roi(person.keypoints, person.box, SIDE, self.config) for person in people], flip)

    def _view(self, picture: Tensor, keypoints: np.ndarray, box: np.ndarray, flip: bool = False) -> BlazePoseOutput:
        (view,) = self.blazepose(picture, [upright_roi(keypoints, box, SIDE, self.config)], flip)
        return view if not flip else replace(view, embedding=view.embedding.cpu().numpy(), feature_map=view.feature_map.cpu().numpy())

    def _proxies(self, picture: Tensor, person: Detection, view: BlazePoseOutput, agreed: bool, depth: np.ndarray | None) -> PersonProxies:
        return self._people(picture, [(person, view, agreed)], depth)[0]

    def _people(self, picture: Tensor, confirmed: Sequence[Confirmed], depth: np.ndarray | None) -> list[PersonProxies]:
        if not confirmed:
            return []
        size, device = self.config.size, self.device
        people, views, _ = zip(*confirmed)
        crops = np.stack([person_crop(person.keypoints, person.box, self.config) for person in people])
        to_crop = np.stack([crop_matrix(crop, size) for crop in crops])
        from_crop = inverse(to_crop)  # to the image's pixels; from there to the RoI's
        to_roi = inverse(np.stack([view.to_image for view in views]))
        crop_to_roi = np.concatenate([to_roi[:, :, :2] @ from_crop[:, :, :2], to_roi[:, :, :2] @ from_crop[:, :, 2:] + to_roi[:, :, 2:]], -1)
        masks = warp_affine(torch.stack([view.mask for view in views])[:, None], _there(crop_to_roi, device), size)[:, 0]
        if depth is None:
            landmarks, world = np.stack([view.landmarks for view in views]), np.stack([view.world for view in views])
            points = landmarks[..., :2] @ np.swapaxes(to_crop[:, :, :2], 1, 2) + to_crop[:, None, :, 2]
            depths = coarse_depths(*(_there(values, device) for values in (points, world, landmarks[..., 2:].prod(-1))), masks)
        else:
            depths = sensor_depths(_there(depth, device), _there(from_crop, device), masks)
        depths = trim_depth(depths)
        embeddings, feature_maps = (torch.stack([getattr(view, name) for view in views]) for name in ("embedding", "feature_map"))
        arrays = [values.cpu().numpy() for values in (masks, depths, embeddings, feature_maps)]
        found = []
        for i, (person, view, agreed) in enumerate(confirmed):
            mask, depth_map, embedding, feature_map = (values[i] for values in arrays)
            proxies = PersonProxies(
                score=person.score,
                box=person.box.astype(np.float32),
                keypoints=person.keypoints.astype(np.float32),
                crop=crops[i],
                mask=mask,
                depth=depth_map,
                depth_source="coarse" if depth is None else "sensor",
                confident=self.config.confident,
                blazepose=replace(view, embedding=embedding, feature_map=feature_map).record(agreed),
                tensors=PersonTensors(depths[i], embeddings[i], feature_maps[i]),
            )
            found.append(replace(proxies, mirrored=self._flipped(picture, person, proxies)) if self.config.flip else proxies)
        return found


def _there(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)
