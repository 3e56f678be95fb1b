"""What a backend computes against the torch module that it was made from: the check that every conversion passes before it is used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hmr_ros.runtime.compiled import CompiledModel

FLOAT32 = 1e-3  # sums in another order stay far below; a wrong or frozen operation does not


def check_parity(compiled: CompiledModel, module: torch.nn.Module, examples: Sequence[torch.Tensor], tolerance: float = FLOAT32) -> None:
    """Run both on ``examples``, one tensor per input, and on their first sample alone: what tracing froze shows there.

    ``module`` returns a tuple of tensors, one per output of ``compiled``. ``tolerance`` is the largest difference, relative to the
    largest value of an output or to 1, whichever is more. Raises RuntimeError for another shape, a larger difference, or NaN.
    """
    for batch in (len(examples[0]), 1):
        sample = [example[:batch] for example in examples]
        with torch.inference_mode():
            expected = [value.numpy() for value in module(*sample)]
        for output, got, want in zip(compiled.outputs, compiled(*(e.numpy() for e in sample)), expected, strict=True):
            where = f"{compiled.name} on {compiled.backend}: {output}"
            if got.shape != want.shape:
                raise RuntimeError(f"{where} has shape {got.shape} for a batch of {batch}, torch gives {want.shape}; use backend='torch'")
            worst = float(np.max(np.abs(got - want), initial=0))
            allowed = tolerance * max(1.0, float(np.max(np.abs(want), initial=0)))
            if not worst <= allowed:  # true of NaN, too
                raise RuntimeError(
                    f"{where} differs from torch by {worst:.2g} (batch of {batch}), expected at most {allowed:.2g}; use backend='torch'"
                )
