"""``hmr-ros figures``: the paper's figures 2 to 5 made again, from rendered people with their truth and from real footage.

Nothing is picked by hand: who is shown follows from a rule that figures.md beside the pictures states, with the command and
the checkpoints' hashes. Bodies are the network's own words, without refinement.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import tyro
from rich.console import Console

import hmr_ros
from hmr_ros.networks.checkpoints import EMBEDDED
from hmr_ros.files import atomic_write, make_folder
from hmr_ros.geometry import matrix_from_rotvec
from hmr_ros.rasterizer import Backend, require
from hmr_ros.skeleton import LIMB_KEYPOINTS
from hmr_ros.training.paper.ablation import VARIANTS
from hmr_ros.training.metrics import mpjpe, pa_mpjpe
from hmr_ros.training.paper.figure_people import Painter, Rendered, Trained, grid, labelled, people_in_footage
from hmr_ros.training.paper.panels import depth_picture
from hmr_ros.training.paper.proxy_data import CHANGED, HARSH, corrupt, of_rows, trimmed
from hmr_ros.training.paper.train import WEIGHTS

Number = Literal[2, 3, 4, 5]
LARGEST = 300_000  # bytes of a picture
OUTLIER = 1.4  # metres: HARSH moves outliers by 1.5 and more, what else it moves by 0.5 at most
HIDDEN = 0.8  # of whom less than this share is seen counts as hidden
_SIDES = {2: 128, 3: 168, 4: 136, 5: 168}  # pixels of a panel
_DEPTHS = {"sensor_depth": "the simulated depth camera's depth", "depth": "the extractor's coarse depth"}


@dataclass(frozen=True)
class FiguresConfig:
    """Make the paper's figures 2 to 5 again: trimming, results with a second view, ablations side by side, failures."""

    data: Path
    """Folder of `hmr-ros data rendered` with its truth, such as the test split."""
    backgrounds: Path | None = None
    """The photos that data were made with; without photos leave it out."""
    ablation: Path | None = None
    """Folder that `hmr-ros ablate --out` wrote, for figure 4."""
    condition: Literal["clean", "harsh"] = "harsh"
    """Of the ablation's runs."""
    seed: int = 0
    """Of the ablation's runs."""
    footage: tuple[Path, ...] = ()
    """Videos, pictures or folders of pictures for figure 3; without them it shows rendered people only."""
    checkpoint: Path | None = None
    """A regressor.safetensors of `hmr-ros train` for figures 3 and 5, instead of the embedded one."""
    out: Path = Path("figures")
    """Folder for figure2.jpg to figure5.jpg and figures.md."""
    only: tuple[Number, ...] = get_args(Number)
    """Which figures."""
    rasterizer: Backend = "auto"
    """What draws the bodies: auto is numba; pytorch3d where it is installed."""
    people: int = 6
    """How many people of each kind a figure shows (figure 4: two fewer)."""


def run(config: FiguresConfig, command: str, console: Console) -> None:
    """Make the figures that ``config`` asks for. Raises FileNotFoundError or ValueError that say what to name or make."""
    if config.people < 3:
        raise ValueError(f"--people is {config.people}, expected at least 3")
    require(config.rasterizer)
    if 4 in config.only:
        _runs(config)  # before anything takes time
    benchmark = Rendered(config.data, config.backgrounds)
    trained = Trained.load(config.checkpoint or Path(str(EMBEDDED["resnet18"]))) if {3, 5} & set(config.only) else None
    make_folder(config.out)
    makers = {2: lambda: figure2(config, benchmark), 3: lambda: figure3(config, benchmark, trained),
              4: lambda: figure4(config, benchmark, console), 5: lambda: figure5(config, benchmark, trained)}  # fmt: skip
    for number in sorted(set(config.only)):
        with console.status(f"figure {number}"):
            picture, caption = makers[number]()
            save(picture, config.out / f"figure{number}.jpg")
        height, width = picture.shape[:2]
        made = f"{width} x {height} px; hmr_ros {hmr_ros.__version__}; made by\n`{command}`"
        _note(config.out / "figures.md", number, f"{caption}\n\n{made}")
        console.print(f"{config.out / f'figure{number}.jpg'}: {width} x {height} px", highlight=False)
    console.print(f"{config.out / 'figures.md'} says what they show and how people were chosen", highlight=False)


def figure2(config: FiguresConfig, benchmark: Rendered) -> tuple[np.ndarray, str]:
    """Depth maps before (first row) and after (second row) T_IQR, each normalised by itself."""
    source = "sensor_depth" if "sensor_depth" in benchmark.rows else "depth"
    measured = of_rows(benchmark.rows, source)
    before = corrupt(measured, HARSH)
    maps = [data.depth.float().numpy() for data in (before, trimmed(before)[0])]
    planted = (maps[0] - measured.depth.float().numpy()).max((1, 2)) > OUTLIER
    lowered = ((maps[0] - maps[1]) > CHANGED).sum((1, 2)) >= 0.01 * (maps[0] > 0).sum((1, 2))
    faulty = np.flatnonzero(planted & lowered)
    if not len(faulty):
        raise ValueError(f"nobody in {config.data} has outliers to trim; make more pictures, or leave figure 2 out by --only")
    shown = faulty[np.unique(np.linspace(0, len(faulty) - 1, config.people + 2).round().astype(int))]
    panels = [depth_picture(depth[row], _SIDES[2]) for depth in maps for row in shown]
    caption = (
        "Depth maps before (first row) and after (second row) trimming by T_IQR, each normalised by itself from its "
        f"nearest (dark) to its farthest value (bright). The depth is {_DEPTHS[source]}; the outliers are not its own but "
        "added by us: in half of the people a round part 1.5 to 8 m behind (training/paper/proxy_data.py, HARSH). Shown are "
        f"{len(shown)} people of `{config.data.name}`, evenly spaced in the order of pictures among the {len(faulty)} of "
        f"{planted.sum()} with outliers in whom trimming lowers 1 % of the pixels or more; in the others it changes hardly "
        "anything."
    )
    return grid(panels, len(shown)), caption


def figure3(config: FiguresConfig, benchmark: Rendered, trained: Trained) -> tuple[np.ndarray, str]:
    """Picture, body over it and body from the side: rendered people on the left, real ones on the right."""
    painter = Painter(_SIDES[3], config.rasterizer)
    chosen = benchmark.evenly(config.people if config.footage else 2 * config.people)
    prediction = painter.predict(trained, trained.people(benchmark.rows))
    errors = mpjpe(prediction.limbs, benchmark.truth.limbs[: len(prediction.limbs)])
    cells = []
    for row in chosen:
        picture = painter.picture(benchmark.image(row), benchmark.rows["crop"][row])
        panels = np.hstack([picture, *painter.body_panels(picture, prediction, row, benchmark.rows)])
        cells.append(labelled(panels, [f"rendered, {benchmark.rows['category'][row]}: {errors[row]:.0f} mm"]))
    real = []
    for path, count in zip(config.footage, _shares(config.people, len(config.footage))):
        if not count:
            continue
        rows, images = people_in_footage(path, count)
        prediction = painter.predict(trained, trained.people(rows, depth="depth"))
        for row, image in enumerate(images):
            picture = painter.picture(image, rows["crop"][row])
            panels = np.hstack([picture, *painter.body_panels(picture, prediction, row, rows)])
            real.append(labelled(panels, [f"real, {path.name}, picture {rows['index'][row]}"]))
    if real:
        empty = [np.full_like(cells[0], 255)]
        length = max(len(cells), len(real))
        left, right = (column + empty * (length - len(column)) for column in (cells, real))
        cells = [cell for pair in zip(left, right) for cell in pair]
    caption = (
        "Results with a second view: picture (grey is outside it), body over it, body from the side. Rendered people of "
        f"`{config.data.name}`: one of each of {len(chosen)} categories evenly spaced in their alphabetical list, the "
        f"middle one in the order of pictures; seen with {_DEPTHS[trained.depth]}; errors are MPJPE. "
        + (f"Real people (right half): {', '.join(f'`{path.name}`' for path in config.footage)} in equal spans, of each the first "
           "picture with somebody's torso, of that the person with the highest box; seen with the extractor's coarse depth. "
           if real else "No real footage was named. ")
        + f"One pass of the network, nothing refined. Checkpoint {_checkpoint(config, trained)}."
    )  # fmt: skip
    return grid(cells, 2, gap=12), caption


def figure4(config: FiguresConfig, benchmark: Rendered, console: Console) -> tuple[np.ndarray, str]:
    """The same people by every variant of the ablation that there is."""
    painter, runs = Painter(_SIDES[4], config.rasterizer), _runs(config)
    chosen = benchmark.evenly(config.people - 2)
    pictures = [painter.picture(benchmark.image(row), benchmark.rows["crop"][row]) for row in chosen]
    columns, hashes = [], []
    for name, path in runs.items():
        trained = Trained.load(path)
        people = trained.people(benchmark.rows, faults=True)
        prediction = painter.predict(trained, people)
        errors = mpjpe(prediction.limbs, benchmark.truth.limbs[: len(prediction.limbs)])
        if not columns:
            columns.append([labelled(np.vstack([picture, painter.proxies(people, row)]), [str(benchmark.rows["category"][row])])
                            for row, picture in zip(chosen, pictures)])  # fmt: skip
        columns.append([
            labelled(np.vstack(painter.body_panels(picture, prediction, row, benchmark.rows)), [f"{errors[row]:.0f} mm"])
            for row, picture in zip(chosen, pictures)
        ])  # fmt: skip
        hashes.append(f"{VARIANTS[name][0]} `{trained.sha256[:12]}` ({_steps(trained)}; all found people: {errors.mean():.1f} mm)")
    heads = [labelled(np.zeros((0, _SIDES[4], 3), np.uint8), [text])
             for text in ("picture, proxies", *(_SHORT.get(name, VARIANTS[name][0]) for name in runs))]  # fmt: skip
    missing = [name for name in VARIANTS if name not in runs]
    if missing:
        console.print(f"figure 4 lacks {', '.join(missing)}: `hmr-ros ablate` has not trained them, or not yet")
    caption = (
        "The paper's variants side by side, each body over the picture and from the side below, with its MPJPE; below the "
        f"picture the depth and joints that the first variant was given. {len(chosen)} people of `{config.data.name}`, one "
        "of each of as many categories evenly spaced in their alphabetical list, the middle one in the order of pictures; "
        f"proxies with the corruptions of the variants' training (`{config.condition}`). Seed {config.seed}; SHA-256 of the "
        f"weights and mean MPJPE: {'; '.join(hashes)}. "
        + (f"Not there, therefore not shown: {', '.join(missing)}." if missing else "All variants are shown.")
    )
    body = grid([cell for line in zip(*columns) for cell in line], len(columns))
    return np.vstack([grid(heads, len(heads)), body]), caption


_SHORT = {"no_uncertainty_no_trimming": "- uncert. - T_IQR", "no_uncertainty_no_sampling": "- uncert. - sampl."}


def figure5(config: FiguresConfig, benchmark: Rendered, trained: Trained) -> tuple[np.ndarray, str]:
    """The largest errors, of people who are hidden (left) and of people who are seen (right), and what the inputs were like."""
    painter, truth = Painter(_SIDES[5], config.rasterizer), benchmark.truth
    people = trained.people(benchmark.rows)
    prediction = painter.predict(trained, people)
    count = len(prediction.limbs)
    errors, aligned = mpjpe(prediction.limbs, truth.limbs[:count]), pa_mpjpe(prediction.limbs, truth.limbs[:count])
    seen, category = benchmark.rows["visible_fraction"], benchmark.rows["category"]
    order = np.argsort(-errors, kind="stable")
    hidden, plain = ([row for row in order if (seen[row] < HIDDEN) == kind][: config.people - 1] for kind in (True, False))
    joints = people.joints[:, list(LIMB_KEYPOINTS)].numpy()
    sure = joints[..., 2] > 0
    lost = (~sure).sum(1)
    off = 100 * np.linalg.norm(joints[..., :2] - truth.seen, axis=-1) / truth.diagonal[:, None]
    outside = (np.abs(truth.seen) > 1).any(-1).sum(1)
    true = matrix_from_rotvec(benchmark.rows["ray_orient"])
    turned = np.degrees(np.arccos(np.clip((np.einsum("nij,nij->n", prediction.rotations[:, 0], true) - 1) / 2, -1, 1)))

    def cell(row: int) -> np.ndarray:
        picture = painter.picture(benchmark.image(row), benchmark.rows["crop"][row])
        wrong = f", the others {off[row][sure[row]].mean():.0f} % off" if sure[row].any() else ""
        lines = [
            f"{category[row]}: {errors[row]:.0f} mm, aligned {aligned[row]:.0f}; body turned by {turned[row]:.0f} deg",
            f"{100 * (1 - seen[row]):.0f} % hidden; joints: {outside[row]} outside the crop, {lost[row]} not detected{wrong}",
        ]
        return labelled(np.hstack([picture, *painter.body_panels(picture, prediction, row, benchmark.rows)]), lines)

    left, right = ([cell(row) for row in rows] for rows in (hidden, plain))
    length = max(len(left), len(right))
    empty = np.full_like((left or right)[0], 255)
    cells = [c for pair in zip(*(some + [empty] * (length - len(some)) for some in (left, right))) for c in pair]
    caption = (
        f"Failures: picture, body over it, body from the side. Left: the {len(left)} largest MPJPE among people of "
        f"`{config.data.name}` of whom less than {100 * HIDDEN:.0f} % is seen (outside the picture, or behind objects and "
        f"people: {(seen < HIDDEN).sum()} of {count}, mean {_mean(errors[seen < HIDDEN])}); right: the {len(right)} "
        f"largest among the others (mean {_mean(errors[seen >= HIDDEN])}). Of the 12 limb joints: how many truly lie "
        "outside the crop, which is the detector's; how many were not detected; the others' mean distance from the true "
        "ones in percent of the box's diagonal. Grey is outside the picture. Found people only, as detected, with "
        f"{_DEPTHS[trained.depth]}; one pass, nothing refined. Checkpoint {_checkpoint(config, trained)}."
    )
    return grid(cells, 2, gap=12), caption


# ---- files and text -------------------------------------------------------------------------------------------------


def save(picture: np.ndarray, path: Path) -> None:
    """Write a JPEG of at most LARGEST bytes, as good as that allows, whole or not at all."""
    for quality in range(92, 19, -6):
        data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        if len(data) < LARGEST:
            break
    with atomic_write(path) as partial:
        partial.write_bytes(data.tobytes())


def _note(path: Path, number: int, text: str) -> None:
    """figures.md with this figure's part new and the others as they were."""
    before = path.read_text() if path.is_file() else ""
    parts = dict(re.findall(r"^## (figure\d\.jpg)\n\n(.*?)\s*(?=^## |\Z)", before, re.M | re.S))
    parts[f"figure{number}.jpg"] = text
    with atomic_write(path) as partial:
        partial.write_text("\n\n".join(f"## {name}\n\n{caption}" for name, caption in sorted(parts.items())) + "\n")


def _runs(config: FiguresConfig) -> dict[str, Path]:
    """Weights of the ablation's variants that are there, in the table's order."""
    if config.ablation is None:
        others = " ".join(str(number) for number in config.only if number != 4) or "2 3 5"
        raise ValueError(
            f"figure 4 needs the runs of `hmr-ros ablate`: name their folder by --ablation, or leave it out: --only {others}"
        )
    places = {name: config.ablation / config.condition / f"{name}-{config.seed}" / WEIGHTS for name in VARIANTS}
    runs = {name: path for name, path in places.items() if path.is_file()}
    if not runs:
        raise FileNotFoundError(
            f"no {next(iter(places.values()))}, nor that of another variant: figure 4 shows what `hmr-ros ablate --out "
            f"{config.ablation} --condition {config.condition}` trains; name its --ablation, --condition and --seed"
        )
    return runs


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (number < total % parts) for number in range(parts)] if parts else []


def _mean(errors: np.ndarray) -> str:
    return f"{errors.mean():.0f} mm" if len(errors) else "none"


def _checkpoint(config: FiguresConfig, trained: Trained) -> str:
    return f"`{(config.checkpoint or Path(str(EMBEDDED['resnet18']))).name}`, {_steps(trained)}, SHA-256 `{trained.sha256}`"


def _steps(trained: Trained) -> str:
    """How far training was: a run that is not over has weights as well."""
    return "training unknown" if trained.steps is None else f"{trained.steps} steps"


def main(argv: Sequence[str]) -> int:
    config = tyro.cli(FiguresConfig, args=list(argv), prog="hmr-ros figures")
    run(config, shlex.join(["hmr-ros", "figures", *argv]), Console(markup=False))
    return 0
