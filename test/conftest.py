"""The tests run against the installed package: the checkout has neither ``hmr_ros.msg`` nor ``hmr_ros.training``.

They talk in a ROS domain of their own, on this machine only; the processes that they start inherit it.
"""

import fcntl
import importlib.util
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Files that start nodes and other programs and wait for them: one after the other, whatever else runs.
WITH_PROCESSES = {
    f"test_{name}.py"
    for name in ("bench", "demo", "launch", "node", "node_inputs", "node_outputs", "node_process", "record", "replay_process", "soak", "viewer")
}


def pytest_configure(config):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    found = importlib.util.find_spec("hmr_ros")
    if found is None or Path(found.origin).is_relative_to(ROOT / "hmr_ros"):
        where = "is not installed" if found is None else f"comes from the checkout ({found.origin})"
        raise pytest.UsageError(f"hmr_ros {where}: run `make test`, which builds, installs and tests it")
    config.ros_domain, number = claimed_domain()
    os.environ.update(ROS_DOMAIN_ID=str(number), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")


def claimed_domain():
    """(lock, number): a ROS domain that no other session of tests on this machine has while the lock is open."""
    for number in random.SystemRandom().sample(range(1, 102), 101):
        lock = open(Path(tempfile.gettempdir()) / f"hmr_ros_tests_domain_{number}.lock", "a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
        else:
            return lock, number
    raise pytest.UsageError("101 sessions of tests are running: no ROS domain is left")


def pytest_collection_modifyitems(items):
    """A file's tests run in one process of pytest-xdist, and share what they made."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("with processes" if item.path.name in WITH_PROCESSES else item.path.stem))


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """Folder of rendered people, seen by the real detectors: ``train`` to learn from, ``val`` held out. One for all processes of pytest-xdist."""
    from hmr_ros.training.data.rendered import dataset as rendered

    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "rendered"
    with open(root.with_suffix(".lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            for split, count in (("train", 60), ("val", 16)):
                rendered.generate(rendered.RenderedConfig(root / split, count=count, split=split, workers=1, seed=3))
    return root


@pytest.fixture(scope="module")
def one_thread():
    """torch computes with one thread meanwhile."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def wait_until():
    """Function: wait until a condition is true."""

    def wait(condition, patience: float = 90.0):
        end = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.1)

    return wait


@pytest.fixture(scope="session")
def processes_of_session():
    """Function: living processes of a session, from /proc."""

    def processes(session: int) -> list[int]:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
            except (OSError, ValueError):  # it has just ended
                continue
            if int(sid) == session and state != "Z":
                found.append(int(stat.parent.name))
        return found

    return processes


@pytest.fixture
def positions():
    """Human3.6M's 32 joints of 13 frames, millimetres in camera axes, as its files have them: (13, 96)."""
    import numpy as np

    return np.random.default_rng(4).normal(0, 500, (13, 96)) + np.tile([0, 0, 5000], 32)
