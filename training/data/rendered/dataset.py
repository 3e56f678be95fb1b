"""``hmr-ros data rendered``: pictures of synthetic people, proxies of them by the real detectors, and their exact truth.

Picture i depends on (seed, split, i) only and never on who makes it. Shards are written whole or not at all and are skipped
when they exist, so a killed run goes on where it stopped and no picture is made twice. See shards.py for what is stored.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console

from hmr_ros.files import write_picture
from hmr_ros.networks.paper.maps import MAP_SIZE
from hmr_ros.proxies import ProxyExtractor, registry
from hmr_ros.training.data import shard_work, shards
from hmr_ros.training.data.rendered.backgrounds import SUFFIXES, Backgrounds
from hmr_ros.training.data.rendered.new_cameras import RecordingMaker
from hmr_ros.training.data.rendered.poses import SPLITS
from hmr_ros.training.data.rendered.scene import CamerasName, RendererName, Scene, SceneConfig, SceneMaker, renderer_class
from hmr_ros.training.data.rendered.viewpoint import Viewpoint, ViewpointMaker

load, load_proxies, load_truth, load_activations = shards.load, shards.load_proxies, shards.load_truth, shards.load_activations


FIRST = 10  # pictures whose people a manifest identifies by a digest of their own: quick to compare


@dataclass(frozen=True)
class RenderedConfig:
    """Make training data: rendered people before photos, proxies by the real detectors, truth in separate files."""

    out: Path
    """Folder for shards and manifest.json; an unfinished run in it is continued."""
    count: int = 8000
    """Pictures."""
    seed: int = 0
    """Another seed is another data set."""
    split: Literal["train", "val", "test"] = "train"
    """Which motion clips and which backgrounds are used."""
    backgrounds: Path | None = None
    """Folder with photos without people (at least 10); without it, made-up rooms."""
    frozen: bool = False
    """Make the committed test split (frozen_test.json): count, seed, split, renderer and shares are its, and its hash is checked."""
    workers: int = 2
    """Processes, each with its own detectors on one thread; 1 works in this process."""
    shard_size: int = 200
    """Pictures a file."""
    save_images: int = 0
    """Keep the first so many pictures as JPEG."""
    depth_size: int = MAP_SIZE
    """Side of depth maps and masks in pixels; the "paper" preset of `hmr-ros train` wants 256."""
    small_people: bool = False
    """Look for small people in every picture, as in a photo, not only where one is to be expected, as in a stream."""
    renderer: RendererName = "painter"
    """What draws people: the home-made painter, which the embedded regressors were trained with, or "gl" (OpenGL on EGL; extra "gl")."""
    rough_camera: bool = False
    """Pictures of a robot's small camera: low resolution, defocus, motion, flicker, noise by gain; the default is milder."""
    cameras: CamerasName = "any"
    """Where cameras are: "any", or "robot": 0.3 to 2 m above the floor among people, who are often close, cut by the border or behind others."""
    recording: Annotated[Literal["", "robot_low", "ceiling", "fisheye_rectified"], tyro.conf.arg(name="scene")] = ""
    """Instead of single pictures a recording by a camera that training does not know (new_cameras.py): --count frames at 10 Hz."""
    viewpoint: Path | None = None
    """People before your own camera: a viewpoint.npz of `hmr-ros adapt`."""
    scene: SceneConfig = field(default_factory=SceneConfig)
    """What is drawn how often."""


def main(argv: list[str] | None = None) -> int:
    config = tyro.cli(RenderedConfig, args=argv, prog="hmr-ros data rendered")
    if config.frozen:
        config = frozen_config(config)
        expected, found = frozen_test()["backgrounds_sha256"], photos_sha256(photos_in(config.backgrounds))
        if found != expected:
            raise ValueError(
                f"--backgrounds {config.backgrounds} are not the photos of the frozen test split (sha256 {found[:8]}, expected "
                f"{expected[:8]}); collect them into an empty folder: python tools/collect_backgrounds.py FOLDER"
            )
    manifest = generate(config)
    Console(markup=False).print(summary(manifest))
    if config.frozen:
        differences = compare_with_frozen(manifest)
        Console(markup=False).print("this is the frozen test split" if not differences else f"not the frozen test split: {differences}")
        return 1 if differences else 0
    return 0


def frozen_test() -> dict:
    """The manifest of the committed test split: what was drawn how often, and the SHA-256 of its truth."""
    return json.loads((resources.files("hmr_ros.training") / "data" / "rendered" / "frozen_test.json").read_text())


def frozen_config(config: RenderedConfig) -> RenderedConfig:
    """The configuration that makes the frozen test split; folders and processes are the caller's."""
    frozen = frozen_test()
    scene = SceneConfig(**{name: _tuples(value) for name, value in frozen["scene"].items()})
    names = ("seed", "split", "shard_size", "small_people")
    return replace(config, count=frozen["images"], renderer="painter", rough_camera=False, cameras="any", scene=scene, **{name: frozen[name] for name in names})


def compare_with_frozen(manifest: dict) -> str:
    """What is different, "" where nothing is: other backgrounds, another body or another generator."""
    frozen = frozen_test()
    names = ("images", "people", "seed", "split", "backgrounds_sha256", "scene", "truth_sha256")
    return ", ".join(f"{name} {manifest[name]!r} instead of {frozen[name]!r}" for name in names if manifest[name] != frozen[name])


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def summary(manifest: dict) -> str:
    people, found = manifest["people"], manifest["detected"]
    return (
        f"{manifest['images']} pictures, {people} people, {found} found ({100 * found / max(people, 1):.1f} %), "
        f"{manifest['ghosts']} false positives, median joint error {manifest['median_joint_error_percent']:.2f} % "
        "of the diagonal"
    )


def picture(maker: SceneMaker | RecordingMaker | ViewpointMaker, seed: int, split: str, index: int) -> Scene:
    """Picture ``index`` of a data set."""
    if isinstance(maker, RecordingMaker):
        return maker.make(index)
    return maker.make(np.random.default_rng([seed, SPLITS.index(split), index]))


def generate(config: RenderedConfig) -> dict:
    """Make what is missing in ``config.out`` and return the manifest, which is written beside the shards.

    Raises ValueError when the folder holds another data set, or a setting makes no sense.
    """
    if config.count < 1 or config.shard_size < 1 or config.workers < 1:
        raise ValueError(
            f"count {config.count}, shard_size {config.shard_size} and workers {config.workers} must be at least 1"
        )
    Backgrounds(config.backgrounds, config.split)  # complains before anything is written
    identity = _identity(config)
    shard_work.claim(config.out, identity)
    spans = shard_work.spans(config.count, config.shard_size)
    missing = [(shard, images) for shard, images in spans if not shards.is_complete(config.out, shard, images)]
    shard_work.make_shards(partial(_maker, config), missing, config.count, config.workers, "rendered people")
    return _write_manifest(config, identity, [shard for shard, _ in spans])


# ---- work -----------------------------------------------------------------------------------------------------------


def render_shard(config: RenderedConfig, maker: SceneMaker | RecordingMaker | ViewpointMaker, extractor: ProxyExtractor, shard: int, images: range, tick):
    """Make the pictures of one shard, extract their proxies and write all files; ``tick()`` after every picture."""
    writer = shards.ShardWriter(config.depth_size)
    for index in images:
        scene = picture(maker, config.seed, config.split, index)
        writer.add(index, scene, extractor(scene.image, small_people=config.small_people))
        if index < config.save_images:
            write_picture(config.out / "images" / f"{index:06d}.jpg", scene.image)
        tick()
    writer.save(config.out, shard, images)


def _maker(config: RenderedConfig) -> shard_work.Maker:
    extractor = registry.make_extractor(threads=1, flip=True, size=config.depth_size)
    if config.recording:
        maker = RecordingMaker(config.recording, config.seed, config.backgrounds)
    else:
        maker = SceneMaker(config.split, config.backgrounds, config.scene, renderer=config.renderer, rough=config.rough_camera, cameras=config.cameras)
        if config.viewpoint:
            maker = ViewpointMaker(Viewpoint.load(config.viewpoint), maker)
    return partial(render_shard, config, maker, extractor)


# ---- manifest -------------------------------------------------------------------------------------------------------


def _identity(config: RenderedConfig) -> dict:
    """What the content of a shard depends on."""
    photos = photos_in(config.backgrounds)
    return {
        "seed": config.seed,
        "split": config.split,
        "shard_size": config.shard_size,
        "small_people": config.small_people,
        "backgrounds": len(photos),
        "backgrounds_sha256": photos_sha256(photos),
        "scene": json.loads(json.dumps(asdict(config.scene))),  # lists, as they are read back
        "extractor": registry.identity(flip=True, size=config.depth_size),
        **shards.size_identity(config.depth_size),
        **renderer_class(config.renderer).identity(),
        **({"rough_camera": True} if config.rough_camera else {}),
        **({"cameras": config.cameras} if config.cameras != "any" else {}),
        **({"recording": config.recording} if config.recording else {}),  # folders of pictures stay valid
        **({"viewpoint": hashlib.sha256(config.viewpoint.read_bytes()).hexdigest()} if config.viewpoint else {}),
    }


def photos_in(folder: Path | None) -> list[Path]:
    """The photos of a folder in the order that splits them; none without a folder."""
    return [] if folder is None else sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)


def photos_sha256(photos: list[Path]) -> str:
    """One SHA-256 over the contents of photos in this order, whatever they are called."""
    digest = hashlib.sha256()
    for path in photos:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _write_manifest(config: RenderedConfig, identity: dict, numbers: list[int]) -> dict:
    found: Counter[str] = Counter()
    false_negatives: Counter[str] = Counter()
    shares: Counter[str] = Counter()
    false_positives, errors, people = 0, [], []
    for shard in numbers:
        with np.load(shards.proxies_path(config.out, shard)) as proxies, np.load(
            shards.truth_path(config.out, shard)
        ) as truth:
            false_positives += int(proxies["ghosts"])
            for prefix, counter in (("", found), ("missed_", false_negatives)):
                if f"{prefix}category" not in truth:
                    continue
                category = truth[f"{prefix}category"]
                counter.update(category.tolist())
                shares["mocap"] += int((category == "mocap").sum())
                shares["several"] += int((truth[f"{prefix}people"] > 1).sum())
                for name in ("cut", "occluded"):
                    shares[name] += int(truth[f"{prefix}{name}"].sum())
                people += _fingerprints(truth, prefix)
            if "category" not in truth:
                continue
            seen = truth["visible"] & (proxies["keypoints"][..., 2] > 0.2)
            distance = np.linalg.norm(proxies["keypoints"][..., :2] - truth["keypoints2d"], axis=-1)
            diagonal = np.linalg.norm(np.ptp(truth["keypoints2d"], axis=1), axis=-1, keepdims=True)
            errors.append((distance / diagonal)[seen])
    total = found.total() + false_negatives.total()
    manifest = {
        **identity,
        "images": config.count,
        "people": total,
        "shares": {name: round(count / max(total, 1), 4) for name, count in sorted(shares.items())},
        "truth_sha256": digest_of(people),
        "first_truth_sha256": digest_of([person for person in people if int(person[:6]) < FIRST]),
        "detected": found.total(),
        "missed": false_negatives.total(),
        "ghosts": false_positives,
        "median_joint_error_percent": float(round(100 * np.median(np.concatenate(errors)), 3)) if errors else 0.0,
        "categories": {
            name: {"detected": found[name], "missed": false_negatives[name]} for name in sorted(found | false_negatives)
        },
    }
    shard_work.finish(config.out, manifest)
    return manifest


def _fingerprints(truth, prefix: str) -> list[str]:
    names = ("index", "category", "clip", "pose", "betas")
    return [fingerprint(*row) for row in zip(*(truth[f"{prefix}{name}"] for name in names))]


def fingerprint(index: int, category: str, clip: str, pose: np.ndarray, betas: np.ndarray) -> str:
    """A line that tells a person from others, whatever was detected: pose to a milliradian, shape to a thousandth."""
    values = np.rint(1000 * np.concatenate([np.ravel(pose), betas])).astype(np.int64)
    return f"{index:06d} {category} {clip} {' '.join(map(str, values))}"


def digest_of(people: list[str]) -> str:
    """SHA-256 of fingerprints in any order."""
    return hashlib.sha256("\n".join(sorted(people)).encode()).hexdigest()
