"""`hmr-ros demo`: the whole graph in three processes, on the embedded photo, and what it says when a part fails."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
from hmr_ros.commands.demo import Row, embedded_media, mean_of, percentiles, table  # noqa: E402

PATIENCE = 180.0


def demo(tmp_path, *arguments):
    code = "import sys; from hmr_ros.commands.demo import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-P", "-c", code, "--out", str(tmp_path / "out"), *arguments]
    environment = dict(os.environ, COLUMNS="160")
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    return done.returncode, done.stdout + done.stderr


def children_of(tmp_path):
    """Command lines of processes that still write into the demo's log folder, found by their environment."""
    found = []
    for process in os.listdir("/proc"):
        try:
            with open(f"/proc/{process}/environ", "rb") as file:
                if f"ROS_LOG_DIR={tmp_path / 'out'}".encode() in file.read():
                    found.append(process)
        except OSError:
            pass
    return found


@pytest.mark.slow
def test_the_photo_comes_back_with_a_mesh_on_it(tmp_path):
    photo = embedded_media()[0]
    code, output = demo(tmp_path, "--source", photo)
    assert code == 0, output
    overlay = cv2.imread(next(str(p) for p in (tmp_path / "out").glob("*.overlay.png")))
    picture = cv2.imread(photo)
    assert overlay.shape == picture.shape
    changed = (np.abs(overlay.astype(int) - picture).max(axis=2) > 30).mean()
    assert 0.05 < changed < 0.9  # a mesh covers part of it; JPEG alone changes less
    for words in ("frames in", "dropped", "latency p50 / p95", "re-projection"):
        assert words in output
    assert children_of(tmp_path) == []


@pytest.mark.slow
def test_a_folder_with_a_broken_picture_and_pictures_of_one_name_gives_an_overlay_for_each_good_one(tmp_path):
    (tmp_path / "pictures").mkdir()
    picture = cv2.imread(embedded_media()[0])
    for name, shown in (("b.jpg", picture), ("b.png", picture[:, ::-1])):
        cv2.imwrite(str(tmp_path / "pictures" / name), shown)
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"no picture")
    code, output = demo(tmp_path, "--source", str(tmp_path / "pictures"), "--json", str(tmp_path / "all.json"))
    assert code == 1, output
    assert "1 skipped: a.jpg (no picture or video" in output
    assert json.loads((tmp_path / "all.json").read_text())["sources"][0]["reading"]["read"] == 2
    plain, mirrored = (cv2.imread(str(tmp_path / "out" / f"{name}.overlay.png")).astype(int) for name in ("b", "b-2"))
    assert np.abs(plain - picture).mean() < np.abs(plain - picture[:, ::-1]).mean()
    assert np.abs(mirrored - picture[:, ::-1]).mean() < np.abs(mirrored - picture).mean()
    log = (tmp_path / "out" / "replay.log").read_text()
    assert "1 skipped: a.jpg" in log and "Traceback" not in log


@pytest.mark.slow
def test_a_live_node_that_cannot_start_is_shown_with_its_last_words(tmp_path):
    code, output = demo(tmp_path, "--source", embedded_media()[0], "--backend", "nonsense")
    assert code == 1 and "the live process ended with exit code 1" in output
    assert 'backend is "nonsense", expected one of auto' in output and "Traceback" not in output
    assert children_of(tmp_path) == []


def test_pictures_come_before_videos():
    suffixes = [os.path.splitext(path)[1] for path in embedded_media()]
    assert suffixes == sorted(suffixes, key=lambda s: s in (".mp4", ".avi")) and len(set(suffixes)) == 2


def test_the_table_copes_with_a_source_without_answers():
    silent = Row("silent", 5, 0, [], 0, [], [], [], {})
    assert len(table([silent]).columns) == 2
    assert percentiles([]) == "-" and mean_of([], 0, 1) == "-"
    assert percentiles([0.1, 0.2, 0.3]) == "200 / 290" and mean_of([(0.1, 20.0), (0.3, 40.0)], 0, 100) == "20.0"
