"""The result of `hmr-ros bench` for people: tables, targets, and one plot."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from hmr_ros.files import atomic_write
from hmr_ros.palette import PEOPLE

# What is to be reached on two x86-64 cores without a GPU at 640x480: largest ratio or time.
RATIO_ONE_PERSON = 0.7  # of MediaPipe Pose's frame
RATIO_FURTHER_PERSON = 0.5
NETWORKS_RATIO = 1.15  # of the networks' own time, where the ratios cannot be reached because of the landmark network alone
PEDESTRIANS_MS, TAIL_RATIO = 150.0, 2.0
NODE_ADDS_MS, BODY_MS, MARKERS_MS = 4.0, 1.0, 2.0
START_S = 6.0
GROWTH_KB = 1.0  # a frame: what the allocator moves about; the smallest thing that could leak, a body's joints, is larger


def targets(result: dict) -> list[dict]:
    """Name, value, largest value allowed, and whether it is reached, for everything that was measured."""
    one, crowd = (result.get("estimator", {}).get(name) for name in ("one", "pedestrians"))
    node = result.get("node", {}).get("one", {})
    path = result.get("message_path", {})
    found: list[tuple[str, float | None, float]] = []
    if one:
        found += [("one person: ratio to MediaPipe Pose, medians", one.get("ratio_to_mediapipe"), RATIO_ONE_PERSON),
                  ("one person: ratio to the networks' own time, medians", one["p50_ms"] / one["networks_p50_ms"], NETWORKS_RATIO)]  # fmt: skip
    if crowd:
        found += [("pedestrians: median of a frame, ms", crowd["p50_ms"], PEDESTRIANS_MS),
                  ("pedestrians: p95 over the median", crowd["p95_ms"] / crowd["p50_ms"], TAIL_RATIO)]  # fmt: skip
    if one and crowd and crowd["people_detected"] > one["people_detected"]:
        further = (crowd["p50_ms"] - one["p50_ms"]) / (crowd["people_detected"] - one["people_detected"])
        if "mediapipe" in one:
            found.append(("each further person: ratio to MediaPipe Pose's frame", further / one["mediapipe"]["p50_ms"], RATIO_FURTHER_PERSON))
    found += [
        ("one person: the node over the estimator, median, ms", node.get("in_turns", {}).get("added_p50_ms"), NODE_ADDS_MS),
        ("a body with vertices built and published, median, ms", path.get("BodyArray of one body with vertices", {}).get("p50_ms"), BODY_MS),
        ("markers of one body built and published, median, ms", path.get("markers of one body", {}).get("p50_ms"), MARKERS_MS),
        ("start of the node to its first result, warm caches, s", result.get("cold_start", {}).get("warm_caches_s"), START_S),
        ("memory of the node, growth, kB a frame", result.get("soak", {}).get("growth_kb_per_frame"), GROWTH_KB),
    ]
    return [{"name": name, "value": value, "at_most": most, "reached": value <= most} for name, value, most in found if value is not None]


def tables(result: dict) -> list[Table]:
    """One for each mode that ran, and the targets."""
    made = []
    if "estimator" in result:
        rows = {
            "frame p50 / p95 / p99, ms": _triple,
            "networks' own time, p50, ms": lambda r: _number(r["networks_p50_ms"]),
            "networks' share of all frames": lambda r: f"{r['networks_percent']:.0f} %",
            "people detected / with a body": lambda r: f"{r['people_detected']:.1f} / {r['people_with_a_body']:.1f}",
            "one person more, within the clip, ms": lambda r: _number(r["further_person_ms"]),
            "MediaPipe Pose p50 / p95 / p99, ms": lambda r: _triple(r.get("mediapipe")),
            "ratio of the medians": lambda r: _number(r.get("ratio_to_mediapipe"), 2),
        }
        made.append(_by_clip("estimator, steady state", result["estimator"], rows))
    if "node" in result:
        rows = {
            "highest rate with 5 % lost at most, Hz": lambda r: _number(r.get("highest_sustained_hz")),
            "in turns: image to BodyArray p50, ms": lambda r: _number(r["in_turns"]["node"]["p50_ms"]),
            "in turns: over the estimator p50, ms": lambda r: _number(r["in_turns"]["added_p50_ms"]),
        }
        made.append(_by_clip("node", result["node"], rows))
        table = Table(title="node at fixed rates")
        for title in ("clip", "Hz", "answers, Hz", "lost", "latency p50 / p95 / p99, ms", "jitter, ms", "CPU", "memory, MB"):
            table.add_column(title, justify="left" if title == "clip" else "right")
        for clip, found in result["node"].items():
            for rate, r in found["rates"].items():
                latency = _triple({name: r[f"latency_{name}"] for name in ("p50_ms", "p95_ms", "p99_ms")})
                table.add_row(clip, rate, _number(r["throughput_hz"]), f"{r['lost_percent']:.0f} %", latency, _number(r["jitter_ms"]),
                              f"{r['cpu_percent']:.0f} %", _number(r["memory_mb"], 0))  # fmt: skip
        made.append(table)
    if "message_path" in result:
        table = Table("", "p50 / p95 / p99, ms", title="built and published")
        for name, r in result["message_path"].items():
            table.add_row(name, _triple(r, 2))
        made.append(table)
    table = Table("", "measured", "at most", "", title="targets (two cores, no GPU, 640x480)")
    for row in result.get("targets", []):
        table.add_row(row["name"], _number(row["value"], 2), f"{row['at_most']:g}", "reached" if row["reached"] else "MISSED")
    return [*made, table]


def _by_clip(title: str, results: dict[str, dict], rows: dict) -> Table:
    table = Table("", title=title)
    for clip in results:
        table.add_column(clip, justify="right")
    for name, cell in rows.items():
        table.add_row(name, *map(cell, results.values()))
    return table


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _triple(percentiles: dict | None, digits: int = 1) -> str:
    return "-" if percentiles is None else " / ".join(_number(percentiles[name], digits) for name in ("p50_ms", "p95_ms", "p99_ms"))


def plot(result: dict, path: Path) -> Path | None:
    """PNG of what was measured: a frame's time with what the networks take of it, and the node's latency over the rate at which it is fed.

    None, and no file, where neither was measured.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(draw, result[mode]) for mode, draw in (("estimator", _draw_frames), ("node", _draw_rates)) if mode in result]
    if not panels:
        return None
    figure = Figure(figsize=(4.5 * len(panels), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (draw, measured) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        draw(axes, measured)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)
    return path


BLUE, ORANGE, GREEN, PINK = ([part / 255 for part in colour] for colour in PEOPLE[:4])


def _draw_frames(axes, clips: dict[str, dict]) -> None:
    labels = []
    for clip, ours in clips.items():
        bars = [(f"hmr_ros, {clip}", ours, BLUE)] + ([(f"MediaPipe Pose, {clip}", ours["mediapipe"], ORANGE)] if "mediapipe" in ours else [])
        for label, times, colour in bars:
            axes.barh(len(labels), times["p50_ms"], color=colour, height=0.7)
            axes.plot([times["p50_ms"], times["p95_ms"]], [len(labels)] * 2, color="0.3", linewidth=1.5, marker="|")
            if times is ours:
                axes.barh(len(labels), ours["networks_p50_ms"], color=GREEN, height=0.3)
            labels.append(label)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set(xlabel="ms a frame: median, line to p95; green: networks", xlim=(0, None))


def _draw_rates(axes, clips: dict[str, dict]) -> None:
    for (clip, found), colour in zip(clips.items(), (BLUE, ORANGE, GREEN, PINK) * len(clips)):
        rates = [(float(rate), row) for rate, row in found["rates"].items() if row["latency_p50_ms"] is not None]
        for name, style in (("p50", {}), ("p95", {"fillstyle": "none", "linestyle": ":"})):
            axes.plot([rate for rate, _ in rates], [row[f"latency_{name}_ms"] for _, row in rates], color=colour, marker="o", label=f"{clip}, {name}", **style)
        if found.get("highest_sustained_hz"):
            axes.axvline(found["highest_sustained_hz"], color=colour, linewidth=0.8)
    axes.set(xlabel="images a second; vertical: 5 % of them lost", ylabel="ms from image to BodyArray", xlim=(0, None), ylim=(0, None))
    axes.legend(fontsize="small", frameon=False)
