"""Read a body model in SMPL's file format: `.npz`, or the official `.pkl`, without executing anything in it.

The official files are Python 2 pickles of chumpy arrays and a scipy sparse matrix. A pickle is a program, so this
reader runs it in a world where nothing can happen: each name it may ask for is replaced by an inert class of this
module that only remembers what it is given, and any other name is refused. Neither chumpy nor scipy is needed, and
not even numpy's own unpickling code sees the file: arrays are built from the remembered bytes afterwards.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np

from hmr_ros.skeleton import SMPL_PARENTS

REQUIRED = ("v_template", "shapedirs", "weights", "J_regressor", "kintree_table", "f")
OPTIONAL = ("posedirs", "keypoint_regressor", "vertex_region", "vertex_mirror", "metadata")
NUM_BETAS = 10
NUM_POSE_FEATURES = 207  # 23 joints, 9 numbers of their rotation matrices


class BodyFileError(ValueError):
    """The file is no usable SMPL model; the message says what was found, what is expected and what to do."""


def read_smpl_file(path: str | Path) -> dict[str, np.ndarray]:
    """Read and check an SMPL body model.

    Returns float32 `v_template` (V, 3), `shapedirs` (V, 3, 10), `weights` (V, 24), `J_regressor` (24, V), integer
    `kintree_table` (2, 24) and `f` (F, 3), and where the file has them `posedirs` (V, 3, 207) and the embedded body's
    own extras. Lengths in metres, axes y up and facing +z.

    Raises FileNotFoundError, or BodyFileError for anything that is not a complete, finite SMPL model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"body model {path}: no such file; expected an SMPL model (.npz or the official .pkl)")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic[:2] == b"PK":
        arrays = _read_npz(path)
    elif magic[:1] in (b"\x80", b"(", b"}"):
        arrays = _read_pickle(path)
    else:
        raise BodyFileError(
            f"body model {path}: starts with {magic!r}, which is neither an .npz archive nor a pickle; expected SMPL's "
            "own .pkl or an .npz with the same arrays. Was the download complete, and is it unpacked?"
        )
    return _checked(arrays, path)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in (*REQUIRED, *OPTIONAL):
                if key in archive.files:
                    try:
                        arrays[key] = archive[key]
                    except ValueError as error:
                        raise BodyFileError(
                            f"body model {path}: array {key!r} cannot be read as plain numbers ({error}); Python "
                            "objects are not loaded from an .npz. Use SMPL's .pkl, or save the array dense."
                        ) from error
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise BodyFileError(f"body model {path}: damaged .npz archive ({error}); download or copy it again") from error
    return arrays


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    try:
        content = _InertUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except BodyFileError as error:
        raise BodyFileError(f"body model {path}: {error}") from error
    except Exception as error:  # whatever a broken or hostile pickle makes the machine stumble over
        raise BodyFileError(
            f"body model {path}: not a readable SMPL pickle ({type(error).__name__}: {error}); expected SMPL's own .pkl"
        ) from error
    if type(content) is not dict:
        raise BodyFileError(f"body model {path}: the pickle holds {_kind(content)}, expected a dict of SMPL's arrays")
    arrays = {}
    for key in (*REQUIRED, "posedirs"):
        if key in content:
            try:
                arrays[key] = _to_array(content[key])
            except (BodyFileError, ValueError, TypeError, OverflowError, MemoryError) as error:
                raise BodyFileError(f"body model {path}: {key}: {error}") from error
    return arrays


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
            raise BodyFileError(f"asks to rebuild {wanted!r}, which is no part of an SMPL model")
        return wanted()


class _Encode(_Inert):
    """_codecs.encode(text, "latin1"): how Python 3 writes bytes into old protocols."""

    __slots__ = ()

    def __new__(cls, text="", encoding="latin1"):
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise BodyFileError(f"asks for text encoded as {encoding!r}; SMPL models only use latin1")
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
            raise BodyFileError(
                f"the pickle asks for {module}.{name}, which no SMPL model needs; refused, and nothing was executed. "
                "Do not trust this file; get the model from its publisher."
            ) from None

    def persistent_load(self, pid):
        raise BodyFileError(f"the pickle refers to an object outside the file ({pid!r}); refused")


def _to_array(value, depth: int = 0) -> np.ndarray:
    """The numbers behind a stand-in."""
    if depth > 4:
        raise BodyFileError("arrays nested too deep; expected a numpy, chumpy or scipy sparse array")
    if isinstance(value, _Chumpy):
        return _to_array(_field(value, "x"), depth + 1)
    if isinstance(value, _ChumpySelect):
        source, chosen = _to_array(_field(value, "a"), depth + 1), _to_array(_field(value, "idxs"), depth + 1)
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
    if isinstance(value, (int, float)):
        return np.asarray(value)
    raise BodyFileError(f"found {_kind(value)}, expected a numpy, chumpy or scipy sparse array")


def _field(value: _Inert, name: str):
    if type(value.state) is not dict or name not in value.state:
        raise BodyFileError(f"{_kind(value)} without its {name!r}; the file is damaged or from an unknown chumpy")
    return value.state[name]


def _dense(value: _Inert, depth: int) -> np.ndarray:
    data, indices, starts = (_to_array(_field(value, name), depth + 1) for name in ("data", "indices", "indptr"))
    rows, columns = _plain_shape(_field(value, "_shape" if "_shape" in value.state else "shape"))
    by_column = isinstance(value, _SparseColumns)
    outer, inner = (columns, rows) if by_column else (rows, columns)
    counts = np.diff(starts.astype(np.int64))
    if rows * columns > 10**8 or len(counts) != outer or (counts < 0).any() or counts.sum() != len(data):
        raise BodyFileError(f"sparse matrix {rows} x {columns} with inconsistent parts; the file is damaged")
    indices = indices.astype(np.int64)
    if len(indices) != len(data) or (len(indices) and not (0 <= indices.min() and indices.max() < inner)):
        raise BodyFileError(f"sparse matrix {rows} x {columns} with indices out of range; the file is damaged")
    dense = np.zeros((outer, inner))
    np.add.at(dense, (np.repeat(np.arange(outer), counts), indices), data)
    return dense.T if by_column else dense


def _plain_array(value: _Array) -> np.ndarray:
    if type(value.state) is not tuple or len(value.state) != 5:
        raise BodyFileError("a numpy array without content; the file is damaged")
    _, shape, dtype, fortran, raw = value.state
    dtype, shape = _plain_dtype(dtype), _plain_shape(shape)
    if isinstance(raw, str):  # a Python 2 string, read as latin1
        raw = raw.encode("latin1")
    if isinstance(raw, pickle.PickleBuffer):
        raw = raw.raw()
    if not isinstance(raw, (bytes, bytearray, memoryview)):
        raise BodyFileError(f"a numpy array made of {_kind(raw)}, expected plain numbers")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


_PLAIN_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


def _plain_dtype(value) -> np.dtype:
    code = value.arguments[0] if isinstance(value, _Dtype) and value.arguments else None
    if not isinstance(code, str) or code not in _PLAIN_TYPES:
        raise BodyFileError(f"array of type {code!r}, expected plain integers or floats")
    order = value.state[1] if type(value.state) is tuple and len(value.state) > 1 else "="
    if order not in ("<", ">", "|", "="):
        raise BodyFileError(f"array with byte order {order!r}, expected '<' or '>'")
    return np.dtype(order + code)


def _plain_shape(shape) -> tuple[int, ...]:
    if isinstance(shape, (tuple, list)) and len(shape) <= 4:
        sizes = tuple(int(_to_array(size)) for size in shape if isinstance(size, (int, _Scalar)))
        if len(sizes) == len(shape) and all(size >= 0 for size in sizes):
            return sizes
    raise BodyFileError("an array with an unreadable shape; the file is damaged")


def _kind(value) -> str:
    name = type(value).__name__
    return f"a pickled {name.strip('_')}" if isinstance(value, _Inert) else f"a Python {name}"


# ---------------------------------------------------------------------------------------------------------------------


def _checked(arrays: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise BodyFileError(
            f"body model {path}: lacks {', '.join(missing)}; found {', '.join(sorted(arrays)) or 'none of them'}. "
            "Expected an SMPL model with 24 joints (not SMPL-H, SMPL-X or MANO, and no pose file)."
        )

    def expect(key: str, shape: tuple[int | str, ...]) -> None:
        found = arrays[key].shape
        if len(found) != len(shape) or any(isinstance(s, int) and s != f for s, f in zip(shape, found)):
            raise BodyFileError(f"body model {path}: {key} has shape {found}, expected {shape}; is it an SMPL model?")

    kinds = dict.fromkeys(("kintree_table", "f", "vertex_region", "vertex_mirror"), "iu") | {"metadata": "U"}
    for key, array in arrays.items():
        whole_numbers = array.dtype.kind == "f" and np.array_equal(array, np.round(array))
        if array.dtype.kind not in kinds.get(key, "iuf") and not (key in ("kintree_table", "f") and whole_numbers):
            raise BodyFileError(
                f"body model {path}: {key} has type {array.dtype}, expected {'integers' if key in kinds else 'floats'}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BodyFileError(f"body model {path}: {key} has values that are not finite; the file is damaged")
    expect("v_template", ("V", 3))
    vertices = len(arrays["v_template"])
    expect("shapedirs", (vertices, 3, "at least 10"))
    if arrays["shapedirs"].shape[2] < NUM_BETAS:
        raise BodyFileError(
            f"body model {path}: shapedirs has {arrays['shapedirs'].shape[2]} shape coefficients, expected 10 or more"
        )
    expect("weights", (vertices, 24))
    expect("J_regressor", (24, vertices))
    expect("kintree_table", (2, 24))
    expect("f", ("F", 3))
    for key, shape in (
        ("posedirs", (vertices, 3, NUM_POSE_FEATURES)), ("keypoint_regressor", (17, vertices)),
        ("vertex_region", (vertices,)), ("vertex_mirror", (vertices,)),
    ):  # fmt: skip
        if key in arrays:
            expect(key, shape)

    parents = tuple(int(p) for p in arrays["kintree_table"][0].astype(np.int64)[1:])
    if parents != SMPL_PARENTS[1:]:
        raise BodyFileError(
            f"body model {path}: kintree_table gives the joints' parents as {parents}, expected {SMPL_PARENTS[1:]}"
        )
    faces = arrays["f"].astype(np.int64)
    if len(faces) == 0 or faces.min() < 0 or faces.max() >= vertices:
        raise BodyFileError(f"body model {path}: f must index the {vertices} vertices; the file is damaged")
    for key, axis in (("weights", "each vertex"), ("J_regressor", "each joint")):
        error = np.abs(arrays[key].sum(1) - 1).max()
        if error > 1e-2:
            raise BodyFileError(f"body model {path}: {key} of {axis} must sum to 1, found a deviation of {error:.3g}")

    result = {key: np.ascontiguousarray(array, np.float32) for key, array in arrays.items() if array.dtype.kind == "f"}
    result["shapedirs"] = np.ascontiguousarray(arrays["shapedirs"][..., :NUM_BETAS], np.float32)
    for key in ("v_template", "weights", "J_regressor"):
        result[key] = np.ascontiguousarray(arrays[key], np.float32)
    result["f"] = faces.astype(np.int32)
    result["kintree_table"] = np.array([SMPL_PARENTS, range(24)], np.int64)
    for key in ("vertex_region", "vertex_mirror", "metadata"):
        if key in arrays:
            result[key] = arrays[key]
    return result
