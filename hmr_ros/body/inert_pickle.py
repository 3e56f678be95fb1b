"""Read pickles of numbers without executing anything in them: SMPL's model files, 3DPW, UP-3D, joblib's files.

A pickle is a program, so this reader runs it in a world where nothing can happen: each name it may ask for is replaced by
an inert class of this module that only remembers what it is given, and any other name is refused. Neither chumpy nor
scipy nor joblib is needed, and not even numpy's own unpickling code sees the file: arrays are built from the remembered
bytes afterwards.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from typing import BinaryIO

import numpy as np


class PickleRefused(ValueError):
    """The pickle asks for something that no file of numbers needs, or is damaged; the message says what."""


def load(raw: bytes):
    """What a pickle holds, Python 2's included: plain Python values, and stand-ins for ``to_array`` and ``plain``.

    Raises PickleRefused for a name that is not on the list, and whatever a broken pickle makes the machine stumble over.
    """
    return _InertUnpickler(io.BytesIO(raw), encoding="latin1").load()


def load_joblib(file: BinaryIO):
    """Like ``load``, for an uncompressed file of ``joblib.dump``: a pickle with the arrays' bytes in between."""
    return _JoblibUnpickler(file).load()


def plain(value, depth: int = 0):
    """The same with every stand-in made an array: dicts, lists, tuples, strings, numbers and numpy arrays are left.

    Arrays of Python objects become lists; an object of chumpy or scipy that is no array is refused by ``to_array``.
    """
    if depth > 20:
        raise PickleRefused("nested too deep; the file is damaged")
    if isinstance(value, dict):
        return {key: plain(part, depth + 1) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(part, depth + 1) for part in value)
    if value is None or isinstance(value, (str, bytes, bool, int, float, np.ndarray)):
        return value
    if (
        isinstance(value, _Array)
        and type(value.state) is tuple
        and len(value.state) == 5
        and isinstance(value.state[4], list)
    ):
        return plain(value.state[4], depth + 1)  # an array of Python objects
    array = to_array(value)
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
            raise PickleRefused(f"asks to rebuild {wanted!r}, which is no array")
        return wanted()


class _Encode(_Inert):
    """_codecs.encode(text, "latin1"): how Python 3 writes bytes into old protocols."""

    __slots__ = ()

    def __new__(cls, text="", encoding="latin1"):
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise PickleRefused(f"asks for text encoded as {encoding!r}; files of numbers only use latin1")
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
for _format, _stand_in in (("csc", _SparseColumns), ("csr", _SparseRows)):
    for _module in (f"scipy.sparse.{_format}", f"scipy.sparse._{_format}"):
        _STAND_INS[_module, f"{_format}_matrix"] = _stand_in


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise PickleRefused(
                f"the pickle asks for {module}.{name}, which no file of numbers needs; refused, and nothing was executed. "
                "Do not trust this file; get it from its publisher."
            ) from None

    def persistent_load(self, pid):
        raise PickleRefused(f"the pickle refers to an object outside the file ({pid!r}); refused")


class _JoblibUnpickler(pickle._Unpickler):
    """The pure Python unpickler, since it alone leaves the file where the array's bytes begin. Same rules."""

    find_class = _InertUnpickler.find_class
    persistent_load = _InertUnpickler.persistent_load
    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="latin1")
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


def to_array(value, depth: int = 0) -> np.ndarray:
    """The numbers behind a stand-in."""
    if depth > 4:
        raise PickleRefused("arrays nested too deep; expected a numpy, chumpy or scipy sparse array")
    if isinstance(value, _Chumpy):
        return to_array(_field(value, "x"), depth + 1)
    if isinstance(value, _ChumpySelect):
        source, chosen = to_array(_field(value, "a"), depth + 1), to_array(_field(value, "idxs"), depth + 1)
        chosen = source.ravel()[chosen.astype(np.int64)]
        shape = value.state.get("preferred_shape")
        return chosen if shape is None else chosen.reshape(_plain_shape(shape))
    if isinstance(value, (_SparseColumns, _SparseRows)):
        return _dense(value, depth)
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


def _dense(value: _Inert, depth: int) -> np.ndarray:
    data, indices, starts = (to_array(_field(value, name), depth + 1) for name in ("data", "indices", "indptr"))
    rows, columns = _plain_shape(_field(value, "_shape" if "_shape" in value.state else "shape"))
    by_column = isinstance(value, _SparseColumns)
    outer, inner = (columns, rows) if by_column else (rows, columns)
    counts = np.diff(starts.astype(np.int64))
    if rows * columns > 10**8 or len(counts) != outer or (counts < 0).any() or counts.sum() != len(data):
        raise PickleRefused(f"sparse matrix {rows} x {columns} with inconsistent parts; the file is damaged")
    indices = indices.astype(np.int64)
    if len(indices) != len(data) or (len(indices) and not (0 <= indices.min() and indices.max() < inner)):
        raise PickleRefused(f"sparse matrix {rows} x {columns} with indices out of range; the file is damaged")
    dense = np.zeros((outer, inner))
    np.add.at(dense, (np.repeat(np.arange(outer), counts), indices), data)
    return dense.T if by_column else dense


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
        raise PickleRefused(f"array of type {code!r}, expected plain numbers or text")
    order = value.state[1] if type(value.state) is tuple and len(value.state) > 1 else "="
    if order not in ("<", ">", "|", "="):
        raise PickleRefused(f"array with byte order {order!r}, expected '<' or '>'")
    return np.dtype(order + code)


def _plain_shape(shape) -> tuple[int, ...]:
    if isinstance(shape, (tuple, list)) and len(shape) <= 4:
        sizes = tuple(int(to_array(size)) for size in shape if isinstance(size, (int, _Scalar)))
        if len(sizes) == len(shape) and all(size >= 0 for size in sizes):
            return sizes
    raise PickleRefused("an array with an unreadable shape; the file is damaged")


def kind(value) -> str:
    """What a value of ``load`` is, in words."""
    name = type(value).__name__
    return f"a pickled {name.strip('_')}" if isinstance(value, _Inert) else f"a Python {name}"
