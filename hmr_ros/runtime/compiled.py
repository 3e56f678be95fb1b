"""`compile()`: a torch module or a model file → a function on numpy arrays or torch tensors, whatever executes it.

One rule on fallbacks: "auto" tries TensorRT, with a GPU torch on it, OpenVINO, torch, in this order, and says which one it took and why not
an earlier one; an explicitly named backend is used or refused, never replaced. The same holds for the precision, where "auto" tries fp16
on a GPU, and bf16 on a CPU for a module that allows it.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hmr_ros.files import require_file

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

BACKENDS = ("tensorrt", "openvino", "torch")  # in the order in which "auto" tries them without a GPU
_WITH_GPU = ("tensorrt", "torch", "openvino")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
MAX_BATCH = 8  # people in one call of a TensorRT engine; more are split into several calls
_NEEDS = {"tensorrt": "torch", "openvino": "openvino", "torch": "torch"}  # tensorrt_backend says itself what else is missing


class BackendUnavailable(ValueError):
    """The backend that was asked for cannot run here; the message says why and what to do."""


class BackendStatus(NamedTuple):
    name: str
    available: bool
    detail: str  # version and device where available, otherwise what to do


@dataclass(frozen=True)
class Options:
    """What `compile` hands to a backend beside the module and its examples; `compile` describes them."""

    shapes: Mapping[str, Sequence[int]] | None = None
    threads: int | None = None
    precision: str = "fp32"
    max_batch: int = MAX_BATCH
    calibration: Iterable[Sequence] | None = None
    engine: Mapping[str, Any] | None = None


class TensorSpec(NamedTuple):
    """One input or output; -1 marks a dimension that may change from call to call."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


class CompiledModel(ABC):
    """A network ready to run: call it with one numpy array per input, get a tuple of numpy arrays; or `tensors` for torch's.

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
        self._count(arrays)
        return self._run([self._conform(a, spec) for a, spec in zip(arrays, self.input_specs)])

    def tensors(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The same on torch tensors. torch and TensorRT take them from any device and leave the results on their own, without a way
        through the CPU's memory; here, for OpenVINO, everything is on the CPU."""
        import torch

        return tuple(torch.from_numpy(array) for array in self(*(t.detach().cpu().numpy() for t in tensors)))

    @abstractmethod
    def _run(self, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Contiguous arrays of the declared types → fresh arrays."""

    def _count(self, given: Sequence) -> None:
        if len(given) != len(self.input_specs):
            raise ValueError(f"{self.name} takes {len(self.input_specs)} inputs {self.inputs}, got {len(given)}")

    def _check_shape(self, shape: Sequence[int], spec: TensorSpec) -> None:
        if len(shape) != len(spec.shape) or any(want not in (-1, have) for want, have in zip(spec.shape, shape)):
            raise ValueError(f"{self.name}: input {spec.name!r} has shape {tuple(shape)}, expected {spec.shape} (-1: any)")

    def _conform(self, array, spec: TensorSpec) -> np.ndarray:
        array = np.asarray(array)
        self._check_shape(array.shape, spec)
        if not np.can_cast(array.dtype, spec.dtype, casting="same_kind"):
            raise ValueError(f"{self.name}: input {spec.name!r} is {array.dtype}, expected {spec.dtype}")
        return np.ascontiguousarray(array, dtype=spec.dtype)

    def __repr__(self) -> str:
        return f"<{self.name}: {', '.join(self.inputs)} -> {', '.join(self.outputs)} on {self.backend}>"


def gpu_is_there() -> bool:
    """torch finds a CUDA device."""
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def cpu_is_faster_in_bf16() -> bool:
    """OpenVINO is there, and convolutions take it less time in bfloat16 here. Not every CPU that has bfloat16 is faster in it (docs/gpu.md)."""
    try:
        return _backend("openvino").bf16_is_faster()
    except BackendUnavailable:
        return False


def available_backends() -> list[BackendStatus]:
    """What can run here, in the order in which "auto" tries it."""
    result = []
    for name in _WITH_GPU if gpu_is_there() else BACKENDS:
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
    leave_out: Sequence[str] = (),
    threads: int | None = None,
    name: str | None = None,
    precision: str = "fp32",
    max_batch: int = MAX_BATCH,
    calibration: Iterable[Sequence] | None = None,
    engine_options: Mapping[str, Any] | None = None,
) -> CompiledModel:
    """A network and the backend that runs it → `CompiledModel`.

    model: a ``torch.nn.Module`` whose forward takes tensors and returns a tensor or a (named) tuple of them; or the path of a model file
        (.xml, .tflite, .onnx), which OpenVINO runs.
    example_inputs: one array or tensor per input of the module, batch first, any batch size; the compiled model takes every batch size.
        Parity with torch is checked on them. Not for files.
    backend: "auto", "openvino", "torch" (CUDA where there is one) or "tensorrt".
    shapes: input name → shape that replaces the declared one, for a file with dynamic sizes or to fix the batch; OpenVINO only, since
        torch fixes nothing.
    expose: names of weights in a file: what each of these layers is fed with becomes a further output, after the declared ones.
    leave_out: names of outputs of a file that nobody wants: they are not computed.
    threads: CPU threads of this model (None: the backend's choice). With torch the setting holds for the whole process.
    name: appears in messages; by default the file's stem or the module's class.
    precision: "fp32", or of the arithmetic inside, between float32 inputs and outputs: "fp16" (TensorRT, torch on CUDA), "bf16" (TensorRT,
        torch, OpenVINO on CPUs that have it), "int8" (OpenVINO with nncf installed, given ``calibration``). "auto": fp16 on a GPU, where
        parity holds, else fp32, and bf16 for a module that says ``bf16_on_a_cpu`` on OpenVINO where the CPU is faster in it and parity holds.
    max_batch: rows of the largest TensorRT engine; larger batches are split. The others take any batch in one piece.
    calibration: for int8, typical inputs: one sequence of arrays per call, as many as there are inputs.
    engine_options: further keywords of ``torch_tensorrt.dynamo.compile``; for backend "tensorrt" only.

    The module is read once: later changes to it have no effect. Raises `BackendUnavailable`, FileNotFoundError or ValueError, and
    RuntimeError where the result differs from torch's (parity.py states the tolerances).
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not one of {('auto', *BACKENDS)}")
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(f"precision {precision!r} is not one of {('auto', *PRECISIONS)}")
    if max_batch < 1:
        raise ValueError(f"max_batch is {max_batch}, expected at least 1")
    if engine_options and backend != "tensorrt":
        raise ValueError(f"engine_options={dict(engine_options)} are TensorRT's; leave them out, or use backend='tensorrt'")
    if calibration is not None and precision != "int8":
        raise ValueError(f"calibration is for precision='int8', and precision is {precision!r}; leave it out")
    if isinstance(model, (str, os.PathLike)):
        if backend not in ("auto", "openvino"):
            raise ValueError(f"{model} is a model file, which only OpenVINO runs; backend {backend!r} takes a torch module")
        if example_inputs is not None:
            raise ValueError(f"{model} is a model file: it declares its inputs, example_inputs is for torch modules")
        path = require_file(model, "model file", "one that OpenVINO reads (.xml, .onnx, .tflite)")
        options = Options(shapes, threads, "fp32" if precision == "auto" else precision, max_batch, calibration)
        return _backend("openvino").compile_file(path, options, expose, leave_out, name or path.stem)

    if expose or leave_out:
        raise ValueError(f"expose and leave_out are for model files; let {type(model).__name__} return what you want to see")
    if example_inputs is None:
        raise ValueError(f"example_inputs are needed to compile {type(model).__name__}: one array per input, batch first")
    if not isinstance(example_inputs, (tuple, list)):
        example_inputs = (example_inputs,)
    name = name or type(model).__name__
    attempts = _attempts(backend, precision, getattr(model, "bf16_on_a_cpu", False))
    reasons: dict[str, None] = {}  # each once
    for candidate, tried in attempts:
        options = Options(shapes, threads, tried, max_batch, calibration, engine_options)
        try:
            compiled = _backend(candidate).compile_module(model, tuple(example_inputs), options, name)
        except BackendUnavailable as error:
            if len(attempts) == 1:
                raise
            reasons[str(error)] = None
        except Exception as error:  # a conversion may fail for reasons only the backend knows; torch runs every module
            if (candidate, tried) == attempts[-1]:
                raise
            logger.warning("%s could not compile %s in %s (%s); trying the next backend or precision", candidate, name, tried, error)
            reasons[f"{candidate} could not compile it in {tried}"] = None
        else:
            logger.info("%s runs on %s%s", compiled.name, compiled.backend, f" ({'; '.join(reasons)})" if reasons else "")
            return compiled
    raise BackendUnavailable(f"nothing here can run {name} in {precision}: {'; '.join(reasons)}")


def _attempts(backend: str, precision: str, bf16_on_a_cpu: bool) -> list[tuple[str, str]]:
    """Backends and precisions in the order in which they are tried; one where both are explicit."""
    on_gpu = {"tensorrt", "torch"} if gpu_is_there() else {"tensorrt"}
    candidates = (backend,) if backend != "auto" else _WITH_GPU if "torch" in on_gpu else BACKENDS
    if precision != "auto":
        return [(candidate, precision) for candidate in candidates]
    tried = {candidate: ("fp16", "fp32") if candidate in on_gpu else ("fp32",) for candidate in candidates}
    if bf16_on_a_cpu and "openvino" in tried and cpu_is_faster_in_bf16():
        tried["openvino"] = ("bf16", "fp32")
    return [(candidate, each) for candidate in candidates for each in tried[candidate]]


_import_lock = threading.Lock()


def _backend(name: str):
    """The backend's module, or BackendUnavailable with what to install."""
    needs = _NEEDS[name]
    if find_spec(needs) is None:
        raise BackendUnavailable(f"backend {name!r} is not installed: pip install {needs}")
    try:
        with _import_lock:
            return import_module(f"hmr_ros.runtime.{name}_backend")
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"backend {name!r} is installed but does not load ({error}): pip install {needs} --force-reinstall") from error
