"""Checkpoints: tensors and what they mean, in one safetensors file. The only place that reads or writes them.

The metadata is one JSON object: the network and its options, the feature layout, the body model's name and hash, how it
was trained. Files are replaced atomically: a killed process leaves the old one or the new one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def save_checkpoint(path: str | Path, tensors: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Write ``tensors`` (name → torch tensor) and JSON-able ``metadata`` to ``path``, atomically."""
    from safetensors.torch import save

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    temporary.write_bytes(save(contiguous, metadata={"hmr_ros": json.dumps(metadata)}))  # save_file's are for their owner only
    os.replace(temporary, path)


def load_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read (tensors, metadata). Raises FileNotFoundError, or ValueError for a file that is not one of ours."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist; `hmr-ros train`, `train lifter`, `train prior` and `fit` write such files")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = (file.metadata() or {}).get("hmr_ros")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}); expected a checkpoint of hmr_ros") from error
    if metadata is None:
        raise ValueError(f"{path} has no 'hmr_ros' metadata; expected a checkpoint written by `hmr-ros train`")
    return tensors, json.loads(metadata)
