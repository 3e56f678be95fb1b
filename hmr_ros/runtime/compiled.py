"""`compile()`: a torch module or a model file → a function on numpy arrays, whatever executes it.

One rule on fallbacks: "auto" tries TensorRT, OpenVINO, torch in this order and says which one it took; an explicitly named backend
is used or refused, never replaced.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from hmr_ros.files import require_file

logger = logging.getLogger(__name__)

BACKENDS = ("tensorrt", "openvino", "torch")  # in the order in which "auto" tries them
_MODULES = {"openvino": "hmr_ros.runtime.openvino_backend", "torch": "hmr_ros.runtime.torch_backend"}
_INSTALL = {"openvino": "pip install openvino", "torch": "pip install torch"}
_NO_TENSORRT = "this version of hmr_ros has no TensorRT backend; on an NVIDIA GPU use backend='torch'"


class BackendUnavailable(ValueError):
    """The backend that was asked for cannot run here; the message says why and what to do."""


class BackendStatus(NamedTuple):
    name: str
    available: bool
    detail: str  # version and device where available, otherwise what to do


class TensorSpec(NamedTuple):
    """One input or output; -1 marks a dimension that may change from call to call."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


class CompiledModel(ABC):
    """A network ready to run: call it with one numpy array per input, get a tuple of numpy arrays.

    Thread-safe. Results belong to the caller: no later call writes into them. ``backend`` names what executes it, for example
    "openvino 2026.4 (CPU)"; ``inputs`` and ``outputs`` list names in calling order, ``input_specs`` shapes and types too.
    """

    def __init__(self, name: str, backend: str, input_specs: Sequence[TensorSpec], outputs: Sequence[str]):
        self.name = name
        self.backend = backend
        self.input_specs = tuple(input_specs)
        self.inputs = tuple(spec.name for spec in input_specs)
        self.outputs = tuple(outputs)

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        """Arrays in the order of ``inputs`` (safely castable types are cast). Raises ValueError where number, shape or type do not fit."""
        if len(arrays) != len(self.input_specs):
            raise ValueError(f"{self.name} takes {len(self.input_specs)} inputs {self.inputs}, got {len(arrays)}")
        return self._run([self._conform(a, spec) for a, spec in zip(arrays, self.input_specs)])

    @abstractmethod
    def _run(self, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Contiguous arrays of the declared types → fresh arrays."""

    def _conform(self, array, spec: TensorSpec) -> np.ndarray:
        array = np.asarray(array)
        if array.ndim != len(spec.shape) or any(want not in (-1, have) for want, have in zip(spec.shape, array.shape)):
            raise ValueError(f"{self.name}: input {spec.name!r} has shape {array.shape}, expected {spec.shape} (-1: any)")
        if not np.can_cast(array.dtype, spec.dtype, casting="same_kind"):
            raise ValueError(f"{self.name}: input {spec.name!r} is {array.dtype}, expected {spec.dtype}")
        return np.ascontiguousarray(array, dtype=spec.dtype)

    def __repr__(self) -> str:
        return f"<{self.name}: {', '.join(self.inputs)} -> {', '.join(self.outputs)} on {self.backend}>"


def available_backends() -> list[BackendStatus]:
    """What can run here, in the order in which "auto" tries it."""
    result = []
    for name in BACKENDS:
        try:
            result.append(BackendStatus(name, True, _backend(name).describe()))
        except BackendUnavailable as error:
            result.append(BackendStatus(name, False, str(error)))
    return result


def compile(
    model,
    example_inputs: Sequence | np.ndarray | None = None,
    *,
    backend: str = "auto",
    shapes: Mapping[str, Sequence[int]] | None = None,
    expose: Sequence[str] = (),
    threads: int | None = None,
    name: str | None = None,
) -> CompiledModel:
    """A network and the backend that runs it → `CompiledModel`.

    model: a ``torch.nn.Module`` whose forward takes tensors and returns a tensor or a (named) tuple of them; or the path of a model file
        (.xml, .tflite, .onnx), which OpenVINO runs.
    example_inputs: one array or tensor per input of the module, batch first, any batch size; the compiled model takes every batch size.
        Not for files.
    backend: "auto", "openvino", "torch" (CUDA where there is one) or "tensorrt".
    shapes: input name → shape that replaces the declared one, for a file with dynamic sizes or to fix the batch; OpenVINO only, since
        torch fixes nothing.
    expose: names of weights in a file: what each of these layers is fed with becomes a further output, after the declared ones.
    threads: CPU threads of this model (None: the backend's choice). With torch the setting holds for the whole process.
    name: appears in messages; by default the file's stem or the module's class.

    The module is read once: later changes to it have no effect. Raises `BackendUnavailable`, FileNotFoundError or ValueError.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not one of {('auto', *BACKENDS)}")
    if isinstance(model, (str, os.PathLike)):
        if backend not in ("auto", "openvino"):
            raise ValueError(f"{model} is a model file, which only OpenVINO runs; backend {backend!r} takes a torch module")
        if example_inputs is not None:
            raise ValueError(f"{model} is a model file: it declares its inputs, example_inputs is for torch modules")
        path = require_file(model, "model file", "one that OpenVINO reads (.xml, .onnx, .tflite)")
        return _backend("openvino").compile_file(path, shapes, expose, threads, name or path.stem)

    if expose:
        raise ValueError(f"expose is for model files; let {type(model).__name__} return what you want to see")
    if example_inputs is None:
        raise ValueError(f"example_inputs are needed to compile {type(model).__name__}: one array per input, batch first")
    if not isinstance(example_inputs, (tuple, list)):
        example_inputs = (example_inputs,)
    arguments = (model, tuple(example_inputs), shapes, threads, name or type(model).__name__)
    if backend != "auto":
        return _backend(backend).compile_module(*arguments)
    for candidate in BACKENDS:
        try:
            compiled = _backend(candidate).compile_module(*arguments)
        except BackendUnavailable as error:
            logger.debug("%s: %s", candidate, error)
        except Exception as error:  # a conversion may fail for reasons only the backend knows; torch runs every module
            if candidate == BACKENDS[-1]:
                raise
            logger.warning("%s could not compile %s (%s); trying the next backend", candidate, arguments[-1], error)
        else:
            logger.info("%s runs on %s", compiled.name, compiled.backend)
            return compiled
    raise BackendUnavailable(f"nothing here can run {arguments[-1]}: {'; '.join(s.detail for s in available_backends())}")


_import_lock = threading.Lock()


def _backend(name: str):
    """The backend's module, or BackendUnavailable with what to install."""
    if name == "tensorrt":
        raise BackendUnavailable(_NO_TENSORRT)
    if find_spec(name) is None:
        raise BackendUnavailable(f"backend {name!r} is not installed: {_INSTALL[name]}")
    try:
        with _import_lock:
            return import_module(_MODULES[name])
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"backend {name!r} is installed but does not load ({error}): {_INSTALL[name]} --force-reinstall") from error
