"""Files that are whole or not there: atomic writes, JSON results, checkpoints, and what is installed in share/. The only place that
reads or writes checkpoints.

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


def require_file(path: str | Path, what: str, expected: str) -> Path:
    """``path``, where it is a file with content that may be read. ``what`` it should be and ``expected`` appear in the errors.

    Raises FileNotFoundError where nothing is there, ValueError where something else is.
    """
    path = Path(path).expanduser()
    found = ""
    try:
        if path.is_dir():
            found = "is a folder"
        elif path.is_file():
            with path.open("rb") as file:
                found = "" if file.read(1) else "is empty"
        elif path.exists():
            found = "is a pipe or device"
        else:
            target = f" (a link to {os.readlink(path)}, which is not there)" if path.is_symlink() else ""
            found = f"no such file{target}"
    except PermissionError:
        found = "may not be read by this user"
    except OSError as error:  # a name that is too long, a disk that fails
        found = f"cannot be opened ({error.strerror})"
    if found:
        raise (FileNotFoundError if found.startswith("no such file") else ValueError)(f"{what} {path}: {found}; expected {expected}")
    return path


def share_file(relative: str) -> Path:
    """A file of ``share/hmr_ros`` (or of the checkout), found upwards from this package. FileNotFoundError if absent."""
    here = Path(__file__).resolve()
    for parent in here.parents:
        for folder in (parent / "share" / "hmr_ros", parent):
            if (folder / "package.xml").is_file() and (folder / relative).is_file():
                return folder / relative
    raise FileNotFoundError(f"{relative} of hmr_ros not found above {here}; install the package again")


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
    """Read (tensors, metadata), a dict each. Raises FileNotFoundError, or ValueError for a file that is not one of ours."""
    from safetensors import SafetensorError, safe_open

    path = require_file(path, "checkpoint", "a file that `hmr-ros train`, `train lifter`, `train prior` or `fit` writes")
    if any(0xDC80 <= ord(letter) <= 0xDCFF for letter in str(path)):  # Python's escapes of single bytes
        raise ValueError(f"checkpoint {path} has a name that is not UTF-8, and safetensors opens no such file; rename it")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("hmr_ros")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"checkpoint {path} is not a safetensors file ({error}); expected a checkpoint of hmr_ros") from error
    if text is None:
        raise ValueError(f"checkpoint {path} has no 'hmr_ros' metadata; expected a checkpoint written by `hmr-ros train`")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"checkpoint {path} has 'hmr_ros' metadata that is no JSON ({error}); copy it again") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"checkpoint {path} has 'hmr_ros' metadata that is a JSON {type(metadata).__name__}, expected an object; copy it again")
    return tensors, metadata
