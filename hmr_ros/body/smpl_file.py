"""Read a body model in SMPL's file format: `.npz`, or the official `.pkl`, without executing anything in it.

The official files are Python 2 pickles of chumpy arrays and a scipy sparse matrix; inert_pickle.py reads them, and needs
neither chumpy nor scipy.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from hmr_ros.body import inert_pickle
from hmr_ros.body.inert_pickle import PickleRefused, to_array
from hmr_ros.body.rest_pose import faults_of_rest_pose
from hmr_ros.files import require_file
from hmr_ros.skeleton import SMPL_PARENTS

REQUIRED = ("v_template", "shapedirs", "weights", "J_regressor", "kintree_table", "f")
OPTIONAL = ("posedirs", "keypoint_regressor", "vertex_region", "vertex_mirror", "metadata")
NUM_BETAS = 10
NUM_POSE_FEATURES = 207  # 23 joints, 9 numbers of their rotation matrices
MOST_BYTES = 2**29  # of one array in an .npz; SMPL's largest, 300 shape coefficients in float64, has 50 MB
# Joints of the weights → the relative of SMPL that has so many.
RELATIVES = {52: "SMPL-H", 55: "SMPL-X", 16: "MANO, a hand", 5: "FLAME, a head"}


class BodyFileError(ValueError):
    """The file is no usable SMPL model; the message says what was found, what is expected and what to do."""


def read_smpl_file(path: str | Path) -> dict[str, np.ndarray]:
    """Read and check an SMPL body model.

    Returns float32 `v_template` (V, 3), `shapedirs` (V, 3, 10), `weights` (V, 24), `J_regressor` (24, V), integer
    `kintree_table` (2, 24) and `f` (F, 3), and where the file has them `posedirs` (V, 3, 207) and the embedded body's
    own extras. Lengths in metres, axes y up and facing +z; a file that has others is refused, nothing is converted.

    Raises FileNotFoundError, or BodyFileError for anything that is not a complete, finite SMPL model in these axes.
    """
    try:
        path = require_file(path, "body model", "an SMPL model (.npz or the official .pkl)")
    except ValueError as error:
        raise BodyFileError(str(error)) from error
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
                    arrays[key] = _member(archive, key, path)
    except BodyFileError:
        raise
    except Exception as error:  # zipfile, zlib and numpy's header parser raise a dozen types for damaged bytes
        raise BodyFileError(
            f"body model {path}: damaged .npz archive ({type(error).__name__}: {error}); download or copy it again"
        ) from error
    return arrays


def _member(archive, key: str, path: Path) -> np.ndarray:
    """One array, after its header was checked: numpy allocates what a header claims before it reads a byte."""
    name = f"{key}.npy" if f"{key}.npy" in archive.zip.namelist() else key
    with archive.zip.open(name) as member:
        version = np.lib.format.read_magic(member)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise BodyFileError(f"body model {path}: array {key!r} has .npy version {version}, expected one of {', '.join(map(str, readers))}")
        shape, _, dtype = readers[version](member)
        if dtype.hasobject:
            raise BodyFileError(
                f"body model {path}: array {key!r} holds Python objects, which are not loaded from an .npz. Use SMPL's .pkl, or save the "
                "array dense."
            )
        found, expected = archive.zip.getinfo(name).file_size - member.tell(), math.prod(shape) * dtype.itemsize
    if found != expected or found > MOST_BYTES:
        raise BodyFileError(
            f"body model {path}: array {key!r} has {found} bytes, expected {expected} of {dtype} {shape}, and at most {MOST_BYTES}; download "
            "or copy it again"
        )
    return archive[key]


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    try:
        content = inert_pickle.load(path.read_bytes())
    except PickleRefused as error:
        raise BodyFileError(f"body model {path}: {error}") from error
    if type(content) is not dict:
        found = inert_pickle.kind(content)
        raise BodyFileError(f"body model {path}: the pickle holds {found}, expected a dict of SMPL's arrays")
    arrays = {}
    for key in (*REQUIRED, "posedirs"):
        if key in content:
            try:
                arrays[key] = to_array(content[key])
            except PickleRefused as error:
                raise BodyFileError(f"body model {path}: {key}: {error}") from error
    return arrays


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

    joints = arrays["weights"].shape[-1] if arrays["weights"].ndim == 2 else None
    if joints in RELATIVES:
        raise BodyFileError(
            f"body model {path}: weights has shape {arrays['weights'].shape}, so this is {RELATIVES[joints]}; expected SMPL, with 24 joints. "
            "Get it from https://smpl.is.tue.mpg.de"
        )
    kinds = dict.fromkeys(("kintree_table", "f", "vertex_region", "vertex_mirror"), "iu") | {"metadata": "U"}
    for key, array in list(arrays.items()):
        whole_numbers = array.dtype.kind == "f" and np.array_equal(array, np.round(array))
        if array.dtype.kind not in kinds.get(key, "iuf") and not (key in ("kintree_table", "f") and whole_numbers):
            raise BodyFileError(
                f"body model {path}: {key} has type {array.dtype}, expected {'integers' if key in kinds else 'floats'}"
            )
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                arrays[key] = array = array.astype(np.float32)  # where a large float64 becomes infinite
            if not np.isfinite(array).all():
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

    _check_extras(arrays, path)
    joints = arrays["J_regressor"].astype(np.float64) @ arrays["v_template"].astype(np.float64)
    faults = faults_of_rest_pose(arrays["v_template"], joints, faces)
    if faults:
        raise BodyFileError(f"body model {path}: {'; '.join(faults)}")

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


def _check_extras(arrays: dict[str, np.ndarray], path: Path) -> None:
    """The embedded body's own: ``metadata`` is a JSON object with its name and regions, which ``vertex_region`` counts."""
    if "metadata" not in arrays:
        return
    try:
        metadata = json.loads(str(arrays["metadata"]))
    except (ValueError, RecursionError) as error:
        raise BodyFileError(f"body model {path}: metadata is no JSON ({error}); remove it, or save it as the embedded body has it") from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not isinstance(metadata.get("regions", []), list):
        raise BodyFileError(f"body model {path}: metadata is no JSON object with a \"name\" and \"regions\"; remove it, or save it as the "
                            "embedded body has it")  # fmt: skip
    regions, labels = len(metadata.get("regions", [])), arrays.get("vertex_region")
    if labels is not None and not (0 <= labels.min() and labels.max() < regions):
        raise BodyFileError(f"body model {path}: vertex_region has labels up to {labels.max()}, but metadata names {regions} regions")
