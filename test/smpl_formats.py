"""SMPL's model files in small: a person of 60 vertices, in each of the formats that the official files have."""

import pickle
import struct
import sys
import types

import numpy as np
import pytest

from hmr_ros.skeleton import SMPL_PARENTS

VERTICES = 60
# SMPL's rest pose in round numbers, metres: y up, facing +z, left at +x.
REST_JOINTS = np.array([
    (0, 0, 0), (0.1, -0.1, 0), (-0.1, -0.1, 0), (0, 0.1, 0), (0.1, -0.5, 0), (-0.1, -0.5, 0), (0, 0.2, 0), (0.1, -0.9, 0), (-0.1, -0.9, 0),
    (0, 0.3, 0), (0.1, -0.95, 0.1), (-0.1, -0.95, 0.1), (0, 0.5, 0), (0.05, 0.4, 0), (-0.05, 0.4, 0), (0, 0.6, 0), (0.2, 0.4, 0),
    (-0.2, 0.4, 0), (0.4, 0.4, 0), (-0.4, 0.4, 0), (0.65, 0.4, 0), (-0.65, 0.4, 0), (0.75, 0.4, 0), (-0.75, 0.4, 0),
])  # fmt: skip


def small_model(**changes):
    """An SMPL model in every respect but its size."""
    rng = np.random.default_rng(3)
    weights, regressor = rng.random((VERTICES, 24)), rng.random((24, VERTICES)) * (rng.random((24, VERTICES)) < 0.3)
    regressor[:, 0] += 0.1
    regressor /= regressor.sum(1, keepdims=True)
    template = np.linalg.pinv(regressor) @ REST_JOINTS  # vertices whose joints are these
    template *= (1, 1.7 / np.ptp(template[:, 1]), 1)
    faces = rng.integers(0, VERTICES, (100, 3))
    corners = (template - template.mean(0))[faces]
    inwards = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) < 0
    faces[inwards] = faces[inwards, ::-1]
    arrays = {
        "v_template": template,
        "shapedirs": rng.normal(size=(VERTICES, 3, 10)),
        "posedirs": rng.normal(size=(VERTICES, 3, 207)),
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": regressor,
        "kintree_table": np.array([[p % 2**32 for p in SMPL_PARENTS], range(24)], np.int64),
        "f": faces.astype(np.uint32),
    }
    return arrays | changes


class Ch:
    """What a pickled chumpy array consists of: its numbers and some bookkeeping."""

    __module__ = "chumpy.ch"

    def __init__(self, x):
        self.x, self._dirty_vars, self._itr, self._cache = x, {"x"}, None, {"r": None}


class Select:
    __module__ = "chumpy.reordering"

    def __init__(self, a, idxs, preferred_shape):
        self.a, self.idxs, self.preferred_shape = Ch(a), idxs, preferred_shape


def written_with_chumpy(content, protocol: int) -> bytes:
    """Pickled while the stand-ins can be imported as chumpy's classes; afterwards they cannot."""
    modules = {"chumpy": types.ModuleType("chumpy")}
    for cls in (Ch, Select):
        modules[cls.__module__] = types.ModuleType(cls.__module__)
        setattr(modules[cls.__module__], cls.__name__, cls)
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        return pickle.dumps(content, protocol=protocol)


class Python2Writer:
    """Writes pickles as Python 2 did: byte strings, numpy.core, copy_reg and __builtin__."""

    def text(self, value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def array(self, array: np.ndarray) -> bytes:
        code = f"{array.dtype.kind}{array.dtype.itemsize}".encode()
        raw = array.tobytes()
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
            + b"(K\x01(" + b"".join(b"J" + struct.pack("<i", n) for n in array.shape) + b"t"
            + b"cnumpy\ndtype\n(" + self.text(code) + b"K\x00K\x01tR"
            + b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
        )  # fmt: skip

    def instance(self, module: bytes, name: bytes, fields: dict) -> bytes:
        new = b"ccopy_reg\n_reconstructor\n(c" + module + b"\n" + name + b"\nc__builtin__\nobject\nNtR"
        return new + self.dict(fields) + b"b"

    def dict(self, fields: dict) -> bytes:
        return b"}(" + b"".join(self.text(key) + value for key, value in fields.items()) + b"u"
