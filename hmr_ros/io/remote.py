"""Files behind URLs (s3://, gs://, https://, ...), by fsspec: copied to this machine before they are read.

Decoders and memory maps want files, so that a recording or a folder of shards is copied once, whole, to a cache: ``$HMR_ROS_CACHE``, by
default ``~/.cache/hmr_ros``. A copy stays there until it is deleted, and is made again where the original has changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp", "az": "adlfs", "abfs": "adlfs",
             "sftp": "paramiko", "ssh": "paramiko", "smb": "smbprotocol", "hf": "huggingface_hub"}  # fmt: skip


def is_url(location: str | Path) -> bool:
    """A path never is one, and a Path cannot be: it turns // into /."""
    return isinstance(location, str) and "://" in location


def shown(location: str | Path) -> str:
    """A path, or a URL without user, password and query, which may be secrets."""
    if not is_url(location):
        return str(location)
    parts = urlsplit(location)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def absolute(location: str | Path) -> str | Path:
    """The same from any working folder."""
    return location if is_url(location) else Path(location).absolute()


def name_of(location: str | Path) -> str:
    """The last part of a path or URL."""
    if not is_url(location):
        return Path(location).resolve().name
    parts = urlsplit(location)
    return Path(parts.path).name or parts.netloc.rpartition("@")[2]


def filesystem(url: str):
    """fsspec's file system for a URL, and the path in it. ValueError with the protocols that are known, or the package to install, and for
    a URL with a password: what is recorded of a run must not hold one."""
    import fsspec

    protocol = url.partition("://")[0]
    if urlsplit(url).password:
        raise ValueError(f"{shown(url)} was given with a password, expected a URL without one; passwords belong into fsspec's configuration")
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        raise ValueError(f"{shown(url)}: {protocol}:// needs a package ({error}); install it: pip install {package or 'the one it names'}") from error
    except ValueError as error:
        raise ValueError(f"{shown(url)}: protocol {protocol!r} is not known to fsspec, expected one of s3, gs, https, file, ...; a package "
                         "that knows it may be installed") from error  # fmt: skip


@contextmanager
def told(url: str) -> Iterator[None]:
    """OSError that names the URL, for whatever a file system's package raises of its own (credentials, servers)."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{shown(url)} does not exist, expected a file or folder that can be read") from error
    except Exception as error:
        said = " ".join(str(error).replace(url, shown(url)).split())
        raise OSError(f"{shown(url)} cannot be used ({type(error).__name__}: {said}); its address, and this user's rights to it, are looked up "
                      "as fsspec and its packages document it") from error  # fmt: skip


def cache_folder() -> Path:
    return Path(os.environ.get("HMR_ROS_CACHE") or Path.home() / ".cache" / "hmr_ros")


def local(location: str | Path) -> Path:
    """The path itself, or that of a copy of what the URL names: a file, or a folder with all that is below it.

    Several processes of a machine make one copy. Raises FileNotFoundError where the URL names nothing, OSError where it cannot be read,
    ValueError as ``filesystem`` does.
    """
    if not is_url(location):
        return Path(location)
    from fsspec.implementations.local import LocalFileSystem

    files, root = filesystem(location)
    if isinstance(files, LocalFileSystem):
        return Path(root)
    with told(location):
        found = files.info(root)
        folder = found["type"] == "directory"
        originals = files.find(root, detail=True) if folder else {root: found}
    # A web server need not tell a file's time or tag: its size alone then says whether it has changed.
    marks = [f"{path}\t{info.get('size')}\t{info.get('ETag') or info.get('mtime') or info.get('LastModified')}" for path, info in originals.items()]
    digest = hashlib.sha256("\n".join([location, *sorted(marks)]).encode()).hexdigest()[:24]
    copy = cache_folder() / digest / name_of(location)
    copy.parent.mkdir(parents=True, exist_ok=True)
    with (copy.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copy.exists():
            partial = copy.with_name(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            for path in originals:
                target = partial / (path[len(root) :].strip("/") if folder else copy.name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with told(location):
                    files.get_file(path, str(target))
            (partial if folder else partial / copy.name).rename(copy)
            shutil.rmtree(partial, ignore_errors=True)
    return copy
