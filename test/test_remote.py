"""URLs: copied once to this machine, copied again when they have changed, and refused in words."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from hmr_ros.cli import main
from hmr_ros.io import remote
from hmr_ros.training.data.shard_folder import ShardFolder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HMR_ROS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store():
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/", recursive=True)


@pytest.fixture
def copied(monkeypatch):
    """Files that were copied from the memory file system."""
    found, once = [], fsspec.get_filesystem_class("memory").get_file

    def get_file(self, path, target, **options):
        found.append(path)
        once(self, path, target, **options)

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "get_file", get_file)
    return found


def test_a_file_is_copied_once_and_again_when_it_has_changed(store, copied):
    store.pipe_file("/data/clip.mp4", b"first")
    first = remote.local("memory://data/clip.mp4")
    assert first.name == "clip.mp4" and first.read_bytes() == b"first"
    assert remote.local("memory://data/clip.mp4") == first and len(copied) == 1
    store.pipe_file("/data/clip.mp4", b"second, longer")
    second = remote.local("memory://data/clip.mp4")
    assert second.read_bytes() == b"second, longer" and len(copied) == 2


def test_a_folder_is_copied_with_all_that_is_below_it_and_a_half_copy_is_not_taken(store, copied, monkeypatch):
    for name in ("config.json", "deeper/a.npz", "deeper/b.npz"):
        store.pipe_file(f"/data/set/{name}", name.encode())

    def stopped(self, path, target, **options):
        open(target, "wb").close()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "get_file", stopped)
        with pytest.raises(KeyboardInterrupt):
            remote.local("memory://data/set")
    folder = remote.local("memory://data/set/")
    assert {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()} == {
        name: name for name in ("config.json", "deeper/a.npz", "deeper/b.npz")
    }
    assert remote.local(folder) == remote.local(str(folder)) == remote.local(f"file://{folder}") == folder  # what is here is not copied


def test_a_web_server_is_read_and_what_it_does_not_have_is_named(tmp_path):
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "clip.mp4").write_bytes(b"a video")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path / "www"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/clip.mp4?token=secret"
        assert remote.local(url).read_bytes() == b"a video" and remote.local(url).name == "clip.mp4"
        with pytest.raises(FileNotFoundError, match=r"http://127.0.0.1:\d+/nothing.mp4 does not exist") as error:
            remote.local(url.replace("clip", "nothing"))
        assert "secret" not in str(error.value)
        with pytest.raises(OSError, match=r"http://127.0.0.1:\d+/shards cannot be used"):
            ShardFolder(f"http://127.0.0.1:{server.server_port}/shards").write("config.json", b"{}")  # nothing is written to a web server
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(OSError, match=r"http://127.0.0.1:\d+/clip.mp4 (cannot be used|does not exist)") as error:
        remote.local(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url, words", [
    ("s4://bucket/clip.mp4", "s4://bucket/clip.mp4: protocol 's4' is not known to fsspec"),
    ("smb://server/share/clip.mp4", "pip install smbprotocol"),
    ("sftp://me:secret@server/clip.mp4", "sftp://server/clip.mp4 was given with a password, expected a URL without one"),
    ("memory://nowhere/clip.mp4", "memory://nowhere/clip.mp4 does not exist"),
])  # fmt: skip
def test_what_cannot_be_opened_is_told_in_one_line(url, words, tmp_path, capsys):
    assert main(["extract", url, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and "secret" not in said
