"""``hmr-ros bodies RECORDING --out FILE``: recorded bodies for other tools: our `.npz`, `.bvh`, AMASS-style `.npz`.

Without --out it lists who was recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from hmr_ros.io.bags import is_bag
from hmr_ros.io.body_bags import BodyBag
from hmr_ros.io.report import ReadReport, printable
from hmr_ros.motion.amass import write_amass
from hmr_ros.motion.bvh import write_bvh
from hmr_ros.motion.animation import animation_of
from hmr_ros.motion.motion import Motion, load_motion, motion_of

AMASS, BVH, NPZ = "_amass.npz", ".bvh", ".npz"


@dataclass(frozen=True)
class BodiesConfig:
    """Write recorded bodies for other tools."""

    recording: Annotated[Path, tyro.conf.Positional]
    """A bag with a BodyArray topic, or the .npz of this command or of `hmr-ros image`."""
    out: tuple[Path, ...] = ()
    """X.npz: everything, exactly; X.bvh: a skeleton for animation; X_amass.npz: AMASS' arrays. The last two hold one person: with several
    people their ids stand in the names (X.a1b2c.bvh)."""
    person: str | None = None
    """Only the person with this id."""
    topic: str = ""
    """BodyArray topic of the bag, where it has several."""
    rate: float = 0.0
    """Poses a second in .bvh and _amass.npz; 0: the recording's."""
    up: Literal["y", "z"] = "y"
    """Axis of _amass.npz that points up: y as in SMPL, z as in AMASS' own files."""

    def __post_init__(self):
        if not 0 <= self.rate <= 1000:
            raise ValueError(f"--rate is {self.rate}, expected 0 to 1000 poses a second")
        for path in self.out:
            if path.suffix not in (BVH, NPZ):
                raise ValueError(f"--out is {printable(path)}, expected a name that ends in {NPZ}, {BVH} or {AMASS}")


def main(argv: list[str]) -> int:
    """0: everything was read; 1: something was lost, the rest was written; 2: nothing could be read."""
    config = tyro.cli(BodiesConfig, args=argv, prog="hmr-ros bodies")
    console = Console(markup=False, highlight=False, soft_wrap=True)
    motion, report = read_motion(config.recording, config.topic)
    people = motion.ids if config.person is None else [config.person]
    if config.person is not None:
        motion = motion.track(config.person)
    if not config.out:
        console.print(_table(motion))
    elif not people:
        raise ValueError(f"{printable(config.recording)} has no bodies in {len(motion.times)} images, expected at least one")
    for path in config.out:
        for line in _write(path, motion, people, config):
            console.print(line)
    if report.exit_code or report.notes:
        console.print(f"{printable(config.recording)}: {report.line()}", style="red" if report.exit_code else "yellow")
    return report.exit_code


def read_motion(path: Path, topic: str = "") -> tuple[Motion, ReadReport]:
    """The bodies of a bag or `.npz`. ValueError for anything else."""
    report = ReadReport("recordings", promised=1)
    if not path.exists():
        raise FileNotFoundError(f"{printable(path)} does not exist")
    if not is_bag(path):
        motion = load_motion(path)
        report.read = 1
        return motion, report
    report, source = ReadReport(), "learned"
    frames = []
    with BodyBag(path, topic) as bag:
        for frame in bag.frames(report):
            frames.append((frame.index, frame.time, [_without_mesh(body) for body in frame.bodies]))
            source = frame.reliability_source
        name, sha256 = bag.body_model or ("unknown", "")
        if bag.body_model is None:
            report.note("no body_model was recorded: which body the betas belong to is not known")
        return motion_of(frames, name, sha256, source, bag.camera), report


def _without_mesh(body):
    """Meshes would fill the memory; the parameters give them back."""
    from dataclasses import replace

    return replace(body, vertices=body.vertices[:0])


def _write(path: Path, motion: Motion, people: list[str], config: BodiesConfig) -> list[str]:
    """Writes one kind of file; what was written, in lines."""
    if path.suffix == NPZ and not path.name.endswith(AMASS):
        motion.save(path)
        return [f"wrote {printable(path)}: {len(motion.rows['id'])} bodies of {len(people)} people"]
    lines = []
    for person in people:
        name = _named(path, person if len(people) > 1 else "")
        if path.suffix == BVH:
            animation = animation_of(motion, person, "y", config.rate or None)
            write_bvh(name, animation)
        else:
            animation = animation_of(motion, person, config.up, config.rate or None)
            write_amass(name, animation, motion.body_model, motion.sha256)
        lines.append(f"wrote {printable(name)}: {len(animation.rotations)} poses, {animation.rate:.4g} a second"
                     + "".join(f"; {note}" for note in animation.notes))  # fmt: skip
        if path.suffix == NPZ and "smpl" not in motion.body_model.lower():
            lines.append(f"betas in {printable(name)} are those of body model {motion.body_model}: in SMPL they mean nothing")
    return lines


def _named(path: Path, person: str) -> Path:
    """X.bvh → X.a1b2c.bvh, X_amass.npz → X.a1b2c_amass.npz."""
    if not person:
        return path
    ending = AMASS if path.name.endswith(AMASS) else path.suffix
    return path.with_name(f"{path.name.removesuffix(ending)}.{person}{ending}")


def _table(motion: Motion) -> Table:
    table = Table(title=f"{len(motion.times)} images, {motion.rate:.1f} a second; body model {motion.body_model}")
    for heading in ("person", "images", "from, s", "to, s", "distance, m", "mean reliability"):
        table.add_column(heading, justify="left" if heading == "person" else "right")
    begin = motion.times.min() if len(motion.times) else 0.0
    for person in motion.ids:
        rows = motion.track(person).rows
        depth = rows["translation"][:, 2]
        depth = depth[np.isfinite(depth)]
        table.add_row(person or "(no id)", str(len(rows["time"])), *(f"{t - begin:.2f}" for t in (rows["time"][0], rows["time"][-1])),
                      f"{np.median(depth):.2f}" if len(depth) else "-", f"{rows['reliability'].mean():.2f}")  # fmt: skip
    return table
