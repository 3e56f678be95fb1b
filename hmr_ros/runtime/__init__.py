"""How a network is executed: torch, OpenVINO or TensorRT behind one `compile()`. Nothing in here knows a particular network.

Importing this package loads none of them; they are imported when a backend is asked for.
"""

from hmr_ros.runtime.compiled import (
    MAX_BATCH, BackendStatus, BackendUnavailable, CompiledModel, TensorSpec, available_backends, compile, cpu_is_faster_in_bf16, gpu_is_there,
)  # fmt: skip

__all__ = [
    "MAX_BATCH", "BackendStatus", "BackendUnavailable", "CompiledModel", "TensorSpec", "available_backends", "compile", "cpu_is_faster_in_bf16",
    "gpu_is_there",
]  # fmt: skip
