"""MoveNet MultiPose and BlazePose as torch modules: the same networks as the model files, for every backend that takes a torch module.

Their weights are read out of the model files themselves (weights.py); outputs equal OpenVINO's on these files (test_torch_detectors.py).
"""

from __future__ import annotations

from hmr_ros.proxies.torch_modules.blazepose import BlazePoseNet, BlazePoseOutputs
from hmr_ros.proxies.torch_modules.compiled import compile_blazepose, compile_movenet
from hmr_ros.proxies.torch_modules.movenet import MoveNetMaps, MoveNetMultiPose, MoveNetTrunk, decode

FILE_BACKENDS = ("auto", "openvino")  # these run the model files themselves, every other backend the torch modules

__all__ = [
    "FILE_BACKENDS", "BlazePoseNet", "BlazePoseOutputs", "MoveNetMaps", "MoveNetMultiPose", "MoveNetTrunk", "compile_blazepose", "compile_movenet",
    "decode",
]  # fmt: skip
