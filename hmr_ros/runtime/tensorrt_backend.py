"""TensorRT behind `CompiledModel`: torch.export → torch_tensorrt.dynamo.compile → an engine in the user's cache (engine_cache.py).

A network becomes two engines: one for a single person, static and run as a CUDA graph, and one for 2 to ``max_batch`` people (torch.export
takes a dimension of at least 1 as one of at least 2). Reduced precision is a converted copy of the module between float32 inputs and
outputs, since torch-tensorrt has no precision keywords any more. torch-tensorrt swallows keywords that it does not know: `checked` refuses
them. Written against the source of torch-tensorrt 2.14; docs/gpu.md says what has run on a GPU.
"""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch

import hmr_ros
from hmr_ros.runtime.compiled import BackendUnavailable, Options
from hmr_ros.runtime.engine_cache import engines_folder, load_or_build
from hmr_ros.runtime.exported import export
from hmr_ros.runtime.parity import check_parity, tolerance
from hmr_ros.runtime.torch_backend import Flat, TensorModel, as_tensors, at_least_two, input_names, input_specs, reduced

# What a build always asks for. fp32 means float32: TF32 would miss its parity. The rest keeps the whole network in one engine.
BUILD_OPTIONS = {"require_full_compilation": True, "min_block_size": 1, "disable_tf32": True, "truncate_double": True}
_ONE, _MANY = "one.pt2", "many.pt2"
_graphs = threading.RLock()  # whether engines run as CUDA graphs is one switch of the process


def describe() -> str:
    library = Library()
    return f"tensorrt {library.versions()['tensorrt']} ({library.device})"


def checked(function: Callable, **keywords: Any) -> dict[str, Any]:
    """``keywords``, all of which ``function`` names in its signature; TypeError for others, even where it would swallow them."""
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = sorted(set(keywords) - set(known))
    if unknown:
        name = f"{function.__module__}.{function.__qualname__}"
        raise TypeError(f"{name} does not know {', '.join(unknown)} and would ignore it; expected some of {', '.join(known)}")
    return keywords


class Builder(Protocol):
    """What building and running engines takes: `Library`, the real one; tests bring another that runs without a GPU."""

    device: torch.device

    def versions(self) -> dict[str, str]:
        """What an engine depends on beside the network."""

    def build(self, program: torch.export.ExportedProgram, examples: Sequence[torch.Tensor], batches: range, options: Mapping, path: Path):
        """Write the engine of ``program`` for batches of these sizes to ``path``. Raises TypeError for options that it does not know."""

    def load(self, path: Path) -> Callable[..., Sequence[torch.Tensor]]:
        """What ``build`` wrote, as a function on tensors."""

    def run(self, engine: Callable, tensors: Sequence[torch.Tensor], graph: bool) -> Sequence[torch.Tensor]:
        """``graph``: as a CUDA graph."""


class Library:
    """torch_tensorrt on the current CUDA device. Raises `BackendUnavailable` where something is missing, in words."""

    def __init__(self):
        if not torch.cuda.is_available():
            cuda = torch.version.cuda
            found = f"(for CUDA {cuda}) finds none" if cuda else "is a CPU build"
            raise BackendUnavailable(f"backend 'tensorrt': TensorRT needs an NVIDIA GPU, and torch {torch.__version__} {found}; use 'openvino' or 'torch'")
        if find_spec("torch_tensorrt") is None:
            raise BackendUnavailable("backend 'tensorrt' needs torch-tensorrt, which is not installed: docs/gpu.md says how, or use 'torch'")
        try:
            self._trt, self._dynamo = import_module("torch_tensorrt"), import_module("torch_tensorrt.dynamo")
            self._tensorrt = import_module("tensorrt")
        except Exception as error:  # missing or foreign shared libraries raise several types
            raise BackendUnavailable(
                f"backend 'tensorrt': torch-tensorrt is installed but does not load ({' '.join(str(error).split())}); it needs TensorRT's "
                "libraries of its own version: docs/gpu.md, or use 'torch'"
            ) from error
        self.device = torch.device("cuda", torch.cuda.current_device())

    def versions(self) -> dict[str, str]:
        return {
            "torch": torch.__version__,
            "torch_tensorrt": self._trt.__version__,
            "tensorrt": self._tensorrt.__version__,
            "compute_capability": ".".join(map(str, torch.cuda.get_device_capability(self.device))),
            "gpu": torch.cuda.get_device_name(self.device),  # kernels are chosen by their time on this card
        }

    def build(self, program, examples, batches, options, path) -> None:
        compile = self._dynamo.compile
        # By default it writes below /tmp. It makes no key of its own for this file: kernels' times of one GPU and version.
        options = {**options, "timing_cache_path": str(engines_folder() / f"timing-{self._tensorrt.__version__}.bin")}
        inputs = [_profile(self._trt.Input, example, batches) for example in examples]
        module = compile(program, **checked(compile, arg_inputs=inputs, device=self.device, **options))
        save = self._trt.save
        save(module, str(path), **checked(save, output_format="exported_program", arg_inputs=inputs))

    def load(self, path):
        return self._trt.load(str(path)).module()

    def run(self, engine, tensors, graph):
        with _graphs:
            if not graph:
                return engine(*tensors)
            with self._trt.runtime.enable_cudagraphs(engine) as captured:
                return captured(*tensors)


def _profile(make_input: Callable, example: torch.Tensor, batches: range):
    smallest, middle, largest = ((batch, *example.shape[1:]) for batch in (batches[0], batches[len(batches) // 2], batches[-1]))
    if smallest == largest:
        return make_input(shape=smallest, dtype=example.dtype)
    # Axes of one name are one dimension: all inputs have the same batch.
    return make_input(min_shape=smallest, opt_shape=middle, max_shape=largest, dtype=example.dtype, shared_dims={0: "batch"})


class TensorRTModel(TensorModel):
    """A static engine for one row and, up to ``max_batch``, one for more; larger batches are split."""

    def __init__(self, builder: Builder, one: Callable, many: Callable | None, max_batch: int, name: str, specs, outputs, precision: str):
        versions = builder.versions()
        backend = f"tensorrt {versions['tensorrt']} ({builder.device})" + ("" if precision == "fp32" else f" {precision}")
        super().__init__(name, backend, specs, outputs, builder.device)
        self._builder, self._one, self._many, self._max_batch = builder, one, many, max_batch
        self._lock = threading.Lock()  # an engine has one context of execution

    def _forward(self, tensors: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        rows = len(tensors[0])
        if any(len(tensor) != rows for tensor in tensors):
            raise ValueError(f"{self.name}: inputs have batches of {[len(t) for t in tensors]}, expected one size")
        if rows == 0:
            return [result[:0] for result in self._piece([t.new_zeros((1, *t.shape[1:])) for t in tensors])]
        pieces = [self._piece([t[i : i + self._max_batch] for t in tensors]) for i in range(0, rows, self._max_batch)]
        return pieces[0] if len(pieces) == 1 else [torch.cat(parts) for parts in zip(*pieces, strict=True)]

    def _piece(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        single = len(tensors[0]) == 1
        with self._lock:
            # Cloned: the next call may write into the memory of this one's results.
            results = self._builder.run(self._one if single else self._many, [t.contiguous() for t in tensors], graph=single)
            return [result.clone() for result in results]


def weights_hash(module: torch.nn.Module) -> str:
    """SHA-256 of a module's class and of its parameters and buffers: names, types, shapes, values."""
    digest = hashlib.sha256(f"{type(module).__module__}.{type(module).__qualname__}".encode())
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def ingredients_of(module: torch.nn.Module, examples: Sequence[torch.Tensor], options: Options, builder: Builder) -> dict[str, Any]:
    """Everything that an engine depends on, JSON-able: the key of the cache."""
    return {
        "weights": weights_hash(module),
        "hmr_ros": hmr_ros.__version__,
        **builder.versions(),
        "precision": options.precision,
        "inputs": [[list(e.shape[1:]), str(e.dtype)] for e in examples],
        "max_batch": options.max_batch,
        "options": {key: repr(value) for key, value in _build_options(options).items()},
    }


def _build_options(options: Options) -> dict[str, Any]:
    return {**BUILD_OPTIONS, **(options.engine or {})}


def compile_module(module, examples, options: Options, name: str, builder: Builder | None = None) -> TensorRTModel:
    if options.precision == "int8":
        raise BackendUnavailable(f"{name}: the TensorRT backend runs fp32, fp16 and bf16, not int8; use precision='fp16'")
    if options.shapes:
        raise ValueError(f"{name}: shapes={dict(options.shapes)} has no meaning for TensorRT, give max_batch; or use backend='openvino'")
    builder = Library() if builder is None else builder
    examples = at_least_two(as_tensors(examples))
    flat = Flat(module)
    with torch.inference_mode():
        outputs = [n for n, _ in flat.named(*examples)]
    specs = input_specs(input_names(module, len(examples)), examples)

    def build(folder: Path) -> None:
        placed = reduced(Flat(module), options.precision).to(builder.device)
        there = [example.to(builder.device) for example in examples]
        sizes = {_ONE: range(1, 2), _MANY: range(2, options.max_batch + 1)}
        for file, batches in sizes.items():
            if batches:
                builder.build(export(placed, [s.name for s in specs], there, batches), there, batches, _build_options(options), folder / file)

    def load(folder: Path) -> TensorRTModel:
        many = builder.load(folder / _MANY) if options.max_batch > 1 else None
        one = builder.load(folder / _ONE)
        compiled = TensorRTModel(builder, one, many, options.max_batch, name, specs, outputs, options.precision)
        check_parity(compiled, flat, examples, tolerance(flat, options.precision))  # of a new engine as of one from the cache
        return compiled

    return load_or_build(name, ingredients_of(flat.module, examples, options, builder), build, load)
