"""The tests run against the installed package: the checkout has neither ``hmr_ros.msg`` nor ``hmr_ros.training``."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    found = importlib.util.find_spec("hmr_ros")
    if found is None or Path(found.origin).is_relative_to(ROOT / "hmr_ros"):
        where = "is not installed" if found is None else f"comes from the checkout ({found.origin})"
        raise pytest.UsageError(f"hmr_ros {where}: run `make test`, which builds, installs and tests it")


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """Folder of rendered people, seen by the real detectors: ``train`` to learn from, ``val`` held out."""
    from hmr_ros.training.datasets import rendered

    root = tmp_path_factory.mktemp("rendered")
    for split, count in (("train", 60), ("val", 16)):
        rendered.generate(rendered.RenderedConfig(root / split, count=count, split=split, workers=1, seed=3))
    return root
