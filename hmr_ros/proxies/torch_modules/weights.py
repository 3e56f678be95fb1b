"""Weights of a torch module, read out of the model file that it equals: no copy of them is shipped, and the two cannot drift apart.

Beside this module lies an index of each, ``NAME.json``, written by tools/index_weights.py: where in the model file each tensor's float16
numbers begin, and in which order the axes of weights stand there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.resources import files
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
_AXES = "OIHW"  # torch's order of a convolution's weights


def read_weights(make: Callable[[], Network], name: str) -> Network:
    """``make()`` in evaluation mode with the weights that NAME.json points at in a file of hmr_ros/assets, widened to float32.

    ValueError where the file is not the one that was indexed.
    """
    package = files("hmr_ros")
    index = json.loads((package / "proxies" / "torch_modules" / f"{name}.json").read_text())
    data = (package / "assets" / index["file"]).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != index["sha256"]:
        raise ValueError(
            f"hmr_ros/assets/{index['file']} has SHA-256 {digest[:12]}..., expected {index['sha256'][:12]}...: the "
            "file is damaged or another one; install hmr_ros again"
        )
    with torch.device("meta"):
        network = make()
    tensors = {key: _tensor(data, index, key, tuple(expected.shape)) for key, expected in network.state_dict().items()}
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def _tensor(data: bytes, index: dict, key: str, shape: tuple[int, ...]) -> Tensor:
    offset = index["offsets"][key]
    order = list(range(len(shape))) if len(shape) == 1 else axes(index["axes"]["depthwise" if shape[1] == 1 else "convolution"])
    stored = np.frombuffer(data, "<f2", int(np.prod(shape)), offset).reshape([shape[axis] for axis in order])
    return torch.from_numpy(stored.transpose(np.argsort(order)).astype(np.float32, order="C"))


def axes(order: str) -> list[int]:
    """Of torch's axes those that stand in a file as ``order``, for example "OHWI"."""
    return [_AXES.index(axis) for axis in order]
