"""The paper's figures made again: files, sizes and captions, who is shown, and bodies that lie on their people."""

import json
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.geometry import fit_weak_camera, matrix_from_rotvec, to_crop
from hmr_ros.networks.paper.prior import PosePrior
from hmr_ros.networks.paper.net import RegressorConfig, Resnet18Regressor
from hmr_ros.training.paper import figures
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.paper.figure_people import Painter, Rendered, Trained
from hmr_ros.training.paper.proxy_data import HARSH, corrupt, of_rows
from hmr_ros.training.benchmarks.rendered.methods import Prediction
from hmr_ros.training.paper.train import save_regressor


@pytest.fixture(scope="module")
def ablation(tmp_path_factory):
    """Runs of two variants, as they are before any training."""
    folder, body = tmp_path_factory.mktemp("ablation"), BodyModel.load(None)
    for seed, name in enumerate(("ours", "no_uncertainty")):
        torch.manual_seed(seed)
        regressor = Resnet18Regressor(RegressorConfig(size=32, width=8), PosePrior())
        trained = {"step": 7, "config": {"depth": "sensor_depth", "trim": True, "corruption": {"outliers": 0.5, "seed": 0}}}
        save_regressor(folder / "harsh" / f"{name}-0" / "regressor.safetensors", regressor, body, trained)
    return folder


@pytest.fixture(scope="module")
def made(people, ablation, tmp_path_factory):
    """All figures of the held-out people, with a photo as footage."""
    out = tmp_path_factory.mktemp("figures")
    photo = out / "nested" / "somebody.png"
    photo.parent.mkdir()
    benchmark = Rendered(people / "val", None)
    box = benchmark.rows["box"]
    cv2.imwrite(str(photo), benchmark.image(int(np.argmax(box[:, 3] - box[:, 1]))))
    arguments = ["--data", str(people / "val"), "--ablation", str(ablation), "--out", str(out), "--footage", str(photo)]
    checkpoint = ablation / "harsh" / "ours-0" / "regressor.safetensors"
    assert figures.main([*arguments, "--checkpoint", str(checkpoint), "--people", "3"]) == 0
    return SimpleNamespace(out=out, arguments=arguments, checkpoint=checkpoint, text=(out / "figures.md").read_text())


def part(text, number):
    return text.partition(f"## figure{number}.jpg")[2].partition("## figure")[0]


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_every_figure_is_small_and_of_the_stated_size(made, number):
    path = made.out / f"figure{number}.jpg"
    height, width = cv2.imread(str(path)).shape[:2]
    assert path.stat().st_size < 300_000
    assert f"{width} x {height} px" in part(made.text, number)
    assert "`hmr-ros figures --data" in part(made.text, number)


def test_trimming_brings_the_body_out_of_the_dark(made):
    """Outliers take the whole range of grey values; the middle half of a body's pixels spreads where they are trimmed."""
    grey = cv2.imread(str(made.out / "figure2.jpg"), cv2.IMREAD_GRAYSCALE)
    side = figures._SIDES[2]
    spreads = []
    for row in (grey[:side], grey[-side:]):
        maps = [row[:, x : x + side] for x in range(0, row.shape[1], side + 6)]
        spreads.append([np.subtract(*np.percentile(depth[depth > 25], (75, 25))) for depth in maps])
    assert np.mean(spreads[1]) > 1.5 * np.mean(spreads[0])
    assert "added by us" in part(made.text, 2)


def test_figure_2_shows_people_with_outliers_only(people):
    rows = rendered.load(people / "val")
    measured = of_rows({name: value for name, value in rows.items() if not name.startswith("missed_")}, "sensor_depth")
    moved = (corrupt(measured, HARSH).depth.float() - measured.depth.float()).amax((1, 2))
    assert not ((moved > 0.6) & (moved < figures.OUTLIER)).any()  # blobs end where outliers have not begun


def test_the_captions_name_weights_variants_and_what_is_missing(made):
    sha256 = Trained.load(made.checkpoint).sha256
    assert sha256 in part(made.text, 3) and sha256 in part(made.text, 5)
    four = part(made.text, 4)
    assert f"{sha256[:12]}` (7 steps;" in four and "no_uncertainty_no_trimming, no_uncertainty_no_sampling, no_depth_input, joints_only" in four
    assert "`somebody.png`" in part(made.text, 3)


def test_one_figure_made_again_leaves_the_others_and_their_captions(made):
    before = {path.name: path.stat().st_mtime_ns for path in made.out.glob("*.jpg")}
    figures.main([*made.arguments, "--only", "2", "--people", "4"])
    after = {path.name: path.stat().st_mtime_ns for path in made.out.glob("*.jpg")}
    assert {name for name in after if after[name] != before[name]} == {"figure2.jpg"}
    text = (made.out / "figures.md").read_text()
    assert [part(text, n).strip() == part(made.text, n).strip() for n in (2, 3, 4, 5)] == [False, True, True, True]
    assert re.findall(r"^## (.*)", text, re.M) == [f"figure{n}.jpg" for n in (2, 3, 4, 5)]


def test_the_true_body_covers_its_person_in_the_picture(people):
    """The panel's geometry: where the regressor knows the truth, the drawn body and the person's mask are one."""
    benchmark, painter = Rendered(people / "val", None), Painter(96)
    rows = benchmark.rows
    whole = (rows["visible_fraction"] > 0.97) & (rows["people"] == 1)
    assert whole.sum() >= 3
    pose = np.concatenate([rows["ray_orient"][:, None], rows["pose"][:, 1:]], axis=1)
    seen, weights = to_crop(rows["keypoints2d"], rows["crop"]), np.ones((len(pose), 17), np.float32)
    cameras = fit_weak_camera(rows["keypoints3d"], seen, weights)
    exact = Prediction(None, None, rows["betas"], np.ones((len(pose), 12), np.float32), matrix_from_rotvec(pose), cameras)
    overlaps = []
    for row in np.flatnonzero(whole)[:5]:
        blank = np.zeros((96, 96, 3), np.uint8)
        drawn = painter.body_panels(blank, exact, row, rows)[0].any(-1)
        mask = cv2.resize(rows["mask"][row], (96, 96)) > 127
        overlaps.append((drawn & mask).sum() / (drawn | mask).sum())
        picture = painter.picture(benchmark.image(row), rows["crop"][row]).astype(int)
        ring = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))).astype(bool) & ~mask
        assert np.abs(picture[mask].mean(0) - picture[ring].mean(0)).max() > 3  # somebody stands there, before something else
    assert np.median(overlaps) > 0.7


def test_people_are_chosen_by_category_alone(people):
    benchmark = Rendered(people / "val", None)
    chosen = benchmark.evenly(4)
    categories = benchmark.rows["category"][chosen]
    assert len(set(categories.tolist())) == len(chosen) == min(4, len(np.unique(benchmark.rows["category"])))
    assert chosen == benchmark.evenly(4) and len(benchmark.evenly(1000)) == len(np.unique(benchmark.rows["category"]))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "name their folder by --ablation, or leave it out: --only 2 3 5"),
        ({"--ablation": "nowhere"}, "hmr-ros ablate --out nowhere --condition harsh"),
        ({"--only": "2", "--data": "nobody"}, "hmr-ros data rendered"),
        ({"--only": "3", "--checkpoint": "none.safetensors"}, "hmr-ros train"),
        ({"--only": "2", "--people": "1"}, "expected at least 3"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(people, tmp_path, monkeypatch, options, what):
    monkeypatch.chdir(tmp_path)
    arguments = [word for pair in ({"--data": str(people / "val")} | options).items() for word in pair]
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(what)):
        figures.main(arguments)


def test_pictures_that_cannot_be_made_again_are_said(people, tmp_path):
    config = json.loads((people / "val" / "config.json").read_text())
    for file in (people / "val").glob("*.npz"):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").write_text(json.dumps(config | {"backgrounds": 81}))
    with pytest.raises(ValueError, match="--backgrounds"):
        Rendered(tmp_path, None)
    (tmp_path / "config.json").write_text(json.dumps(config | {"seed": 4}))
    with pytest.raises(ValueError, match="cannot be made again"):
        Rendered(tmp_path, None).image(0)
