"""Read pickles of numbers without executing anything in them: SMPL's model files, 3DPW, UP-3D, joblib's files.

A pickle is a program, so this reader runs it in a world where nothing can happen: each name it may ask for is replaced by
an inert class of this module that only remembers what it is given, and any other name is refused. Neither chumpy nor
scipy nor joblib is needed, and not even numpy's own unpickling code sees the file: arrays are built from the remembered
bytes afterwards.

The machine is Python's own, not the one in C: that one reserves and clears gigabytes for a memo index that a few bytes ask for.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
import sys
from collections.abc import Callable
from functools import wraps
from reprlib import repr as brief  # bounded: a few bytes of a pickle can build a value whose full repr fills the memory
from typing import BinaryIO

import numpy as np


class PickleRefused(ValueError):
    """The pickle asks for something that no file of numbers needs, or is damaged; the message says what."""


def _refusing(read: Callable) -> Callable:
    """Whatever ``read`` stumbles over in a damaged or hostile file becomes PickleRefused."""

    @wraps(read)
    def refusing(*arguments):
        try:
            return read(*arguments)
        except PickleRefused:
            raise
        except Exception as error:
            raise PickleRefused(f"not a readable pickle ({type(error).__name__}: {error}); the file is damaged") from error

    return refusing


@_refusing
def load(raw: bytes):
    """What a pickle holds, Python 2's included: plain Python values, and stand-ins for ``to_array`` and ``plain``.

    Raises PickleRefused for a name that is not on the list, and for a broken pickle.
    """
    return _InertUnpickler(io.BytesIO(raw)).load()


@_refusing
def load_joblib(file: BinaryIO):
    """Like ``load``, for an uncompressed file of ``joblib.dump``: a pickle with the arrays' bytes in between."""
    return _JoblibUnpickler(file).load()


@_refusing
def plain(value):
    """The same with every stand-in made an array: dicts, lists, tuples, strings, numbers and numpy arrays are left.

    Arrays of Python objects become lists. Raises PickleRefused for an object of chumpy or scipy that is no array.
    """
    return _plain(value, {}, 0)


@_refusing
def to_array(value) -> np.ndarray:
    """The numbers behind a stand-in; PickleRefused where there are none."""
    return _to_array(value, 0)


def _plain(value, done: dict, depth: int):
    """``done``: what was made of the values met so far, by id. A value that appears twice is made once, or a list of lists of one and the
    same list would take a time exponential in its depth."""
    if depth > 20:
        raise PickleRefused("nested too deep; the file is damaged")
    if value is None or isinstance(value, (str, bytes, bool, int, float, np.ndarray)):
        return value
    if id(value) not in done:
        done[id(value)] = _plain_anew(value, done, depth + 1)
    return done[id(value)]


def _plain_anew(value, done: dict, depth: int):
    if isinstance(value, dict):
        return {key: _plain(part, done, depth) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(part, done, depth) for part in value)
    if (
        isinstance(value, _Array)
        and type(value.state) is tuple
        and len(value.state) == 5
        and isinstance(value.state[4], list)
    ):
        return _plain(value.state[4], done, depth)  # an array of Python objects
    array = _to_array(value, 0)
    return array[()] if array.ndim == 0 else array


# ---------------------------------------------------------------------------------------------------------------------
# Inert stand-ins. All are classes and all define __setstate__, so that a pickle's BUILD instruction finds no other way
# to leave something behind, on an instance or on the class itself.


class _Inert:
    __slots__ = ("arguments", "state")

    def __new__(cls, *arguments):
        self = object.__new__(cls)
        self.arguments, self.state = arguments, None
        return self

    def __init__(self, *arguments):
        pass

    def __setstate__(self, state):
        self.state = state


class _Array(_Inert):
    __slots__ = ()


class _Dtype(_Inert):
    __slots__ = ()


class _Scalar(_Inert):
    __slots__ = ()


class _SparseColumns(_Inert):
    __slots__ = ()


class _SparseRows(_Inert):
    __slots__ = ()


class _SparseTriples(_Inert):
    """scipy's COO: a row, a column and a value for each entry."""

    __slots__ = ()


class _Chumpy(_Inert):
    __slots__ = ()


class _ChumpySelect(_Inert):
    __slots__ = ()


class _Object(_Inert):
    __slots__ = ()


class _Set(_Inert):
    """chumpy's bookkeeping holds sets; nothing in them is needed."""

    __slots__ = ()


class _JoblibArray(_Inert):
    """joblib.numpy_pickle.NumpyArrayWrapper: what is known of an array whose bytes come next in the file."""

    __slots__ = ()


class _ReconstructArray(_Inert):
    """numpy.core.multiarray._reconstruct(ndarray, shape, typecode): an empty array, filled by BUILD."""

    __slots__ = ()

    def __new__(cls, *arguments):
        return _Array()


class _ArrayFromBuffer(_Inert):
    """numpy.core.numeric._frombuffer(buffer, dtype, shape, order), protocol 5."""

    __slots__ = ()

    def __new__(cls, buffer, dtype, shape, order="C"):
        array = _Array()
        array.state = (1, shape, dtype, order == "F", buffer)
        return array


class _ReconstructObject(_Inert):
    """copy_reg._reconstructor(class, object, None): an empty instance of one of the stand-ins."""

    __slots__ = ()

    def __new__(cls, wanted, *rest):
        if not (isinstance(wanted, type) and issubclass(wanted, _Inert)):
            raise PickleRefused(f"asks to rebuild {brief(wanted)}, which is no array")
        return wanted()


class _Encode(_Inert):
    """_codecs.encode(text, "latin1"): how Python 3 writes bytes into old protocols."""

    __slots__ = ()

    def __new__(cls, text="", encoding="latin1"):
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise PickleRefused(f"asks for text encoded as {brief(encoding)}; files of numbers only use latin1")
        return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("copy_reg", "_reconstructor"): _ReconstructObject,
    ("copyreg", "_reconstructor"): _ReconstructObject,
    ("__builtin__", "object"): _Object,
    ("builtins", "object"): _Object,
    ("__builtin__", "set"): _Set,
    ("builtins", "set"): _Set,
    ("_codecs", "encode"): _Encode,
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _JoblibArray,
    ("chumpy", "Ch"): _Chumpy,
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _ChumpySelect,
}
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _ReconstructArray
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _Scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _ArrayFromBuffer
for _format, _stand_in in (("csc", _SparseColumns), ("csr", _SparseRows), ("coo", _SparseTriples)):
    for _module in (f"scipy.sparse.{_format}", f"scipy.sparse._{_format}"):  # before scipy 1.8, and since
        _STAND_INS[_module, f"{_format}_matrix"] = _stand_in
    for _module in ("scipy.sparse._arrays", f"scipy.sparse._{_format}"):  # before scipy 1.11, and since
        _STAND_INS[_module, f"{_format}_array"] = _stand_in


def _with_plain_keys(instruction: bytes, keys: slice) -> Callable:
    """The instruction, for keys whose hash is quick: that of tuples within tuples takes a time exponential in their depth."""
    load_keys = pickle._Unpickler.dispatch[instruction[0]]

    def load_plain_keys(self):
        for key in self.stack[keys]:
            parts = key if isinstance(key, tuple) else (key,)
            if not all(part is None or isinstance(part, (str, bytes, int, float, _Inert)) for part in parts):
                raise PickleRefused(f"a key {brief(key)}, expected a name or a number")
        load_keys(self)

    return load_plain_keys


class _InertUnpickler(pickle._Unpickler):
    dispatch = dict(pickle._Unpickler.dispatch)
    for _instruction, _keys in (
        (pickle.SETITEM, slice(-2, -1)), (pickle.SETITEMS, slice(None, None, 2)), (pickle.DICT, slice(None, None, 2)),
        (pickle.ADDITEMS, slice(None)), (pickle.FROZENSET, slice(None)),
    ):  # fmt: skip
        dispatch[_instruction[0]] = _with_plain_keys(_instruction, _keys)

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> type:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            if module.startswith("scipy.sparse.") and name.endswith(("_matrix", "_array")):
                raise PickleRefused(f"holds scipy's {name}, expected one in csc, csr or coo format, or a dense array; convert it and save it again") from None
            raise PickleRefused(
                f"the pickle asks for {module}.{name}, which no file of numbers needs; refused, and nothing was executed. "
                "Do not trust this file; get it from its publisher."
            ) from None

    def persistent_load(self, pid):
        raise PickleRefused(f"the pickle refers to an object outside the file ({brief(pid)}); refused")

    def load_bytearray8(self):
        """Of files of numbers only numpy's buffers are bytearrays; the length is compared before so much is reserved."""
        (size,) = struct.unpack("<Q", self.read(8))
        raw = self.read(min(size, sys.maxsize))
        if len(raw) != size:
            raise PickleRefused(f"ends within {size} bytes; copy it again")
        self.append(bytearray(raw))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


class _JoblibUnpickler(_InertUnpickler):
    """It leaves the file where an array's bytes begin."""

    dispatch = dict(_InertUnpickler.dispatch)

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self._bytes = file

    def load_build(self):
        super().load_build()
        wrapper = self.stack[-1]
        if not isinstance(wrapper, _JoblibArray):
            return
        dtype, shape = _field(wrapper, "dtype"), _plain_shape(_field(wrapper, "shape"))
        if isinstance(dtype, _Dtype) and dtype.arguments[:1] in (("O8",), ("O",)):
            self.stack[-1] = load_joblib(self._bytes)  # a pickle of its own
            return
        if wrapper.state.get("numpy_array_alignment_bytes") is not None:
            self._exactly(self._exactly(1)[0])
        dtype = _plain_dtype(dtype)
        raw = self._exactly(math.prod(shape) * dtype.itemsize)
        order = "F" if wrapper.state.get("order") == "F" else "C"
        self.stack[-1] = np.frombuffer(raw, dtype).reshape(shape, order=order)

    dispatch[pickle.BUILD[0]] = load_build

    def _exactly(self, count: int) -> bytes:
        raw = self._bytes.read(count)
        if len(raw) != count:
            raise PickleRefused(f"ends within an array: {len(raw)} of {count} bytes; copy it again")
        return raw


def _to_array(value, depth: int) -> np.ndarray:
    if depth > 4:
        raise PickleRefused("arrays nested too deep; expected a numpy, chumpy or scipy sparse array")
    if isinstance(value, _Chumpy):
        return _to_array(_field(value, "x"), depth + 1)
    if isinstance(value, _ChumpySelect):
        source, chosen = _to_array(_field(value, "a"), depth + 1), _to_array(_field(value, "idxs"), depth + 1)
        if source.dtype.kind not in "iufb":
            raise PickleRefused(f"chumpy's selection of {source.dtype}, expected numbers")
        chosen = source.ravel()[chosen.astype(np.int64)]
        shape = value.state.get("preferred_shape")
        return chosen if shape is None else chosen.reshape(_plain_shape(shape))
    if isinstance(value, (_SparseColumns, _SparseRows)):
        return _from_compressed(value, depth)
    if isinstance(value, _SparseTriples):
        return _from_triples(value, depth)
    if isinstance(value, _Array):
        return _plain_array(value)
    if isinstance(value, _Scalar) and len(value.arguments) == 2:
        dtype, raw = value.arguments
        return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, _plain_dtype(dtype))[0]
    if isinstance(value, (int, float, np.ndarray)):
        return np.asarray(value)
    raise PickleRefused(f"found {kind(value)}, expected a numpy, chumpy or scipy sparse array")


def _field(value: _Inert, name: str):
    if type(value.state) is not dict or name not in value.state:
        raise PickleRefused(f"{kind(value)} without its {name!r}; the file is damaged or from an unknown chumpy")
    return value.state[name]


def _from_compressed(value: _Inert, depth: int) -> np.ndarray:
    """CSC and CSR: ``indptr`` says which entries belong to each column or row."""
    data, indices, starts = (_to_array(_field(value, name), depth + 1) for name in ("data", "indices", "indptr"))
    rows, columns = _sparse_shape(value)
    by_column = isinstance(value, _SparseColumns)
    outer = columns if by_column else rows
    counts = np.diff(starts.astype(np.int64))
    if len(counts) != outer or (counts < 0).any() or counts.sum() != len(data):
        raise PickleRefused(f"sparse matrix {rows} x {columns} with inconsistent parts; the file is damaged")
    places = [indices, np.repeat(np.arange(outer), counts)]
    return _dense(rows, columns, *(places if by_column else places[::-1]), data)


def _from_triples(value: _SparseTriples, depth: int) -> np.ndarray:
    """COO: ``coords`` since scipy 1.13, ``row`` and ``col`` before."""
    rows, columns = _sparse_shape(value)
    coords = value.state.get("coords") or [_field(value, name) for name in ("row", "col")]
    if not isinstance(coords, (tuple, list)) or len(coords) != 2:
        raise PickleRefused(f"sparse matrix with {kind(coords)} as coordinates, expected two arrays; the file is damaged")
    return _dense(rows, columns, *(_to_array(part, depth + 1) for part in coords), _to_array(_field(value, "data"), depth + 1))


def _sparse_shape(value: _Inert) -> tuple[int, int]:
    shape = _plain_shape(_field(value, "_shape" if type(value.state) is dict and "_shape" in value.state else "shape"))
    if len(shape) != 2 or math.prod(shape) > 10**8:
        raise PickleRefused(f"sparse matrix of shape {brief(shape)}, expected two dimensions and at most 10^8 entries; the file is damaged")
    return shape


def _dense(rows: int, columns: int, row: np.ndarray, column: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Entries at (row, column) as a dense matrix; those at the same place are added, as scipy does."""
    for indices, size in ((row, rows), (column, columns)):
        if indices.dtype.kind not in "iu" or indices.shape != data.shape or data.ndim != 1:
            raise PickleRefused(f"sparse matrix {rows} x {columns} with inconsistent parts; the file is damaged")
        if len(indices) and not (0 <= indices.min() and indices.max() < size):
            raise PickleRefused(f"sparse matrix {rows} x {columns} with indices out of range; the file is damaged")
    dense = np.zeros((rows, columns))
    np.add.at(dense, (row.astype(np.int64), column.astype(np.int64)), data)
    return dense


def _plain_array(value: _Array) -> np.ndarray:
    if type(value.state) is not tuple or len(value.state) != 5:
        raise PickleRefused("a numpy array without content; the file is damaged")
    _, shape, dtype, fortran, raw = value.state
    dtype, shape = _plain_dtype(dtype), _plain_shape(shape)
    if isinstance(raw, str):  # a Python 2 string, read as latin1
        raw = raw.encode("latin1")
    if isinstance(raw, pickle.PickleBuffer):
        raw = raw.raw()
    if not isinstance(raw, (bytes, bytearray, memoryview)):
        raise PickleRefused(f"a numpy array made of {kind(raw)}, expected plain numbers")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


_PLAIN_TYPES = re.compile(r"f[248]|[iu][1248]|b1|[US]\d{1,6}")


def _plain_dtype(value) -> np.dtype:
    code = value.arguments[0] if isinstance(value, _Dtype) and value.arguments else None
    if not isinstance(code, str) or not _PLAIN_TYPES.fullmatch(code):
        raise PickleRefused(f"array of type {brief(code)}, expected plain numbers or text")
    order = value.state[1] if type(value.state) is tuple and len(value.state) > 1 else "="
    if order not in ("<", ">", "|", "="):
        raise PickleRefused(f"array with byte order {brief(order)}, expected '<' or '>'")
    return np.dtype(order + code)


def _plain_shape(shape) -> tuple[int, ...]:
    if isinstance(shape, (tuple, list)) and len(shape) <= 4:
        sizes = tuple(int(_to_array(size, 0)) for size in shape if isinstance(size, (int, _Scalar)))
        if len(sizes) == len(shape) and all(size >= 0 for size in sizes):
            return sizes
    raise PickleRefused("an array with an unreadable shape; the file is damaged")


def kind(value) -> str:
    """What a value of ``load`` is, in words."""
    name = type(value).__name__
    return f"a pickled {name.strip('_')}" if isinstance(value, _Inert) else f"a Python {name}"
