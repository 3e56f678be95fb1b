"""``hmr-ros adapt``: recordings of one's own camera in, a regressor that knows this camera out, and a report that says whether to take it.

    extract     the detectors' proxies of the recordings                                    (data/extract)
    teach       bodies fitted to whole tracks of the first part of each recording            (teacher.py, triangulation.py)
    mount       how the camera is mounted and where people stand, from these bodies          (mounting.py)
    render      people of whom everything is known before this camera, and before others     (data/rendered)
    learn       from all three                                                               (finetune.py, finetune_paper.py)
    calibrate   the lifter's reliability, on rendered people whom nothing was learned from   (reliability.py)
    report      the last part of each recording, which nothing was learned from              (scores.py, report.py)

No labels are read. Every step is resumed; the checkpoint is written beside the one it came from, never over it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro
from rich.console import Console
from torch import nn

import hmr_ros
from hmr_ros.body.model import BodyModel
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.camera import Camera
from hmr_ros.files import atomic_write, load_checkpoint, make_folder, save_checkpoint, write_json
from hmr_ros.io.bags import INFO_TYPE, Bag
from hmr_ros.io.camera_info import camera_from_message
from hmr_ros.io.report import printable
from hmr_ros.networks.checkpoints import DEFAULT, EMBEDDED, network_in
from hmr_ros.training.adaptation import mounting, report, scores
from hmr_ros.training.adaptation.adaptable import Adaptable, PersonViews
from hmr_ros.training.adaptation.finetune import AdaptableLifter, FinetuneConfig, blend
from hmr_ros.training.adaptation.finetune_paper import AdaptableResnet18
from hmr_ros.training.adaptation.recordings import USUAL_FIELD_OF_VIEW, People, load, split
from hmr_ros.training.adaptation.teacher import Labels, teach
from hmr_ros.training.adaptation.rig import Mount, read_rig
from hmr_ros.training.adaptation.triangulation import Triangulated, triangulated
from hmr_ros.training.data import shard_work
from hmr_ros.training.data.extract.extract import ExtractConfig, extract, summary
from hmr_ros.training.data.extract.frames import BagReader, FileReader, list_frames
from hmr_ros.training.data.rendered.dataset import RenderedConfig, generate
from hmr_ros.training.data.rendered.scene import SceneConfig
from hmr_ros.training.data.rendered.viewpoint import Viewpoint
from hmr_ros.training.lifter.samples import DEPTHS, load_feature_maps, load_people

_ADAPTABLE = {"lifter": AdaptableLifter, "resnet18": AdaptableResnet18}
_FRAMES = 40  # of a recording, that are looked at for its background
_HELD_OUT = 5  # of so many rendered pictures one is kept from learning, for the report
_CALIBRATION = 10  # of so many, another one, for the reliability
_REPLAY = SceneConfig(everyday=0.5, people=(0.55, 0.3, 0.15))  # as the embedded lifter's training data


@dataclass(frozen=True)
class AdaptConfig:
    """Make a regressor better for your own camera, from recordings without labels, with a report of what changed."""

    recordings: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Bags, videos or folders of pictures in order, each by a camera that stands still (or nearly)."""
    out: Path
    """Folder for the checkpoint, report.html, report.json and everything in between; an unfinished run in it is continued."""
    regressor: Literal["auto", "lifter", "resnet18"] = "auto"
    """auto: what the checkpoint holds, by default the lifter."""
    checkpoint: Path | None = None
    """The one to start from; default: the embedded one."""
    topic: str = ""
    """Of bags: the image topic, where they have several."""
    depth_topic: str = ""
    """Of bags: depth images aligned with the image topic: better bodies to learn from."""
    rig: Path | None = None
    """The recordings are of one scene, by calibrated cameras at the same time: JSON with their poses, or bags with /tf_static (docs/adapt.md). The
    joints of whom several see are triangulated: better bodies to learn from. Its cameras may name topics: several of one bag."""
    rectified: bool = False
    """Images of bags are rectified: CameraInfo's P counts, not K and the lens distortion."""
    fov: float | None = None
    """Horizontal field of view in degrees, of recordings without CameraInfo; 60 is assumed without it."""
    rate: float | None = None
    """Hz, of folders of pictures."""
    every: int = 1
    """Look at every so manieth frame only: 3 for 30 Hz."""
    held_out: float = 0.3
    """Share of each recording's time, its end, that is kept for the report."""
    gap: float = 2.0
    """Seconds between the two parts that belong to neither."""
    pictures: int = 3000
    """Rendered before your camera."""
    replay: int = 2000
    """Rendered before other cameras, so that these are not forgotten."""
    replay_data: tuple[Path, ...] = ()
    """Folders of `hmr-ros data rendered` instead of them."""
    backgrounds: Path | None = None
    """Folder with photos without people, for rendered pictures; without it, made-up rooms beside your camera's own background."""
    forgetting: float = 0.01
    """By what share rendered people before other cameras may get worse; as much of what was learned is kept."""
    steps: int = FinetuneConfig.steps
    """Of learning."""
    lr: float = FinetuneConfig.lr
    shares: tuple[float, float, float] = FinetuneConfig.shares
    """Of a batch: the recording with fitted bodies, people rendered before its camera, people before other cameras."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    workers: int = 2
    """Processes that extract and render."""
    seed: int = 0


def main(argv: list[str]) -> int:
    config = tyro.cli(AdaptConfig, args=argv, prog="hmr-ros adapt")
    console = Console(markup=False, highlight=False, soft_wrap=True)
    result = adapt(config, console)
    console.print(report.text(result))
    for line in report.of_reliability(result["reliability"]):
        console.print(line)
    console.print(f"{result['verdict']['result']}: {result['verdict']['why']}")
    weights = config.out / result["checkpoint"]["adapted"]
    console.print(f"{weights}, {config.out / 'report.html'}; on the robot: ros2 launch hmr_ros live.launch.py checkpoint:={weights}")
    return 0


def adapt(config: AdaptConfig, console: Console) -> dict:
    """Make what is missing in ``config.out`` and return the report.

    Raises ValueError where the recordings hold too little, or a setting makes no sense.
    """
    _check(config)
    path = config.out / "report.json"
    settings = {name: value for name, value in asdict(config).items() if name not in ("out", "workers")}
    settings = json.loads(json.dumps(settings, default=lambda path: printable(path.name)))
    settings["rig"] = config.rig and json.loads(config.rig.read_text())  # its poses, not its name
    if path.is_file():
        found = json.loads(path.read_text())
        if found["settings"] != settings:
            different = [name for name in settings if found["settings"].get(name) != settings[name]]
            raise ValueError(f"{path} is of a run with other settings ({', '.join(different)}); name another --out")
        return found
    make_folder(config.out)
    material = gather(config, console)
    network, share = learn(config, material, console)
    with console.status("the reliability"):
        rated = material.regressor.calibrate(network, material.calibration, material.rendered, material.skeleton, config.forgetting)
    return _concluded(config, material, network, {"blend": share, "reliability": rated}, settings)


class Material(NamedTuple):
    """What is learned from, and what the result is measured on."""

    checkpoint: Path
    regressor: Adaptable
    body: BodyModel
    skeleton: PosedKeypoints
    learned: dict[str, Any]  # ``ready`` views by the names of finetune.SOURCES
    first: scores.Part  # of the recordings: to learn from
    held: scores.Part  # their end
    calibration: dict[str, PersonViews]  # rendered people that the reliability is calibrated on, by the same names as
    rendered: dict[str, PersonViews]  # held-out rendered people: "viewpoint" before the recordings' cameras, "replay" before others
    about: dict  # facts for the report

    @property
    def before(self) -> nn.Module:
        return self.regressor.before


def gather(config: AdaptConfig, console: Console) -> Material:
    """Extract, teach, mount and render what is missing in ``config.out``."""
    checkpoint, regressor = _regressor(config)
    body, trained_with = BodyModel.load(None), regressor.body
    if not body.shares_betas_with(trained_with["sha256"]):
        raise ValueError(f"{checkpoint} was trained with body {trained_with['name']} ({trained_with['sha256'][:8]}), expected {body.name} "
                         f"({body.sha256[:8]}): people are rendered with that")  # fmt: skip
    skeleton = PosedKeypoints(body)
    people, lines = _extracted(config, console)
    rig = _rig(config)
    first, last = split(people, config.held_out, config.gap, together=bool(rig))
    with console.status("fitting bodies to the recordings"):
        seen = [triangulated(part, rig) for part in (first, last)]
        labels, fitted = (teach(regressor.before, skeleton, part, some.points) for part, some in zip((first, last), seen))
    console.print(f"{len(first)} detections of {len(np.unique(first.track))} tracks to learn from, of which {int(labels.kept.sum())} bodies are sure "
                  f"(left out: {_words(labels.left_out)}); {len(last)} detections of {len(np.unique(last.track))} tracks held out")  # fmt: skip
    taught = _taught(rig, first, seen[0])
    for camera in taught:
        console.print(report.of_rig(camera))
    viewpoints = [_mounted(config, console, number, first, labels, skeleton) for number in range(len(config.recordings))]
    own, other = _rendered(config, viewpoints)
    views = {"recording": regressor.views(first.rows | labels.truth(), first.maps, skeleton, np.flatnonzero(labels.kept), _depths(first))}
    calibration, rendered = {}, {}
    for name, folders in (("viewpoint", own), ("replay", other)):
        data, maps = load_people(folders), load_feature_maps(folders)
        index = np.asarray(data["index"])
        kept, calibrated = index % _HELD_OUT == _HELD_OUT - 1, index % _CALIBRATION == 0
        views[name] = regressor.views(data, maps, skeleton, np.flatnonzero(~kept & ~calibrated))
        if calibrated.any():  # of a handful of pictures these may show nobody
            calibration[name] = regressor.views(data, maps, skeleton, np.flatnonzero(calibrated))
        rendered[name] = regressor.held_out(data, maps, skeleton, np.flatnonzero(kept))
    with console.status("what was said of everybody before"):
        views["replay"] = regressor.as_before(views["replay"])
        learned = {name: regressor.ready(some) for name, some in views.items()}
    about = {
        "recordings": lines,
        "detections": {"learned": len(first), "sure": int(labels.kept.sum()), "left_out": labels.left_out, "held_out": len(last),
                       "triangulated": int((labels.kept & seen[0].known).sum())},
        "tracks": {"learned": len(np.unique(first.track)), "held_out": len(np.unique(last.track))},
        "views": {name: len(some) for name, some in views.items()},
        "cameras": [_described(view) for view in viewpoints],
        "rig": taught,
    }
    return Material(checkpoint, regressor, body, skeleton, learned, scores.Part(first, labels), scores.Part(last, fitted), calibration, rendered, about)


def learn(config: AdaptConfig, material: Material, console: Console) -> tuple[nn.Module, float]:
    """The adapted network, and the share of its weights that is new."""
    settings = FinetuneConfig(out=config.out / "learning", steps=config.steps, lr=config.lr, shares=config.shares, precision=config.precision,
                              seed=config.seed)  # fmt: skip
    regressor, skeleton = material.regressor, material.skeleton
    network = regressor.learn(settings, material.learned, skeleton, console)

    def for_others(some: nn.Module) -> dict[str, float]:
        errors = regressor.errors(some, material.rendered["replay"], skeleton)
        return {name: float(errors[name].mean()) for name in ("mpjpe", "pa_mpjpe")}

    return network, blend(network, material.before, for_others, config.forgetting)


def _regressor(config: AdaptConfig) -> tuple[Path, Adaptable]:
    """The checkpoint to start from, and the regressor in it. ValueError where that is another one than --regressor."""
    kind = None if config.regressor == "auto" else config.regressor
    checkpoint = Path(str(config.checkpoint or EMBEDDED[kind or DEFAULT]))
    found = network_in(checkpoint)
    if kind not in (None, found):
        raise ValueError(f"--regressor is {kind}, but {checkpoint} holds a {found}; leave --regressor out")
    return checkpoint, _ADAPTABLE[found](checkpoint)


def _check(config: AdaptConfig) -> None:
    if not config.recordings:
        raise ValueError("no recordings, expected bags, videos or folders of pictures")
    for name, least in (("pictures", 20), ("replay", 20), ("steps", 1), ("every", 1), ("workers", 1)):
        if getattr(config, name) < least and not (name == "replay" and config.replay_data):
            raise ValueError(f"--{name} is {getattr(config, name)}, expected at least {least}")
    if not 0.05 <= config.held_out <= 0.9:
        raise ValueError(f"--held-out is {config.held_out}, expected a share between 0.05 and 0.9")
    if config.fov is not None and not 10 <= config.fov <= 160:
        raise ValueError(f"--fov is {config.fov}, expected degrees between 10 and 160")
    _rig(config)
    if min(config.gap, config.forgetting, *config.shares) < 0 or not sum(config.shares):
        raise ValueError(f"--gap {config.gap}, --forgetting {config.forgetting} and --shares {config.shares} must not be negative")


# ---- the steps --------------------------------------------------------------------------------------------------------


def _extracted(config: AdaptConfig, console: Console) -> tuple[People, list[str]]:
    """Everybody in the recordings, and a line about what was read of each."""
    folders, cameras, lines = [], [], []
    for number, recording in enumerate(config.recordings):
        folders.append(config.out / f"recording-{number}")
        manifest = extract(_extraction(config, number))
        lines.append(summary(manifest))
        console.print(lines[-1])
        cameras.append(_camera(config, number, console))
    people = load(folders, config.rate, cameras)
    if rig := _rig(config):  # from here on all cameras have one clock
        people.rows["stamp"] += np.array([mount.clock for mount in rig])[people.recording]
    return people, lines


def _rig(config: AdaptConfig) -> tuple[Mount, ...]:
    return read_rig(config.rig, config.recordings, config.topic) if config.rig else ()


def _extraction(config: AdaptConfig, number: int) -> ExtractConfig:
    topic, depth_topic = config.topic, config.depth_topic
    if rig := _rig(config):
        topic, depth_topic = rig[number].topic or topic, rig[number].depth_topic or depth_topic
    return ExtractConfig(config.recordings[number], config.out / f"recording-{number}", topic=topic, depth_topic=depth_topic, every=config.every,
                         mirrored=True, feature_maps=True, workers=config.workers)  # fmt: skip


def _taught(rig: Sequence[Mount], people: People, seen: Triangulated) -> list[dict]:
    """Of each camera of the rig, how many of its detections are triangulated, and how well they re-project."""
    mine = people.recording == np.arange(len(rig))[:, None]
    return [{"name": mount.name, "detections": int(here.sum()), "triangulated": int((here & seen.known).sum()),
             "reprojection_mm": None if np.isnan(error) else round(1000 * float(error), 1)} for mount, here, error in zip(rig, mine, seen.errors)]  # fmt: skip


def _camera(config: AdaptConfig, number: int, console: Console) -> Camera | float:
    """Of the bag's CameraInfo, or the horizontal field of view that is told or assumed, degrees."""
    settings, recording = _extraction(config, number), config.recordings[number]
    if json.loads((settings.out / "manifest.json").read_text())["kind"] == "bag":
        with Bag(recording, settings.topic) as bag:
            infos = (message.decoded() for message in bag.messages() if message.type == INFO_TYPE)
            for info in islice(infos, 1) if bag.has_infos else ():
                camera = camera_from_message(info, int(info.width), int(info.height), config.rectified)
                if camera is not None:
                    return camera
    if config.fov is None:
        console.print(f"{printable(recording)} has no CameraInfo: a horizontal field of view of {USUAL_FIELD_OF_VIEW:g} degrees is assumed; say --fov")
    return config.fov or USUAL_FIELD_OF_VIEW


def _mounted(config: AdaptConfig, console: Console, number: int, people: People, labels: Labels, skeleton: PosedKeypoints) -> Path:
    """viewpoint-N.npz of one recording."""
    path = config.out / f"viewpoint-{number}.npz"
    here = np.flatnonzero(people.recording == number)
    if not path.is_file():
        seen = people.rows["index"][here]
        frames = _frames(config, number, int(seen.min()), int(seen.max()))
        view = mounting.estimate(people[here], labels.rows(here), skeleton, frames)
        with atomic_write(path) as partial:
            view.save(partial)
    view = Viewpoint.load(path)
    console.print(f"camera {number}: {view.height:.2f} m above the floor, looking {np.degrees(view.looking_down):.0f} degrees down, "
                  f"{'with its background' if len(view.plates) else 'moving, so without its background'}")  # fmt: skip
    return path


def _frames(config: AdaptConfig, number: int, first: int, last: int) -> list[np.ndarray]:
    """Pictures spread over the part to learn from."""
    settings = _extraction(config, number)
    manifest = json.loads((settings.out / "manifest.json").read_text())
    listing = list_frames(settings.source, manifest["kind"], topic=settings.topic)
    read = BagReader(settings.topic, "", {}) if manifest["kind"] == "bag" else FileReader()
    chosen, pictures = listing.frames[:: config.every], []
    for index in np.unique(np.linspace(first, last, _FRAMES).astype(int)):
        try:
            pictures.append(read(chosen[index]).image)
        except (ValueError, OSError):
            continue  # extraction has said so
    return [picture for picture in pictures if picture.shape == pictures[0].shape]


def _rendered(config: AdaptConfig, views: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Folders of people before the recordings' cameras, and before others."""
    own = []
    for number, view in enumerate(views):
        own.append(config.out / f"rendered-{number}")
        count = max(1, config.pictures // len(views))
        generate(RenderedConfig(own[-1], count, config.seed, backgrounds=config.backgrounds, workers=config.workers, shard_size=100, viewpoint=view))
    if config.replay_data:
        return own, list(config.replay_data)
    other = config.out / "replay"
    generate(RenderedConfig(other, config.replay, config.seed + 1000, backgrounds=config.backgrounds, workers=config.workers, shard_size=100, scene=_REPLAY))
    return own, [other]


def _concluded(config: AdaptConfig, material: Material, after: nn.Module, learned: dict, settings: dict) -> dict:
    """Measure both networks, write checkpoint and report. ``learned``: what it says of the learning."""
    checkpoint, regressor, before, held, skeleton = material.checkpoint, material.regressor, material.before, material.held, material.skeleton
    measured = [scores.measure(network, skeleton, held) for network in (before, after)]
    changes = {"recording": {name: scores.compare(measured[0][name], measured[1][name], held.people.track) for name in measured[0]}}
    for name, views in material.rendered.items():
        old, new = (regressor.errors(network, views, skeleton) for network in (before, after))
        changes[name] = {kind: scores.compare(old[kind], new[kind], np.asarray(views.person)) for kind in ("mpjpe", "pa_mpjpe")}
    changes = {part: {name: change for name, change in some.items() if change is not None} for part, some in changes.items()}
    result, why = scores.verdict(changes["recording"], changes["viewpoint"], changes["replay"])
    metadata = load_checkpoint(checkpoint)[1]
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    extractors = shard_work.extractors_of([config.out / f"recording-{number}" for number in range(len(config.recordings))])
    rated = learned["reliability"]["scores"] if learned["reliability"] else {}
    metadata.pop("pose_prior_sha256", None)  # of a resnet18 that leaves its pose decoder to the package; this one holds it
    metadata |= {
        "training": {"adapted_from": {"file": checkpoint.name, "sha256": sha256}, "settings": settings, "before": metadata.get("training"),
                     "extractors": extractors},
        "extractors": extractors,
        "scores": {f"{part}_{name}": change.after for part, some in changes.items() for name, change in some.items()}
        | {f"{part}_reliability_{name}": value for part, some in rated.items() for name, value in some["after"].items()},
        "version": hmr_ros.__version__,
    }
    content = {
        "settings": settings, "version": hmr_ros.__version__, "checkpoint": {"file": checkpoint.name, "sha256": sha256, "adapted": regressor.weights},
        **material.about, **learned,
        "verdict": {"result": result, "why": why},
        "changes": {part: {name: asdict(change) | {"verdict": change.verdict} for name, change in some.items()} for part, some in changes.items()},
    }  # fmt: skip
    save_checkpoint(config.out / regressor.weights, regressor.halved(after), metadata)
    pictures = report.pictures(held, (before, after), material.body, skeleton, measured, lambda number, index: _frames(config, number, index, index)[0])
    report.save(config.out / "report.html", content, pictures)
    write_json(config.out / "report.json", content)  # the last one: it says that the run is finished
    return content


def _depths(people: People) -> tuple[str, ...]:
    return DEPTHS if "sensor_depth" in people.rows else DEPTHS[:1]


def _described(path: Path) -> dict:
    view = Viewpoint.load(path)
    return {"height_m": round(view.height, 3), "looking_down_deg": round(float(np.degrees(view.looking_down)), 1),
            "roll_deg": round(float(np.degrees(view.roll)), 1), "background": bool(len(view.plates)), "noise_levels": round(view.noise, 1)}  # fmt: skip


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items() if count) or "none"
