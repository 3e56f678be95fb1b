"""Shards as memory maps: the same rows as in memory, the same training, and memory that does not grow with the data."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.cli import main
from hmr_ros.training.data import shards
from hmr_ros.training.data.mapped import Rows, RowWriter, map_npy, map_npz
from hmr_ros.training.lifter import samples
from hmr_ros.training.loop import RESUME
from hmr_ros.training.paper import proxy_data
from hmr_ros.training.paper.proxy_data import HARSH, of_rows, trimmed
from hmr_ros.training.paper.train import PRESETS, train

ARRAYS = {"numbers": np.arange(21, dtype=np.float16).reshape(7, 3), "names": np.array(["a", "bcd"] * 3 + ["é"]),
          "nobody": np.zeros((0, 4)), "one": np.array(4), "known": np.arange(7) % 2 == 0}  # fmt: skip


@pytest.fixture(scope="module")
def compressed(people, tmp_path_factory):
    """The training people as earlier versions wrote them."""
    folder = tmp_path_factory.mktemp("compressed") / "train"
    folder.mkdir()
    for path in sorted((people / "train").glob("*.np[yz]")):
        if path.suffix == ".npy":
            (folder / path.name).symlink_to(path)
        else:
            with np.load(path) as data:
                np.savez_compressed(folder / path.name, **data)
    return folder


def test_arrays_of_a_file_are_mapped_unless_they_are_compressed(tmp_path):
    np.savez(tmp_path / "plain.npz", **ARRAYS)
    np.savez_compressed(tmp_path / "compressed.npz", **ARRAYS)
    np.save(tmp_path / "numbers.npy", ARRAYS["numbers"])
    (mapped, none), (read, held) = (map_npz(tmp_path / name) for name in ("plain.npz", "compressed.npz"))
    assert none == 0 and held == sum(array.nbytes for array in ARRAYS.values())
    for name, array in ARRAYS.items():
        for some in (mapped[name], read[name]):
            assert some.dtype == array.dtype
            np.testing.assert_array_equal(some, array)
    assert not mapped["numbers"].flags.owndata and not mapped["numbers"].flags.writeable
    assert set(map_npz(tmp_path / "plain.npz", ("names", "absent"))[0]) == {"names"}
    np.testing.assert_array_equal(map_npy(tmp_path / "numbers.npy"), ARRAYS["numbers"])
    (tmp_path / "broken.npz").write_bytes(b"nothing that could be read")
    with pytest.raises(ValueError, match="broken.npz is not an npz file"):
        map_npz(tmp_path / "broken.npz")
    np.savez(tmp_path / "objects.npz", objects=np.array([{}]))
    with pytest.raises(ValueError, match="holds an array of object"):
        map_npz(tmp_path / "objects.npz")


def test_rows_of_several_files_are_those_of_one_array():
    every = np.arange(60).reshape(20, 3)
    rows = Rows([every[:4].astype(np.int16), every[4:4].astype(np.int16), every[4:19], every[19:]])
    assert rows.shape == (20, 3) and rows.dtype == every.dtype and len(rows) == 20
    for index in (slice(3, 17, 2), slice(None), [19, 0, 4, 4, 3], torch.tensor([5, 18, 3]), 4, np.int64(19), every[:, 0] % 2 == 0):
        np.testing.assert_array_equal(rows[index], every[index])
    np.testing.assert_array_equal(np.asarray(rows), every)
    assert rows[[]].shape == (0, 3)
    for outside in ([20], [-1]):
        with pytest.raises(IndexError, match="of 20"):
            rows[outside]
    with pytest.raises(ValueError, match="expected one shape"):
        Rows([every, every[:, :2]])


@pytest.mark.parametrize("on_disk", [True, False])
def test_written_rows_come_back_and_leave_no_file(on_disk, tmp_path):
    writer = RowWriter(tmp_path if on_disk else None)
    for part in np.split(np.arange(40, dtype=np.float32).reshape(10, 2, 2), [3, 4]):
        writer.append(values=part, flags=part[:, 0, 0] > 9)
    rows = writer.rows()
    np.testing.assert_array_equal(np.asarray(rows["values"]), np.arange(40).reshape(10, 2, 2))
    np.testing.assert_array_equal(rows["flags"][[0, 9]], [False, True])
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="rows of values"):
        writer.append(values=np.zeros((1, 3)))


def test_a_folder_of_an_earlier_version_is_read_says_so_and_can_be_unpacked(people, compressed, capsys):
    expected = shards.load(people / "train")
    found = shards.load(compressed)
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    assert "held in memory" not in capsys.readouterr().err  # nobody asked for maps
    shards.open_people(people / "train")
    assert not capsys.readouterr().err
    shards.open_people(compressed)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "2 compressed shards" in said and f"hmr-ros data unpack {compressed}" in said
    before = {path.name: path.read_bytes() for path in compressed.glob("*.npz")}
    try:
        assert main(["data", "unpack", str(compressed)]) == 0
        for path in compressed.glob("*.npz"):
            assert path.read_bytes() == (people / "train" / path.name).read_bytes()
        assert "2 shards were compressed" in capsys.readouterr().out
        assert main(["data", "unpack", str(compressed)]) == 0 and "0 shards were compressed" in capsys.readouterr().out
    finally:
        for name, content in before.items():
            (compressed / name).write_bytes(content)
    assert main(["data", "unpack", str(compressed / "nowhere")]) == 2


def test_samples_on_disk_are_those_in_memory(people, tmp_path):
    skeleton, folder = PosedKeypoints(BodyModel.load(None)), (people / "train",)
    data, maps = samples.load_people(folder), samples.load_feature_maps(folder)
    chosen = np.arange(len(data["index"]))[::2]
    memory, disk = (samples.make_samples(data, maps, skeleton, samples.FLIPS, samples.DEPTHS, chosen, some) for some in (None, tmp_path))
    assert len(memory) == len(disk) == 4 * len(chosen) and isinstance(disk.features, Rows)
    rows = torch.randperm(len(memory))
    for name in samples.Samples.__dataclass_fields__:
        if name != "maps":
            assert torch.equal(getattr(memory[rows], name), getattr(disk[rows], name)), name
    assert torch.equal(memory[rows].feature_map, disk[rows].feature_map)
    assert memory.person.tolist() == 4 * chosen.tolist()


def test_training_ends_in_the_same_weights_whether_people_are_mapped_or_held_in_memory(people, compressed, tmp_path, monkeypatch):
    """With corruptions, which are made when people are read, and without trimming, which would write them to a file before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for trim in (True, False):
            models = []
            for name, folder in (("mapped", people / "train"), ("compressed", compressed), ("memory", people / "train")):
                config = replace(PRESETS["tiny"][1], data=(folder,), out=tmp_path / f"{name}-{trim}", steps=3, batch=16, accelerator="cpu",
                                 depth="sensor_depth", corruption=HARSH, trim=trim)  # fmt: skip
                with monkeypatch.context() as patch:
                    if name == "memory":
                        in_memory = of_rows(shards.load_proxies(folder), "sensor_depth")
                        patch.setattr("hmr_ros.training.paper.train.load", lambda *_: in_memory)
                        patch.setattr("hmr_ros.training.paper.train.trimmed", lambda data, folder, fabric: trimmed(data))
                    train(config)
                models.append(torch.load(config.out / RESUME, weights_only=True)["modules"]["regressor"])
            assert all(torch.equal(models[0][key], other[key]) for other in models[1:] for key in other)
    finally:
        torch.set_num_threads(threads)


def test_folders_with_depth_maps_of_different_sizes_are_refused(people, tmp_path):
    large = tmp_path / "large"
    large.mkdir()
    with np.load(people / "train" / "proxies-00000.npz") as data:
        np.savez(large / "proxies-00000.npz", **{**data, "depth": data["depth"].repeat(4, 1).repeat(4, 2)})
    with pytest.raises(ValueError, match="train.: 64.*large.: 256.*--depth-size"):
        proxy_data.load((people / "train", large))


GROWTH = """
import json, sys
from pathlib import Path
import numpy as np, torch
from hmr_ros.body.model import BodyModel
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.training.lifter.samples import DEPTHS, FLIPS, load_feature_maps, load_people, make_samples
from hmr_ros.training.paper.train import SelfSupervisedConfig, prepare

def memory(name):
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) / 1024

def lifter(folder, scratch):
    people, maps = load_people((folder,)), load_feature_maps((folder,))
    views = make_samples(people, maps, skeleton, FLIPS, DEPTHS, folder=scratch)
    for rows in torch.randperm(len(views)).split(64):
        some = views[rows]
        assert torch.isfinite(some.feature_map).all() and torch.isfinite(some.features).all()
    return len(views)

def paper(folder, scratch):
    people, _ = prepare(SelfSupervisedConfig(data=(folder,), depth="sensor_depth"), scratch=scratch)
    for rows in torch.randperm(len(people)).split(64):
        assert torch.isfinite(people[rows].depth).all()
    return len(people)

torch.set_num_threads(1)
skeleton = PosedKeypoints(BodyModel.load(None))
read, small, large, scratch = {"lifter": lifter, "paper": paper}[sys.argv[1]], *map(Path, sys.argv[2:])
read(small, scratch)
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
count = read(large, scratch)
print(json.dumps({"people": count, "growth": memory("VmHWM") - before}))
"""


def repeated(folder, out, copies, side=None):
    """A folder with so many copies of every shard (links), their depth camera's maps enlarged to ``side`` pixels."""
    out.mkdir()
    for path in sorted(folder.glob("*.np[yz]")):
        kind = path.stem.partition("-")[0]
        if side and kind == "proxies":
            with np.load(path) as data:
                times = side // data["sensor_depth"].shape[-1]
                np.savez(out / "large.npz", **{**data, "sensor_depth": data["sensor_depth"].repeat(times, 1).repeat(times, 2)})
            path = out / "large.npz"
        for copy in range(copies):
            (out / f"{kind}-{copy:05d}{path.suffix}").symlink_to(path)
    return out


@pytest.mark.parametrize("kind, copies, side", [("lifter", 40, None), ("paper", 20, 256)])
def test_memory_does_not_grow_with_the_data(kind, copies, side, people, tmp_path):
    """The lifter's data, feature maps above all, are 300 MB here and its samples 80; the paper's depth maps 170 MB, and as much
    trimmed. What was read is given back after 64 MB; besides there are batches, and what the allocator keeps."""
    small, large = (repeated(people / "train", tmp_path / name, n, side) for name, n in (("small", copies // 8), ("large", copies)))
    read = "activations-*.npy" if kind == "lifter" else "proxies-*.npz"
    assert sum(path.stat().st_size for path in large.glob(read)) > 170e6
    (tmp_path / "read.py").write_text(GROWTH)
    command = [sys.executable, "-P", str(tmp_path / "read.py"), kind, str(small), str(large), str(tmp_path / "scratch")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["people"] >= copies * 60 and told["growth"] < 160, told
    assert not list((tmp_path / "scratch").iterdir())
