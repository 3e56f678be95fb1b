"""Writes the measured numbers of benchmarks/results/ into the pages that quote them, between marks; --check only compares.

    python tools/update_numbers.py [--check]

A mark is an HTML comment, <!-- numbers: NAME --> ... <!-- end -->; NAME is a key of BLOCKS. Nobody types a number.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

from hmr_ros.uncertainty import standard_deviations

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MARK = re.compile(r"(<!-- numbers: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

# The pages' words for keys of the JSON files.
METHODS = {
    "mean_pose": "mean pose",
    "mediapipe": "MediaPipe, raw",
    "mediapipe_corrected": "MediaPipe, corrected",
    "smplify": "SMPLify-like",
    "ours": "**ours**",
    "ours_unrefined": "ours, without refinement",
    "ours_30_steps": "ours, 30 refinement steps",
    "ours_flip": "ours, flip TTA",
    "ours_depth_camera": "ours, depth camera",
    "ours_ray_axes": "ours, ray axes taken for the camera's",
}
PARTS = {"found": "detected", "cut": "truncated", "several": "several people"}
OPTIONS = {
    "inputs: without appearance": "inputs: without BlazePose embedding",
    "inputs: not turned upright": "inputs: RoI not turned upright",
    "regularisation: no averaging of weights": "regularisation: no weight averaging (EMA)",
}


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]


def _read(name: str) -> dict:
    return json.loads((RESULTS / name).read_text())


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def _pair(scores: dict) -> str:
    return f"{scores['mpjpe']:.1f} / {scores['pa_mpjpe']:.1f}"


def _less(better: float, worse: float) -> str:
    return f"{100 * (1 - better / worse):.0f} %"


# ---- the lifter, on rendered people ------------------------------------------------------------------------------------


def _benchmark(parts: tuple[str, ...], methods: tuple[str, ...]) -> str:
    scored = _read("eval_rendered.json")["methods"]
    rows = [[METHODS[name], *(_pair(scored[name]["parts"][part]) for part in parts), f"{scored[name]['projection']['mean_error_percent']:.2f} %"]
            for name in methods]  # fmt: skip
    counts = [f"{PARTS.get(part, part)} ({scored['ours']['parts'][part]['people']})" for part in parts]
    return _table(["MPJPE / PA-MPJPE, mm", *counts, "2D error"], rows)


def headline() -> str:
    return _benchmark(
        ("all", "mocap", "everyday"), ("mean_pose", "mediapipe", "mediapipe_corrected", "smplify", "ours", "ours_flip", "ours_depth_camera", "ours_ray_axes")
    )


def benchmark() -> str:
    without = ("ours_unrefined", "ours_30_steps")  # in additions()
    return _benchmark(("all", "found", "mocap", "everyday", "cut", "occluded", "several"), tuple(name for name in METHODS if name not in without))


def additions() -> str:
    return _benchmark(("all", "mocap", "everyday", "cut"), ("ours_unrefined", "ours", "ours_30_steps", "ours_flip", "ours_depth_camera"))


def gains() -> str:
    scored = {name: method["parts"]["all"] for name, method in _read("eval_rendered.json")["methods"].items()}

    def below(name: str) -> list[str]:
        return [_less(scored["ours"][score], scored[name][score]) for score in ("mpjpe", "pa_mpjpe")]

    raw, corrected = below("mediapipe"), below("mediapipe_corrected")
    return (
        f"MPJPE is {raw[0]} and PA-MPJPE {raw[1]} below MediaPipe's raw world landmarks.\n"
        f"Against the corrected ones it is {corrected[0]} and {corrected[1]}."
    )


def position() -> str:
    result = _read("metric_position.json")
    words = {"image": "image alone", "stature": "stature given", "depth": "depth camera", "depth_stature_as_regressed": "depth camera, stature not corrected"}
    rows = []
    for name, label in words.items():
        row = result["settings"][name]["all"]
        rows.append([label, f"{100 * row['position_median_m']:.1f} / {100 * row['position_p90_m']:.1f} cm", f"{row['mpjpe_mm']:.1f} mm",
                     f"{row['stature_error_mm']:.0f} mm"])  # fmt: skip
    count = result["settings"]["image"]["all"]["people"]
    return _table([f"{count} people, 1 to 5 m away, 1.49 to 1.93 m tall", "position, median / p90", "MPJPE", "stature error, mean"], rows)


def covariance() -> str:
    """From the errors of each person and the standard deviations that the package states."""
    with (RESULTS / "position_errors.csv").open() as file:
        people = list(csv.DictReader(file))
    rows = []
    for setting, source, label in (("image", "apparent size", "apparent size"), ("stature", "known stature", "known stature (told)"), ("depth", "depth", "depth")):
        chosen = [row for row in people if (row["setting"], row["source"]) == (setting, source)]
        sigmas = [standard_deviations(source, float(row["distance"]), float(row["reliability"])) for row in chosen]
        cells = []
        for axis, columns in enumerate((("along",), ("across_x", "across_y"))):
            errors = [(abs(float(row[column])), sigma[axis]) for row, sigma in zip(chosen, sigmas) for column in columns]
            within = [sum(error < k * sigma for error, sigma in errors) / len(errors) for k in (1, 2)]
            rms = math.sqrt(sum(error**2 for error, _ in errors) / len(errors))
            cells += [f"{100 * rms:.1f} cm", f"{100 * median(sigma for _, sigma in errors):.1f} cm", f"{within[0]:.2f} / {within[1]:.2f}"]
        rows.append([label, str(len(chosen)), *cells])
    return _table(["distance from", "people", "along: RMS error", "median σ", "within 1 / 2 σ", "across: RMS error", "median σ", "within 1 / 2 σ"], rows)


def off_axis() -> str:
    angles = _read("metric_position.json")["settings"]["image"]["angle"]
    rows = [[f"{name}° ({row['people']})", f"{row['mpjpe_mm']:.1f}", f"{row['ray_axes_mpjpe_mm']:.1f}"] for name, row in angles.items()]
    return _table(["angle of the viewing ray (people)", "MPJPE in the camera's frame, mm", "ray axes taken for the camera's, mm"], rows)


def people() -> str:
    result = _read("eval_rendered.json")
    data = result["data"]
    return (
        f"{data['people']} people in {data['images']} images: {data['found']} detected, {data['missed']} false negatives (missed people), "
        f"{data['missed_by_category']['mocap']} of them in the mocap part. Axes: {result['definitions']['axes'].partition(',')[0]}."
    )


def reliability() -> str:
    columns = ("auroc_worst_3d", "auroc_worst_3d_mean_over_joints", "auroc_detected_wrong_visible", "auroc_detected_wrong_all", "ece")
    known = _read("eval_rendered.json")["reliability"]
    rows = [[label, *(f"{known[name][column]:.3f}" for column in columns)]
            for label, name in (("learned reliability", "reliability"), ("detector's confidence", "detector_confidence"))]  # fmt: skip
    header = ["AUROC for", "largest fifth of 3D errors", "the same, per joint", "wrong 2D joint, visible", "wrong 2D joint, all", "ECE"]
    return _table(header, rows)


def calibration() -> str:
    learned, detector = (_read("eval_rendered.json")["reliability"][name] for name in ("reliability", "detector_confidence"))
    return (
        f"Expected calibration error (ECE): {learned['ece']:.3f}. AUROC for the largest fifth of 3D errors: {learned['auroc_worst_3d']:.3f}; "
        f"the detector's confidence reaches {detector['auroc_worst_3d']:.3f}."
    )


def shape() -> str:
    methods = _read("eval_rendered.json")["methods"]
    return f"T-pose vertex error: {methods['ours']['shape_mm']:.1f} mm, against {methods['mean_pose']['shape_mm']:.1f} mm for the mean shape."


def left_out() -> str:
    result = _read("eval_left_out.json")
    with_, without = result["with_everyday"]["everyday"], result["methods"]["ours"]["parts"]["everyday"]
    ratio = [f"{without[name] / with_[name]:.2f}" for name in ("mpjpe", "pa_mpjpe")]
    rows = [["everyday poses and mocap", _pair(with_)], ["mocap only", _pair(without)], ["ratio", " / ".join(ratio)]]
    return _table(["training poses", "MPJPE / PA-MPJPE on everyday poses, mm"], rows)


def _options(file: str) -> str:
    rows = [
        [OPTIONS.get(name, name), str(row["people"]), _pair(row), f"{row['auroc']:.3f}", f"{row['loss']:.3f}"]
        for name, row in _read(file).items()
    ]
    return _table(["run", "people", "MPJPE / PA-MPJPE, mm", "AUROC", "training loss"], rows)


def options() -> str:
    return _options("lifter_options.json")


def networks() -> str:
    return _options("lifter_networks.json")


# ---- without labels ----------------------------------------------------------------------------------------------------


def _mean(row: dict, kind: str) -> str:
    """MPJPE / PA-MPJPE of everybody, with the deviation over seeds where there are several; "-" where it was not measured."""
    if kind not in row:
        return "-"
    several = len(row["runs"]) > 1 and not kind.endswith("mean_pose")  # no network takes part there: seeds do not differ
    return " / ".join(f"{s['mean']:.1f}" + (f" ± {s['std']:.1f}" if several else "") for s in row[kind]["all"].values())


def ablation() -> str:
    tables = [_read(f"ablation_{name}.json") for name in ("clean", "harsh", "harsh_extended", "harsh_long")]
    everything = tables[1]["variants"] | tables[2]["variants"]
    kinds = {"network": "{}", "refined": "{}, refined", "optimised_from_mean_pose": "mean pose, optimised"}
    rows = [["mean pose", *(_pair(table["mean_pose"]["all"]) for table in tables), ""]]
    for variant, row in everything.items():
        for kind, name in kinds.items():
            if kind in row:
                paper = _pair(row["paper_3dpw"]) if kind == "network" and "paper_3dpw" in row else ""
                rows.append([name.format(row["label"]), *(_mean(table["variants"].get(variant, {}), kind) for table in tables), paper])
    header = ["MPJPE / PA-MPJPE, mm", "A: clean", "B: harsh", "C: harsh, `extended`", "D: as C, 8,000 steps", "the paper's, 3DPW"]
    return _table(header, rows)


def reliability_without_labels() -> str:
    rows = []
    for label, name in zip("ABCD", ("clean", "harsh", "harsh_extended", "harsh_long")):
        runs = _read(f"ablation_{name}.json")["variants"]["ours"]["runs"]

        def mean(*path: str) -> str:
            values = runs
            for key in path:
                values = [value[key] for value in values]
            return f"{sum(values) / len(values):.3f}"

        rows.append([label, mean("reliability", "mean"), mean("auroc", "reliability", "worst_3d"),
                     *(mean("auroc_ceiling_worst_3d", inputs) for inputs in ("paper", "extended")),
                     mean("auroc", "detector_confidence", "worst_3d"), mean("auroc", "reliability", "detected_wrong"),
                     mean("auroc", "detector_confidence", "detected_wrong")])  # fmt: skip
    header = ["setting", "mean w", "3D: w", "3D: with labels, paper's inputs", "3D: with labels, extended inputs", "3D: detector",
              "2D: w", "2D: detector"]  # fmt: skip
    return _table(header, rows)


def longer() -> str:
    rows, optimised = [], {}
    for label, row in _read("ablation_longer.json").items():
        if label.startswith("width 32"):  # of an older preset: in the JSON file only
            continue
        rows.append([label, str(len(row["runs"])), *(_mean(row, kind) for kind in ("network", "refined", "fitted"))])
        if "fitted_from_mean_pose" in row:
            prefix = "coarse depth: " if row["runs"][0]["training"]["config"]["depth"] == "depth" else ""
            found = [prefix + "mean pose, optimised", "", "-", *(_mean(row, f"{kind}_from_mean_pose") for kind in ("optimised", "fitted"))]
            optimised.setdefault(prefix, found)
    return _table(["MPJPE / PA-MPJPE, mm", "seeds", "network", "refined by its losses", "refined by `hmr-ros fit`'s losses"], [*rows, *optimised.values()])


def relative() -> str:
    rows, mean = _read("ablation_longer.json"), _read("ablation_harsh_extended.json")["mean_pose"]["all"]["pa_mpjpe"]

    def below(kind: str, label: str, reference: float) -> str:
        return _less(rows[label][kind]["all"]["pa_mpjpe"]["mean"], reference)

    joints_only = rows["joints only"]["network"]["all"]["pa_mpjpe"]["mean"]
    names = (("network", "ours"), ("network", "ours, then pseudo-ground-truth"), ("fitted", "ours, then pseudo-ground-truth"))
    against_mean, against_joints = ([below(*name, reference) for name in names] for reference in (mean, joints_only))
    return (
        f"PA-MPJPE below the mean pose: {against_mean[0]} (ours), {against_mean[1]} (with pseudo-ground-truth), {against_mean[2]} (also refined).\n"
        f"PA-MPJPE below joints only: {against_joints[0]}, {against_joints[1]} and {against_joints[2]}."
    )


def prior() -> str:
    result = _read("pose_prior.json")
    rows = []
    for label, name in (("training poses", "training"), ("held-out mocap", "mocap"), ("held-out everyday poses", "everyday")):
        latent, part = result["latent"][name], result.get(name, {})
        error = f"{part['reconstruction_mm']:.1f}" if "reconstruction_mm" in part else "-"
        rows.append([label, error, f"{latent['ks_mean']:.3f}", f"{latent['correlation_max_abs']:.2f}", f"{100 * result['limits'][name]['share']:.1f} %"])
    rows.append(["decoded uniform samples", "-", "-", "-", f"{100 * result['limits']['decoded_samples']['share']:.1f} %"])
    return _table(["", "reconstruction, mm", "KS distance to uniform", "largest correlation of two codes", "beyond joint limits"], rows)


# ---- real images -------------------------------------------------------------------------------------------------------


def calibrated_clip() -> str:
    result = _read("calibrated_clip.json")
    words = {"lifter.safetensors": "embedded lifter", "unrefined": "without refinement"}
    rows = []
    for name, scores in result["methods"].items():
        for old, new in words.items():
            name = name.replace(old, new)
        place = f"{100 * scores['position_median_m']:.0f} cm" if "position_median_m" in scores else "-"
        rows.append([name, _pair(scores), f"{scores['ray_axes_mpjpe']:.1f}", place])
    distance = next(scores["distance_median_m"] for scores in result["methods"].values() if "distance_median_m" in scores)
    header = [f"{result['views']} views of {result['frames']} frames", "MPJPE / PA-MPJPE, mm", "MPJPE in ray axes, mm",
              f"position error, median, {distance:.1f} m away"]  # fmt: skip
    return _table(header, rows)


def footage() -> str:
    rows = []
    for label, name in (("photos", "reprojection.json"), ("vtest.avi, frames 600 to 794", "reprojection_video.json")):
        result = _read(name)
        mean = result["mean"]
        rows.append([label, str(len(result["people"])),
                     *(f"{100 * mean[joints][key]:.1f} %" for joints in ("all", "limbs") for key in ("ours", "mean_pose", "mean_pose_turned"))])  # fmt: skip
    header = ["re-projection error", "people", "all joints: ours", "mean pose", "mean pose, best heading", "limbs: ours", "mean pose", "mean pose, best heading"]
    return _table(header, rows)


def jitter() -> str:
    known = _read("reprojection_video.json")["jitter_mm_per_frame2"]
    return (
        f"Median acceleration: {known['median']:.0f} mm/frame² over {known['count']} triples of frames at {known['frames_a_second']:.0f} Hz, "
        "real motion included."
    )


def real_frames() -> str:
    rows = []
    for label, figures in _read("real_frames.json").items():
        held = figures["held_frames_percent"]
        rows.append([label, f"{held['all']:.2f} %", f"{held['limbs']:.2f} %", _pair(figures["rendered_mm"]["all"])])
    return _table(["network", "held-out frames, all joints", "limbs", "rendered, MPJPE / PA-MPJPE, mm"], rows)


# ---- speed -------------------------------------------------------------------------------------------------------------


def _ms(percentiles: dict) -> str:
    return " / ".join(f"{percentiles[name]:.0f}" for name in ("p50_ms", "p95_ms", "p99_ms"))


def speed() -> str:
    result = _read("bench.json")
    machine, one, node = result["machine"], result["estimator"]["one"], result["node"]["one"]
    sustained = f"up to {node['highest_sustained_hz']:.0f} Hz with 5 % of the frames lost" if node["highest_sustained_hz"] else "no rate with 5 % lost at most"
    return (
        "![Time of a frame beside MediaPipe Pose, and latency of the node over the rate of the images](benchmarks/results/bench.png)\n"
        f"Medians on {machine['cores']} {machine['architecture']} cores without a GPU, one moving person at 640x480: {one['p50_ms']:.0f} ms a frame "
        f"({one['mediapipe']['p50_ms']:.0f} ms for MediaPipe Pose),\n"
        f"{node['in_turns']['node']['p50_ms']:.0f} ms from image to `BodyArray`, {sustained} (`{result['command']}`, "
        f"[tables](docs/speed.md)). {machine['remark'].partition(':')[0]}."
    )


def engines() -> str:
    result = _read("engines.json")
    rows = [[e["network"], e["precision"], f"{e['onnx_bytes'] / 1e6:.1f}", f"{e['bytes'] / 1e6:.1f}", str(e["layers"]), f"{e['seconds']:.1f}"]
            for e in result["engines"]]  # fmt: skip
    table = _table(["network", "precision", "ONNX, MB", "engine, MB", "layers", "built in, s"], rows)
    return f"tensorrt_rtx {result['tensorrt_rtx']}, batches {', '.join(map(str, result['batches']))}, {result['date']} (`make engines`):\n\n{table}"


def speed_tables() -> str:
    result = _read("bench.json")
    clips = result["estimator"]
    rows = [
        ["a frame, p50 / p95 / p99, ms", *(_ms(found) for found in clips.values())],
        ["the networks alone, p50, ms", *(f"{found['networks_p50_ms']:.0f}" for found in clips.values())],
        ["MediaPipe Pose on the same frames, in turns", *(_ms(found["mediapipe"]) for found in clips.values())],
        ["ratio of the medians", *(f"{found['ratio_to_mediapipe']:.2f}" for found in clips.values())],
        ["people detected, mean", *(f"{found['people_detected']:.1f}" for found in clips.values())],
        ["node: highest rate with 5 % lost, Hz", *(f"{found['highest_sustained_hz'] or 0:.1f}" for found in result["node"].values())],
    ]
    rates = next(iter(result["node"].values()))["rates"]
    for rate in rates:
        cells = [f"{found['rates'][rate]['throughput_hz']:.1f} Hz; {_ms({key: found['rates'][rate][f'latency_{key}'] for key in ('p50_ms', 'p95_ms', 'p99_ms')})} ms"
                 for found in result["node"].values()]  # fmt: skip
        rows.append([f"node fed at {rate} Hz: answers; latency", *cells])
    found = _table(["clip", *clips], rows)
    aims = [[row["name"], f"{row['value']:.2f}", f"{row['at_most']:g}", "yes" if row["reached"] else "no"] for row in result["targets"]]
    regressor = _read("lifter_speed.json")["features and network p50 [ms]"]
    return (
        f"{found}\n\n{_table(['target', 'measured', 'at most', 'reached'], aims)}\n\n"
        f"{result['date']}, {result['machine']['cpu']}, {result['machine']['cores']} cores. {result['machine']['remark']}\n"
        f"The regressor alone takes {regressor:.1f} ms per person (`python benchmarks/lifter_speed.py`)."
    )


# ---- rendered people ---------------------------------------------------------------------------------------------------


def domain_gap() -> str:
    result = _read("domain_gap.json")
    rows = []
    for renderer, conditions in result["renderers"].items():
        for condition, found in conditions.items():
            cells = [f"{one['auc']:.2f} ({one['low']:.2f}-{one['high']:.2f})" for one in found["inputs"].values()]
            rows.append([f"{renderer}: {condition}", f"{100 * found['found']:.0f} %", *cells])
    return _table(["AUC (90 %)", "detected", "geometry", "embedding", "feature map"], rows)


def gl_training() -> str:
    result, rows = _read("gl_training.json"), []
    for name, seen in result["reprojection"].items():
        clip = [result["calibrated_clip"].get(f"{name}, {which}") for which in ("unrefined", "refined")]
        known = [result["validation"][renderer].get(name) for renderer in ("gl", "painter")]
        pairs = [_pair(scores) if scores else "-" for scores in clip] + ["{:.1f} / {:.1f}".format(*scores) if scores else "-" for scores in known]
        rows.append([name, *(f"{100 * seen[scenes]['limbs']:.2f} %" for scenes in ("photos", "vtest")), *pairs])
    return _table(["learned on from", "photos, limbs", "vtest, limbs", "clip, MPJPE / PA-MPJPE, mm", "clip, refined", "gl, validation", "painter, validation"], rows)


def joint_location() -> str:
    rows = []
    for name, found in _read("joint_errors.json")["sets"].items():
        if name == "painter, rough camera":  # only in the JSON file
            continue
        for what, curve in {"each other": found["agreement"]["MoveNet"], **found.get("truth", {})}.items():
            against = "MoveNet against BlazePose" if what == "each other" else f"{what} against truth"
            parts = [f"{100 * part['median']:.1f}" for part in curve["parts"].values()]
            rows.append([name, against, *(f"{100 * curve['all'][key]:.1f}" for key in ("median", "p90", "near")), *parts])
    return _table(["people", "what", "median", "90 %", "near", "shoulders", "elbows", "wrists", "hips", "knees", "ankles"], rows)


def joint_confidence() -> str:
    result = _read("joint_errors.json")
    bins = list(zip(result["bins"], result["bins"][1:]))
    rows = []
    for name, found in ((name, result["sets"][name]) for name in ("real", "gl", "calibrated clip")):
        kinds = {"near the other": found["agreement"]} | ({"near the truth": found["truth"]} if "truth" in found else {})
        for kind, curves in kinds.items():
            for detector, curve in curves.items():
                if detector == "merged":
                    continue
                shown = {(row["from"], row["to"]): f"{100 * row['near']:.0f} ({row['joints']})" for row in curve["by_confidence"]}
                rows.append([f"{name}: {detector} {kind}", *(shown.get(edges, "-") for edges in bins)])
    return _table(["confidence", *(f"{low:g}-{high:g}" for low, high in bins)], rows)


def third_opinion() -> str:
    result = _read("third_opinion.json")
    rows = [[name, *(f"{100 * scores[key]:.{digits}f} %" for scores in (part[name] for part in result["sets"].values())
                     for key, digits in (("mean", 2), ("median", 2), ("within_5", 1)))] for name in result["sets"]["test"]]  # fmt: skip
    table = _table(["2D error", *(f"{part}: {what}" for part in result["sets"] for what in ("mean", "median", "near"))], rows)
    times = ", ".join(f"{name} {ratio:.1f}" for name, ratio in result["time_over_blazepose"].items())
    weights = ", ".join(f"{name} {weight:g}" for name, weight in result["weights"].items())
    people = " and ".join(f"{count} {name}" for name, count in zip(result["sets"], result["people"]))
    gains = ", ".join(f"{100 * mean:.0f} % ({100 * low:.0f} to {100 * high:.0f}) {part}" for part, (mean, low, high) in result["gain"].items())
    return (f"{table}\n\n{people} people. Weights: {weights}. Mean error of all three below merged (90 %): {gains}.\n"
            f"Time in calls of BlazePose: {times}.")


def keypoint_offsets() -> str:
    result = _read("keypoint_offsets.json")
    rows = []
    for detector, parts in result["offsets_mm"].items():
        error = result["explained"][detector]
        rows.append([detector, *(" ".join(f"{value:.0f}" for value in part) for part in parts.values()),
                     *(f"{error[f'mean_{when}']:.1f} / {error[f'median_{when}']:.1f}" for when in ("before", "after"))])  # fmt: skip
    return _table(["offset, mm", *next(iter(result["offsets_mm"].values())), "2D error, mm", "without offset"], rows)


def refinement_ceiling() -> str:
    ways = _read("keypoint_offsets.json")["refinement"]
    return _table(["MPJPE / PA-MPJPE, mm", "validation, held-out half", "test pictures"], [[name, *map(_pair, parts.values())] for name, parts in ways.items()])


def adaptation() -> str:
    rows = []
    for name, found in _read("adaptation.json").items():
        before = found["rows"]["before"]
        for label, after in found["rows"].items():
            cells = [name, label]
            for part in ("held_out", "frozen_test"):
                pair = _pair(after[part])
                changes = " / ".join(f"{100 * (after[part][kind] / before[part][kind] - 1):+.1f} %" for kind in ("mpjpe", "pa_mpjpe"))
                cells += [pair, "" if label == "before" else changes]
            rows.append([*cells, f"{100 * after['blend']:.0f} %" if "blend" in after else ""])
    return _table(["camera", "", "held-out end, mm", "change", "frozen test split, mm", "change", "learned weights"], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    block.__name__: block
    for block in (headline, position, covariance, off_axis, benchmark, additions, gains, people, reliability, calibration, shape, left_out, options, networks, ablation,
                  reliability_without_labels, longer, relative, prior, calibrated_clip, footage, jitter, real_frames, speed, speed_tables, engines, domain_gap, gl_training, adaptation, joint_location, joint_confidence,
                  third_opinion, keypoint_offsets, refinement_ceiling)
}  # fmt: skip


def render(text: str) -> str:
    """The page with today's numbers between its marks."""
    return MARK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[3]}", text)


def main() -> int:
    stale = []
    for path in pages():
        text = path.read_text()
        if render(text) != text:
            stale.append(path.relative_to(ROOT).as_posix())
            if "--check" not in sys.argv:
                path.write_text(render(text))
    if stale:
        print(f"{'stale' if '--check' in sys.argv else 'written'}: {', '.join(stale)}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
