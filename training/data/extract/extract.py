"""``hmr-ros extract``: the detectors' predictions for the people in pictures, videos, bags and datasets, as proxies shards.

Training reads these shards and nothing else. No annotation of any kind is opened here: a dataset is a list of pictures.
Shards are made in parallel and a killed run goes on where it stopped (data/shard_work.py); their format is in
data/shards.py.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Callable, Literal

import numpy as np
import tyro
from rich.console import Console

from hmr_ros import __version__
from hmr_ros.io import remote
from hmr_ros.io.report import ReadReport, printable
from hmr_ros.proxies import PersonProxies, registry
from hmr_ros.proxies.paper import hdnet
from hmr_ros.proxies.paper.config import ProxyFiles
from hmr_ros.networks.paper.maps import MAP_SIZE
from hmr_ros.training.data.extract import frames as frame_sources
from hmr_ros.training.data import ray_work, shard_work, shards
from hmr_ros.training.data.extract.frames import BagReader, FileReader, FrameList
from hmr_ros.training.data.readers.records import Frame
from hmr_ros.training.data.shard_folder import ShardFolder

@dataclass(frozen=True)
class ExtractConfig:
    """Make training data from real pictures: proxies of all people whom the detectors find, without any annotation."""

    source: Annotated[str | Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH|URL")]
    """A folder of pictures (with its subfolders), a picture, a video, a rosbag2, or the root of a dataset; or the URL of one, of which a
    copy is kept (docs/scale.md)."""
    out: Annotated[str | Path, tyro.conf.arg(metavar="PATH|URL")]
    """Folder for shards and manifest.json; an unfinished run in it is continued."""
    kind: Literal["auto", "images", "video", "bag", "human36m", "3dpw", "up3d"] = "auto"
    """What SOURCE is; auto looks."""
    split: str = "train"
    """Of a dataset: which of its splits."""
    frames: tuple[int, int] | None = None
    """First frame and the one after the last, counted from 0 in the source's order; all without it."""
    every: int = 1
    """Take every so manieth frame only."""
    topic: str = ""
    """Of a bag: the image topic, where it has several."""
    depth_topic: str = ""
    """Of a bag: depth images aligned with the image topic, 16UC1 or 32FC1."""
    depth_size: int = MAP_SIZE
    """Side of depth maps and masks in pixels; the "paper" preset of `hmr-ros train` wants 256."""
    extractor: Literal["embedded", "paper"] = "embedded"
    """embedded: MoveNet and BlazePose; paper: Keypoint R-CNN and a depth network, with weights that you bring."""
    proxies: Annotated[ProxyFiles, tyro.conf.arg(name="")] = ProxyFiles()
    mirrored: bool = False
    """Extract every person's mirrored view as well, as rendered data has it; for one more landmark pass a person."""
    feature_maps: bool = False
    """Keep what adapting the lifter needs as well: BlazePose's feature maps, 45 KB a person (90 with --mirrored), and every frame's stamp."""
    workers: int = 2
    """Processes, each with its own detectors on one thread; 1 works in this process. With --engine ray: actors, of one CPU each."""
    engine: Literal["processes", "ray"] = "processes"
    """ray: the workers are actors of a Ray cluster (extra [ray]), which need hmr_ros, the source and --out on every machine."""
    address: str = ""
    """With --engine ray: the cluster's (host:6379, or auto on one of its machines); without it Ray runs on this machine alone."""
    shard_size: int = 100
    """Frames a file."""


def main(argv: list[str] | None = None) -> int:
    config = tyro.cli(ExtractConfig, args=argv, prog="hmr-ros extract")
    console = Console(markup=False)
    try:
        manifest = extract(config)
    except KeyboardInterrupt:
        console.print(f"stopped; the same command goes on with {config.out}", highlight=False, markup=False)
        raise
    console.print(f"{summary(manifest)} → {remote.shown(config.out)}", highlight=False, markup=False, soft_wrap=True)
    return manifest["reading"]["exit_code"]


def summary(manifest: dict) -> str:
    """One line: the source, who was found, and what could not be read."""
    return (
        f"{manifest['frames']} frames of {manifest['source']} ({manifest['kind']}): {manifest['people']} people, "
        f"{manifest['frames_without_people']} frames without people; {manifest['reading']['line']}"
    )


def _reading(listing: FrameList, chosen: int, unreadable: dict[str, str], whole: bool) -> ReadReport:
    """What became of the source. ``whole``: all of its frames were asked for, so that those which it promised and lost count."""
    listed = listing.report or ReadReport("frames", promised=chosen, read=chosen)
    lost = listed.lost if whole else 0
    unknown = whole and listed.promised is None
    report = ReadReport(listed.unit, None if unknown else chosen + lost, chosen - len(unreadable), listed.damaged if whole else 0)
    report.skipped = listed.skipped | listing.lost
    for name, reason in unreadable.items():
        report.skip(name, reason)
    report.ignored, report.notes = listed.ignored, listed.notes
    return report


def extract(config: ExtractConfig) -> dict:
    """Make what is missing in ``config.out`` and return the manifest, which is written beside the shards.

    Raises ValueError when the folder holds another data set, the source is not what it should be, or a setting makes no
    sense.
    """
    _check(config)
    config = _absolute(config)
    with Console(stderr=True, markup=False).status("counting the frames"):
        source = remote.local(config.source)
        kind = frame_sources.kind_of(source) if config.kind == "auto" else config.kind
        if kind != "bag" and (config.topic or config.depth_topic):
            raise ValueError(f"{source} is of kind {kind}; --topic and --depth-topic are for bags only")
        stop = config.frames[1] if config.frames else None
        listing = frame_sources.list_frames(source, kind, config.split, config.topic, config.depth_topic, stop)
        chosen = listing.frames[slice(*(config.frames or (0, None)), config.every)]
        if not chosen:
            raise ValueError(f"--frames {config.frames} holds none of the {len(listing.frames)} frames of {source}")
        identity = _identity(config, kind, chosen)
    folder = shard_work.claim(config.out, identity)
    spans = shard_work.spans(len(chosen), config.shard_size)
    there = folder.names()
    missing = [
        (shard, images, chosen[images.start : images.stop])
        for shard, images in spans
        if not set(shards.names(shard, config.feature_maps)) <= there
    ]
    label, listing = f"extracting {remote.name_of(config.source)}", listing._replace(frames=[])
    if config.engine == "ray":
        cluster = ray_work.Cluster(config.workers, config.address)
        ray_work.make_shards(partial(_maker, config, listing, source), config.out, missing, len(chosen), cluster, label)
    else:
        shard_work.make_shards(partial(_writer, config, listing, source), missing, len(chosen), config.workers, label)
    manifest = {**identity, **_count(config, folder, [shard for shard, _ in spans]), "lost_files": listing.lost}
    reading = _reading(listing, len(chosen), manifest["unreadable"], whole=config.frames is None)
    manifest["reading"] = reading.as_json()
    shard_work.finish(config.out, manifest)
    return manifest


def _absolute(config: ExtractConfig) -> ExtractConfig:
    """The same for workers in other working folders."""
    brought = {name: value.absolute() for name, value in vars(config.proxies).items() if isinstance(value, Path)}
    return replace(config, source=remote.absolute(config.source), out=remote.absolute(config.out), proxies=replace(config.proxies, **brought))


def _check(config: ExtractConfig) -> None:
    for name in ("every", "workers", "shard_size"):
        if getattr(config, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected 1 or more")
    if config.frames is not None and not 0 <= config.frames[0] < config.frames[1]:
        raise ValueError(f"--frames is {config.frames}, expected the first frame and, larger, the one after the last")
    if config.address and config.engine != "ray":
        raise ValueError(f"--address is {config.address}, which is for --engine ray; add it, or leave --address out")


# ---- work -----------------------------------------------------------------------------------------------------------


def _writer(config: ExtractConfig, listing: FrameList, source: Path) -> shard_work.Maker:
    """Makes shards, and writes them."""
    make, folder = _maker(config, listing, source), ShardFolder(config.out)

    def write(shard: int, images: range, frames: list[Frame], tick) -> None:
        for name, content in make(shard, images, frames, tick).items():
            folder.write(name, content)

    return write


def _maker(config: ExtractConfig, listing: FrameList, source: Path) -> Callable[..., dict[str, bytes]]:
    """``source`` is where the frames of ``listing`` were found, perhaps on another machine than this one."""
    here = remote.local(config.source)
    frame_sources.require(here)
    extractor = registry.make_extractor(config.extractor, threads=1, flip=config.mirrored, size=config.depth_size, files=config.proxies)
    bag = listing.kind == "bag"
    read = BagReader(config.topic, config.depth_topic, listing.depth) if bag else FileReader(listing.index)
    moved = read if here == source else lambda frame: read(frame._replace(path=here / frame.path.relative_to(source)))
    return partial(make_shard, config, extractor, moved)


def make_shard(config: ExtractConfig, extractor, read, shard: int, images: range, frames: list[Frame], tick) -> dict[str, bytes]:
    """Frames to rows: the files of one shard by name, of the proxies of its frames; ``tick()`` after every frame. Writes nothing."""
    rows: shards.RowLists = {}
    maps: list[np.ndarray] = []
    unreadable: dict[str, str] = {}
    for index, frame in zip(images, frames, strict=True):
        try:
            image, depth, stamp = read(frame)
        except (ValueError, OSError) as error:
            unreadable[frame.name] = str(error)
        else:
            for person, row in _rows(config, extractor, index, image, depth, frame.name):
                if config.feature_maps:
                    row |= {"stamp": np.float64(stamp)}
                    maps.append(shards.feature_maps(person))
                shards.add_row(rows, row | {"name": frame.name})
        tick()
    return shards.pack(
        shard, images, rows, maps if config.feature_maps else None, views=1 + config.mirrored,
        unreadable=np.array(list(unreadable), np.str_),
        reasons=np.array(list(unreadable.values()), np.str_),
        backend=np.array(extractor.backend),
    )  # fmt: skip


def _rows(config: ExtractConfig, extractor, index: int, image: np.ndarray, depth: np.ndarray | None, name: str) -> list[tuple[PersonProxies, dict]]:
    """People of a picture and their rows. ``depth`` stays estimated, as in rendered data, or is read from --depth-maps; a camera's goes into
    ``sensor_depth``."""
    if config.depth_topic and depth is None:
        depth = np.zeros(image.shape[:2], np.float32)  # unknown everywhere: every row has the same names
    if depth is not None and depth.shape != image.shape[:2]:
        raise ValueError(
            f"depth image of {config.depth_topic} has shape {depth.shape}, the image {image.shape[:2]}; expected a depth "
            "topic that is aligned with the image (aligned_depth_to_color or so)"
        )
    people = hdnet.with_map_of(config.proxies.depth_maps, name, extractor(image), image.shape[:2])
    return [(person, shards.proxy_row(index, image.shape[:2], person, depth, config.depth_size)) for person in people]


# ---- manifest -------------------------------------------------------------------------------------------------------


def _identity(config: ExtractConfig, kind: str, frames: list[Frame]) -> dict:
    """What the content of a shard depends on. Where the source lies does not matter."""
    digest, sizes = hashlib.sha256(), {}
    for frame in frames:
        if frame.path not in sizes:
            sizes[frame.path] = frame.path.stat().st_size if frame.path.is_file() else 0
        digest.update(f"{frame.name}\t{frame.index}\t{sizes[frame.path]}\n".encode())
    return {
        "source": printable(remote.name_of(config.source)),
        "kind": kind,
        "split": config.split if kind in frame_sources.READERS else None,
        "frames": len(frames),
        "frames_sha256": digest.hexdigest(),
        "topic": config.topic,
        "depth_topic": config.depth_topic,
        "mirrored": config.mirrored,
        "shard_size": config.shard_size,
        "extractor": registry.identity(config.extractor, config.mirrored, config.depth_size, config.proxies),
        **shards.size_identity(config.depth_size),
        **({"feature_maps": True} if config.feature_maps else {}),  # folders without them stay valid
    }


def _count(config: ExtractConfig, folder: ShardFolder, numbers: list[int]) -> dict:
    """What the shards hold: people, frames without them, frames that could not be read and why."""
    people, seen, unreadable, backends = 0, 0, {}, set()
    for shard in numbers:
        with folder.open(shards.names(shard)[-1]) as file, np.load(file, allow_pickle=False) as data:
            index = data["index"] if "index" in data else np.zeros(0, np.int32)
            people, seen = people + len(index), seen + len(np.unique(index))
            unreadable |= dict(zip(data["unreadable"].tolist(), data["reasons"].tolist()))
            backends.add(str(data["backend"]))
            total = int(data["images"][1])
    return {
        "people": people,
        "frames_without_people": total - seen - len(unreadable),
        "unreadable": unreadable,
        "backends": sorted(backends),
        "hmr_ros": __version__,
        "selection": {"frames": config.frames, "every": config.every},
    }
