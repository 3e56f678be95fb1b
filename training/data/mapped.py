"""Rows of arrays that stay on disk: files as memory maps, of which the rows that are asked for are read.

Data larger than memory trains this way. Mapped pages that were read count as this process's memory until they are given back, so
they are given back after every 64 MB; the operating system keeps them as cache as long as it has room.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from hmr_ros.training.processes import everyones

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SHARED = ".shared-rows-"  # how names of files begin that processes of a run are about to share
_RESIDENT = 1 << 26  # bytes that may be mapped before they are given back
_BLOCK = 1 << 21  # bytes that the system may map at once about the one that is read
_ROWS = 8  # read at once
_touched: dict[int, mmap.mmap] = {}  # maps with pages of this process
_mapped = 0  # bytes of those pages, at most


class Rows:
    """(n, ...) array whose parts follow each other, mapped or in memory. ``rows[index]`` reads the rows of a slice, a number, or
    an array or tensor (m,) of numbers, in its order; ``np.asarray(rows)`` reads all. Raises ValueError where parts differ in shape,
    IndexError for rows outside."""

    def __init__(self, parts: Iterable[np.ndarray]):
        self.parts = list(parts)
        shapes = {part.shape[1:] for part in self.parts}
        if len(shapes) != 1:
            raise ValueError(f"rows of shapes {sorted(shapes)}, expected one shape in all files")
        self.dtype = reduce(np.promote_types, (part.dtype for part in self.parts))
        self._starts = np.cumsum([0, *map(len, self.parts)])
        self._maps = [_owner(part) for part in self.parts]
        self.shape = (int(self._starts[-1]), *shapes.pop())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index) -> np.ndarray:
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        index = np.asarray(index)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        if index.ndim == 0:
            return self[index[None]][0]
        if len(index) and not (0 <= index.min() and index.max() < len(self)):
            raise IndexError(f"rows {index.min()} to {index.max()} of {len(self)}")
        rows = np.empty((len(index), *self.shape[1:]), self.dtype)
        part = np.searchsorted(self._starts, index, side="right") - 1
        places = np.argsort(index, kind="stable")
        for first in range(0, len(index), _ROWS):
            some = places[first : first + _ROWS]
            for number in np.unique(part[some]):
                here = some[part[some] == number]
                inside = index[here] - self._starts[number]
                rows[here] = self.parts[number][inside]
                if self._maps[number] is not None:
                    size = rows[:1].nbytes
                    _give_back(self._maps[number], _BLOCK * len(np.unique(inside * size // _BLOCK)) + size * len(here))
        return rows

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        every = np.empty(self.shape, self.dtype)
        for start, part, some in zip(self._starts, self.parts, self._maps):
            every[start : start + len(part)] = part
            if some is not None:
                _give_back(some, part.nbytes + _BLOCK)
        return every if dtype is None else every.astype(dtype, copy=False)

    def reshape(self, *shape: int) -> Rows:
        """Rows of another shape (-1, ...) over the same memory."""
        return Rows([part.reshape(-1, *shape) for part in self.parts])


def _give_back(some: mmap.mmap, mapped: int) -> None:
    """Note that so many bytes of a map were read; give all pages back when there are too many."""
    global _mapped
    _touched[id(some)] = some
    _mapped += mapped
    if _mapped >= _RESIDENT:
        for touched in _touched.values():
            touched.madvise(mmap.MADV_DONTNEED)
        _touched.clear()
        _mapped = 0


def _owner(array: np.ndarray) -> mmap.mmap | None:
    """The map that holds an array's memory; None where there is none."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    return base if isinstance(base, mmap.mmap) else None


def _map(file: BinaryIO) -> mmap.mmap:
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def map_npz(path: Path, names: Sequence[str] | None = None) -> tuple[dict[str, np.ndarray], int]:
    """Arrays of an npz file, of all or some ``names`` (those it lacks are left out): mapped where they are stored uncompressed,
    otherwise read. Beside them the bytes that were read into memory."""
    arrays, held = {}, 0
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not an npz file ({error}), expected a shard; remove it, and make it again by the command that made "
                         "its folder") from error  # fmt: skip
    with archive, path.open("rb") as file:
        whole = _map(file)
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if names is not None and name not in names:
                continue
            if member.compress_type == zipfile.ZIP_STORED:
                # A local header is 30 bytes, the member's name and extra fields, whose lengths are its last two numbers.
                file.seek(member.header_offset + 26)
                lengths = struct.unpack("<HH", file.read(4))
                arrays[name] = _map_npy(file, member.header_offset + 30 + sum(lengths), whole)
            else:
                with archive.open(member) as part:
                    arrays[name] = np.lib.format.read_array(part, allow_pickle=False)
                held += arrays[name].nbytes
    return arrays, held


def map_npy(path: Path) -> np.ndarray:
    """The array of an npy file, mapped."""
    with path.open("rb") as file:
        return _map_npy(file, 0, _map(file))


def _map_npy(file: BinaryIO, start: int, whole: mmap.mmap) -> np.ndarray:
    file.seek(start)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read_header:
        raise ValueError(f"{file.name} holds an npy array of format {version}, expected one of {list(read_header)}")
    shape, fortran, dtype = read_header[version](file)
    if dtype.hasobject or fortran:
        raise ValueError(f"{file.name} holds an array of {dtype}{' in Fortran order' * fortran}, expected plain numbers in C order")
    return np.ndarray(shape, dtype, whole, file.tell()) if np.prod(shape) else np.empty(shape, dtype)


class RowWriter:
    """Collects named rows, part by part: in files without a name in ``folder``, which are gone with the process however it ends,
    or in memory without one. ``rows`` gives them back.

    With several processes each appends its own part, ``views`` times over, and ``rows`` of all has every process's, view by view.
    ``folder``, which they share, is then needed; files have a name in it until all processes have them open."""

    def __init__(self, folder: Path | None, fabric: Fabric | None = None):
        self._folder, self._fabric = folder, fabric
        self._shared = fabric is not None and fabric.world_size > 1
        if self._shared and folder is None:
            raise ValueError("no folder for rows of several processes, expected one that they share")
        self._kinds: dict[str, tuple[tuple[int, ...], np.dtype]] = {}  # shape and type of a row
        self._files: dict[str, BinaryIO] = {}
        self._parts: dict[str, list[np.ndarray]] = {}

    def append(self, **arrays: np.ndarray) -> None:
        for name, array in arrays.items():
            kind = array.shape[1:], array.dtype
            if self._kinds.setdefault(name, kind) != kind:
                raise ValueError(f"rows of {name} are {kind}, expected {self._kinds[name]} as before")
            if self._folder is None:
                self._parts.setdefault(name, []).append(array)
                continue
            if name not in self._files:
                self._folder.mkdir(parents=True, exist_ok=True)
                kept = {"prefix": SHARED, "delete": False} if self._shared else {}
                self._files[name] = (tempfile.NamedTemporaryFile if kept else tempfile.TemporaryFile)(dir=self._folder, **kept)
            self._files[name].write(np.ascontiguousarray(array).data)

    def rows(self, views: int = 1) -> dict[str, Rows]:
        """All rows by their names; to be called by every process."""
        if self._folder is None:
            return {name: Rows(parts) for name, parts in self._parts.items()}
        for file in self._files.values():
            file.flush()
        if not self._shared:
            return {name: Rows([self._mapped(file, name)]) for name, file in self._files.items()}
        own = {name: (Path(file.name).name, self._kinds[name]) for name, file in self._files.items()}
        parts: dict[str, list[np.ndarray]] = {}
        for files in everyones(own, self._fabric):
            for name, (file, kind) in files.items():
                self._kinds[name] = kind
                with (self._folder / file).open("rb") as opened:
                    parts.setdefault(name, []).append(self._mapped(opened, name))
        everyones(None, self._fabric)  # everybody has them open
        for file in self._files.values():
            Path(file.name).unlink()
        return {name: Rows([part.reshape(views, -1, *part.shape[1:])[view] for view in range(views) for part in some])
                for name, some in parts.items()}  # fmt: skip

    def _mapped(self, file: BinaryIO, name: str) -> np.ndarray:
        shape, dtype = self._kinds[name]
        return np.frombuffer(_map(file), dtype).reshape(-1, *shape)
