"""A folder of shards, on a disk or behind any URL that fsspec knows (s3://, gs://, file://, ...): files are whole or not there.

An object store cannot rename, and a cluster may have two workers make one shard, where the first was thought dead. So a file is *staged*
first, under a hidden name with the hash of its content, which nobody else can be writing with other content; whoever asked for it then
*commits* it, once, by moving it to its name: a rename on a disk, a copy in the store elsewhere. What was staged and never committed is
removed in the end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from hmr_ros.files import make_folder
from hmr_ros.io.remote import filesystem, is_url, told


class ShardFolder:
    """The folder at a path, or at a URL; made where it is missing.

    Raises ValueError where something else has its name, or the URL's protocol is not known or lacks its package.
    """

    def __init__(self, location: str | Path):
        self.location = str(location)
        if is_url(location):
            self._files, self._root = filesystem(self.location)
            with told(self.location):
                self._files.makedirs(self._root, exist_ok=True)
        else:
            from fsspec.implementations.local import LocalFileSystem

            self._files, self._root = LocalFileSystem(), str(make_folder(Path(location)))

    def names(self) -> set[str]:
        """Of all files, the staged ones included."""
        self._files.invalidate_cache()
        try:
            paths = self._files.ls(self._root, detail=False)
        except FileNotFoundError:  # an object store has no empty folders
            return set()
        return {path.rstrip("/").rpartition("/")[2] for path in paths} - {""}

    def read(self, name: str) -> bytes:
        """FileNotFoundError where there is no such file."""
        return self._files.cat_file(self._path(name))

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """To be read in parts."""
        with self._files.open(self._path(name), "rb") as file:
            yield file

    def write(self, name: str, content: bytes) -> None:
        """The whole file or none of it."""
        self.commit(name, self.stage(name, content))

    def write_json(self, name: str, content: Any) -> None:
        self.write(name, json.dumps(content, indent=1, allow_nan=False, sort_keys=True).encode())  # equal contents are equal bytes

    def stage(self, name: str, content: bytes) -> str:
        """Write a file under a hidden name, which is returned."""
        staged = f".{hashlib.sha256(content).hexdigest()[:16]}.partial.{name}"
        with told(self.location):
            self._files.pipe_file(self._path(staged), content)
        return staged

    def commit(self, name: str, staged: str) -> None:
        """Give a staged file its name, in the place of an older one."""
        self._files.mv(self._path(staged), self._path(name))

    def remove_staged(self) -> None:
        for name in self.names():
            if name.startswith(".") and ".partial." in name:
                self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
