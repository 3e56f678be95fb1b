"""Eager torch behind `CompiledModel`: runs every module, on the first CUDA device where there is one, else on the CPU.

Also what every backend needs from a module: a private copy with flat outputs, and what its inputs look like.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence

import numpy as np
import torch

from hmr_ros.runtime.compiled import CompiledModel, TensorSpec


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


def input_specs(names: Sequence[str], examples: Sequence[torch.Tensor]) -> list[TensorSpec]:
    """Batch free, everything else as in the example."""
    return [TensorSpec(n, (-1, *e.shape[1:]), e.numpy().dtype) for n, e in zip(names, examples)]


class TorchModel(CompiledModel):
    def __init__(self, module: Flat, device: torch.device, name: str, specs: Sequence[TensorSpec], outputs: Sequence[str]):
        super().__init__(name, describe(), specs, outputs)
        self._module, self._device = module, device

    def _run(self, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        with torch.inference_mode():
            # torch.tensor copies: a module that hands an input through must not hand out the caller's memory
            outputs = self._module(*(torch.tensor(a, device=self._device) for a in arrays))
            results = [o.cpu().contiguous().numpy() for o in outputs]
        return tuple(_own(results))


def _own(results: list[np.ndarray]) -> list[np.ndarray]:
    """Copies of results that are views, so that no two results and no module buffer share memory."""
    return [r if r.flags.owndata else r.copy() for r in results]


def compile_module(module, examples, shapes, threads, name) -> TorchModel:
    if shapes:
        raise ValueError(f"{name}: shapes={dict(shapes)} has no meaning for torch, which takes any shape; leave it out or use backend='openvino'")
    if threads:
        torch.set_num_threads(threads)
    device = _device()
    examples = as_tensors(examples)
    flat = Flat(module).to(device)
    with torch.inference_mode():
        outputs = [n for n, _ in flat.named(*(e.to(device) for e in examples))]
    return TorchModel(flat, device, name, input_specs(input_names(module, len(examples)), examples), outputs)
