"""What ``hmr-ros eval rendered`` shows of its figures: tables for the terminal, plots for a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table

from hmr_ros.training.benchmarks.rendered.scores import PARTS, VIEWS

_PLOTTED = ("mean_pose", "mediapipe_corrected", "smplify", "ours")


def tables(result: dict) -> Group:
    """The figures of ``rendered_benchmark.run``, to print."""
    data, methods = result["data"], result["methods"]
    frozen = "the frozen test split" if data["is_frozen_test"] else "not the frozen test split"
    missed = ", ".join(f"{name} {count}" for name, count in data["missed_by_category"].items())
    shown = [
        f"{data['folder']} ({frozen}): {data['people']} people, {data['found']} found, {data['missed']} missed and counted "
        f"as the mean pose{f' ({missed})' if missed else ''}",
        _pose_table(methods),
        _parts_table(methods),
        _picture_table(methods),
        *(f"{row['label']}: {row['what']}" for row in methods.values()),
    ]
    if "reliability" in result:
        shown.append(_reliability_table(result["reliability"]))
    return Group(*shown)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _pose_table(methods: dict) -> Table:
    table = _table("MPJPE (PA: after alignment) in mm", ["all", "PA", "found", "PA", *VIEWS])
    for row in methods.values():
        groups = [(row["parts"] | row["views"])[name] for name in ("all", "found", *VIEWS)]
        both = [_number(group[key]) for group in groups[:2] for key in ("mpjpe", "pa_mpjpe")]
        table.add_row(row["label"], *both, *(_number(group["mpjpe"]) for group in groups[2:]))
    table.add_section()
    first = next(iter(methods.values()))
    counts = [str((first["parts"] | first["views"])[name]["people"]) for name in ("all", "found", *VIEWS)]
    table.add_row("people", counts[0], "", counts[1], "", *counts[2:])
    return table


def _parts_table(methods: dict) -> Table:
    names = PARTS[2:]
    table = _table("MPJPE in mm", names)
    for row in methods.values():
        table.add_row(row["label"], *(_number(row["parts"][name]["mpjpe"]) for name in names))
    table.add_section()
    table.add_row("people", *(str(next(iter(methods.values()))["parts"][name]["people"]) for name in names))
    return table


def _picture_table(methods: dict) -> Table:
    table = _table("Projection in % of the person's diagonal; T-pose", ["PCK 5", "PCK 10", "mean error", "shape mm", "s"])
    for row in methods.values():
        seen = row["projection"]
        shares = [_number(seen["pck_5"]), _number(seen["pck_10"]), _number(seen["mean_error_percent"], 2)]
        table.add_row(row["label"], *shares, _number(row["shape_mm"]), _number(row["seconds"]))
    return table


def _reliability_table(reliability: dict) -> Table:
    table = _table("Telling wrong joints from right ones: AUROC, ours, found people", ["reliability", "confidence"])
    rows = {
        f"3D: worst fifth, beyond {reliability['worst_3d_begins_at_mm']:.0f} mm": "auroc_worst_3d",
        "3D: worst fifth of each joint, mean": "auroc_worst_3d_mean_over_joints",
        "2D: detected wrongly, visible joints": "auroc_detected_wrong_visible",
        "2D: detected wrongly, all joints": "auroc_detected_wrong_all",
        f"calibration error, right to {100 * reliability['right_within_m']:.0f} cm": "ece",
    }
    for label, key in rows.items():
        table.add_row(label, *(_number(reliability[name][key], 3) for name in ("reliability", "detector_confidence")))
    return table


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def save_plots(result: dict, folder: Path) -> None:
    """yaw.png, categories.png and, with reliability, calibration.png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def figure(name: str, size: tuple[float, float], draw) -> None:
        figure = Figure(size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.subplots())
        figure.savefig(folder / name, dpi=120)

    shown = {name: row for name, row in result["methods"].items() if name in _PLOTTED} or result["methods"]
    figure("yaw.png", (8, 4.5), lambda axes: _plot_yaw(axes, shown))
    figure("categories.png", (8, 8), lambda axes: _plot_categories(axes, shown))
    if "reliability" in result:
        figure("calibration.png", (5, 5), lambda axes: _plot_calibration(axes, result["reliability"]))


def _plot_yaw(axes, methods: dict) -> None:
    for row in methods.values():
        bins = [some for some in row["yaw"] if some["people"]]
        axes.plot([some["from"] + 15 for some in bins], [some["mpjpe"] for some in bins], marker="o", label=row["label"])
    axes.set(xlabel="heading (degrees): 0 faces the viewer", ylabel="MPJPE (mm)", xlim=(-180, 180), ylim=(0, None))
    axes.set_xticks(range(-180, 181, 60))
    axes.grid(alpha=0.3)
    axes.legend()


def _plot_categories(axes, methods: dict) -> None:
    first = next(iter(methods.values()))["categories"]
    main = methods.get("ours", next(iter(methods.values())))["categories"]
    names = sorted(first, key=lambda name: main[name]["mpjpe"])
    thickness = 0.8 / len(methods)
    for number, row in enumerate(methods.values()):
        places = [place + thickness * (number - (len(methods) - 1) / 2) for place in range(len(names))]
        axes.barh(places, [row["categories"][name]["mpjpe"] for name in names], thickness, label=row["label"])
    axes.set_yticks(range(len(names)), [f"{name} ({first[name]['people']})" for name in names])
    axes.set(xlabel="MPJPE (mm)", ylim=(-0.6, len(names) - 0.4))
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")


def _plot_calibration(axes, reliability: dict) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    for name, label in (("reliability", "reliability"), ("detector_confidence", "detector's confidence")):
        rows, ece = reliability[name]["calibration"], reliability[name]["ece"]
        predicted, observed = ([row[key] for row in rows] for key in ("predicted", "observed"))
        axes.plot(predicted, observed, marker="o", label=f"{label} (ECE {ece:.3f})")
    observed_label = f"right to {100 * reliability['right_within_m']:.0f} cm"
    axes.set(xlabel="predicted", ylabel=observed_label, xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend()
