"""Files are whole or not there, whatever stops the writer; JSON and checkpoints go the same way."""

import json
import os
import signal
import stat
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from hmr_ros.body.smpl_file import read_smpl_file
from hmr_ros.files import atomic_write, load_checkpoint, save_checkpoint, write_json
from hmr_ros.networks.checkpoints import EMBEDDED, load_lifter, load_regressor, load_resnet18
from hmr_ros.networks.paper.prior import EMBEDDED_PRIOR, load_pose_prior
from smpl_formats import VERTICES, small_model


def test_the_old_file_stays_until_the_block_ends(tmp_path):
    path = tmp_path / "new folder" / "result.txt"
    for text in ("first", "second"):
        with atomic_write(path) as partial:
            partial.write_text(text)
            assert partial.parent == path.parent and partial.name.startswith(".")
            assert not path.exists() if text == "first" else path.read_text() == "first"
        assert path.read_text() == text
        assert [file.name for file in path.parent.iterdir()] == ["result.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="disk"), atomic_write(path) as partial:
        partial.write_text("half")
        raise RuntimeError("disk")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["result.txt"]


def test_a_block_that_wrote_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "result.txt"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    code = ("import os, signal, sys; from hmr_ros.files import atomic_write\n"
            "with atomic_write(sys.argv[1]) as partial:\n"
            "    partial.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)")  # fmt: skip
    assert subprocess.run([sys.executable, "-P", "-c", code, path]).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    (left,) = set(os.listdir(tmp_path)) - {"result.txt"}
    assert left.startswith(".") and ".partial." in left


def test_everybody_may_read_what_the_mask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        write_json(tmp_path / "result.json", {})
        save_checkpoint(tmp_path / "weights.safetensors", {"w": torch.zeros(1)}, {})
    finally:
        os.umask(before)
    for name in ("result.json", "weights.safetensors"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o644, name


def test_writers_that_go_by_the_ending_find_it(tmp_path):
    with atomic_write(tmp_path / "person.overlay.png") as partial:
        assert cv2.imwrite(str(partial), np.zeros((4, 5, 3), np.uint8))
    with atomic_write(tmp_path / "person.bodies.npz") as partial:
        np.savez_compressed(partial, a=np.ones(2))
    assert cv2.imread(str(tmp_path / "person.overlay.png")).shape == (4, 5, 3)
    assert np.load(tmp_path / "person.bodies.npz")["a"].sum() == 2
    assert sorted(os.listdir(tmp_path)) == ["person.bodies.npz", "person.overlay.png"]


def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "data" / "real.json")
    write_json(tmp_path / "link.json", [1])
    assert (tmp_path / "link.json").is_symlink() and json.loads((tmp_path / "data" / "real.json").read_text()) == [1]


def test_a_pipe_is_written_as_it_is():
    code = "from hmr_ros.files import write_json; write_json('/dev/stdout', {'a': 1})"
    ended = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0 and json.loads(ended.stdout) == {"a": 1}


def test_json_has_no_numbers_that_no_parser_knows(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "result.json", {"mpjpe": float("nan")})
    assert os.listdir(tmp_path) == []


def test_equal_contents_are_equal_bytes_with_sorted_keys(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [2]}, sort_keys=True)
    write_json(tmp_path / "b.json", {"a": [2], "b": 1}, sort_keys=True)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_checkpoint_comes_back_with_its_meaning(tmp_path):
    tensors = {"w": torch.arange(6.0).reshape(2, 3).T}
    save_checkpoint(tmp_path / "runs" / "weights.safetensors", tensors, {"network": "lifter", "options": {"width": 3}})
    loaded, metadata = load_checkpoint(tmp_path / "runs" / "weights.safetensors")
    assert torch.equal(loaded["w"], tensors["w"]) and metadata == {"network": "lifter", "options": {"width": 3}}
    (tmp_path / "other.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_checkpoint(tmp_path / "other.safetensors")


# --- what is no file -------------------------------------------------------------------------------------------------


def _what_is_no_file(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    return {
        "folder": (ValueError, "is a folder"), "empty": (ValueError, "is empty"), "pipe": (ValueError, "is a pipe or device"),
        "dangling": (FileNotFoundError, "no such file .a link to nowhere, which is not there"), "none": (FileNotFoundError, "no such file"),
        "x" * 300: (ValueError, "cannot be opened .File name too long"),
    }  # fmt: skip


@pytest.mark.parametrize("read", [read_smpl_file, load_checkpoint, load_pose_prior], ids=lambda read: read.__name__)
def test_what_is_no_file_is_called_what_it_is(tmp_path, read):
    for name, (kind, message) in _what_is_no_file(tmp_path).items():
        with pytest.raises(kind, match=f"{message}.*; expected") as error:
            read(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_may_not_be_read_is_called_so(tmp_path):
    """As another user, where the tests run as root, who may read everything."""
    (tmp_path / "secret").write_text("text")
    (tmp_path / "secret").chmod(0)
    code = ("import os, sys; from hmr_ros.files import require_file; os.geteuid() or os.seteuid(65534)\n"
            "require_file(sys.argv[1], 'checkpoint', 'another')")  # fmt: skip
    ended = subprocess.run([sys.executable, "-P", "-c", code, tmp_path / "secret"], capture_output=True, text=True)
    assert "ValueError: checkpoint" in ended.stderr and "secret: may not be read by this user; expected another" in ended.stderr


def test_names_in_the_home_folder_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_checkpoint(tmp_path / "w.safetensors", {"w": torch.ones(1)}, {"network": "lifter"})
    assert load_checkpoint("~/w.safetensors")[1] == {"network": "lifter"}


def test_a_name_that_is_not_utf8_is_found_or_called_so(tmp_path):
    path = tmp_path / "caf\udce9"
    np.savez(tmp_path / "body.npz", **small_model())
    os.rename(tmp_path / "body.npz", path)
    assert len(read_smpl_file(path)["v_template"]) == VERTICES
    with pytest.raises(ValueError, match="has a name that is not UTF-8, and safetensors opens no such file; rename it"):
        load_checkpoint(path)


# --- damaged checkpoints ---------------------------------------------------------------------------------------------


def safetensors(header: bytes, data: bytes = bytes(8), length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def with_metadata(text: str) -> bytes:
    header = {"__metadata__": {"hmr_ros": text}, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    return safetensors(json.dumps(header).encode())


@pytest.mark.parametrize(
    "content, message",
    [
        (safetensors(b"{}", length=2**63), "not a safetensors file"),
        (safetensors(b"{}", length=10**6), "not a safetensors file"),
        (safetensors(b'{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}'), "not a safetensors file"),
        (safetensors(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}'), "not a safetensors file"),
        (safetensors(b"[" * 10_000), "not a safetensors file"),
        (b"PK\x03\x04", "not a safetensors file"),
        (safetensors(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'), "no 'hmr_ros' metadata"),
        (with_metadata("{"), "metadata that is no JSON"),
        (with_metadata("[" * 100_000), "metadata that is no JSON"),
        (with_metadata("[1]"), "metadata that is a JSON list, expected an object"),
        (with_metadata("{}")[:-1], "not a safetensors file"),
    ],
)
def test_damaged_checkpoints_are_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=f"weights.safetensors .*{message}") as error:
        load_checkpoint(tmp_path / "weights.safetensors")
    assert "\n" not in str(error.value)


LOADERS = {"lifter": (load_lifter, EMBEDDED["lifter"]), "resnet18": (load_resnet18, EMBEDDED["resnet18"]),
           "pose_prior": (load_pose_prior, EMBEDDED_PRIOR)}  # fmt: skip


def _first(tensors: dict) -> str:
    return next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel() > 1)


@pytest.mark.parametrize("network", LOADERS)
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t, m: (t, {**m, "options": 3}), "'options' = 3, expected a JSON object"),
        (lambda t, m: (t, {key: m[key] for key in m if key != "options"}), "'options' = None, expected a JSON object"),
        (lambda t, m: (t, {**m, "options": {**m["options"], "wings": 2}}), "options that describe no network.*wings"),
        (lambda t, m: ({**t, _first(t): t[_first(t)][:1]}, m), "1 differ.* expected floats"),
        (lambda t, m: ({**t, "more": torch.zeros(3)}, m), "'more' has floats .3,., expected nothing"),
        (lambda t, m: ({**t, _first(t): torch.full_like(t[_first(t)], float("nan"))}, m), "not finite, in 1 tensors"),
        (lambda t, m: ({**t, _first(t): torch.zeros(t[_first(t)].shape, dtype=torch.int32)}, m), "has integers .*, expected floats"),
    ],
)
def test_weights_that_do_not_fit_their_network_are_refused(tmp_path, network, change, message):
    load, embedded = LOADERS[network]
    save_checkpoint(tmp_path / "weights.safetensors", *change(*load_checkpoint(embedded)))
    with pytest.raises(ValueError, match=f"weights.safetensors.*{message}") as error:
        load(tmp_path / "weights.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "network, options, message",
    [
        ("lifter", {"width": 10**9}, "do not|does not hold the weights"),
        ("lifter", {"members": 10**12}, "says it has 1000000000000 members"),
        ("lifter", {"blocks": 10**12}, "says it has 1000000000000 blocks"),
        ("lifter", {"width": "wide"}, "describe no network"),
        ("resnet18", {"size": 10**6}, "heatmaps have 1000000 pixels, expected at most 2048"),
        ("resnet18", {"width": 10**7}, "does not hold the weights"),
        ("pose_prior", {"widths": 7}, "describe no network"),
        ("pose_prior", {"latent": 10**9}, "does not hold the weights"),
    ],
)
def test_options_cannot_ask_for_memory_that_no_weights_fill(tmp_path, network, options, message):
    load, embedded = LOADERS[network]
    tensors, metadata = load_checkpoint(embedded)
    save_checkpoint(tmp_path / "weights.safetensors", tensors, metadata | {"options": metadata["options"] | options})
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("body", [None, 3, {}, {"name": "x"}, {"name": "x", "sha256": 4}])
@pytest.mark.parametrize("network", ["lifter", "resnet18"])
def test_a_checkpoint_that_does_not_say_its_body_is_refused(tmp_path, network, body):
    load, embedded = LOADERS[network]
    tensors, metadata = load_checkpoint(embedded)
    save_checkpoint(tmp_path / "weights.safetensors", tensors, metadata | {"body": body})
    with pytest.raises(ValueError, match="weights.safetensors has metadata with '(body|name|sha256)' = "):
        load(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="weights.safetensors has metadata with '(body|name|sha256)' = "):
        load_regressor(path=tmp_path / "weights.safetensors", body_model=None)


@pytest.mark.parametrize("layout", [3, [1, 2], [["a"]], {"a": None}, "text"])
def test_a_feature_layout_that_is_none_is_refused(tmp_path, layout):
    tensors, metadata = load_checkpoint(EMBEDDED["lifter"])
    save_checkpoint(tmp_path / "weights.safetensors", tensors, metadata | {"feature_layout": layout})
    with pytest.raises(ValueError, match="was trained with other features"):
        load_lifter(tmp_path / "weights.safetensors")
