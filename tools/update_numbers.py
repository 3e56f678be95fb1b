"""Writes the measured numbers of benchmarks/results/*.json into the pages that quote them, between marks; --check only compares.

    python tools/update_numbers.py [--check]

A mark is an HTML comment, <!-- numbers: NAME --> ... <!-- end -->; NAME is a function of this file. Nobody types a number.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/model_card.md", "docs/experiments.md")
MARK = re.compile(r"(<!-- numbers: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _read(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text())


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def _pair(scores: dict) -> str:
    return f"{scores['mpjpe']:.1f} / {scores['pa_mpjpe']:.1f}"


def _gain(better: dict, worse: dict, name: str) -> str:
    return f"{100 * (1 - better[name] / worse[name]):.0f} %"


def _benchmark(parts: tuple[str, ...], methods: tuple[str, ...] | None = None) -> str:
    result = _read("eval_rendered.json")
    rows = []
    for name, method in result["methods"].items():
        if methods is None or name in methods:
            label = f"**{method['label']}**" if name == "ours" else method["label"]
            error = method["projection"]["mean_error_percent"]
            rows.append([label, *(_pair(method["parts"][part]) for part in parts), f"{error:.2f} %"])
    counts = [f"{part} ({result['methods']['ours']['parts'][part]['people']})" for part in parts]
    return _table(["MPJPE / PA-MPJPE, mm", *counts, "2D"], rows)


def headline() -> str:
    return _benchmark(
        ("all", "mocap", "everyday"), ("mean_pose", "mediapipe", "mediapipe_corrected", "smplify", "ours", "ours_flip", "ours_depth_camera")
    )


def benchmark() -> str:
    return _benchmark(("all", "found", "mocap", "everyday", "cut", "occluded", "several"))


def gains() -> str:
    methods = _read("eval_rendered.json")["methods"]
    rows = []
    for part in ("all", "mocap", "everyday"):
        ours = [methods[name]["parts"][part] for name in ("ours", "ours_flip")]
        for label, baseline in (("raw", "mediapipe"), ("corrected", "mediapipe_corrected")):
            other = methods[baseline]["parts"][part]
            rows.append([part, f"MediaPipe, {label}", *(_gain(some, other, n) for some in ours for n in ("mpjpe", "pa_mpjpe"))])
    return _table(["part", "better than", "MPJPE", "PA-MPJPE", "mirrored: MPJPE", "mirrored: PA-MPJPE"], rows)


def views() -> str:
    methods = _read("eval_rendered.json")["methods"]
    names = ("mediapipe", "ours", "ours_flip")
    rows = [[view, *(_pair(methods[name]["views"][view]) for name in names)] for view in methods["ours"]["views"]]
    rows += [[f"{name} ({scores['people']})", *(_pair(methods[n]["categories"][name]) for n in names)]
             for name, scores in methods["ours"]["categories"].items()]  # fmt: skip
    return _table(["view, category (people)", *(methods[name]["label"] for name in names)], rows)


def reliability() -> str:
    known = _read("eval_rendered.json")["reliability"]
    rows = []
    for label, name in (("learned reliability", "reliability"), ("detector's confidence", "detector_confidence")):
        some = known[name]
        columns = ("auroc_worst_3d", "auroc_worst_3d_mean_over_joints", "auroc_detected_wrong_visible", "auroc_detected_wrong_all", "ece")
        rows.append([label, *(f"{some[column]:.3f}" for column in columns)])
    header = ["", "AUROC worst fifth in 3D", "the same, joint by joint", "2D wrong, visible", "2D wrong, all", "calibration error"]
    return _table(header, rows)


def people() -> str:
    data = _read("eval_rendered.json")["data"]
    missed = ", ".join(f"{name} {count}" for name, count in sorted(data["missed_by_category"].items(), key=lambda item: -item[1]))
    return f"{data['people']} people in {data['images']} pictures, {data['found']} found, {data['missed']} missed ({missed})."


def options(file: str = "lifter_options.json") -> str:
    rows = [
        [name, str(row["people"]), f"{row['mpjpe']:.1f}", f"{row['pa_mpjpe']:.1f}", f"{row['auroc']:.3f}", f"{row['loss']:.3f}"]
        for name, row in _read(file).items()
    ]
    return _table(["run", "people", "MPJPE", "PA-MPJPE", "AUROC", "training loss"], rows)


def networks() -> str:
    return options("lifter_networks.json")


def shape() -> str:
    methods = _read("eval_rendered.json")["methods"]
    return f"{methods['ours']['shape_mm']:.1f} mm, {methods['mean_pose']['shape_mm']:.1f} mm with the mean body."


def jitter() -> str:
    known = _read("reprojection_video.json")["jitter_mm_per_frame2"]
    return (
        f"{known['median']:.0f} mm/frame² in the median of {known['count']} times three frames at {known['frames_a_second']:.0f} Hz, "
        "what people really do included."
    )


def left_out() -> str:
    result = _read("eval_left_out.json")
    with_, without = result["with_everyday"]["everyday"], result["methods"]["ours"]["parts"]["everyday"]
    ratio = [f"{without[name] / with_[name]:.2f}" for name in ("mpjpe", "pa_mpjpe")]
    return f"{_pair(without)} instead of {_pair(with_)} mm on the everyday part: {ratio[0]} and {ratio[1]} times."


def footage() -> str:
    rows = []
    for label, name in (("photos", "reprojection.json"), ("vtest.avi, frames 600 to 794", "reprojection_video.json")):
        result = _read(name)
        mean = result["mean"]
        rows.append([label, str(len(result["people"])),
                     *(f"{100 * mean[joints][key]:.1f} %" for joints in ("all", "limbs") for key in ("ours", "mean_pose", "mean_pose_turned"))])  # fmt: skip
    header = ["", "people", "all joints", "mean pose", "turned", "limbs", "mean pose", "turned"]
    return _table(header, rows)


def _spread(scores: dict, runs: int) -> list[str]:
    return [f"{score['mean']:.1f}" + (f" ± {score['std']:.1f}" if runs > 1 else "") for score in scores["all"].values()]


def _ablation(name: str) -> str:
    result = _read(name)
    rows = [["mean pose", *(f"{value:.1f}" for value in result["mean_pose"]["all"].values()), ""]]
    kinds = {"network": "", "refined": ", refined by its own losses", "optimised_from_mean_pose": "'s losses, optimised from the mean pose"}
    for variant in result["variants"].values():
        for kind, what in kinds.items():
            if kind in variant:
                paper = _pair(variant["paper_3dpw"]) if kind == "network" and "paper_3dpw" in variant else ""
                rows.append([variant["label"] + what, *_spread(variant[kind], len(variant["runs"])), paper])
    return _table(["variant", "MPJPE", "PA-MPJPE", "the paper's, on 3DPW"], rows)


def calibrated_clip() -> str:
    result = _read("calibrated_clip.json")
    return _table([f"{result['views']} views of {result['frames']} frames", "MPJPE / PA-MPJPE, mm"],
                  [[name, _pair(scores)] for name, scores in result["methods"].items()])  # fmt: skip


def ablation_clean() -> str:
    return _ablation("ablation_clean.json")


def ablation_harsh() -> str:
    return _ablation("ablation_harsh.json")


def ablation_harsh_extended() -> str:
    return _ablation("ablation_harsh_extended.json")


def ablation_harsh_long() -> str:
    return _ablation("ablation_harsh_long.json")


def reliability_without_labels() -> str:
    rows = []
    for name in ("clean", "harsh", "harsh_extended", "harsh_long"):
        runs = _read(f"ablation_{name}.json")["variants"]["ours"]["runs"]

        def mean(*path: str) -> str:
            values = runs
            for key in path:
                values = [value[key] for value in values]
            return f"{sum(values) / len(values):.3f}"

        rows.append([name.replace("_", ", "), mean("reliability", "mean"), mean("auroc", "reliability", "worst_3d"),
                     *(mean("auroc_ceiling_worst_3d", inputs) for inputs in ("paper", "extended")),
                     mean("auroc", "detector_confidence", "worst_3d"), mean("auroc", "reliability", "detected_wrong"),
                     mean("auroc", "detector_confidence", "detected_wrong")])  # fmt: skip
    header = ["proxies", "mean w", "AUROC, worst fifth in 3D", "ceiling, the paper's inputs", "ceiling, extended inputs",
              "detector's confidence", "AUROC, detected at the wrong place", "detector's confidence"]  # fmt: skip
    return _table(header, rows)


def longer() -> str:
    kinds = {"network": "", "refined": ", refined", "fitted": ", refined by the losses of `hmr-ros fit`",
             "optimised_from_mean_pose": "mean pose, optimised by ours's losses",
             "fitted_from_mean_pose": "mean pose, optimised by the losses of `hmr-ros fit`"}  # fmt: skip
    rows = []
    for label, row in _read("ablation_longer.json").items():
        depth = row["runs"][0]["training"]["config"]["depth"]
        for kind, what in kinds.items():
            if kind in row:
                from_mean_pose = kind.endswith("mean_pose")  # no network has a say: once is enough
                several = len(row["runs"]) > 1 and not from_mean_pose
                scores = [f"{s['mean']:.1f}" + (f" ± {s['std']:.1f}" if several else "") for s in row[kind]["all"].values()]
                shown = [what + (" on the coarse depth" if depth == "depth" else ""), "", *scores] if from_mean_pose else [label + what, str(len(row["runs"])), *scores]
                rows += [shown] if shown[0] not in (row[0] for row in rows) else []
    return _table(["run", "seeds", "MPJPE", "PA-MPJPE"], rows)


def real_frames() -> str:
    rows = []
    for label, figures in _read("real_frames.json").items():
        held = figures["held_frames_percent"]
        rows.append([label, f"{held['all']:.2f} %", f"{held['limbs']:.2f} %", *(f"{v:.1f}" for v in figures["rendered_mm"]["all"].values())])
    return _table(["", "held-out frames, all joints", "limbs", "rendered, MPJPE", "PA-MPJPE"], rows)


def latency() -> str:
    result = _read("node_overhead.json")
    return (
        f"{result['bare estimator p50 [ms]']:.0f} ms a frame for the bare estimator, {result['image to BodyArray p50 [ms]']:.0f} ms "
        "from image to `BodyArray` through the node (medians;\n`python benchmarks/node_overhead.py`); of it "
        f"{_read('lifter_speed.json')['features and network p50 [ms]']:.1f} ms for the regression of a person "
        "(`python benchmarks/lifter_speed.py`)."
    )


def render(text: str) -> str:
    """The page with today's numbers between its marks."""
    return MARK.sub(lambda found: f"{found[1]}{globals()[found[2]]()}\n{found[3]}", text)


def main() -> int:
    stale = []
    for page in PAGES:
        path = ROOT / page
        text = path.read_text()
        if render(text) != text:
            stale.append(page)
            if "--check" not in sys.argv:
                path.write_text(render(text))
    if stale:
        print(f"{'stale' if '--check' in sys.argv else 'written'}: {', '.join(stale)}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
