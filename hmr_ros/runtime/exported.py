"""A torch module as a program that leaves torch: torch.export for one batch size or a range of them, and ONNX files made from it."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from hmr_ros.files import atomic_write
from hmr_ros.runtime.torch_backend import Flat, input_names, reduced

ANY_BATCH = range(2, 4097)  # torch.export takes a dimension of at least 1 as one of at least 2; the ONNX file takes one row, too


def export(module: torch.nn.Module, names: Sequence[str], examples: Sequence[torch.Tensor], batches: range) -> torch.export.ExportedProgram:
    """torch.export for one batch size, or for a range of them, all inputs alike. ``names`` become the inputs' names in the program."""
    examples = tuple(example[:1].expand(batches[0], *example.shape[1:]).contiguous() for example in examples)
    shapes = None
    if len(batches) > 1:
        batch = torch.export.Dim("batch", min=batches[0], max=batches[-1])
        shapes = tuple({0: batch} for _ in examples)
    with torch.no_grad():
        return torch.export.export(_named(module, names), examples, dynamic_shapes=shapes, strict=False)


def _named(module: torch.nn.Module, names: Sequence[str]) -> torch.nn.Module:
    """The module with a forward of named inputs instead of ``*inputs``: torch_tensorrt.save finds dynamic shapes by these names."""

    def forward(*inputs):
        return module(*inputs)

    forward.__signature__ = inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names])
    wrapper = torch.nn.Module()
    wrapper.module, wrapper.forward = module, forward
    return wrapper


def save_onnx(module: torch.nn.Module, examples: Sequence[torch.Tensor], path: Path, precision: str = "fp32") -> None:
    """An ONNX file with float32 inputs and outputs, their names and a free batch; needs the packages onnx and onnxscript.

    precision: "fp32" or "fp16", of the arithmetic inside. Raises ImportError where a package is missing.
    """
    import onnxscript  # noqa: F401  torch.onnx needs it, and says so less clearly

    names, flat = input_names(module, len(examples)), Flat(module)
    with torch.inference_mode():
        outputs = [name for name, _ in flat.named(*examples)]
    program = export(reduced(flat, precision), names, examples, ANY_BATCH)
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)  # remarks on parameters that no later version of a model could have
    try:
        with atomic_write(path) as partial, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                program, (), str(partial), input_names=names, output_names=outputs, dynamo=True, external_data=False, verbose=False
            )
    finally:
        logger.setLevel(before)


def run_onnx(path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outputs of an ONNX file by ONNX Runtime on the CPU. Raises ImportError where onnxruntime is missing."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {port.name: array for port, array in zip(session.get_inputs(), inputs, strict=True)})
