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

from hmr_ros.files import atomic_write, load_checkpoint, save_checkpoint, write_json


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
