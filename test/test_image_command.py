"""`hmr-ros image` as a user meets it: files in, files out, and what it says about bad input."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from hmr_ros.cli import main
from hmr_ros.motion.motion import load_motion

DEMO = Path(str(files("hmr_ros") / "assets" / "demo"))


def test_a_folder_of_pictures_and_videos_gives_overlays_arrays_and_json(tmp_path, capsys):
    media = tmp_path / "media"
    media.mkdir()
    shutil.copy(DEMO / "astronaut.jpg", media / "someone.jpg")
    cv2.imwrite(str(media / "nobody.png"), np.full((120, 160, 3), 90, np.uint8))
    capture = cv2.VideoCapture(str(DEMO / "pedestrians.mp4"))
    size = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    writer = cv2.VideoWriter(str(media / "walk.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, size)
    for _ in range(3):
        writer.write(capture.read()[1])
    writer.release()

    out = tmp_path / "out"
    assert main(["image", str(media), "--out", str(out), "--fov", "60"]) == 0
    assert "no bodies; nobody is detected" in capsys.readouterr().out

    picture = cv2.imread(str(out / "someone.overlay.png"))
    original = cv2.imread(str(media / "someone.jpg"))
    assert picture.shape[0] == original.shape[0] and picture.shape[1] > 1.5 * original.shape[1]  # the second view beside
    assert (np.abs(picture[:, : original.shape[1]].astype(int) - original).max(2) > 30).mean() > 0.05
    with np.load(out / "someone.bodies.npz") as arrays:
        assert arrays["body_pose"].shape == (1, 69) and arrays["vertices"].shape[0] == 1
        assert arrays["vertices"].shape[1] == arrays["faces"].max() + 1
        assert arrays["translation"].shape == (1, 3) and arrays["translation"][0, 2] > 0.2
    report = json.loads((out / "someone.json").read_text())
    assert report["width"] == original.shape[1] and len(report["bodies"]) == 1
    assert report["reliability_source"] == "learned" and len(report["bodies"][0]["reliability"]) == 12

    assert json.loads((out / "nobody.json").read_text())["bodies"] == []
    assert cv2.imread(str(out / "nobody.overlay.png")) is not None

    video = cv2.VideoCapture(str(out / "walk.overlay.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 3
    frames = json.loads((out / "walk.json").read_text())["frames"]
    with np.load(out / "walk.bodies.npz") as arrays:
        assert len(frames) == 3 and set(arrays["frame"]) == {0, 1, 2}
        assert len(arrays["frame"]) == len(arrays["body_pose"]) == sum(len(frame["bodies"]) for frame in frames)
    recorded = load_motion(out / "walk.bodies.npz")
    assert len(recorded.times) == 3 and recorded.body_model and recorded.reliability_source == "learned"
    assert not list(out.glob(".*"))  # nothing half-written stays


def test_pictures_of_the_same_name_do_not_overwrite_each_other(tmp_path):
    blank = np.zeros((8, 8, 3), np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "x.png"), blank)
    out = tmp_path / "out"
    assert main(["image", str(tmp_path / "a"), str(tmp_path / "b" / "x.png"), "--out", str(out)]) == 0
    assert {p.name for p in out.glob("*.json")} == {"x.json", "x-2.json"}


def test_one_bad_file_is_named_and_the_others_are_done(tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    cv2.imwrite(str(tmp_path / "fine.png"), np.zeros((8, 8, 3), np.uint8))
    assert main(["image", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "broken.png" in said and "broken.mp4" in said
    assert [p.name for p in (tmp_path / "out").glob("*.json")] == ["fine.json"]


@pytest.mark.parametrize("arguments, said", [(["no/such/file.png"], "does not exist"), ([], "no input")])
def test_a_missing_input_is_one_line_and_exit_code_2(arguments, said, capsys):
    assert main(["image", *arguments]) == 2
    assert said in capsys.readouterr().err
