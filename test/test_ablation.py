"""``hmr-ros ablate`` in miniature, and the faults that it adds to proxies."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hmr_ros.cli import main
from hmr_ros.skeleton import COCO_MIRROR
from hmr_ros.training.paper import ablation
from hmr_ros.training.paper.proxy_data import HARSH, Corruption, ProxyData, corrupt, mirrored, trimmed


@pytest.fixture(scope="module")
def table(people, tmp_path_factory):
    """Arguments of a table of two variants, and what it said the first time."""
    root = tmp_path_factory.mktemp("ablation")
    arguments = ["ablate", "--data", str(people / "train"), "--test", str(people / "val"), "--out", str(root / "runs"), "--preset", "tiny",
                 "--steps", "30", "--seeds", "1", "--variants", "ours", "no_uncertainty_no_trimming", "--refinement.steps", "4",
                 "--json", str(root / "table.json")]  # fmt: skip
    assert main(arguments) == 0
    return root, arguments


def strict(path):
    """JSON without NaN or Infinity."""
    def refuse(name):
        raise AssertionError(f"{name} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_the_table_has_its_rows_and_finite_figures(table):
    root, _ = table
    result = strict(root / "table.json")
    assert list(result["variants"]) == ["ours", "no_uncertainty_no_trimming"] and result["condition"] == "harsh"
    ours, bare = result["variants"].values()
    assert ours["label"] == "ours" and ours["paper_3dpw"] == {"mpjpe": 159.4, "pa_mpjpe": 89.5}
    assert ours["network"]["all"]["mpjpe"]["mean"] == ours["runs"][0]["all"]["mpjpe"] > ours["runs"][0]["all"]["pa_mpjpe"] > 0
    assert {"refined", "optimised_from_mean_pose"} <= ours.keys() and "refined" not in bare
    assert 0.0 <= ours["runs"][0]["auroc"]["reliability"]["detected_wrong"] <= 1 and "auroc" not in bare["runs"][0]
    # Both say how much T_IQR finds to trim, also where it is not used.
    shares = [variant["runs"][0]["training"]["pixels_trimmed_share"] for variant in (ours, bare)]
    assert 0.001 < shares[0] == shares[1] < 0.2 and result["proxies"]["pixels_trimmed_share"] > 0.001
    assert 0.03 < result["proxies"]["wrong_joints_share"] < 0.4
    from rich.console import Console

    console = Console(width=140, record=True, quiet=False)
    console.print(ablation.table(result))
    text = console.export_text()
    for words in ("ours", "ours, refined", "- uncertainty - T_IQR", "optimised from the mean pose", "mean pose", "159.4", "113.5", "% of the pixels trimmed"):
        assert words in text, words


def test_a_second_call_trains_nothing_and_says_the_same(table, monkeypatch):
    root, arguments = table
    first = strict(root / "table.json")
    monkeypatch.setattr(ablation, "train", lambda *_: pytest.fail("it trains again"))
    assert main(arguments) == 0
    assert strict(root / "table.json") == first


def test_scores_of_other_settings_in_the_same_folder_are_not_taken_for_these(table, capsys):
    root, arguments = table
    before = (root / "table.json").read_text()
    assert main([*arguments, "--steps", "31"]) == 2
    assert "other settings (steps)" in capsys.readouterr().err and (root / "table.json").read_text() == before
    assert main([*arguments, "--refine", "no_depth_input", "joints_only"]) == 2
    assert "expected some of --variants" in capsys.readouterr().err


@pytest.fixture(scope="module")
def some():
    """Forty people whose depth is a tilted disc, without a truth."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[:32, :32]
    disc = np.where(np.hypot(rows - 15.5, columns - 15.5) < 13, 4 + 0.01 * columns + 0.005 * rows, 0)
    joints = rng.uniform(-0.8, 0.8, (40, 17, 3)).astype(np.float32)
    joints[..., 2] = rng.choice([0, 0.9], (40, 17), p=[0.1, 0.9])
    joints[..., :2] *= joints[..., 2:] > 0
    return ProxyData(torch.from_numpy(joints), torch.from_numpy(np.repeat(disc[None], 40, 0).astype(np.float16)))


def same(one, two):
    return torch.equal(one.joints, two.joints) and torch.equal(one.depth, two.depth)


def test_faults_are_the_same_for_the_same_seed_and_leave_their_input_alone(some):
    before = ProxyData(some.joints.clone(), some.depth.clone())
    one, two, other = corrupt(some, HARSH), corrupt(some, HARSH), corrupt(some, replace(HARSH, seed=1))
    assert same(one, two) and not torch.equal(one.joints, other.joints) and not torch.equal(one.depth, other.depth)
    assert same(some, before)
    assert same(corrupt(some, Corruption(seed=3)), some)  # none asked for: bit for bit


@pytest.mark.parametrize("kind, low, high", [("blobs", 0.2, 0.5), ("outliers", 1.5, 8.0)])
def test_faults_of_depth_change_what_they_say_and_nothing_else(kind, low, high, some):
    faulty = corrupt(some, Corruption(**{kind: 0.5}))
    assert torch.equal(faulty.joints, some.joints) and torch.equal(faulty.depth == 0, some.depth == 0)
    change = (faulty.depth.float() - some.depth.float()).flatten(1)
    who = change.abs().amax(1) > 0
    assert 10 <= who.sum() <= 30  # half of forty
    size = change.abs()[change != 0]
    assert size.min() > low - 0.02 and size.max() < high + 0.02
    assert (change.min() < 0) == (kind == "blobs")
    touched = (change[who] != 0).float().mean(1) / (some.depth[0] > 0).float().mean()
    assert touched.max() < 0.4  # a part of the person
    assert trimmed(some)[1] == 0
    if kind == "outliers":  # what T_IQR is made for
        after, share = trimmed(faulty)
        assert share > 0.005 and after.depth.max() < 5


def test_faults_of_joints_change_what_they_say_and_nothing_else(some):
    displaced = corrupt(some, Corruption(displaced=0.2))
    moved = (displaced.joints != some.joints).any(-1)
    assert torch.equal(displaced.depth, some.depth) and torch.equal(displaced.joints[..., 2], some.joints[..., 2])
    assert not moved[:, :5].any() and not moved[some.joints[..., 2] == 0].any()
    assert 0.12 < moved[:, 5:].float().mean() < 0.25
    swapped = corrupt(some, Corruption(swapped=0.5))
    for one, other in zip(swapped.joints, some.joints):
        changed = {i for i in range(17) if not torch.equal(one[i], other[i])}
        assert changed <= {7, 8, 9, 10} or changed <= {13, 14, 15, 16}
        assert all(torch.equal(one[i], other[COCO_MIRROR[i]]) for i in changed)
    assert 8 <= (swapped.joints != some.joints).flatten(1).any(1).sum() <= 32


def test_trimming_reports_the_share_of_valid_pixels_that_it_moved(some):
    depth = some.depth.clone()
    rows, columns = np.nonzero(depth[7].numpy())
    depth[7, rows[:5], columns[:5]] = 30
    after, share = trimmed(ProxyData(some.joints, depth))
    assert share == pytest.approx(5 / (40 * len(rows)))
    assert after.depth[7].max() < 5 and torch.equal(after.depth[:7], depth[:7])


def test_a_mirror_shows_those_it_is_asked_for_and_twice_it_shows_them_as_they_are(some):
    which = torch.arange(40) % 2 == 0
    once = mirrored(some, which)
    assert torch.equal(once.joints[~which], some.joints[~which]) and torch.equal(once.depth[~which], some.depth[~which])
    assert torch.equal(once.joints[0, 9], some.joints[0, 10] * torch.tensor([-1.0, 1, 1]))
    assert torch.equal(once.depth[0, :, 0], some.depth[0, :, -1]) and same(mirrored(once, which), some)
