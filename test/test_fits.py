"""``hmr-ros fit`` and learning from its bodies: closer to the proxies than the regressor, goes on where it stopped, nobody else's."""

from dataclasses import replace

import pytest
import torch

from hmr_ros.body.model import BodyModel
from hmr_ros.cli import main
from hmr_ros.files import load_checkpoint, save_checkpoint
from hmr_ros.geometry import weak_perspective
from hmr_ros.networks.checkpoints import load_resnet18
from hmr_ros.networks.paper.prior import load_pose_prior
from hmr_ros.networks.paper.net import RegressorConfig, Resnet18Regressor
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.skeleton import COCO_MIRROR
from hmr_ros.training.paper import fits as fits_module
from hmr_ros.training.paper.fits import FitConfig, Fits, fit, fit_loss, load_fits, mirrored_fits
from hmr_ros.training.losses.consistency import LossConfig, joint_loss
from hmr_ros.training.paper.proxy_data import ProxyData, load, trimmed
from hmr_ros.training.paper.optimise import OptimiseConfig
from hmr_ros.training.paper.train import PRESETS, WEIGHTS, save_regressor, train


@pytest.fixture(scope="module")
def config(people, tmp_path_factory):
    """Of a fit in several batches, from a regressor that has learned nothing."""
    root = tmp_path_factory.mktemp("fits")
    torch.manual_seed(0)
    regressor = Resnet18Regressor(RegressorConfig(size=32, width=8), load_pose_prior())
    save_regressor(root / WEIGHTS, regressor, BodyModel.load(None), {})
    return FitConfig((people / "train",), root / WEIGHTS, root / "fits.safetensors", "sensor_depth",
                     optimise=OptimiseConfig(steps=12, lr=0.08, batch=16))  # fmt: skip


@pytest.fixture(scope="module")
def fitted(config):
    return fit(config)


@pytest.fixture(scope="module")
def proxies(config):
    return trimmed(load(config.data, config.depth))[0]


@pytest.fixture(scope="module")
def skeleton():
    return PosedKeypoints(BodyModel.load(None))


def test_fitted_bodies_lie_closer_to_the_proxies_than_the_regressor_says(config, fitted, proxies, skeleton):
    regressor = load_resnet18(config.init)[0].eval()
    with torch.no_grad():
        said = regressor(proxies.joints, proxies.depth.float())
        off = [float(joint_loss(proxies.joints, weak_perspective(skeleton(some.rotations, some.betas)[1], camera)).mean())
               for some, camera in ((said, said.weak_camera), (fitted, fitted.camera))]  # fmt: skip
    assert off[1] < 0.4 * off[0], off


def test_a_stopped_fit_goes_on_and_ends_the_same(config, fitted, proxies, tmp_path, monkeypatch):
    config = replace(config, out=tmp_path / "fits.safetensors")
    monkeypatch.setattr(fits_module, "_SAVE_EVERY", 1)
    one, calls = fits_module._fitted, []

    def stopped(*arguments):
        calls.append(len(arguments[2]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return one(*arguments)

    monkeypatch.setattr(fits_module, "_fitted", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit(config)
    with pytest.raises(ValueError, match=f"32 of {len(proxies)} people"):
        load_fits([config.out], proxies)
    again = fit(config)
    assert sum(calls) == len(proxies) + 16  # the batch that was stopped, twice
    for name in Fits.__dataclass_fields__:
        assert torch.allclose(getattr(again, name), getattr(fitted, name), atol=1e-5), name
    assert len(load_fits([config.out], proxies)) == len(proxies)


def test_fits_from_before_an_option_existed_are_those_of_its_default(config, fitted, tmp_path):
    tensors, metadata = load_checkpoint(config.out)
    del metadata["loss"]["rasterizer"]
    save_checkpoint(tmp_path / "fits.safetensors", tensors, metadata)
    again = fit(replace(config, out=tmp_path / "fits.safetensors"))
    assert torch.equal(again.rotations, fitted.rotations)


def test_fits_of_other_people_or_settings_are_refused(config, fitted, proxies, people, capsys):
    with pytest.raises(ValueError, match="holds fits of other optimise"):
        fit(replace(config, optimise=OptimiseConfig(steps=13)))
    with pytest.raises(ValueError, match="other people than"):
        load_fits([config.out], proxies[torch.arange(3)])
    assert main(["train", "tiny", "--data", str(people / "val"), "--fits", str(config.out), "--batch", "4"]) == 2
    assert "other people than" in capsys.readouterr().err
    assert main(["fit", "--data", str(people / "val"), "--init", "nowhere.safetensors"]) == 2
    assert "nowhere.safetensors: no such file" in capsys.readouterr().err
    twice = ProxyData(*(torch.cat([value, value]) for value in (proxies.joints, proxies.depth)))
    assert len(load_fits([config.out, config.out], twice)) == 2 * len(proxies)
    with pytest.raises(ValueError, match=f"holds {len(proxies)} people, --data {2 * len(proxies)}"):
        load_fits([config.out], twice)
    with pytest.raises(ValueError, match="not a file of"):
        load_fits([config.init], proxies)


def test_a_mirrored_fit_is_seen_where_the_mirror_shows_it(fitted, skeleton):
    half = torch.arange(len(fitted)) % 2 == 0
    seen, mirrored = (
        weak_perspective(skeleton(some.rotations, some.betas)[1], some.camera) for some in (fitted, mirrored_fits(fitted, half))
    )
    assert torch.allclose(mirrored[~half], seen[~half])
    expected = seen[half][:, list(COCO_MIRROR)] * torch.tensor([-1.0, 1])
    assert (mirrored[half] - expected).norm(dim=-1).max() < 0.02  # of crop's [-1, 1]: the body is not quite symmetric
    assert (mirrored[half] - seen[half]).norm(dim=-1).mean() > 0.05
    twice = mirrored_fits(mirrored_fits(fitted, half), half)
    assert torch.allclose(twice.rotations, fitted.rotations) and torch.allclose(twice.camera, fitted.camera)


def test_a_network_taught_by_them_comes_closer_to_them(config, fitted, proxies, skeleton, tmp_path):
    """By the fits alone: self-consistency is left out."""
    taught = replace(PRESETS["tiny"][1], data=config.data, out=tmp_path, depth=config.depth, steps=300, batch=16, lr=3e-3,
                     accelerator="cpu", fits=(config.out,), save_every=1000, log_every=1000, mirror=False,
                     loss=LossConfig(alpha_joint=0.0, alpha_depth=0.0))  # fmt: skip
    train(taught)
    distances = []
    for weights in (config.init, taught.out / WEIGHTS):
        with torch.no_grad():
            said = load_resnet18(weights)[0].eval()(proxies.joints, proxies.depth.float())
        distances.append(float(fit_loss((said.rotations, said.betas, said.weak_camera), fitted, skeleton)))
    assert distances[1] < 0.6 * distances[0], distances
