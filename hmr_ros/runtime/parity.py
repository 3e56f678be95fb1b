"""What a backend computes against the torch module that it was made from: the check that every conversion passes before it is used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hmr_ros.runtime.compiled import CompiledModel

FLOAT32 = 1e-3  # sums in another order stay far below; a wrong or frozen operation does not
# Allowed difference by precision. fp16 has 11 significant bits, bf16 8: the embedded networks differ by up to 3e-3 and 2e-2 in them. int8 is
# for the caller to judge, on people (docs/gpu.md); here it only has to be the same network. TF32, torch's choice for convolutions on CUDA,
# has the mantissa of fp16.
TOLERANCES = {"fp32": FLOAT32, "tf32": 1e-2, "fp16": 1e-2, "bf16": 5e-2, "int8": 0.5}


def difference(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> list[float]:
    """Largest difference of each output, relative to the largest value of ``want`` or to 1, whichever is more; NaN where there is one."""
    return [float(np.max(np.abs(g - w), initial=0)) / max(1.0, float(np.max(np.abs(w), initial=0))) for g, w in zip(got, want, strict=True)]


def tolerance(module: torch.nn.Module, precision: str) -> float:
    """The allowed difference of a module's outputs: that of the precision, or the module's own (``tolerances``, by precision)."""
    return getattr(getattr(module, "module", module), "tolerances", {}).get(precision, TOLERANCES[precision])


def compared(module: torch.nn.Module, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outputs of ``module`` (of torch_backend.Flat, or of what is inside) as they are to be compared: by its static method ``compared``,
    where it has one, which turns them into numbers of one scale, such as logits into probabilities; else as they are."""
    inner = getattr(module, "module", module)
    if not hasattr(inner, "compared"):
        return list(outputs)
    return [value.numpy() for value in inner.compared(tuple(torch.from_numpy(np.ascontiguousarray(value)) for value in outputs))]


def check_parity(compiled: CompiledModel, module: torch.nn.Module, examples: Sequence[torch.Tensor], tolerance: float = FLOAT32) -> None:
    """Run both on ``examples``, one tensor per input, and on their first sample alone: what tracing froze shows there.

    ``module`` returns a tuple of tensors, one per output of ``compiled``. ``tolerance`` is the largest difference (`difference`).
    Raises RuntimeError for another shape, a larger difference, or NaN.
    """
    for batch in (len(examples[0]), 1):
        sample = [example[:batch] for example in examples]
        with torch.inference_mode():
            expected = [value.numpy() for value in module(*sample)]
        results = compiled(*(e.numpy() for e in sample))
        for output, got, want in zip(compiled.outputs, results, expected, strict=True):
            if got.shape != want.shape:
                where = f"{compiled.name} on {compiled.backend}: {output}"
                raise RuntimeError(f"{where} has shape {got.shape} for a batch of {batch}, torch gives {want.shape}; use backend='torch'")
        for output, got, want in zip(compiled.outputs, compared(module, results), compared(module, expected), strict=True):
            where = f"{compiled.name} on {compiled.backend}: {output}"
            scale = max(1.0, float(np.max(np.abs(want), initial=0)))
            (found,) = difference([got], [want])
            if not found <= tolerance:  # true of NaN, too
                raise RuntimeError(
                    f"{where} differs from torch by {found * scale:.2g} (batch of {batch}), expected at most {tolerance * scale:.2g}; "
                    "use backend='torch'"
                )
