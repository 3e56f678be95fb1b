"""The body model against independent references, and the embedded body's own promises."""

import functools
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hmr_ros.body.betas_map import BetasMap, fit_betas_map
from hmr_ros.body.model import EMBEDDED_BODY, BodyModel, BodyOutput
from hmr_ros.body.posed_kernel import Skeleton
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.body.skinning_kernel import Skinning
from hmr_ros.files import load_checkpoint
from hmr_ros.networks.checkpoints import EMBEDDED
from hmr_ros.networks.weights import body_of
from hmr_ros.skeleton import COCO_KEYPOINTS, COCO_MIRROR, SMPL_JOINTS, SMPL_MIRROR, SMPL_PARENTS
from hmr_ros.body.smpl_file import BodyFileError, read_smpl_file

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "derive_body.py"


@functools.cache
def embedded():
    return BodyModel.load()


@pytest.fixture(scope="module")
def body():
    return embedded()


@pytest.fixture(scope="module")
def arrays():
    return read_smpl_file(EMBEDDED_BODY)


def rotations_from(vectors):
    """(..., 3) axis-angle to (..., 3, 3), by the matrix exponential: not the package's own formula."""
    x, y, z = np.moveaxis(np.asarray(vectors, float), -1, 0)
    zero = np.zeros_like(x)
    skew = np.stack([np.stack([zero, -z, y], -1), np.stack([z, zero, -x], -1), np.stack([-y, x, zero], -1)], -2)
    return torch.linalg.matrix_exp(torch.from_numpy(skew)).numpy()


def random_people(count, seed=0, sigma=0.6):
    rng = np.random.default_rng(seed)
    rotations = rotations_from(rng.normal(0, sigma, (count, 24, 3)))
    return torch.tensor(rotations, dtype=torch.float32), torch.tensor(rng.normal(size=(count, 10)), dtype=torch.float32)


def rest(count=1):
    return torch.eye(3).expand(count, 24, 3, 3).contiguous(), torch.zeros(count, 10)


def reference_lbs(arrays, rotations, betas):
    """Linear blend skinning in float64, one joint and one 4x4 matrix after the other, as SMPL's paper writes it."""
    shaped = arrays["v_template"].astype(float) + arrays["shapedirs"].astype(float) @ betas
    joints = arrays["J_regressor"].astype(float) @ shaped
    if "posedirs" in arrays:
        shaped = shaped + arrays["posedirs"].astype(float) @ (rotations[1:] - np.eye(3)).ravel()
    world = []
    for joint, parent in enumerate(SMPL_PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    posed = np.array([matrix[:3, 3] for matrix in world])
    vertices = np.zeros_like(shaped)
    for joint, matrix in enumerate(world):
        moved = (shaped - joints[joint]) @ matrix[:3, :3].T + matrix[:3, 3]
        vertices += arrays["weights"][:, joint, None] * moved
    return vertices, posed


# --- the function ----------------------------------------------------------------------------------------------------


def test_skinning_agrees_with_a_float64_reference(body, arrays):
    rotations, betas = random_people(4)
    out = body(rotations, betas)
    for i in range(4):
        vertices, joints = reference_lbs(arrays, rotations[i].double().numpy(), betas[i].double().numpy())
        np.testing.assert_allclose(out.vertices[i], vertices, atol=5e-6)  # float32 rounding on 2 m
        np.testing.assert_allclose(out.joints[i], joints, atol=5e-6)
        np.testing.assert_allclose(out.keypoints[i], arrays["keypoint_regressor"] @ vertices, atol=5e-6)


def test_the_kernel_poses_what_the_module_poses(body):
    rotations, betas = random_people(3, seed=6)
    kernel = Skinning(body, Skeleton(PosedKeypoints(body)))
    for name, ours, theirs in zip(BodyOutput._fields, kernel(rotations.numpy(), betas.numpy()), body(rotations, betas)):
        np.testing.assert_allclose(ours, theirs, atol=5e-6, err_msg=name)
        assert ours.dtype == np.float32


def test_the_kernel_refuses_pose_blend_shapes(body, monkeypatch):
    monkeypatch.setattr(body, "has_pose_blendshapes", True)
    with pytest.raises(ValueError, match="has pose blend shapes.*compile it"):
        Skinning(body, Skeleton(PosedKeypoints(body)))


def test_skinning_agrees_with_smplx_itself(body):
    rotations, betas = random_people(3, seed=5)
    out = body(rotations, betas)
    theirs = body.smpl(betas=betas, global_orient=rotations[:, :1], body_pose=rotations[:, 1:], pose2rot=False)
    torch.testing.assert_close(out.vertices, theirs.vertices, atol=5e-6, rtol=0)
    torch.testing.assert_close(out.joints, theirs.joints[:, :24], atol=5e-6, rtol=0)


def test_pose_blendshapes_are_applied(tmp_path, arrays):
    rng = np.random.default_rng(1)
    posedirs = rng.normal(0, 0.01, (len(arrays["v_template"]), 3, 207)).astype(np.float32)
    np.savez(tmp_path / "posed.npz", **arrays, posedirs=posedirs)
    rotations, betas = random_people(1, seed=2)
    out = BodyModel.load(tmp_path / "posed.npz")(rotations, betas)
    one = rotations[0].double().numpy(), betas[0].double().numpy()
    vertices, _ = reference_lbs(arrays | {"posedirs": posedirs}, *one)
    np.testing.assert_allclose(out.vertices[0], vertices, atol=2e-5)


def test_rest_pose_is_the_template_and_its_regressed_joints(body, arrays):
    out = body(*rest())
    np.testing.assert_allclose(out.vertices[0], arrays["v_template"], atol=1e-6)
    np.testing.assert_allclose(out.joints[0], arrays["J_regressor"] @ arrays["v_template"], atol=1e-6)
    torch.testing.assert_close(out.joints, body.rest_joints(torch.zeros(1, 10)), atol=1e-6, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-np.pi, np.pi), min_size=3, max_size=3), st.integers(0, 1000))
def test_global_rotation_turns_everything_about_the_pelvis(vector, seed):
    body = embedded()
    rotations, betas = random_people(1, seed)
    turn = torch.tensor(rotations_from(np.array(vector)), dtype=torch.float32)
    before = body(rotations, betas)
    after = body(torch.cat((turn @ rotations[:, :1], rotations[:, 1:]), 1), betas)
    pelvis = before.joints[:, :1]
    for old, new in zip(before, after):
        torch.testing.assert_close(new, (old - pelvis) @ turn.T + pelvis, atol=2e-5, rtol=0)


@pytest.mark.parametrize("joint", ["left_elbow", "right_knee", "spine2", "head"])
def test_a_joint_moves_only_what_hangs_on_it(body, joint):
    index = SMPL_JOINTS.index(joint)
    rotations, betas = rest()
    rotations = rotations.clone()
    rotations[0, index] = torch.tensor(rotations_from([0.4, -0.5, 0.3]))
    moved = (body(rotations, betas).joints - body(*rest()).joints).norm(dim=-1)[0] > 1e-5
    below = {index}
    for child, parent in enumerate(SMPL_PARENTS):
        if parent in below:
            below.add(child)
    assert set(np.flatnonzero(moved.numpy())) == below - {index}


def test_gradients_reach_rotations_and_betas_and_nothing_is_trainable(body):
    rotations, betas = random_people(2)
    rotations.requires_grad_(), betas.requires_grad_()
    out = body(rotations, betas)
    (out.vertices.square().mean() + out.joints.square().mean() + out.keypoints.square().mean()).backward()
    assert torch.isfinite(rotations.grad).all() and (rotations.grad.abs().sum((0, 2, 3)) > 0).all()
    assert torch.isfinite(betas.grad).all() and (betas.grad != 0).all()
    assert not list(body.parameters())
    assert all(buffer.dtype in (torch.float32, torch.int64) for buffer in body.buffers())


def test_loading_is_quiet(capsys):
    BodyModel.load()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


# --- exports ---------------------------------------------------------------------------------------------------------


def test_torch_export_with_dynamic_batch(body):
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        body, random_people(2), dynamic_shapes={"rotations": {0: batch}, "betas": {0: batch}}
    ).module()
    for count in (1, 5):
        people = random_people(count, seed=count)
        for exported, eager in zip(program(*people), body(*people)):
            torch.testing.assert_close(exported, eager, atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch, counts", [(1, (1,)), (-1, (1, 5))])
def test_openvino_agrees_with_torch(body, batch, counts):
    openvino = pytest.importorskip("openvino")
    model = openvino.convert_model(
        body, example_input=random_people(1), input=[[batch, 24, 3, 3], [batch, 10]]
    )
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 2, "INFERENCE_PRECISION_HINT": "f32"})
    for count in counts:
        people = random_people(count, seed=count)
        for found, expected in zip(compiled([p.numpy() for p in people]).values(), body(*people)):
            np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)  # a tenth of a millimetre


# --- the embedded body -----------------------------------------------------------------------------------------------


def test_embedded_file_is_what_the_script_made(body):
    metadata = body.metadata
    assert metadata["script_sha256"] == hashlib.sha256(SCRIPT.read_bytes()).hexdigest(), (
        f"{SCRIPT.name} changed since it derived {EMBEDDED_BODY.name}: run it again and commit both"
    )
    assert body.sha256 == hashlib.sha256(EMBEDDED_BODY.read_bytes()).hexdigest()
    assert body.name == metadata["name"]
    assert {"Apache-2.0", "CC0-1.0"} == set(metadata["licences"].values())
    assert EMBEDDED_BODY.stat().st_size < 5e6


def test_embedded_measurements_are_as_good_as_published(body):
    measured = body.metadata["measured"]
    assert measured["pca_mean_error_held_out_mm"] < 2
    assert measured["joint_regressor_mean_error_held_out_mm"] < 3
    assert measured["keypoint_regressor_mean_error_held_out_mm"] < 1
    assert measured["decimation_mean_distance_mm"] < 0.5


def test_embedded_mesh_is_closed_oriented_and_small_enough(arrays):
    faces, vertices = arrays["f"], arrays["v_template"].astype(float)
    assert len(vertices) <= 7000
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    directed = set(map(tuple, edges.tolist()))
    assert len(directed) == len(edges), "an edge is used twice in the same direction"
    assert all((b, a) in directed for a, b in directed), "the surface has a hole"
    assert set(faces.ravel()) == set(range(len(vertices))), "a vertex belongs to no face"
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert np.linalg.norm(normals, axis=1).min() > 1e-8, "a face without area"  # twice the area, in m²
    volume = np.einsum("fa,fa->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    assert 0.05 < volume < 0.1, "faces look inwards, or this is no person"  # m³, a person of 50 to 100 kg
    seen, stack, neighbours = {0}, [0], [[] for _ in vertices]
    for a, b in edges:
        neighbours[a].append(b)
    while stack:
        for vertex in neighbours[stack.pop()]:
            if vertex not in seen:
                seen.add(vertex)
                stack.append(vertex)
    assert len(seen) == len(vertices), "the skin has several parts"


def test_embedded_regressors_and_weights_are_affine(arrays):
    for key in ("J_regressor", "keypoint_regressor", "weights"):
        np.testing.assert_allclose(arrays[key].sum(1), 1, atol=1e-5)
    assert (arrays["weights"] >= 0).all() and (arrays["weights"] > 0).sum(1).max() <= 8


def test_embedded_body_stands_in_a_t_pose(body):
    out = body(*rest())
    at = dict(zip(SMPL_JOINTS, out.joints[0].numpy()))
    keypoint = dict(zip(COCO_KEYPOINTS, out.keypoints[0].numpy()))
    assert np.linalg.norm(at["pelvis"]) < 0.01
    for side, sign in (("left", 1), ("right", -1)):
        arm = at[f"{side}_wrist"] - at[f"{side}_shoulder"]
        elbow = at[f"{side}_elbow"] - at[f"{side}_shoulder"]
        assert arm[0] * sign > 0.4 and np.abs(arm[1:]).max() < 0.01 and np.abs(elbow[1:]).max() < 0.01
        assert at[f"{side}_ankle"][1] < at[f"{side}_knee"][1] < at[f"{side}_hip"][1] < at["spine1"][1]
        assert at[f"{side}_foot"][2] > at[f"{side}_ankle"][2] + 0.08, "faces +z"
        for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
            assert np.linalg.norm(keypoint[f"{side}_{joint}"] - at[f"{side}_{joint}"]) < 0.06
        assert keypoint[f"{side}_eye"][0] * sign > 0.01 and keypoint[f"{side}_ear"][0] * sign > 0.04
    assert keypoint["nose"][2] > keypoint["left_eye"][2] > keypoint["left_ear"][2]
    assert keypoint["left_eye"][1] > keypoint["nose"][1] > at["neck"][1]
    assert 1.6 < body.stature(torch.zeros(1, 10)).item() < 1.8


def test_first_beta_is_stature(body):
    betas = torch.zeros(2, 10)
    betas[:, 0] = torch.tensor([-1.0, 1.0])
    short, tall = body.stature(betas)
    assert 0.1 < tall - short < 0.3


def test_mirrored_parameters_give_the_mirrored_body(body, arrays):
    rotations, betas = random_people(3, seed=9)
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    out, mirrored = body(rotations, betas), body(flip @ rotations[:, list(SMPL_MIRROR)] @ flip, betas)
    torch.testing.assert_close(mirrored.joints @ flip, out.joints[:, list(SMPL_MIRROR)], atol=2e-5, rtol=0)
    torch.testing.assert_close(mirrored.keypoints @ flip, out.keypoints[:, list(COCO_MIRROR)], atol=2e-5, rtol=0)
    mirror = torch.from_numpy(arrays["vertex_mirror"].astype(np.int64))
    torch.testing.assert_close(mirrored.vertices @ flip, out.vertices[:, mirror], atol=2e-5, rtol=0)
    assert (body.vertex_regions[mirror] == body.vertex_regions).all()


def test_regions_lie_where_their_names_say(body, arrays):
    region = np.array(body.region_names)[body.vertex_regions]
    centre = {name: np.abs(arrays["v_template"][region == name]).mean(0) for name in body.region_names}
    height = {name: arrays["v_template"][region == name, 1].mean() for name in body.region_names}
    assert height["hair"] > height["head"] > height["torso"] > height["pelvis"] > height["thigh"]
    assert height["thigh"] > height["shin"] > height["foot"]
    assert centre["hand"][0] > centre["forearm"][0] > centre["upper_arm"][0] > centre["torso"][0]


@pytest.mark.parametrize("centre, axes, sharpest", [((0, 0.30, 0.10), (0.17, 0.10, 0.09), 20), ((0, -0.10, 0.03), (0.05, 0.05, 0.08), 45)])
def test_the_body_has_no_anatomical_detail_in_any_shape(arrays, centre, axes, sharpest):
    """Chest and crotch are smooth: the sharpest edge in degrees, of the mean shape and 2 sigma along each beta. anny-smpl-6k had 46 and 129."""
    faces, template = arrays["f"].astype(int), arrays["v_template"].astype(float)
    inside = np.linalg.norm((template - centre) / axes, axis=1) < 1
    beside = {}
    for index, face in enumerate(faces):
        for edge in ((face[0], face[1]), (face[1], face[2]), (face[2], face[0])):
            if inside[list(edge)].all():
                beside.setdefault(tuple(sorted(edge)), []).append(index)
    pairs = np.array(list(beside.values()))
    assert len(pairs) > 100
    for betas in 2 * np.concatenate([np.zeros((1, 10)), np.eye(10), -np.eye(10)]):
        corners = (template + arrays["shapedirs"].astype(float) @ betas)[faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        assert np.degrees(np.arccos((normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(1).min())) < sharpest


# --- other bodies ----------------------------------------------------------------------------------------------------


def as_smpl(tmp_path, arrays, vertices=6890, scale=1.0, **extra):
    """A file with SMPL's vertex count and no COCO regressor, made of the embedded body; extra vertices are unused."""
    count = len(arrays["v_template"])
    padded = {}
    for key, axis in (("v_template", 0), ("shapedirs", 0), ("weights", 0), ("J_regressor", 1)):
        more = np.zeros([vertices - count if i == axis else n for i, n in enumerate(arrays[key].shape)], np.float32)
        if key == "weights":
            more[:, 0] = 1
        padded[key] = np.concatenate((arrays[key], more), axis) * (scale if key in ("v_template", "shapedirs") else 1)
    path = tmp_path / "SMPL_NEUTRAL.npz"
    np.savez(path, f=arrays["f"], kintree_table=arrays["kintree_table"], **padded, **extra)
    return path


def test_a_users_smpl_takes_keypoints_from_vertex_ids_and_joints(tmp_path, arrays):
    user = BodyModel.load(as_smpl(tmp_path, arrays))
    assert user.name == "SMPL_NEUTRAL" and user.vertex_regions is None and user.region_names == ()
    out = user(*random_people(2))
    for row, vertex in ((0, 332), (1, 2800), (2, 6260), (3, 583), (4, 4071)):  # smplx's nose, eyes and ears
        torch.testing.assert_close(out.keypoints[:, row], out.vertices[:, vertex])
    for row, joint in ((5, 16), (8, 19), (9, 20), (11, 1), (14, 5), (15, 7)):
        torch.testing.assert_close(out.keypoints[:, row], out.joints[:, joint])


def test_a_regressor_beside_a_users_smpl_is_used(tmp_path, arrays):
    path = as_smpl(tmp_path, arrays)
    regressor = np.zeros((17, 6890))
    regressor[:, 7] = 1
    np.save(tmp_path / "J_regressor_coco.npy", regressor)
    out = BodyModel.load(path)(*random_people(1))
    torch.testing.assert_close(out.keypoints, out.vertices[:, 7:8].expand(-1, 17, -1))
    np.save(tmp_path / "J_regressor_coco.npy", regressor[:5])
    with pytest.raises(BodyFileError, match=r"J_regressor_coco.npy.*expected.*\(17, 6890\)"):
        BodyModel.load(path)


def test_another_mesh_without_regressor_is_refused_rather_than_guessed(tmp_path, arrays):
    with pytest.raises(BodyFileError, match="no COCO regressor; expected SMPL's 6890"):
        BodyModel.load(as_smpl(tmp_path, arrays, vertices=6900))


def test_betas_map_of_a_body_to_itself_is_the_identity(body):
    matrix, offset = fit_betas_map(body, body)
    np.testing.assert_array_equal(matrix, np.eye(10))
    np.testing.assert_array_equal(offset, 0)


@pytest.mark.parametrize("scale", [1.0, 1.05])
def test_betas_map_keeps_stature_and_limbs(tmp_path, body, arrays, scale):
    """The other body has shuffled, recombined betas and another mean size; the mapped person is as tall as before."""
    rng = np.random.default_rng(4)
    mixing = np.linalg.qr(rng.normal(size=(10, 10)))[0].astype(np.float32)
    other = dict(arrays, shapedirs=arrays["shapedirs"] @ mixing)
    target = BodyModel.load(as_smpl(tmp_path, other, scale=scale))
    matrix, offset = fit_betas_map(body, target)
    betas = torch.tensor(rng.normal(size=(50, 10)), dtype=torch.float32)
    mapped = betas @ torch.from_numpy(matrix).T + torch.from_numpy(offset)
    assert (target.stature(mapped) - body.stature(betas)).abs().mean() < 0.01
    unmapped = (target.stature(betas) - body.stature(betas)).abs().mean()
    assert unmapped > 0.05, "the test would pass without a map"
    before, after = body.rest_joints(betas), target.rest_joints(mapped)
    for a, b in ((1, 4), (4, 7), (16, 18), (18, 20)):
        difference = (before[:, a] - before[:, b]).norm(dim=-1) - (after[:, a] - after[:, b]).norm(dim=-1)
        assert difference.abs().mean() < 0.01


def test_checkpoints_of_the_earlier_body_keep_their_shapes(body, tmp_path, arrays, caplog):
    """The embedded networks were trained before chest and crotch were smoothed; joints did not move, so their betas mean the same."""
    for path in EMBEDDED.values():
        trained_with = body_of(load_checkpoint(path)[1], path)
        assert body.shares_betas_with(trained_with["sha256"])
        betas = np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)
        np.testing.assert_array_equal(BetasMap.between(trained_with, body)(betas), betas)
        user = BodyModel.load(as_smpl(tmp_path, arrays))  # the same shapes under another name: mapped, and not to zero
        mapped, expected = (BetasMap.between(known, user)(betas) for known in (trained_with, {"name": body.name, "sha256": body.sha256}))
        np.testing.assert_array_equal(mapped, expected)
        assert np.abs(mapped).max() > 0.5
    assert not caplog.records
    assert not body.shares_betas_with("0" * 64)


def test_betas_map_to_a_body_of_another_kind_fails_loudly(body, arrays):
    giant = BodyModel(arrays | {key: 3 * arrays[key] for key in ("v_template", "shapedirs")}, "giant", "none")  # no file may hold one
    with pytest.raises(ValueError, match="do not map.*mean stature"):
        fit_betas_map(body, giant)


def test_metadata_is_json(arrays):
    assert json.loads(str(arrays["metadata"]))["config"]["seed"] == 20240
