"""``hmr-ros extract`` on pictures, a video, a bag and datasets: the same people, whatever they come in, and no truth."""

import functools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest

from hmr_ros.cli import main
from hmr_ros.proxies import FEATURE_MAP, registry
from hmr_ros.training.data.extract import frames as frame_sources
from hmr_ros.training.data.rendered import dataset as rendered
from hmr_ros.training.data import ray_work, shard_work, shards
from hmr_ros.training.data.readers.records import Frame
from hmr_ros.training.data.extract.extract import ExtractConfig, extract

DEMO = Path(str(files("hmr_ros") / "assets" / "demo"))
PLACE = ("index", "name")  # columns that tell where a person was seen; all others are about the person

opened = []  # by this process while `watching`
watching = False


def _note(event, arguments):
    if watching and event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        opened.append(Path(arguments[0]))


sys.addaudithook(_note)


@pytest.fixture(scope="module", autouse=True)
def one_extractor():
    """The networks are loaded once a configuration, not once a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "make_extractor", functools.cache(registry.make_extractor))
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video of sixteen frames in which somebody moves: small, so that one pass of the detectors does."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    person = cv2.resize(cv2.imread(str(DEMO / "astronaut.jpg")), (240, 240), interpolation=cv2.INTER_AREA)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (240, 200))
    for i in range(16):
        writer.write(np.roll(person, (i, 2 * i), (0, 1))[:200])
    writer.release()
    return path


@pytest.fixture(scope="module")
def walk(clip):
    """Its frames, decoded one after the other."""
    capture = cv2.VideoCapture(str(clip))
    return [capture.read()[1] for _ in range(16)]


@pytest.fixture(scope="module")
def video(clip, tmp_path_factory):
    """What the detectors say about every other of its first eight frames."""
    out = tmp_path_factory.mktemp("video")
    manifest = extract(ExtractConfig(clip, out, frames=(0, 8), every=2, workers=1, shard_size=3))
    return out, manifest


@pytest.fixture(scope="module")
def rendered_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("rendered")
    rendered.generate(rendered.RenderedConfig(out, count=3, workers=1))
    return out


def people_of(folder):
    return {name: values for name, values in shards.load_proxies(folder).items() if name not in PLACE}


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_a_video_gives_rows_as_rendered_data_has_them(video, rendered_folder):
    out, manifest = video
    rows, made = shards.load_proxies(out), shards.load_proxies(rendered_folder)
    others = {name for name in made if name.startswith("mirrored_")} | {"sensor_depth"}
    assert set(rows) == set(made) - others | {"name"}
    for name in set(rows) - {"name"}:
        assert rows[name].dtype == made[name].dtype and rows[name].shape[1:] == made[name].shape[1:], name
    assert manifest["kind"] == "video" and manifest["frames"] == 4 and manifest["people"] == len(rows["index"]) >= 4
    assert manifest["extractor"] == shard_work.extractor_of(out) == json.loads(json.dumps(registry.identity()))
    assert dict(zip(rows["index"], rows["name"])) == {i: f"clip.mp4#{2 * i:06d}" for i in range(4)}
    with np.load(out / "proxies-00001.npz") as shard:
        assert shard["images"].tolist() == [3, 4]
    assert json.loads((out / "manifest.json").read_text()) == json.loads(json.dumps(manifest))
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json", "manifest.json", "proxies-00000.npz", "proxies-00001.npz",
    ]  # fmt: skip


def test_pictures_in_folders_give_what_the_video_gives_and_broken_ones_are_named(video, walk, tmp_path, capsys):
    source, out = tmp_path / "pictures", tmp_path / "out"
    for i in range(4):
        folder = source / "camera" / ("left" if i < 2 else "right")
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{i}.png"), walk[2 * i])
    cv2.imwrite(str(source / "nobody.png"), np.full((120, 160, 4), 90, np.uint8))  # with alpha
    cv2.imwrite(str(source / "nothing.PNG"), np.zeros((1, 3), np.uint8))  # grey, and hardly a picture
    (source / "broken.jpg").write_bytes((DEMO / "astronaut.jpg").read_bytes()[:100])
    (source / "empty.jpg").touch()
    for name in ("truth-00000.npz", "annotations.json", "image.pkl"):
        (source / name).write_bytes(b"nothing that could be read")
    global watching
    opened.clear()
    watching = True
    try:
        assert main(["extract", str(source), "--out", str(out), "--workers", "1"]) == 1
    finally:
        watching = False
    told = capsys.readouterr().out
    assert "7 frames of pictures (images)" in told and "6 of 7 pictures read, 2 skipped: empty.jpg (an empty file)" in told
    assert "broken.jpg ((100 bytes) cannot be decoded" in told and "3 other files: annotations.json, image.pkl, truth" in told
    manifest = json.loads((out / "manifest.json").read_text())
    assert "cannot be decoded" in manifest["unreadable"]["broken.jpg"] and set(manifest["reading"]["skipped"]) == {"broken.jpg", "empty.jpg"}
    assert manifest["frames_without_people"] == 2
    assert_same(people_of(out), people_of(video[0]))
    names = shards.load_proxies(out)["name"]
    assert set(names) == {"camera/left/0.png", "camera/left/1.png", "camera/right/2.png", "camera/right/3.png"}
    looked_at = {path.suffix.lower() for path in opened if path.is_relative_to(source)}
    assert looked_at == {".png", ".jpg"} and not list(out.glob("truth*"))  # no truth is opened, none is written


def test_a_url_gives_the_bytes_that_a_path_gives_and_takes_the_shards(video, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("HMR_ROS_CACHE", str(tmp_path / "cache"))
    expected, manifest = video
    store = fsspec.filesystem("memory")
    store.pipe_file("/recordings/clip.mp4", clip.read_bytes())
    url = "memory://shards/of-a-clip"
    settings = ExtractConfig("memory://recordings/clip.mp4", url, frames=(0, 8), every=2, workers=1, shard_size=3)
    folder = shard_work.claim(url, json.loads((expected / "config.json").read_text()))
    folder.stage("proxies-00000.npz", b"by a run that was killed before it could commit it")
    folder.write("proxies-00001.npz", (expected / "proxies-00001.npz").read_bytes())
    made = store.modified("/shards/of-a-clip/proxies-00001.npz")
    assert extract(settings) == manifest
    assert folder.names() == {path.name for path in expected.iterdir()}
    for path in expected.iterdir():
        assert folder.read(path.name) == path.read_bytes(), path.name
    assert store.modified("/shards/of-a-clip/proxies-00001.npz") == made
    assert_same(shards.load_proxies(url), shards.load_proxies(expected))
    assert shard_work.extractor_of(url) == shard_work.extractor_of(expected)
    with pytest.raises(ValueError, match="memory://shards/of-a-clip holds another data set.*frames_sha256"):
        extract(replace(settings, frames=(1, 9)))


def test_a_bag_gives_what_the_video_gives_and_its_depth(video, walk, tmp_path):
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    depth = np.full(walk[0].shape[:2], 3500, np.uint16)

    def message(image, encoding, stamp):
        header = types["std_msgs/msg/Header"](stamp=types["builtin_interfaces/msg/Time"](*divmod(stamp, 10**9)), frame_id="eye")
        data = np.ascontiguousarray(image).view(np.uint8).ravel()
        step = data.size // image.shape[0]
        raw = types["sensor_msgs/msg/Image"](header, *image.shape[:2], encoding, 0, step, data)
        return store.serialize_cdr(raw, "sensor_msgs/msg/Image")

    bag = tmp_path / "bag"
    with rosbag2.Writer(bag, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        colour, aligned = (
            writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=store) for topic in ("/eye/image", "/eye/depth")
        )
        for i in range(4):
            stamp = 10**18 + i * 50_000_000
            if i != 1:  # one is missing: what belongs together is told by stamps
                writer.write(aligned, stamp, message(depth + 100 * np.uint16(i), "16UC1", stamp + 1_000_000))
            writer.write(colour, stamp + 5, message(walk[2 * i], "bgr8", stamp))
    with pytest.raises(ValueError, match="/eye/depth, /eye/image.*--topic"):
        extract(ExtractConfig(bag, tmp_path / "out"))
    topics = {"topic": "/eye/image", "depth_topic": "/eye/depth", "workers": 1}
    extract(ExtractConfig(bag, tmp_path / "out", shard_size=2, **topics))
    rows = people_of(tmp_path / "out")
    sensor = rows.pop("sensor_depth")
    assert_same(rows, people_of(video[0]))
    index = shards.load_proxies(tmp_path / "out")["index"]
    for i, metres in enumerate((3.5, 0, 3.7, 3.8)):
        seen = sensor[index == i]
        assert (seen > 0).any() == (metres > 0)
        np.testing.assert_allclose(seen[seen > 0], metres, atol=2e-3)  # float16
    with pytest.raises(ValueError, match="these image topics: /eye/depth, /eye/image; expected topic /nothing"):
        extract(ExtractConfig(bag, tmp_path / "other", topic="/eye/image", depth_topic="/nothing"))


def test_a_mirror_gives_the_columns_that_rendered_data_has(video, clip, tmp_path):
    extract(ExtractConfig(clip, tmp_path, frames=(0, 1), workers=1, mirrored=True))
    rows = shards.load_proxies(tmp_path)
    assert {name for name in rows if name.startswith("mirrored_")} == {
        f"mirrored_{name}" for name in ("landmarks", "world", "region", "appearance")
    }
    plain = shards.load_proxies(video[0])
    np.testing.assert_array_equal(rows["landmarks"], plain["landmarks"][plain["index"] == 0])


def finer_than(maps, side):
    """Maps (N, S, S) hold detail that maps of this side could not."""
    n, size = len(maps), maps.shape[-1] // side
    blocks = maps.reshape(n, side, size, side, size).astype(np.float32)
    return bool((np.ptp(blocks, axis=(2, 4)) > 0).any())


def test_maps_have_the_size_that_is_asked_for_and_are_not_enlarged(video, clip, tmp_path):
    out, manifest = video
    plain = shards.load_proxies(out)
    extract(ExtractConfig(clip, tmp_path / "256", frames=(0, 8), every=2, workers=1, shard_size=3, depth_size=256))
    large = shards.load_proxies(tmp_path / "256")
    assert {name for name in plain if plain[name].shape != large[name].shape} == {"mask", "depth"}
    for name in ("mask", "depth"):
        assert large[name].shape == (len(plain["index"]), 256, 256) and large[name].dtype == plain[name].dtype
        assert finer_than(large[name], 128)
    for name in ("landmarks", "keypoints", "crop"):
        np.testing.assert_array_equal(large[name], plain[name])
    # It is part of the folder's identity, but for the usual size, of which older folders say nothing.
    assert "depth_size" not in manifest and json.loads((tmp_path / "256" / "config.json").read_text())["depth_size"] == 256
    with pytest.raises(ValueError, match="another data set.*depth_size"):
        extract(ExtractConfig(clip, out, frames=(0, 8), every=2, shard_size=3, depth_size=256))
    with pytest.raises(ValueError, match="--depth-size is 8"):
        extract(ExtractConfig(clip, tmp_path / "8", frames=(0, 8), depth_size=8))


def test_a_depth_cameras_maps_of_rendered_people_have_that_size_too(rendered_folder, tmp_path):
    manifest = rendered.generate(rendered.RenderedConfig(tmp_path, count=3, workers=1, depth_size=256))
    plain, large = rendered.load(rendered_folder), rendered.load(tmp_path)
    assert large["sensor_depth"].shape == large["mask"].shape == (len(plain["index"]), 256, 256)
    assert finer_than(large["sensor_depth"], 128) and manifest["depth_size"] == 256
    assert manifest["truth_sha256"] == json.loads((rendered_folder / "manifest.json").read_text())["truth_sha256"]
    with pytest.raises(ValueError, match="another data set.*depth_size"):
        rendered.generate(rendered.RenderedConfig(rendered_folder, count=3, workers=1, depth_size=256))


def test_feature_maps_and_stamps_are_those_of_the_extractor_and_a_stopped_run_makes_what_is_missing(clip, walk, tmp_path):
    config = ExtractConfig(clip, tmp_path, frames=(0, 8), every=2, workers=1, shard_size=3, feature_maps=True)
    manifest = extract(config)
    rows, maps = shards.load_proxies(tmp_path), shards.load_activations(tmp_path)
    assert len(maps) == len(rows["index"]) and maps.shape[1:] == (1, *FEATURE_MAP)
    np.testing.assert_allclose(rows["stamp"], 0.2 * rows["index"])  # the clip has 10 Hz
    seen = registry.make_extractor(threads=1)(walk[2 * rows["index"][-1]])
    np.testing.assert_allclose(maps[-1, 0], seen[-1].blazepose.feature_map, rtol=0.01, atol=0.01)
    before = [path.read_bytes() for path in sorted(tmp_path.glob("*.np[yz]"))]
    (tmp_path / "activations-00001.npy").unlink()
    with pytest.raises(ValueError, match="1 activations.*for 2 shards.*--feature-maps"):
        shards.load_activations(tmp_path)
    assert extract(config) == manifest and manifest["feature_maps"]
    assert [path.read_bytes() for path in sorted(tmp_path.glob("*.np[yz]"))] == before
    with pytest.raises(ValueError, match="another data set.*feature_maps"):
        extract(replace(config, feature_maps=False))


@pytest.fixture(scope="module")
def undisturbed(clip, tmp_path_factory):
    """Sixteen frames in eight shards, made by one process in one go."""
    out = tmp_path_factory.mktemp("undisturbed")
    return out, extract(ExtractConfig(clip, out, frames=(0, 16), workers=1, shard_size=2))


@pytest.mark.parametrize("way, code", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_stopped_run_leaves_no_process_behind_and_is_completed_with_the_same_bytes(
    way, code, clip, undisturbed, tmp_path, wait_until, processes_of_session
):
    expected, manifest = undisturbed
    arguments = ["extract", str(clip), "--out", str(tmp_path), "--frames", "0", "16", "--shard-size", "2", "--workers", "2"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hmr_ros.cli", *arguments], stdout=log, stderr=log, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )  # fmt: skip
        wait_until(lambda: list(tmp_path.glob("proxies-*.npz")))
        process.send_signal(way)
        assert process.wait(60) == code, (tmp_path / "log").read_text()
    wait_until(lambda: not processes_of_session(process.pid))
    made = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("proxies-*.npz")}
    assert 1 <= len(made) < 8 and not (tmp_path / "manifest.json").exists()
    (tmp_path / ".1.partial.proxies-00007.npz").write_bytes(b"half")
    assert extract(ExtractConfig(clip, tmp_path, frames=(0, 16), workers=1, shard_size=2)) == manifest
    assert not list(tmp_path.glob(".*.partial.*"))
    for path in expected.glob("*.*"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert made == {name: (tmp_path / name).stat().st_mtime_ns for name in made}  # whole shards are left alone


@pytest.mark.xdist_group("ray")
def test_on_ray_a_killed_worker_is_replaced_and_a_killed_run_is_completed_with_the_same_bytes(
    clip, undisturbed, tmp_path, wait_until, processes_of_session
):
    pytest.importorskip("ray")
    expected, manifest = undisturbed
    out = tmp_path / "out"
    arguments = ["extract", str(clip), "--out", str(out), "--frames", "0", "16", "--shard-size", "2", "--workers", "1", "--engine", "ray"]
    (tmp_path / "hmr_ros").mkdir()  # as in a checkout, which workers must not import from
    (tmp_path / "hmr_ros" / "__init__.py").write_text("raise ImportError('this is not the installed package')")
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-P", "-m", "hmr_ros.cli", *arguments]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)

    def shards_made():
        assert process.poll() is None, (tmp_path / "log").read_text()
        return len(list(out.glob("proxies-*.npz")))

    def actors():
        return [pid for pid in processes_of_session(process.pid) if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ShardActor")]

    try:
        wait_until(shards_made, 300)
        (actor,) = actors()
        before = shards_made()
        os.kill(actor, signal.SIGKILL)
        wait_until(lambda: shards_made() >= before + 2, 300)  # the one that was committed meanwhile, and one more
        assert actor not in actors()
    finally:
        process.kill()
    process.wait(60)
    wait_until(lambda: not actors())
    for agent in processes_of_session(process.pid):  # Ray's own wait for their head for some more minutes, and do nothing
        os.kill(agent, signal.SIGKILL)
    assert len(list(out.glob("proxies-*.npz"))) < 8 and not (out / "manifest.json").exists()
    (out / ".0123456789abcdef.partial.proxies-00007.npz").write_bytes(b"of a worker that was thought dead")
    assert extract(ExtractConfig(clip, out, frames=(0, 16), workers=1, shard_size=2)) == manifest
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in expected.iterdir())
    for path in expected.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_a_worker_on_another_machine_refuses_another_folder_than_the_drivers(tmp_path):
    folder = shard_work.claim(tmp_path / "shared", {"seed": 1})
    ray_work.ShardActor().open(lambda: None, folder.location, folder.read("config.json"))
    shard_work.claim(tmp_path / "own", {"seed": 2})
    with pytest.raises(ValueError, match="own on .* is not the folder that this run writes to; .*share, or a URL"):
        ray_work.ShardActor().open(lambda: None, str(tmp_path / "own"), folder.read("config.json"))


def test_without_ray_the_command_says_how_to_get_it(clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["extract", str(clip), "--out", str(tmp_path), "--engine", "ray"]) == 2
    assert "pip install 'ray" in capsys.readouterr().err


def test_another_source_in_the_same_folder_and_settings_without_sense_are_refused(video, clip, rendered_folder, tmp_path):
    out, _ = video
    with pytest.raises(ValueError, match="another data set.*frames_sha256"):
        extract(ExtractConfig(clip, out, frames=(1, 9), every=2, shard_size=3))
    with pytest.raises(ValueError, match="another data set.*seed"):
        extract(ExtractConfig(clip, rendered_folder, frames=(0, 1)))
    for setting, words in (({"workers": 0}, "workers is 0"), ({"every": 0}, "every is 0"), ({"frames": (3, 3)}, "frames is")):
        with pytest.raises(ValueError, match=words):
            extract(ExtractConfig(clip, tmp_path / "out", **setting))
    with pytest.raises(ValueError, match="--address is head:6379, which is for --engine ray"):
        extract(ExtractConfig(clip, tmp_path / "out", address="head:6379"))
    with pytest.raises(ValueError, match="bags only"):
        extract(ExtractConfig(clip, tmp_path / "out", topic="/image"))
    with pytest.raises(ValueError, match="holds nothing to look at, expected pictures"):
        extract(ExtractConfig(tmp_path, tmp_path / "out"))
    with pytest.raises(ValueError, match="does not exist"):
        extract(ExtractConfig(tmp_path / "nowhere", tmp_path / "out"))
    with pytest.raises(FileNotFoundError, match="hmr-ros extract"):
        shards.load_proxies(tmp_path)


def test_frames_of_a_video_are_exact_in_any_order_and_a_cut_one_is_counted_by_its_frames(clip, walk, tmp_path):
    read = frame_sources.FileReader()
    for number in (5, 6, 2, 7):
        np.testing.assert_array_equal(read(Frame("", clip, number)).image, walk[number])
    with pytest.raises(ValueError, match="ends at frame 16, expected frame 1000"):
        read(Frame("", clip, 1000))
    cut = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(cut), cv2.VideoWriter.fourcc(*"MJPG"), 10, walk[0].shape[1::-1])
    for frame in walk:
        writer.write(frame)
    writer.release()
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    frames = frame_sources.list_frames(cut, "video").frames
    assert 2 <= len(frames) < 16
    for frame in frames:
        assert read(frame).image.shape == walk[0].shape
    assert frame_sources.kind_of(cut) == "video"


def h36m(root, walk):
    (root / "S1" / "Videos").mkdir(parents=True)
    writer = cv2.VideoWriter(str(root / "S1/Videos/Walking.60457274.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 50, (240, 200))
    for frame in walk[:8]:
        writer.write(frame)
    writer.release()
    (root / "S1/Videos/Sitting.60457274.mp4").write_bytes(b"cut off")
    for subject in ("S5", "S6", "S7", "S8"):
        (root / subject / "Videos").mkdir(parents=True)
        (root / subject / "Videos" / "Walking.1.mp4").write_bytes((root / "S1/Videos/Walking.60457274.mp4").read_bytes())
    (root / "S1" / "MyPoseFeatures" / "D3_Positions_mono").mkdir(parents=True)
    (root / "S1" / "MyPoseFeatures" / "D3_Positions_mono" / "Walking.60457274.cdf").write_bytes(b"truth")
    return 10, {"S1/Sitting.60457274"}


def threedpw(root, walk):
    for split, sequence in (("train", "walk"), ("test", "secret")):
        (root / "sequenceFiles" / split).mkdir(parents=True)
        (root / "sequenceFiles" / split / f"{sequence}.pkl").write_bytes(b"truth")
        (root / "imageFiles" / sequence).mkdir(parents=True)
        for i in range(2):
            cv2.imwrite(str(root / "imageFiles" / sequence / f"image_{i:05d}.jpg"), walk[i])
    return 2, set()


def up3d(root, walk):
    cv2.imwrite(str(root / "00001_image.png"), walk[0])
    cv2.imwrite(str(root / "00002_image.png"), walk[1])  # not in the list
    (root / "00001_body.pkl").write_bytes(b"truth")
    (root / "trainval.txt").write_text("/00001_image.png\n")
    return 1, set()


@pytest.mark.parametrize("kind, make", [("human36m", h36m), ("3dpw", threedpw), ("up3d", up3d)])
def test_of_a_dataset_the_pictures_of_a_split_are_looked_at_and_no_annotation_is_opened(kind, make, walk, tmp_path):
    pytest.importorskip(f"hmr_ros.training.data.readers.{frame_sources.READERS[kind]}")
    root = tmp_path / "data"
    root.mkdir()
    count, lost = make(root, walk)
    global watching
    opened.clear()
    watching = True
    try:
        manifest = extract(ExtractConfig(root, tmp_path / "out", workers=1))
    finally:
        watching = False
    assert (manifest["kind"], manifest["split"], manifest["frames"]) == (kind, "train", count)
    assert manifest["people"] >= count and not manifest["unreadable"] and set(manifest["lost_files"]) == lost
    assert {path.suffix for path in opened if path.is_relative_to(root)} <= {".jpg", ".png", ".txt", ".mp4"}
    assert not any("secret" in name for name in shards.load_proxies(tmp_path / "out")["name"])
