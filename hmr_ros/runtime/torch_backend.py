"""Eager torch behind `CompiledModel`: runs every module, on the first CUDA device where there is one, else on the CPU.

Also what every backend needs from a module: a private copy with flat outputs, in a reduced precision where that is asked for, and what its
inputs look like.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence

import numpy as np
import torch

from hmr_ros.runtime.compiled import BackendUnavailable, CompiledModel, Options, TensorSpec


def describe() -> str:
    return f"torch {'.'.join(torch.__version__.split('.')[:2])} ({_device()})"


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


class Flat(torch.nn.Module):
    """A copy of the module in evaluation mode whose outputs are one flat tuple of tensors."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(leaf for _, leaf in self.named(*inputs))

    def named(self, *inputs: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
        """Outputs with their names: a named tuple's fields, else output_0, output_1, ..."""
        return list(_leaves(self.module(*inputs), "output"))


class Reduced(torch.nn.Module):
    """The same function on float32 inputs and outputs, computed in another floating-point type by a copy of the module.

    A module whose arithmetic does not all survive that (``reduced_precision`` = names of its submodules that do) is converted there alone.
    """

    def __init__(self, module: torch.nn.Module, dtype: torch.dtype):
        super().__init__()
        self.module, self.dtype = copy.deepcopy(module), dtype
        inner = self.module.module if isinstance(module, Flat) else self.module
        self.parts = tuple(getattr(inner, "reduced_precision", ()))
        if not self.parts:
            self.module.to(dtype)
        for part in self.parts:
            setattr(inner, part, Reduced(getattr(inner, part), dtype))

    def forward(self, *inputs: torch.Tensor):
        if self.parts:
            return self.module(*inputs)
        outputs = self.module(*(_cast(i, self.dtype) for i in inputs))
        return _cast(outputs, torch.float32) if isinstance(outputs, torch.Tensor) else tuple(_cast(o, torch.float32) for o in outputs)


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def reduced(flat: Flat, precision: str) -> torch.nn.Module:
    """The module for "fp32", "fp16" or "bf16"."""
    return flat if precision == "fp32" else Reduced(flat, {"fp16": torch.float16, "bf16": torch.bfloat16}[precision])


def _leaves(value, name: str):
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, (tuple, list)):
        fields = getattr(value, "_fields", None)
        for i, item in enumerate(value):
            yield from _leaves(item, fields[i] if fields else f"{name}_{i}")
    else:
        raise ValueError(f"a module to compile returns tensors or tuples of tensors; its {name} is a {type(value).__name__}")


def input_names(module: torch.nn.Module, count: int) -> list[str]:
    """The parameter names of ``forward``, as far as they go."""
    names = [p.name for p in inspect.signature(module.forward).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    return [names[i] if i < len(names) else f"input_{i}" for i in range(count)]


def as_tensors(examples: Sequence) -> tuple[torch.Tensor, ...]:
    return tuple(e.detach().cpu() if isinstance(e, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(e)) for e in examples)


def at_least_two(examples: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Examples to trace with: of a single sample, the batch dimension could be mistaken for one that broadcasts."""
    return tuple(e if len(e) > 1 else torch.cat([e, e]) for e in examples)


def input_specs(names: Sequence[str], examples: Sequence[torch.Tensor]) -> list[TensorSpec]:
    """Batch free, everything else as in the example."""
    return [TensorSpec(n, (-1, *e.shape[1:]), e.numpy().dtype) for n, e in zip(names, examples)]


class TensorModel(CompiledModel):
    """What torch and TensorRT have in common: tensors on one device in, tensors there out; numpy only at the edge."""

    def __init__(self, name: str, backend: str, specs: Sequence[TensorSpec], outputs: Sequence[str], device: torch.device):
        super().__init__(name, backend, specs, outputs)
        self.device = device
        self._weights: tuple[torch.Tensor, ...] = ()

    def _forward(self, tensors: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Tensors on ``device`` → tensors there."""
        raise NotImplementedError

    def tensors(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self._count(tensors)
        placed = []
        for tensor, spec in zip(tensors, self.input_specs):
            self._check_shape(tensor.shape, spec)
            dtype = _dtype(spec.dtype)
            if not torch.can_cast(tensor.dtype, dtype):
                raise ValueError(f"{self.name}: input {spec.name!r} is {tensor.dtype}, expected {dtype}")
            placed.append(tensor.detach().to(self.device, dtype))
        with torch.no_grad():  # not inference_mode: its tensors may not be changed, and results belong to the caller
            return tuple(self._own(self._forward(placed), tensors))

    def _own(self, results: Sequence[torch.Tensor], given: Sequence[torch.Tensor]):
        """Copies of results that are an input, a weight or another result handed through."""
        taken = {tensor.untyped_storage().data_ptr() for tensor in (*given, *self._weights)}
        for result in results:
            if (memory := result.untyped_storage().data_ptr()) in taken:
                result = result.clone()
            taken.add(memory)
            yield result

    def _run(self, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        with torch.inference_mode():
            # torch.tensor copies: a module that hands an input through must not hand out the caller's memory
            outputs = self._forward([torch.tensor(a, device=self.device) for a in arrays])
            results = [o.cpu().contiguous().numpy() for o in outputs]
        return tuple(_own(results))


def _dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _own(results: list[np.ndarray]) -> list[np.ndarray]:
    """Copies of results that are views, so that no two results and no module buffer share memory."""
    return [r if r.flags.owndata else r.copy() for r in results]


class TorchModel(TensorModel):
    def __init__(self, module: torch.nn.Module, *args):
        super().__init__(*args)
        self._module = module
        self._weights = (*module.parameters(), *module.buffers())

    def _forward(self, tensors: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        return self._module(*tensors)


def compile_module(module, examples, options: Options, name: str) -> TorchModel:
    if options.shapes:
        raise ValueError(
            f"{name}: shapes={dict(options.shapes)} has no meaning for torch, which takes any shape; leave it out or use backend='openvino'"
        )
    device = _device()
    if options.precision == "int8":
        raise BackendUnavailable(f"{name}: torch runs fp32, bf16 and on CUDA fp16, not int8; use backend='openvino'")
    if options.precision == "fp16" and device.type == "cpu":
        raise BackendUnavailable(f"{name}: torch runs fp16 on CUDA only, and there is no GPU; use precision='fp32'")
    if options.threads:
        torch.set_num_threads(options.threads)
    examples = as_tensors(examples)
    flat = Flat(module)
    with torch.inference_mode():
        outputs = [n for n, _ in flat.named(*examples)]
    backend = describe() + ("" if options.precision == "fp32" else f" {options.precision}")
    specs = input_specs(input_names(module, len(examples)), examples)
    same = device.type == "cpu" and options.precision == "fp32"
    placed = flat if same else reduced(Flat(module), options.precision).to(device)
    compiled = TorchModel(placed, name, backend, specs, outputs, device)
    if not same:
        from hmr_ros.runtime.parity import check_parity, tolerance

        check_parity(compiled, flat, examples, tolerance(flat, "tf32" if options.precision == "fp32" else options.precision))
    return compiled
