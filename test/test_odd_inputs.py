"""Odd files, each made by code: what is read of them is right, and what is not read is said. Exit codes 0, 1 and 2 mean what io/report.py says."""

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hmr_ros import HumanMeshEstimator
from hmr_ros.cli import main
from hmr_ros.io.decode import compressed_image_from_message
from hmr_ros.io.encoded import what_is_missing
from hmr_ros.io.report import ReadReport, printable
from hmr_ros.io.sources import open_source
from hmr_ros.io.videos import VideoFile, VideoWriter

DEMO = Path(str(files("hmr_ros") / "assets" / "demo"))
PHOTO = cv2.resize(cv2.imread(str(DEMO / "astronaut.jpg")), (320, 320), interpolation=cv2.INTER_AREA)
BLANK = np.full_like(PHOTO, 90)


@pytest.fixture(scope="module")
def estimator():
    return HumanMeshEstimator.from_default(threads=1)


@pytest.fixture(scope="module", autouse=True)
def one_estimator(estimator):
    """The networks are loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HumanMeshEstimator, "from_default", lambda *_, **__: estimator)
        yield


def image(*arguments):
    return main(["image", *map(str, arguments)])


def read_all(path):
    """Frames and the report of a source."""
    source = open_source(str(path))
    return list(source.frames()), source.report


def clip(path, count=30, rate=10, codec="mpeg4", size=(64, 48)):
    """A video in which every frame differs; ``rate`` Hz."""
    rng = np.random.default_rng(0)
    still = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), size, interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for i in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(still, 3 * i, 1), format="bgr24")))
        container.mux(stream.encode())
    return path


def said(capsys):
    captured = capsys.readouterr()
    return captured.out + captured.err


# ---- names ----------------------------------------------------------------------------------------------------------


def test_a_name_that_is_not_utf_8_is_read_written_and_printed_with_escapes(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes(cv2.imencode(".png", BLANK)[1])
    shutil.copy(clip(tmp_path / "clip.mp4", 3), tmp_path / os.fsdecode(b"vid\xe9o.mp4"))
    (tmp_path / "later.png").write_bytes(cv2.imencode(".png", BLANK)[1])
    command = [sys.executable, "-P", "-m", "hmr_ros.cli", "image", str(tmp_path), "--out", str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)  # of its own: OpenCV dies of such a name
    assert run.returncode == 0, run.stdout + run.stderr
    assert r"caf\xe9.png" in run.stdout and r"vid\xe9o.mp4" in run.stdout
    made = {os.fsencode(path.name) for path in (tmp_path / "out").iterdir()}
    assert {b"caf\xe9.overlay.png", b"caf\xe9.json", b"vid\xe9o.overlay.mp4", b"later.json"} <= made
    assert json.loads((tmp_path / "out" / os.fsdecode(b"caf\xe9.json")).read_text())["source"] == r"caf\xe9.png"


def test_names_with_brackets_and_control_characters_are_printed_as_they_are(tmp_path, capsys):
    folder = tmp_path / "a [bold]"
    folder.mkdir()
    for name in ("photo [red].png", "photo [link].png", "line\nbreak.png"):
        (folder / name).write_bytes(cv2.imencode(".png", BLANK)[1])
    (folder / "gone [i].png").touch()
    assert image(folder, "--out", tmp_path / "out") == 1
    text = said(capsys)
    assert "a [bold]/photo [red].png" in text and "photo [link].png" in text and "gone [i].png (an empty file)" in text and r"line\nbreak.png" in text


def test_printable_leaves_ordinary_names_alone():
    assert printable("Übung 3 [ok].png") == "Übung 3 [ok].png"
    assert printable(os.fsdecode(b"\xff\x1b[31m")) == r"\xff\x1b[31m"


# ---- pictures of more than 8 bits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_a_picture_in_a_16_bit_file_gives_the_body_of_the_plain_picture(bits, estimator, tmp_path, capsys):
    wide = np.round(PHOTO.astype(np.float64) * (2**bits - 1) / 255).astype(np.uint16)
    (tmp_path / "wide.png").write_bytes(cv2.imencode(".png", wide)[1])
    source = open_source(str(tmp_path / "wide.png"))
    (picture,) = source.pictures()
    assert np.abs(picture.astype(int) - PHOTO).max() <= 1
    assert f"wide.png: 16-bit values read as {bits}-bit" in source.report.line()
    (plain,), (body,) = estimator(PHOTO), estimator(picture)
    assert np.linalg.norm(plain.joints - body.joints, axis=1).max() < 0.03  # metres
    assert image(tmp_path / "wide.png", "--out", tmp_path / "out") == 0
    assert "1 body" in said(capsys)


def test_one_bit_depth_serves_a_whole_stack(tmp_path):
    dark, light = np.full((8, 10), 100, np.uint16), np.full((8, 10), 4000, np.uint16)
    Image.fromarray(dark).save(tmp_path / "stack.tif", save_all=True, append_images=[Image.fromarray(light)])
    (first, second), report = read_all(tmp_path / "stack.tif")
    assert first.picture[0, 0, 0] == round(100 * 255 / 4095) and second.picture[0, 0, 0] == round(4000 * 255 / 4095)
    assert "read as 12-bit" in report.line()


# ---- several pictures in one file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".png", ".tif"])
def test_all_pictures_of_an_animation_are_looked_at(suffix, tmp_path, capsys):
    empty, person = (Image.fromarray(picture[..., ::-1]) for picture in (BLANK, PHOTO))
    options = {} if suffix == ".tif" else {"duration": 200}
    empty.save(tmp_path / f"moving{suffix}", save_all=True, append_images=[person, person], **options)
    frames, report = read_all(tmp_path / f"moving{suffix}")
    assert report.exit_code == 0 and report.promised == report.read >= 2
    assert frames[-1].time == pytest.approx(0.5 if suffix == ".tif" else 0.2 * (len(frames) - 1))
    assert image(tmp_path / f"moving{suffix}", "--out", tmp_path / "out") == 0
    made = json.loads((tmp_path / "out" / "moving.json").read_text())
    assert not made["frames"][0]["bodies"] and len(made["frames"][-1]["bodies"]) == 1
    assert made["reading"]["promised"] == len(made["frames"])


def test_a_thumbnail_behind_a_tiff_is_ignored_and_named(tmp_path):
    Image.fromarray(PHOTO[..., ::-1]).save(tmp_path / "scan.tif", save_all=True, append_images=[Image.new("RGB", (40, 40))])
    (frame,), report = read_all(tmp_path / "scan.tif")
    np.testing.assert_array_equal(frame.picture, PHOTO)
    assert report.exit_code == 0 and "scan.tif: 1 further pages are ignored" in report.line()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_cut_picture_is_no_whole_one(suffix, tmp_path):
    """OpenCV 4 fills what is missing with grey and says nothing; OpenCV 5 refuses it."""
    data = cv2.imencode(suffix, PHOTO)[1].tobytes()
    thumbnail = b"\xff\xe1" + (len(data) + 2 & 0xFFFF).to_bytes(2, "big") + data if suffix == ".jpg" else b""  # has an end of its own
    cut = data[:2] + thumbnail + data[2:-100] if len(data) < 65000 else data[:-100]
    assert what_is_missing(cut) and not what_is_missing(data)
    (tmp_path / f"cut{suffix}").write_bytes(cut)
    message = SimpleNamespace(format=suffix[1:].replace("jpg", "jpeg"), data=cut)
    with pytest.raises(ValueError, match="is cut, its end is missing|cannot be decoded"):
        compressed_image_from_message(message)
    try:
        _, report = read_all(tmp_path / f"cut{suffix}")
    except ValueError as error:  # an OpenCV that refuses it
        assert "cannot be decoded" in str(error)
    else:
        assert report.exit_code == 1 and "is cut, its end is missing" in report.line()


# ---- upright --------------------------------------------------------------------------------------------------------


def test_a_turned_video_is_read_upright(tmp_path):
    path = clip(tmp_path / "upright.mp4", 3)
    upright, _ = read_all(path)
    data, matrix = bytearray(path.read_bytes()), np.array([65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30], ">i4")
    at = data.index(matrix.tobytes(), data.index(b"tkhd"))
    data[at : at + 36] = np.array([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()  # to be shown turned by 90° clockwise
    path.write_bytes(data)
    turned, _ = read_all(path)
    np.testing.assert_array_equal(turned[1].picture, cv2.rotate(upright[1].picture, cv2.ROTATE_90_CLOCKWISE))


# ---- damaged and cut videos -----------------------------------------------------------------------------------------


def test_of_a_damaged_video_the_rest_is_made_and_the_loss_is_said(tmp_path, capfd):
    path = clip(tmp_path / "walk.mp4")
    data = bytearray(path.read_bytes())
    begin, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    middle = begin + (end - begin) // 2
    data[middle : middle + (end - begin) // 5] = bytes((end - begin) // 5)
    path.write_bytes(data)
    assert image(path, "--out", tmp_path / "out", "--json", tmp_path / "all.json") == 1
    made = json.loads((tmp_path / "out" / "walk.json").read_text())
    reading = made["reading"]
    assert reading["promised"] == 30 and 12 <= reading["read"] == len(made["frames"]) < 30 and reading["lost"] == 30 - reading["read"]
    assert made["frames"][-1]["time"] == pytest.approx(2.9)  # the frames after the damage keep their times
    out, err = capfd.readouterr()
    assert f"{reading['read']} of 30 frames read" in out and "mpeg4 @" not in out + err
    assert json.loads((tmp_path / "all.json").read_text())["exit_code"] == 1
    assert len(read_all(tmp_path / "out" / "walk.overlay.mp4")[0]) == reading["read"]


@pytest.mark.parametrize("name, codec", [("a.avi", "mjpeg"), ("a.mkv", "mpeg4"), ("a.webm", "libvpx")])
def test_a_cut_video_says_how_many_frames_it_had(name, codec, tmp_path):
    path = clip(tmp_path / name, codec=codec)
    assert read_all(path)[1].line() == "30 of 30 frames read"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    frames, report = read_all(path)
    assert 1 < len(frames) < 30 and report.promised == 30 and report.exit_code == 1
    with pytest.raises(ValueError, match="no frame could be decoded|cannot be opened"):
        path.write_bytes(data[:300])
        read_all(path)


def test_frames_that_an_edit_list_leaves_out_are_no_loss(tmp_path):
    """A trimmed video keeps the frames before its beginning, which its edit list hides: OpenCV counts them."""
    clip(tmp_path / "whole.mp4", 20)
    with av.open(str(tmp_path / "whole.mp4")) as source, av.open(str(tmp_path / "trimmed.mp4"), "w", options={"avoid_negative_ts": "0"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        offset = round(Fraction(7, 10) / source.streams.video[0].time_base)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, stream
                out.mux(packet)
    assert int(cv2.VideoCapture(str(tmp_path / "trimmed.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)) == 20
    _, report = read_all(tmp_path / "trimmed.mp4")
    assert (report.promised, report.read, report.exit_code) == (13, 13, 0)


def test_a_stream_without_a_promise_says_unknown(tmp_path):
    _, report = read_all(clip(tmp_path / "a.ts", codec="mpeg2video", rate=25))
    assert report.promised is None and report.exit_code == 0 and "30 of an unknown number of frames read" == report.line()
    assert json.loads(json.dumps(report.as_json()))["promised"] is None


def test_the_video_writer_gives_back_what_it_was_given(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 12.5) as writer:
        for i in range(5):
            writer.write(np.roll(PHOTO, 10 * i, 1))
    video = VideoFile(tmp_path / "a.mp4")
    frames = list(video.frames())
    assert video.rate == 12.5 and len(frames) == 5 and frames[4].time == pytest.approx(4 / 12.5)
    assert np.abs(frames[3].picture.astype(int) - np.roll(PHOTO, 30, 1)).mean() < 6


# ---- content, not endings; nothing left out without a word ----------------------------------------------------------


def odd_folder(folder):
    """Five pictures of one person under odd names, a HEIC file, a dangling link, notes, a pipe and a subfolder."""
    folder.mkdir()
    jpeg, ppm = (cv2.imencode(kind, PHOTO)[1].tobytes() for kind in (".jpg", ".ppm"))
    for name, data in (("a.jfif", jpeg), ("b.ppm", ppm), ("c", jpeg), ("d.mp4", jpeg), ("e.jpg", jpeg)):
        (folder / name).write_bytes(data)
    (folder / "f.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    (folder / "g.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "h.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("hello")
    (folder / "program").write_bytes(b"\x7fELF" + bytes(200))
    os.mkfifo(folder / "pipe.jpg")
    (folder / "sub").mkdir()
    (folder / ".hidden.jpg").write_bytes(b"")
    return folder


SKIPPED = {"f.heic": "HEIC", "g.jpg": "dangling link", "h.jpg": "empty file"}
IGNORED = {"notes.txt", "program", "pipe.jpg", "sub/"}


def check(reading):
    assert reading["read"] == reading["promised"] == 5 and set(reading["skipped"]) == set(SKIPPED) and reading["exit_code"] == 1
    assert all(words in reading["skipped"][name] for name, words in SKIPPED.items())


def test_image_decides_by_content_and_lists_the_rest(tmp_path, capsys):
    folder = odd_folder(tmp_path / "in")
    assert image(folder, "--out", tmp_path / "out", "--json", tmp_path / "all.json") == 1
    reading = json.loads((tmp_path / "all.json").read_text())
    check(reading)
    assert set(reading["ignored"]) == IGNORED
    poses = []
    for name in "abcde":
        with np.load(tmp_path / "out" / f"{name}.bodies.npz") as arrays:
            assert len(arrays["vertices"]) == 1  # a picture, not a video of one frame
            poses.append(arrays["body_pose"])
    np.testing.assert_array_equal(poses[0], poses[2])
    text = said(capsys)
    assert "3 skipped: f.heic (not supported: HEIC, convert it to JPEG" in text and "g.jpg (a dangling link)" in text


def test_extract_decides_by_content_and_lists_the_rest(tmp_path):
    folder = odd_folder(tmp_path / "in")
    assert main(["extract", str(folder), "--out", str(tmp_path / "out"), "--workers", "1"]) == 1
    check(json.loads((tmp_path / "out" / "manifest.json").read_text())["reading"])


def test_a_source_for_replay_decides_by_content_and_lists_the_rest(tmp_path):
    frames, report = read_all(odd_folder(tmp_path / "in"))
    assert len(frames) == 5
    check(report.as_json())


@pytest.mark.parametrize("content, words", [(b"", "an empty file"), (b"hello, world", "starts with 68 65"), (b"\xff\x0a" + bytes(50), "JPEG XL")])
def test_a_file_that_is_no_medium_is_named_and_nothing_could_start(content, words, tmp_path, capsys):
    (tmp_path / "x.jpg").write_bytes(content)
    assert image(tmp_path / "x.jpg", "--out", tmp_path / "out") == 2
    assert words in said(capsys)
    with pytest.raises(ValueError, match=words):
        open_source(str(tmp_path / "x.jpg"))


def test_an_output_folder_that_is_a_file_is_named(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", BLANK)[1])
    (tmp_path / "out").touch()
    for arguments in (["image", tmp_path / "a.png", "--out", tmp_path / "out"], ["extract", tmp_path / "a.png", "--out", tmp_path / "out" / "x"]):
        assert main(list(map(str, arguments))) == 2
        assert "out is a file, expected a folder or a new name" in said(capsys)


def test_an_empty_result_names_its_reason(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", BLANK)[1])
    assert image(tmp_path / "a.png", "--out", tmp_path / "out") == 0
    assert "nobody is detected" in said(capsys)
    made = json.loads((tmp_path / "out" / "a.json").read_text())
    assert made["detected"] == 0 and made["without_body"] == "nobody is detected"


# ---- damage of any kind ---------------------------------------------------------------------------------------------


class Whole(dict):
    def __repr__(self):  # hypothesis prints its arguments
        return f"files {', '.join(self)}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small valid file of each kind → its bytes and how many frames it has."""
    folder = tmp_path_factory.mktemp("whole")
    small = [np.roll(PHOTO[::8, ::8], 4 * i, 1) for i in range(5)]
    found = Whole()
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".jp2"):
        found[f"one{suffix}"] = cv2.imencode(suffix, small[0])[1].tobytes()
    pages = [Image.fromarray(picture[..., ::-1]) for picture in small]
    for suffix in (".gif", ".webp", ".tif", ".png"):
        pages[0].save(folder / f"five{suffix}", save_all=True, append_images=pages[1:])
    for name, codec in (("five.mp4", "mpeg4"), ("five.mkv", "mpeg4"), ("five.avi", "mjpeg"), ("five.webm", "libvpx")):
        clip(folder / name, 5, codec=codec)
    for path in folder.iterdir():
        found[path.name] = path.read_bytes()
    return found


@settings(max_examples=120, deadline=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_never_crash_never_wait_and_never_lose_pictures_in_silence(data, whole, tmp_path):
    name = data.draw(st.sampled_from(sorted(whole)))
    content, frames = bytearray(whole[name]), 1 if name.startswith("one") else 5
    damage = data.draw(st.sampled_from(["cut", "zeros", "bytes"]))
    # The header of a container is its promise: where that is damaged, nobody can know what was promised.
    begin = content.index(b"mdat") + 4 if name.endswith("mp4") else len(content) // 2
    end = content.index(b"moov") - 4 if name.endswith("mp4") else len(content)
    if damage == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif damage == "zeros":
        at = data.draw(st.integers(begin, end - 1))
        content[at : at + 40] = bytes(min(40, len(content) - at))
    else:
        for _ in range(data.draw(st.integers(1, 20))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.write_bytes(content)
    try:
        found, report = read_all(path)
    except ValueError as error:  # a command ends with exit code 2 and this line
        assert name in str(error)
        return
    assert report.read == len(found)
    assert all(frame.picture.dtype == np.uint8 and frame.picture.ndim == 3 for frame in found)
    if damage != "bytes" and report.promised is not None and name != "five.tif":  # a TIFF's pages are a chain without a count
        assert len(found) >= frames or report.exit_code != 0


def test_the_exit_code_of_a_report():
    assert ReadReport(promised=3, read=3).exit_code == 0
    assert ReadReport(promised=3, read=2).exit_code == ReadReport(promised=None, read=2, damaged=1).exit_code == 1
    assert ReadReport(promised=3, read=0).exit_code == 2
    whole, part = ReadReport(promised=1, read=1), ReadReport(promised=2, read=2)
    part.skip("a.heic", "HEIC")
    whole.add(part)
    assert whole.exit_code == 1 and whole.line() == "3 of 3 pictures read, 1 skipped: a.heic (HEIC)"
