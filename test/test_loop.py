"""The training loop's promises for the lifter and the pose prior; test_train.py has them for the paper's networks."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.files import load_checkpoint
from hmr_ros.training.lifter import train as lifter
from hmr_ros.networks.paper.net import RegressorConfig
from hmr_ros.training.lifter import samples
from hmr_ros.training.loop import RESUME, _Run, launch
from hmr_ros.training.paper import proxy_data
from hmr_ros.training.paper import train as paper
from hmr_ros.training.prior import train as prior
from hmr_ros.training.prior.train import PriorConfig, draw_poses, learn, train_prior

KINDS = ("lifter", "prior")


def configured(kind, root, out, **changes):
    """A run of a few steps, saved in the middle of epochs."""
    if kind == "prior":
        return PriorConfig(poses=200, steps=10, batch=32, workers=1, accelerator="cpu", out=out, save_every=3, log_every=2, **changes)
    return lifter.LifterConfig(
        data=(root / "train",), val=(root / "val",), out=out, epochs=4, batch=16, width=32, blocks=1, members=2, image_features=1,
        reliability_epochs=3, average=0.9, accelerator="cpu", save_every=2, log_every=2, **changes,
    )  # fmt: skip


def trained(config):
    """Runs it; returns the weights, and what its history says of every epoch."""
    if isinstance(config, PriorConfig):
        network, result = learn(config, torch.from_numpy(draw_poses(config)), BodyModel.load(None))
        return network.state_dict(), result.history
    metrics = lifter.train(config)
    return load_checkpoint(config.out / lifter.WEIGHTS)[0], [metrics["scores"], metrics["history"]]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums in the same order everywhere: weights are compared bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def undisturbed(people, tmp_path_factory):
    """By kind: a run in one go, and how many steps it took."""
    runs = {}
    for kind in KINDS:
        config, steps = configured(kind, people, tmp_path_factory.mktemp(kind)), []
        with pytest.MonkeyPatch.context() as patch:
            one = _Run._learn
            patch.setattr(_Run, "_learn", lambda run: (steps.append(run.step), one(run))[1])
            runs[kind] = config, *trained(config), len(steps)
    return runs


def stopped_in_step(number):
    """Patch: the run is stopped in so manieth step of the process."""
    patch, one, calls = pytest.MonkeyPatch(), _Run._learn, []

    def stop(run):
        calls.append(run)
        if len(calls) == number:
            raise KeyboardInterrupt
        return one(run)

    patch.setattr(_Run, "_learn", stop)
    return patch


@pytest.mark.parametrize("kind, stops", [("prior", [6]), ("lifter", [6, 11])])  # the lifter in both of its phases
def test_a_stopped_run_goes_on_and_ends_in_the_same_weights_bit_for_bit(kind, stops, people, undisturbed, tmp_path):
    _, expected, history, steps = undisturbed[kind]
    config = configured(kind, people, tmp_path / "run")
    for number in stops:
        patch = stopped_in_step(number)
        try:
            with pytest.raises(KeyboardInterrupt):
                trained(config)
        finally:
            patch.undo()
        assert not (config.out / lifter.WEIGHTS).exists()
    resumed = torch.load(config.out / RESUME, weights_only=True)
    assert resumed["step"] == (12 if kind == "lifter" else 3)
    if kind == "lifter":
        assert torch.load(config.out / "reliability" / RESUME, weights_only=True)["step"] == 2
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        one = _Run._learn
        patch.setattr(_Run, "_learn", lambda run: (calls.append(run.step), one(run))[1])
        found, again = trained(config)
    assert 0 < len(calls) < steps
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name
    assert again == history


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_is_left_as_it_is_and_another_one_does_not_fit_into_its_folder(kind, people, undisturbed):
    config, weights, history, _ = undisturbed[kind]
    again, same = trained(replace(config, save_every=7))
    assert same == history and all(torch.equal(again[name], weights[name]) for name in weights)
    with pytest.raises(ValueError, match=r"other settings \(lr\).*another --out"):
        trained(replace(config, lr=1e-5))
    with pytest.raises(ValueError, match=r"other settings \(seed\)"):
        trained(replace(config, seed=1))


def test_a_run_of_an_earlier_version_is_refused(undisturbed, people, tmp_path):
    config = configured("prior", people, tmp_path)
    state = torch.load(undisturbed["prior"][0].out / RESUME, weights_only=True)
    torch.save({"model": state["modules"]["prior"], **{name: state[name] for name in ("step", "config")}}, tmp_path / RESUME)
    with pytest.raises(ValueError, match="earlier version"):
        trained(config)


def test_settings_without_sense_are_refused(people, tmp_path):
    for change, words in (({"seed": -1}, "seed is -1"), ({"devices": 0}, "devices is 0"), ({"log_every": 0}, "log_every is 0")):
        for kind, run in (("lifter", lifter.train), ("prior", train_prior)):
            with pytest.raises(ValueError, match=words):
                run(replace(configured(kind, people, tmp_path), **change))


def test_a_loss_that_is_no_number_stops_training_and_names_the_rows(people, tmp_path):
    for kind, words in (("lifter", r"people \[\d+, .*\] of .*train"), ("prior", r"poses \[\d+, ")):
        config = replace(configured(kind, people, tmp_path / kind), lr=1e30)
        with pytest.raises(FloatingPointError, match=r"loss is (nan|inf) in step \d+ .*" + words):
            trained(config)


def test_people_without_a_truth_in_numbers_are_named_before_training(people, tmp_path):
    shutil.copytree(people / "train", tmp_path / "train")
    (truth,) = (tmp_path / "train").glob("truth-*.npz")
    with np.load(truth) as data:
        rows = dict(data)
    rows["keypoints2d"][3] = np.nan
    np.savez(truth, **rows)
    config = replace(configured("lifter", people, tmp_path / "run"), data=(tmp_path / "train",))
    with pytest.raises(FloatingPointError, match=r"people \[3\] are not finite"):
        trained(config)


# ---- several processes ------------------------------------------------------------------------------------------------


def alone_or_together(kind, root, out, **changes):
    """Trains with normalisation frozen, without dropout, and says what this process saw: losses and rows of every step (in a list that
    grows meanwhile), how many people, maps or poses it prepared, and the fabric."""
    noted = {"losses": [], "rows": [], "prepared": 0, "runs": []}

    def counting(function, number):
        def counted(*arguments, **options):
            noted["prepared"] += number(*arguments)
            return function(*arguments, **options)

        return counted

    learn_step = _Run._learn

    def noting(run):
        if run not in noted["runs"]:
            noted["runs"].append(run)
            losses_of = run.task.losses
            run.task.losses = lambda learner, network, rows, step: (
                noted["rows"].append([len(noted["runs"]), learner, step, rows.tolist()]), losses_of(learner, network, rows, step))[1]  # fmt: skip
        rows, losses = learn_step(run)
        noted["losses"].append([len(noted["runs"]), run.step, losses])
        return rows, losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Run, "_learn", noting)
        patch.setattr(torch.nn.BatchNorm2d, "train", lambda self, mode=True: torch.nn.Module.train(self, False))
        patch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)
        patch.setattr(torch.nn.Dropout2d, "forward", lambda self, x: x)
        patch.setattr(prior, "_CHUNK", 50)
        patch.setattr(prior, "_draw", counting(prior._draw, lambda job: job[2]))
        patch.setattr(samples, "_views", counting(samples._views, lambda data, *_: len(data["crop"])))
        patch.setattr(proxy_data, "trim_depth", counting(proxy_data.trim_depth, len))
        if kind == "prior":
            config = configured(kind, root, out, **changes)
            fabric = launch(config, prior.WEIGHTS)
            learn(config, torch.from_numpy(draw_poses(config, fabric=fabric)), BodyModel.load(None), fabric)
        elif kind == "lifter":
            lifter.train(replace(configured(kind, root, out, **changes), batch=15))  # two processes have 8 and 7 of them
        else:
            paper.train(paper.SelfSupervisedConfig(
                data=(root / "train",), out=out, regressor=RegressorConfig(size=32, width=8), steps=10, batch=16, lr=2e-3,
                schedule="one_cycle", accelerator="cpu", save_every=3, log_every=2, **changes,
            ))  # fmt: skip
    return noted


RANKS = """
import json, os, signal, sys
from pathlib import Path
import torch
import test_loop
from hmr_ros.training.loop import _Run

if __name__ == "__main__":
    kind, root, out, stop = sys.argv[1], *map(Path, sys.argv[2:4]), int(sys.argv[4])
    step = _Run._learn
    def killed(run):
        if run.step == stop and run.fabric.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(run)
    _Run._learn = killed
    launch = json.loads(sys.argv[5])
    noted = test_loop.alone_or_together(kind, root, out, **launch)
    runs = noted.pop("runs")
    noted["world"] = runs[0].fabric.world_size
    rank = runs[0].fabric.global_rank
    Path(out, f"rank-{rank}.json").write_text(json.dumps(noted))
    torch.save(torch.cat([p.detach().flatten() for run in runs for network in run.networks for p in network.parameters()]), out / f"rank-{rank}.pt")
"""


@pytest.fixture
def ranks(people, tmp_path):
    """Function: two processes train in a folder ``run``; the second one kills itself in a step, if any. Gives the exit code and what was said."""
    script, out = tmp_path / "ranks.py", tmp_path / "run"
    script.write_text(RANKS)
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}

    def run(kind, stop=-1):
        arguments = [str(script), kind, str(people), str(out), str(stop), json.dumps({"devices": 2})]
        done = subprocess.run([sys.executable, "-P", *arguments], env=environment, capture_output=True, text=True, timeout=240)
        return done.returncode, done.stdout + done.stderr

    return run


def same_curve(found, expected):
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
    for (stage, step, some), (_, _, others) in zip(found, expected):
        assert some.keys() == others.keys()
        for name in some:  # sums in another order, which training multiplies
            assert some[name] == pytest.approx(others[name], rel=2e-3, abs=1e-5), (stage, step, name)


@pytest.mark.parametrize("kind, stop", [("lifter", None), ("prior", None), ("paper", 5)])
def test_two_processes_prepare_a_part_each_share_the_rows_and_have_the_loss_curve_of_one(kind, stop, people, ranks, tmp_path):
    alone, first = alone_or_together(kind, people, tmp_path / "alone"), 0
    if stop is not None:  # the second process is killed: the run ends, and goes on from its last checkpoint
        code, said = ranks(kind, stop)
        assert code != 0, said
        first = torch.load(tmp_path / "run" / RESUME, weights_only=True)["step"]
        assert first == 3
    code, said = ranks(kind)
    assert code == 0, said
    both = [json.loads((tmp_path / "run" / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["world"] for rank in both] == [2, 2]
    same_curve(both[0]["losses"], alone["losses"][first:])
    same_curve(both[1]["losses"], alone["losses"][first:])
    for one, other, every in zip(both[0]["rows"], both[1]["rows"], alone["rows"][first:], strict=True):
        assert one[:3] == other[:3] == every[:3] and sorted(one[3] + other[3]) == sorted(every[3]) and other[3]
    assert sum(rank["prepared"] for rank in both) == alone["prepared"] > 0
    assert max(rank["prepared"] for rank in both) <= 0.6 * alone["prepared"]
    weights = [torch.load(tmp_path / "run" / f"rank-{rank}.pt") for rank in (0, 1)]
    assert torch.equal(*weights) and torch.isfinite(weights[0]).all()
    assert not list((tmp_path / "run").glob(".*"))  # what processes share is gone
