"""30 s of `make soak` with an estimator that costs nothing: what the node itself makes of bad and changing input."""

import importlib.util
import os
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy")

SECONDS = float(os.environ.get("SOAK_SECONDS", 60))


@pytest.mark.slow
def test_a_minute_of_bad_input_hurts_nothing(tmp_path):
    from hmr_ros.ros.process import start_ros

    spec = importlib.util.spec_from_file_location("soak", Path(__file__).parent / "soak" / "soak.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    start_ros([])
    try:
        result = module.soak(SECONDS, tmp_path / "live.log", fake=True)
    finally:
        rclpy.try_shutdown()
    assert result["problems"] == [], (tmp_path / "live.log").read_text()[-3000:]
    assert result["outputs"] > 0.5 * result["images"]
