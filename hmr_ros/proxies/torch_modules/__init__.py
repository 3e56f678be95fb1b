"""MoveNet MultiPose and BlazePose as torch modules: the same networks as the model files, for every backend that takes a torch module.

Their weights are read out of the model files themselves (weights.py); outputs equal OpenVINO's on these files (test_torch_detectors.py).
"""

from __future__ import annotations

from hmr_ros.proxies.torch_modules.blazepose import BlazePoseNet, BlazePoseOutputs
from hmr_ros.proxies.torch_modules.compiled import compile_blazepose, compile_movenet, file_precision
from hmr_ros.proxies.torch_modules.movenet import MoveNetMaps, MoveNetMultiPose, MoveNetTrunk, decode
from hmr_ros.runtime import gpu_is_there

def run_as_files(backend: str) -> bool:
    """The backend runs the model files themselves: "openvino", and "auto" without a GPU. Every other one runs the torch modules."""
    return backend == "openvino" or (backend == "auto" and not gpu_is_there())


__all__ = [
    "BlazePoseNet", "BlazePoseOutputs", "MoveNetMaps", "MoveNetMultiPose", "MoveNetTrunk", "compile_blazepose", "compile_movenet",
    "decode", "file_precision", "run_as_files",
]  # fmt: skip
