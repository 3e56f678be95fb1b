"""Extractors by name, and what folders of shards remember of them."""

import json
from dataclasses import dataclass
from importlib.resources import files

import pytest

from hmr_ros.proxies import registry
from hmr_ros.proxies.config import EmbeddedConfig
from hmr_ros.training.data import shard_work


def test_an_identity_names_files_and_options_and_survives_json():
    identity = registry.identity()
    assert json.loads(json.dumps(identity)) == identity and identity["name"] == "embedded"
    manifest = json.loads((files("hmr_ros") / "assets" / "manifest.json").read_text())
    assert identity["files"] == {name: manifest[name]["sha256"] for name in identity["files"]} and len(identity["files"]) == 3
    assert identity["options"]["confident"] == 0.3 == registry.confident(identity) == registry.confident(None)
    assert registry.identity(flip=True) != identity
    assert registry.confident(identity | {"options": {"confident": 0.5}}) == 0.5


def test_an_extractor_is_added_by_one_entry(monkeypatch):
    monkeypatch.setitem(registry.EXTRACTORS, "silent", f"{__name__}:Silent")
    extractor = registry.make_extractor("silent", threads=1, flip=True)
    assert isinstance(extractor, Silent) and extractor.config.flip
    assert registry.identity("silent") == {"name": "silent", "files": {}, "options": {"flip": False, "size": 64, "confident": 0.7}}
    assert registry.identity("silent", size=256)["options"]["size"] == 256 and registry.identity("silent", size=32)["options"]["size"] == 64
    with pytest.raises(ValueError, match="extractor is 'loud', expected one of embedded, paper, silent"):
        registry.make_extractor("loud")


class Silent:
    """Finds nobody."""

    @dataclass(frozen=True)
    class Config:
        flip: bool = False
        size: int = 64
        confident: float = 0.7

    name, FILES, backend, provides = "silent", (), "nothing", frozenset()

    def __init__(self, threads, config):
        self.config = config


@pytest.fixture
def folder(tmp_path):
    """With a shard, so that a claim by another data set is refused."""
    (tmp_path / "proxies-00000.npz").touch()
    return tmp_path


def claimed(folder, config: dict, identity: dict):
    (folder / "config.json").write_text(json.dumps(config))
    shard_work.claim(folder, identity)
    return json.loads((folder / "config.json").read_text())


def test_folders_older_than_identities_are_the_embedded_extractors(folder):
    identity = {"seed": 1, "extractor": registry.identity()}
    assert claimed(folder, {"seed": 1}, identity) == identity  # as `data rendered` wrote it
    assert claimed(folder, {"seed": 1, "detectors": identity["extractor"]["files"]}, identity) == identity  # as `extract` did
    with pytest.raises(ValueError, match="another data set.*extractor"):
        claimed(folder, {"seed": 1, "detectors": identity["extractor"]["files"] | {"movenet_multipose.xml": "other"}}, identity)
    with pytest.raises(ValueError, match="another data set.*extractor"):
        claimed(folder, {"seed": 1}, {"seed": 1, "extractor": identity["extractor"] | {"name": "paper"}})


def test_shards_of_another_extractor_or_of_other_thresholds_do_not_mix(folder):
    identity = {"extractor": registry.identity()}
    assert shard_work.extractor_of(folder) is None
    claimed(folder, identity, identity)
    assert shard_work.extractor_of(folder) == identity["extractor"]
    other = registry.identity_of(registry._class("embedded"), EmbeddedConfig(confident=0.4))
    with pytest.raises(ValueError, match="another data set.*extractor"):
        shard_work.claim(folder, {"extractor": other})


def test_checkpoints_carry_the_extractors_of_all_their_folders(tmp_path):
    for name, extractor in (("a", {"name": "one"}), ("b", {"name": "two"}), ("c", {"name": "one"})):
        (tmp_path / name).mkdir()
        shard_work.claim(tmp_path / name, {"extractor": extractor})
    (tmp_path / "old").mkdir()
    folders = [tmp_path / name for name in ("a", "b", "c", "old")]
    assert shard_work.extractors_of(folders) == [{"name": "one"}, {"name": "two"}]
