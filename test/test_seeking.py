"""Frames of a video by their numbers: the same as decoded one after the other, and sought where the file allows it."""

from itertools import islice

import av
import numpy as np
import pytest

from hmr_ros.io.seeking import SeekingReader, index_video
from hmr_ros.io.videos import VideoFile

FRAMES = 80
# codec, its options, and whether seeking gives the right frames. Pictures of an intra refresh need those before the key frame; in an
# MPEG program stream there is no index.
KINDS = {
    "b_frames.mp4": ("libx264", {"g": "20", "bf": "3"}, True),
    "open_gop.mkv": ("libx264", {"x264-params": "open-gop=1:keyint=20:bframes=3:scenecut=0"}, True),
    "packed.avi": ("mpeg4", {"g": "20", "bf": "2", "sc_threshold": "1000000000"}, True),
    "every_one_a_key.avi": ("mjpeg", {}, True),
    "refresh.ts": ("libx264", {"x264-params": "intra-refresh=1:keyint=20"}, False),
    "program.mpg": ("mpeg2video", {"g": "15", "bf": "2"}, False),
}


@pytest.fixture(params=KINDS)
def video(request, tmp_path):
    codec, options, seekable = KINDS[request.param]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (96, 128, 3), np.uint8)
    with av.open(str(tmp_path / request.param), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for i in range(FRAMES):
            picture = np.roll(noise, (i, 2 * i), (0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")))
        container.mux(stream.encode())
    return VideoFile(tmp_path / request.param), seekable


def test_frames_in_any_order_are_those_of_one_pass(video):
    file, seekable = video
    expected, index = list(file.frames()), index_video(file)
    assert len(index) == len(expected) == FRAMES
    reader = SeekingReader(file, index)
    for number in (70, 71, 3, 41, 40, 79, 0, 60):
        found = reader(number)
        np.testing.assert_array_equal(found.picture, expected[number].picture, err_msg=str(number))
        assert (found.index, found.time) == (number, pytest.approx(expected[number].time, abs=1e-9))
    assert reader.exact == seekable


def test_a_demuxer_that_seeks_to_another_place_is_found_out(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"g": "10", "sc_threshold": "1000000000"})
        stream.width, stream.height = 64, 48
        for i in range(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 6 * i, np.uint8), format="bgr24")))
        container.mux(stream.encode())
    file = VideoFile(path)
    expected, reader, once = list(file.frames()), SeekingReader(file, index_video(file)), VideoFile.decoded_from
    monkeypatch.setattr(VideoFile, "decoded_from", lambda self, pts: islice(once(self, pts), 1, None))
    for number in (35, 12):
        np.testing.assert_array_equal(reader(number).picture, expected[number].picture)
    assert not reader.exact


def test_a_part_of_a_video_is_decoded_and_not_what_is_before_it(tmp_path, monkeypatch):
    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"g": "10", "sc_threshold": "1000000000"})
        stream.width, stream.height = 64, 48
        for i in range(100):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), i, np.uint8), format="bgr24")))
        container.mux(stream.encode())
    file = VideoFile(path)
    index = index_video(file)
    assert index.keys == list(range(0, 100, 10))
    decoded, once = [], VideoFile.decoded_from
    monkeypatch.setattr(VideoFile, "decoded_from", lambda self, pts: (decoded.append(frame.pts) or frame for frame in once(self, pts)))
    monkeypatch.setattr(VideoFile, "decoded", lambda self, report: pytest.fail("decoded from the start"))
    reader = SeekingReader(file, index)
    for number in range(95, 100):
        reader(number)
    assert len(decoded) == 10
    with pytest.raises(ValueError, match="ends at frame 100, expected frame 100"):
        reader(100)


def test_a_file_that_was_cut_after_counting_is_named(tmp_path):
    path = tmp_path / "cut.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for i in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), i, np.uint8), format="bgr24")))
        container.mux(stream.encode())
    index = index_video(VideoFile(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="expected frame 19; it was longer when its frames were counted"):
        SeekingReader(VideoFile(path), index)(19)
