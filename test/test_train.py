"""``hmr-ros train`` on a few rendered people: it learns from proxies alone, goes on where it was killed, and says what is wrong."""

import importlib.metadata
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import hmr_ros
from hmr_ros import cli
from hmr_ros.body.model import BodyModel
from hmr_ros.files import load_checkpoint, save_checkpoint
from hmr_ros.networks.paper.prior import EMBEDDED_PRIOR, load_pose_prior
from hmr_ros.networks.paper.net import RegressorConfig, Resnet18Regressor
from hmr_ros.training.paper.ablation import Benchmark
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.losses.consistency import COLLAPSE, LossConfig
from hmr_ros.training.paper.proxy_data import Corruption
from hmr_ros.training.loop import RESUME, _Run, one_cycle
from hmr_ros.training.paper.optimise import OptimiseConfig
from hmr_ros.training.paper.train import PRESETS, WEIGHTS, save_regressor, train

BATCH = 16


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums in the same order everywhere: weights are compared bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def proxies(people, tmp_path_factory):
    """The training people's proxies, with a truth that nobody could read."""
    folder = tmp_path_factory.mktemp("proxies") / "train"
    shutil.copytree(people / "train", folder)
    truth = list(folder.glob("truth-*"))
    assert truth
    for path in truth:
        path.write_bytes(b"nothing that could be read")
    return folder


def configured(folder, out, **changes):
    settings = {"batch": BATCH, "steps": 24, "save_every": 2, "accelerator": "cpu", "depth": "sensor_depth", **changes}
    return replace(PRESETS["tiny"][1], data=(folder,), out=out, **settings)


def arguments(config):
    """The same configuration as a command's."""
    return [
        sys.executable, "-P", "-m", "hmr_ros.cli", "train", "tiny", "--data", str(config.data[0]), "--out", str(config.out), "--batch",
        str(config.batch), "--steps", str(config.steps), "--save-every", str(config.save_every), "--accelerator", "cpu", "--depth",
        config.depth,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(proxies, tmp_path_factory):
    """A run in one go: its folder."""
    out = tmp_path_factory.mktemp("undisturbed")
    train(configured(proxies, out, save_every=100))
    return out


def test_it_learns_poses_without_ever_opening_the_truth(people, proxies, tmp_path):
    config = configured(proxies, tmp_path / "run", steps=300, save_every=1000, log_every=1, lr=3e-3)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        learn = _Run._learn
        patch.setattr(_Run, "_learn", lambda run: (seen.append((result := learn(run))[1]["total"]), result)[1])
        said = train(config)
    assert len(seen) == 300 and said["steps"] == 300 and all(np.isfinite(value) for value in said.values())
    assert np.mean(seen[-10:]) < 0.6 * np.mean(seen[:3])
    benchmark = Benchmark(rendered.load(people / "train"), "sensor_depth")
    untrained = replace(config, out=tmp_path / "untrained")
    torch.manual_seed(0)
    save_regressor(untrained.out / WEIGHTS, Resnet18Regressor(config.regressor, load_pose_prior()), BodyModel.load(None), {})
    before, after = (benchmark.score(some, False, False, OptimiseConfig())["found"] for some in (untrained, config))
    # Measured: 264.7 → 216.2 and 157.3 → 146.5 mm.
    assert after["mpjpe"] < 0.88 * before["mpjpe"] and after["pa_mpjpe"] < 0.97 * before["pa_mpjpe"]


def test_a_killed_run_goes_on_and_ends_in_the_same_weights_bit_for_bit(proxies, undisturbed, tmp_path, wait_until):
    config = configured(proxies, tmp_path / "run")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(arguments(config), stdout=log, stderr=log, env=environment, start_new_session=True)
        wait_until(lambda: (config.out / WEIGHTS).is_file() or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL, (tmp_path / "log").read_text()
    done = torch.load(config.out / RESUME, weights_only=True)["step"]
    assert 0 < done < config.steps
    (config.out / f".{RESUME}.1").write_bytes(b"half")
    assert train(config)["steps"] == config.steps
    expected, found = (load_file(folder / WEIGHTS) for folder in (undisturbed, config.out))
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name
    states = [torch.load(folder / RESUME, weights_only=True) for folder in (undisturbed, config.out)]
    assert states[0]["step"] == states[1]["step"] == config.steps


def test_a_finished_run_is_left_as_it_is_and_another_one_does_not_fit_into_its_folder(proxies, undisturbed):
    before, metadata = load_checkpoint(undisturbed / WEIGHTS)
    said = train(configured(proxies, undisturbed, save_every=7, log_every=3))
    after, again = load_checkpoint(undisturbed / WEIGHTS)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again["training"]["losses"] == metadata["training"]["losses"] and again["training"]["losses"].items() <= said.items()
    assert metadata["training"]["losses"]["total"] > 0
    for change in ({"steps": 25}, {"lr": 1e-4}, {"loss": LossConfig(collapse=0.1)}, {"corruption": Corruption(blobs=0.5)}, {"trim": False}):
        with pytest.raises(ValueError, match=rf"other settings \({next(iter(change))}\).*another --out"):
            train(configured(proxies, undisturbed, **change))


def test_a_run_from_before_an_option_existed_is_one_with_its_default(proxies, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "run")
    state = torch.load(tmp_path / "run" / RESUME, weights_only=True)
    del state["config"]["loss"]["rasterizer"], state["config"]["schedule"]
    torch.save(state, tmp_path / "run" / RESUME)
    config = configured(proxies, tmp_path / "run")
    with pytest.raises(ValueError, match=r"other settings \(schedule\)"):  # of the preset, not the default
        train(config)
    state["config"]["schedule"] = config.schedule
    torch.save(state, tmp_path / "run" / RESUME)
    assert train(config)["steps"] == config.steps
    with pytest.raises(ValueError, match=r"other settings \(loss\)"):
        train(replace(config, loss=replace(config.loss, rasterizer="torch")))


@pytest.mark.skipif(importlib.util.find_spec("pytorch3d") is not None, reason="pytorch3d is installed")
def test_a_rasterizer_that_is_not_installed_is_refused_in_one_line_before_anything_is_read(tmp_path, capsys):
    for command in (["train", "tiny", "--loss.rasterizer", "pytorch3d", "--data", "nowhere", "--out", str(tmp_path / "run")],
                    ["fit", "--loss.rasterizer", "pytorch3d", "--data", "nowhere", "--init", "none", "--out", str(tmp_path / "fits")],
                    ["figures", "--rasterizer", "pytorch3d", "--data", "nowhere", "--out", str(tmp_path / "figures")]):  # fmt: skip
        assert cli.main(command) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "needs pytorch3d, built for the torch in use" in line and "INSTALL.md" in line
    assert not list(tmp_path.iterdir())


def changed(folder, out, **change):
    """A copy of the proxies in which some columns are what a function makes of them."""
    out.mkdir()
    for path in sorted(folder.glob("proxies-*.npz")):
        with np.load(path) as shard:
            rows = dict(shard)
        for name, function in change.items():
            rows[name] = function(rows[name].copy())
        np.savez(out / path.name, **rows)
    for path in folder.glob("*.json"):
        shutil.copy(path, out)
    return out


def test_a_loss_that_is_no_number_stops_training_and_names_the_people(proxies, tmp_path):
    def no_place(keypoints):
        keypoints[3, 9] = np.nan, np.nan, 0.9
        return keypoints

    def endless(depth):
        depth[3][depth[3] > 0] = np.inf
        return depth

    broken = changed(proxies, tmp_path / "joints", keypoints=no_place)
    with pytest.raises(FloatingPointError, match=rf"step \d+ .*people \[.*\b3\b.*\] of .*{broken.name}"):
        train(configured(broken, tmp_path / "a", mirror=False))
    endless_depth = changed(proxies, tmp_path / "depth", sensor_depth=endless)
    with pytest.raises(FloatingPointError, match=r"people \[.*\b3\b"):
        train(configured(endless_depth, tmp_path / "b", trim=False))
    said = train(configured(endless_depth, tmp_path / "c", steps=5))  # trimming knows that as unknown
    assert all(np.isfinite(value) for value in said.values())


def test_settings_and_folders_without_sense_are_refused(proxies, tmp_path):
    with pytest.raises(ValueError, match="fewer than one batch of 5000"):
        train(configured(proxies, tmp_path, batch=5000))
    for name in ("save_every", "steps"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            train(configured(proxies, tmp_path, **{name: 0}))
    with pytest.raises(ValueError, match="--reset-reliability needs --init"):
        train(configured(proxies, tmp_path, reset_reliability=True))
    with pytest.raises(ValueError, match="nobody to learn from"):
        train(replace(configured(proxies, tmp_path), data=()))
    with pytest.raises(FileNotFoundError):
        train(configured(tmp_path, tmp_path))


def test_depth_maps_smaller_than_the_networks_are_named_with_the_command_that_makes_larger_ones(proxies, tmp_path):
    for size, told in ((128, True), (64, False)):
        console = Console(file=io.StringIO(), width=200)
        train(configured(proxies, tmp_path / str(size), steps=1, regressor=RegressorConfig(size=size, width=8)), console)
        lines = [line for line in console.file.getvalue().splitlines() if "--depth-size" in line]
        assert len(lines) == told
        if told:
            assert "64 x 64" in lines[0] and "128 x 128" in lines[0] and "hmr-ros extract SOURCE --out NEW_FOLDER --depth-size 128" in lines[0]


def test_a_prior_of_ones_own_is_spoken_through_and_what_init_brought_is_what_is_recorded(proxies, tmp_path):
    tensors, metadata = load_checkpoint(EMBEDDED_PRIOR)
    own = tmp_path / "prior.safetensors"
    save_checkpoint(own, {name: 0.9 * value for name, value in tensors.items()}, metadata)
    first = configured(proxies, tmp_path / "first", steps=1, prior=own)
    train(first)
    learned = load_checkpoint(first.out / WEIGHTS)[0]
    for name, value in load_pose_prior(own).decoder.state_dict().items():
        assert torch.equal(learned["pose_decoder." + name], value), name
    further = configured(proxies, tmp_path / "further", steps=1, init=first.out / WEIGHTS, regressor=RegressorConfig(numbers=32))
    train(further)
    said = load_checkpoint(further.out / WEIGHTS)[1]["training"]["config"]
    assert (said["regressor"]["width"], said["regressor"]["numbers"]) == (first.regressor.width, 0)
    assert said["loss"]["collapse"] == COLLAPSE[further.depth]
    with pytest.raises(ValueError, match="--prior .* cannot be used with --init"):
        train(replace(further, out=tmp_path / "both", prior=own))


def test_a_learning_rate_goes_up_and_down_in_any_number_of_steps():
    for steps in range(1, 31):
        optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
        schedule, rates = one_cycle(optimizer, 1e-3, steps, warm_up=0.1), []
        for _ in range(steps):
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        assert max(rates) <= 1e-3 and (steps < 2 or rates[-1] < 1e-4), steps


RANKS = """
import json, sys
from pathlib import Path
import torch
from hmr_ros.training.loop import _Run
from hmr_ros.training.paper.train import train
from test_train import configured

folder, out = map(Path, sys.argv[1:])
rows, run = [], []
learn = _Run._learn
def noted(self):
    run[:] = [self]
    result = learn(self)
    rows.append(result[0].tolist())
    return result
_Run._learn = noted

if __name__ == "__main__":
    train(configured(folder, out, steps=4, devices=2, mirror=False))
    system = run[0].networks[0]
    learned = torch.cat([p.detach().flatten() for p in system.parameters() if p.requires_grad])
    rank = run[0].fabric.global_rank
    Path(out, f"rank-{rank}.json").write_text(json.dumps({"rows": rows, "world": run[0].fabric.world_size}))
    torch.save(learned, Path(out, f"rank-{rank}.pt"))
"""


def two_processes(folder, out):
    """What a run on two gloo processes ended with."""
    script = out.parent / "ranks.py"
    script.write_text(RANKS)
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-P", str(script), str(folder), str(out)], env=environment, capture_output=True, text=True,
                          timeout=120)  # fmt: skip


def test_two_processes_share_the_people_and_keep_the_same_weights(proxies, tmp_path):
    """Batch statistics are each process's own, so the weights are not those of one process."""
    out = tmp_path / "run"
    done = two_processes(proxies, out)
    assert done.returncode == 0, done.stdout + done.stderr
    ranks = [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["world"] for rank in ranks] == [2, 2]
    for one, other in zip(*(rank["rows"] for rank in ranks)):
        assert len(one) == len(other) == BATCH // 2 and not set(one) & set(other)
    assert [len(rank["rows"]) for rank in ranks] == [4, 4]
    learned = [torch.load(out / f"rank-{rank}.pt") for rank in (0, 1)]
    assert torch.equal(*learned) and torch.isfinite(learned[0]).all()
    assert len(list(out.glob("*.safetensors"))) == len(list(out.glob("*resume*"))) == 1
    assert torch.load(out / RESUME, weights_only=True)["step"] == 4


def test_two_processes_stop_together_where_one_has_a_loss_that_is_no_number(proxies, tmp_path):
    def no_place(keypoints):
        keypoints[3, 9] = np.nan, np.nan, 0.9
        return keypoints

    done = two_processes(changed(proxies, tmp_path / "joints", keypoints=no_place), tmp_path / "run")
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "loss is nan" in said and "people of another process" in said, said
    assert not (tmp_path / "run" / WEIGHTS).exists()


def test_weights_are_saved_without_git_and_name_the_installed_version(proxies, tmp_path):
    """The caller stands in a repository of its own, where no git is installed."""
    elsewhere = tmp_path / "repository"
    (elsewhere / ".git" / "refs").mkdir(parents=True)
    (elsewhere / ".git" / "objects").mkdir()
    (elsewhere / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / "bin").mkdir()
    config = configured(proxies, tmp_path / "run", steps=2)
    environment = {**os.environ, "PATH": str(tmp_path / "bin"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments(config), cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    metadata = load_checkpoint(config.out / WEIGHTS)[1]
    assert metadata["version"] == importlib.metadata.version("hmr_ros") == hmr_ros.__version__
    assert metadata["training"]["step"] == 2 and "revision" not in metadata["training"]
