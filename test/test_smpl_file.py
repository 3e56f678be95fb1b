"""Reading SMPL's model files: everything the official ones contain, and nothing that could run."""

import io
import os
import pickle
import struct
import sys
import types

import numpy as np
import pytest
import scipy.sparse

from hmr_ros.body import inert_pickle
from hmr_ros.skeleton import SMPL_PARENTS
from hmr_ros.body.smpl_file import BodyFileError, read_smpl_file

VERTICES = 60


def small_model(**changes):
    """An SMPL model in every respect but its size."""
    rng = np.random.default_rng(3)
    weights, regressor = rng.random((VERTICES, 24)), rng.random((24, VERTICES)) * (rng.random((24, VERTICES)) < 0.3)
    regressor[:, 0] += 0.1
    arrays = {
        "v_template": rng.normal(size=(VERTICES, 3)),
        "shapedirs": rng.normal(size=(VERTICES, 3, 10)),
        "posedirs": rng.normal(size=(VERTICES, 3, 207)),
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "kintree_table": np.array([[p % 2**32 for p in SMPL_PARENTS], range(24)], np.int64),
        "f": rng.integers(0, VERTICES, (100, 3)).astype(np.uint32),
    }
    return arrays | changes


def same_model(found, expected):
    for key in ("v_template", "posedirs", "weights", "J_regressor"):
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-6)
    np.testing.assert_allclose(found["shapedirs"], expected["shapedirs"][..., :10], rtol=1e-6)
    np.testing.assert_array_equal(found["f"], expected["f"])
    assert tuple(found["kintree_table"][0]) == SMPL_PARENTS


# --- the official formats --------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("matrix", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix])
def test_pickle_with_chumpy_arrays_and_sparse_regressor(tmp_path, protocol, matrix):
    model = small_model(shapedirs=np.random.default_rng(0).normal(size=(VERTICES, 3, 300)))
    order = np.arange(model["weights"].size)[::-1].copy()
    official = model | {
        "v_template": Ch(model["v_template"]),
        "shapedirs": Ch(np.asfortranarray(model["shapedirs"])),
        "weights": Select(model["weights"].ravel()[::-1].copy(), order, model["weights"].shape),
        "J_regressor": matrix(model["J_regressor"]),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }
    (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(written_with_chumpy(official, protocol))
    same_model(read_smpl_file(tmp_path / "SMPL_NEUTRAL.pkl"), model)
    assert not any(name.split(".")[0] == "chumpy" for name in sys.modules)


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


def test_pickle_as_python_2_wrote_it(tmp_path):
    model, write = small_model(), Python2Writer()
    sparse = scipy.sparse.csc_matrix(model["J_regressor"])
    empty_set = b"c__builtin__\nset\n(]tR"
    fields = {
        key.encode(): write.instance(b"chumpy.ch", b"Ch", {b"x": write.array(model[key]), b"_dirty_vars": empty_set})
        for key in ("v_template", "shapedirs", "posedirs")
    }
    fields |= {key.encode(): write.array(model[key]) for key in ("weights", "f", "kintree_table")}
    parts = {name: write.array(getattr(sparse, name.decode())) for name in (b"data", b"indices", b"indptr")}
    fields[b"J_regressor"] = write.instance(
        b"scipy.sparse.csc", b"csc_matrix", {b"_shape": b"K\x18K" + bytes([VERTICES]) + b"\x86", **parts}
    )
    (tmp_path / "official.pkl").write_bytes(b"\x80\x02" + write.dict(fields) + b".")
    same_model(read_smpl_file(tmp_path / "official.pkl"), model)


def test_npz(tmp_path):
    model = small_model()
    np.savez(tmp_path / "body.npz", **model)
    same_model(read_smpl_file(tmp_path / "body.npz"), model)


# --- hostile pickles -------------------------------------------------------------------------------------------------


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile_pickles(marker):
    import copyreg
    import functools
    import operator
    import subprocess

    make = f"open({str(marker)!r}, 'w')"
    touch = f"touch {marker}".encode()
    ndarray = b"cnumpy\nndarray\n"
    attacks = {
        "os.system": pickle.dumps(Call(os.system, f"touch {marker}")),
        "posix.system, protocol 0": b"cposix\nsystem\n(S'" + touch + b"'\ntR.",
        "subprocess.Popen": pickle.dumps(Call(subprocess.Popen, ["touch", str(marker)])),
        "eval": pickle.dumps(Call(eval, make)),
        "exec": pickle.dumps({"v_template": Call(exec, make)}),
        "python 2 eval": b"c__builtin__\neval\n(S" + repr(make).encode() + b"\ntR.",
        "getattr": pickle.dumps(Call(getattr, "", "join")),
        "operator": pickle.dumps(Call(operator.methodcaller, "system", "x")),
        "partial": pickle.dumps(Call(functools.partial, print)),
        "numpy runstring": b"cnumpy.testing._private.utils\nrunstring\n(S" + repr(make).encode() + b"\n}tR.",
        "numpy load": b"cnumpy\nload\n(S'x'\ntR.",
        "numpy fromfile": b"cnumpy\nfromfile\n(S'/etc/hostname'\ntR.",
        "attribute of an allowed name": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
        "module behind an allowed module": b"\x80\x04\x8c\x09chumpy.os\x8c\x06system\x93.",
        "chumpy lambda": b"cchumpy.ch\nChLambda\n.",
        "rebuild a foreign class": b"ccopy_reg\n_reconstructor\n(csubprocess\nPopen\nc__builtin__\nobject\nNtR.",
        "rebuild a method": pickle.dumps(Call(copyreg._reconstructor, dict, object, None)),
        "extension registry": b"\x80\x02\x82\x01.",
        "persistent id": b"Pwhatever\n.",
        "call an instance": b"cchumpy.ch\nCh\n)R)R.",
        "rewrite a stand-in": ndarray + b"(N}(S'__setstate__'\nc_codecs\nencode\nutb.",
        "rewrite a stand-in's type": b"cnumpy.core.multiarray\n_reconstruct\n}(S'__new__'\nc_codecs\nencode\nub.",
        "import through codecs": b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        "inside an object array": pickle.dumps({"f": np.array([Call(os.system, f"touch {marker}")], dtype=object)}),
        "deep recursion": b"(" * 100_000,
        "truncated": b"\x80\x02}q\x01(U\x01",
    }
    # Each starts as a pickle must, so that it is the unpickler that refuses it.
    return {name: raw if raw[:1] == b"\x80" else b"\x80\x02" + raw for name, raw in attacks.items()}


@pytest.mark.parametrize("attack", list(hostile_pickles("x")))
def test_hostile_pickle_executes_nothing(tmp_path, attack):
    marker = tmp_path / "executed"
    path = tmp_path / "evil.pkl"
    path.write_bytes(hostile_pickles(marker)[attack])
    before = {cls: dict(vars(cls)) for cls in inert_pickle._STAND_INS.values()}
    with pytest.raises(BodyFileError, match="evil.pkl: .*(refused|only use latin1|not a readable SMPL pickle)"):
        read_smpl_file(path)
    assert not marker.exists()
    assert before == {cls: dict(vars(cls)) for cls in inert_pickle._STAND_INS.values()}, "a stand-in was changed"


def test_the_attacks_would_work_on_an_ordinary_unpickler(tmp_path):
    marker = tmp_path / "executed"
    pickle.loads(hostile_pickles(marker)["os.system"])
    assert marker.exists()


def test_refusal_names_what_was_asked_for(tmp_path):
    (tmp_path / "evil.pkl").write_bytes(b"\x80\x02cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(BodyFileError, match=r"posix\.system.*nothing was executed"):
        read_smpl_file(tmp_path / "evil.pkl")


def test_npz_with_python_objects_is_not_loaded(tmp_path):
    marker = tmp_path / "executed"
    model = small_model(J_regressor=np.array([Call(os.system, f"touch {marker}")], dtype=object))
    np.savez(tmp_path / "evil.npz", **model)
    with pytest.raises(BodyFileError, match="J_regressor.*Python objects"):
        read_smpl_file(tmp_path / "evil.npz")
    assert not marker.exists()


# --- wrong files -----------------------------------------------------------------------------------------------------


def nan_at(array):
    array = array.copy()
    array.flat[5] = np.nan
    return array


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"v_template": np.zeros((VERTICES, 2))}, r"v_template has shape \(60, 2\)"),
        ({"shapedirs": np.zeros((VERTICES, 3, 8))}, "8 shape coefficients, expected 10"),
        ({"weights": np.ones((VERTICES, 52)) / 52}, "weights has shape"),
        ({"weights": np.ones((VERTICES, 24))}, "must sum to 1"),
        ({"v_template": nan_at(small_model()["v_template"])}, "v_template has values that are not finite"),
        ({"posedirs": nan_at(small_model()["posedirs"])}, "posedirs has values that are not finite"),
        ({"f": np.full((5, 3), VERTICES)}, "f must index the 60 vertices"),
        ({"f": np.zeros((5, 4), int)}, "f has shape"),
        ({"kintree_table": np.zeros((2, 24), int)}, "kintree_table gives the joints' parents"),
        ({"weights": np.full((VERTICES, 24), "x")}, "weights has type"),
    ],
)
def test_unusable_arrays_are_named(tmp_path, changes, message):
    np.savez(tmp_path / "body.npz", **small_model(**changes))
    with pytest.raises(BodyFileError, match=message):
        read_smpl_file(tmp_path / "body.npz")


def test_missing_arrays_are_named(tmp_path):
    np.savez(tmp_path / "pose.npz", poses=np.zeros((3, 72)))
    with pytest.raises(BodyFileError, match="lacks v_template.*found none"):
        read_smpl_file(tmp_path / "pose.npz")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", b"<html>log in first</html>", b"PK\x03\x04 broken"])
def test_other_files_are_told_apart(tmp_path, content):
    (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(content)
    with pytest.raises(BodyFileError, match="SMPL_NEUTRAL.pkl"):
        read_smpl_file(tmp_path / "SMPL_NEUTRAL.pkl")


def test_damaged_sparse_matrix_is_refused(tmp_path):
    model = small_model()
    sparse = scipy.sparse.csc_matrix(model["J_regressor"])
    sparse.indices[0] = 5000
    buffer = io.BytesIO()
    pickle.dump(model | {"J_regressor": sparse}, buffer, protocol=2)
    (tmp_path / "SMPL.pkl").write_bytes(buffer.getvalue())
    with pytest.raises(BodyFileError, match="J_regressor.*out of range"):
        read_smpl_file(tmp_path / "SMPL.pkl")


def test_missing_file_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; expected an SMPL model"):
        read_smpl_file(tmp_path / "nowhere.pkl")
