"""Built engines on disk: where they lie, what they were built from, and when one that lies there may be used.

An engine is good for the network, the libraries and the GPU that it was built with, and for nothing else. All of this is its key:
`hmr_ros/engines/NAME-KEY/` in the user's cache folder holds the engine's files and `engine.json`, which lists the ingredients of the key
and the files' SHA-256. The folder appears whole, by renaming. Knows nothing about TensorRT.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hmr_ros.files import write_json

logger = logging.getLogger(__name__)
Engine = TypeVar("Engine")
_RECORD = "engine.json"


def engines_folder() -> Path:
    """``$XDG_CACHE_HOME/hmr_ros/engines``, by default ``~/.cache/hmr_ros/engines``. Never a folder for temporary files: those are emptied
    on every start of a robot, and anybody may write there."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is invalid and to be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "hmr_ros" / "engines"


def key_of(ingredients: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that follow from the JSON-able ingredients alone, whatever their order."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:16]


def load_or_build(name: str, ingredients: Mapping[str, Any], build: Callable[[Path], None], load: Callable[[Path], Engine]) -> Engine:
    """The engine of these ingredients out of the cache; where it is missing, broken or somebody else's, a new one.

    name: of the network, for people. build: writes the engine's files into the folder given. load: reads them, checks what they compute
    and raises where they are not usable. A cached engine that is not usable is replaced, with a warning that says why; what ``build`` or
    the first ``load`` after it raises goes to the caller. Raises OSError where the cache folder cannot be written.
    """
    key = key_of(ingredients)
    # The name is for people who look into the folder; the key alone decides.
    folder = next(engines_folder().glob(f"*-{key}"), engines_folder() / f"{re.sub(r'[^A-Za-z0-9_.]', '_', name)}-{key}")
    if folder.exists():
        try:
            _check_record(folder, ingredients)
            engine = load(folder)
        except Exception as error:  # a damaged file may raise anything; an engine can be built again
            logger.warning("%s: the engine in %s cannot be used (%s); building it again", name, folder, " ".join(str(error).split()))
        else:
            logger.info("%s: engine from %s", name, folder)
            return engine
    folder.parent.mkdir(parents=True, exist_ok=True)
    logger.info("%s: building an engine for this GPU, which takes a minute or more, once; it will lie in %s", name, folder)
    begin = time.monotonic()
    partial = Path(tempfile.mkdtemp(prefix=f".{os.getpid()}.partial.", dir=folder.parent))
    try:
        build(partial)
        files = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
        write_json(partial / _RECORD, {"ingredients": dict(ingredients), "files": files})
        _remove(folder)
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    try:
        engine = load(folder)
    except BaseException:
        _remove(folder)  # the next start shall not find it
        raise
    logger.info("%s: engine built in %.0f s", name, time.monotonic() - begin)
    return engine


def _check_record(folder: Path, ingredients: Mapping[str, Any]) -> None:
    """Raise ValueError unless the folder holds exactly what was built from the ingredients."""
    path = folder / _RECORD
    if not path.is_file():
        raise ValueError(f"{_RECORD} is missing")
    record = json.loads(path.read_text())
    if record["ingredients"] != json.loads(json.dumps(dict(ingredients))):
        raise ValueError(f"{_RECORD} says it was built from something else")
    for file, digest in record["files"].items():
        if not (folder / file).is_file():
            raise ValueError(f"{file} is missing")
        if _sha256(folder / file) != digest:
            raise ValueError(f"{file} is not what was built: its SHA-256 differs from {_RECORD}'s")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
