"""Reading SMPL's model files: everything the official ones contain, and nothing that could run."""

import io
import os
import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse

from hmr_ros.body import inert_pickle
from hmr_ros.body.model import EMBEDDED_BODY, BodyModel
from hmr_ros.body.smpl_file import BodyFileError, read_smpl_file
from hmr_ros.skeleton import SMPL_MIRROR, SMPL_PARENTS
from smpl_formats import VERTICES, Ch, Python2Writer, Select, small_model, written_with_chumpy


def same_model(found, expected):
    for key in ("v_template", "posedirs", "weights", "J_regressor"):
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-6)
    np.testing.assert_allclose(found["shapedirs"], expected["shapedirs"][..., :10], rtol=1e-6)
    np.testing.assert_array_equal(found["f"], expected["f"])
    assert tuple(found["kintree_table"][0]) == SMPL_PARENTS


# --- the official formats --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("matrix", [getattr(scipy.sparse, f"{kind}_{name}") for kind in ("csc", "csr", "coo") for name in ("matrix", "array")])
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


# What scipy pickles, found with 1.9.3, 1.10.1, 1.11.4, 1.13.1, 1.15.3 and 1.17.1; the last line as before scipy 1.8.
SCIPY_GENERATIONS = [
    *[("scipy.sparse._arrays", f"{kind}_array", fields) for kind, fields in (("csc", "i"), ("csr", "i"), ("coo", "row"))],
    *[(f"scipy.sparse._{kind}", f"{kind}_{name}", fields) for name in ("array", "matrix")
      for kind, fields in (("csc", "i"), ("csr", "i"), ("coo", "row"), ("coo", "coords"))],
    *[(f"scipy.sparse.{kind}", f"{kind}_matrix", fields) for kind, fields in (("csc", "i"), ("csr", "i"), ("coo", "row"))],
]  # fmt: skip


@pytest.mark.parametrize("module, name, fields", SCIPY_GENERATIONS)
def test_sparse_matrices_of_every_scipy_are_read(tmp_path, monkeypatch, module, name, fields):
    model = small_model()
    matrix = getattr(scipy.sparse, f"{name[:3]}_matrix")(model["J_regressor"])
    parts = {"i": ("indices", "indptr"), "row": ("row", "col"), "coords": ("coords",)}[fields]
    stand_in = type(name, (), {"__module__": module})()
    vars(stand_in).update({"_shape": matrix.shape, "maxprint": 50, "data": matrix.data} | {part: getattr(matrix, part) for part in parts})
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{name: type(stand_in)}))
    (tmp_path / "SMPL.pkl").write_bytes(pickle.dumps(model | {"J_regressor": stand_in}, protocol=2))
    same_model(read_smpl_file(tmp_path / "SMPL.pkl"), model)


def test_entries_of_a_coo_matrix_at_one_place_are_added(tmp_path):
    model = small_model()
    coo = scipy.sparse.coo_array(model["J_regressor"])
    twice = scipy.sparse.coo_array((np.tile(coo.data / 2, 2), tuple(np.tile(part, 2) for part in coo.coords)), coo.shape)
    (tmp_path / "SMPL.pkl").write_bytes(pickle.dumps(model | {"J_regressor": twice}))
    same_model(read_smpl_file(tmp_path / "SMPL.pkl"), model)


def test_other_sparse_formats_are_refused_with_what_to_do(tmp_path):
    model = small_model(J_regressor=scipy.sparse.bsr_array(small_model()["J_regressor"]))
    (tmp_path / "SMPL.pkl").write_bytes(pickle.dumps(model))
    with pytest.raises(BodyFileError, match="holds scipy's bsr_array, expected one in csc, csr or coo"):
        read_smpl_file(tmp_path / "SMPL.pkl")


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
    with pytest.raises(BodyFileError, match="evil.pkl: .*(refused|only use latin1|not a readable pickle)"):
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


# --- axes and units --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded():
    with np.load(EMBEDDED_BODY) as arrays:
        return {key: arrays[key] for key in ("v_template", "shapedirs", "weights", "J_regressor", "kintree_table", "f", "keypoint_regressor")}


def placed(arrays, linear, origin=(0, 0, 0), flip=False):
    """The body with its points mapped by a matrix (3, 3) or a number."""
    linear = np.asarray(linear, float) * np.eye(3) if np.ndim(linear) == 0 else np.asarray(linear, float)
    return arrays | {
        "v_template": arrays["v_template"] @ linear.T + origin,
        "shapedirs": np.einsum("ab,vbk->vak", linear, arrays["shapedirs"]),
        "f": arrays["f"][:, ::-1] if flip else arrays["f"],
    }


Z_UP = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
X_UP = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
TILTED = [[1, 0, 0], [0, 0.6, -0.8], [0, 0.8, 0.6]]


@pytest.mark.parametrize(
    "linear, message",
    [
        (100, "v_template is 171.1 m tall, expected 1.2 to 2.3 m: if these are centimetres, multiply .* by 0.01"),
        (1000, "1711 m tall.*millimetres.* by 0.001"),
        (1 / 0.0254, "inches.* by 0.0254"),
        (1 / 0.3048, "feet.* by 0.3048"),
        (0.5, "v_template is 0.855.* m tall, expected 1.2 to 2.3 m$"),
        (Z_UP, r"up is \+z, the front -y and left \+x, expected \+y, \+z and \+x: use SMPL's"),
        (X_UP, r"up is \+x, the front \+y and left \+z, expected"),
        (np.diag([-1, 1, -1]), r"up is \+y, the front -z and left -x, expected"),
        (np.diag([-1, -1, 1]), r"up is -y, the front \+z and left -x, expected"),
        (TILTED, r"up is \(.*0.00, 0.58, 0.82\), the front .* and left \+x, expected"),
        (np.diag([-1, 1, 1]), "left and right are exchanged .*joints called left are at -x.*mirrored.*; the faces enclose -0.06.*face inwards"),
        (100 * np.array(Z_UP), r"171.1 m tall.*centimetres.*; up is \+z"),
    ],
)  # fmt: skip
def test_a_body_in_other_units_or_axes_is_refused(tmp_path, embedded, linear, message):
    np.savez(tmp_path / "body.npz", **placed(embedded, linear))
    with pytest.raises(BodyFileError, match=message):
        BodyModel.load(tmp_path / "body.npz")


def test_faces_that_look_inwards_are_refused(tmp_path, embedded):
    np.savez(tmp_path / "body.npz", **placed(embedded, 1, flip=True))
    with pytest.raises(BodyFileError, match="face inwards, reverse the corners of f"):
        read_smpl_file(tmp_path / "body.npz")


def test_exchanged_joint_names_are_refused(tmp_path, embedded):
    mirror = list(SMPL_MIRROR)
    np.savez(tmp_path / "body.npz", **embedded | {"J_regressor": embedded["J_regressor"][mirror], "weights": embedded["weights"][:, mirror]})
    with pytest.raises(BodyFileError, match="left and right are exchanged"):
        read_smpl_file(tmp_path / "body.npz")


def test_joints_in_another_order_are_refused(tmp_path, embedded):
    order = np.roll(range(24), 3)
    np.savez(tmp_path / "body.npz", **embedded | {"J_regressor": embedded["J_regressor"][order]})
    with pytest.raises(BodyFileError):
        read_smpl_file(tmp_path / "body.npz")


@pytest.mark.parametrize("scale, origin", [(1, (0, 0.9, 0)), (1, (5, -30, 2)), (0.75, (0, 0, 0)), (1.3, (0, 0, 0))])
def test_metres_with_another_origin_and_other_statures_are_taken(tmp_path, embedded, scale, origin):
    body = placed(embedded, scale, origin)
    np.savez(tmp_path / "body.npz", **body)
    np.testing.assert_allclose(read_smpl_file(tmp_path / "body.npz")["v_template"], body["v_template"], rtol=1e-5, atol=1e-5)


# --- what is no file of SMPL's ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("joints, name", [(52, "SMPL-H"), (55, "SMPL-X"), (16, "MANO"), (5, "FLAME")])
def test_relatives_of_smpl_are_named(tmp_path, joints, name):
    weights, regressor = np.ones((VERTICES, joints)) / joints, np.ones((joints, VERTICES)) / VERTICES
    np.savez(tmp_path / "body.npz", **small_model(weights=weights, J_regressor=regressor, kintree_table=np.zeros((2, joints), int)))
    with pytest.raises(BodyFileError, match=f"this is {name}.*expected SMPL, with 24 joints"):
        read_smpl_file(tmp_path / "body.npz")


@pytest.mark.parametrize("metadata", ["no json", "[1]", "{}", '{"name": 3}', '{"name": "x", "regions": 3}', "[" * 100_000])
def test_metadata_that_is_none_is_refused(tmp_path, metadata):
    np.savez(tmp_path / "body.npz", **small_model(metadata=metadata, keypoint_regressor=np.ones((17, VERTICES)) / VERTICES))
    with pytest.raises(BodyFileError, match="metadata is no JSON"):
        BodyModel.load(tmp_path / "body.npz")


def test_a_damaged_regressor_beside_the_file_is_named(tmp_path):
    np.savez(tmp_path / "body.npz", **small_model())
    (tmp_path / "J_regressor_coco.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(BodyFileError, match="J_regressor_coco.npy.*no readable .npy"):
        BodyModel.load(tmp_path / "body.npz")
