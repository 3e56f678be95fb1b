"""Files that are whole or not there: atomic writes, JSON results, and checkpoints. The only place that reads or writes checkpoints.

A checkpoint is tensors and what they mean, in one safetensors file. Its metadata is one JSON object: the network and its
options, the feature layout, the body model's name and hash, how it was trained.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """The name of a temporary file beside ``path``, for the block to write; it replaces ``path`` when the block ends.

    A killed process leaves the old file or the new one, and readers see one of the two. An error in the block leaves the old
    one and no temporary file. The temporary name is hidden and keeps the ending, by which OpenCV and numpy choose the format:
    ``.PID.partial.NAME``. Missing folders are made, links are followed, and a pipe or device is written as it is.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any, **options: Any) -> None:
    """``content`` as a JSON file, atomically; ``options`` are those of json.dumps. ValueError for numbers that are not finite."""
    text = json.dumps(content, **{"indent": 1, "allow_nan": False} | options)
    with atomic_write(path) as partial:
        partial.write_text(text)


def write_picture(path: str | Path, picture: Any, *options: int) -> None:
    """A picture as OpenCV encodes it for this ending, atomically. Encoded in memory: cv2.imwrite crashes on names that are not UTF-8."""
    import cv2

    good, data = cv2.imencode(Path(path).suffix, picture, options)
    if not good:
        raise ValueError(f"OpenCV cannot encode a picture of shape {picture.shape} as {Path(path).suffix} for {path}")
    with atomic_write(path) as partial:
        partial.write_bytes(data)


def make_folder(path: str | Path) -> Path:
    """The folder, made where it is missing. ValueError where something else has its name."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        taken = next(part for part in (path, *path.parents) if part.exists() or part.is_symlink())
        raise ValueError(f"{path} cannot be a folder: {taken} is a file, expected a folder or a new name") from error
    return path


def save_checkpoint(path: str | Path, tensors: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Write ``tensors`` (name → torch tensor) and JSON-able ``metadata`` to ``path``, atomically."""
    from safetensors.torch import save

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as partial:
        partial.write_bytes(save(contiguous, metadata={"hmr_ros": json.dumps(metadata)}))  # save_file's are for their owner only


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
