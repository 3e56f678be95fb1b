"""MoveNet and BlazePose on one device. A picture is (H, W, 3) RGB, float, 0..255, there; what is small comes to the host in one piece."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hmr_ros.geometry import rotation_about_z
from hmr_ros.proxies.blazepose import SIDE, BlazePoseOutput
from hmr_ros.proxies.config import EmbeddedConfig
from hmr_ros.proxies.movenet import MoveNet
from hmr_ros.proxies.on_device.warps import resize, warp_affine
from hmr_ros.proxies.torch_modules import BlazePoseOutputs, MoveNetMaps, compile_blazepose, compile_movenet, decode
from hmr_ros.proxies.torch_modules.compiled import MOVENET_SIDES
from hmr_ros.runtime import MAX_BATCH, CompiledModel


def device_of(model: CompiledModel) -> torch.device:
    """Where ``model.tensors`` leaves its results."""
    return getattr(model, "device", torch.device("cpu"))


class DeviceMoveNet(MoveNet):
    """`MoveNet` on pictures on a device, decoded there; its people (6, 56) of each pass come to the host."""

    def __init__(self, threads: int | None = None, config: EmbeddedConfig = EmbeddedConfig(), backend: str = "auto", precision: str = "fp32"):
        self.config = config
        self._trunks = {side: compile_movenet(side, backend, threads, precision) for side in MOVENET_SIDES}

    def _rows(self, image: Tensor, side: int, place: tuple[int, int, int, int]) -> np.ndarray:
        x0, y0, width, height = place
        padded = image.new_zeros((1, side, side, 3))
        padded[0, y0 : y0 + height, x0 : x0 + width] = (resize(image, height, width) + 0.5).floor()  # 8 bits, as on the CPU
        return decode(MoveNetMaps(*self._trunks[side].tensors(padded)))[0].cpu().numpy()


class DeviceBlazePose:
    """`BlazePose` for all RoIs of a picture in one batch."""

    def __init__(self, threads: int | None = None, backend: str = "auto", precision: str = "fp32", max_people: int = MAX_BATCH):
        self._network = compile_blazepose(backend, threads, precision, max_people)
        self.backend, self.device = self._network.backend, device_of(self._network)

    def __call__(self, picture: Tensor, rois: Sequence[tuple[np.ndarray, float]], flip: bool = False) -> list[BlazePoseOutput]:
        """``rois``: affine and angle of each (crops.upright_roi). In the results mask, embedding and feature map are tensors on the device,
        the rest is numpy. ``flip`` as in `BlazePose`."""
        if not rois:
            return []
        to_image, angles = np.stack([affine for affine, _ in rois]), np.array([angle for _, angle in rois])
        angles = -angles if flip else angles
        affine = torch.from_numpy(to_image).to(picture.device)
        crops = warp_affine(picture.permute(2, 0, 1)[None], affine, SIDE).round()  # 8 bits, as on the CPU
        crops = crops.flip(-1) if flip else crops
        outputs = BlazePoseOutputs(*self._network.tensors((crops / 255).permute(0, 2, 3, 1)))
        raw = outputs.landmarks.unflatten(1, (39, 5))[:, :33]
        xy = raw[..., :2]
        if flip:
            xy = torch.stack([SIDE - 1 - xy[..., 0], xy[..., 1]], -1)
        xy = xy @ affine[:, :, :2].mT + affine[:, None, :, 2]
        turn = torch.from_numpy(rotation_about_z(angles)).to(picture.device)
        world = outputs.world.unflatten(1, (39, 3))[:, :33] @ turn.mT
        small = torch.cat([xy, raw[..., 3:].sigmoid(), world, outputs.presence[:, None].expand(-1, 33, 1)], -1).cpu().numpy()
        masks = outputs.mask[..., 0].sigmoid()
        return [
            BlazePoseOutput(
                landmarks=np.ascontiguousarray(row[:, :4]),
                world=np.ascontiguousarray(row[:, 4:7]),
                presence=float(row[0, 7]),
                mask=masks[i],
                to_image=to_image[i],
                angle=float(angles[i]),
                embedding=outputs.embedding[i].flatten(),
                feature_map=outputs.feature_map[i],
            )
            for i, row in enumerate(small)
        ]
