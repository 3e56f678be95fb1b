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
from hmr_ros.training.loop import RESUME, _Run
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
        prior, result = learn(config, torch.from_numpy(draw_poses(config)), BodyModel.load(None))
        return prior.state_dict(), result.history
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


RANKS = """
import json, sys
from pathlib import Path
import torch
from hmr_ros.training.loop import _Run
from test_loop import configured, trained

kind, root, out = sys.argv[1], *map(Path, sys.argv[2:])
runs, rows = [], []
learn = _Run._learn

def noted(self):
    if self not in runs:
        runs.append(self)
        original = self.task.losses
        def losses(learner, network, some, step):
            rows.append([learner, step, some.tolist()])
            return original(learner, network, some, step)
        self.task.losses = losses
    return learn(self)
_Run._learn = noted

if __name__ == "__main__":
    trained(configured(kind, root, out, devices=2))
    weights = torch.cat([p.detach().flatten() for run in runs for network in run.networks for p in network.parameters()])
    rank = runs[0].fabric.global_rank
    Path(out, f"rank-{rank}.json").write_text(json.dumps({"rows": rows, "world": runs[0].fabric.world_size}))
    torch.save(weights, Path(out, f"rank-{rank}.pt"))
"""


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_share_the_rows_and_keep_the_same_weights(kind, people, undisturbed, tmp_path):
    out, script = tmp_path / "run", tmp_path / "ranks.py"
    script.write_text(RANKS)
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-P", str(script), kind, str(people), str(out)], env=environment, capture_output=True,
                          text=True, timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    ranks = [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["world"] for rank in ranks] == [2, 2]
    learners = 2
    steps = undisturbed[kind][3]
    calls = learners * 10 if kind == "prior" else learners * 12 + 3
    assert steps == (10 if kind == "prior" else 15) and [len(rank["rows"]) for rank in ranks] == [calls, calls]
    for (learner, step, one), (other_learner, other_step, other) in zip(*(rank["rows"] for rank in ranks)):
        assert (learner, step, len(one)) == (other_learner, other_step, len(other)) and one != other
        if kind == "lifter":  # a step has nobody twice; a prior's poses are drawn with replacement
            assert not set(one) & set(other)
    weights = [torch.load(out / f"rank-{rank}.pt") for rank in (0, 1)]
    assert torch.equal(*weights) and torch.isfinite(weights[0]).all()
