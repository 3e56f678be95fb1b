"""Files behind URLs (s3://, gs://, https://, ...), by fsspec: copied to this machine before they are read.

Decoders and memory maps want files, so that a recording or a folder of shards is copied once, whole, to a cache: ``$HMR_ROS_CACHE``, by
default ``~/.cache/hmr_ros``. A copy stays there until it is deleted, and is made again where the original has changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp", "az": "adlfs", "abfs": "adlfs",
             "sftp": "paramiko", "ssh": "paramiko", "smb": "smbprotocol", "hf": "huggingface_hub"}  # fmt: skip


def is_url(location: str | Path) -> bool:
    """A path never is one, and a Path cannot be: it turns // into /."""
    return isinstance(location, str) and "://" in location


def shown(url: str) -> str:
    """A URL without user, password and query, which may be secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def name_of(location: str | Path) -> str:
    """The last part of a path or URL."""
    return Path(urlsplit(location).path).name if is_url(location) else Path(location).resolve().name


def filesystem(url: str):
    """fsspec's file system for a URL, and the path in it. ValueError with the protocols that are known, or the package to install."""
    import fsspec

    protocol = url.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        raise ValueError(f"{shown(url)}: {protocol}:// needs a package ({error}); install it: pip install {package or 'the one it names'}") from error
    except ValueError as error:
        raise ValueError(f"{shown(url)}: protocol {protocol!r} is not known to fsspec, expected one of s3, gs, https, file, ...; a package "
                         "that knows it may be installed") from error  # fmt: skip


def cache_folder() -> Path:
    return Path(os.environ.get("HMR_ROS_CACHE") or Path.home() / ".cache" / "hmr_ros")


def local(location: str | Path) -> Path:
    """The path itself, or that of a copy of what the URL names: a file, or a folder with all that is below it.

    Several processes of a machine make one copy. Raises FileNotFoundError where the URL names nothing, OSError where it cannot be read,
    ValueError as ``filesystem`` does.
    """
    if not is_url(location):
        return Path(location)
    files, root = filesystem(location)
    try:
        found = files.info(root)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"source {shown(location)} does not exist, expected a file or folder that can be read") from error
    originals = {path: info for path, info in files.find(root, detail=True).items()} if found["type"] == "directory" else {root: found}
    # A web server need not tell a file's time or tag: its size alone then says whether it has changed.
    marks = [f"{path}\t{info.get('size')}\t{info.get('ETag') or info.get('mtime') or info.get('LastModified')}" for path, info in originals.items()]
    digest = hashlib.sha256("\n".join([location, *sorted(marks)]).encode()).hexdigest()[:24]
    folder = cache_folder() / digest
    copy = folder / (name_of(location) or "data")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copy.exists():
            partial = folder / ".partial"
            shutil.rmtree(partial, ignore_errors=True)
            for path in originals:
                target = partial / (path[len(root) :].strip("/") or copy.name) if found["type"] == "directory" else partial / copy.name
                target.parent.mkdir(parents=True, exist_ok=True)
                files.get_file(path, str(target))
            (partial if found["type"] == "directory" else partial / copy.name).rename(copy)
            shutil.rmtree(partial, ignore_errors=True)
    return copy
